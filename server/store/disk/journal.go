package disk

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/linksgate/linksgate/server/store"
)

// firstSegment is how large the first segment of a log is; each one after it is twice as large, up to the log's bound.
const firstSegment = 256 << 10

// journal is the segments of one log or table: what appends to them, and what is known about each. Log and KV add what entries mean.
type journal struct {
	engine *Engine
	name   string
	dir    string
	id     id
	epoch  uint32 // of this opening
	// visit, if set, is called with each entry of a segment that was not sealed, when the journal is opened.
	visit func(*segment, found)
	// seal, if set, returns what is to be found in the index of a segment that is sealed.
	seal func(*segment) []byte

	// appending is held while entries are appended and segments come and go. The fields up to mu belong to its holder.
	appending sync.Mutex
	file      *os.File // of the active segment; nil: there is none, the next append begins one
	buffer    []byte

	mu       sync.Mutex
	segments []*segment    // mu; oldest first, the active one last
	max      int64         // mu; bytes of the largest segment
	retained uint64        // mu; the first sequence that may be read
	next     uint64        // mu; sequence of the next entry
	lastTime int64         // mu; of the last entry
	grown    chan struct{} // mu; closed when next grows, and by close
	closed   bool          // mu
	corrupt  uint64        // mu; entries found corrupt

	spare *spare
}

// segment is what is known about one segment file.
type segment struct {
	origin
	path    string
	missing bool // there is no such file any more, or no header of it holds

	// The rest belongs to the journal's mu. Of the active segment, content is as far as it is durable.
	content
	sealed bool
	bytes  int64  // that it occupies
	marks  []mark // nil: not read yet
}

// pending is an entry that is to be appended.
type pending struct {
	head // without sequence; a time of 0 is now, a revision of 0 the sequence if there is a key
	data []byte
}

// segmentSize is how large segments become for a bound on all of them.
func segmentSize(maxBytes int64) int64 {
	const least, most, share = 1 << 20, 64 << 20, 16
	if maxBytes <= 0 {
		return 16 << 20
	}
	return min(max(maxBytes/share, least), most)
}

// sealFile writes what a sealed segment has behind its entries.
func (j *journal) sealFile(s *segment, f *os.File) error {
	c := s.content
	var extra []byte
	if j.seal != nil {
		extra = j.seal(s)
	}
	b := appendSeal(nil, &c, c.End, s.marks, extra)
	_, err := f.WriteAt(b, c.End)
	if err == nil {
		err = j.engine.sync(f) // before it is cut: a file that is shorter than it was and has no summary has lost its end
	}
	if err == nil {
		err = f.Truncate(c.End + int64(len(b)))
	}
	if err == nil {
		err = j.engine.sync(f)
	}
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s.content, s.sealed, s.bytes = c, true, c.End+int64(len(b))
	return nil
}

// writeManifest writes what is known now. The caller holds appending, or is the only one.
func (j *journal) writeManifest() error {
	j.mu.Lock()
	m := manifest{ID: hex.EncodeToString(j.id[:]), Retained: j.retained}
	for _, s := range j.segments {
		r := manifestRecord{origin: s.origin, Sealed: s.sealed}
		if s.sealed || s.missing {
			r.content = s.content
		}
		m.Segments = append(m.Segments, r)
	}
	j.mu.Unlock()
	return m.write(j.dir, j.engine.sync)
}

// append stores entries with one write and one sync, and sets their sequences, times and revisions, and where they are. The caller holds
// appending.
func (j *journal) append(entries []pending) (*segment, []int64, error) {
	if err := j.engine.Writable(); err != nil {
		return nil, nil, err
	}
	j.mu.Lock()
	next, now := j.next, max(time.Now().UnixNano(), j.lastTime)
	j.mu.Unlock()
	j.buffer = j.buffer[:0]
	var need int64
	for i := range entries {
		e := &entries[i]
		e.payload = len(e.data)
		need += e.bytes()
	}
	s, err := j.room(need)
	if err != nil {
		return nil, nil, err
	}
	offsets := make([]int64, len(entries))
	for i := range entries {
		e := &entries[i]
		e.sequence = next + uint64(i)
		if e.time == 0 {
			e.time = now
		}
		if e.revision == 0 && len(e.key) > 0 {
			e.revision = e.sequence
		}
		e.back = uint32(len(j.buffer))
		offsets[i] = s.End + int64(len(j.buffer))
		j.buffer = appendEntry(j.buffer, &e.head, e.data, s.Salt)
	}
	if _, err := j.file.WriteAt(j.buffer, s.End); err != nil {
		return nil, nil, j.engine.fail(err)
	}
	if err := j.engine.sync(j.file); err != nil {
		return nil, nil, j.engine.fail(err)
	}
	j.publish(s, entries, offsets, now)
	return s, offsets, nil
}

