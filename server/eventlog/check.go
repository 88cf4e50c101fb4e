package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// CheckOptions configure [Check]. All fields have defaults.
type CheckOptions struct {
	// Scratch is the directory in which the copy is made that is checked, and deleted afterwards. It needs as much free space as
	// the log takes. Default: the system's directory for temporary files.
	Scratch string
	// Report is shown every problem when it is found. Default: nobody is.
	Report func(Problem)
	// Progress is called every now and then, from the goroutine that called Check. Default: nobody is.
	Progress func(CheckProgress)
	// Logger for what the engine has to say about the copy. Default: none.
	Logger *slog.Logger
}

// CheckProgress says how far a check is.
type CheckProgress struct {
	// Step is what is being done, in words.
	Step string
	// Done of Total, in bytes while copying and in stream sequences while reading.
	Done, Total uint64
}

// Problem is something that is not as it was written.
type Problem struct {
	// Stream that it is in: LogStream, QuarantineStream, GroupsStream or ParkedStream.
	Stream string
	// File that it was seen in, below the data directory; empty if it was seen in the stream.
	File string
	// First and Last are the stream sequences concerned; zero if that is not known.
	First, Last uint64
	// Index of the notification in its record batch; -1 if the problem is not about a single one.
	Index int
	// After and Before are when the neighbours that can be read were written, so what is concerned was written between them; zero
	// if there is none on that side.
	After, Before time.Time
	// What is wrong.
	What string
	// Meaning for readers.
	Meaning string
}

// The streams of a log, as the engine names them.
const (
	LogStream        = streamName
	QuarantineStream = quarantineStream
	GroupsStream     = groupsStream
	ParkedStream     = parkedStream
)

// Summary counts what a check has seen.
type Summary struct {
	// LogID names the log; empty if it cannot be found out.
	LogID string
	// Batches and Notifications that could be read, and when the first and the last batch were written.
	Batches, Notifications    uint64
	FirstWritten, LastWritten time.Time
	// FirstSequence and LastSequence are the stream sequences that the log says it has.
	FirstSequence, LastSequence uint64
	// QuarantineEntries that could be read.
	QuarantineEntries uint64
	// Groups, and what they have parked, that could be read. What groups were given again counts as parked.
	Groups, Parked uint64
	// Problems that were reported.
	Problems int
}

