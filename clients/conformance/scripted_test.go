package conformance

import (
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// scripted is a gRPC server that says what a test wants said.
type scripted struct {
	linksgatev1.UnimplementedNotificationServiceServer
	address   string
	subscribe func(*linksgatev1.SubscribeRequest, grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error

	mu    sync.Mutex
	calls []call // mu
}

// call is one Subscribe.
type call struct {
	request  *linksgatev1.SubscribeRequest
	metadata metadata.MD
	at       time.Time
}

// Subscribe implements [linksgatev1.NotificationServiceServer].
func (s *scripted) Subscribe(request *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
	headers, _ := metadata.FromIncomingContext(stream.Context())
	s.mu.Lock()
	s.calls = append(s.calls, call{request, headers, time.Now()})
	s.mu.Unlock()
	return s.subscribe(request, stream)
}

func (s *scripted) called() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]call(nil), s.calls...)
}

type subscriber = func(*linksgatev1.SubscribeRequest, grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error

func startScripted(t *testing.T, config *tls.Config, subscribe subscriber) *scripted {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{address: listener.Addr().String(), subscribe: subscribe}
	options := []grpc.ServerOption{grpc.MaxSendMsgSize(128 << 20)}
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	server := grpc.NewServer(options...)
	linksgatev1.RegisterNotificationServiceServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return s
}

func confirmed() *linksgatev1.SubscribeResponse {
	return &linksgatev1.SubscribeResponse{Token: "start", Frame: &linksgatev1.SubscribeResponse_Confirmed{
		Confirmed: &linksgatev1.SubscriptionConfirmed{LogId: "log", HeartbeatInterval: durationpb.New(time.Second)},
	}}
}

func batch(token string, notifications ...*linksgatev1.Notification) *linksgatev1.SubscribeResponse {
	return &linksgatev1.SubscribeResponse{Token: token, Frame: &linksgatev1.SubscribeResponse_Batch{
		Batch: &linksgatev1.NotificationBatch{Notifications: notifications},
	}}
}

func numbered(id string, body string) *linksgatev1.Notification {
	return &linksgatev1.Notification{
		Id: id, Token: "token-" + id, Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED,
		Raw: &linksgatev1.Notification_Body{Body: body},
	}
}

func completed() *linksgatev1.SubscribeResponse {
	return &linksgatev1.SubscribeResponse{Token: "end", Frame: &linksgatev1.SubscribeResponse_Closing{
		Closing: &linksgatev1.Closing{Reason: linksgatev1.ClosingReason_CLOSING_REASON_COMPLETED},
	}}
}

// sayAll sends frames.
func sayAll(stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse], frames ...*linksgatev1.SubscribeResponse) error {
	for _, frame := range frames {
		if err := stream.Send(frame); err != nil {
			return err
		}
	}
	return nil
}

// refusal is an error as a gateway makes it.
func refusal(code codes.Code, reason string, metadata map[string]string, details ...protoadapt.MessageV1) error {
	info := &errdetails.ErrorInfo{Domain: "linksgate", Reason: reason, Metadata: metadata}
	st, err := status.New(code, "scripted").WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		return err
	}
	return st.Err()
}
