package linksgate

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	defaultParallel = 4
	defaultGrace    = 30 * time.Second
	maxLeases       = 1024             // in flight, and in one call
	callTime        = 10 * time.Second // for a call that settles or extends leases
	settleTime      = 5 * time.Second  // to settle what is left when the grace time is over
	leaveTime       = 2 * time.Second  // for the gateway to end the stream of a member that leaves
	maxReason       = 1000             // bytes
)

// Delivery is a notification that was leased to this worker.
type Delivery struct {
	*linksgatev1.Notification
	// Attempt, from 1.
	Attempt int
}

// Handler handles a notification. Its context ends when the lease is lost, or the grace time is over.
type Handler func(ctx context.Context, d *Delivery) error

// outcome is what a handler can say of a notification beside that it failed.
type outcome struct {
	err   error
	park  bool
	retry *time.Duration
	down  time.Duration
}

func (o *outcome) Error() string { return o.err.Error() }
func (o *outcome) Unwrap() error { return o.err }

// Park returns an error with which a [Handler] has the notification set aside, for a person to look at.
func Park(reason string) error { return &outcome{err: errors.New(reason), park: true} }

// RetryAfter returns an error with which a [Handler] has the notification come again after a time, from 0 to 24 h, unless its attempts
// are used up.
func RetryAfter(d time.Duration, err error) error { return &outcome{err: orSaid(err), retry: &d} }

// EverythingIsDown returns an error with which a [Handler] says that nothing is wrong with the notification. The whole group is paused
// for a time, from 1 s to 1 h, and the attempt does not count.
func EverythingIsDown(d time.Duration, err error) error { return &outcome{err: orSaid(err), down: d} }

func orSaid(err error) error {
	if err == nil {
		return errors.New("not now")
	}
	return err
}

// WorkOption configures a worker.
type WorkOption func(*worker)

// Parallel is how many handlers may run at once, from 1 to 1024; default 4. The worker has up to twice as many leases.
func Parallel(n int) WorkOption { return func(w *worker) { w.parallel = n } }

// Grace is how long handlers may take to end after ctx has ended; default 30 s. Then their contexts end.
func Grace(d time.Duration) WorkOption { return func(w *worker) { w.grace = d } }

// MemberName is shown by the gateway. At most 100 bytes of printable ASCII.
func MemberName(name string) WorkOption { return func(w *worker) { w.request.ClientName = name } }

// MemberHeartbeat is as [Heartbeat], for a worker's stream.
func MemberHeartbeat(interval time.Duration) WorkOption {
	return func(w *worker) { w.request.HeartbeatInterval = durationpb.New(interval) }
}

// worker is one member of a group, over any number of streams.
//
// A notification that it was leased is a job: it waits for a free place, is handled, and is settled, which is to tell the gateway and hear
// that it knows. Jobs that wait are dropped when the stream breaks, because the gateway then gives them to others. Those that were begun
// go on, and are settled with whichever gateway answers.
type worker struct {
	link
	handler  Handler
	request  *linksgatev1.ConsumeRequest
	parallel int
	grace    time.Duration

	handlers sync.WaitGroup
	changed  chan struct{} // buffered; wakes the settler

	mu       sync.Mutex
	jobs     map[string]*job // mu; by notification id
	waiting  []*job          // mu; in order of arrival
	finished []*job          // mu; to be settled
	running  int             // mu
	lease    time.Duration   // mu; the group's
	memberID string          // mu; of the open stream; empty: there is none
	joinedAt time.Time       // mu
	leaving  bool            // mu; nothing is begun any more
	holding  bool            // mu; nothing is settled: what is given back would come again at once
}

type jobState int

const (
	jobWaiting jobState = iota
	jobRunning
	jobFinished
)

// job is a notification that was leased to this worker. All fields belong to worker.mu.
type job struct {
	delivery *Delivery
	token    string
	expires  time.Time
	extendAt time.Time
	state    jobState
	cancel   context.CancelCauseFunc // of the handler
	err      error                   // of the handler
	release  bool                    // it was not begun
	lost     bool                    // the lease is over
	doubted  bool                    // the gateway has said once that the lease is over, when that could be old news
	next     *linksgatev1.Lease      // came while a lost one was still being handled, or settled
}

// errLost ends the context of a handler whose lease is over.
var errLost = errors.New("the lease is over: another worker may have the notification")

// errGrace ends the contexts of handlers when the grace time is over.
var errGrace = errors.New("the grace time is over")

// Work is a member of a group until ctx ends, or what coming back cannot mend: then it returns that error. Either way it begins nothing
// more, lets handlers end within the grace time, and settles what they did. It returns nil when everything that was begun has ended by
// itself and the gateway knows of it.
func (c *Client) Work(ctx context.Context, group string, handler Handler, options ...WorkOption) error {
	w := &worker{
		link: link{client: c}, handler: handler, parallel: defaultParallel, grace: defaultGrace,
		request: &linksgatev1.ConsumeRequest{GroupName: group, HeartbeatInterval: durationpb.New(defaultHeartbeat)},
		jobs:    make(map[string]*job), changed: make(chan struct{}, 1), lease: 30 * time.Second,
	}
	for _, option := range options {
		option(w)
	}
	if w.parallel < 1 || w.parallel > maxLeases {
		return fmt.Errorf("linksgate: parallel is %d; it must be from 1 to %d", w.parallel, maxLeases)
	}
	w.request.MaxInFlight = int32(min(2*w.parallel, maxLeases))
	defer w.close()
	return w.run(ctx)
}

