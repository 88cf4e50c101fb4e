package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/eventlog/eventlogtest"
)

// bench is a log, its groups, and one group that starts with the oldest notification.
type bench struct {
	t      *testing.T
	log    *eventlog.Log
	groups *Groups
}

const benched = "billing"

func newBench(t *testing.T, settings *linksgatev1.Group) *bench {
	t.Helper()
	return newBenchOn(t, settings, eventlog.Options{})
}

func newBenchOn(t *testing.T, settings *linksgatev1.Group, options eventlog.Options) *bench {
	t.Helper()
	log := eventlogtest.Open(t, options)
	groups := New(log, slog.New(slog.DiscardHandler))
	t.Cleanup(groups.Close)
	complete := &linksgatev1.Group{
		Name: benched, MaxAttempts: 10, LeaseDuration: durationpb.New(30 * time.Second), Ordering: linksgatev1.GroupOrdering_GROUP_ORDERING_NONE,
		BackOff: &linksgatev1.RetryBackOff{Initial: durationpb.New(0), Maximum: durationpb.New(time.Minute)},
	}
	proto.Merge(complete, settings)
	info, err := log.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := groups.Create(t.Context(), complete, info.First); err != nil {
		t.Fatal(err)
	}
	return &bench{t, log, groups}
}

// append stores notifications in one record batch each.
func (b *bench) append(accounts ...string) {
	b.t.Helper()
	for n, account := range accounts {
		if _, err := b.log.Append(b.t.Context(), &linksgatev1.Notification{
			Account: account, Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, Raw: &linksgatev1.Notification_Body{Body: fmt.Sprint(n)},
		}); err != nil {
			b.t.Error(err)
		}
	}
}

// appendAtOnce stores notifications in as few record batches as the log makes of them.
func (b *bench) appendAtOnce(count int) {
	var appending sync.WaitGroup
	for range count {
		appending.Go(func() { b.append("acme") })
	}
	appending.Wait()
}

