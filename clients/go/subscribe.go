package linksgate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	defaultHeartbeat = 10 * time.Second
	defaultBatch     = 64
	readAhead        = 2           // frames
	storePause       = time.Second // between two stores of a checkpoint
)

// errSilent ends a stream on which no frame came for three heartbeat intervals.
var errSilent = errors.New("no frame came")

// subscription is one subscription, over any number of streams. Its fields belong to the goroutine that ranges over it.
type subscription struct {
	link
	request    *linksgatev1.SubscribeRequest // of the next stream
	checkpoint Checkpoint                    // may be nil
	onGap      func(*linksgatev1.Gap)        // may be nil
	silence    time.Duration

	handled  string    // token up to which everything was handled; empty: none yet
	stored   string    // the one in the checkpoint
	storedAt time.Time // when it was stored
	complete bool      // the end was reached
	stopped  bool      // the loop wants no more
}

// SubscribeOption configures a subscription.
type SubscribeOption func(*subscription)

// From goes on after the token in a checkpoint, and stores there how far the subscription has come: at most every second, and when it
// ends. Without a token in it the start that was asked for applies.
func From(checkpoint Checkpoint) SubscribeOption {
	return func(s *subscription) { s.checkpoint = checkpoint }
}

func startAt(start *linksgatev1.Start) SubscribeOption {
	return func(s *subscription) { s.request.Start = start }
}

// Latest starts with what is received from now on. The default.
func Latest() SubscribeOption {
	return startAt(&linksgatev1.Start{Position: &linksgatev1.Start_Latest{Latest: true}})
}

// Earliest starts with the oldest notification that is retained.
func Earliest() SubscribeOption {
	return startAt(&linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}})
}

// After starts after the position of a resume token. An empty one is as none.
func After(token string) SubscribeOption {
	if token == "" {
		return func(*subscription) {}
	}
	return startAt(&linksgatev1.Start{Position: &linksgatev1.Start_After{After: token}})
}

// Since starts with the first notification that was written at or after a time.
func Since(t time.Time) SubscribeOption {
	return startAt(&linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: timestamppb.New(t)}})
}

// UntilHead ends the subscription, without an error, when it has delivered what the log holds when it begins.
func UntilHead() SubscribeOption {
	return func(s *subscription) { s.request.Until = &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true} }
}

// Accounts selects notifications of some accounts.
func Accounts(names ...string) SubscribeOption {
	return func(s *subscription) { s.filter().Accounts = names }
}

// Kinds selects notifications of some kinds.
func Kinds(kinds ...linksgatev1.NotificationKind) SubscribeOption {
	return func(s *subscription) { s.filter().Kinds = kinds }
}

// ICCIDs selects notifications about some SIMs.
func ICCIDs(iccids ...string) SubscribeOption {
	return func(s *subscription) { s.filter().Iccids = iccids }
}

// PartnerCodes selects notifications about some partners.
func PartnerCodes(codes ...string) SubscribeOption {
	return func(s *subscription) { s.filter().PartnerCodes = codes }
}

// ContinueAfterGaps goes on where notifications have expired or are corrupt, instead of ending with an error. tell, if not nil, is told
// of each gap, also of what was erased on purpose.
func ContinueAfterGaps(tell func(*linksgatev1.Gap)) SubscribeOption {
	return func(s *subscription) {
		s.request.OnGap, s.onGap = linksgatev1.GapPolicy_GAP_POLICY_CONTINUE, tell
	}
}

// MaxBatch is how many notifications the gateway may send in one frame, from 1 to 512; default 64. At most two frames are read ahead.
func MaxBatch(n int) SubscribeOption {
	return func(s *subscription) { s.request.MaxBatch = int32(n) }
}

// Heartbeat is the longest silence on the stream, from 1 s to 10 min; default 10 s. After three of them the connection counts as dead.
func Heartbeat(interval time.Duration) SubscribeOption {
	return func(s *subscription) { s.request.HeartbeatInterval = durationpb.New(interval) }
}

