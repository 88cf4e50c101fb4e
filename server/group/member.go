package group

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// Lease is a notification lent to a member.
type Lease struct {
	// Token settles it.
	Token string
	// Attempt, from 1.
	Attempt uint32
	// Until is when the lease ends.
	Until time.Time
	// Record is the notification.
	Record *eventlog.Record
}

// Member takes part in the work of a group. [Member.Next] is for one goroutine; Leave may be called from another, once Next is
// not called any more.
type Member struct {
	session    *session
	id         string // names it for Leave
	clientName string
	joined     time.Time
	most       int
	wake       chan struct{} // buffered

	// All of these belong to session.mu.
	leases    map[*item]struct{}
	pending   []grant // not taken with Next yet
	lastGrant uint64
	alone     *item     // has the member to itself
	reserved  time.Time // gets nothing until it has nothing, for one that must be alone, since then; zero if it is not reserved
	over      error     // why it gets nothing any more; nil: it does
	lapsed    bool      // let a lease end, or did not even take it: gets one at a time until it settles one
}

// grant is a lease that its member does not know of yet.
type grant struct {
	item   *item
	number uint64
}

// Join makes a client a member of a group, with up to most leases at once. Errors: eventlog.ErrNoGroup, ErrUnavailable,
// ErrDraining.
func (g *Groups) Join(ctx context.Context, name, clientName string, most int) (*Member, error) {
	for {
		s, err := g.session(ctx, name)
		if err != nil {
			return nil, err
		}
		if g.draining.Load() {
			return nil, ErrDraining
		}
		m, err := s.join(clientName, most)
		if err == nil || !isRenewed(err) {
			return m, err
		}
	}
}

