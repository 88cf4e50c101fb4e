package group

import (
	"cmp"
	"container/heap"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// ledger is the book of one group on one gateway: the notifications that it has in hand, and what is to become of each. It is a
// plain data structure: it does no input or output, starts nothing, and is told the time. The session that owns it serialises
// the calls.
//
//	            admit
//	              │
//	blocked ──► ready ──► leased ──► settled
//	   ▲          ▲          │
//	   └─ delayed ┴─ writing ┘
//
// A notification that waits behind another one of its SIM is blocked, one that waits for its next attempt is delayed. Writing
// stands between a failed attempt and the next: what must outlive the gateway is being stored.
type ledger struct {
	rules   rules
	bounds  bounds
	batches map[batchKey]*batch
	ready   itemHeap // the oldest first
	delayed itemHeap // the one due first
	leased  itemHeap // the one that ends first
	alone   []*item  // ready, but only for a member that has nothing else
	sims    map[string][]*item

	arrivals int64 // counts notifications as they come

	items  int    // not settled
	leases int    // in state leased, but for what is held
	held   int    // held, and in state leased
	waits  int    // tried before and not leased now
	away   int    // on the shelf, where all wait
	bytes  int    // of open batches
	missed uint64 // record batches that never came

	closed recent[batchKey] // batches that were in other hands before: leases of them may still be out

	// shelved are batches that were given back until something of them is due.
	shelved map[batchKey]shelved

	// What the session has to do, outside of its lock.
	toRecord map[*batch]struct{}
	toPark   []*item
	toSettle []*batch
}

// bounds of what one ledger has in hand. Behind them the group waits, also for notifications that could go on: they are the
// price of bounded memory. A group without order puts what only waits for another attempt on the shelf before it comes to that.
type bounds struct{ batches, bytes, items int }

var defaultBounds = bounds{batches: 8192, bytes: 64 << 20, items: 50_000}

const (
	// shelfTime is the shortest wait that is worth storing a batch and reading it again.
	shelfTime = 15 * time.Second
	// shelfMargin is how much later than due a batch may come back from the shelf.
	shelfMargin = time.Minute
)

func (g *ledger) full() bool { return g.fuller(1) }

// crowded reports whether it is time to make room.
func (g *ledger) crowded() bool { return !g.rules.ordered && g.fuller(2) }

// fuller reports whether a part of what may be in hand is.
func (g *ledger) fuller(part int) bool {
	return len(g.batches) >= g.bounds.batches/part || g.bytes >= g.bounds.bytes/part || g.items >= g.bounds.items/part
}

// shelved is what is remembered of a batch that is with the engine meanwhile.
type shelved struct {
	items int
	due   time.Time // when the engine gives it out again
}

// rules are the settings of a group that the ledger needs.
type rules struct {
	maxAttempts            uint32
	lease                  time.Duration
	backOff, greatestDelay time.Duration
	ordered                bool
}

// backOffRule, as a delay, is the one that the group's back-off gives.
const backOffRule = -1

// disconnectDelay is the longest delay after a member disconnected: the notification is rarely the cause.
const disconnectDelay = time.Second

func rulesOf(g *linksgatev1.Group) rules {
	return rules{
		maxAttempts:   uint32(g.GetMaxAttempts()),
		lease:         g.GetLeaseDuration().AsDuration(),
		backOff:       g.GetBackOff().GetInitial().AsDuration(),
		greatestDelay: g.GetBackOff().GetMaximum().AsDuration(),
		ordered:       g.GetOrdering() == linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM,
	}
}

type batchKey struct {
	source eventlog.Source
	stream uint64
}

// batch is a record batch of which not everything is settled.
type batch struct {
	batchKey
	claim    *eventlog.Claim // the newest one
	items    []item
	open     int    // items that are not settled
	revision uint64 // of the progress that is stored; 0 if none
	version  uint64 // counts what was acknowledged
	stored   uint64 // version that is stored

	storing sync.Mutex // held, before the session's mu, while it is stored
}

type state uint8

const (
	stateBlocked state = iota
	stateDelayed
	stateReady
	stateLeased
	stateWriting
	stateSettled
)

// item is one notification in hand.
type item struct {
	record   *eventlog.Record
	batch    *batch
	state    state
	attempts uint32
	suspect  bool      // its last attempt may have ended a member
	held     bool      // as good as leased: it may be out on a lease that nothing is known of, until then
	lease    uint64    // the newest lease; 0 if this gateway knows of none
	member   *Member   // that has it; nil if it came with Fetch, or from another gateway
	told     bool      // the member knows of it
	until    time.Time // when the newest lease ends
	due      time.Time // not before this time
	in       *itemHeap // that holds it; nil if none does
	place    int       // in that heap

	ahead int      // of how many of its SIMs another notification comes first
	keys  []string // its SIMs, if the group is ordered
	rank  int64    // orders it among others of its SIMs, before its sequence

	reason  linksgatev1.ParkReason // why its last attempt failed
	detail  string
	parking bool          // this was the last one
	parked  chan struct{} // closed when it was parked; nil unless somebody waits for that
}

func newLedger(rules rules) *ledger {
	return &ledger{
		rules:   rules,
		bounds:  defaultBounds,
		batches: make(map[batchKey]*batch),
		ready:   itemHeap{less: func(a, b *item) bool { return a.sequence() < b.sequence() }},
		delayed: itemHeap{less: func(a, b *item) bool { return a.due.Before(b.due) }},
		leased:  itemHeap{less: func(a, b *item) bool { return a.until.Before(b.until) }},
		sims:    make(map[string][]*item),
		shelved: make(map[batchKey]shelved),

		toRecord: make(map[*batch]struct{}),
	}
}

func (it *item) sequence() uint64 { return it.record.Position.Sequence() }

// admit takes a record batch in hand: of its notifications those that pass the filter and were not settled before. Until a time they
// may be out on leases that nothing is known of.
func (g *ledger) admit(
	claim *eventlog.Claim, filter *eventlog.Filter, progress *storagev1.BatchProgress, revision uint64, held, now time.Time,
) {
	key := batchKey{claim.Source, claim.Stream}
	if b := g.batches[key]; b != nil { // it was not kept alive in time, and nobody else had it
		g.bytes += claim.Bytes - b.claim.Bytes
		b.claim = claim
		return
	}
	b := &batch{batchKey: key, claim: claim, items: make([]item, len(claim.Records)), revision: revision}
	g.batches[key] = b
	_, again := g.shelved[key]
	g.unshelve(key)
	g.bytes += claim.Bytes
	for i, record := range claim.Records {
		it := &b.items[i]
		it.record, it.batch = record, b
		if !filter.Match(record) {
			it.state = stateSettled
			continue
		}
		before := progressOf(progress, record.Position.Index)
		if before.GetSettled() {
			it.state, it.lease = stateSettled, before.GetLeaseNumber()
			continue
		}
		b.open++
		g.items++
		out := it.restore(before, now)
		switch {
		case held.After(now):
			it.hold(held, out)
			out = true
		case !out:
			it.uncount(g.rules)
		}
		g.count(it, 1)
		if it.rank = -1; !out {
			g.arrivals++
			it.rank = g.arrivals
		}
		g.enqueue(it)
		switch {
		case out:
			g.enter(it, stateLeased)
		case again && it.attempts > 0: // the next attempt is not counted in what is stored
			g.enter(it, stateWriting)
			g.toRecord[b] = struct{}{}
		default:
			g.wait(it, now)
		}
	}
	if b.open == 0 {
		g.close(b)
	}
}

// enqueue puts a notification among the others of its SIMs. All queues have one order, so that no two notifications can wait
// for each other: first what was leased before the group was coordinated here and may still be out, then what came later, as it came.
// Only of what is held there may be several of one SIM, of which one at most is out.
func (g *ledger) enqueue(it *item) {
	if !g.rules.ordered {
		return
	}
	for iccid := range it.record.ICCIDs() {
		if key := string(iccid); !slices.Contains(it.keys, key) {
			it.keys = append(it.keys, key)
		}
	}
	for _, key := range it.keys {
		queue := g.sims[key]
		at, _ := slices.BinarySearchFunc(queue, it, compareRank)
		if at > 0 {
			it.ahead++
		} else if len(queue) > 0 {
			g.push(queue[0])
		}
		g.sims[key] = slices.Insert(queue, at, it)
	}
}

func compareRank(a, b *item) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.sequence(), b.sequence()))
}

