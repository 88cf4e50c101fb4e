package eventlog

import (
	"context"
	"errors"
	"sync"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/store"
)

const (
	// preload is how many record batches the window is filled with when the log is opened.
	preload = 512
	// retainedEvery is how often the window learns what is not retained any more.
	retainedEvery = 500 * time.Millisecond
	// trimEvery is how often files of old keys are looked for.
	trimEvery = time.Hour
)

// tail is the end of the log: a window of the newest batches, unpacked once, and those who wait for what arrives.
//
// The writer adds what it has stored. What others have stored in a log that gateways share comes by following it.
type tail struct {
	log      *Log
	maxBytes int

	mu       sync.Mutex
	window   []*batch                          // mu; consecutive stream sequences, the last is the head's
	bytes    int                               // mu; memory of window
	head     headInfo                          // mu
	retained uint64                            // mu; the first stream sequence that may be read
	waiting  map[interest]map[*waiter]struct{} // mu
	closed   bool                              // mu
}

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

// newTail returns a tail that begins a little before the end of a log.
func newTail(l *Log, info store.Info) *tail {
	t := &tail{
		log: l, maxBytes: l.options.WindowBytes, retained: info.First, waiting: make(map[interest]map[*waiter]struct{}),
	}
	t.head = headInfo{Position{Stream: max(info.First, info.Next-min(preload, info.Next)) - 1}, info.LastTime}
	return t
}

// run follows the log until ctx ends.
func (t *tail) run(ctx context.Context) {
	for ctx.Err() == nil {
		next := t.headInfo().position.Stream + 1
		err := t.log.store.Wait(ctx, next)
		if err == nil {
			err = t.catchUp(ctx)
		}
		if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return
		}
		if err == nil {
			continue
		}
		t.log.options.Logger.Warn("following the log was interrupted", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// catchUp reads the log up to its end.
func (t *tail) catchUp(ctx context.Context) error {
	for item, err := range t.log.store.Read(ctx, t.headInfo().position.Stream+1) {
		if err != nil {
			return err
		}
		b, gap := t.log.unpackItem(item)
		if gap != nil { // readers are told, who find it in the log
			t.advance(headInfo{Position{Stream: item.Gap.From + item.Gap.Count - 1}, t.headInfo().written})
			continue
		}
		t.take(b)
	}
	return nil
}

// stored takes over what the writer has stored, unless others may have stored something before it that is not here yet.
func (t *tail) stored(entry store.Entry, data []byte) {
	t.log.epochs.add(entry.Epoch, entry.Sequence)
	if t.log.shared() && t.headInfo().position.Stream+1 != entry.Sequence {
		return // run finds it
	}
	t.take(unpack(t.log.id, entry.Epoch, entry.Sequence, entry.Time, data))
}

// watchRetention makes what is not retained any more unreadable here too, until ctx ends.
func (t *tail) watchRetention(ctx context.Context) {
	ticker := time.NewTicker(retainedEvery)
	defer ticker.Stop()
	var trimmed time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		info, err := t.log.store.Info(ctx)
		if err != nil {
			continue // the next time
		}
		t.log.epochs.trim(info.First)
		if now := time.Now(); t.log.duplicates != nil && now.Sub(trimmed) > trimEvery {
			trimmed = now
			if err := t.log.duplicates.Trim(now); err != nil {
				t.log.options.Logger.Warn("old keys not removed", "error", err)
			}
		}
		t.mu.Lock()
		t.retained = info.First
		for len(t.window) > 0 && t.window[0].stream < t.retained {
			t.drop()
		}
		t.mu.Unlock()
	}
}

// drop takes the oldest batch out of the window. The caller holds mu.
func (t *tail) drop() {
	t.bytes -= t.window[0].size
	t.window[0] = nil
	t.window = t.window[1:]
}

// take makes a batch the head, and lets the index of duplicates know.
func (t *tail) take(b *batch) {
	t.log.learnKeys(b)
	t.add(b)
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
		t.drop()
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
func kindName(kind linksgatev1.NotificationKind) string { return string(rune(kind)) }

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
	if len(t.window) == 0 || c.Stream < t.window[0].stream || c.Stream < t.retained {
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
