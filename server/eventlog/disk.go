package eventlog

import (
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
)

// isSparse reports whether any message of a stream may be removed in the normal course of things, so that its blocks may be far apart.
func isSparse(stream string) bool { return stream == groupsStream || stream == parkedStream }

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

// blockEnds say where the files of the streams' records end, by path.
type blockEnds map[string]blockEnd

type blockEnd struct {
	size int64
	last uint64 // the last sequence in this file or those before it
}

// settleFiles brings the files of a directory to a state that a process can build on, before the engine opens them, and returns
// where they end.
//
// After a sync that failed, the operating system may show what it has forgotten to write: what is then written behind it is lost
// with it when the power goes, although it was synced. So the end of each stream is written again, as it is read. Names that
// an earlier process did not live to sync are synced. And the heads of records are mended where the engine would trip over them.
func settleFiles(dir string, logger *slog.Logger) (blockEnds, error) {
	ends := make(blockEnds)
	for _, stream := range streamNames {
		records := recordsPath(dir, stream)
		blocks, err := filepath.Glob(strings.ReplaceAll(records, "[", "\\[") + "/*" + blockSuffix)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(blocks, func(a, b string) int { // by number: a longer name is a greater one
			if len(a) != len(b) {
				return len(a) - len(b)
			}
			return strings.Compare(a, b)
		})
		lasts, err := mendHeads(blocks, isSparse(stream), logger)
		if err != nil {
			return nil, err
		}
		for i, block := range blocks {
			info, err := os.Stat(block)
			if err != nil {
				return nil, err
			}
			ends[block] = blockEnd{info.Size(), lasts[i]}
		}
		for _, block := range blocks[max(len(blocks)-rewrittenBlocks, 0):] {
			if err := rewrite(block); err != nil {
				return nil, err
			}
		}
		if err := syncDirs(records, filepath.Dir(dir)); err != nil {
			return nil, err
		}
	}
	return ends, nil
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

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// reportCut tells which files of records end earlier than before the engine opened them: it cuts them off at the first record that it
// cannot read. One that is shorter and ends with the same record, or with the mark that it was removed, has lost what has expired.
func (before blockEnds) reportCut(logger *slog.Logger) {
	for path, end := range before {
		info, err := os.Stat(path)
		if err != nil || info.Size() >= end.size {
			continue
		}
		heads, err := readHeads(path)
		if err == nil && slices.ContainsFunc(heads, func(h recordHead) bool { return h.sequence >= end.last }) {
			continue
		}
		logger.Error("the engine cut off a file of the log at a record that it could not read: what followed is lost",
			"file", path, "bytes", end.size-info.Size())
	}
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
