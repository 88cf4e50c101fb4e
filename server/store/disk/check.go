package disk

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// CheckOptions configure [Check]. All fields are optional.
type CheckOptions struct {
	// Entry is called with each entry that holds. Key and Data are valid until it returns.
	Entry func(CheckedEntry)
	// Problem is called with what does not hold, or is missing, in the order of the files.
	Problem func(Problem)
	// Progress is called now and then with how many bytes were read.
	Progress func(done, total int64)
}

// CheckedEntry is an entry of a log, or a change of a table's key.
type CheckedEntry struct {
	Store    string // name of the log or table
	Sequence uint64
	Time     time.Time
	Key      string // of a table
	Revision uint64 // of a table
	Deleted  bool   // the key has no value any more
	Erased   bool   // the entry of a log was removed on purpose
	Data     []byte
}

// Problem is a run of entries that do not hold, or are missing.
type Problem struct {
	Store string
	File  string // in the directory of the store
	// First and Last are the sequences.
	First, Last uint64
	// Key is the table's key whose value does not hold, if it is known.
	Key string
	// After and Before are when the neighbours were written; zero where there is none.
	After, Before time.Time
	What          string
}

// CheckedStore is what a check found of one log or table.
type CheckedStore struct {
	Name string
	ID   string
	// Retained is the first sequence that may be read, Next the one behind the last that is known.
	Retained, Next uint64
}

// Check reads everything in a directory and tells what does not hold. It changes nothing, needs no lock, and may run while the directory
// is in use: then the end of each log and table is as it was when its turn came. An error says that the directory could not be read.
func Check(ctx context.Context, dir string, options CheckOptions) (stores []CheckedStore, err error) {
	if err := refuseOld(dir); err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	c := &checker{options: options, used: inUse(dir)}
	var opened []*journal
	for _, entry := range entries {
		if !entry.IsDir() || !goodName.MatchString(entry.Name()) {
			continue
		}
		j := &journal{name: entry.Name(), dir: filepath.Join(dir, entry.Name())}
		segments, m, err := readDirectory(j.dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entry.Name(), err)
		}
		if len(segments) == 0 && m.ID == "" {
			continue // something else's
		}
		j.segments, j.retained = segments, max(m.Retained, 1)
		if raw, err := hex.DecodeString(m.ID); err == nil && len(raw) == len(j.id) {
			j.id = id(raw)
		}
		for _, s := range segments {
			c.total += s.bytes
		}
		opened = append(opened, j)
	}
	if len(opened) == 0 {
		return nil, fmt.Errorf("%s is not the data directory of a gateway: there is neither a log nor a table in it", dir)
	}
	for _, j := range opened {
		found, err := c.journal(ctx, j)
		if err != nil {
			return stores, fmt.Errorf("%s: %w", j.name, err)
		}
		stores = append(stores, found)
	}
	return stores, nil
}

// inUse reports whether a process has a directory open.
func inUse(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

type checker struct {
	options     CheckOptions
	used        bool
	done, total int64

	store string
	next  uint64    // sequence that is expected
	last  time.Time // of the last entry that held
	open  []Problem // that wait for the next entry that holds, to say when it was written
}

func (c *checker) journal(ctx context.Context, j *journal) (CheckedStore, error) {
	c.store, c.next, c.last = j.name, j.retained, time.Time{}
	for _, s := range j.segments {
		if err := c.segment(ctx, s); err != nil {
			return CheckedStore{}, err
		}
	}
	c.close(time.Time{})
	return CheckedStore{Name: j.name, ID: (&Log{journal: j}).ID(), Retained: j.retained, Next: c.next}, nil
}

func (c *checker) segment(ctx context.Context, s *segment) error {
	name := filepath.Base(s.path)
	c.missing(name, s.First, "a segment is missing")
	if s.missing {
		c.missing(name, s.Last+1, "the segment is missing, or its header does not hold")
		return nil
	}
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		c.next = max(c.next, s.Last+1) // it was removed meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	last, end := s.Last, s.End
	if !s.sealed {
		r, err := recoverSegment(f, s.bytes, s.origin, func(found) {})
		if err != nil {
			return err
		}
		if last, end = r.Last, r.End; c.used { // what does not hold at the end is being written
			last = 0
		}
	}
	w := &walker{file: f, salt: s.Salt, at: entriesBegin, end: end}
	for told := w.at; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := w.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if e.corrupt && !s.sealed && c.used && w.at >= end {
			break
		}
		c.entry(name, e)
		if c.options.Progress != nil && w.at-told > 16<<20 {
			told = w.at
			c.options.Progress(c.done+w.at, c.total)
		}
	}
	c.missing(name, last+1, "entries are missing at the end of the segment")
	c.done += s.bytes
	return nil
}

// entry takes in what was found.
func (c *checker) entry(file string, e found) {
	if e.sequence < c.next {
		return // it is not retained any more
	}
	c.missing(file, e.sequence, "neither head of an entry holds")
	c.next = e.sequence + 1
	if e.corrupt {
		c.open = append(c.open, Problem{
			Store: c.store, File: file, First: e.sequence, Last: e.sequence, Key: string(e.key), After: c.last,
			What: "an entry does not match its checksum",
		})
		return
	}
	c.close(e.when())
	if c.last = e.when(); c.options.Entry != nil {
		c.options.Entry(CheckedEntry{
			Store: c.store, Sequence: e.sequence, Time: e.when(), Key: string(e.key), Revision: e.revision,
			Deleted: e.kind == kindDeleted, Erased: e.kind == kindErased, Data: e.payload,
		})
	}
}

// missing takes note that everything from what is expected up to a sequence is not there.
func (c *checker) missing(file string, to uint64, what string) {
	if to <= c.next {
		return
	}
	c.open = append(c.open, Problem{Store: c.store, File: file, First: c.next, Last: to - 1, After: c.last, What: what})
	c.next = to
}

// close tells the problems that wait, of which all were written before a time.
func (c *checker) close(before time.Time) {
	for _, p := range c.open {
		if p.Before = before; c.options.Problem != nil {
			c.options.Problem(p)
		}
	}
	c.open = nil
}
