package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	// reconnectPause is how long a subscriber waits before it comes back, when the gateway does not say.
	reconnectPause = 20 * time.Millisecond
	// flowWindow is how much the gateway may send ahead of what a subscriber has read. It is fixed, so that what a slow subscriber
	// does not read stays with the gateway.
	flowWindow = 64 << 10
)

// Subscriber reads the log as a service would: it remembers the token of what it handled last, and comes back with it after every
// interruption. The zero value of the options subscribes from the beginning of the log, one notification per frame.
type Subscriber struct {
	// Name for the trace.
	Name string
	// Address of the gateway.
	Address string
	// Latest starts with what arrives from now on instead of the beginning.
	Latest bool
	// MaxBatch of the subscription.
	MaxBatch uint32

	token string // of what was handled last; belongs to Run

	vanished atomic.Bool   // what has arrived is not handled; cleared by Run when it comes back
	handled  atomic.Int64  // notifications in trace
	sequence atomic.Uint64 // of the last one

	mu    sync.Mutex
	trace Trace         // mu
	conn  net.Conn      // mu; the connection in use
	pause chan struct{} // mu; closed when the subscriber may read on; nil if it may
}

// Run subscribes until ctx ends. It returns an error only if it cannot even try.
func (s *Subscriber) Run(ctx context.Context) error {
	client, err := s.connect()
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	defer func() { _ = client.Close() }()
	for ctx.Err() == nil {
		ending, again := s.follow(ctx, linksgatev1.NewNotificationServiceClient(client))
		if ctx.Err() != nil {
			return nil // ended from here
		}
		s.mu.Lock()
		s.trace.Endings = append(s.trace.Endings, ending)
		s.mu.Unlock()
		s.vanished.Store(false)
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
	return nil
}

// connect returns a client whose connections can be cut.
func (s *Subscriber) connect() (*grpc.ClientConn, error) {
	return dial(s.Address, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conn = conn
		return conn, nil
	}))
}

func dial(address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(flowWindow),
		grpc.WithInitialConnWindowSize(flowWindow),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectPause, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 10 * reconnectPause},
			MinConnectTimeout: 5 * time.Second,
		}),
	)...)
}

// follow is one stream, from its start to its end. It returns how it ended, and when to come back.
func (s *Subscriber) follow(ctx context.Context, client linksgatev1.NotificationServiceClient) (Ending, time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ending, again := Ending{}, reconnectPause
	stream, err := client.Subscribe(ctx, s.request())
	for err == nil {
		var frame *linksgatev1.SubscribeResponse
		if err = s.mayRead(ctx); err != nil {
			break
		}
		if frame, err = stream.Recv(); err != nil {
			break
		}
		if closing := frame.GetClosing(); closing != nil {
			ending.Closing = closing.GetReason()
			again = max(again, closing.GetReconnectAfter().AsDuration())
		}
		err = s.handle(frame)
	}
	if !errors.Is(err, io.EOF) {
		ending.Err, ending.Reason = err, reason(err)
	}
	return ending, again
}

func (s *Subscriber) request() *linksgatev1.SubscribeRequest {
	request := &linksgatev1.SubscribeRequest{
		Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}, MaxBatch: int32(s.MaxBatch), ClientName: s.Name,
		// A gap is a violation. To be told of it and go on shows what else there is.
		OnGap: linksgatev1.GapPolicy_GAP_POLICY_CONTINUE,
	}
	switch {
	case s.token != "":
		request.Start = &linksgatev1.Start{Position: &linksgatev1.Start_After{After: s.token}}
	case s.Latest:
		request.Start = &linksgatev1.Start{Position: &linksgatev1.Start_Latest{Latest: true}}
	}
	return request
}

var errVanished = errors.New("vanished")

// handle takes a frame. A subscriber that vanishes does so between two notifications, and loses what it has received and not handled.
func (s *Subscriber) handle(frame *linksgatev1.SubscribeResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if gap := frame.GetGap(); gap != nil {
		s.trace.Gaps = append(s.trace.Gaps, gap)
		s.trace.Missing = append(s.trace.Missing, missing(s.sequence.Load(), gap))
	}
	if frame.GetCaughtUp() != nil {
		s.trace.CaughtUp++
	}
	if frame.GetFellBehind() != nil {
		s.trace.FellBehind++
	}
	for _, n := range frame.GetBatch().GetNotifications() {
		if s.vanished.Load() {
			return errVanished
		}
		s.trace.Notifications = append(s.trace.Notifications, seen(n))
		s.token = n.GetToken()
		s.handled.Add(1)
		s.sequence.Store(uint64(n.GetSequence()))
	}
	s.token = frame.GetToken()
	return nil
}

