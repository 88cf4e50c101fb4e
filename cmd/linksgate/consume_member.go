package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// shortestLease is by Group.lease_duration.
const shortestLease = time.Second

// decision is what is to become of a lease.
type decision int

const (
	acknowledge decision = iota
	retry
	park
	release // nothing was done about it: it was not begun, or could not be
)

// outcome is how the handling of a notification ended. The zero value: it was handled.
type outcome struct {
	decision decision
	reason   string // of a refusal; valid text
}

// handler handles notifications, in some slots at once.
type handler struct {
	slots int
	most  int // leases in one call
	// handle handles leases in a slot, until its context ends, and returns the outcome of each. An error ends the member: its leases
	// were not handled, and more would not be either. They are given back. EPIPE says that nobody wants more, which is no failure.
	handle func(ctx context.Context, slot int, leases []*linksgatev1.Lease) ([]outcome, error)
}

// member is one member of a group, over any number of streams.
//
// A notification that it has been lent is a job: held until a slot is free, handled, and settled, which is to tell the gateway and
// hear that it knows. Held jobs are given up when the stream breaks, since the gateway then gives them to others, and are released when the
// member is to leave. Those that were begun go on, whatever becomes of the stream; settling and extending need none.
//
// Everything below belongs to the goroutine that calls run. What waits for something else (the stream, a handler, a call) does so in a
// goroutine of its own, of each kind as many as there are places for, and reports over a channel with room for all of them.
type member struct {
	client  linksgatev1.WorkerServiceClient
	request *linksgatev1.ConsumeRequest
	handler handler
	address string                      // as of session
	examine func(context.Context) error // as of session
	notice  func(text string)           // safe for concurrent use
	explain func(*status.Status, *errdetails.ErrorInfo) error
	// count of notifications after which to leave; 0: never.
	count int
	// idleExit is how long to wait for a notification before leaving; 0: for ever.
	idleExit time.Duration
	// grace is how long handlers may take after the context has ended.
	grace time.Duration
	// signals to end, the one that ended the context among them.
	signals <-chan os.Signal
	// release lets further signals end the process.
	release func()

	jobs     map[string]*job // by notification id
	held     []*job          // in order of arrival; some may have been dropped
	finished []*job          // to be settled
	slots    []int           // that are free
	begun    int             // notifications, those apart that somebody else got

	lease     time.Duration // the group's
	attempts  int32         // the group's greatest number; 0: not known yet
	joined    bool          // there is a stream
	memberID  string        // of that stream
	partBy    time.Time     // the stream will have ended by then
	parting   bool          // the gateway is being told that the member leaves
	parted    chan struct{} // buffered; it was told
	joinedAt  time.Time
	idleSince time.Time // without an interruption, with a stream or without one; zero: there is something to do
	leaving   bool
	calls     *sync.WaitGroup // of run
	endStream context.CancelFunc
	calling   context.Context // of calls to settle and to extend; ends with run
	cause     error           // of leaving; nil if that was asked for
	deadline  time.Time       // for the handlers; zero: none
	giveUp    time.Time       // for settling; zero: none
	signalled int             // times

	settling    bool
	settleAgain time.Time
	failures    int // of settling, in a row
	extending   bool

	frames   chan frame
	over     chan error // of the session
	results  chan result
	settled  chan settlement
	extended chan extension
}

// frame is what the stream brought. Neither: the stream has ended, as planned or not.
type frame struct {
	joined  *linksgatev1.GroupJoined
	leases  []*linksgatev1.Lease
	planned bool
}

// job is a notification that was lent to this member.
type job struct {
	id    string
	lease *linksgatev1.Lease
	token string // of the newest lease
	state jobState
	// doubted says that the gateway has once said that the lease is over, when that could be because it had lent the notification to
	// this member again, and the news of it was still on its way.
	doubted bool
	// lost says that the lease is over and the gateway knows nothing of this member.
	lost bool
	// next is what came meanwhile for a job that is lost, or that is being settled; nil if nothing did.
	next     *linksgatev1.Lease
	extendAt time.Time
	kill     context.CancelFunc // while it is handled
	outcome  outcome            // when it has been handled
}

type jobState int

const (
	jobHeld jobState = iota
	jobBegun
	jobFinished
)

// result is what a handler did.
type result struct {
	slot     int
	jobs     []*job
	outcomes []outcome
	err      error
}

