package linksgate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	minLease = time.Second
	// newlyJoined is how long after joining a gateway's word that a lease is over may be older than a new lease of the same
	// notification, and doubtTime is how long to wait for that.
	newlyJoined = 2 * time.Second
	doubtTime   = 500 * time.Millisecond
)

// stream keeps a stream open until ctx ends, or there can be none, or the gateway has ended it because the member leaves.
func (w *worker) stream(ctx context.Context) error {
	for failures := 0; ; failures++ {
		end := w.streamOnce(ctx)
		w.mu.Lock()
		left := w.leaving
		w.mu.Unlock()
		if end.fatal != nil || left || ctx.Err() != nil {
			return end.fatal
		}
		if end.progressed {
			failures = 0
		}
		delay := max(end.delay, backOff(failures))
		w.client.logger.Info("joining again", "group", w.request.GetGroupName(), "cause", end.err, "in", delay)
		if !sleep(ctx, delay) {
			return nil
		}
	}
}

func (w *worker) streamOnce(ctx context.Context) (end streamEnd) {
	conn, err := w.get()
	if err != nil {
		end.err = err
		return end
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := linksgatev1.NewWorkerServiceClient(conn).Consume(ctx, w.request)
	if err != nil {
		w.next(conn)
		end.ended(err)
		return end
	}
	frames := make(chan *linksgatev1.ConsumeResponse, readAhead)
	ended := make(chan error, 1)
	silence := 3 * w.request.GetHeartbeatInterval().AsDuration()
	go func() { ended <- receive(ctx, cancel, stream, silence, frames) }()
	planned := false
	for frame := range frames {
		end.progressed = true
		switch f := frame.GetFrame().(type) {
		case *linksgatev1.ConsumeResponse_Joined:
			w.joined(f.Joined)
		case *linksgatev1.ConsumeResponse_Leases:
			w.takeAll(f.Leases.GetLeases())
		case *linksgatev1.ConsumeResponse_Closing:
			reason := f.Closing.GetReason()
			planned = reason != linksgatev1.ClosingReason_CLOSING_REASON_GROUP_MOVED
			end.delay, end.err = f.Closing.GetReconnectAfter().AsDuration(), fmt.Errorf("the gateway ends the stream: %v", reason)
		}
	}
	err = <-ended
	w.parted(planned)
	if end.err == nil {
		end.ended(err)
	}
	if end.err != nil && ctx.Err() == nil || errors.Is(context.Cause(ctx), errSilent) {
		w.next(conn)
	}
	return end
}

// joined takes in the first frame of a stream.
func (w *worker) joined(joined *linksgatev1.GroupJoined) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.memberID, w.joinedAt = joined.GetMemberId(), now
	if lease := joined.GetGroup().GetLeaseDuration().AsDuration(); lease > 0 {
		w.lease = lease
	}
	for _, j := range w.jobs { // whether they are still ours is for the gateway to say
		j.extendAt = now
	}
}

// parted takes in that there is no stream any more. What was not begun has gone back to the group, unless the gateway took its leave.
func (w *worker) parted(planned bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.memberID = ""
	if planned {
		return
	}
	for _, j := range w.waiting {
		delete(w.jobs, j.delivery.GetId())
	}
	w.waiting = nil
}

func (w *worker) takeAll(leases []*linksgatev1.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, lease := range leases {
		w.take(lease)
	}
	if w.leaving {
		w.releaseWaiting()
		w.wake()
	}
	w.begin()
}

// take adds a job. A notification that is one already was leased to us again because the gateway did not know that it is ours: then the
// job settles the new lease. The caller holds mu.
func (w *worker) take(lease *linksgatev1.Lease) {
	id, now := lease.GetNotification().GetId(), time.Now()
	known := w.jobs[id]
	switch {
	case known == nil:
		known = &job{
			delivery: &Delivery{Notification: lease.GetNotification(), Attempt: int(lease.GetAttempt())},
			token:    lease.GetLeaseToken(), expires: lease.GetExpiresAt().AsTime(),
		}
		w.jobs[id] = known
		w.waiting = append(w.waiting, known)
	case known.lost || known.state == jobFinished: // another attempt, if the gateway knows by now how the one before ended
		known.next = lease
		return
	default:
		known.token, known.expires, known.doubted = lease.GetLeaseToken(), lease.GetExpiresAt().AsTime(), false
	}
	known.extendAt = now.Add(w.half(known.expires, now))
}