// Check reads everything in the directory of an embedded log and reports what is damaged, missing or inconsistent. It returns an
// error only if it could not check.
//
// It locks the directory, so no gateway has it open meanwhile, and changes nothing in it. The engine cannot promise that:
// opening a log applies its retention, and writes its index anew. So it is given a copy, whose retention is lifted before its records
// are put in. What is mended in the copy before the engine sees it is what a gateway would mend, and is reported.
func Check(ctx context.Context, dir string, options CheckOptions) (Summary, error) {
	if options.Report == nil {
		options.Report = func(Problem) {}
	}
	if options.Progress == nil {
		options.Progress = func(CheckProgress) {}
	}
	lock, err := lockForCheck(dir)
	if err != nil {
		return Summary{}, err
	}
	defer func() { _ = lock.Close() }() // nil if there was nothing to lock
	scratch, err := os.MkdirTemp(options.Scratch, "linksgate-check-")
	if err != nil {
		return Summary{}, fmt.Errorf("make a directory for the copy: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	c := &checker{options: options, dir: dir, copy: scratch}
	if err := c.run(ctx); err != nil {
		return c.summary, fmt.Errorf("check %s: %w", dir, err)
	}
	return c.summary, nil
}

// lockForCheck makes sure that a directory holds a log and that no gateway has it open. It creates nothing: a copy of a log that
// came without the lock file was never open.
func lockForCheck(dir string) (*os.File, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	_, err = os.Stat(filepath.Join(dir, streamsDir, streamName))
	if _, found, _ := readMark(dir); err != nil && !found { // with a mark, all of the log is gone
		return nil, fmt.Errorf("%s is not the data directory of a gateway: %w", dir, err)
	}
	lock, err := os.Open(filepath.Join(dir, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("a gateway has %s open: stop it first, or check a copy of the directory", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return lock, nil
}

// checker is one run of Check.
type checker struct {
	options   CheckOptions
	dir, copy string
	summary   Summary
	reported  time.Time // when progress was told last

	before  stopped
	places  []groupPlace // that are damaged, and known all the same
	mark    mark         // of the log, if marked
	marked  bool
	markErr error
}

func (c *checker) report(p Problem) {
	c.summary.Problems++
	c.options.Report(p)
}

func (c *checker) progress(step string, done, total uint64) {
	if now := time.Now(); now.Sub(c.reported) > 200*time.Millisecond {
		c.reported = now
		c.options.Progress(CheckProgress{step, done, total})
	}
}

// checkedStream is one of the streams that a check looks at.
type checkedStream struct {
	name     string
	subjects []string
	unnamed  string      // what the loss of its settings means
	lost     string      // what the loss of a message means
	settings bool        // its settings can be read
	flaws    []flaw      // of the files of its records
	gone     []goneBlock // files of records
}

func (c *checker) run(ctx context.Context) error {
	streams := []*checkedStream{
		{name: streamName, subjects: []string{subject, releasedSubject + "*"}, unnamed: "a gateway makes them anew; without " +
			markFile + " beside them the log gets another id, and the tokens and ids that readers have are refused",
			lost: "lost: readers are told of a gap"},
		{name: quarantineStream, subjects: []string{quarantineSubject}, unnamed: "a gateway goes on with the entries that are there",
			lost: "it cannot be released"},
		{name: groupsStream, subjects: groupsSubjects, unnamed: "a gateway goes on with the groups that are there",
			lost: "the group does not exist any more, or repeats what it had done of a record batch"},
		{name: parkedStream, subjects: parkedSubjects, unnamed: "a gateway goes on with what is parked",
			lost: "no longer parked; it is in the log, unless it has expired there"},
	}
	c.mark, c.marked, c.markErr = readMark(c.dir)
	c.before = readStopped(c.dir)
	id, err := c.openSettings(ctx, streams)
	if err != nil {
		return err
	}
	if err := c.copyRecords(ctx, streams); err != nil {
		return err
	}
	if err := c.checkPlaces(); err != nil {
		return err
	}
	for _, s := range streams {
		c.compareIndex(s)
		if err := c.checkConsumers(s.name); err != nil {
			return err
		}
	}
	if err := c.copyFile(markFile); err != nil && !errors.Is(err, fs.ErrNotExist) { // it takes part in the mending
		return err
	}
	engine, err := c.openCopy(ctx)
	if err != nil {
		return err
	}
	for _, s := range streams {
		s.flaws = slices.DeleteFunc(slices.Clone(engine.flaws), func(f flaw) bool { return f.stream != s.name })
		c.reportFlaws(s)
	}
	err = c.readCopy(ctx, engine, id, streams)
	if err = errors.Join(err, engine.close()); err != nil {
		return err
	}
	c.compareMark()
	return nil
}

// checkConsumers reports groups whose place in a stream has damaged settings.
func (c *checker) checkConsumers(stream string) error {
	damaged, err := damagedConsumers(c.dir, stream)
	for _, consumer := range damaged {
		c.report(Problem{Stream: stream, File: filepath.Join(streamsDir, stream, consumersDir, filepath.Base(consumer), settingsFile), Index: -1,
			What:    "the settings of a group's place do not match their checksum",
			Meaning: "a gateway makes them anew when it starts: nothing is lost"})
	}
	return err
}

// checkPlaces reports groups whose place is not as it was when the gateway was stopped.
func (c *checker) checkPlaces() error {
	var err error
	c.places, err = damagedPlaces(c.dir, c.before.Places)
	for _, p := range c.places {
		c.report(Problem{Stream: p.Stream, File: filepath.Join(streamsDir, p.Stream, consumersDir, p.Consumer, consumerStateFile), Index: -1,
			What:    "the place of a group is not as it was when the gateway was stopped",
			Meaning: fmt.Sprintf("a gateway makes it anew after stream sequence %d: what was settled out of turn behind that is repeated", p.Settled)})
	}
	return err
}

// reportFlaws reports what a gateway would mend before its engine opens the files.
func (c *checker) reportFlaws(s *checkedStream) {
	for _, f := range s.flaws {
		name, err := filepath.Rel(c.copy, f.file)
		if err != nil {
			name = f.file
		}
		p := Problem{Stream: s.name, File: name, First: f.first, Last: f.last, Index: -1, After: f.after, Before: f.before}
		switch f.remedy {
		case remedyRepair:
			p.What = fmt.Sprintf("the head of a record is damaged, at byte %d", f.offset)
			p.Meaning = "a gateway makes it whole again when it starts: nothing is lost"
		case remedySeal:
			p.What = fmt.Sprintf("a record does not match its checksum, %d bytes from byte %d on", f.size, f.offset)
			p.Meaning = s.lost + ". A gateway that starts keeps what is left of it in " + damagedDir + "/"
			if f.first == 0 {
				p.Meaning = "it told of something that was removed, and may come back"
			}
		case remedyCut:
			p.What = fmt.Sprintf("the last %d bytes are not a whole record", f.size)
			p.Meaning = "harmless if the gateway or the machine went down while it was written: that was never answered. Otherwise " + s.lost
		}
		c.report(p)
	}
}

// compareMark reports an end of the log that the mark knows and the records do not.
func (c *checker) compareMark() {
	m, found, err := c.mark, c.marked, c.markErr
	switch {
	case err != nil:
		c.report(Problem{File: markFile, Index: -1, What: err.Error(), Meaning: "a gateway writes it anew; a loss at the end would not be noticed"})
	case found && c.summary.LastSequence < m.Confirmed:
		c.report(Problem{Stream: streamName, First: c.summary.LastSequence + 1, Last: m.Confirmed, Index: -1, After: c.summary.LastWritten,
			What: "the end of the log is missing", Meaning: "lost: a gateway goes on after them, and tells readers of a gap"})
	}
}

func (c *checker) openCopy(ctx context.Context) (*engine, error) {
	return embedEngine(ctx, Options{Dir: c.copy, NoSync: true, MaxBytes: boundless, Logger: c.options.Logger}.withDefaults())
}

// openSettings copies the streams' settings alone, lets the engine say whether they are sound, and lifts the retention in the copy. It
// returns the log's id; zero if that cannot be read.
func (c *checker) openSettings(ctx context.Context, streams []*checkedStream) (id logID, err error) {
	for _, s := range streams {
		for _, name := range []string{settingsFile, settingsSumFile} {
			file := filepath.Join(streamsDir, s.name, name)
			if err := c.copyFile(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return id, err
			}
		}
	}
	engine, err := c.openCopy(ctx)
	if err != nil {
		return id, err
	}
	defer func() { err = errors.Join(err, engine.close()) }()
	for _, s := range streams {
		stream, err := engine.js.Stream(ctx, s.name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			c.report(Problem{Stream: s.name, File: filepath.Join(streamsDir, s.name, settingsFile), Index: -1,
				What: "the stream's settings are missing or do not match their checksum", Meaning: s.unnamed})
			continue
		}
		if err != nil {
			return id, fmt.Errorf("open stream %s: %w", s.name, err)
		}
		s.settings = true
		config := stream.CachedInfo().Config
		if s.name == streamName {
			if id, err = parseLogID(config.Metadata[logIDKey]); err != nil {
				c.report(Problem{Stream: s.name, Index: -1, What: err.Error(), Meaning: "the gateway would not start"})
			} else {
				c.summary.LogID = id.String()
			}
		}
		config.MaxAge, config.MaxBytes = 0, -1
		if _, err := engine.js.UpdateStream(ctx, config); err != nil {
			return id, fmt.Errorf("lift the retention of the copy of %s: %w", s.name, err)
		}
	}
	return id, nil
}

// copyFile copies one file of the directory.
func (c *checker) copyFile(name string) error {
	from, err := os.Open(filepath.Join(c.dir, name))
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	path := filepath.Join(c.copy, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	to, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from) // on file systems that share blocks between files, this takes no space
	return errors.Join(err, to.Close())
}

// copyRecords copies the streams' records, in the place of those of the empty streams that the copy has now.
func (c *checker) copyRecords(ctx context.Context, streams []*checkedStream) error {
	var files []string
	var total uint64
	for _, s := range streams {
		if err := os.RemoveAll(filepath.Join(c.copy, streamsDir, s.name, recordsDir)); err != nil {
			return err
		}
		err := fs.WalkDir(os.DirFS(c.dir), filepath.ToSlash(filepath.Join(streamsDir, s.name, recordsDir)), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			files = append(files, filepath.FromSlash(path))
			total += uint64(info.Size())
			return nil
		})
		if errors.Is(err, fs.ErrNotExist) {
			c.report(Problem{Stream: s.name, File: filepath.Join(streamsDir, s.name, recordsDir), Index: -1,
				What: "the stream's records are missing", Meaning: c.withoutRecords(s.name)})
			continue
		}
		if err != nil {
			return err
		}
	}
	if err := c.checkScratch(total); err != nil {
		return err
	}
	var done uint64
	for _, name := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.copyFile(name); err != nil {
			return err
		}
		if info, err := os.Stat(filepath.Join(c.copy, name)); err == nil {
			done += uint64(info.Size())
		}
		c.progress("copying", done, total)
	}
	return nil
}

// withoutRecords says what it means that a stream has no records.
func (c *checker) withoutRecords(stream string) string {
	switch {
	case stream != streamName:
		return "lost: a gateway starts with none"
	case c.marked:
		return "lost: a gateway starts with none, goes on after them, and tells readers of a gap"
	}
	return "lost: a gateway starts with none, and without " + markFile + " it numbers from 1 again"
}

// checkScratch refuses a copy that would fill the disk.
func (c *checker) checkScratch(need uint64) error {
	const reserve = 64 << 20
	free, err := freeSpace(c.copy)
	if err != nil {
		return err
	}
	if free < need+reserve {
		return fmt.Errorf("the copy to check takes %d MiB, and %s has %d MiB free: name another place for it",
			need>>20, filepath.Dir(c.copy), free>>20)
	}
	return nil
}
