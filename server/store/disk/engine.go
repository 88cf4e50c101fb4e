package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/linksgate/linksgate/server/store"
)

// Defaults of [Options].
const (
	DefaultMinFree   = 512 << 20
	DefaultScrubRate = 4 << 20
)

const (
	lockName = "lock"
	// maxKey and maxPayload are more than the contract allows, so that what is read is never refused for its size.
	maxKey     = store.MaxKey
	maxPayload = store.MaxEntry + 1<<20

	tickEvery  = 500 * time.Millisecond
	spaceEvery = 200 * time.Millisecond // how old the knowledge of free space may be
)

// Options of an engine. The zero value of a field means its default.
type Options struct {
	// Dir is the directory, which is created if it is missing. It is locked: one process at a time has it open.
	Dir string
	// NoSync leaves syncing to the operating system: what was acknowledged last survives the process, not the machine.
	NoSync bool
	// MinFree is the free space of the file system, in bytes, below which nothing is stored; default 512 MiB, negative: none.
	MinFree int64
	// ScrubRate is how many bytes a second are read again in the background, in search of corruption; default 4 MiB, negative: none.
	ScrubRate int64
	// Logger for what is found. Default: none.
	Logger *slog.Logger

	firstSegment int64 // bytes of the first segment; for tests
}

// Engine is an open directory.
type Engine struct {
	options Options
	lock    *os.File
	sync    func(*os.File) error

	mu       sync.Mutex
	journals map[string]closer // mu; by name
	closed   bool              // mu
	failure  error             // mu; set once
	failed   chan struct{}     // closed with it
	space    error             // mu; as of
	spaceAt  time.Time         // mu

	stop       context.CancelFunc
	background sync.WaitGroup
}

// closer is a log or a table.
type closer interface {
	tick(now time.Time)
	scrub(ctx context.Context, pace func(ctx context.Context, bytes int) error) error
	close() error
}

var _ store.Engine = (*Engine)(nil)

// Open opens a directory, and locks it.
func Open(_ context.Context, options Options) (*Engine, error) {
	if options.MinFree == 0 {
		options.MinFree = DefaultMinFree
	}
	if options.ScrubRate == 0 {
		options.ScrubRate = DefaultScrubRate
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(options.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	if err := refuseOld(options.Dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(options.Dir)
	if err != nil {
		return nil, err
	}
	e := &Engine{options: options, lock: lock, journals: make(map[string]closer), failed: make(chan struct{}), sync: datasync}
	if options.NoSync {
		e.sync = func(*os.File) error { return nil }
	}
	if err := syncDir(filepath.Dir(filepath.Clean(options.Dir)), e.sync); err != nil {
		return nil, errors.Join(fmt.Errorf("open data directory: %w", err), lock.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.background.Go(func() { e.maintain(ctx) })
	if options.ScrubRate > 0 {
		e.background.Go(func() { e.scrub(ctx) })
	}
	return e, nil
}

// refuseOld refuses a directory of the engine that was used before this one. Nothing that used it was ever released.
func refuseOld(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "jetstream")); err == nil {
		return fmt.Errorf("%s was written by an unreleased version of Linksgate and cannot be read: use another directory", dir)
	}
	return nil
}

// lockDir locks a directory for this process.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // for the message only
		return nil, errors.Join(fmt.Errorf("%s is in use by another process (pid %s)", dir, holder), f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(fmt.Append(nil, os.Getpid()), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), f.Close())
	}
	return f, nil
}

var goodName = regexp.MustCompile(`^[a-z]+$`)

// create makes the directory of a log or table, for open to open it.
func create[T closer](e *Engine, name string, open func(dir string) (T, error)) (opened T, err error) {
	if !goodName.MatchString(name) {
		return opened, fmt.Errorf("open %q: names are lower-case letters", name)
	}
	if err := e.reserve(name); err != nil {
		return opened, fmt.Errorf("open %s: %w", name, err)
	}
	dir := filepath.Join(e.options.Dir, name)
	if err = os.Mkdir(dir, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
		err = syncDir(e.options.Dir, e.sync) // also of one that was made before a crash
	}
	if err == nil {
		opened, err = open(dir)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		delete(e.journals, name)
		return opened, fmt.Errorf("open %s: %w", name, err)
	}
	e.journals[name] = opened
	return opened, nil
}

// reserve takes a name for a log or table that is being opened.
func (e *Engine) reserve(name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return store.ErrClosed
	}
	if _, taken := e.journals[name]; taken {
		return errors.New("it is open already")
	}
	e.journals[name] = nil
	return nil
}