func newMember(client linksgatev1.WorkerServiceClient, request *linksgatev1.ConsumeRequest, notice func(string)) *member {
	return &member{
		client: client, request: request, notice: notice, jobs: map[string]*job{}, lease: 30 * time.Second,
		frames: make(chan frame), over: make(chan error, 1), settled: make(chan settlement, 1), parted: make(chan struct{}, 1), extended: make(chan extension, 1),
	}
}

// run takes part in the group until ctx ends or it has done what was asked. Then it returns nil when everything that it began has
// ended by itself and the gateway knows. An error says what the user can do.
func (m *member) run(ctx context.Context) error {
	m.results = make(chan result, m.handler.slots)
	for slot := range m.handler.slots {
		m.slots = append(m.slots, slot)
	}
	streaming, endStream := context.WithCancel(context.WithoutCancel(ctx))
	m.endStream = endStream
	calling, endCalls := context.WithCancel(context.WithoutCancel(ctx))
	m.calling = calling
	var background sync.WaitGroup
	m.calls = &background
	defer background.Wait()
	defer endCalls()
	defer endStream()
	background.Go(func() { m.over <- m.join(streaming) })
	stop := ctx.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		m.watchTime(now)
		m.begin(&background)
		m.settle(&background, now)
		m.extend(&background, now)
		if m.done(now) {
			return m.cause
		}
		timer.Reset(m.next(now).Sub(now))
		select {
		case f := <-m.frames:
			m.take(f)
		case err := <-m.over:
			m.over = nil
			m.leave(err)
		case r := <-m.results:
			m.finish(r)
		case s := <-m.settled:
			// What the stream brought before may be a new lease of what was settled here.
			select {
			case f := <-m.frames:
				m.take(f)
			default:
			}
			m.settleResults(s)
		case e := <-m.extended:
			m.extendResults(e)
		case <-m.parted:
			m.parting = false
		case <-stop:
			stop = nil
			m.hurry()
		case <-m.signals:
			if m.signalled++; m.signalled == 2 {
				m.killAll("a second signal")
				m.release()
			}
		case <-timer.C:
		}
	}
}

// join keeps streams coming. It is the only part that does not run in the member's goroutine.
func (m *member) join(ctx context.Context) error {
	s := &session{
		joining: "joining", joined: "joined", address: m.address, examine: m.examine, notice: m.notice, wait: wait, silence: 3 * defaultHeartbeat,
	}
	joined := false
	pass := func(f frame) {
		select {
		case m.frames <- f:
		case <-ctx.Done():
		}
	}
	handle := func(response *linksgatev1.ConsumeResponse, end *streamEnd) error {
		switch f := response.GetFrame().(type) {
		case *linksgatev1.ConsumeResponse_Joined:
			s.confirmed(f.Joined.GetHeartbeatInterval().AsDuration())
			joined = true
			pass(frame{joined: f.Joined})
			return nil
		case *linksgatev1.ConsumeResponse_Leases:
			pass(frame{leases: f.Leases.GetLeases()})
		case *linksgatev1.ConsumeResponse_Closing:
			end.closing = f.Closing
		}
		end.progressed = true
		return nil
	}
	open := func(ctx context.Context) (grpc.ServerStreamingClient[linksgatev1.ConsumeResponse], error) {
		return m.client.Consume(ctx, m.request)
	}
	stream := func(ctx context.Context) (streamEnd, error) {
		joined = false
		end, err := readStream(ctx, s, open, handle)
		if !joined {
			return end, err // leases have nothing to do with it
		}
		pass(frame{planned: end.closing != nil && end.closing.GetReason() != linksgatev1.ClosingReason_CLOSING_REASON_GROUP_MOVED})
		return end, err
	}
	return s.run(ctx, stream, func(end streamEnd) (*again, error) { return s.judge(end, m.explain) })
}

// take takes in what the stream brought.
func (m *member) take(f frame) {
	now := time.Now()
	switch {
	case f.joined != nil:
		if d := f.joined.GetGroup().GetLeaseDuration().AsDuration(); d > 0 {
			m.lease = d
		}
		m.attempts = f.joined.GetGroup().GetMaxAttempts()
		m.joined, m.joinedAt, m.memberID, m.idleSince = true, now, f.joined.GetMemberId(), time.Time{}
		if m.leaving {
			m.part()
		}
		// Whether what was begun on another stream is still ours is for the gateway to say.
		for _, job := range m.jobs {
			job.extendAt = now
		}
	case f.leases != nil:
		for _, lease := range f.leases {
			m.takeLease(lease, now)
		}
	default:
		m.joined, m.idleSince = false, time.Time{}
		// What was not begun has gone back to the group, unless the gateway took its leave: then leases stay good.
		if !f.planned {
			for _, job := range m.held {
				m.drop(job)
			}
			m.held = nil
		}
		if m.leaving { // what was begun can be settled without
			m.endStream()
		}
	}
}