// half is how long a lease goes until its middle. The gateway's clock may differ from ours, so the shorter of what both say counts.
// The caller holds mu.
func (w *worker) half(expires, now time.Time) time.Duration {
	return min(max(expires.Sub(now), minLease), w.lease) / 2
}

// settleAll tells the gateway what became of jobs, those together that are ready together, until ctx ends.
func (w *worker) settleAll(ctx context.Context) {
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		}
		for {
			jobs := w.ready()
			if len(jobs) == 0 {
				break
			}
			if w.settle(ctx, jobs) {
				failures = 0
				continue
			}
			if !sleep(ctx, min(backOff(failures)+10*time.Millisecond, time.Second)) {
				return
			}
			failures++
		}
	}
}

// ready takes the jobs that are to be settled, acknowledgements first.
func (w *worker) ready() []*job {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holding {
		return nil
	}
	n := min(len(w.finished), maxLeases)
	jobs := slices.Clone(w.finished[:n])
	w.finished = slices.Delete(w.finished, 0, n)
	slices.SortStableFunc(jobs, func(a, b *job) int { return rank(a) - rank(b) })
	return jobs
}

func rank(j *job) int {
	if j.acknowledges() {
		return 0
	}
	return 1
}

func (j *job) acknowledges() bool { return !j.release && j.err == nil }

