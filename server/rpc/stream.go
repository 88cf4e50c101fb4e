package rpc

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

// outlet is where the frames of a stream leave. It belongs to the goroutine that sends, except for what is atomic.
type outlet struct {
	stream    grpc.ServerStream
	opened    time.Time
	lastSent  time.Time
	sending   atomic.Int64           // when the send in progress began, in nanoseconds since opened; 0 if none
	sentToken atomic.Pointer[string] // resume token of the last frame handed to the transport; nil if frames have none
}

func newOutlet(stream grpc.ServerStream) *outlet { return &outlet{stream: stream, opened: time.Now()} }

// send hands a frame to the transport. It waits while the client does not read.
func (o *outlet) send(message any) error {
	now := time.Now()
	o.sending.Store(max(int64(now.Sub(o.opened)), 1))
	err := o.stream.SendMsg(message)
	o.sending.Store(0)
	if err == nil {
		o.lastSent = now
	}
	return err
}

// stuck reports whether a send has been waiting for the client for longer than the timeout.
func (o *outlet) stuck(timeout time.Duration) bool {
	return o.blocked() > timeout
}

// blocked is for how long a send has been waiting for the client; 0 if none is.
func (o *outlet) blocked() time.Duration {
	began := o.sending.Load()
	if began == 0 {
		return 0
	}
	return time.Since(o.opened) - time.Duration(began)
}

// serveStream runs a stream until it ends by itself, the server drains, it reaches the maximum age, its caller's rights change, or
// its client does not read. The context that run gets ends in all but the last of these; then run goes on beside, until its send fails.
func (s *Server) serveStream(ctx context.Context, o *outlet, run func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.draining, func() { cancel(errDraining) })()
	defer s.watch(ctx, cancel)()
	if s.maxStreamAge > 0 {
		age := time.AfterFunc(s.maxStreamAge, func() { cancel(errMaxAge) })
		defer age.Stop()
	}
	// Sending blocks while the client does not read, and only the end of this function unblocks it. So it runs beside, and
	// this goroutine watches.
	ended := make(chan error, 1)
	s.senders.Go(func() { ended <- run(ctx) })
	ticker := time.NewTicker(max(s.sendTimeout/8, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ticker.C:
			if o.stuck(s.sendTimeout) {
				slow := &slowError{timeout: s.sendTimeout}
				if token := o.sentToken.Load(); token != nil {
					slow.lastToken = *token
				}
				return slow
			}
		}
	}
}

// reconnectAfter is how long the clients of a gateway that goes away should wait: spread over a second, so that they do not all
// come at once.
func reconnectAfter() *durationpb.Duration {
	return durationpb.New(time.Second/2 + rand.N(time.Second))
}
