package disk

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"sort"

	"github.com/linksgate/linksgate/server/store"
)

var errEnd = io.EOF

// Read implements [store.Log].
func (l *Log) Read(ctx context.Context, from uint64) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		l.mu.Lock()
		r := &reader{log: l, next: max(from, 1), end: l.next, yield: yield}
		if from == 0 {
			r.next = l.retained
		}
		l.mu.Unlock()
		defer r.close()
		err := r.run(ctx)
		if err == nil {
			r.flush()
		} else if !errors.Is(err, errStopped) && r.flush() {
			yield(store.Item{}, err)
		}
	}
}

// errStopped says that the reader's caller wants no more.
var errStopped = errors.New("stopped")

// reader is one pass over a log. Each sequence from next to end goes into one item.
type reader struct {
	log       *Log
	next, end uint64
	yield     func(store.Item, error) bool
	gap       store.Gap // that is not yielded yet: neighbours become one

	walker *walker // nil between segments
	file   *os.File
}

func (r *reader) run(ctx context.Context) error {
	for r.next < r.end {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.log.checkOpen(); err != nil {
			return err
		}
		s, retained := r.segment()
		if r.next < retained {
			if err := r.skip(min(retained, r.end), store.Expired); err != nil {
				return err
			}
			continue
		}
		if s == nil { // behind all segments, and not behind the end
			return r.skip(r.end, store.Corrupt)
		}
		if err := r.skip(min(s.First, r.end), store.Corrupt); err != nil {
			return err
		}
		if err := r.read(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// segment returns the segment that has what comes next or later, and what is retained.
func (r *reader) segment() (*segment, uint64) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if i := r.log.position(r.next); i < len(r.log.segments) {
		return r.log.segments[i], r.log.retained
	}
	return nil, r.log.retained
}

// read yields what a segment has.
func (r *reader) read(ctx context.Context, s *segment) error {
	err := r.open(s)
	defer r.close()
	if errors.Is(err, fs.ErrNotExist) {
		if _, retained := r.segment(); r.next < retained {
			return nil // it was removed just now, which run finds
		}
	} else if err != nil {
		return err
	}
	l := r.log
	l.mu.Lock()
	behind := min(s.Last+1, r.end)
	l.mu.Unlock()
	for count := 1; r.walker != nil && r.next < behind; count++ {
		if count%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		e, err := r.walker.next()
		if isEnd(err) {
			break
		}
		if err != nil {
			return err
		}
		if e.sequence < r.next || e.sequence >= behind {
			continue
		}
		if err := r.entry(e, s.Epoch); err != nil {
			return err
		}
	}
	return r.skip(behind, store.Corrupt)
}

// open opens a segment at the last mark before what comes next.
func (r *reader) open(s *segment) error {
	if s.missing {
		return nil
	}
	marks, err := r.log.indexOf(s)
	if err != nil {
		return err
	}
	if r.file, err = os.Open(s.path); err != nil {
		return err
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.walker = &walker{file: r.file, salt: s.Salt, at: entriesBegin, end: s.End}
	if i := sort.Search(len(marks), func(i int) bool { return marks[i].sequence > r.next }); i > 0 {
		r.walker.at = marks[i-1].offset
	}
	return nil
}

func (r *reader) close() {
	if r.file != nil {
		_ = r.file.Close() // it was only read
	}
	r.file, r.walker = nil, nil
}

// entry yields one entry, and what is missing before it.
func (r *reader) entry(e found, epoch uint32) error {
	if err := r.skip(e.sequence, store.Corrupt); err != nil {
		return err
	}
	switch {
	case e.corrupt:
		return r.skip(e.sequence+1, store.Corrupt)
	case e.kind == kindErased:
		return r.skip(e.sequence+1, store.Erased)
	}
	if !r.flush() {
		return errStopped
	}
	if _, retained := r.segment(); e.sequence < retained {
		return r.skip(min(retained, r.end), store.Expired) // just now
	}
	r.next = e.sequence + 1
	if !r.yield(store.Item{Entry: store.Entry{Sequence: e.sequence, Time: e.when(), Epoch: epoch, Data: e.payload}}, nil) {
		return errStopped
	}
	return nil
}

// skip makes what comes before a sequence a gap.
func (r *reader) skip(to uint64, reason store.Reason) error {
	if to <= r.next {
		return nil
	}
	if r.gap.Count > 0 && r.gap.Reason != reason && !r.flush() {
		return errStopped
	}
	if r.gap.Count == 0 {
		r.gap = store.Gap{From: r.next, Reason: reason}
	}
	r.gap.Count += to - r.next
	r.next = to
	return nil
}

// flush yields the gap, if there is one; false if the caller wants no more.
func (r *reader) flush() bool {
	if r.gap.Count == 0 {
		return true
	}
	gap := r.gap
	r.gap = store.Gap{}
	return r.yield(store.Item{Gap: gap}, nil)
}
