package eventlog

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// streamsDir is where the embedded engine keeps its streams, below the data directory.
var streamsDir = filepath.Join("jetstream", "$G", "streams")

const (
	settingsFile    = "meta.inf"
	settingsSumFile = "meta.sum"
	recordsDir      = "msgs"
	blockSuffix     = ".blk"
	indexFile       = "index.db" // in recordsDir
)

// recordsPath is the directory of a stream's records.
func recordsPath(dir, stream string) string {
	return filepath.Join(dir, streamsDir, stream, recordsDir)
}

// makeDir makes the data directory, with those above it that are missing, and syncs their names. The name of a directory that is there
// is synced too: whoever made it may not have lived to do that, and all that is in it would go with it.
func makeDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	existed := exists(dir)
	highest := filepath.Dir(dir) // of those that hold a name to sync
	for !exists(highest) && highest != filepath.Dir(highest) {
		highest = filepath.Dir(highest)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for above := filepath.Dir(dir); ; above = filepath.Dir(above) {
		err := syncDir(above)
		if existed && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)) {
			return nil // it was made by somebody else, who gave us no right to what is above it
		}
		if err != nil || above == highest {
			return err
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// lockDir makes sure that one process at a time has the directory open. The kernel releases the lock when the process ends,
// however it ends.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the data directory %s is in use by another process", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return file, nil
}

// checkSpace returns ErrNoSpace while the disk has less free space than the reserve. The reserve is larger than anything that
// can be written between two looks.
func (e *engine) checkSpace() error {
	if e.dir == "" || e.minFree <= 0 {
		return nil
	}
	free, err := freeSpace(e.dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if free < uint64(e.minFree) {
		return fmt.Errorf("%w: %d MiB free in %s, %d MiB are kept in reserve", ErrNoSpace, free>>20, e.dir, e.minFree>>20)
	}
	return nil
}

// freeSpace is how many bytes can still be written to the disk of a directory.
func freeSpace(dir string) (uint64, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return 0, fmt.Errorf("look for free space: %w", err)
	}
	return disk.Bavail * uint64(disk.Bsize), nil
}

// settled says in which state files were given to the engine.
type settled struct {
	ends       map[string]blockEnd // where the files of records end, by path
	flaws      []flaw
	lostPlaces []groupPlace // of groups, whose files were damaged
}

type blockEnd struct {
	stream  string
	size    int64
	highest uint64 // sequence in this file
}

// settleFiles brings the files of a directory to a state that a process can build on, before the engine opens them.
//
// After a sync that failed, the operating system may show what it has forgotten to write: what is then written behind it is lost
// with it when the power goes, although it was synced. So the end of each stream is written again, as it is read. Names that
// an earlier process did not live to sync are synced. And damaged records are mended, of which one would cost all that follow.
func settleFiles(ctx context.Context, dir string, logger *slog.Logger) (settled, error) {
	result := settled{ends: make(map[string]blockEnd)}
	files, before := make(map[string][]string), readStopped(dir)
	marked, _, _ := readMark(dir) // a damaged one is told of when the log is opened
	progress := &startProgress{logger: logger, told: time.Now()}
	for _, stream := range streamNames {
		blocks, err := blocksOf(dir, stream)
		if err != nil {
			return settled{}, err
		}
		files[stream] = blocks
		for _, block := range blocks {
			if info, err := os.Stat(block); err == nil {
				progress.total += info.Size()
			}
		}
	}
	for _, stream := range streamNames {
		blocks := files[stream]
		gone := goneBlocks(dir, stream, before) // before the index is removed
		states, flaws, err := mender{dir, recordFormats[stream], marked.confirmed(stream), progress.seen}.run(ctx, blocks)
		if err != nil {
			return settled{}, err
		}
		reportGone(stream, gone, states, marked.confirmed(stream), logger)
		for i, block := range blocks {
			info, err := os.Stat(block)
			if err != nil {
				return settled{}, err
			}
			result.ends[block] = blockEnd{stream, info.Size(), states[i].last.sequence}
		}
		for _, f := range flaws {
			f.log(logger)
		}
		if err := removeDamagedSettings(dir, stream, logger); err != nil {
			return settled{}, err
		}
		result.flaws = append(result.flaws, flaws...)
		for _, block := range blocks[max(len(blocks)-rewrittenBlocks, 0):] {
			if err := rewrite(block); err != nil {
				return settled{}, err
			}
		}
		if err := syncDirs(recordsPath(dir, stream), filepath.Dir(dir)); err != nil {
			return settled{}, err
		}
	}
	var err error
	result.lostPlaces, err = settlePlaces(dir, before.Places, logger)
	return result, err
}

// reportGone tells of files of records that are gone, and of an end that is.
func reportGone(stream string, gone []goneBlock, states []blockState, confirmed uint64, logger *slog.Logger) {
	for _, b := range gone {
		logger.Error("a file of records is gone", "file", b.path, "records", b.messages, "first_stream_sequence", b.first, "last_stream_sequence", b.last)
	}
	last := uint64(0)
	for _, state := range states {
		last = max(last, state.last.sequence)
	}
	if last < confirmed && stream != streamName && len(gone) == 0 { // of the log itself it is told when that is opened
		logger.Error("the end of a stream is gone", "stream", stream, "last_stream_sequence", last, "confirmed", confirmed)
	}
}