// ClientName is shown by the gateway. At most 100 bytes of printable ASCII.
func ClientName(name string) SubscribeOption {
	return func(s *subscription) { s.request.ClientName = name }
}

func (s *subscription) filter() *linksgatev1.NotificationFilter {
	if s.request.Filter == nil {
		s.request.Filter = new(linksgatev1.NotificationFilter)
	}
	return s.request.Filter
}

// Subscribe yields notifications in the order of the log, until ctx ends, the end that was asked for is reached, or what coming back
// cannot mend: then it yields that error, an [Error] or one of the checkpoint, and ends. A notification counts as handled when the loop
// asks for the next one; one at which the loop breaks off or panics does not.
func (c *Client) Subscribe(ctx context.Context, options ...SubscribeOption) iter.Seq2[*linksgatev1.Notification, error] {
	return func(yield func(*linksgatev1.Notification, error) bool) {
		s := &subscription{link: link{client: c}, request: &linksgatev1.SubscribeRequest{
			MaxBatch: defaultBatch, HeartbeatInterval: durationpb.New(defaultHeartbeat),
		}}
		defer s.close()
		for _, option := range options {
			option(s)
		}
		s.silence = 3 * s.request.GetHeartbeatInterval().AsDuration()
		err := s.run(ctx, yield)
		err = errors.Join(err, s.store(context.WithoutCancel(ctx), true))
		if err != nil && !s.stopped {
			yield(nil, err)
		}
	}
}

// run opens streams, one after the other.
func (s *subscription) run(ctx context.Context, yield func(*linksgatev1.Notification, error) bool) error {
	if s.checkpoint != nil {
		token, err := s.checkpoint.Load(ctx)
		if err != nil {
			return fmt.Errorf("load the checkpoint: %w", err)
		}
		if token != "" {
			After(token)(s)
			s.stored = token
		}
	}
	for failures := 0; ; failures++ {
		end := s.stream(ctx, yield)
		switch {
		case end.fatal != nil:
			return end.fatal
		case s.stopped || s.complete || ctx.Err() != nil:
			return nil
		}
		if end.progressed {
			failures = 0
		}
		delay := max(end.delay, backOff(failures))
		s.client.logger.Info("subscribing again", "cause", end.err, "in", delay)
		if !sleep(ctx, delay) {
			return nil
		}
	}
}

// streamEnd is how a stream ended.
type streamEnd struct {
	err        error         // why, for the logger
	fatal      error         // the subscription ends with it
	delay      time.Duration // the least to wait before the next one
	progressed bool          // frames came
}

// ended takes in the error of a stream.
func (e *streamEnd) ended(err error) {
	if refused := final(err); refused != nil {
		e.fatal = refused
	}
	e.err, e.delay = err, max(e.delay, askedDelay(err))
}