// publish makes durable entries known to readers.
func (j *journal) publish(s *segment, entries []pending, offsets []int64, now int64) {
	j.mu.Lock()
	for i := range entries {
		s.marks = addMark(s.marks, mark{entries[i].sequence, now, offsets[i]})
	}
	s.End += int64(len(j.buffer))
	s.Last, s.LastTime, j.lastTime = entries[len(entries)-1].sequence, now, now
	j.next = s.Last + 1
	grown := j.grown
	j.grown = make(chan struct{})
	halfFull := s.End > s.Size/2
	j.mu.Unlock()
	close(grown)
	if halfFull {
		j.spare.want()
	}
}

// room returns the active segment, a new one if there is none with so much room.
func (j *journal) room(need int64) (*segment, error) {
	if j.file != nil {
		j.mu.Lock()
		s := j.segments[len(j.segments)-1]
		j.mu.Unlock()
		if s.End+need <= s.Size { // its content is ours to write
			return s, nil
		}
		if err := j.roll(); err != nil {
			return nil, err
		}
	}
	return j.begin(need)
}

// roll seals the active segment, if there is one. The caller holds appending.
func (j *journal) roll() error {
	if j.file == nil {
		return nil
	}
	j.mu.Lock()
	s := j.segments[len(j.segments)-1]
	j.mu.Unlock()
	err := j.sealFile(s, j.file)
	if err := errors.Join(err, j.file.Close()); err != nil {
		return j.engine.fail(fmt.Errorf("seal segment: %w", err))
	}
	j.file = nil
	if err := j.writeManifest(); err != nil {
		return j.engine.fail(fmt.Errorf("write manifest: %w", err))
	}
	return nil
}

// begin makes a new segment the active one. Nothing is broken when there is no space for it.
func (j *journal) begin(need int64) (*segment, error) {
	need = align(entriesBegin + need)
	path, size, err := j.spare.take(need)
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	s := &segment{origin: newOrigin(j.id, j.epoch, j.next, size), path: segmentPath(j.dir, j.next), bytes: size, marks: []mark{}}
	s.content = content{Last: s.First - 1, LastTime: j.lastTime, End: entriesBegin}
	j.mu.Unlock()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, j.engine.fail(fmt.Errorf("begin segment: %w", err))
	}
	_, err = f.WriteAt(s.header(), 0)
	if err == nil {
		err = j.engine.sync(f)
	}
	if err == nil {
		err = os.Rename(path, s.path)
	}
	if err != nil {
		return nil, j.engine.fail(fmt.Errorf("begin segment: %w", errors.Join(err, f.Close())))
	}
	j.mu.Lock()
	if n := len(j.segments); n > 0 && j.segments[n-1].First == s.First {
		j.segments = slices.Clone(j.segments[:n-1]) // it has no entry, and its file was replaced just now
	}
	j.segments = append(j.segments, s)
	j.mu.Unlock()
	j.file = f
	if err := j.writeManifest(); err != nil { // makes the new name durable too
		return nil, j.engine.fail(fmt.Errorf("write manifest: %w", err))
	}
	return s, nil
}

// remove removes the oldest segments, so many, and everything before a sequence. The caller holds appending.
func (j *journal) remove(count int, retained uint64) error {
	j.mu.Lock()
	gone := slices.Clone(j.segments[:count])
	j.segments = slices.Clone(j.segments[count:])
	j.retained = max(j.retained, retained)
	j.mu.Unlock()
	if err := j.writeManifest(); err != nil {
		return j.engine.fail(fmt.Errorf("write manifest: %w", err))
	}
	for _, s := range gone {
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// indexOf returns the marks of a segment, which are read if they are not known.
func (j *journal) indexOf(s *segment) ([]mark, error) {
	j.mu.Lock()
	marks, c, sealed := s.marks, s.content, s.sealed
	j.mu.Unlock()
	if marks != nil || s.missing {
		return marks, nil
	}
	f, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	marks, ok := []mark(nil), false
	if sealed {
		marks, _, ok = readIndex(f, c)
	}
	if !ok {
		marks = []mark{}
		w := &walker{file: f, salt: s.Salt, at: entriesBegin, end: c.End}
		for e, err := w.next(); err == nil; e, err = w.next() {
			marks = addMark(marks, mark{e.sequence, e.time, e.offset})
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if s.marks == nil {
		s.marks = marks
	}
	return s.marks, nil
}

// close seals the active segment and ends those who wait.
func (j *journal) close() error {
	j.appending.Lock()
	defer j.appending.Unlock()
	j.mu.Lock()
	closed := j.closed
	j.closed = true
	if !closed {
		close(j.grown)
	}
	j.mu.Unlock()
	if closed {
		return nil
	}
	j.spare.close()
	if err := j.engine.Err(); err != nil {
		if j.file != nil {
			return j.file.Close() // what is on the device is unknown: the next opening looks
		}
		return nil
	}
	return j.roll()
}

// checkOpen returns ErrClosed after close.
func (j *journal) checkOpen() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return store.ErrClosed
	}
	return nil
}