// mayRead waits while the subscriber is paused.
func (s *Subscriber) mayRead(ctx context.Context) error {
	s.mu.Lock()
	pause := s.pause
	s.mu.Unlock()
	if pause == nil {
		return nil
	}
	select {
	case <-pause:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Pause makes the subscriber stop reading, with its stream open, until Resume.
func (s *Subscriber) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pause = make(chan struct{})
}

// Resume ends a Pause.
func (s *Subscriber) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.pause)
	s.pause = nil
}

// Vanish makes the subscriber go as a process that is killed: in the middle of what it is doing, without a word to the gateway, its
// connection reset. It comes back as one that is started again, with the token of what it handled last.
func (s *Subscriber) Vanish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return fmt.Errorf("%s vanishes: it has no connection", s.Name)
	}
	s.vanished.Store(true)
	if tcp, ok := s.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset, not an orderly end
	}
	if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("%s vanishes: %w", s.Name, err)
	}
	return nil
}

// Handled is how many notifications the subscriber has handled so far.
func (s *Subscriber) Handled() int { return int(s.handled.Load()) }

// AwaitHandled waits until it has handled so many.
func (s *Subscriber) AwaitHandled(ctx context.Context, n int) error {
	return Await(ctx, fmt.Sprintf("%s has handled %d notifications", s.Name, n), func() bool { return s.Handled() >= n })
}

// AwaitEnd waits until the subscriber has handled everything that a log holds.
func (s *Subscriber) AwaitEnd(ctx context.Context, log Trace) error {
	if len(log.Notifications) == 0 {
		return nil
	}
	last := log.Notifications[len(log.Notifications)-1].Sequence
	return Await(ctx, s.Name+" is at the end of the log", func() bool { return s.sequence.Load() >= last })
}

// Trace returns what the subscriber has seen so far.
func (s *Subscriber) Trace() Trace {
	s.mu.Lock()
	defer s.mu.Unlock()
	trace := s.trace
	trace.Name, trace.FromStart = s.Name, !s.Latest
	trace.Notifications = slices.Clone(trace.Notifications)
	trace.Gaps, trace.Missing, trace.Endings = slices.Clone(trace.Gaps), slices.Clone(trace.Missing), slices.Clone(trace.Endings)
	return trace
}

// ReadLog reads the log of a gateway from its beginning to its head, in one stream that must not be interrupted.
func ReadLog(ctx context.Context, address string) (Trace, error) {
	client, err := dial(address)
	if err != nil {
		return Trace{}, fmt.Errorf("read the log: %w", err)
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader := Subscriber{Name: "the log", MaxBatch: 512}
	request := reader.request()
	request.Until = &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true}
	stream, err := linksgatev1.NewNotificationServiceClient(client).Subscribe(ctx, request)
	completed := false
	for err == nil {
		var frame *linksgatev1.SubscribeResponse
		if frame, err = stream.Recv(); err == nil {
			completed = frame.GetClosing().GetReason() == linksgatev1.ClosingReason_CLOSING_REASON_COMPLETED
			err = reader.handle(frame)
		}
	}
	switch {
	case !errors.Is(err, io.EOF):
		return Trace{}, fmt.Errorf("read the log: %w", err)
	case !completed:
		return Trace{}, errors.New("read the log: the stream ended with OK and without Closing")
	}
	trace := reader.Trace()
	trace.ToEnd = true
	return trace, nil
}

// healthy asks a gateway for its health over gRPC.
func healthy(ctx context.Context, address string) (bool, error) {
	client, err := dial(address)
	if err != nil {
		return false, fmt.Errorf("ask for health: %w", err)
	}
	defer func() { _ = client.Close() }()
	answer, err := healthv1.NewHealthClient(client).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		return false, fmt.Errorf("ask for health: %w", err)
	}
	return answer.GetStatus() == healthv1.HealthCheckResponse_SERVING, nil
}

// reason is the stable reason of an error of the gateway; empty if the error is not from it.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}