// eventually asks again until something has happened that nobody tells about.
func (b *bench) eventually(what string, happened func() bool) {
	b.t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(time.Minute)
	for !happened() {
		select {
		case <-ticker.C:
		case <-timeout:
			b.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// settled waits until everything is.
func (b *bench) settled() {
	b.t.Helper()
	b.eventually("everything is settled", func() bool { return b.status().GetOldestUnsettled() == nil })
}

func (b *bench) join(most int) *Member {
	b.t.Helper()
	m, err := b.groups.Join(b.t.Context(), benched, "", most)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// take returns the next count leases.
func (b *bench) take(m *Member, count int) []Lease {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	var all []Lease
	for len(all) < count {
		leases, err := m.Next(ctx, 1<<20)
		if err != nil || len(leases) == 0 {
			b.t.Fatalf("%d leases, want %d: %v", len(all), count, err)
		}
		all = append(all, leases...)
	}
	return all
}

const (
	leaseOK    = linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK
	leaseStale = linksgatev1.LeaseOutcome_LEASE_OUTCOME_STALE
)

func (b *bench) acknowledge(want linksgatev1.LeaseOutcome, leases ...Lease) {
	b.t.Helper()
	for _, l := range leases {
		results, err := b.groups.Acknowledge(b.t.Context(), &linksgatev1.AcknowledgeRequest{GroupName: benched, LeaseTokens: []string{l.Token}})
		if err != nil || results[0].GetOutcome() != want {
			b.t.Errorf("acknowledging attempt %d at %d: %v %v, want %v", l.Attempt, l.Record.Position.Sequence(), results, err, want)
		}
	}
}

func (b *bench) reject(want linksgatev1.LeaseOutcome, rejection *linksgatev1.LeaseRejection) {
	b.t.Helper()
	results, err := b.groups.Reject(b.t.Context(), &linksgatev1.RejectRequest{GroupName: benched, Rejections: []*linksgatev1.LeaseRejection{rejection}})
	if err != nil || results[0].GetOutcome() != want {
		b.t.Errorf("%v: %v %v, want %v", rejection.GetAction(), results, err, want)
	}
}

func park(l Lease) *linksgatev1.LeaseRejection {
	return &linksgatev1.LeaseRejection{LeaseToken: l.Token, Action: &linksgatev1.LeaseRejection_Park{Park: true}}
}

func release(l Lease) *linksgatev1.LeaseRejection {
	return &linksgatev1.LeaseRejection{LeaseToken: l.Token, Action: &linksgatev1.LeaseRejection_Release{Release: true}}
}

func (b *bench) status() *linksgatev1.GroupStatus {
	b.t.Helper()
	g, err := b.groups.Get(b.t.Context(), benched)
	if err != nil {
		b.t.Fatal(err)
	}
	return g.GetStatus()
}

// Nothing can be done with a lease that somebody else's took the place of, although the log cannot tell that its batch is settled as
// long as an older one is not.
func TestALeaseOfWhatIsSettledIsStale(t *testing.T) {
	b := newBench(t, nil)
	b.append("acme", "acme")
	first := b.join(2)
	held := b.take(first, 2)
	first.Leave(false)
	second := b.join(2)
	again := b.take(second, 2)
	b.acknowledge(leaseOK, again[1])
	b.acknowledge(leaseStale, held...)
	b.reject(leaseStale, park(held[1]))
	if parked := b.status().GetParked(); parked != 0 {
		t.Errorf("%d parked; one was acknowledged, and one is out", parked)
	}
	b.acknowledge(leaseOK, again...)
}

// A lease that was released counts for nothing, however often that is said.
func TestAReleasedLeaseIsOver(t *testing.T) {
	b := newBench(t, nil)
	b.append("acme")
	first := b.join(1)
	held := b.take(first, 1)[0]
	if err := b.groups.Leave(t.Context(), benched, first.ID()); err != nil {
		t.Fatal(err)
	}
	b.reject(leaseOK, release(held))
	b.reject(leaseOK, release(held))
	b.acknowledge(leaseStale, held)
	if status := b.status(); status.GetInFlight() != 0 || status.GetRetrying() != 0 {
		t.Errorf("status: %v", status)
	}
	first.Leave(false)
	again := b.take(b.join(1), 1)[0]
	if again.Attempt != 1 {
		t.Errorf("attempt %d, want 1", again.Attempt)
	}
	b.acknowledge(leaseStale, held)
	b.acknowledge(leaseOK, again)
}

// A member that leaves gets nothing more, keeps what it has, and what it was leased and did not take goes to others at once.
func TestALeavingMemberGetsNothingMore(t *testing.T) {
	b := newBench(t, nil)
	b.append("acme", "acme", "acme")
	first := b.join(2)
	taken, err := first.Next(t.Context(), 1) // one, as no more fits
	if err != nil || len(taken) != 1 {
		t.Fatalf("it got %d leases and %v", len(taken), err)
	}
	held := taken[0]
	if err := b.groups.Leave(t.Context(), benched, first.ID()); err != nil {
		t.Fatal(err)
	}
	b.reject(leaseOK, &linksgatev1.LeaseRejection{LeaseToken: held.Token, Action: &linksgatev1.LeaseRejection_Release{Release: true}})
	if leases, err := first.Next(t.Context(), 1<<20); !errors.Is(err, ErrLeft) {
		t.Errorf("it got %d leases and %v", len(leases), err)
	}
	first.Leave(true)
	for _, again := range b.take(b.join(3), 3) {
		if again.Attempt != 1 {
			t.Errorf("attempt %d, want 1", again.Attempt)
		}
	}
	if err := b.groups.Leave(t.Context(), benched, first.ID()); err != nil {
		t.Errorf("leaving again: %v", err)
	}
}

// A group whose member says that everything is down leases nothing to anyone for the time that it named, and counts no attempt. So does
// one that is paused, until it is resumed.
func TestAPausedGroupLeasesNothing(t *testing.T) {
	b := newBench(t, nil)
	b.append("acme", "acme")
	m := b.join(1)
	held := b.take(m, 1)[0]
	began := time.Now()
	const down = 500 * time.Millisecond
	b.reject(leaseOK, &linksgatev1.LeaseRejection{LeaseToken: held.Token, Action: &linksgatev1.LeaseRejection_PauseGroup{PauseGroup: durationpb.New(down)}})
	if status := b.status(); status.GetInFlight() != 0 || status.GetPausedUntil() == nil {
		t.Errorf("status: %v", status)
	}
	again := b.take(m, 1)[0]
	if waited := time.Since(began); waited < down || again.Attempt != 1 || again.Record.Position != held.Record.Position {
		t.Errorf("leased %v after %v, attempt %d", again.Record.Position, waited, again.Attempt)
	}
	pause := func(paused bool) {
		if _, err := b.groups.Update(t.Context(), benched, func(g *linksgatev1.Group) error { g.Paused = paused; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	pause(true)
	b.acknowledge(leaseOK, again)
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if leases, err := m.Next(soon, 1<<20); len(leases) > 0 || err != nil {
		t.Errorf("a paused group leased %d: %v", len(leases), err)
	}
	pause(false)
	b.acknowledge(leaseOK, b.take(m, 1)...)
	b.settled()
}

// A rejected lease stays over when the notification was leased again, to a member that never knew.
func TestARejectedLeaseStaysOver(t *testing.T) {
	b := newBench(t, nil)
	b.append("acme")
	first := b.join(1)
	held := b.take(first, 1)[0]
	b.reject(leaseOK, &linksgatev1.LeaseRejection{LeaseToken: held.Token})
	b.eventually("it is leased again", func() bool { return b.status().GetInFlight() == 1 })
	first.Leave(false)
	b.acknowledge(leaseStale, held)
}

// A changed filter holds for what is leased from then on, also for what is in flight. Members join again for it, since they may have no
// right to what it lets through; what they have they may still settle.
func TestAChangedFilterHoldsForWhatIsInFlight(t *testing.T) {
	b := newBench(t, nil)
	b.append("acme", "other", "acme", "other", "acme")
	m := b.join(1)
	held := b.take(m, 1)
	b.eventually("all is in hand", func() bool {
		m.session.mu.Lock()
		defer m.session.mu.Unlock()
		return m.session.ledger.items == 5
	})
	if _, err := b.groups.Update(t.Context(), benched, func(g *linksgatev1.Group) error {
		g.Filter = &linksgatev1.NotificationFilter{Accounts: []string{"other"}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if leases, err := m.Next(t.Context(), 1<<20); !errors.Is(err, ErrRefiltered) {
		t.Errorf("the member gets %v, %v; want %v", leases, err, ErrRefiltered)
	}
	m.Leave(true)
	b.reject(leaseOK, &linksgatev1.LeaseRejection{LeaseToken: held[0].Token})
	m = b.join(1)
	for range 2 {
		next := b.take(m, 1)
		n, err := next[0].Record.Notification()
		if err != nil || n.GetAccount() != "other" {
			t.Errorf("leased: %v %v", n, err)
		}
		b.acknowledge(leaseOK, next...)
	}
	b.settled()
}

// What was acknowledged does not come again when the group is idle for a while, nor to a member that joins just then: that one waits
// until what is known is stored.
func TestIdlenessForgetsNothing(t *testing.T) {
	b := newBench(t, nil)
	b.appendAtOnce(6)
	m := b.join(6)
	held := b.take(m, 6)
	// That stores what is known now.
	b.reject(leaseOK, &linksgatev1.LeaseRejection{LeaseToken: held[0].Token, Action: &linksgatev1.LeaseRejection_RetryAfter{RetryAfter: durationpb.New(time.Hour)}})
	b.eventually("it is stored", func() bool {
		m.session.mu.Lock()
		defer m.session.mu.Unlock()
		return len(m.session.ledger.delayed.items) == 1
	})
	b.acknowledge(leaseOK, held[1:]...)
	m.Leave(true)
	m.session.settling.Add(1) // holds up the handing back
	go m.session.end(errIdle)
	<-m.session.ctx.Done()
	soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.groups.Join(soon, benched, "", 6); err == nil {
		t.Error("a member joined before everything was handed back")
	}
	m.session.settling.Done()
	m = b.join(6)
	b.append("acme")
	if next := b.take(m, 1)[0]; next.Record.Position.Sequence() <= held[5].Record.Position.Sequence() {
		t.Fatalf("%d came again", next.Record.Position.Sequence())
	}
	b.eventually("the rejected one waits again", func() bool { return b.status().GetRetrying() == 1 })
	if status := b.status(); status.GetInFlight() != 1 {
		t.Errorf("status: %v", status)
	}
}

// A lease that its member was not told of is no attempt.
func TestALeaseThatNobodyKnowsOfIsHandedBack(t *testing.T) {
	b := newBench(t, &linksgatev1.Group{MaxAttempts: 1})
	b.append("acme")
	m := b.join(1)
	b.eventually("it is leased", func() bool { return b.status().GetInFlight() == 1 })
	m.session.end(ErrTaken)
	if again := b.take(b.join(1), 1)[0]; again.Attempt != 1 {
		t.Errorf("attempt %d, want 1", again.Attempt)
	}
}

// After the death of a gateway its leases are good, and counted as what they are.
func TestALateAcknowledgementIsCountedOnce(t *testing.T) {
	b := newBench(t, nil)
	b.append("acme", "acme")
	m := b.join(2)
	held := b.take(m, 2)
	m.session.stop(eventlog.ErrClosed) // without handing back
	m.session.background.Wait()
	m.session.reader.Close()
	m = b.join(1)
	b.eventually("all is in hand again", func() bool {
		m.session.mu.Lock()
		defer m.session.mu.Unlock()
		return m.session.ledger.items == 2
	})
	b.acknowledge(leaseStale, held[0]) // leased again
	b.acknowledge(leaseOK, held[1])
	if status := b.status(); status.GetRetrying() != 0 || status.GetInFlight() != 1 {
		t.Errorf("status: %v", status)
	}
}

// What was replayed can be parked again after the death of the gateway, although the log has it no longer.
func TestAReplayOutlivesTheLog(t *testing.T) {
	b := newBenchOn(t, nil, eventlog.Options{MaxBytes: eventlog.MinMaxBytes, WindowBytes: 64 << 10})
	b.append("acme")
	m := b.join(1)
	b.reject(leaseOK, park(b.take(m, 1)[0]))
	position := eventlog.Position{Stream: 1}
	if err := b.groups.store.Replay(t.Context(), benched, b.log.NotificationID(position)); err != nil {
		t.Fatal(err)
	}
	replayed := b.take(m, 1)[0]
	m.session.stop(eventlog.ErrClosed) // without handing back
	m.session.background.Wait()
	m.session.reader.Close()
	b.eventually("it has expired", func() bool {
		if _, err := b.log.Append(t.Context(), &linksgatev1.Notification{
			Raw: &linksgatev1.Notification_Body{Body: strings.Repeat("x", 500<<10)},
		}); err != nil {
			t.Fatal(err)
		}
		_, err := b.log.Get(t.Context(), position)
		return errors.Is(err, eventlog.ErrExpired)
	})
	b.reject(leaseOK, park(replayed))
	if status := b.status(); status.GetParked() != 1 {
		t.Errorf("status: %v", status)
	}
}

// The clock is set for leases that are given when it wakes, too.
func TestTheClockMindsWhatItLends(t *testing.T) {
	b := newBench(t, nil)
	s := newSession(b.groups, "other")
	s.ledger = newLedger(testRules)
	now := time.Now()
	s.ledger.admit(claims(t, 1, func(int) []string { return nil })[0], nil, nil, 0, time.Time{}, now)
	if _, err := s.join("", 1); err != nil {
		t.Fatal(err)
	}
	if next, want := s.advance(now.Add(2*testRules.lease)), now.Add(3*testRules.lease); next.After(want) {
		t.Errorf("the clock wakes in %v, want %v", next.Sub(now), want.Sub(now))
	}
}

// What was replayed and nobody has taken yet is seen, also when the gateway has handed it back.
func TestAReplayThatWasHandedBackIsCounted(t *testing.T) {
	b := newBench(t, nil)
	b.append("acme")
	m := b.join(1)
	b.reject(leaseOK, park(b.take(m, 1)[0]))
	id := b.log.NotificationID(eventlog.Position{Stream: 1})
	if err := b.groups.store.Replay(t.Context(), benched, id); err != nil {
		t.Fatal(err)
	}
	b.eventually("it is leased", func() bool { return b.status().GetInFlight() == 1 })
	m.session.end(ErrTaken) // the member knows of nothing
	if status := b.status(); status.GetRetrying() != 1 || status.GetInFlight() != 0 || status.GetParked() != 0 {
		t.Errorf("status: %v", status)
	}
	b.acknowledge(leaseOK, b.take(b.join(1), 1)...)
	b.eventually("it is settled", func() bool { return b.status().GetRetrying() == 0 })
}

// A lease that ended with parking was not acknowledged, whoever is asked.
func TestAParkedLeaseStaysOver(t *testing.T) {
	b := newBench(t, nil)
	b.appendAtOnce(6) // in few batches: one at least is handed back with something parked in it
	m := b.join(6)
	held := b.take(m, 6)
	for _, l := range held[:5] {
		b.reject(leaseOK, park(l))
	}
	m.Leave(true)
	m.session.end(ErrTaken)
	b.acknowledge(leaseStale, held[:5]...)
	b.acknowledge(leaseOK, held[5])
}

// What only waits for another attempt holds up nothing, however much that is.
func TestAGroupGoesPastWhatWaits(t *testing.T) {
	const most, count = 400, 1000
	b := newBench(t, nil)
	join := func() *Member {
		m := b.join(100)
		m.session.mu.Lock()
		defer m.session.mu.Unlock()
		m.session.ledger.bounds.batches = most
		return m
	}
	m := join()
	b.append(slices.Repeat([]string{"acme"}, count)...)
	var last Lease
	for done := 0; done < count; {
		leases := b.take(m, 1)
		rejections := make([]*linksgatev1.LeaseRejection, len(leases))
		for i, l := range leases {
			rejections[i] = &linksgatev1.LeaseRejection{
				LeaseToken: l.Token, Action: &linksgatev1.LeaseRejection_RetryAfter{RetryAfter: durationpb.New(time.Hour)},
			}
			last = l
		}
		if _, err := b.groups.Reject(t.Context(), &linksgatev1.RejectRequest{GroupName: benched, Rejections: rejections}); err != nil {
			t.Fatal(err)
		}
		done += len(leases)
	}
	b.eventually("room was made", func() bool {
		m.session.mu.Lock()
		defer m.session.mu.Unlock()
		return !m.session.ledger.crowded()
	})
	if status := b.status(); status.GetRetrying() != count || status.GetInFlight() != 0 || status.GetBlocked() {
		t.Errorf("status: %v", status)
	}
	// What is on the shelf can not be acknowledged, for it was rejected, and is not taken for settled.
	b.acknowledge(leaseStale, last)
	m.Leave(true)
	m.session.end(errIdle) // after that all of it is handed out again, and waits on
	m = join()
	b.append("acme")
	if next := b.take(m, 1)[0]; next.Record.Position.Stream != count+1 || next.Attempt != 1 {
		t.Errorf("attempt %d at %d", next.Attempt, next.Record.Position.Stream)
	}
}

// That nothing goes on because too much waits is told, once it has lasted.
func TestAStandstillIsTold(t *testing.T) {
	b := newBench(t, &linksgatev1.Group{Ordering: linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM})
	b.append("acme")
	m := b.join(2)
	b.take(m, 1)
	s := m.session
	note := func(most int, after time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ledger.bounds.items = most
		s.noteBlocked(time.Now().Add(after))
	}
	stalled := func(want bool) {
		t.Helper()
		if status := b.status(); status.GetBlocked() != want || (b.groups.Blocked() == 1) != want {
			t.Errorf("stalled is %v of the group and %d of all, want %v", status.GetBlocked(), b.groups.Blocked(), want)
		}
	}
	note(1, 0)
	stalled(false)
	note(1, blockedTime)
	stalled(true)
	note(2, blockedTime)
	stalled(false)
}

// One that must be alone waits for no particular member: what a member has may take for ever.
func TestWhatMustBeAloneWaitsForAnyMember(t *testing.T) {
	b := newBench(t, &linksgatev1.Group{MaxAttempts: 2})
	b.append(slices.Repeat([]string{"acme"}, 40)...)
	victim := b.join(1)
	poison := b.take(victim, 1)[0].Record.Position
	stuck, busy := b.join(2), b.join(2)
	b.take(stuck, 2)
	victim.Leave(false)
	b.eventually("it waits for a member of its own", func() bool {
		victim.session.mu.Lock()
		defer victim.session.mu.Unlock()
		return !stuck.reserved.IsZero() || !busy.reserved.IsZero()
	})
	var had []Lease
	for range 10 { // never without anything
		had = append(had, b.take(busy, 1)...)
		for len(had) > 1 {
			b.acknowledge(leaseOK, had[0])
			had = had[1:]
		}
	}
	busy.session.mu.Lock()
	busy.session.lend(time.Now().Add(reserveTime))
	busy.session.mu.Unlock()
	for range 2 { // what it had before
		b.acknowledge(leaseOK, had...)
		if had = b.take(busy, 1); had[0].Record.Position == poison {
			break
		}
	}
	if had[0].Record.Position != poison || had[0].Attempt != 2 || len(had) != 1 {
		t.Fatalf("attempt %d of %d is lent, with %d others", had[0].Attempt, had[0].Record.Position.Stream, len(had)-1)
	}
	b.acknowledge(leaseOK, had...)
	b.take(busy, 2) // and goes on as before
}

// What another gateway has settled of a batch in hand, having been asked for it and not having found who has it, counts: it is not lost
// when this one stores what it knows.
func TestWhatIsSettledElsewhereStaysSettled(t *testing.T) {
	b := newBench(t, nil)
	var held []Lease // of one batch
	m := b.join(100)
	for range 20 {
		b.appendAtOnce(8)
		byBatch := make(map[uint64][]Lease)
		for _, l := range b.take(m, 8) {
			stream := l.Record.Position.Stream
			byBatch[stream] = append(byBatch[stream], l)
			if len(byBatch[stream]) > len(held) {
				held = byBatch[stream]
			}
		}
		if len(held) > 1 {
			break
		}
	}
	if len(held) < 2 {
		t.Fatal("the log made no batch of two")
	}
	settled, rejected := held[0], held[1]
	l, _ := m.session.signer.parse(settled.Token)
	record := m.session.currentRecord()
	if _, err := b.groups.store.PutProgress(t.Context(), record, l.source, l.stream, &storagev1.BatchProgress{
		Notifications: []*storagev1.NotificationProgress{{Index: uint32(settled.Record.Position.Index), Settled: true, LeaseNumber: l.number}},
	}, 0); err != nil {
		t.Fatal(err)
	}
	before := b.status().GetInFlight()
	b.reject(leaseOK, &linksgatev1.LeaseRejection{
		LeaseToken: rejected.Token, Action: &linksgatev1.LeaseRejection_RetryAfter{RetryAfter: durationpb.New(time.Hour)},
	})
	b.eventually("what is settled is out no longer", func() bool { return b.status().GetInFlight() == before-2 })
	b.eventually("both are stored", func() bool {
		progress, _, err := b.groups.store.Progress(t.Context(), record, l.source, l.stream)
		return err == nil && progressOf(progress, settled.Record.Position.Index).GetSettled() &&
			progressOf(progress, rejected.Record.Position.Index).GetAttempts() == 2
	})
	b.acknowledge(leaseOK, settled)
	b.acknowledge(leaseStale, rejected)
}
