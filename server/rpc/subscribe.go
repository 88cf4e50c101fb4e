package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/eventlog"
)

// Subscribe implements [linksgatev1.NotificationServiceServer].
func (s *Server) Subscribe(req *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
	release, err := s.admit(stream.Context())
	if err != nil {
		return err
	}
	defer release()
	sub, err := s.newSubscription(stream.Context(), req, stream)
	if err != nil {
		return err
	}
	defer s.list(sub)()
	return s.serveStream(stream.Context(), sub.outlet, sub.run)
}

// subscription is one stream. Its fields belong to the goroutine of run, unless they are atomic.
type subscription struct {
	server *Server
	*outlet

	start     eventlog.Cursor
	options   eventlog.ReadOptions
	heartbeat time.Duration
	maxBatch  int
	onGap     linksgatev1.GapPolicy
	info      eventlog.Info // of the log when the subscription began
	request   *linksgatev1.SubscribeRequest
	caller    *access.Caller

	live    atomic.Bool  // CaughtUp was sent, and FellBehind not since
	lagTime atomic.Int64 // of the newest step, in nanoseconds
	sent    atomic.Int64 // notifications
}

// newSubscription checks a request and settles where it starts and ends.
func (s *Server) newSubscription(ctx context.Context, req *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) (*subscription, error) {
	sub := &subscription{server: s, outlet: newOutlet(stream), maxBatch: int(req.GetMaxBatch()), onGap: req.GetOnGap(), request: req}
	sub.caller = sessionOf(ctx).caller
	var err error
	if sub.options.Filter, err = toFilter(req.GetFilter(), "filter."); err != nil {
		return nil, err
	}
	if sub.heartbeat, err = toHeartbeat(req.GetHeartbeatInterval()); err != nil {
		return nil, err
	}
	if err := checkClientName(req.GetClientName()); err != nil {
		return nil, err
	}
	switch {
	case sub.maxBatch == 0:
		sub.maxBatch = 1
	case sub.maxBatch < 0 || sub.maxBatch > eventlog.MaxBatchRecords:
		return nil, &fieldError{field: "max_batch", problem: outside(req.GetMaxBatch(), eventlog.MaxBatchRecords)}
	}
	switch sub.onGap {
	case linksgatev1.GapPolicy_GAP_POLICY_UNSPECIFIED:
		sub.onGap = linksgatev1.GapPolicy_GAP_POLICY_FAIL
	case linksgatev1.GapPolicy_GAP_POLICY_FAIL, linksgatev1.GapPolicy_GAP_POLICY_CONTINUE:
	default:
		return nil, &fieldError{field: "on_gap", problem: fmt.Sprintf("%d is not a gap policy", sub.onGap)}
	}
	if sub.info, err = s.log.Info(ctx); err != nil {
		return nil, err
	}
	if sub.start, err = s.start(ctx, "start", req.GetStart(), sub.info, sub.info.Next); err != nil {
		return nil, err
	}
	if sub.options.Until, err = s.subscribeUntil(req, sub.info); err != nil {
		return nil, err
	}
	// With a look every quarter of the interval, and a heartbeat when three quarters have passed in silence, silence is never
	// longer than the interval.
	sub.options.Pulse = sub.heartbeat / 4
	token := s.log.Token(sub.start)
	sub.sentToken.Store(&token)
	return sub, nil
}

func (s *Server) subscribeUntil(req *linksgatev1.SubscribeRequest, info eventlog.Info) (eventlog.Cursor, error) {
	switch until := req.GetUntil().(type) {
	case nil:
		return eventlog.Cursor{}, nil
	case *linksgatev1.SubscribeRequest_UntilHead:
		return info.Next, checkTrue("until_head", until.UntilHead)
	case *linksgatev1.SubscribeRequest_UntilToken:
		end, err := s.toCursor("until_token", until.UntilToken)
		if err == nil && info.Next.Before(end) {
			err = fmt.Errorf("until_token: %w", eventlog.ErrAhead) // it may never be reached
		}
		return end, err
	}
	return eventlog.Cursor{}, &fieldError{field: "until", problem: "unknown kind of end"}
}

// run sends the stream.
func (sub *subscription) run(ctx context.Context) error {
	log := sub.server.log
	err := sub.send(sub.start, &linksgatev1.SubscribeResponse{Frame: &linksgatev1.SubscribeResponse_Confirmed{
		Confirmed: &linksgatev1.SubscriptionConfirmed{
			LogId:             log.ID(),
			First:             sub.server.firstOf(sub.info),
			Head:              sub.server.headOf(sub.info.Head, sub.info.HeadWritten),
			HeartbeatInterval: durationpb.New(sub.heartbeat),
			MaxBatch:          int32(sub.maxBatch),
			OnGap:             sub.onGap,
			Lag:               toLag(sub.startLag()),
			UnknownAccounts:   sub.server.unknownAccounts(sub.request.GetFilter()),
		},
	}})
	if err != nil {
		return err
	}
	next := sub.start
	for step, err := range log.Read(ctx, sub.start, sub.options) {
		if err != nil {
			return sub.close(next, err)
		}
		next = step.Next
		if err := sub.sendStep(ctx, step); err != nil {
			return err
		}
	}
	return sub.sendClosing(next, linksgatev1.ClosingReason_CLOSING_REASON_COMPLETED, nil)
}

