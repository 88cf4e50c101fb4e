package eventlog

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// preload is how many record batches the window is filled with when the log is opened.
const preload = 512

// tail is the one reader that follows the stream. It keeps the newest batches in a window and wakes readers that wait for
// what has arrived.
//
// An external stream has other writers too, so it is followed with a consumer. The embedded one has not: there the writer hands
// over what it has just stored, and the stream is read only for what was not handed over. That saves reading everything back,
// and much memory: the engine keeps each of its blocks that was read in memory for some seconds after the last read.
type tail struct {
	log      *Log
	maxBytes int
	start    uint64 // stream sequence that it began with
	offers   chan offer
	stored   atomic.Uint64 // the greatest stream sequence that was acknowledged; embedded only

	mu      sync.Mutex
	window  []*batch                          // mu; consecutive stream sequences, the last is the head's
	bytes   int                               // mu; memory of window
	head    headInfo                          // mu
	waiting map[interest]map[*waiter]struct{} // mu
	closed  bool                              // mu
}

// offer is a batch that was stored just now.
type offer struct {
	stream  uint64
	written time.Time
	data    []byte
}

// maxOffers bounds what waits to be taken over. What does not fit is read from the stream.
const maxOffers = 64

// headInfo is the newest notification that the tail has seen.
type headInfo struct {
	position Position
	written  time.Time
}

// waiter is a reader that waits at the head.
type waiter struct {
	wake   chan struct{} // buffered; signalled once
	stream uint64        // tail.mu; the first batch that woke it, 0 if none
}

// signal wakes the reader, unless that was done.
func (w *waiter) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// newTail returns a tail that will start a little before the end of the stream.
func newTail(l *Log, state jetstream.StreamState) *tail {
	t := &tail{
		log: l, maxBytes: l.options.WindowBytes, offers: make(chan offer, maxOffers),
		waiting: make(map[interest]map[*waiter]struct{}),
	}
	t.stored.Store(state.LastSeq)
	start := state.LastSeq + 1
	if state.Msgs > 0 {
		start = max(state.FirstSeq, start-min(preload, start))
	} else {
		t.head.written = state.LastTime
	}
	t.start = start
	t.head.position.Stream = start - 1
	return t
}