// push moves a notification that was the first of a SIM behind a new first one.
func (g *ledger) push(it *item) {
	it.ahead++
	if it.state == stateReady || it.state == stateDelayed {
		g.enter(it, stateBlocked)
	}
}

// dequeue lets those that wait behind a settled notification come forward.
func (g *ledger) dequeue(it *item, now time.Time) {
	for _, key := range it.keys {
		queue := g.sims[key]
		at := slices.Index(queue, it)
		queue = slices.Delete(queue, at, at+1)
		if len(queue) == 0 {
			delete(g.sims, key)
			continue
		}
		g.sims[key] = queue
		if at > 0 {
			continue
		}
		first := queue[0]
		first.ahead--
		if first.state == stateBlocked {
			g.wait(first, now)
		}
	}
}

// wait puts a notification that is neither leased nor settled where it waits.
func (g *ledger) wait(it *item, now time.Time) {
	switch {
	case it.ahead > 0:
		g.enter(it, stateBlocked)
	case it.due.After(now):
		g.enter(it, stateDelayed)
	default:
		g.enter(it, stateReady)
	}
}

// enter moves a notification from its state to another.
func (g *ledger) enter(it *item, next state) {
	if it.in != nil {
		heap.Remove(it.in, it.place)
	} else if it.state == stateReady {
		g.alone = slices.DeleteFunc(g.alone, func(other *item) bool { return other == it })
	}
	g.count(it, -1)
	it.state = next
	g.count(it, 1)
	switch {
	case next == stateReady && g.mustBeAlone(it):
		g.alone = append(g.alone, it)
	case next == stateReady:
		heap.Push(&g.ready, it)
	case next == stateDelayed:
		heap.Push(&g.delayed, it)
	case next == stateLeased:
		heap.Push(&g.leased, it)
	}
}

