package group

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/eventlog/eventlogtest"
)

var testRules = rules{maxAttempts: 4, lease: 10 * time.Second, backOff: time.Second, greatestDelay: 8 * time.Second}

// claims returns record batches as the log hands them out: of count notifications in all, about the SIMs that sims tells for each.
func claims(t *testing.T, count int, sims func(n int) []string) []*eventlog.Claim {
	t.Helper()
	log := eventlogtest.Open(t, eventlog.Options{})
	appended := make(chan error, count)
	for n := range count {
		go func() {
			_, err := log.Append(context.Background(), &linksgatev1.Notification{
				Account: "acme", Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, Iccids: sims(n),
				Raw: &linksgatev1.Notification_Body{Body: fmt.Sprint(n)},
			})
			appended <- err
		}()
	}
	for range count {
		if err := <-appended; err != nil {
			t.Fatal(err)
		}
	}
	info, err := log.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byStream := make(map[uint64]*eventlog.Claim)
	var all []*eventlog.Claim
	for step, err := range log.Read(t.Context(), info.First, eventlog.ReadOptions{Until: info.Next, Pulse: time.Second}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range step.Records {
			claim := byStream[record.Position.Stream]
			if claim == nil {
				claim = &eventlog.Claim{Stream: record.Position.Stream}
				byStream[claim.Stream] = claim
				all = append(all, claim)
			}
			claim.Records = append(claim.Records, record)
		}
	}
	return all
}

// world drives a ledger through a history, and checks after each step what must always hold.
type world struct {
	t       *testing.T
	ledger  *ledger
	now     time.Time
	held    time.Time // until then may be out what is admitted
	numbers uint64
	items   []*item
	settled map[string][]uint64 // by SIM: the sequences in the order of settling
}

func newWorld(t *testing.T, r rules) *world {
	w := &world{t: t, ledger: newLedger(r), now: time.Unix(1_700_000_000, 0), settled: make(map[string][]uint64)}
	return w
}

func (w *world) admit(claim *eventlog.Claim, progress *storagev1.BatchProgress) *batch {
	w.ledger.admit(claim, nil, progress, 0, w.held, w.now)
	b := w.ledger.batches[batchKey{claim.Source, claim.Stream}]
	if b != nil {
		for i := range b.items {
			w.items = append(w.items, &b.items[i])
		}
	}
	w.check()
	return b
}

// lend lends the oldest that is ready, the lonely ones included.
func (w *world) lend() *item {
	var it *item
	switch {
	case len(w.ledger.alone) > 0:
		it = w.ledger.alone[0]
	case len(w.ledger.ready.items) > 0:
		it = w.ledger.ready.items[0]
	default:
		return nil
	}
	w.numbers++
	w.ledger.lend(it, nil, w.numbers, w.now)
	w.check()
	return it
}

func (w *world) settle(it *item) {
	w.ledger.settle(it, w.now)
	for _, sim := range it.keys {
		w.settled[sim] = append(w.settled[sim], it.sequence())
	}
	w.check()
}

// fail ends an attempt and does what a session does then.
func (w *world) fail(it *item, reason linksgatev1.ParkReason) {
	w.ledger.fail(it, reason, "", backOffRule, w.now)
	w.write()
}

func (w *world) write() {
	for b := range w.ledger.toRecord {
		delete(w.ledger.toRecord, b)
		w.ledger.recorded(b, w.now)
	}
	for _, it := range w.ledger.toPark {
		w.settle(it)
	}
	w.ledger.toPark = nil
	w.check()
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	for _, it := range w.ledger.advance(w.now) {
		w.ledger.fail(it, linksgatev1.ParkReason_PARK_REASON_LEASE_ENDED, "", backOffRule, w.now)
	}
	w.write()
}

