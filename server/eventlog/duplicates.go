package eventlog

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	// maxDuplicateKeys bounds the memory of the index, to about 60 MiB. When there are more within the window, the oldest are
	// forgotten first.
	maxDuplicateKeys = 500_000
	// maxRebuildBatches bounds how much of the log is read when the index is rebuilt.
	maxRebuildBatches = 1_000_000
)

// duplicates is the index of the keys that were stored recently. It lives in memory, and is rebuilt from the log when that
// is opened: the log itself is the mark of what it holds, so there is no second store to disagree with it. The tail reader
// keeps it current, so it also learns what other gateways append to a shared log; two copies that reach two gateways at the
// same moment are both stored.
//
// A key is claimed while its notification is being written. Copies that arrive meanwhile wait for the outcome: success is
// theirs too, and after a failure one of them tries next.
type duplicates struct {
	window time.Duration // 0: no index is kept

	mu     sync.Mutex
	stored map[duplicateKey]Position // mu
	order  []storedKey               // mu; by time of storing, oldest first
	claims map[duplicateKey]*claim   // mu
}

type duplicateKey [16]byte

type storedKey struct {
	key     duplicateKey
	written time.Time
}

// claim is a write in progress. Its result may be read when done is closed.
type claim struct {
	done     chan struct{}
	position Position
	err      error
}

func newDuplicates(window time.Duration) *duplicates {
	return &duplicates{window: window, stored: make(map[duplicateKey]Position), claims: make(map[duplicateKey]*claim)}
}

// keyOf returns the key of a notification; false if it has none.
func (d *duplicates) keyOf(account []byte, kind linksgatev1.Kind, key []byte) (duplicateKey, bool) {
	if len(key) == 0 || d.window == 0 {
		return duplicateKey{}, false
	}
	// Each part is preceded by its length, so that no two lists of parts read the same.
	text := binary.AppendUvarint(nil, uint64(len(account)))
	text = append(text, account...)
	text = binary.AppendUvarint(text, uint64(kind))
	text = append(text, key...)
	sum := sha256.Sum256(text)
	return duplicateKey(sum[:16]), true
}

// once calls write unless a copy is stored already or being written, and returns where the one copy is.
func (d *duplicates) once(ctx context.Context, key duplicateKey, write func() (Position, error)) (position Position, copied bool, err error) {
	for {
		d.mu.Lock()
		d.forget(time.Now())
		if position, ok := d.stored[key]; ok {
			d.mu.Unlock()
			return position, true, nil
		}
		other := d.claims[key]
		if other == nil {
			mine := &claim{done: make(chan struct{})}
			d.claims[key] = mine
			d.mu.Unlock()
			position, err := d.settle(key, mine, write)
			return position, false, err
		}
		d.mu.Unlock()
		select {
		case <-other.done:
			if other.err == nil {
				return other.position, true, nil
			}
		case <-ctx.Done():
			return Position{}, false, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
	}
}

// settle writes under a claim, and gives the claim up.
func (d *duplicates) settle(key duplicateKey, mine *claim, write func() (Position, error)) (Position, error) {
	mine.position, mine.err = write()
	d.mu.Lock()
	defer d.mu.Unlock()
	if mine.err == nil {
		d.learn(key, mine.position, time.Now())
	}
	delete(d.claims, key)
	close(mine.done)
	return mine.position, mine.err
}

// learn adds a key. The caller holds mu.
func (d *duplicates) learn(key duplicateKey, position Position, written time.Time) {
	if _, ok := d.stored[key]; ok {
		return
	}
	d.stored[key] = position
	d.order = append(d.order, storedKey{key, written})
	d.forget(written)
}

// forget removes the keys that the window or the bound leaves behind. The caller holds mu.
func (d *duplicates) forget(now time.Time) {
	for len(d.order) > maxDuplicateKeys || len(d.order) > 0 && d.order[0].written.Before(now.Add(-d.window)) {
		delete(d.stored, d.order[0].key)
		d.order = d.order[1:]
	}
}

// learnBatch adds the keys of a stored batch.
func (d *duplicates) learnBatch(b *batch) {
	if d.window == 0 {
		return
	}
	for i := range b.records {
		r := &b.records[i]
		if key, ok := d.keyOf(r.account, r.kind, r.duplicateKey); ok {
			d.mu.Lock()
			d.learn(key, r.Position, b.written)
			d.mu.Unlock()
		}
	}
}

// rebuildDuplicates fills the index from the log, up to where the tail will begin. It runs before the tail does: keys are learnt in
// the order of the log.
func (l *Log) rebuildDuplicates(ctx context.Context, until uint64) error {
	if l.duplicates.window == 0 {
		return nil
	}
	from, err := l.store.Find(ctx, time.Now().Add(-l.duplicates.window))
	if err != nil {
		return err
	}
	if until > maxRebuildBatches {
		from = max(from, until-maxRebuildBatches)
	}
	if from >= until {
		return nil
	}
	for item, err := range l.store.Read(ctx, from) {
		if err != nil {
			return err
		}
		if item.Gap.Count == 0 {
			l.duplicates.learnBatch(unpack(l.id, item.Epoch, item.Sequence, item.Time, item.Data))
		}
		if item.Sequence+1 >= until {
			break
		}
	}
	return nil
}
