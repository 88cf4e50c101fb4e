package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"time"

	"github.com/linksgate/linksgate/server/store"
)

const (
	// maxWrite bounds what one write has, beside its last change.
	maxWrite = 1 << 20
	// maxEvictions bounds how many values one write removes because of a bound.
	maxEvictions = 1024
)

// Put implements [store.KV].
func (t *KV) Put(ctx context.Context, key string, data []byte, revision uint64) (uint64, error) {
	if len(data) > store.MaxValue {
		return 0, fmt.Errorf("%w: a value of %d bytes", store.ErrTooLarge, len(data))
	}
	c := &change{pending: pending{head: head{kind: kindData, key: []byte(key)}, data: data}, expected: revision}
	err := t.commit(ctx, c)
	return c.revision, err
}

// Delete implements [store.KV].
func (t *KV) Delete(ctx context.Context, key string, revision uint64) error {
	return t.commit(ctx, &change{pending: pending{head: head{kind: kindDeleted, key: []byte(key)}}, expected: revision})
}

// commit makes a change durable, together with all that wait at the same moment: whoever comes first writes for all.
func (t *KV) commit(ctx context.Context, c *change) error {
	if err := checkKey(string(c.key)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t.queueMu.Lock()
	t.queue = append(t.queue, c)
	t.queueMu.Unlock()
	t.appending.Lock()
	defer t.appending.Unlock()
	for !c.done {
		t.flush()
	}
	return c.err
}

// flush writes what waits, up to a bound. The caller holds appending.
func (t *KV) flush() {
	changes := t.take()
	defer func() {
		for _, c := range changes {
			c.done = true
		}
	}()
	if err := t.checkOpen(); err != nil {
		for _, c := range changes {
			c.err = err
		}
		return
	}
	var accepted []*change
	var entries []pending
	revisions := make(map[string]uint64, len(changes)) // that the changes before give their keys
	t.mu.Lock()
	next := t.next
	t.mu.Unlock()
	for _, c := range changes {
		key := string(c.key)
		now, ok := revisions[key]
		if v := t.current(key); !ok && v != nil {
			now = v.revision
		}
		if c.err = c.check(now); c.err != nil {
			continue
		}
		c.revision = next + uint64(len(entries))
		revisions[key] = c.revision
		if c.kind == kindDeleted {
			revisions[key] = store.Absent
		}
		accepted, entries = append(accepted, c), append(entries, c.pending)
	}
	if len(entries) == 0 {
		return
	}
	if err := t.write(entries); err != nil {
		for _, c := range accepted {
			c.err = err
		}
		return
	}
	t.table.Lock()
	over := t.options.MaxBytes > 0 && t.bytes > t.options.MaxBytes
	t.table.Unlock()
	if over {
		if err := t.evict(time.Now()); err != nil {
			t.engine.options.Logger.Warn("bound not kept", "store", t.name, "error", err) // the next tick tries again
		}
	}
}

// check returns why a change is not made to a key with a revision.
func (c *change) check(now uint64) error {
	switch {
	case c.kind == kindDeleted && now == store.Absent:
		return fmt.Errorf("%w: %s", store.ErrNotFound, c.key)
	case c.expected != store.Any && c.expected != now:
		return fmt.Errorf("%w: %s has revision %d, not %d", store.ErrConflict, c.key, now, c.expected)
	}
	return nil
}

// take takes changes from the queue.
func (t *KV) take() []*change {
	t.queueMu.Lock()
	defer t.queueMu.Unlock()
	count, bytes := 0, 0
	for count < len(t.queue) && bytes < maxWrite {
		bytes += len(t.queue[count].data)
		count++
	}
	changes := t.queue[:count:count]
	t.queue = t.queue[count:]
	return changes
}

// write appends changes and takes note of them. The caller holds appending.
func (t *KV) write(entries []pending) error {
	s, offsets, err := t.append(entries)
	if err != nil {
		return err
	}
	t.table.Lock() // over both: nobody may see a key whose value is that it has none
	for i := range entries {
		t.note(s, entries[i].head, offsets[i])
		if entries[i].kind == kindDeleted {
			t.forget(string(entries[i].key))
		}
	}
	t.table.Unlock()
	t.notify(entries)
	return nil
}

// tick keeps to the bounds, and removes segments that are mostly out of date.
func (t *KV) tick(now time.Time) {
	t.appending.Lock()
	defer t.appending.Unlock()
	if t.checkOpen() != nil || t.engine.Err() != nil {
		return
	}
	err := t.evict(now)
	for err == nil && t.wasteful() {
		err = t.compact()
	}
	if err != nil && !errors.Is(err, store.ErrNoSpace) {
		t.engine.options.Logger.Error("table not compacted", "store", t.name, "error", err)
	}
}

// evict deletes what the bounds do not leave room for, the oldest first.
func (t *KV) evict(now time.Time) error {
	for {
		var entries []pending
		t.table.Lock()
		bytes := t.bytes
		t.ages.Scan(func(_ uint64, v *value) bool {
			old := t.options.MaxAge > 0 && now.Sub(time.Unix(0, v.time)) >= t.options.MaxAge
			if over := t.options.MaxBytes > 0 && bytes > t.options.MaxBytes; !old && !over || len(entries) == maxEvictions {
				return false
			}
			bytes -= v.size()
			entries = append(entries, pending{head: head{kind: kindDeleted, key: []byte(v.key)}})
			return true
		})
		t.table.Unlock()
		if len(entries) == 0 {
			return nil
		}
		if err := t.write(entries); err != nil {
			return err
		}
		t.table.Lock()
		t.removed += uint64(len(entries))
		t.table.Unlock()
	}
}

// wasteful reports whether more than half of what the segments occupy is out of date, and not little.
func (t *KV) wasteful() bool {
	const little = 1 << 20
	t.table.Lock()
	live := t.bytes + int64(t.keys.Len())*2*headBytes
	t.table.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.segments) < 2 {
		return false
	}
	used := int64(0)
	for _, s := range t.segments {
		used += s.End - entriesBegin
	}
	return used > 2*live+little
}

