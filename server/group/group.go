// Package group answers: who works on what, and what becomes of it?
//
// # The model
//
// A group is an offset in the log that its members share. One gateway coordinates it: it reads the log in order (see
// eventlog.GroupReader), and has each record batch in flight until every notification in it is settled: acknowledged, parked, or passed
// over by the group's filter. Meanwhile it leases the notifications to the group's members, one lease each.
//
//	log ── record batches ──► ledger ── leases ──► members
//	          ▲                 │ ▲                  │
//	          └── all settled ──┘ └── ack, reject, ──┘
//	                                  lease ended, member gone
//
// A ledger is the book of one group and knows nothing of time, disks or clients. A session owns one and moves it:
// it reads batches while there are members with room for them, lends, watches the clock, and stores what must outlive the
// gateway. A session exists while there is something to do.
//
// # What survives what
//
// A member's death: everything. Its leases come back at once.
//
// A planned stop of the gateway: everything. What is settled and what is leased is stored, and members go on with their leases when the
// group is coordinated again, here or elsewhere.
//
// The death of the gateway: the settings, everything that was settled and answered, what is parked, and every attempt after the first.
// What was leased comes again at once. Of an ordered group the next coordinator knows, because it was stored before, from which record
// batches anything may be out: it holds all that is not settled of these, and what is behind it, until it is settled or those leases
// have ended.
package group

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// The errors of this package, beside those of eventlog. Callers compare with [errors.Is].
var (
	// ErrDraining: the gateway is shutting down.
	ErrDraining = errors.New("the gateway is shutting down")
	// ErrMoved: the group was moved to another place in the log; its members join again.
	ErrMoved = errors.New("the group was moved")
	// ErrRefiltered: the group has another filter now; its members join again, which they may have no right to.
	ErrRefiltered = errors.New("the filter of the group was changed")
	// ErrLeft: the member left.
	ErrLeft = errors.New("the member left")
	// ErrTaken: another gateway coordinates the group now; members join again, there.
	ErrTaken = errors.New("another gateway coordinates the group now")

	errIdle = errors.New("nothing to do")                                  // a session's end, never a caller's
	errLost = fmt.Errorf("%w, and may have done so for a while", ErrTaken) // without handing back
)

// Groups is the shared work of one gateway. Its methods may be called concurrently.
type Groups struct {
	log     *eventlog.Log
	store   *eventlog.Groups
	logger  *slog.Logger
	numbers atomic.Uint64 // of the newest lease
	stats   Stats

	ending sync.WaitGroup // sessions that end by themselves

	draining atomic.Bool // set once

	mu       sync.Mutex
	sessions map[string]*session // mu; by group
}

// Stats count what became of leases since the gateway was started.
type Stats struct {
	Leased, Acknowledged, Rejected, LeasesEnded, Disconnected, Parked, MissedBatches atomic.Uint64
}

// New returns the groups of a log.
func New(log *eventlog.Log, logger *slog.Logger) *Groups {
	g := &Groups{log: log, store: log.Groups(), logger: logger, sessions: make(map[string]*session)}
	g.numbers.Store(binary.BigEndian.Uint64(random(8)))
	return g
}

// Stats returns the counters.
func (g *Groups) Stats() *Stats { return &g.stats }

// Blocked returns how many groups of this gateway cannot lease anything because as much as may be is in flight and waits.
func (g *Groups) Blocked() (count int) {
	for _, s := range g.open() {
		s.mu.Lock()
		if s.blocked {
			count++
		}
		s.mu.Unlock()
	}
	return count
}

// open returns the sessions that there are.
func (g *Groups) open() []*session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.sessions))
}

// Drain ends all members with ErrDraining. What they have can still be settled.
func (g *Groups) Drain() {
	g.draining.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sessions {
		s.drain()
	}
}

// Close hands back what is in hand, so that the next gateway goes on where this one stopped. Call it after Drain, before the log
// is closed.
func (g *Groups) Close() {
	g.Drain()
	var closing sync.WaitGroup
	for _, s := range g.open() {
		closing.Go(func() { s.end(ErrDraining) })
	}
	closing.Wait()
	g.ending.Wait()
}

// Create creates a group that starts at a place. The group must be complete and checked. It is durable when Create returns nil.
// Errors: eventlog.ErrGroupExists, ErrTooManyGroups, ErrUnavailable.
func (g *Groups) Create(ctx context.Context, group *linksgatev1.Group, start eventlog.Cursor) (*linksgatev1.Group, error) {
	group = proto.CloneOf(group)
	group.CreatedAt, group.Status = timestamppb.Now(), nil
	record := &storagev1.GroupRecord{
		Group: group, Generation: random(incarnationLen), TokenKey: random(keyLen), StartSequence: eventlog.Position(start).Sequence(),
	}
	if err := g.store.Create(ctx, record); err != nil {
		return nil, err
	}
	return group, nil
}

// Get returns a group and its status. Errors: eventlog.ErrNoGroup, ErrUnavailable.
func (g *Groups) Get(ctx context.Context, name string) (*linksgatev1.Group, error) {
	record, _, err := g.store.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	return g.describe(ctx, record)
}

