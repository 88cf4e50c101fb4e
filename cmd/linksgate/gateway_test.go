package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// gateway is a NotificationService over a log in memory, whose streams break as
// the test plans it. The token t3 stands after the third notification.
type gateway struct {
	linksgatev1.UnimplementedNotificationServiceServer
	address   string
	heartbeat time.Duration

	mu       sync.Mutex
	log      []*linksgatev1.Notification
	breaks   []breakage // of the first streams; those after them are served whole
	requests []*linksgatev1.SubscribeRequest
	conns    map[string]net.Conn // by the client's address
}

// breakage ends a stream after some frames.
type breakage struct {
	after int // frames
	with  func(*gateway, subscribeStream, string) error
	// appended is how many notifications arrive while no stream is there.
	appended int
}

func startGateway(t *testing.T, notifications int, breaks ...breakage) *gateway {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startGatewayOn(t, listener, notifications, breaks...)
}

func startGatewayOn(t *testing.T, listener net.Listener, notifications int, breaks ...breakage) *gateway {
	t.Helper()
	g := &gateway{
		address:   listener.Addr().String(),
		heartbeat: 10 * time.Second,
		breaks:    breaks,
		conns:     map[string]net.Conn{},
	}
	g.append(notifications)
	server := grpc.NewServer()
	linksgatev1.RegisterNotificationServiceServer(server, g)
	var served sync.WaitGroup
	served.Go(func() { server.Serve(connListener{listener, g}) })
	t.Cleanup(func() { server.Stop(); served.Wait() })
	return g
}

// connListener lets the gateway cut connections.
type connListener struct {
	net.Listener
	gateway *gateway
}

func (l connListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.gateway.mu.Lock()
		l.gateway.conns[conn.RemoteAddr().String()] = conn
		l.gateway.mu.Unlock()
	}
	return conn, err
}

func token(position int) string { return "t" + strconv.Itoa(position) }

func position(token string) (int, error) {
	digits, ok := strings.CutPrefix(token, "t")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q is not a token", token)
	}
	return n, nil
}

// append adds notifications to the log, each received a second after the one before.
func (g *gateway) append(n int) {
	for range n {
		i := len(g.log) + 1
		g.log = append(g.log, &linksgatev1.Notification{
			Id:         "log-" + strconv.Itoa(i),
			Token:      token(i),
			Sequence:   int64(i),
			Account:    "acme",
			Kind:       linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED,
			ReceivedAt: timestamppb.New(time.Unix(int64(i), 0)),
			Payload: &linksgatev1.Notification_SmsReceived{SmsReceived: &linksgatev1.SmsReceived{
				Text: "message " + strconv.Itoa(i),
			}},
		})
	}
}

// begin notes the request and returns how its stream is to break, and the log as
// the stream will see it.
func (g *gateway) begin(r *linksgatev1.SubscribeRequest) (*breakage, []*linksgatev1.Notification) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests = append(g.requests, r)
	log := g.log
	if len(g.requests) > len(g.breaks) {
		return nil, log
	}
	b := &g.breaks[len(g.requests)-1]
	g.append(b.appended)
	return b, log
}

func (g *gateway) Subscribe(r *linksgatev1.SubscribeRequest, stream subscribeStream) error {
	if err := g.serve(r, stream); !errors.Is(err, errEnded) {
		return err
	}
	return nil
}