// Compact implements [store.Compactor]. It lets changes in between the segments.
func (t *KV) Compact(ctx context.Context) error {
	t.appending.Lock()
	if err := t.checkOpen(); err != nil {
		t.appending.Unlock()
		return err
	}
	err := t.roll()
	t.mu.Lock()
	until := t.next
	t.mu.Unlock()
	t.appending.Unlock()
	for err == nil {
		if err = ctx.Err(); err != nil {
			break
		}
		t.appending.Lock()
		t.mu.Lock()
		done := len(t.segments) == 0 || t.segments[0].First >= until
		t.mu.Unlock()
		if !done {
			err = t.compact()
		}
		t.appending.Unlock()
		if done {
			break
		}
	}
	return err
}

// compact removes the oldest segment, after what is current in it has been appended again.
func (t *KV) compact() error {
	t.mu.Lock()
	oldest := t.segments[0]
	t.mu.Unlock()
	var current []*value
	t.table.Lock()
	t.ages.Scan(func(_ uint64, v *value) bool {
		if v.segment == oldest {
			current = append(current, v)
		}
		return true
	})
	t.table.Unlock()
	for len(current) > 0 {
		var entries []pending
		for bytes := 0; len(current) > 0 && bytes < maxWrite; current = current[1:] {
			v := current[0]
			p := pending{head: head{kind: v.kind, key: []byte(v.key), revision: v.revision, time: v.time}}
			var err error
			if p.data, err = v.load(); errors.Is(err, store.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
				p.kind = kindCorrupt
			} else if err != nil {
				return err
			}
			bytes += len(p.data)
			entries = append(entries, p)
		}
		s, offsets, err := t.append(entries)
		if err != nil {
			return err
		}
		for i := range entries {
			t.record(s, entries[i].head, offsets[i])
		}
	}
	return t.remove(1, oldest.Last+1)
}

// close ends those who watch too.
func (t *KV) close() error {
	err := t.journal.close()
	t.table.Lock()
	defer t.table.Unlock()
	for w := range t.watches {
		w.wake()
	}
	return err
}

// watch is one Watch.
type watch struct {
	prefix string
	signal chan struct{}
	keys   map[string]bool // KV.table; changed and not yielded, true: deleted
}

func (w *watch) wake() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// notify tells those who watch.
func (t *KV) notify(entries []pending) {
	t.table.Lock()
	defer t.table.Unlock()
	for w := range t.watches {
		for i := range entries {
			if key := string(entries[i].key); strings.HasPrefix(key, w.prefix) {
				w.keys[key] = entries[i].kind == kindDeleted
				w.wake()
			}
		}
	}
}

// Watch implements [store.KV].
func (t *KV) Watch(ctx context.Context, prefix string) (iter.Seq2[store.Change, error], error) {
	if err := t.checkOpen(); err != nil {
		return nil, err
	}
	w := &watch{prefix: prefix, signal: make(chan struct{}, 1), keys: make(map[string]bool)}
	t.table.Lock()
	t.watches[w] = struct{}{}
	t.table.Unlock()
	forget := context.AfterFunc(ctx, func() {
		t.table.Lock()
		delete(t.watches, w)
		t.table.Unlock()
	})
	return func(yield func(store.Change, error) bool) {
		defer func() {
			if forget() {
				t.table.Lock()
				delete(t.watches, w)
				t.table.Unlock()
			}
		}()
		for {
			select {
			case <-ctx.Done():
				yield(store.Change{}, ctx.Err())
				return
			case <-w.signal:
			}
			t.table.Lock()
			keys := w.keys
			w.keys = make(map[string]bool)
			t.table.Unlock()
			for key, deleted := range keys {
				if !yield(store.Change{Key: key, Deleted: deleted}, nil) {
					return
				}
			}
			if err := t.checkOpen(); err != nil {
				yield(store.Change{}, err)
				return
			}
		}
	}, nil
}
