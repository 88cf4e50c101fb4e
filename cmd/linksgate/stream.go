package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// defaultHeartbeat is the gateway's interval when a stream names none.
const defaultHeartbeat = 10 * time.Second

// errorDomain marks the details that come from a gateway, not from a proxy before it.
const errorDomain = "linksgate"

var errSilent = errors.New("no frame came")

// session is what keeps streams coming, one after the other, over restarts of the
// gateway and broken connections.
//
// All its fields belong to the goroutine that calls run.
type session struct {
	// joining and joined say what a stream is for, as in "subscribing again" and "subscribed again".
	joining, joined string
	// notice tells the user what happens between streams.
	notice func(text string)
	// wait is time.Sleep that ends with the context.
	wait func(context.Context, time.Duration) error
	// address of the gateway, for notices; may be empty.
	address string
	// examine returns an error if what is at the address can never give a stream. It is asked while there has been none; nil: never.
	examine func(context.Context) error
	// silence is the time without a frame after which a stream counts as dead.
	silence time.Duration

	met    bool   // there has been a frame: the address and the flags are right
	broken bool   // since the last frame
	told   string // the last cause of another try, since the last first frame
}

// streamEnd is how a stream ended.
type streamEnd struct {
	err        error // io.EOF: with OK
	closing    *linksgatev1.Closing
	progressed bool // it was more than its first frame
}

// again tells that a stream is to be followed by another one.
type again struct {
	cause string
	delay time.Duration // that the gateway asked for
}

// run opens streams until judge says that there is to be none after the last,
// ctx ends, or a frame could not be handled. The error of stream is not of the
// stream but of handling a frame.
func (s *session) run(ctx context.Context, stream func(context.Context) (streamEnd, error), judge func(streamEnd) (*again, error)) error {
	for failures := 0; ; failures++ {
		end, err := stream(ctx)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if end.progressed {
			failures = 0
		}
		next, err := judge(end)
		if err != nil || next == nil {
			return err
		}
		if !s.met && s.examine != nil {
			if err := s.examine(ctx); err != nil {
				return err
			}
		}
		delay := next.delay + backOff(failures)
		s.tell(next.cause, delay, end.progressed)
		s.broken = true
		if s.wait(ctx, delay) != nil {
			return nil
		}
	}
}

// tell tells why and when there is to be another stream. What is as it was is not told again with each try.
func (s *session) tell(cause string, delay time.Duration, progressed bool) {
	if cause == s.told {
		return
	}
	s.told = cause
	text := fmt.Sprintf("%s; %s again in %v", cause, s.joining, delay.Round(10*time.Millisecond))
	if !progressed {
		text += fmt.Sprintf(", then less and less often, down to every %v", longestBackOff)
	}
	s.notice(text)
}

// confirmed takes in the first frame of a stream.
func (s *session) confirmed(heartbeat time.Duration) {
	switch {
	case s.broken && s.met:
		s.notice(s.joined + " again")
	case s.broken:
		s.notice(s.joined)
	}
	s.met, s.broken, s.told = true, false, ""
	if heartbeat > 0 {
		s.silence = 3 * heartbeat
	}
}

// readStream handles the frames of one stream.
func readStream[T any](ctx context.Context, s *session, open func(context.Context) (grpc.ServerStreamingClient[T], error),
	handle func(*T, *streamEnd) error,
) (streamEnd, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Only the wait for a frame is watched: output that is slow says nothing
	// about the gateway.
	watchdog := time.AfterFunc(s.silence, func() { cancel(errSilent) })
	defer watchdog.Stop()

	var end streamEnd
	stream, err := open(ctx)
	for err == nil {
		var frame *T
		if frame, err = stream.Recv(); err != nil {
			break
		}
		watchdog.Stop()
		if err := handle(frame, &end); err != nil {
			return end, err
		}
		watchdog.Reset(s.silence)
	}
	if errors.Is(context.Cause(ctx), errSilent) {
		err = errSilent
	}
	end.err = err
	return end, nil
}

// judge decides about a stream that did not end as asked: another one, or an
// error in the words of explain.
func (s *session) judge(end streamEnd, explain func(*status.Status, *errdetails.ErrorInfo) error) (*again, error) {
	switch {
	case end.closing.GetReason() == linksgatev1.ClosingReason_CLOSING_REASON_LEFT:
		return nil, nil // as was asked for
	case end.closing != nil:
		return &again{describeClosing(end.closing), end.closing.GetReconnectAfter().AsDuration()}, nil
	case errors.Is(end.err, io.EOF):
		return &again{cause: "the gateway ended the stream"}, nil
	case errors.Is(end.err, errSilent):
		return &again{cause: fmt.Sprintf("nothing came from the gateway for %v", s.silence)}, nil
	}
	st := status.Convert(end.err)
	info, delay := details(st)
	// Unknown is what gRPC makes of an answer that is not gRPC's. From an address that has given a stream before, it is of a proxy.
	if !isTransient(st.Code(), info != nil) || !s.met && st.Code() == codes.Unknown {
		return nil, explain(st, info)
	}
	cause := st.Code().String() + ": " + escaped(st.Message())
	if info == nil && s.address != "" {
		cause = visible(s.address) + ": " + cause
	}
	return &again{cause, delay}, nil
}

const longestBackOff = 30 * time.Second

// backOff doubles from a quarter of a second to the longest, half of it by chance.
func backOff(failures int) time.Duration {
	d := min(250*time.Millisecond<<min(failures, 10), longestBackOff)
	return d/2 + rand.N(d/2)
}

// isTransient reports whether trying again can help. Codes that the gateway gives
// with its own details mean what its API says; without them they come from
// the connection, or a proxy in it.
func isTransient(code codes.Code, fromGateway bool) bool {
	switch code {
	case codes.Unavailable, codes.Aborted, codes.Canceled, codes.DeadlineExceeded:
		return true
	case codes.ResourceExhausted: // too many streams; else a message over our own limit
		return fromGateway
	case codes.Internal, codes.Unknown:
		return !fromGateway
	}
	return false
}

// details returns what the gateway says beside its status, and when it or a proxy
// wants to be asked again.
func details(st *status.Status) (info *errdetails.ErrorInfo, retryDelay time.Duration) {
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == errorDomain {
				info = detail
			}
		case *errdetails.RetryInfo:
			retryDelay = detail.GetRetryDelay().AsDuration()
		}
	}
	return info, retryDelay
}

func describeClosing(closing *linksgatev1.Closing) string {
	switch closing.GetReason() {
	case linksgatev1.ClosingReason_CLOSING_REASON_MAX_AGE:
		return "the stream reached its maximum age"
	case linksgatev1.ClosingReason_CLOSING_REASON_DRAINING:
		return "the gateway is shutting down"
	case linksgatev1.ClosingReason_CLOSING_REASON_GROUP_MOVED:
		return "the group was moved, or another gateway serves it now"
	}
	return "the gateway ended the stream"
}