func (g *gateway) serve(r *linksgatev1.SubscribeRequest, stream subscribeStream) error {
	b, log := g.begin(r)
	next, end, err := span(r, log)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	sent, reached := 0, token(next)
	send := func(response *linksgatev1.SubscribeResponse) error {
		if b != nil && sent == b.after {
			return b.with(g, stream, reached)
		}
		sent++
		reached = response.GetToken()
		return stream.Send(response)
	}
	if err := send(g.confirmed(next, log)); err != nil {
		return err
	}
	for next < end {
		from := next
		next = min(next+2, end)
		batch := &linksgatev1.NotificationBatch{Notifications: log[from:next]}
		if err := send(&linksgatev1.SubscribeResponse{Token: token(next), Frame: &linksgatev1.SubscribeResponse_Batch{Batch: batch}}); err != nil {
			return err
		}
		beat := &linksgatev1.SubscribeResponse_Heartbeat{Heartbeat: &linksgatev1.SubscriptionHeartbeat{}}
		if err := send(&linksgatev1.SubscribeResponse{Token: token(next), Frame: beat}); err != nil {
			return err
		}
	}
	if r.GetUntil() != nil {
		return send(closing(token(next), linksgatev1.ClosingReason_CLOSING_REASON_COMPLETED))
	}
	if b != nil {
		return b.with(g, stream, reached)
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// span returns where a stream starts and ends.
func span(r *linksgatev1.SubscribeRequest, log []*linksgatev1.Notification) (next, end int, err error) {
	switch {
	case r.GetStart().GetEarliest():
	case r.GetStart().GetSince() != nil:
		for next < len(log) && log[next].GetReceivedAt().AsTime().Before(r.GetStart().GetSince().AsTime()) {
			next++
		}
	case r.GetStart().GetAfter() != "":
		if next, err = position(r.GetStart().GetAfter()); err != nil {
			return 0, 0, err
		}
	default:
		next = len(log)
	}
	end = len(log)
	if r.GetUntilToken() != "" {
		end, err = position(r.GetUntilToken())
	}
	return next, end, err
}

func (g *gateway) confirmed(next int, log []*linksgatev1.Notification) *linksgatev1.SubscribeResponse {
	confirmed := &linksgatev1.SubscriptionConfirmed{HeartbeatInterval: durationpb.New(g.heartbeat)}
	if len(log) > 0 {
		confirmed.Head = &linksgatev1.LogPosition{Token: token(len(log))}
	}
	return &linksgatev1.SubscribeResponse{
		Token: token(next),
		Frame: &linksgatev1.SubscribeResponse_Confirmed{Confirmed: confirmed},
	}
}

func closing(token string, reason linksgatev1.ClosingReason) *linksgatev1.SubscribeResponse {
	return &linksgatev1.SubscribeResponse{
		Token: token,
		Frame: &linksgatev1.SubscribeResponse_Closing{Closing: &linksgatev1.Closing{
			Reason:         reason,
			ReconnectAfter: durationpb.New(time.Second),
		}},
	}
}

// errEnded ends a stream with OK.
var errEnded = errors.New("ended")

type subscribeStream = grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]

// The ways in which a stream can break.

func withStatus(code codes.Code) func(*gateway, subscribeStream, string) error {
	return func(*gateway, subscribeStream, string) error { return status.Error(code, "broken as planned") }
}

func withDetails(code codes.Code, details *errdetails.ErrorInfo) func(*gateway, subscribeStream, string) error {
	return func(*gateway, subscribeStream, string) error {
		st, err := status.New(code, "broken as planned").WithDetails(details)
		if err != nil {
			return err
		}
		return st.Err()
	}
}

// cut ends the connection, with everything that was still on its way.
func cut(g *gateway, stream subscribeStream, _ string) error {
	p, _ := peer.FromContext(stream.Context())
	g.mu.Lock()
	conn := g.conns[p.Addr.String()]
	g.mu.Unlock()
	conn.Close()
	return errEnded
}

func drain(_ *gateway, stream subscribeStream, token string) error {
	if err := stream.Send(closing(token, linksgatev1.ClosingReason_CLOSING_REASON_DRAINING)); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "draining")
}

func ageOut(_ *gateway, stream subscribeStream, token string) error {
	return errors.Join(errEnded, stream.Send(closing(token, linksgatev1.ClosingReason_CLOSING_REASON_MAX_AGE)))
}

func fallSilent(_ *gateway, stream subscribeStream, _ string) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}