func (g *ledger) count(it *item, n int) {
	switch {
	case it.state == stateLeased && it.held:
		g.held += n
	case it.state == stateLeased:
		g.leases += n
	case it.state != stateSettled && (it.attempts > 0 || it.batch.source == eventlog.SourceReplay):
		g.waits += n
	}
}

// mustBeAlone reports whether a notification may have ended members, and has used up the half of its attempts in which it may
// share a member with others.
func (g *ledger) mustBeAlone(it *item) bool {
	return it.suspect && it.attempts > 0 && it.attempts >= g.rules.maxAttempts/2
}

// lend leases a notification that is ready.
func (g *ledger) lend(it *item, to *Member, number uint64, now time.Time) {
	g.enter(it, stateBlocked) // out of its heap, before what the heap looks at changes
	g.count(it, -1)
	it.attempts++
	it.lease, it.member, it.until = number, to, now.Add(g.rules.lease)
	g.count(it, 1)
	g.enter(it, stateLeased)
}

// extend moves the end of a lease.
func (g *ledger) extend(it *item, until time.Time) {
	g.enter(it, stateWriting)
	it.until = until
	g.enter(it, stateLeased)
}

// takeBack undoes a lease that never reached its member, or was not begun. Its number stays, so that it and those before it are
// known to be over.
func (g *ledger) takeBack(it *item, now time.Time) {
	g.enter(it, stateWriting)
	g.count(it, -1)
	it.attempts--
	it.member = nil
	g.count(it, 1)
	g.wait(it, now)
}