func (w *world) check() {
	w.t.Helper()
	out, waits, open := make(map[string]uint64), 0, 0
	leases, held := 0, 0
	for _, it := range w.items {
		if it.state != stateSettled {
			open++
			if it.state != stateLeased && it.attempts > 0 {
				waits++
			}
		}
		if it.state != stateLeased {
			continue
		}
		if it.held {
			held++
			continue
		}
		leases++
		for _, sim := range it.keys {
			if other, taken := out[sim]; taken {
				w.t.Fatalf("%d and %d of one SIM are out at the same time", other, it.sequence())
			}
			out[sim] = it.sequence()
		}
	}
	if leases != w.ledger.leases || held != w.ledger.held || waits != w.ledger.waits || open != w.ledger.items {
		w.t.Fatalf("the ledger counts %d out, %d held, %d waiting, %d open; there are %d, %d, %d, %d",
			w.ledger.leases, w.ledger.held, w.ledger.waits, w.ledger.items, leases, held, waits, open)
	}
}

// Whatever members do, everything is settled in the end, two notifications of one SIM are never out at the same time, and those of
// one SIM are settled in the order of the log.
func TestAnyHistoryEndsWithEverythingSettledInOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	const count = 400
	batches := claims(t, count, func(n int) []string {
		switch n % 7 {
		case 0:
			return nil
		case 1:
			return []string{fmt.Sprint("sim", n%5), fmt.Sprint("sim", n%11), fmt.Sprint("sim", n%5)}
		}
		return []string{fmt.Sprint("sim", n%11)}
	})
	for _, ordered := range []bool{true, false} {
		r := testRules
		r.ordered = ordered
		w := newWorld(t, r)
		next := 0
		var out []*item
		for step := 0; next < len(batches) || w.ledger.items > 0; step++ {
			if step > 100*count {
				t.Fatalf("not settled after %d steps: %d left", step, w.ledger.items)
			}
			switch chance.IntN(8) {
			case 0:
				if next < len(batches) {
					w.admit(batches[next], nil)
					next++
				}
			case 1, 2, 3:
				if it := w.lend(); it != nil {
					out = append(out, it)
				}
			case 4, 5:
				if len(out) > 0 {
					i := chance.IntN(len(out))
					it := out[i]
					out = append(out[:i], out[i+1:]...)
					if it.state == stateLeased {
						w.settle(it)
					}
				}
			case 6:
				if len(out) > 0 {
					i := chance.IntN(len(out))
					it := out[i]
					out = append(out[:i], out[i+1:]...)
					if it.state == stateLeased {
						w.fail(it, linksgatev1.ParkReason(1+chance.IntN(4)))
					}
				}
			case 7:
				w.pass(time.Duration(chance.Int64N(int64(12 * time.Second))))
			}
		}
		if len(w.ledger.batches) > 0 || len(w.ledger.sims) > 0 || len(w.ledger.toSettle) != len(batches) {
			t.Errorf("left: %d batches, %d SIMs; %d of %d batches to be settled",
				len(w.ledger.batches), len(w.ledger.sims), len(w.ledger.toSettle), len(batches))
		}
		for sim, sequences := range w.settled {
			for i := 1; i < len(sequences); i++ {
				if sequences[i] <= sequences[i-1] {
					t.Errorf("%s: %d was settled after %d", sim, sequences[i], sequences[i-1])
				}
			}
		}
	}
}

func TestAttemptsAreUsedUpAndThenParked(t *testing.T) {
	batch := claims(t, 1, func(int) []string { return nil })[0]
	w := newWorld(t, testRules)
	w.admit(batch, nil)
	for attempt := uint32(1); attempt <= testRules.maxAttempts; attempt++ {
		it := w.lend()
		if it == nil || it.attempts != attempt {
			t.Fatalf("attempt %d: %+v", attempt, it)
		}
		w.ledger.fail(it, linksgatev1.ParkReason_PARK_REASON_REJECTED, "no", backOffRule, w.now)
		if attempt == testRules.maxAttempts {
			if len(w.ledger.toPark) != 1 || it.reason != linksgatev1.ParkReason_PARK_REASON_REJECTED || it.detail != "no" {
				t.Fatalf("after the last attempt: %+v", it)
			}
			break
		}
		w.write()
		if next := w.lend(); next != nil {
			t.Fatal("delivered again without back-off")
		}
		w.pass(testRules.greatestDelay)
	}
}