// settle makes the calls for some jobs. It reports false if some are to be settled again, after a while.
func (w *worker) settle(ctx context.Context, jobs []*job) (done bool) {
	acknowledge := &linksgatev1.AcknowledgeRequest{GroupName: w.request.GetGroupName()}
	reject := &linksgatev1.RejectRequest{GroupName: w.request.GetGroupName()}
	for _, j := range jobs {
		if j.acknowledges() {
			acknowledge.LeaseTokens = append(acknowledge.LeaseTokens, j.token)
		} else {
			reject.Rejections = append(reject.Rejections, j.rejection())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	conn, err := w.get()
	var results []*linksgatev1.LeaseResult
	if err == nil && len(acknowledge.GetLeaseTokens()) > 0 {
		var response *linksgatev1.AcknowledgeResponse
		response, err = linksgatev1.NewWorkerServiceClient(conn).Acknowledge(ctx, acknowledge)
		results = response.GetResults()
	}
	if err == nil && len(reject.GetRejections()) > 0 {
		var response *linksgatev1.RejectResponse
		response, err = linksgatev1.NewWorkerServiceClient(conn).Reject(ctx, reject)
		results = append(results, response.GetResults()...)
	}
	if err != nil {
		w.called(err)
	}
	refused := err != nil && final(err) != nil
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && w.memberID == "" && conn != nil && !refused {
		defer w.next(conn) // nobody else looks for a gateway that answers
	}
	done = true
	for i, j := range jobs {
		said := linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE
		if i < len(results) {
			said = results[i].GetOutcome()
		}
		if refused { // the group is gone: there is nothing to settle
			said = linksgatev1.LeaseOutcome_LEASE_OUTCOME_INVALID
		}
		if !w.settled(j, said) {
			done = false
		}
	}
	w.begin()
	return done
}

func (w *worker) called(err error) {
	if code := status.Code(err); code != codes.Canceled {
		w.client.logger.Warn("leases not settled", "group", w.request.GetGroupName(), "error", err)
	}
}

// settled takes in what the gateway said of a job. It reports false if the job is to be settled again. The caller holds mu.
func (w *worker) settled(j *job, said linksgatev1.LeaseOutcome) bool {
	now := time.Now()
	switch {
	case said == linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK && (j.next == nil || !j.acknowledges()):
		w.forget(j) // for another attempt, if it came
	case said == linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK:
		delete(w.jobs, j.delivery.GetId())
	case said != linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE && j.next != nil: // leased to us again, as it was not known
		j.token, j.expires, j.next, j.doubted = j.next.GetLeaseToken(), j.next.GetExpiresAt().AsTime(), nil, false
		w.finished = append(w.finished, j)
		return false
	case said == linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE && now.Before(j.expires.Add(w.lease)), w.doubt(j, said, now):
		w.finished = append(w.finished, j)
		return false
	default:
		if !j.release {
			w.client.logger.Warn("settled too late: it comes again", "id", j.delivery.GetId(), "outcome", said)
		}
		delete(w.jobs, j.delivery.GetId())
	}
	return true
}

// doubt reports whether to ask again before a lease counts as over. A gateway that was restarted leases to a member, as soon as it has
// joined, what the member is working on; the word of that may come after the word that the lease before it is over. The caller holds mu.
func (w *worker) doubt(j *job, said linksgatev1.LeaseOutcome, now time.Time) bool {
	settledLongAgo := w.memberID != "" && now.Sub(w.joinedAt) > newlyJoined
	if said != linksgatev1.LeaseOutcome_LEASE_OUTCOME_STALE || j.doubted || settledLongAgo || w.leaving {
		return false
	}
	j.doubted = true
	return true
}

// rejection says what is to become of a notification that was not handled.
func (j *job) rejection() *linksgatev1.LeaseRejection {
	r := &linksgatev1.LeaseRejection{LeaseToken: j.token}
	if j.release {
		r.Action = &linksgatev1.LeaseRejection_Release{Release: true}
		return r
	}
	r.Reason = strings.ToValidUTF8(j.err.Error(), "\uFFFD")
	if len(r.Reason) > maxReason {
		r.Reason = strings.ToValidUTF8(r.GetReason()[:maxReason], "")
	}
	var said *outcome
	if !errors.As(j.err, &said) {
		return r
	}
	switch {
	case said.park:
		r.Action = &linksgatev1.LeaseRejection_Park{Park: true}
	case said.retry != nil:
		r.Action = &linksgatev1.LeaseRejection_RetryAfter{RetryAfter: durationpb.New(*said.retry)}
	default:
		r.Action = &linksgatev1.LeaseRejection_PauseGroup{PauseGroup: durationpb.New(max(said.down, time.Second))}
	}
	return r
}

// extendAll makes leases last that are in their second half, until ctx ends.
func (w *worker) extendAll(ctx context.Context) {
	const look = 50 * time.Millisecond
	for sleep(ctx, look) {
		if jobs, tokens := w.due(time.Now()); len(jobs) > 0 {
			w.extend(ctx, jobs, tokens)
		}
	}
}

func (w *worker) due(now time.Time) (jobs []*job, tokens []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.jobs {
		if j.state != jobFinished && !j.lost && !now.Before(j.extendAt) && len(jobs) < maxLeases {
			jobs, tokens = append(jobs, j), append(tokens, j.token)
		}
	}
	return jobs, tokens
}

func (w *worker) extend(ctx context.Context, jobs []*job, tokens []string) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	conn, err := w.get()
	var results []*linksgatev1.LeaseResult
	if err == nil {
		var response *linksgatev1.ExtendLeasesResponse
		response, err = linksgatev1.NewWorkerServiceClient(conn).ExtendLeases(ctx, &linksgatev1.ExtendLeasesRequest{
			GroupName: w.request.GetGroupName(), LeaseTokens: tokens,
		})
		results = response.GetResults()
	}
	if err != nil {
		w.called(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for i, j := range jobs {
		if j.token != tokens[i] || j.state == jobFinished || w.jobs[j.delivery.GetId()] != j {
			continue // leased again, finished or gone meanwhile
		}
		said := linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE
		if i < len(results) {
			said = results[i].GetOutcome()
		}
		switch {
		case said == linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK:
			j.expires = results[i].GetExpiresAt().AsTime()
			j.extendAt = now.Add(w.half(j.expires, now))
		case said == linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE:
			j.extendAt = now.Add(max(w.lease/16, 50*time.Millisecond))
		case w.doubt(j, said, now):
			j.extendAt = now.Add(doubtTime)
		default:
			w.lose(j)
		}
	}
}

// lose gives up a job that somebody else may have by now. The caller holds mu.
func (w *worker) lose(j *job) {
	if j.state == jobWaiting {
		w.waiting = slices.DeleteFunc(w.waiting, func(other *job) bool { return other == j })
		delete(w.jobs, j.delivery.GetId())
		return
	}
	w.client.logger.Warn("lease lost", "id", j.delivery.GetId())
	j.lost = true
	j.cancel(errLost)
}
