// Package group answers: who works on what, and what becomes of it?
//
// # The model
//
// A group is a place in the log that its members share. The log hands each record batch to one gateway, which keeps it in hand
// (see eventlog.GroupReader) until every notification in it is settled: acknowledged, parked, or passed over by the group's filter.
// Meanwhile the gateway lends the notifications to the group's members, one lease each.
//
//	log ── record batches ──► ledger ── leases ──► members
//	          ▲                 │ ▲                  │
//	          └── all settled ──┘ └── ack, reject, ──┘
//	                                  lease ended, member gone
//
// A ledger is the book of one group on one gateway and knows nothing of time, disks or clients. A session owns one and moves it:
// it reads batches while there are members with room for them, lends, watches the clock, and stores what must outlive the
// gateway. A session exists while there is something to do.
//
// # What survives what
//
// A member's death: everything. Its leases come back at once.
//
// A planned stop of the gateway: everything. What is settled and what is lent is stored, batches are handed back, and members go on
// with their leases at the next gateway.
//
// The death of the gateway: the settings, the place in the log, what is parked, and every attempt after the first. Its batches come
// again: at once to the next gateway on an embedded log, else when the leases that it gave have ended. What was acknowledged of them
// comes again unless it was acknowledged after the gateway's death. Of an ordered group on an embedded log the next gateway knows, because
// it was stored before, from which batches anything may be out: it holds all that is not settled of these, and what is behind it, until
// it is settled or those leases have ended.
package group

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// The errors of this package, beside those of eventlog. Callers compare with [errors.Is].
var (
	// ErrDraining: the gateway is shutting down.
	ErrDraining = errors.New("the gateway is shutting down")
	// ErrMoved: the group was moved to another place in the log; its members join again.
	ErrMoved = errors.New("the group was moved")
	// ErrTaken: another gateway serves the group now; members may join again and stand by.
	ErrTaken = errors.New("another gateway serves the group now")

	errIdle = errors.New("nothing to do") // a session's end, never a caller's
)

// Groups is the shared work of one gateway. Its methods may be called concurrently.
type Groups struct {
	log     *eventlog.Log
	store   eventlog.Groups
	logger  *slog.Logger
	numbers atomic.Uint64 // of the newest lease
	stats   Stats

	stopWatching, stopAnswering func()
	ending                      sync.WaitGroup // sessions that end by themselves

	draining atomic.Bool // set once

	mu       sync.Mutex
	sessions map[string]*session // mu; by group
}

// Stats count what became of leases since the gateway was started.
type Stats struct {
	Leased, Acknowledged, Rejected, LeasesEnded, Disconnected, Parked, MissedBatches atomic.Uint64
}

// New returns the groups of a log.
func New(log *eventlog.Log, logger *slog.Logger) (*Groups, error) {
	g := &Groups{log: log, store: log.Groups(), logger: logger, sessions: make(map[string]*session)}
	g.numbers.Store(binary.BigEndian.Uint64(random(8)))
	var err error
	if g.stopWatching, err = g.store.Watch(g.changed); err != nil {
		return nil, err
	}
	if g.stopAnswering, err = g.store.Answer(g.answer); err != nil {
		g.stopWatching()
		return nil, err
	}
	return g, nil
}

// Stats returns the counters.
func (g *Groups) Stats() *Stats { return &g.stats }

// Stalled returns how many groups stand still on this gateway because as much as may be is in hand and waits.
func (g *Groups) Stalled() (count int) {
	for _, s := range g.open() {
		s.mu.Lock()
		if s.stalled {
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
	g.stopWatching()
	g.stopAnswering()
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
	record := &linksgatev1.GroupRecord{
		Group: group, Incarnation: random(incarnationLen), TokenKey: random(keyLen), StartSequence: eventlog.Position(start).Sequence(),
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
	records = slices.DeleteFunc(records, func(r *linksgatev1.GroupRecord) bool { return r.GetGroup().GetName() <= after })
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
	return g.replace(ctx, name, func(record *linksgatev1.GroupRecord) error { return change(record.GetGroup()) })
}

// Seek moves a group to a place. Errors: eventlog.ErrNoGroup, ErrGroupChanged, ErrUnavailable.
func (g *Groups) Seek(ctx context.Context, name string, to eventlog.Cursor) (*linksgatev1.Group, error) {
	return g.replace(ctx, name, func(record *linksgatev1.GroupRecord) error {
		record.Incarnation, record.StartSequence = random(incarnationLen), eventlog.Position(to).Sequence()
		return nil
	})
}

func (g *Groups) replace(ctx context.Context, name string, change func(*linksgatev1.GroupRecord) error) (*linksgatev1.Group, error) {
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
	g.changed(name) // as the watch will say in a moment
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

// changed brings the session of a group up to date; those of all groups if the name is empty.
func (g *Groups) changed(name string) {
	g.mu.Lock()
	var sessions []*session
	for _, s := range g.sessions {
		if name == "" || s.name == name {
			sessions = append(sessions, s)
		}
	}
	g.mu.Unlock()
	for _, s := range sessions {
		s.refresh()
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

// methodStatus asks other gateways for their part of a group's status.
const methodStatus = "status"

// describeAtOnce is of how many groups the status is asked for at once: other gateways take their time.
const describeAtOnce = 16

// statusWait is how long other gateways have to tell their part.
const statusWait = 300 * time.Millisecond

// describe completes a group with its status, over all gateways.
func (g *Groups) describe(ctx context.Context, record *linksgatev1.GroupRecord) (*linksgatev1.Group, error) {
	state, err := g.store.State(ctx, record)
	if err != nil {
		return nil, err
	}
	name := record.GetGroup().GetName()
	status, replays := g.localStatus(name)
	others := g.store.AskAll(ctx, methodStatus, []byte(name), statusWait)
	for _, answer := range others {
		theirs := new(linksgatev1.GroupStatus)
		if err := proto.Unmarshal(answer, theirs); err == nil {
			status.InFlight += theirs.GetInFlight()
			status.Retrying += theirs.GetRetrying()
			status.MissedRecordBatches += theirs.GetMissedRecordBatches()
			status.Held += theirs.GetHeld()
			status.Stalled = status.GetStalled() || theirs.GetStalled()
			status.Members = append(status.Members, theirs.GetMembers()...)
		}
	}
	status.Parked = state.Parked
	status.Retrying += uint32(state.UndeliveredReplays)
	if len(others) == 0 && state.UnsettledReplays > replays { // others may have them in hand, and say so
		status.Retrying += uint32(state.UnsettledReplays - replays) // were handed back
	}
	status.Lag = &linksgatev1.Lag{RecordBatches: state.Lag.Batches, Time: durationpb.New(state.Lag.Time)}
	if state.Unsettled+state.Undelivered > 0 {
		status.OldestUnacknowledged = &linksgatev1.LogPosition{
			Token: g.log.Token(state.Oldest), Sequence: eventlog.Position(state.Oldest).Sequence(),
		}
		if !state.OldestWritten.IsZero() {
			status.OldestUnacknowledged.WrittenAt = timestamppb.New(state.OldestWritten)
		}
	}
	group := proto.CloneOf(record.GetGroup())
	group.Status = status
	return group, nil
}
