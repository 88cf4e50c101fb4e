package disk

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// openJournal opens the segments in a directory. Its cost does not depend on how many there are, as long as the manifest holds.
func openJournal(e *Engine, name, dir string, maxBytes int64) (*journal, error) {
	j := newJournal(e, name, dir, maxBytes)
	if err := j.load(); err != nil {
		return nil, err
	}
	return j, nil
}

func newJournal(e *Engine, name, dir string, maxBytes int64) *journal {
	return &journal{
		engine: e, name: name, dir: dir, epoch: rand.Uint32(), max: segmentSize(maxBytes), grown: make(chan struct{}),
	}
}

// segmentSize is how large segments become for a bound on all of them.
func segmentSize(maxBytes int64) int64 {
	const least, most, share = 1 << 20, 64 << 20, 16
	if maxBytes <= 0 {
		return 16 << 20
	}
	return min(max(maxBytes/share, least), most)
}

// load reads what the directory has, and seals what was not.
func (j *journal) load() error {
	segments, m, err := readDirectory(j.dir)
	if err != nil {
		return err
	}
	j.segments, j.retained = segments, max(m.Retained, 1)
	if decoded, err := hex.DecodeString(m.ID); err == nil && len(decoded) == len(j.id) {
		j.id = id(decoded)
	} else if _, err := cryptorand.Read(j.id[:]); err != nil {
		return err
	}
	if err := j.clean(); err != nil {
		return err
	}
	for _, s := range j.segments {
		if s.sealed || s.missing {
			continue
		}
		if err := j.sealFound(s); err != nil {
			return fmt.Errorf("segment %s: %w", s.path, err)
		}
	}
	j.next = j.retained
	for _, s := range j.segments {
		j.next = max(j.next, s.First, s.Last+1)
		j.lastTime = max(j.lastTime, s.LastTime)
	}
	if err := j.writeManifest(); err != nil {
		return err
	}
	j.spare = newSpare(j)
	return nil
}

// clean removes what a crash left: files that were being made, and segments that were to be removed.
func (j *journal) clean() error {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		first, ok := segmentFirst(entry.Name())
		old := ok && !slices.ContainsFunc(j.segments, func(s *segment) bool { return s.First == first })
		if old || strings.HasSuffix(entry.Name(), ".new") || entry.Name() == beginName {
			if err := os.Remove(filepath.Join(j.dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// readDirectory returns the segments of a directory, oldest first, and its manifest; without one, what the segments say.
func readDirectory(dir string) ([]*segment, manifest, error) {
	m, found, err := readManifest(dir)
	if err != nil {
		return nil, m, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, m, err
	}
	known := make(map[uint64]*segment)
	for _, r := range m.Segments {
		known[r.First] = &segment{
			origin: r.origin, content: r.content, sealed: r.Sealed, path: segmentPath(dir, r.First), missing: true,
		}
	}
	for _, entry := range entries {
		first, ok := segmentFirst(entry.Name())
		if !ok || found && first < m.Retained && known[first] == nil {
			continue // it was removed, but for its file
		}
		if known[first] == nil {
			known[first] = &segment{origin: origin{First: first}, path: segmentPath(dir, first)}
		}
		if err := known[first].examine(&m); err != nil {
			return nil, m, fmt.Errorf("segment %s: %w", known[first].path, err)
		}
	}
	segments := make([]*segment, 0, len(known))
	for _, s := range known {
		if s.missing && !s.sealed {
			s.Last = max(s.Last, s.First) // there was at least one entry: a segment is created for one
		}
		segments = append(segments, s)
	}
	slices.SortFunc(segments, func(a, b *segment) int { return cmp.Compare(a.First, b.First) })
	if !found && len(segments) > 0 {
		m.Retained = segments[0].First
	}
	return segments, m, nil
}

// examine looks at the file of a segment: all of its header and summary if the manifest does not know it, else as little as is needed.
func (s *segment) examine(m *manifest) error {
	s.missing = false
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s.bytes = info.Size()
	if s.sealed {
		return nil
	}
	if s.Size == 0 { // not in the manifest
		o, err := readOrigin(f)
		switch {
		case errors.Is(err, errNoHeader):
			s.missing, s.Last = true, s.First
			return nil
		case err != nil:
			return err
		case o.First != s.First:
			return fmt.Errorf("its name says that it begins at %d, its header at %d", s.First, o.First)
		case m.ID != "" && hex.EncodeToString(o.ID[:]) != m.ID:
			return errors.New("it belongs to another log than the manifest")
		}
		s.origin, m.ID = o, hex.EncodeToString(o.ID[:])
	}
	if c, ok := readContent(f); ok {
		s.content, s.sealed = c, true
	}
	return nil
}

// sealFound seals a segment that was found unsealed: what does not hold at its end is told apart, and stays.
func (j *journal) sealFound(s *segment) error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := recoverSegment(f, s.bytes, s.origin, func(e found) {
		if j.visit != nil {
			j.visit(s, e)
		}
	})
	if err != nil {
		return err
	}
	if r.corrupt > 0 {
		j.corrupt += uint64(r.corrupt)
		j.engine.options.Logger.Error("entries corrupt", "store", j.name, "segment", filepath.Base(s.path), "count", r.corrupt)
	}
	s.content, s.marks = r.content, r.marks
	if err := writeAgain(f, r.lastWrite, r.End); err != nil {
		return err
	}
	return j.sealFile(s, f)
}

// writeAgain writes the headers and the last write of a segment once more. After a sync that failed they may be in the page cache only,
// where they can be read and will never be written by themselves.
func writeAgain(f *os.File, lastWrite, end int64) error {
	for _, part := range [][2]int64{{0, entriesBegin}, {lastWrite, end}} {
		b := make([]byte, max(part[1]-part[0], 0))
		n, err := f.ReadAt(b, part[0])
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := f.WriteAt(b[:n], part[0]); err != nil {
			return err
		}
	}
	return nil
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
	j.mu.Unlock()
	s.content = content{Last: s.First - 1, End: entriesBegin}
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

// scrub reads everything that is sealed, and counts and logs what does not hold.
func (j *journal) scrub(ctx context.Context, pace func(context.Context, int) error) error {
	j.mu.Lock()
	segments := slices.Clone(j.segments)
	j.mu.Unlock()
	for _, s := range segments {
		j.mu.Lock()
		end, sealed := s.End, s.sealed
		j.mu.Unlock()
		if !sealed || s.missing {
			continue
		}
		f, err := os.Open(s.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return err
		}
		err = j.scrubSegment(ctx, s, &walker{file: f, salt: s.Salt, at: entriesBegin, end: end}, pace)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) scrubSegment(ctx context.Context, s *segment, w *walker, pace func(context.Context, int) error) error {
	const pacedBytes = 1 << 20
	for paced := w.at; ; {
		before := w.at
		e, err := w.next()
		if err != nil {
			return nil //nolint:nilerr // the end, or a device that cannot read it, which readers tell
		}
		if e.corrupt || e.offset > before {
			j.engine.options.Logger.Error("entry corrupt", "store", j.name, "segment", filepath.Base(s.path), "before", e.sequence+1)
		}
		if w.at-paced >= pacedBytes {
			if err := pace(ctx, int(w.at-paced)); err != nil {
				return err
			}
			paced = w.at
		}
	}
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