func (s *session) join(clientName string, most int) (*Member, error) {
	m := &Member{
		session: s, id: hex.EncodeToString(random(memberIDLen)), clientName: clientName, joined: time.Now(), most: most,
		wake: make(chan struct{}, 1), leases: make(map[*item]struct{}),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone != nil {
		return nil, s.gone
	}
	s.members = append(s.members, m)
	s.lastUsed = time.Now()
	s.lend(time.Now())
	s.hungry.Broadcast()
	return m, nil
}

// ID names the member, for [Groups.Leave].
func (m *Member) ID() string { return m.id }

// Leave ends what a member gets: its Next returns ErrLeft. What was leased to it and not taken yet goes to others; what it has it keeps.
// A member that is not there any more is no error. Errors: eventlog.ErrNoGroup, ErrUnavailable.
func (g *Groups) Leave(ctx context.Context, name, memberID string) error {
	s, err := g.session(ctx, name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, m := range s.members {
		if m.id != memberID {
			continue
		}
		m.end(ErrLeft, now)
	}
	s.lend(now)
	return nil
}

// end has a member get nothing more. What was leased to it and not taken yet goes to others. The caller holds mu.
func (m *Member) end(why error, now time.Time) {
	m.over = why
	for it := range m.leases {
		if !it.told {
			m.session.release(it)
			m.session.ledger.takeBack(it, now)
		}
	}
	m.signal()
}

// Group returns the group's settings in force.
func (m *Member) Group() *linksgatev1.Group { return m.session.currentRecord().GetGroup() }

// Next waits for leases and returns those that are there, as many as fit into a size in bytes, at least one. It returns none when
// ctx ends. Errors: ErrDraining, ErrMoved, ErrRefiltered, ErrLeft, eventlog.ErrNoGroup when the group was deleted.
func (m *Member) Next(ctx context.Context, bytes int) ([]Lease, error) {
	for {
		leases, err := m.take(bytes)
		if len(leases) > 0 || err != nil {
			return leases, err
		}
		select {
		case <-m.wake:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// take returns the leases that wait for the member.
func (m *Member) take(bytes int) ([]Lease, error) {
	draining := m.session.groups.draining.Load()
	s := m.session
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone != nil:
		return nil, s.gone
	case draining:
		return nil, ErrDraining
	case m.over != nil:
		return nil, m.over
	}
	var leases []Lease
	taken := 0
	for _, p := range m.pending {
		if it := p.item; it.state == stateLeased && it.lease == p.number {
			if bytes -= len(it.record.Message()); bytes < 0 && len(leases) > 0 {
				break
			}
			leases = append(leases, Lease{Attempt: it.attempts, Until: it.until, Record: it.record, Token: s.token(it)})
			it.told = true
		}
		taken++
	}
	m.pending = slices.Delete(m.pending, 0, taken)
	if len(m.pending) > 0 {
		m.signal()
	}
	s.groups.stats.Leased.Add(uint64(len(leases)))
	return leases, nil
}

// token returns the token of the lease of a notification. The caller holds mu.
func (s *session) token(it *item) string {
	return s.signer.token(lease{
		incarnation: s.incarnation, source: it.batch.source, stream: it.batch.stream, sequence: it.sequence(),
		attempt: it.attempts, number: it.lease, until: it.until,
	})
}

// Leave ends the membership. The member's leases are given back, unless it is to keep them because the gateway is what ends the
// membership: then they stay good until they end.
func (m *Member) Leave(keep bool) {
	s := m.session
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = slices.DeleteFunc(s.members, func(other *Member) bool { return other == m })
	now := time.Now()
	for it := range m.leases {
		switch {
		case !it.told:
			s.ledger.takeBack(it, now)
		case keep:
			it.member = nil
		default:
			s.groups.stats.Disconnected.Add(1)
			s.ledger.fail(it, linksgatev1.ParkReason_PARK_REASON_DISCONNECTED, "", backOffRule, now)
		}
	}
	m.leases, m.pending = nil, nil
	s.lend(now)
	s.wakeWriter()
	s.wakeBy(now)
}

// Fetch lends up to most notifications, of a size of bytes in all, without a membership: those that are there, or the first to
// arrive within the time to wait. Errors: as for Join; ErrRefiltered.
func (g *Groups) Fetch(ctx context.Context, name, clientName string, most, bytes int, wait time.Duration) ([]Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, max(wait, lookTime)+openTime)
	defer cancel()
	for {
		m, err := g.Join(ctx, name, clientName, most)
		if err != nil {
			return nil, err
		}
		waiting, stop := context.WithTimeout(ctx, max(wait, lookTime))
		leases, err := m.Next(waiting, bytes)
		stop()
		m.Leave(ctx.Err() == nil) // what the caller does not wait for any more it will not get
		if !isRenewed(err) {
			return leases, err
		}
	}
}

const (
	lookTime = 250 * time.Millisecond // to find what is there
	openTime = 10 * time.Second       // to open the group, if nobody works on it
)

const memberIDLen = 8 // bytes

func (m *Member) signal() { signal(m.wake) }

// room is how many more leases the member may get now.
func (m *Member) room() int {
	switch {
	case m.alone != nil || !m.reserved.IsZero() || m.over != nil:
		return 0
	case m.lapsed: // it may be gone without anybody having noticed
		return 1 - len(m.leases)
	}
	return m.most - len(m.leases)
}

// lend lends what is ready to members that have room. The caller holds mu.
func (s *session) lend(now time.Time) {
	g := s.ledger
	if s.gone != nil || len(s.members) == 0 || s.groups.draining.Load() || s.paused(now) {
		return
	}
	s.lendAlone(now)
	changed := false
	for len(g.ready.items) > 0 {
		if it := g.ready.items[0]; !s.filter.Match(it.record) { // the filter was changed since
			g.settle(it, now)
			changed = true
			continue
		}
		m := s.roomiest()
		if m == nil {
			break
		}
		s.grant(g.ready.items[0], m, now)
		changed = true
	}
	if changed {
		s.hungry.Broadcast()
	}
	s.wakeWriter()
}

// paused reports whether nothing is to be leased. The caller holds mu.
func (s *session) paused(now time.Time) bool {
	return s.record.GetGroup().GetPaused() || now.Before(s.pausedUntil)
}

// roomiest returns the member that gets the next lease: the one with the fewest, of those the one that waited longest; nil if none
// has room. One that let a lease end comes after all others.
func (s *session) roomiest() *Member {
	var best *Member
	for _, m := range s.members {
		if m.room() <= 0 {
			continue
		}
		if best == nil || m.before(best) {
			best = m
		}
	}
	return best
}

// before reports whether a member is to be lent something rather than another one.
func (m *Member) before(other *Member) bool {
	if m.lapsed != other.lapsed {
		return other.lapsed
	}
	return cmp.Or(cmp.Compare(len(m.leases), len(other.leases)), cmp.Compare(m.lastGrant, other.lastGrant)) < 0
}

// reserveTime is how long a member that is to be emptied, for a notification that must be alone, has for that before another one is
// emptied too: it may have something that takes for ever.
const reserveTime = 5 * time.Second

// lendAlone lends notifications that must be alone to members that have nothing, and sees to it that there will be some.
func (s *session) lendAlone(now time.Time) {
	for _, it := range slices.Clone(s.ledger.alone) {
		if !s.filter.Match(it.record) {
			s.ledger.settle(it, now)
		}
	}
	// One that let a lease end would let this one end too, and use up its attempts.
	healthy := slices.ContainsFunc(s.members, func(m *Member) bool { return !m.lapsed && m.over == nil })
	fit := func(m *Member) bool { return m.over == nil && (!m.lapsed || !healthy) }
	for _, m := range s.members {
		if len(s.ledger.alone) > 0 && len(m.leases) == 0 && fit(m) {
			it := s.ledger.alone[0]
			m.alone, m.reserved = it, time.Time{}
			s.grant(it, m, now)
		}
	}
	var last time.Time // that a member was reserved
	var best *Member
	for _, m := range s.members {
		switch {
		case len(s.ledger.alone) == 0 || !fit(m):
			m.reserved = time.Time{}
		case m.alone != nil:
		case m.reserved.After(last):
			last = m.reserved
		case m.reserved.IsZero() && (best == nil || m.before(best)):
			best = m
		}
	}
	// One member after the other is emptied, so that the others go on.
	s.reserveAt = time.Time{}
	if len(s.ledger.alone) == 0 || best == nil {
		return
	}
	if s.reserveAt = last.Add(reserveTime); !s.reserveAt.After(now) {
		best.reserved, s.reserveAt = now, now.Add(reserveTime)
	}
	s.wakeBy(s.reserveAt)
}

// grant lends a notification to a member.
func (s *session) grant(it *item, m *Member, now time.Time) {
	number := s.groups.numbers.Add(1)
	s.ledger.lend(it, m, number, now)
	it.told = false
	s.grants++
	m.lastGrant = s.grants
	m.leases[it] = struct{}{}
	m.pending = append(m.pending, grant{it, number})
	m.signal()
	s.wakeBy(it.until)
}

// release takes a notification off its member, which has room again. The caller holds mu.
func (s *session) release(it *item) {
	m := it.member
	if m == nil {
		return
	}
	delete(m.leases, it)
	if m.alone == it {
		m.alone = nil
	}
	it.member = nil
}

// known reports whether whoever has a lease knows of it: one that has no member was given by Fetch, or by another gateway.
func (it *item) known() bool { return it.member == nil || it.told }

// leaseEnded goes on with a notification whose lease passed unsettled. The caller holds mu.
func (s *session) leaseEnded(it *item, now time.Time) {
	told := it.known()
	if it.member != nil {
		it.member.lapsed = true
	}
	s.release(it)
	if !told {
		s.ledger.takeBack(it, now)
		return
	}
	s.groups.stats.LeasesEnded.Add(1)
	s.ledger.fail(it, linksgatev1.ParkReason_PARK_REASON_LEASE_ENDED, "", backOffRule, now)
}

// localStatus is this gateway's part of a group's status, and how many replays that counts.
func (g *Groups) localStatus(name string) (status *linksgatev1.GroupStatus, replays uint64) {
	status = new(linksgatev1.GroupStatus)
	g.mu.Lock()
	s := g.sessions[name]
	g.mu.Unlock()
	if s == nil {
		return status, 0
	}
	<-s.opened
	if s.openErr != nil {
		return status, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status.InFlight, status.Retrying = int32(s.ledger.leases), int32(s.ledger.waits+s.ledger.away)
	status.MissedRecordBatches, status.Held, status.Blocked = int64(s.ledger.missed), int32(s.ledger.held), s.blocked
	if s.pausedUntil.After(time.Now()) {
		status.PausedUntil = timestamppb.New(s.pausedUntil)
	}
	for key := range s.ledger.batches {
		if key.source == eventlog.SourceReplay {
			replays++
		}
	}
	for _, m := range s.members {
		status.Members = append(status.Members, &linksgatev1.GroupMember{
			ClientName: m.clientName, JoinedAt: timestamppb.New(m.joined),
			InFlight: int32(len(m.leases)), MaxInFlight: int32(m.most),
		})
	}
	return status, replays
}
