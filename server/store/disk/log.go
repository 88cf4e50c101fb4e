package disk

import (
	"cmp"
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/linksgate/linksgate/server/store"
)

// Log is a [store.Log] of segment files.
type Log struct {
	*journal

	bounds  sync.Mutex
	options store.LogOptions // bounds
}

var (
	_ store.Log      = (*Log)(nil)
	_ store.Rewriter = (*Log)(nil)
)

// OpenLog implements [store.Engine].
func (e *Engine) OpenLog(_ context.Context, name string, options store.LogOptions) (store.Log, error) {
	l, err := create(e, name, func(dir string) (*Log, error) {
		j, err := openJournal(e, name, dir, options.MaxBytes)
		if err != nil {
			return nil, err
		}
		l := &Log{journal: j, options: options}
		l.tick(time.Now())
		return l, nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

var idEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// ID implements [store.Log].
func (l *Log) ID() string { return strings.ToLower(idEncoding.EncodeToString(l.id[:])) }

// Append implements [store.Log].
func (l *Log) Append(ctx context.Context, data []byte) (store.Entry, error) {
	if len(data) > store.MaxEntry {
		return store.Entry{}, fmt.Errorf("%w: an entry of %d bytes", store.ErrTooLarge, len(data))
	}
	if err := ctx.Err(); err != nil {
		return store.Entry{}, err
	}
	l.appending.Lock()
	defer l.appending.Unlock()
	if err := l.checkOpen(); err != nil {
		return store.Entry{}, err
	}
	entries := [1]pending{{head: head{kind: kindData}, data: data}}
	s, _, err := l.append(entries[:])
	if err != nil {
		return store.Entry{}, err
	}
	if s.First == entries[0].sequence { // a new segment was begun
		l.bounds.Lock()
		maxBytes := l.options.MaxBytes
		l.bounds.Unlock()
		if before := l.oversize(maxBytes); before > 0 {
			if err := l.retain(before); err != nil {
				l.engine.options.Logger.Error("retention not applied", "store", l.name, "error", err)
			}
		}
	}
	return store.Entry{Sequence: entries[0].sequence, Time: entries[0].when(), Epoch: s.Epoch}, nil
}

// Wait implements [store.Log].
func (l *Log) Wait(ctx context.Context, sequence uint64) error {
	for {
		l.mu.Lock()
		next, grown, closed := l.next, l.grown, l.closed
		l.mu.Unlock()
		switch {
		case sequence < next:
			return nil
		case closed:
			return store.ErrClosed
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Info implements [store.Log].
func (l *Log) Info(context.Context) (store.Info, error) {
	if err := l.checkOpen(); err != nil {
		return store.Info{}, err
	}
	l.mu.Lock()
	info := store.Info{First: min(l.retained, l.next), Next: l.next}
	for _, s := range l.segments {
		info.Bytes += s.bytes
		if n := len(info.Epochs); s.Last >= info.First && (n == 0 || info.Epochs[n-1].ID != s.Epoch) {
			info.Epochs = append(info.Epochs, store.Epoch{ID: s.Epoch, First: max(s.First, info.First)})
		}
	}
	if info.First < info.Next {
		info.LastTime = time.Unix(0, l.lastTime)
	}
	l.mu.Unlock()
	var err error
	if info.First < info.Next {
		info.FirstTime, err = l.timeAt(info.First)
	}
	return info, err
}

// timeAt returns the time of the first entry that can be read at a sequence or behind it.
func (l *Log) timeAt(sequence uint64) (time.Time, error) {
	for _, s := range l.from(sequence) {
		var at time.Time
		err := l.scan(s, func(marks []mark) int {
			return sort.Search(len(marks), func(i int) bool { return marks[i].sequence > sequence }) - 1
		}, func(e found) bool {
			at = e.when()
			return e.sequence < sequence
		})
		if err != nil || !at.IsZero() {
			return at, err
		}
	}
	return time.Time{}, nil
}

// from returns the segments that have a sequence or later ones, oldest first.
func (l *Log) from(sequence uint64) []*segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].Last >= sequence })
	return slices.Clone(l.segments[i:])
}

// scan calls visit with the entries of a segment from the mark that start chooses on, as long as it returns true.
func (l *Log) scan(s *segment, start func([]mark) int, visit func(found) bool) error {
	marks, err := l.indexOf(s)
	if err == nil && !s.missing {
		var f *os.File
		if f, err = os.Open(s.path); err == nil {
			defer f.Close()
			l.mu.Lock()
			w := &walker{file: f, salt: s.Salt, at: entriesBegin, end: s.End}
			if i := start(marks); i >= 0 && i < len(marks) {
				w.at = marks[i].offset
			}
			l.mu.Unlock()
			var e found
			for e, err = w.next(); err == nil && visit(e); e, err = w.next() {
			}
		}
	}
	if isEnd(err) {
		return nil
	}
	return err
}

// isEnd reports whether an error says that there is nothing more to read in a segment: its end, or its removal.
func isEnd(err error) bool { return errors.Is(err, errEnd) || errors.Is(err, fs.ErrNotExist) }

// Find implements [store.Log].
func (l *Log) Find(_ context.Context, at time.Time) (uint64, error) {
	if err := l.checkOpen(); err != nil {
		return 0, err
	}
	sequence, err := l.find(at)
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(max(sequence, l.retained), l.next), err
}

// find is Find, whatever is retained.
func (l *Log) find(at time.Time) (uint64, error) {
	nanos := at.UnixNano()
	l.mu.Lock()
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].LastTime >= nanos })
	candidates, next := slices.Clone(l.segments[i:]), l.next
	l.mu.Unlock()
	for _, s := range candidates {
		var sequence uint64
		err := l.scan(s, func(marks []mark) int {
			return sort.Search(len(marks), func(i int) bool { return marks[i].time >= nanos }) - 1
		}, func(e found) bool {
			if e.time >= nanos {
				sequence = e.sequence
			}
			return sequence == 0
		})
		if err != nil || sequence > 0 {
			return sequence, err
		}
	}
	return next, nil
}