// note takes note of a lease that somebody else gave, perhaps.
func (g *ledger) note(it *item, l lease) {
	g.count(it, -1)
	it.lease, it.attempts, it.held = l.number, max(it.attempts, l.attempt), false
	g.count(it, 1)
}

// settle ends a notification.
func (g *ledger) settle(it *item, now time.Time) {
	g.enter(it, stateSettled)
	it.member = nil
	g.items--
	g.dequeue(it, now)
	it.batch.open--
	if it.batch.open == 0 {
		g.close(it.batch)
	}
}

// close ends a batch in which everything is settled.
func (g *ledger) close(b *batch) {
	delete(g.batches, b.batchKey)
	delete(g.toRecord, b)
	g.bytes -= b.claim.Bytes
	if b.claim.Again {
		g.closed.add(b.batchKey)
	}
	g.toSettle = append(g.toSettle, b)
}

// fail ends the attempt of a notification: it is parked if that was the last one, else it comes again after a delay. A negative
// delay is the group's back-off.
func (g *ledger) fail(it *item, reason linksgatev1.ParkReason, detail string, delay time.Duration, now time.Time) {
	it.reason, it.detail = reason, detail
	if delay < 0 {
		delay = g.rules.delay(it.attempts)
	}
	switch reason {
	case linksgatev1.ParkReason_PARK_REASON_DISCONNECTED:
		it.suspect, delay = true, min(delay, disconnectDelay)
	case linksgatev1.ParkReason_PARK_REASON_LEASE_ENDED:
		it.suspect = true
	default:
		it.suspect = false
	}
	if it.attempts >= g.rules.maxAttempts || reason == linksgatev1.ParkReason_PARK_REASON_REQUESTED {
		g.park(it)
		return
	}
	it.due = now.Add(delay)
	g.enter(it, stateWriting)
	it.member = nil
	g.toRecord[it.batch] = struct{}{}
}

// park sets a notification aside. The session stores it and then calls settle.
func (g *ledger) park(it *item) {
	g.enter(it, stateWriting)
	it.member, it.parking = nil, true
	g.toPark = append(g.toPark, it)
}

// shelf takes batches off in which everything that is not settled waits for another attempt for a while: up to most of them, and the
// session stores them and then calls shelve. Until then nothing of them is lent.
func (g *ledger) shelf(most int, now time.Time) (chosen []*batch) {
	if !g.crowded() {
		return nil
	}
	for _, b := range g.batches {
		if len(chosen) == most {
			break
		}
		if b.due().Before(now.Add(shelfTime)) {
			continue
		}
		for i := range b.items {
			if it := &b.items[i]; it.state == stateDelayed {
				g.enter(it, stateWriting)
			}
		}
		chosen = append(chosen, b)
	}
	return chosen
}

// due is when the first of a batch waits no longer; the zero time if that is not all that they do.
func (b *batch) due() (first time.Time) {
	for i := range b.items {
		switch it := &b.items[i]; {
		case it.state == stateSettled:
		case it.state != stateDelayed:
			return time.Time{}
		case first.IsZero() || it.due.Before(first):
			first = it.due
		}
	}
	return first
}

// shelve puts a batch that was chosen and stored out of hand, and returns until when. It returns false if something became of it
// meanwhile, which is not stored: it stays in hand.
func (g *ledger) shelve(b *batch, open int, now time.Time) (until time.Time, ok bool) {
	_, changed := g.toRecord[b]
	changed = changed || b.open != open || slices.ContainsFunc(b.items, func(it item) bool { return it.state != stateSettled && it.parking })
	if changed {
		g.recorded(b, now)
		return time.Time{}, false
	}
	for i := range b.items {
		if it := &b.items[i]; it.state == stateWriting {
			g.enter(it, stateSettled)
			if until.IsZero() || it.due.Before(until) {
				until = it.due
			}
		}
	}
	delete(g.batches, b.batchKey)
	g.items -= open
	g.bytes -= b.claim.Bytes
	g.shelved[b.batchKey] = shelved{open, until}
	g.away += open
	return until, true
}