// Writable implements [store.Engine].
func (e *Engine) Writable() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.failure != nil:
		return e.failure
	case e.closed:
		return store.ErrClosed
	}
	if now := time.Now(); e.options.MinFree > 0 && (e.spaceAt.IsZero() || now.Sub(e.spaceAt).Abs() >= spaceEvery) {
		e.spaceAt, e.space = now, e.checkSpace(0)
	}
	return e.space
}

// checkSpace returns ErrNoSpace if so many bytes more would use the reserve.
func (e *Engine) checkSpace(bytes int64) error {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(e.options.Dir, &stat); err != nil {
		return nil // the write itself will tell
	}
	free := int64(stat.Bavail) * stat.Bsize
	if reserve := max(e.options.MinFree, 0); free-bytes < reserve {
		return fmt.Errorf("%w: %d MiB are free, %d MiB are reserved", store.ErrNoSpace, free>>20, reserve>>20)
	}
	return nil
}

// fail makes the engine fail, for good, and returns the error that its writes return from now on.
func (e *Engine) fail(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failure == nil {
		e.failure = fmt.Errorf("%w: %w", store.ErrFailed, err)
		close(e.failed)
		e.options.Logger.Error("store failed", "error", err)
	}
	return e.failure
}

// Durability implements [store.Engine].
func (e *Engine) Durability() string {
	if e.options.NoSync {
		return "no fsync: survives the process, not the machine"
	}
	return store.Fsync
}

// MaxEntry implements [store.Engine].
func (e *Engine) MaxEntry() int { return store.MaxEntry }

// Shared implements [store.Engine].
func (e *Engine) Shared() bool { return false }

// Failed implements [store.Engine].
func (e *Engine) Failed() <-chan struct{} { return e.failed }

// Err implements [store.Engine].
func (e *Engine) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failure
}

// maintain keeps to the bounds of logs and tables.
func (e *Engine) maintain(ctx context.Context) {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, j := range e.all() {
				j.tick(now)
			}
		}
	}
}

func (e *Engine) all() []closer {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]closer, 0, len(e.journals))
	for _, j := range e.journals {
		if j != nil { // not while it is being opened
			all = append(all, j)
		}
	}
	return all
}

// scrub reads everything again, at a bounded rate, for as long as the engine is open.
func (e *Engine) scrub(ctx context.Context) {
	const pause = time.Minute // between two rounds at least
	pace := func(ctx context.Context, bytes int) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(bytes) * time.Second / time.Duration(e.options.ScrubRate)):
			return nil
		}
	}
	for {
		if pace(ctx, int(e.options.ScrubRate)*int(pause/time.Second)) != nil {
			return
		}
		for _, j := range e.all() {
			if err := j.scrub(ctx, pace); err != nil && ctx.Err() == nil {
				e.options.Logger.Error("scrub ended early", "error", err)
			}
		}
	}
}

// Close implements [store.Engine].
func (e *Engine) Close() error {
	e.mu.Lock()
	closed := e.closed
	e.closed = true
	e.mu.Unlock()
	if closed {
		return nil
	}
	e.stop()
	e.background.Wait()
	var errs []error
	for _, j := range e.all() {
		errs = append(errs, j.close())
	}
	return errors.Join(append(errs, e.lock.Close())...)
}