// run follows the stream until ctx ends.
func (t *tail) run(ctx context.Context) {
	follow := t.follow
	if t.log.engine.embedded() {
		follow = t.takeOver
	}
	for ctx.Err() == nil {
		err := follow(ctx)
		if ctx.Err() != nil {
			return
		}
		t.log.options.Logger.Warn("following the log was interrupted", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// offer tells the tail what was stored. It never waits. The tail of an external stream finds out by itself.
func (t *tail) offer(o offer) {
	if !t.log.engine.embedded() {
		return
	}
	raise(&t.stored, o.stream)
	select {
	case t.offers <- o:
	default: // takeOver is busy, and will see that it is behind
	}
}

// takeOver takes what the writer stores, until that fails or ctx ends.
func (t *tail) takeOver(ctx context.Context) error {
	for {
		// What was not handed over: the log as it was opened, what found no room, what was stored although the acknowledgement
		// came too late.
		if len(t.offers) == 0 {
			if err := t.catchUp(ctx, t.stored.Load()); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case o := <-t.offers:
			if err := t.catchUp(ctx, o.stream-1); err != nil {
				return err
			}
			t.take(unpack(t.log.id, o.stream, o.written, o.data))
		}
	}
}

// catchUp reads the stream up to a sequence.
func (t *tail) catchUp(ctx context.Context, last uint64) error {
	next := t.headInfo().position.Stream + 1
	if next > last {
		return nil
	}
	r := &reader{log: t.log, next: Cursor{Stream: next}, seen: t.take}
	defer r.release()
	for !t.isClosed() && r.next.Stream <= last {
		if err := r.fetch(ctx, last, func(Step) error { return nil }); err != nil {
			return err
		}
	}
	t.advance(headInfo{Position{Stream: last}, time.Now()}) // past what cannot be read; readers are told
	return nil
}

// take makes a batch the head, and lets the index of duplicates know.
func (t *tail) take(b *batch) {
	t.log.duplicates.learnBatch(b)
	t.add(b)
}

// follow reads the stream from after the head until that fails or ctx ends.
func (t *tail) follow(ctx context.Context) error {
	consumer, err := t.log.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   t.headInfo().position.Stream + 1,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(256, 8<<20))
	if err != nil {
		return err
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	for {
		message, err := messages.Next()
		if err != nil {
			return err
		}
		b, err := unpackMessage(t.log.id, message)
		if err != nil {
			return err
		}
		t.take(b)
	}
}

// unpackMessage unpacks a message of the stream.
func unpackMessage(id logID, message jetstream.Msg) (*batch, error) {
	meta, err := message.Metadata()
	if err != nil {
		return nil, err
	}
	return unpack(id, meta.Sequence.Stream, meta.Timestamp, message.Data()), nil
}

// add makes a batch the head.
func (t *tail) add(b *batch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b.stream <= t.head.position.Stream {
		return // delivered again
	}
	if len(t.window) > 0 && b.stream != t.head.position.Stream+1 {
		// Batches are missing. The window must stay consecutive; readers find and report the gap when they read the stream.
		t.window, t.bytes = nil, 0
	}
	t.window = append(t.window, b)
	t.bytes += b.size
	for t.bytes > t.maxBytes && len(t.window) > 1 {
		t.bytes -= t.window[0].size
		t.window[0] = nil
		t.window = t.window[1:]
	}
	t.head = headInfo{Position{Stream: b.stream, Index: max(len(b.records)-1, 0)}, b.written}
	t.wake(b)
}

// wake wakes those who are interested in a batch. The caller holds mu.
func (t *tail) wake(b *batch) {
	t.wakeInterest(interest{field: interestAny}, b.stream)
	if b.damaged {
		for key := range t.waiting {
			t.wakeInterest(key, b.stream)
		}
		return
	}
	if len(t.waiting) == 0 || len(t.waiting) == 1 && t.waiting[interest{field: interestAny}] != nil {
		return
	}
	for i := range b.records {
		r := &b.records[i]
		t.wakeInterest(interest{interestAccount, string(r.account)}, b.stream)
		t.wakeInterest(interest{interestKind, kindName(r.kind)}, b.stream)
		t.wakeInterest(interest{interestPartnerCode, string(r.partnerCode)}, b.stream)
		for iccid := range r.ICCIDs() {
			t.wakeInterest(interest{interestICCID, string(iccid)}, b.stream)
		}
	}
}

func (t *tail) wakeInterest(key interest, stream uint64) {
	for w := range t.waiting[key] {
		if w.stream == 0 {
			w.stream = stream
			w.signal()
		}
	}
}

// kindName is a kind as the value of an interest.
func kindName(kind linksgatev1.Kind) string { return string(rune(kind)) }

// place says where a cursor is, seen from the tail.
type place int

const (
	placeBehind place = iota // before the window: read the stream
	placeWindow              // in the window
	placeHead                // after the newest batch
)

// at returns the batch at a cursor if it is in the window.
func (t *tail) at(c Cursor) (*batch, place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.Stream > t.head.position.Stream {
		return nil, placeHead
	}
	if len(t.window) == 0 || c.Stream < t.window[0].stream {
		return nil, placeBehind
	}
	return t.window[c.Stream-t.window[0].stream], placeWindow
}

// wait waits at the head until a batch arrives that one of the interests may be in, or the timeout passes. It returns where
// to go on: nothing before it is of interest.
func (t *tail) wait(ctx context.Context, from Cursor, interests []interest, timeout <-chan time.Time) (Cursor, error) {
	w := &waiter{wake: make(chan struct{}, 1)}
	t.mu.Lock()
	switch {
	case t.closed:
		t.mu.Unlock()
		return from, ErrClosed
	case from.Stream <= t.head.position.Stream:
		t.mu.Unlock()
		return from, nil
	}
	for _, key := range interests {
		if t.waiting[key] == nil {
			t.waiting[key] = make(map[*waiter]struct{})
		}
		t.waiting[key][w] = struct{}{}
	}
	t.mu.Unlock()

	select {
	case <-w.wake:
	case <-timeout:
	case <-ctx.Done():
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range interests {
		delete(t.waiting[key], w)
		if len(t.waiting[key]) == 0 {
			delete(t.waiting, key)
		}
	}
	switch {
	case ctx.Err() != nil:
		return from, context.Cause(ctx)
	case w.stream > from.Stream:
		return Cursor{Stream: w.stream}, nil
	case w.stream == 0 && t.head.position.Stream >= from.Stream:
		return Cursor{Stream: t.head.position.Stream + 1}, nil
	case t.closed:
		return from, ErrClosed
	}
	return from, nil
}

// waitHead waits until the tail has seen a stream sequence.
func (t *tail) waitHead(ctx context.Context, stream uint64) error {
	for {
		head := t.headInfo().position.Stream
		if head >= stream {
			return nil
		}
		if _, err := t.wait(ctx, Cursor{Stream: head + 1}, []interest{{field: interestAny}}, nil); err != nil {
			return err
		}
	}
}

// advance takes a place as the head although it could not be read.
func (t *tail) advance(head headInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.head.position.Stream < head.position.Stream {
		t.window, t.bytes = nil, 0
		t.head = head
	}
}

func (t *tail) headInfo() headInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head
}

// close ends everyone who waits with ErrClosed.
func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, waiters := range t.waiting {
		for w := range waiters {
			w.signal()
		}
	}
}

func (t *tail) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}
