package disk

import (
	"cmp"
	cryptorand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

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
		// One without an entry has no time of its own, and times are searched: they must not decrease.
		j.lastTime = max(j.lastTime, s.LastTime)
		s.LastTime = j.lastTime
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
