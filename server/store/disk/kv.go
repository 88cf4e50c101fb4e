package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"iter"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/linksgate/linksgate/server/store"
)

// KV is a [store.KV] of segment files. Keys are in memory, in order, each with where its value is; values are on disk. A change is
// an entry with a key; what a key has is the entry with the highest revision, which is the sequence that a change had first. When more than half of
// the segments is out of date, the oldest one is removed, after its values have been appended again, with their revisions.
//
// A key is in both heads of its entry, and in the index of a sealed segment. So a value that is corrupt is known to be, and
// an older one is not taken for it; only damage to both heads in a segment that was not sealed could hide a change.
type KV struct {
	*journal

	queueMu sync.Mutex
	queue   []*change // queueMu; waiting for the next write

	table   sync.Mutex
	options store.KVOptions           // table
	keys    btree.Map[string, *value] // table
	ages    btree.Map[uint64, *value] // table; by revision
	bytes   int64                     // table; of keys and values
	removed uint64                    // table; by a bound
	indexes map[*segment][]byte       // table; of the segments that are not sealed
	watches map[*watch]struct{}       // table
}

var _ store.KV = (*KV)(nil)

// value is what is known about one key's. It never changes: another one takes its place.
type value struct {
	key      string
	revision uint64
	time     int64
	segment  *segment
	offset   int64
	payload  int
	kind     kind
}

// change is a put or a deletion that waits to be durable. It belongs to the journal's appending.
type change struct {
	pending
	expected uint64
	done     bool
	revision uint64
	err      error
}