// startLag is how far the start is behind the head.
func (sub *subscription) startLag() eventlog.Lag {
	if !sub.start.Before(sub.info.Next) {
		return eventlog.Lag{}
	}
	lag := eventlog.Lag{Batches: sub.info.Next.Stream - sub.start.Stream}
	if sub.start == sub.info.First {
		lag.Time = max(sub.info.HeadWritten.Sub(sub.info.FirstWritten), 0)
	}
	return lag
}

// close ends the stream for an error of the reading. Planned endings are announced.
func (sub *subscription) close(next eventlog.Cursor, err error) error {
	reconnect := reconnectAfter()
	switch {
	case errors.Is(err, errMaxAge):
		return sub.sendClosing(next, linksgatev1.ClosingReason_CLOSING_REASON_MAX_AGE, reconnect)
	case errors.Is(err, errAccessChanged):
		return sub.sendClosing(next, linksgatev1.ClosingReason_CLOSING_REASON_ACCESS_CHANGED, reconnect)
	case errors.Is(err, errDraining), errors.Is(err, eventlog.ErrClosed):
		return errors.Join(err, sub.sendClosing(next, linksgatev1.ClosingReason_CLOSING_REASON_DRAINING, reconnect))
	}
	return err
}

func (sub *subscription) sendClosing(next eventlog.Cursor, reason linksgatev1.ClosingReason, reconnect *durationpb.Duration) error {
	return sub.send(next, &linksgatev1.SubscribeResponse{Frame: &linksgatev1.SubscribeResponse_Closing{
		Closing: &linksgatev1.Closing{Reason: reason, ReconnectAfter: reconnect},
	}})
}

// sendStep sends what a step of the reading holds.
func (sub *subscription) sendStep(ctx context.Context, step eventlog.Step) error {
	sub.lagTime.Store(int64(step.Lag.Time))
	if step.Gap != nil {
		if err := sub.gap(step); err != nil {
			return err
		}
	}
	if step.State == eventlog.StateReplaying && sub.live.Load() {
		sub.live.Store(false)
		if err := sub.send(step.Next, &linksgatev1.SubscribeResponse{Frame: &linksgatev1.SubscribeResponse_FellBehind{
			FellBehind: &linksgatev1.FellBehind{Lag: toLag(step.Lag)}}}); err != nil {
			return err
		}
	}
	if err := sub.sendRecords(ctx, step); err != nil {
		return err
	}
	if step.State == eventlog.StateLive && !sub.live.Load() {
		sub.live.Store(true)
		if err := sub.send(step.Next, &linksgatev1.SubscribeResponse{Frame: &linksgatev1.SubscribeResponse_CaughtUp{
			CaughtUp: &linksgatev1.CaughtUp{Head: sub.head()}}}); err != nil {
			return err
		}
	}
	if time.Since(sub.lastSent) < sub.heartbeat*3/4 {
		return nil
	}
	return sub.send(step.Next, &linksgatev1.SubscribeResponse{Frame: &linksgatev1.SubscribeResponse_Heartbeat{
		Heartbeat: &linksgatev1.SubscriptionHeartbeat{Now: timestamppb.Now(), Head: sub.head(), Lag: toLag(step.Lag)}}})
}

func (sub *subscription) head() *linksgatev1.LogPosition {
	return sub.server.headOf(sub.server.log.Head())
}

// gap applies the subscription's gap policy.
func (sub *subscription) gap(step eventlog.Step) error {
	erased := errors.Is(step.Gap.Err, eventlog.ErrErased) // which is no loss
	if sub.onGap == linksgatev1.GapPolicy_GAP_POLICY_FAIL && !erased {
		return &gapError{err: step.Gap.Err, available: sub.server.log.Token(step.Next)}
	}
	reason := linksgatev1.GapReason_GAP_REASON_CORRUPT
	switch {
	case erased:
		reason = linksgatev1.GapReason_GAP_REASON_ERASED
	case errors.Is(step.Gap.Err, eventlog.ErrExpired):
		reason = linksgatev1.GapReason_GAP_REASON_EXPIRED
	}
	return sub.send(step.Next, &linksgatev1.SubscribeResponse{Frame: &linksgatev1.SubscribeResponse_Gap{
		Gap: &linksgatev1.Gap{Reason: reason, RecordBatches: int64(step.Gap.Batches), Notifications: int64(step.Gap.Notifications)}}})
}

// sendRecords sends the records of a step in batches of at most maxBatch.
func (sub *subscription) sendRecords(ctx context.Context, step eventlog.Step) error {
	for records := step.Records; len(records) > 0; {
		n := min(len(records), sub.maxBatch)
		place := records[n-1].Next
		if n == len(records) {
			place = step.Next // what follows in the stored batch was filtered out
		}
		token := sub.server.log.Token(place)
		frame := newBatchFrame(token, records[:n])
		if !sub.live.Load() {
			sub.caller.Replay(ctx, mem.BufferSlice(frame).Len())
		}
		if err := sub.sendMessage(token, frame); err != nil {
			return err
		}
		sub.server.metrics.sent.Add(float64(n))
		sub.sent.Add(int64(n))
		records = records[n:]
	}
	return nil
}

// send sends a frame that says that everything before a cursor has been served.
func (sub *subscription) send(place eventlog.Cursor, frame *linksgatev1.SubscribeResponse) error {
	frame.Token = sub.server.log.Token(place)
	return sub.sendMessage(frame.Token, frame)
}

func (sub *subscription) sendMessage(token string, message any) error {
	if err := sub.outlet.send(message); err != nil {
		return err
	}
	sub.sentToken.Store(&token)
	return nil
}
