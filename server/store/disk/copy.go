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
)

// CopyOptions configure [Copy].
type CopyOptions struct {
	// Link lets sealed segments be hard links to those of the source, where the file system can: they never change.
	Link bool
	// Progress is called now and then with how many bytes are dealt with.
	Progress func(done, total int64)
}

// Copied counts what a copy did.
type Copied struct {
	// Segments that were copied, linked, found to be there already, and removed because the source does not have them any more.
	Copied, Linked, Present, Removed int
	// Bytes that were written.
	Bytes int64
}

// Copy makes a directory a copy of another one, which may be in use. Sealed segments that it has already are left alone, so that a copy
// over an older copy costs what is new. The active segment of each log and table is copied as far as it is durable. Tables come first and the
// log last, so that no table knows of anything that the log does not have. The copy is complete and durable when Copy returns nil; a copy
// that was interrupted is completed by the next one.
func Copy(ctx context.Context, from, to string, options CopyOptions) (Copied, error) {
	c := &copier{options: options}
	if err := refuseOld(from); err != nil {
		return c.done, err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return c.done, err
	}
	var names []string
	for _, entry := range entries {
		if !entry.IsDir() || !goodName.MatchString(entry.Name()) {
			continue
		}
		if segments, _, err := readDirectory(filepath.Join(from, entry.Name())); err != nil {
			return c.done, err
		} else if len(segments) > 0 || hasManifest(filepath.Join(from, entry.Name())) {
			for _, s := range segments {
				c.total += s.bytes
			}
			if entry.Name() != logName {
				names = append(names, entry.Name())
			}
		}
	}
	if !hasManifest(filepath.Join(from, logName)) {
		return c.done, fmt.Errorf("%s is not the data directory of a gateway: there is no log in it", from)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return c.done, err
	}
	lock, err := lockDir(to)
	if err != nil {
		return c.done, err
	}
	defer func() { _ = lock.Close() }() // it was only locked
	for _, name := range append(names, logName) {
		if err := c.store(ctx, filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return c.done, fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return c.done, errors.Join(syncDir(to, datasync), syncDir(filepath.Dir(filepath.Clean(to)), datasync))
}

// logName is the name that a gateway gives its log.
const logName = "log"

func hasManifest(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, manifestName))
	return err == nil
}

type copier struct {
	options     CopyOptions
	done        Copied
	seen, total int64
}

// store copies one log or table.
func (c *copier) store(ctx context.Context, from, to string) error {
	segments, m, err := readDirectory(from)
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	copied := manifest{ID: m.ID, Retained: m.Retained}
	wanted := make(map[string]bool)
	for _, s := range segments {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := filepath.Base(s.path)
		r := manifestRecord{origin: s.origin, Sealed: s.sealed}
		if s.sealed || s.missing {
			r.content = s.content
		}
		if !s.missing {
			err := c.segment(s, filepath.Join(to, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue // it was removed meanwhile
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			wanted[name] = true
		}
		copied.Segments = append(copied.Segments, r)
		if c.seen += s.bytes; c.options.Progress != nil {
			c.options.Progress(c.seen, c.total)
		}
	}
	if len(copied.Segments) > 0 {
		copied.Retained = max(copied.Retained, copied.Segments[0].First)
	}
	if copied.ID == "" {
		copied.ID = hex.EncodeToString(make([]byte, len(id{})))
	}
	if err := copied.write(to, datasync); err != nil {
		return err
	}
	return c.tidy(to, wanted)
}

// tidy removes the segments of a copy that its source does not have.
func (c *copier) tidy(to string, wanted map[string]bool) error {
	entries, err := os.ReadDir(to)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if _, ok := segmentFirst(entry.Name()); ok && !wanted[entry.Name()] {
			if err := os.Remove(filepath.Join(to, entry.Name())); err != nil {
				return err
			}
			c.done.Removed++
		}
	}
	return syncDir(to, datasync)
}

// segment copies a segment.
func (c *copier) segment(s *segment, to string) error {
	source, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer source.Close()
	if !s.sealed {
		return c.active(s, source, to)
	}
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(to); err == nil && (os.SameFile(info, there) || info.Size() == there.Size() && info.ModTime().Equal(there.ModTime())) {
		c.done.Present++
		return nil
	}
	temporary := to + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.options.Link && os.Link(s.path, temporary) == nil {
		c.done.Linked++
		return os.Rename(temporary, to)
	}
	if err := c.copy(source, info.Size(), info.Size(), temporary); err != nil {
		return err
	}
	if err := os.Chtimes(temporary, info.ModTime(), info.ModTime()); err != nil {
		return err
	}
	return os.Rename(temporary, to)
}

// active copies the segment that is being written, as far as entries hold, with zeros behind them as an unsealed one has.
func (c *copier) active(s *segment, source *os.File, to string) error {
	r, err := recoverSegment(source, s.bytes, s.origin, func(found) {})
	if err != nil {
		return err
	}
	if err := c.copy(source, r.End, s.Size, to+".new"); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

// copy copies the beginning of a file into a new one of a size, durably.
func (c *copier) copy(source io.ReaderAt, bytes, size int64, to string) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	written, err := io.Copy(f, io.NewSectionReader(source, 0, bytes))
	c.done.Bytes += written
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = datasync(f)
	}
	c.done.Copied++
	return errors.Join(err, f.Close())
}