// takeLease adds a job. A notification that is a job already was lent to us again because the gateway did not know that it is: then
// that job settles the new lease.
func (m *member) takeLease(lease *linksgatev1.Lease, now time.Time) {
	id := lease.GetNotification().GetId()
	known := m.jobs[id]
	switch {
	case known == nil:
		known = &job{id: id, lease: lease, token: lease.GetLeaseToken()}
		m.jobs[id] = known
		m.held = append(m.held, known)
	case known.lost, known.state == jobFinished: // another attempt, if the gateway knows by now how the one before ended
		known.next = lease
	default:
		known.token, known.doubted = lease.GetLeaseToken(), false
	}
	known.extendAt = m.half(lease, now)
	if m.leaving {
		m.releaseHeld()
	}
}

// half is when to extend a lease that has just been given: in the middle. The gateway's clock may differ from ours, and the group's
// lease may have changed, so the shorter of what both say counts.
func (m *member) half(lease interface{ GetExpiresAt() *timestamppb.Timestamp }, now time.Time) time.Time {
	left := max(lease.GetExpiresAt().AsTime().Sub(now), shortestLease)
	return now.Add(min(left, m.lease) / 2)
}

// drop forgets a job that was not begun.
func (m *member) drop(job *job) {
	if job.state == jobHeld && m.jobs[job.id] == job {
		delete(m.jobs, job.id)
	}
}

// begin hands jobs to free slots, until as many as were asked for have been handled.
func (m *member) begin(background *sync.WaitGroup) {
	if m.count > 0 && m.begun >= m.count && m.running() == 0 {
		m.stopTaking()
	}
	for len(m.slots) > 0 && !m.leaving {
		most := m.handler.most
		if m.count > 0 {
			most = min(most, m.count-m.begun)
		}
		var jobs []*job
		for len(jobs) < most && len(m.held) > 0 {
			if job := m.held[0]; m.jobs[job.id] == job {
				jobs = append(jobs, job)
			}
			m.held = m.held[1:]
		}
		if len(jobs) == 0 {
			return
		}
		ctx, kill := context.WithCancel(context.Background())
		leases := make([]*linksgatev1.Lease, len(jobs))
		for i, job := range jobs {
			job.state, job.kill, leases[i] = jobBegun, kill, job.lease
		}
		m.begun += len(jobs)
		slot := m.slots[len(m.slots)-1]
		m.slots = m.slots[:len(m.slots)-1]
		background.Go(func() {
			defer kill()
			outcomes, err := m.handler.handle(ctx, slot, leases)
			m.results <- result{slot, jobs, outcomes, err}
		})
	}
}

// finish takes in what a handler did.
func (m *member) finish(r result) {
	m.slots = append(m.slots, r.slot)
	for i, job := range r.jobs {
		switch {
		case job.lost:
			m.begun--
			delete(m.jobs, job.id)
			if job.next != nil {
				m.takeLease(job.next, time.Now())
			}
		case r.err != nil:
			job.state, job.outcome = jobFinished, outcome{decision: release}
			m.finished = append(m.finished, job)
		default:
			job.state, job.outcome = jobFinished, r.outcomes[i]
			m.finished = append(m.finished, job)
			m.tell(job)
		}
	}
	switch {
	case errors.Is(r.err, syscall.EPIPE):
		if !m.leaving {
			m.notice("nobody reads standard output any more: leaving, and giving back what was not handled")
		}
		m.hurry()
	case r.err != nil:
		m.leave(r.err)
	}
}

// tell tells of a notification that was refused.
func (m *member) tell(job *job) {
	what := "is to come again"
	switch {
	case job.outcome.decision == acknowledge, job.outcome.decision == release:
		return
	case job.outcome.decision == park, m.attempts > 0 && job.lease.GetAttempt() >= m.attempts:
		what = "is parked"
	}
	m.notice(fmt.Sprintf("%s, attempt %d, %s: %s", visible(job.id), job.lease.GetAttempt(), what, escaped(job.outcome.reason)))
}