// stream serves one stream.
func (s *subscription) stream(ctx context.Context, yield func(*linksgatev1.Notification, error) bool) (end streamEnd) {
	conn, err := s.get()
	if err != nil {
		end.err = err
		return end
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := linksgatev1.NewNotificationServiceClient(conn).Subscribe(ctx, s.request)
	if err != nil {
		s.next(conn)
		end.ended(err)
		return end
	}
	frames := make(chan *linksgatev1.SubscribeResponse, readAhead)
	ended := make(chan error, 1)
	go func() { ended <- receive(ctx, cancel, stream, s.silence, frames) }()
	for frame := range s.orStore(ctx, frames, &end) {
		end.progressed = true
		if !s.handle(frame, yield, &end) {
			break
		}
	}
	cancel(nil)
	err = <-ended
	switch {
	case end.fatal != nil || s.stopped || s.complete:
	case end.err != nil: // announced
		s.next(conn)
	default:
		s.next(conn)
		end.ended(err)
	}
	return end
}

// receive passes on the frames of a stream, and returns why it ended. Only the wait for a frame is watched: a loop that is slow says
// nothing about the gateway.
func receive[T any](
	ctx context.Context, cancel context.CancelCauseFunc, stream grpc.ServerStreamingClient[T], silence time.Duration, frames chan<- *T,
) error {
	defer close(frames)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	for {
		frame, err := stream.Recv()
		watchdog.Stop()
		if errors.Is(context.Cause(ctx), errSilent) {
			return errSilent
		}
		if err != nil {
			return err
		}
		select {
		case frames <- frame:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		watchdog.Reset(silence)
	}
}

// orStore yields the frames, and stores the checkpoint when it is due meanwhile.
func (s *subscription) orStore(
	ctx context.Context, frames <-chan *linksgatev1.SubscribeResponse, end *streamEnd,
) iter.Seq[*linksgatev1.SubscribeResponse] {
	return func(yield func(*linksgatev1.SubscribeResponse) bool) {
		due := time.NewTicker(storePause / 4)
		defer due.Stop()
		for {
			var frame *linksgatev1.SubscribeResponse
			ok := true
			select {
			case frame, ok = <-frames:
			case <-due.C:
			}
			if err := s.store(ctx, false); err != nil && ctx.Err() == nil {
				end.fatal = err
				return
			}
			if !ok || frame != nil && !yield(frame) {
				return
			}
		}
	}
}

// handle takes in a frame. It reports false when the subscription wants no more.
func (s *subscription) handle(frame *linksgatev1.SubscribeResponse, yield func(*linksgatev1.Notification, error) bool, end *streamEnd) bool {
	switch f := frame.GetFrame().(type) {
	case *linksgatev1.SubscribeResponse_Confirmed:
		s.confirm(f.Confirmed)
	case *linksgatev1.SubscribeResponse_Batch:
		for _, n := range f.Batch.GetNotifications() {
			if !yield(n, nil) {
				s.stopped = true
				return false
			}
			s.handled = n.GetToken()
		}
	case *linksgatev1.SubscribeResponse_Gap:
		if s.request.GetOnGap() != linksgatev1.GapPolicy_GAP_POLICY_CONTINUE && f.Gap.GetReason() != linksgatev1.GapReason_GAP_REASON_ERASED {
			end.fatal = gapError(f.Gap, frame.GetToken())
			return false
		}
		if s.onGap != nil {
			s.onGap(f.Gap)
		}
	case *linksgatev1.SubscribeResponse_Closing:
		s.complete = f.Closing.GetReason() == linksgatev1.ClosingReason_CLOSING_REASON_COMPLETED
		end.delay = f.Closing.GetReconnectAfter().AsDuration()
		end.err = fmt.Errorf("the gateway ends the stream: %v", f.Closing.GetReason())
	}
	if frame.GetToken() != "" {
		s.handled = frame.GetToken()
		After(s.handled)(s)
	}
	return !s.complete
}

// confirm fixes what must not change from one stream to the next.
func (s *subscription) confirm(confirmed *linksgatev1.SubscriptionConfirmed) {
	if interval := confirmed.GetHeartbeatInterval().AsDuration(); interval > 0 {
		s.silence = 3 * interval
	}
	if len(confirmed.GetUnknownAccounts()) > 0 {
		s.client.logger.Warn("the gateway does not have these accounts", "accounts", confirmed.GetUnknownAccounts())
	}
	if !s.request.GetUntilHead() {
		return
	}
	if confirmed.GetHead() == nil {
		s.complete = true // the log is empty
		return
	}
	s.request.Until = &linksgatev1.SubscribeRequest_UntilToken{UntilToken: confirmed.GetHead().GetToken()}
}

// store stores the checkpoint, if something was handled since; unless it must be now, not oftener than every storePause.
func (s *subscription) store(ctx context.Context, now bool) error {
	if s.checkpoint == nil || s.handled == "" || s.handled == s.stored || !now && time.Since(s.storedAt) < storePause {
		return nil
	}
	if err := s.checkpoint.Store(ctx, s.handled); err != nil {
		return fmt.Errorf("store the checkpoint: %w", err)
	}
	s.stored, s.storedAt = s.handled, time.Now()
	return nil
}