// List returns up to most of the groups after a name, by name, with their status, and whether there are more. Errors:
// eventlog.ErrUnavailable.
func (g *Groups) List(ctx context.Context, after string, most int) (groups []*linksgatev1.Group, more bool, err error) {
	records, err := g.store.List(ctx)
	if err != nil {
		return nil, false, err
	}
	records = slices.DeleteFunc(records, func(r *storagev1.GroupRecord) bool { return r.GetGroup().GetName() <= after })
	if more = len(records) > most; more {
		records = records[:most]
	}
	groups = make([]*linksgatev1.Group, len(records))
	errs := make([]error, len(records))
	var describing sync.WaitGroup
	room := make(chan struct{}, describeAtOnce)
	for i, record := range records {
		room <- struct{}{}
		describing.Go(func() {
			defer func() { <-room }()
			groups[i], errs[i] = g.describe(ctx, record)
			if errors.Is(errs[i], eventlog.ErrNoGroup) { // deleted meanwhile
				groups[i], errs[i] = nil, nil
			}
		})
	}
	describing.Wait()
	return slices.DeleteFunc(groups, func(g *linksgatev1.Group) bool { return g == nil }), more, errors.Join(errs...)
}

// Update changes a group as change does. Errors: those of change, eventlog.ErrNoGroup, ErrGroupChanged, ErrUnavailable.
func (g *Groups) Update(ctx context.Context, name string, change func(*linksgatev1.Group) error) (*linksgatev1.Group, error) {
	return g.replace(ctx, name, func(record *storagev1.GroupRecord) error { return change(record.GetGroup()) })
}

// Seek moves a group to a place. Errors: eventlog.ErrNoGroup, ErrGroupChanged, ErrUnavailable.
func (g *Groups) Seek(ctx context.Context, name string, to eventlog.Cursor) (*linksgatev1.Group, error) {
	return g.replace(ctx, name, func(record *storagev1.GroupRecord) error {
		record.Generation, record.StartSequence = random(incarnationLen), eventlog.Position(to).Sequence()
		return nil
	})
}

func (g *Groups) replace(ctx context.Context, name string, change func(*storagev1.GroupRecord) error) (*linksgatev1.Group, error) {
	record, revision, err := g.store.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := change(record); err != nil {
		return nil, err
	}
	if err := g.store.Put(ctx, record, revision); err != nil {
		return nil, err
	}
	g.changed(name)
	return record.GetGroup(), nil
}

// Delete deletes a group. Errors: eventlog.ErrNoGroup, ErrUnavailable.
func (g *Groups) Delete(ctx context.Context, name string) error {
	if err := g.store.Delete(ctx, name); err != nil {
		return err
	}
	g.changed(name)
	return nil
}

// changed brings the session of a group up to date, if there is one.
func (g *Groups) changed(name string) {
	g.mu.Lock()
	s := g.sessions[name]
	g.mu.Unlock()
	if s != nil {
		s.refresh()
	}
}

// Abandon ends the work on a group that another gateway coordinates already.
func (g *Groups) Abandon(name string) {
	g.mu.Lock()
	s := g.sessions[name]
	g.mu.Unlock()
	if s != nil {
		s.end(errLost)
	}
}

// session returns the session of a group, opening one if there is none.
func (g *Groups) session(ctx context.Context, name string) (*session, error) {
	for {
		g.mu.Lock()
		s := g.sessions[name]
		if s == nil {
			s = newSession(g, name)
			g.sessions[name] = s
			g.mu.Unlock()
			s.open()
		} else {
			g.mu.Unlock()
		}
		select {
		case <-s.opened:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if errors.Is(s.openErr, eventlog.ErrGroupChanged) { // moved since it was read
			continue
		}
		if s.openErr != nil {
			return nil, s.openErr
		}
		if !s.isEnding() {
			return s, nil
		}
		select {
		case <-s.ended: // what it had in hand can be had now
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// isRenewed reports whether a session ended so that there is, or can be, another one.
func isRenewed(err error) bool {
	return errors.Is(err, errIdle) || errors.Is(err, ErrMoved) || errors.Is(err, ErrTaken)
}

// forget takes a session that has ended out of the way of a new one.
func (g *Groups) forget(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sessions[s.name] == s {
		delete(g.sessions, s.name)
	}
}

// describeAtOnce is of how many groups the status is found out at once.
const describeAtOnce = 16

// describe completes a group with its status.
func (g *Groups) describe(ctx context.Context, record *storagev1.GroupRecord) (*linksgatev1.Group, error) {
	state, err := g.store.State(ctx, record)
	if err != nil {
		return nil, err
	}
	status, replays := g.localStatus(record.GetGroup().GetName())
	status.Parked = int64(state.Parked)
	if state.UnsettledReplays > replays {
		status.Retrying += int32(state.UnsettledReplays - replays) // were handed back
	}
	status.Lag = &linksgatev1.Lag{RecordBatches: int64(state.Lag.Batches), Time: durationpb.New(state.Lag.Time)}
	if state.Unsettled+state.Undelivered > 0 {
		status.OldestUnsettled = &linksgatev1.LogPosition{
			Token: g.log.Token(state.Oldest), Sequence: int64(eventlog.Position(state.Oldest).Sequence()),
		}
		if !state.OldestWritten.IsZero() {
			status.OldestUnsettled.WrittenAt = timestamppb.New(state.OldestWritten)
		}
	}
	group := proto.CloneOf(record.GetGroup())
	group.Status = status
	return group, nil
}
