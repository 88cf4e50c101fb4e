// Package dedup answers: was a notification with this key stored lately?
//
// # The model
//
// An [Index] holds the keys that were stored within a window, each with the sequence that it was stored at. A key is claimed while
// its notification is being written: copies that arrive meanwhile wait for the outcome. Success is theirs too, and after a failure
// one of them tries next. So one write per key is under way at a time.
//
// The log is the truth about what is stored, and the index is derived from it. So that a start need not read a day of log,
// what was learnt is written to files, a run of record batches each, which can be deleted at any time: [Index.Missing] says what
// has to be read from the log to know everything again. A crash leaves the last run to be read.
package dedup

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// MaxKeys bounds the memory of an index, to about 60 MiB. When there are more within the window, the oldest are forgotten first.
const MaxKeys = 500_000

// Key stands for what makes two notifications copies.
type Key [16]byte

// KeyOf returns the key of a notification of an account and kind that bears a duplicate key; false if that is empty.
func KeyOf(account []byte, kind int32, key []byte) (Key, bool) {
	if len(key) == 0 {
		return Key{}, false
	}
	// Each part is preceded by its length, so that no two lists of parts read the same.
	text := binary.AppendUvarint(nil, uint64(len(account)))
	text = append(text, account...)
	text = binary.AppendUvarint(text, uint64(kind))
	text = append(text, key...)
	sum := sha256.Sum256(text)
	return Key(sum[:16]), true
}

// Index is the keys of one log. Its methods may be called concurrently.
type Index struct {
	window time.Duration
	runs   runs

	mu     sync.Mutex
	stored map[Key]uint64 // mu; sequences
	order  []stored       // mu; by time of storing, oldest first
	claims map[Key]*claim // mu
	fresh  run            // mu; learnt and in no file
	whole  bool           // mu; all that was missing was learnt, so that the oldest keys are those that come first
}

// stored is a key that was stored at a sequence.
type stored struct {
	key      Key
	sequence uint64
	written  int64 // Unix nanoseconds
}

// claim is a write in progress. Its result may be read when done is closed.
type claim struct {
	done     chan struct{}
	sequence uint64
	err      error
}

// New returns an index that is in memory only.
func New(window time.Duration) *Index {
	return &Index{window: window, stored: make(map[Key]uint64), claims: make(map[Key]*claim)}
}

// Once calls write unless a copy is stored already or being written, and returns at which sequence the one copy is.
func (x *Index) Once(ctx context.Context, key Key, write func() (uint64, error)) (sequence uint64, copied bool, err error) {
	for {
		x.mu.Lock()
		x.forget(time.Now())
		if sequence, ok := x.stored[key]; ok {
			x.mu.Unlock()
			return sequence, true, nil
		}
		other := x.claims[key]
		if other == nil {
			mine := &claim{done: make(chan struct{})}
			x.claims[key] = mine
			x.mu.Unlock()
			sequence, err := x.settle(key, mine, write)
			return sequence, false, err
		}
		x.mu.Unlock()
		select {
		case <-other.done:
			if other.err == nil {
				return other.sequence, true, nil
			}
		case <-ctx.Done():
			return 0, false, context.Cause(ctx)
		}
	}
}

// settle writes under a claim, and gives the claim up.
func (x *Index) settle(key Key, mine *claim, write func() (uint64, error)) (uint64, error) {
	mine.sequence, mine.err = write()
	x.mu.Lock()
	defer x.mu.Unlock()
	if mine.err == nil {
		x.learn(stored{key, mine.sequence, time.Now().UnixNano()})
	}
	delete(x.claims, key)
	close(mine.done)
	return mine.sequence, mine.err
}

// Stored is a key and the sequence that it was stored at; 0 if it is durable and not in the log yet.
type Stored struct {
	Key      Key
	Sequence uint64
}

// Learn takes note of the keys of a record batch, appended to the log in an epoch. Batches that follow each other make a run, which is
// written when it is full. An error says that this failed: then the next index has to learn the run from the log.
func (x *Index) Learn(batch uint64, epoch uint32, written time.Time, keys []Stored) error {
	x.mu.Lock()
	var full []run
	if x.fresh.last != 0 && batch != x.fresh.last+1 {
		full = append(full, x.fresh)
		x.fresh = run{}
	}
	if x.fresh.last == 0 {
		x.fresh.first = batch
	}
	x.fresh.last, x.fresh.epoch = batch, epoch
	for _, k := range keys {
		one := stored{k.Key, k.Sequence, written.UnixNano()}
		x.fresh.keys = append(x.fresh.keys, one)
		x.learn(one)
	}
	if batch-x.fresh.first+1 >= runBatches || len(x.fresh.keys) >= runKeys {
		full = append(full, x.fresh)
		x.fresh = run{}
	}
	x.mu.Unlock()
	for _, r := range full {
		if err := x.runs.write(r); err != nil {
			return err
		}
	}
	return nil
}

// learn adds a key. The caller holds mu.
func (x *Index) learn(one stored) {
	if sequence, ok := x.stored[one.key]; ok {
		if sequence == 0 { // it was spooled, and is in the log by now
			x.stored[one.key] = one.sequence
		}
		return
	}
	x.stored[one.key] = one.sequence
	x.order = append(x.order, one)
	if x.whole {
		x.forget(time.Unix(0, one.written))
	}
}

// forget removes the keys that the window or the bound leaves behind. The caller holds mu.
func (x *Index) forget(now time.Time) {
	for len(x.order) > MaxKeys || len(x.order) > 0 && x.order[0].written < now.Add(-x.window).UnixNano() {
		delete(x.stored, x.order[0].key)
		x.order = x.order[1:]
	}
}

// sort puts keys in order that were not learnt in it. The caller holds mu.
func (x *Index) sort() {
	slices.SortStableFunc(x.order, func(a, b stored) int { return cmp.Compare(a.written, b.written) })
}