// OpenKV implements [store.Engine].
func (e *Engine) OpenKV(_ context.Context, name string, options store.KVOptions) (store.KV, error) {
	t, err := create(e, name, func(dir string) (*KV, error) {
		t := &KV{
			journal: newJournal(e, name, dir, options.MaxBytes), options: options,
			indexes: make(map[*segment][]byte), watches: make(map[*watch]struct{}),
		}
		t.visit, t.seal = t.learn, t.sealIndex
		if err := t.load(); err != nil {
			return nil, err
		}
		return t, t.loadSealed()
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// loadSealed learns the keys of the segments that were sealed.
func (t *KV) loadSealed() error {
	for _, s := range t.segments {
		if s.missing {
			t.corrupt++
			continue
		}
		f, err := os.Open(s.path)
		if err != nil {
			return err
		}
		_, index, ok := readIndex(f, s.content)
		if ok {
			ok = t.learnIndex(s, index)
		}
		if !ok {
			w := &walker{file: f, salt: s.Salt, at: entriesBegin, end: s.End}
			missing := s.Last + 1 - s.First
			for e, err := w.next(); err == nil; e, err = w.next() {
				t.record(s, e.head, e.offset)
				missing--
			}
			t.corrupt += missing
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	t.table.Lock()
	defer t.table.Unlock()
	var deleted []string
	t.keys.Scan(func(key string, v *value) bool {
		if v.kind == kindDeleted {
			deleted = append(deleted, key)
		}
		return true
	})
	for _, key := range deleted {
		t.forget(key)
	}
	return nil
}

// learn takes note of an entry of a segment that was not sealed.
func (t *KV) learn(s *segment, e found) { t.record(s, e.head, e.offset) }

// record takes note of an entry: of its key, and for the index of its segment.
func (t *KV) record(s *segment, h head, offset int64) {
	t.table.Lock()
	defer t.table.Unlock()
	t.note(s, h, offset)
}

// note is record. The caller holds table.
func (t *KV) note(s *segment, h head, offset int64) {
	if !s.sealed {
		t.indexes[s] = appendIndex(t.indexes[s], h, offset)
	}
	key := string(h.key)
	if old, ok := t.keys.Get(key); ok && old.revision > h.revision {
		return
	}
	t.forget(key)
	v := &value{key: key, revision: h.revision, time: h.time, segment: s, offset: offset, payload: h.payload, kind: h.kind}
	t.keys.Set(key, v)
	if v.kind != kindDeleted {
		t.ages.Set(v.revision, v)
		t.bytes += v.size()
	}
}

// forget removes what is known about a key. The caller holds table.
func (t *KV) forget(key string) {
	if old, ok := t.keys.Delete(key); ok && old.kind != kindDeleted {
		t.ages.Delete(old.revision)
		t.bytes -= old.size()
	}
}

func (v *value) size() int64 { return int64(len(v.key) + v.payload) }

// appendIndex appends an entry to the index of its segment.
func appendIndex(index []byte, h head, offset int64) []byte {
	index = binary.AppendUvarint(index, uint64(len(h.key)))
	index = append(index, h.key...)
	index = binary.AppendUvarint(index, h.revision)
	index = binary.AppendUvarint(index, uint64(h.time))
	index = binary.AppendUvarint(index, uint64(offset))
	index = binary.AppendUvarint(index, uint64(h.payload))
	return append(index, byte(h.kind))
}

// learnIndex takes note of what an index says; false if it cannot be read.
func (t *KV) learnIndex(s *segment, index []byte) bool {
	for len(index) > 0 {
		var fields [5]uint64
		h := head{}
		for i := range fields {
			n := 0
			fields[i], n = binary.Uvarint(index)
			if n <= 0 || i == 0 && fields[0] > uint64(len(index)-n) {
				return false
			}
			index = index[n:]
			if i == 0 {
				h.key, index = index[:fields[0]], index[fields[0]:]
			}
		}
		if len(index) == 0 {
			return false
		}
		h.revision, h.time, h.payload, h.kind = fields[1], int64(fields[2]), int(fields[4]), kind(index[0])
		index = index[1:]
		t.record(s, h, int64(fields[3]))
	}
	return true
}

// sealIndex returns the index of a segment that is sealed now.
func (t *KV) sealIndex(s *segment) []byte {
	t.table.Lock()
	defer t.table.Unlock()
	index := t.indexes[s]
	delete(t.indexes, s)
	return index
}

// Get implements [store.KV].
func (t *KV) Get(_ context.Context, key string) (store.Value, error) {
	if err := t.checkOpen(); err != nil {
		return store.Value{}, err
	}
	v := t.current(key)
	if v == nil {
		return store.Value{}, fmt.Errorf("%w: %s", store.ErrNotFound, key)
	}
	return t.read(v)
}

// current returns what is known about a key; nil if it has no value.
func (t *KV) current(key string) *value {
	t.table.Lock()
	defer t.table.Unlock()
	if v, ok := t.keys.Get(key); ok && !t.expired(v) {
		return v
	}
	return nil
}

// expired reports whether a value is too old to be read. The caller holds table.
func (t *KV) expired(v *value) bool {
	return t.options.MaxAge > 0 && time.Since(time.Unix(0, v.time)) >= t.options.MaxAge
}

// read reads a value, from where its key has it now if that has changed.
func (t *KV) read(v *value) (store.Value, error) {
	found := store.Value{Key: v.key, Revision: v.revision, Time: time.Unix(0, v.time)}
	for {
		data, err := v.load()
		if err == nil {
			found.Data = data
			return found, nil
		}
		if now := t.current(v.key); errors.Is(err, fs.ErrNotExist) && now != nil && now != v && now.revision == v.revision {
			v = now
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = store.ErrCorrupt
		}
		return found, fmt.Errorf("value of %s: %w", v.key, err)
	}
}

// load reads a value from its segment.
func (v *value) load() ([]byte, error) {
	if v.kind == kindCorrupt {
		return nil, store.ErrCorrupt
	}
	f, err := os.Open(v.segment.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := head{key: []byte(v.key), payload: v.payload}
	b := make([]byte, h.bytes())
	n, err := f.ReadAt(b, v.offset)
	if b = b[:n]; n < int(h.bodyBytes()) {
		return nil, errors.Join(store.ErrCorrupt, err)
	}
	first, ok := parseHead(b, v.segment.Salt)
	if !ok {
		first, ok = parseHead(b[h.bodyBytes():], ^v.segment.Salt)
	}
	from := headBytes + len(v.key)
	payload := b[from:][:v.payload:v.payload]
	if !ok || first.revision != v.revision || !bytes.Equal(first.key, h.key) || first.payload != v.payload ||
		crc32.Update(v.segment.Salt, castagnoli, payload) != first.checksum {
		return nil, store.ErrCorrupt
	}
	return payload, nil
}

// List implements [store.KV].
func (t *KV) List(ctx context.Context, prefix, after string, keysOnly bool) iter.Seq2[store.Value, error] {
	const page = 256
	return func(yield func(store.Value, error) bool) {
		for from := max(prefix, after); ; {
			if err := errors.Join(ctx.Err(), t.checkOpen()); err != nil {
				yield(store.Value{}, err)
				return
			}
			values := t.page(prefix, from, after, page)
			for _, v := range values {
				found, err := store.Value{Key: v.key, Revision: v.revision, Time: time.Unix(0, v.time)}, error(nil)
				if !keysOnly {
					found, err = t.read(v)
				}
				if !yield(found, err) {
					return
				}
			}
			if len(values) < page {
				return
			}
			after = values[page-1].key
			from = after
		}
	}
}

// page returns some values under a prefix, from a key on and after another.
func (t *KV) page(prefix, from, after string, most int) []*value {
	t.table.Lock()
	defer t.table.Unlock()
	var values []*value
	t.keys.Ascend(from, func(key string, v *value) bool {
		if !strings.HasPrefix(key, prefix) || len(values) == most {
			return false
		}
		if key != after && !t.expired(v) {
			values = append(values, v)
		}
		return true
	})
	return values
}

// Info implements [store.KV].
func (t *KV) Info(context.Context) (store.KVInfo, error) {
	if err := t.checkOpen(); err != nil {
		return store.KVInfo{}, err
	}
	t.mu.Lock()
	info := store.KVInfo{Corrupt: t.corrupt}
	for _, s := range t.segments {
		info.Disk += s.bytes
	}
	t.mu.Unlock()
	t.table.Lock()
	defer t.table.Unlock()
	info.Keys, info.Bytes, info.Removed = t.keys.Len(), t.bytes, t.removed
	if _, v, ok := t.ages.Min(); ok {
		info.Oldest = time.Unix(0, v.time)
	}
	return info, nil
}

// SetOptions implements [store.KV].
func (t *KV) SetOptions(options store.KVOptions) error {
	t.table.Lock()
	t.options = options
	t.table.Unlock()
	t.mu.Lock()
	t.max = segmentSize(options.MaxBytes)
	t.mu.Unlock()
	t.tick(time.Now())
	return nil
}

var goodKey = regexp.MustCompile(`^[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*$`)

func checkKey(key string) error {
	switch {
	case len(key) > store.MaxKey:
		return fmt.Errorf("%w: a key of %d bytes", store.ErrTooLarge, len(key))
	case !goodKey.MatchString(key):
		return fmt.Errorf("key %q: it may have letters, digits and -/_=, with single periods between them", key)
	}
	return nil
}