// removeDamagedSettings removes the settings of consumers that are damaged. The engine does not look at their checksum: it would take the
// stream out of service, or a consumer for another one. Made anew, a consumer goes on where it was, which is in another file.
func removeDamagedSettings(dir, stream string, logger *slog.Logger) error {
	damaged, err := damagedConsumers(dir, stream)
	if err != nil {
		return err
	}
	for _, consumer := range damaged {
		logger.Error("the settings of a group's place in the log are damaged: they are made anew, the group goes on where it was", "directory", consumer)
		for _, name := range []string{settingsFile, settingsSumFile} {
			if err := os.Remove(filepath.Join(consumer, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := syncDir(consumer); err != nil {
			return err
		}
	}
	return nil
}

// damagedConsumers returns the directories of a stream's consumers whose settings do not match their checksum.
func damagedConsumers(dir, stream string) ([]string, error) {
	consumers := filepath.Join(dir, streamsDir, stream, consumersDir)
	entries, err := os.ReadDir(consumers)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var damaged []string
	for _, entry := range entries {
		consumer := filepath.Join(consumers, entry.Name())
		settings, err := os.ReadFile(filepath.Join(consumer, settingsFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		sum, sumErr := os.ReadFile(filepath.Join(consumer, settingsSumFile))
		if err != nil || sumErr != nil && !errors.Is(sumErr, fs.ErrNotExist) {
			return nil, errors.Join(err, sumErr)
		}
		hash, err := newHash(stream + "/" + entry.Name())
		if err != nil {
			return nil, err
		}
		_, _ = hash.Write(settings)
		if string(sum) != hex.EncodeToString(hash.Sum(nil)) {
			damaged = append(damaged, consumer)
		}
	}
	return damaged, nil
}

// blocksOf returns the files of a stream's records, in order.
func blocksOf(dir, stream string) ([]string, error) {
	entries, err := os.ReadDir(recordsPath(dir, stream))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var blocks []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), blockSuffix) {
			blocks = append(blocks, filepath.Join(recordsPath(dir, stream), entry.Name()))
		}
	}
	slices.SortFunc(blocks, compareBlocks)
	return blocks, nil
}

// compareBlocks orders the names of files of records by their numbers: a longer name is a greater one.
func compareBlocks(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }

// startProgress tells how far the reading at the start is, every now and then.
type startProgress struct {
	logger      *slog.Logger
	done, total int64
	told        time.Time
}

// progressInterval is how often a long start says how far it is.
const progressInterval = 5 * time.Second

func (p *startProgress) seen(bytes int64) {
	p.done += bytes
	if now := time.Now(); now.Sub(p.told) > progressInterval {
		p.told = now
		p.logger.Info("reading the log's files", "mebibytes", p.done>>20, "of", p.total>>20)
	}
}

// log tells of a flaw.
func (f flaw) log(logger *slog.Logger) {
	where := []any{"file", f.file, "offset", f.offset, "bytes", f.size, "copy_kept_in", f.kept}
	switch f.remedy {
	case remedyRepair:
		logger.Warn("a record had a damaged head and was made whole again: nothing is lost", where...)
	case remedySeal:
		logger.Error("a record is damaged and lost; what follows it is kept",
			append(where, "stream", f.stream, "first_stream_sequence", f.first, "last_stream_sequence", f.last)...)
	case remedyCut:
		logger.Warn("the end of a file of records is not a whole record and was cut off: a write that was interrupted, and that nobody had an "+
			"answer to, if the process or the machine went down meanwhile", where...)
	}
}

// rewrittenBlocks is how many blocks at the end of a stream are written again. The engine stops at the first error, so what it
// could not sync is in the last one, or in the one before if it had just begun another.
const rewrittenBlocks = 2

// rewrite writes a file again, as it is, and syncs it.
func rewrite(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(data, 0)
	return errors.Join(err, file.Sync(), file.Close())
}

// syncDirs syncs a directory and those above it, up to but without end. Those that do not exist are left out.
func syncDirs(dir, end string) error {
	for ; dir != end && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if err := syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// writeWhole makes a file durable, whole or not at all.
func writeWhole(path string, data []byte) error {
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// reportCut tells which files of the log end earlier than before the engine opened them: it cuts them off at the first record that it
// cannot read, and after they were mended there should be none. It reports whether there is one. A file that is shorter and ends with the
// same sequence has lost what has expired. In the other streams, what was removed may be the end of a file.
func (s settled) reportCut(logger *slog.Logger) (cut bool) {
	for path, end := range s.ends {
		info, err := os.Stat(path)
		if end.stream != streamName || err != nil || info.Size() >= end.size {
			continue
		}
		if b, err := readBlock(recordFormats[end.stream], path, surroundings{}); err == nil && b.state().last.sequence >= end.highest {
			continue
		}
		logger.Error("the engine cut off a file of records at one that it could not read: what followed is lost",
			"file", path, "bytes", end.size-info.Size())
		cut = true
	}
	return cut
}

// nameSync syncs the names of a stream's files when there are new ones. The engine syncs the contents of a new file, but not
// the directory that it is in; some file systems keep the name of a synced file all the same, POSIX does not promise it.
type nameSync struct {
	dir string

	mu      sync.Mutex
	changed time.Time // mu; when the directory was changed last, by the clock of the file system
	seen    time.Time // mu; when that was first seen
	synced  bool      // mu; since the last change, and so long after it that another one would show
}

// timestampStep is more than what file systems round the times of changes to: two changes in one step show the same time.
const timestampStep = 100 * time.Millisecond

// sync returns nil only if the names of all files that were there when it was called are durable.
func (n *nameSync) sync() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	info, err := os.Stat(n.dir)
	if err != nil {
		return err
	}
	if changed := info.ModTime(); !changed.Equal(n.changed) {
		n.changed, n.seen, n.synced = changed, now, false
	}
	if n.synced {
		return nil
	}
	if err := syncDir(n.dir); err != nil {
		return err
	}
	n.synced = now.Sub(n.seen) > timestampStep // not by the file system's clock, which may be another, and both may jump
	return nil
}
