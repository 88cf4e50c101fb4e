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
	var fs syscall.Statfs_t
	if err := syscall.Statfs(e.dir, &fs); err != nil {
		return fmt.Errorf("%w: look for free space: %w", ErrUnavailable, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < e.minFree {
		return fmt.Errorf("%w: %d MiB free in %s, %d MiB are kept in reserve", ErrNoSpace, free>>20, e.dir, e.minFree>>20)
	}
	return nil
}

// fileSizes are the sizes of the files of the streams' records, by path.
type fileSizes map[string]int64

// settleFiles brings the files of a directory to a state that a process can build on, before the engine opens them, and returns
// their sizes.
//
// After a sync that failed, the operating system may show what it has forgotten to write: what is then written behind it is lost
// with it when the power goes, although it was synced. So the end of each stream is written again, as it is read. Names that
// an earlier process did not live to sync are synced. And the heads of records are mended where the engine would trip over them.
func settleFiles(dir string, logger *slog.Logger) (fileSizes, error) {
	sizes := make(fileSizes)
	for _, stream := range streamNames {
		records := recordsPath(dir, stream)
		blocks, err := filepath.Glob(strings.ReplaceAll(records, "[", "\\[") + "/*" + blockSuffix)
		if err != nil {
			return nil, err
		}
		for _, block := range blocks {
			info, err := os.Stat(block)
			if err != nil {
				return nil, err
			}
			sizes[block] = info.Size()
		}
		slices.SortFunc(blocks, func(a, b string) int { // by number: a longer name is a greater one
			if len(a) != len(b) {
				return len(a) - len(b)
			}
			return strings.Compare(a, b)
		})
		if err := mendHeads(blocks, isSparse(stream), logger); err != nil {
			return nil, err
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
	return sizes, nil
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

// reportCut tells which files of records are shorter than they were before the engine opened them: it cuts them off at the first
// record that it cannot read.
func (before fileSizes) reportCut(logger *slog.Logger) {
	for path, size := range before {
		info, err := os.Stat(path)
		if err == nil && info.Size() < size {
			logger.Error("the engine cut off a file of the log at a record that it could not read: what followed is lost",
				"file", path, "bytes", size-info.Size())
		}
	}
}

// nameSync syncs the names of a stream's files when there are new ones. The engine syncs the contents of a new file, but not
// the directory that it is in; some file systems keep the name of a synced file all the same, POSIX does not promise it.
type nameSync struct {
	dir string

	mu   sync.Mutex
	last time.Time // mu; when the directory had changed, as of the last sync
}

// timestampStep is more than what file systems round the times of changes to.
const timestampStep = 100 * time.Millisecond

// sync returns nil only if the names of all files that were there when it was called are durable.
func (n *nameSync) sync() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	info, err := os.Stat(n.dir)
	if err != nil {
		return err
	}
	changed := info.ModTime()
	if changed.Equal(n.last) {
		return nil
	}
	if err := syncDir(n.dir); err != nil {
		return err
	}
	// A change in the same step would show the same time.
	if n.last = changed; time.Since(changed) < timestampStep {
		n.last = time.Time{}
	}
	return nil
}