// One that seems to end its members takes no others with it: from the half of its attempts on it is lent alone.
func TestASuspectIsLentAlone(t *testing.T) {
	batch := claims(t, 1, func(int) []string { return nil })[0]
	w := newWorld(t, testRules)
	w.admit(batch, nil)
	for attempt := range testRules.maxAttempts {
		if alone := len(w.ledger.alone) == 1; alone != (attempt >= testRules.maxAttempts/2) {
			t.Errorf("attempt %d: alone is %v", attempt+1, alone)
		}
		w.fail(w.lend(), linksgatev1.ParkReason_PARK_REASON_DISCONNECTED)
		w.pass(disconnectDelay)
	}
}

// What waits for another attempt for a while is put on the shelf when there is too much of it, and goes on from there as if it had been
// in hand all the time, with the next attempt counted before it is made.
func TestTheShelfForgetsNothing(t *testing.T) {
	claim := claims(t, 1, func(int) []string { return nil })[0]
	r := testRules
	r.greatestDelay = time.Hour
	w := newWorld(t, r)
	b := w.admit(claim, nil)
	it := w.lend()
	fail := func(delay time.Duration) {
		w.ledger.fail(it, linksgatev1.ParkReason_PARK_REASON_LEASE_ENDED, "", delay, w.now)
		w.write()
	}
	fail(time.Hour)
	if w.ledger.shelf(1, w.now) != nil {
		t.Error("put on the shelf although there is room")
	}
	w.ledger.bounds.bytes = 1
	w.pass(time.Hour - shelfTime + time.Second)
	if w.ledger.shelf(1, w.now) != nil {
		t.Error("put on the shelf although it is due soon")
	}
	w.pass(shelfTime)
	it = w.lend()
	fail(time.Hour)
	open := b.open
	if chosen := w.ledger.shelf(1, w.now); len(chosen) != 1 || chosen[0] != b {
		t.Fatalf("on the shelf: %v", chosen)
	}
	progress := b.snapshot(false)
	until, ok := w.ledger.shelve(b, open, w.now)
	if !ok || !until.Equal(it.due) || len(w.ledger.batches) != 0 || w.ledger.away != 1 || w.ledger.items != 0 || w.ledger.waits != 0 {
		t.Fatalf("on the shelf until %v (%v): %+v", until, ok, w.ledger)
	}
	w.items, w.now = nil, until
	b = w.admit(claim, progress)
	it = &b.items[0]
	if w.lend() != nil || w.ledger.away != 0 || !it.suspect {
		t.Errorf("back from the shelf, before the next attempt is stored: %+v", it)
	}
	if got := b.snapshot(true).GetNotifications()[0].GetAttempts(); got != 3 {
		t.Errorf("%d attempts are stored, want 3", got)
	}
	w.write()
	if it := w.lend(); it == nil || it.attempts != 3 {
		t.Errorf("lent: %+v", it)
	}

	// What is acknowledged in the last moment stays in hand.
	fail(time.Hour)
	w.ledger.shelf(1, w.now)
	open = b.open
	w.settle(it)
	if _, ok := w.ledger.shelve(b, open, w.now); ok || w.ledger.away != 0 {
		t.Error("put on the shelf although it is settled")
	}
	w.check()
}

// What is stored of a batch brings the next gateway to where this one was.
func TestProgressRestoresABatch(t *testing.T) {
	batches := claims(t, 400, func(n int) []string { return []string{fmt.Sprint("sim", n)} })
	big := batches[0]
	for _, claim := range batches {
		if len(claim.Records) > len(big.Records) {
			big = claim
		}
	}
	if len(big.Records) < 5 {
		t.Fatalf("of 400 that were appended at once the log made no batch of five: %d", len(big.Records))
	}
	r := testRules
	r.ordered = true
	w := newWorld(t, r)
	b := w.admit(big, nil)
	settled, leased, failed, waiting := w.lend(), w.lend(), w.lend(), &b.items[4]
	w.settle(settled)
	w.ledger.fail(failed, linksgatev1.ParkReason_PARK_REASON_LEASE_ENDED, "", backOffRule, w.now)
	progress := b.snapshot(true)
	exact := b.snapshot(false)

	next := newWorld(t, r)
	next.now = w.now
	restored := next.admit(big, progress)
	at := func(it *item) *item {
		return &restored.items[it.record.Position.Index-b.items[0].record.Position.Index]
	}
	if got := at(settled); got.state != stateSettled || got.lease != settled.lease {
		t.Errorf("settled: %+v", got)
	}
	if got := at(leased); got.state != stateLeased || got.lease != leased.lease || !got.until.Equal(leased.until) || got.attempts != 1 {
		t.Errorf("leased: %+v", got)
	}
	// The coming attempt is counted before it is made.
	if got := at(failed); got.state != stateDelayed || got.attempts != 2 || !got.due.Equal(failed.due) || !got.suspect {
		t.Errorf("failed: %+v", got)
	}
	if got := at(waiting); got.state != stateReady || got.attempts != 0 {
		t.Errorf("waiting: %+v", got)
	}
	if got := progressOf(exact, failed.record.Position.Index).GetAttempts(); got != 1 {
		t.Errorf("handed back with %d attempts, want 1", got)
	}
	next.pass(r.lease) // the old lease ends here like any other
	if got := at(leased); got.state == stateLeased || got.attempts != 1 {
		t.Errorf("after its lease: %+v", got)
	}
}