// Trim implements [store.Log].
func (l *Log) Trim(_ context.Context, before uint64) error {
	if err := l.checkOpen(); err != nil {
		return err
	}
	l.appending.Lock()
	defer l.appending.Unlock()
	if err := l.retain(before); err != nil {
		return err
	}
	return l.writeManifest()
}

// retain makes entries before a sequence unreadable, and removes the segments that have no others. The caller holds appending.
func (l *Log) retain(before uint64) error {
	l.mu.Lock()
	before = min(before, l.next)
	moved := before > l.retained
	if moved {
		l.retained = before
	}
	count := 0
	for count < len(l.segments) && l.segments[count].Last < before && (l.segments[count].sealed || l.segments[count].missing) {
		count++
	}
	l.mu.Unlock()
	if count == 0 {
		return nil
	}
	return l.remove(count, before)
}

// SetOptions implements [store.Log].
func (l *Log) SetOptions(options store.LogOptions) error {
	l.bounds.Lock()
	l.options = options
	l.bounds.Unlock()
	l.mu.Lock()
	l.max = segmentSize(options.MaxBytes)
	l.mu.Unlock()
	l.tick(time.Now())
	return nil
}

// tick keeps to the bounds.
func (l *Log) tick(now time.Time) {
	l.bounds.Lock()
	options := l.options
	l.bounds.Unlock()
	before := l.oversize(options.MaxBytes)
	var err error
	if options.MaxAge > 0 {
		var old uint64
		old, err = l.find(now.Add(-options.MaxAge))
		before = max(before, old)
	}
	l.mu.Lock()
	due := err == nil && before > l.retained
	if due {
		l.retained = min(before, l.next)
	}
	l.mu.Unlock()
	if due {
		l.appending.Lock()
		err = l.retain(before)
		l.appending.Unlock()
	}
	if err != nil {
		l.engine.options.Logger.Error("retention not applied", "store", l.name, "error", err)
	}
}

// oversize returns the first sequence that may stay under a bound on bytes.
func (l *Log) oversize(maxBytes int64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := int64(0)
	for _, s := range l.segments {
		total += s.bytes
	}
	before := uint64(0)
	for _, s := range l.segments {
		if maxBytes <= 0 || total <= maxBytes || !s.sealed && !s.missing {
			break
		}
		total -= s.bytes
		before = s.Last + 1
	}
	return before
}

// Close implements [store.Log].
func (l *Log) Close() error { return l.close() }

// position returns the index of the segment that has a sequence, or of the first one behind it. The caller holds mu.
func (l *Log) position(sequence uint64) int {
	i, _ := slices.BinarySearchFunc(l.segments, sequence, func(s *segment, sequence uint64) int { return cmp.Compare(s.Last, sequence) })
	return i
}