// run takes part until ctx ends, and then leaves.
func (w *worker) run(ctx context.Context) error {
	streaming, endStream := context.WithCancel(context.WithoutCancel(ctx))
	calling, endCalls := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	defer background.Wait()
	defer endCalls()
	defer endStream()
	over := make(chan error, 1)
	background.Go(func() { over <- w.stream(streaming) })
	background.Go(func() { w.settleAll(calling) })
	background.Go(func() { w.extendAll(calling) })

	var cause error
	select {
	case <-ctx.Done():
		w.leave(calling)
		select {
		case cause = <-over:
		case <-time.After(leaveTime):
		}
	case cause = <-over:
	}
	w.stopBeginning()
	endStream()
	cut := w.awaitHandlers()
	return errors.Join(cause, cut, w.awaitSettled())
}

// leave tells the gateway that nothing more is wanted, and gives back what was not begun.
func (w *worker) leave(ctx context.Context) {
	w.mu.Lock()
	w.leaving, w.holding = true, true
	member := w.memberID
	w.mu.Unlock()
	if conn, err := w.get(); err == nil && member != "" {
		ctx, cancel := context.WithTimeout(ctx, leaveTime)
		defer cancel()
		_, err := linksgatev1.NewWorkerServiceClient(conn).Leave(ctx, &linksgatev1.LeaveRequest{
			GroupName: w.request.GetGroupName(), MemberId: member,
		})
		if err != nil { // the gateway is gone, and with it the membership
			w.client.logger.Info("leaving without the gateway's word", "error", err)
		}
	}
	w.mu.Lock()
	w.holding = false
	w.mu.Unlock()
	w.stopBeginning()
}

// stopBeginning has nothing more begun, and gives back what waits.
func (w *worker) stopBeginning() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leaving = true
	w.releaseWaiting()
	w.wake()
}

// releaseWaiting gives back what was not begun. The caller holds mu.
func (w *worker) releaseWaiting() {
	for _, j := range w.waiting {
		j.state, j.release = jobFinished, true
		w.finished = append(w.finished, j)
	}
	w.waiting = nil
}

// awaitHandlers waits until nothing is handled any more. Handlers that take longer than the grace time are told so, and waited for once
// more as long as settling may take.
func (w *worker) awaitHandlers() error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.handlers.Wait()
	}()
	grace := time.NewTimer(w.grace)
	defer grace.Stop()
	select {
	case <-ended:
		return nil
	case <-grace.C:
	}
	w.mu.Lock()
	cut := w.running
	for _, j := range w.jobs {
		if j.state == jobRunning {
			j.cancel(errGrace)
		}
	}
	w.mu.Unlock()
	select {
	case <-ended:
	case <-time.After(settleTime):
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.jobs {
		if j.state == jobRunning {
			j.state, j.err = jobFinished, errGrace
			w.finished = append(w.finished, j)
		}
	}
	return fmt.Errorf("linksgate: %w: %d handlers were cut off", errGrace, cut)
}

// awaitSettled waits until the gateway knows of everything, for settleTime at most.
func (w *worker) awaitSettled() error {
	deadline := time.Now().Add(settleTime)
	for {
		w.mu.Lock()
		left := len(w.jobs)
		w.mu.Unlock()
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("linksgate: the gateway could not be told of %d notifications: they come again", left)
		}
		w.wake()
		time.Sleep(10 * time.Millisecond)
	}
}

// wake has the settler look again.
func (w *worker) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// begin starts handlers for jobs that wait, as many as may run. The caller holds mu.
func (w *worker) begin() {
	for len(w.waiting) > 0 && w.running < w.parallel && !w.leaving {
		j := w.waiting[0]
		w.waiting = w.waiting[1:]
		j.state = jobRunning
		w.running++
		ctx, cancel := context.WithCancelCause(context.Background())
		j.cancel = cancel
		w.handlers.Go(func() {
			defer cancel(nil)
			w.finish(j, w.call(ctx, j.delivery))
		})
	}
}

// call calls the handler. A panic is a failure: one notification must not end the work on all others.
func (w *worker) call(ctx context.Context, d *Delivery) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.client.logger.Error("handler panicked", "id", d.GetId(), "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return w.handler(ctx, d)
}

// finish takes in what a handler did.
func (w *worker) finish(j *job, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	if j.state == jobFinished { // was given up
		return
	}
	j.state, j.err = jobFinished, err
	if j.lost {
		w.forget(j)
	} else {
		w.finished = append(w.finished, j)
		w.wake()
	}
	w.begin()
}

// forget drops a job, for the lease that came meanwhile if one did. The caller holds mu.
func (w *worker) forget(j *job) {
	delete(w.jobs, j.delivery.GetId())
	if j.next != nil {
		w.take(j.next)
	}
}