// What may be out is not lent, nor what comes behind it, until it is settled or cannot be out any more. Until then nothing of it counts
// as an attempt.
func TestWhatIsHeldIsAsGoodAsOut(t *testing.T) {
	r := testRules
	r.ordered = true
	w := newWorld(t, r)
	// stream sets the places of claims apart, which are all from the beginning of a log.
	stream := uint64(0)
	admit := func(count int, sim string) {
		for _, claim := range claims(t, count, func(int) []string { return []string{sim} }) {
			stream++
			claim.Stream = stream
			w.admit(claim, nil)
		}
	}
	w.held = w.now.Add(r.lease)
	admit(2, "a")
	admit(1, "b")
	w.held = time.Time{}
	admit(1, "a")
	admit(1, "c")
	first, second, other := w.items[0], w.items[1], w.items[2]
	if it := w.lend(); it != w.items[4] || w.lend() != nil {
		t.Fatalf("lent: %+v", it)
	}
	w.ledger.note(other, lease{number: 7, attempt: 3})
	w.fail(other, linksgatev1.ParkReason_PARK_REASON_REJECTED)
	if other.attempts != 3 || other.state != stateDelayed {
		t.Errorf("rejected: %+v", other)
	}
	w.ledger.note(first, lease{number: 8, attempt: 1})
	w.settle(first)
	if w.lend() != nil {
		t.Error("lent behind one that may be out")
	}
	if p := progressOf(second.batch.snapshot(true), second.record.Position.Index); p != nil {
		t.Errorf("what nothing is known of is stored: %v", p)
	}
	w.pass(r.lease)
	var rest []*item
	for it := w.lend(); it != nil; it = w.lend() {
		if it != other {
			rest = append(rest, it)
		}
		w.ledger.settle(it, w.now)
	}
	if len(rest) != 2 || rest[0] != second || rest[1] != w.items[3] || second.attempts != 1 || other.state != stateSettled {
		t.Errorf("lent after the time: %+v", rest)
	}
}

func TestTokensAreTheGroupsOwn(t *testing.T) {
	s := newSigner([]byte("key"))
	want := lease{
		incarnation: incarnation{1, 2, 3}, source: eventlog.SourceReplay, stream: 7, sequence: 1<<40 + 5, attempt: 3, number: 1<<63 + 9,
		until: time.UnixMilli(1_700_000_000_123),
	}
	token := s.token(want)
	if got, ok := s.parse(token); !ok || got != want {
		t.Errorf("%+v %v", got, ok)
	}
	if _, ok := newSigner([]byte("other")).parse(token); ok {
		t.Error("another group took the token for its own")
	}
	for i := range token {
		for bit := range 8 {
			forged := []byte(token)
			forged[i] ^= 1 << bit
			if _, ok := s.parse(string(forged)); ok {
				t.Fatalf("a token with bit %d of byte %d flipped was accepted", bit, i)
			}
		}
	}
	for _, bad := range []string{"", "x", token[1:], token + "A"} {
		if _, ok := s.parse(bad); ok {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestBackOffGrowsToItsBound(t *testing.T) {
	for attempt, want := range map[uint32]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 100: 8 * time.Second} {
		for range 50 {
			if d := testRules.delay(attempt); d > want || d < want/2 {
				t.Errorf("after attempt %d: %v, want %v to %v", attempt, d, want/2, want)
			}
		}
	}
}