// unshelve forgets that a batch is on the shelf.
func (g *ledger) unshelve(key batchKey) {
	g.away -= g.shelved[key].items
	delete(g.shelved, key)
}

// isShelved reports whether the batch of a lease is on the shelf.
func (g *ledger) isShelved(l lease) bool {
	_, shelved := g.shelved[batchKey{l.source, l.stream}]
	return shelved
}

// standsStill reports whether nothing can be lent, nor more be taken in hand, before something in hand is settled or due.
func (g *ledger) standsStill() bool { return g.full() && len(g.ready.items)+len(g.alone) == 0 }

// dust forgets what should have come back from the shelf long ago: another gateway has it.
func (g *ledger) dust(now time.Time) {
	for key, s := range g.shelved {
		if now.After(s.due.Add(shelfMargin)) {
			g.unshelve(key)
		}
	}
}

// advance makes ready what is due or held no longer, and returns what was leased for a time that has passed.
func (g *ledger) advance(now time.Time) (ended []*item) {
	for len(g.leased.items) > 0 && !g.leased.items[0].until.After(now) {
		it := g.leased.items[0]
		g.enter(it, stateWriting)
		if !it.held {
			ended = append(ended, it)
			continue
		}
		g.count(it, -1)
		it.held = false
		it.uncount(g.rules)
		g.count(it, 1)
		g.wait(it, now)
	}
	for len(g.delayed.items) > 0 && !g.delayed.items[0].due.After(now) {
		g.wait(g.delayed.items[0], now)
	}
	return ended
}

// next returns when to advance; the zero time if nothing waits for a time.
func (g *ledger) next() (next time.Time) {
	if len(g.leased.items) > 0 {
		next = g.leased.items[0].until
	}
	if len(g.delayed.items) > 0 && (next.IsZero() || g.delayed.items[0].due.Before(next)) {
		next = g.delayed.items[0].due
	}
	return next
}

// recorded makes what was written of a batch deliverable again.
func (g *ledger) recorded(b *batch, now time.Time) {
	for i := range b.items {
		if it := &b.items[i]; it.state == stateWriting && !it.parking {
			g.wait(it, now)
		}
	}
}

// find returns the notification that a lease is about, if it is in hand.
func (g *ledger) find(l lease) *item {
	b := g.batches[batchKey{l.source, l.stream}]
	if b == nil {
		return nil
	}
	at, found := slices.BinarySearchFunc(b.items, l.sequence, func(it item, sequence uint64) int {
		return cmp.Compare(it.sequence(), sequence)
	})
	if !found {
		return nil
	}
	return &b.items[at]
}

// extension is how long an extended lease lasts from now on: at most as long as a new one, because batches in hand are kept from
// other gateways for so long when this one dies.
func (r rules) extension(asked time.Duration) time.Duration {
	if asked <= 0 {
		return r.lease
	}
	return min(asked, r.lease)
}

// delay is how long to wait after an attempt, from 1.
func (r rules) delay(attempt uint32) time.Duration {
	d := r.backOff
	for range min(attempt-1, 40) {
		if d *= 2; d >= r.greatestDelay {
			break
		}
	}
	d = min(d, r.greatestDelay)
	if half := int64(d / 2); half > 0 {
		d -= time.Duration(rand.Int64N(half))
	}
	return d
}

// itemHeap implements [heap.Interface].
type itemHeap struct {
	items []*item
	less  func(a, b *item) bool
}

func (h *itemHeap) Len() int           { return len(h.items) }
func (h *itemHeap) Less(i, j int) bool { return h.less(h.items[i], h.items[j]) }
func (h *itemHeap) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.items[i].place, h.items[j].place = i, j
}
func (h *itemHeap) Push(x any) {
	it := x.(*item)
	it.in, it.place = h, len(h.items)
	h.items = append(h.items, it)
}
func (h *itemHeap) Pop() any {
	last := len(h.items) - 1
	it := h.items[last]
	h.items[last] = nil
	h.items = h.items[:last]
	it.in = nil
	return it
}
