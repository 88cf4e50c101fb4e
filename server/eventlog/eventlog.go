// Package eventlog answers two questions: is it on disk, and who has read how far?
//
// # The model
//
// The log is a log of an engine of package store, which may be on this machine's disk or be shared with other gateways; nothing here
// knows which, but for what sharing means.
//
// One entry of it is one record batch: up to 512 marshalled notifications that were waiting to be written at the same moment. A batch is
// one write and one sync, and is stored whole or not at all. While one batch is being written the next one gathers, so batches grow with
// the load and an idle log adds no delay.
//
// A [Position] is where a notification is: the batch's stream sequence and the index in it. A [Cursor] is a place between
// notifications: what is read next. The resume token that clients hold is a cursor of one particular log, with a
// checksum; logs are told apart by the id that their store gives them, and copies of one by its epochs. Id, sequence and token of a notification follow
// from its position and are not stored.
//
//	stream sequence      41                  42          43
//	batch            [ 0 | 1 | 2 ]         [ 0 ]     [ 0 | 1 ]
//	                       ^ Position{41,1}  ^ Cursor{42,0}: the token of Position{41,2}
//
// # Writing
//
// [Log.Append] hands a notification to the one writer and waits until its batch is acknowledged. The promise stands there.
//
// # Reading
//
// [Log.Read] is a pull-driven iterator over the log from a cursor. One tail reader per process follows the stream, unpacks
// each batch once, and keeps the newest ones in a bounded window that all live readers share. A reader behind the window
// fetches from the stream by itself, a bounded piece at a time, until it is back inside. A slow reader therefore has a lag,
// never a buffer. A reader at the head registers what its filter is interested in and costs nothing until that arrives.
//
// # Duplicates and quarantine
//
// A notification that bears a duplicate key is stored once within a window; see package dedup. What the gateway refused is kept
// in a table, [Quarantine], from which it can be released into the log exactly once.
//
// # Groups
//
// What must outlive a gateway of the groups that share the log is in tables too: see [Groups].
//
// Only what is durable is ever read, so a crash never takes back what a reader saw. Notifications that should be there and
// are not, because retention passed them or the disk lost them, are told as a [Gap], never skipped in silence.
package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linksgate/linksgate/server/dedup"
	"github.com/linksgate/linksgate/server/store"
)

// The errors of this package. Callers compare with [errors.Is].
var (
	// ErrBadToken: the text is not a resume token, or was damaged.
	ErrBadToken = errors.New("not a resume token")
	// ErrBadID: the text is not an id, of a notification or of a quarantine entry. What wraps it says of which.
	ErrBadID = errors.New("not an id")
	// ErrOtherLog: the token or id belongs to another log.
	ErrOtherLog = errors.New("belongs to another log")
	// ErrAhead: the token is ahead of the log's head, so the log has lost its end (restored from a copy, for instance).
	ErrAhead = errors.New("token is ahead of the head of the log")
	// ErrExpired: the position is no longer retained.
	ErrExpired = errors.New("no longer retained")
	// ErrDamaged: the position should be readable and is not.
	ErrDamaged = errors.New("damaged on disk")
	// ErrNotFound: no notification has this position, no quarantine entry this id. What wraps it says which.
	ErrNotFound = errors.New("not found")
	// ErrErased: the notification was erased on purpose. It wraps ErrNotFound.
	ErrErased = fmt.Errorf("notification %w: it was erased", ErrNotFound)
	// ErrTooLarge: the notification does not fit into one record batch.
	ErrTooLarge = errors.New("notification too large for the log")
	// ErrUnavailable: the log could not be read or written now; a write may or may not have been stored.
	ErrUnavailable = errors.New("log unavailable")
	// ErrNoSpace: the disk has less free space than is kept in reserve. It wraps ErrUnavailable.
	ErrNoSpace = fmt.Errorf("%w: not enough free space on the disk", ErrUnavailable)
	// ErrFrozen: the log refused a write in a way that only opening it anew can mend.
	ErrFrozen = errors.New("log frozen after a write error")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("log closed")
	// ErrGroupExists: there is a group of this name.
	ErrGroupExists = errors.New("group exists")
	// ErrNoGroup: there is no group of this name.
	ErrNoGroup = errors.New("no such group")
	// ErrGroupChanged: the group, or its progress, was changed by somebody else at the same time.
	ErrGroupChanged = errors.New("changed by somebody else at the same time")
	// ErrTooManyGroups: there are MaxGroups groups.
	ErrTooManyGroups = errors.New("too many groups")
)

// Durability says when a notification counts as durable.
type Durability int

// The durability policies.
const (
	// DurabilityFsync: written and synced to this machine's disk. The default of the embedded log.
	DurabilityFsync Durability = iota
	// DurabilityProcess: written, and left to the operating system to sync. Survives the end of the process, not of the
	// machine: for tests and measurements.
	DurabilityProcess
	// DurabilityReplicated: acknowledged by a quorum of the replicas of an external NATS cluster.
	DurabilityReplicated
)

// String describes the policy for a person.
func (d Durability) String() string {
	switch d {
	case DurabilityFsync:
		return "fsync before each answer"
	case DurabilityProcess:
		return "no fsync: survives the process, not the machine"
	case DurabilityReplicated:
		return "acknowledged by the replicas of the NATS cluster"
	}
	return fmt.Sprintf("Durability(%d)", int(d))
}

// Options configure a log. The zero value of a field means its default.
type Options struct {
	// Engine stores everything. Required. The log owns it from when [Open] is called, also when that fails.
	Engine store.Engine
	// IndexDir is a directory for what can be made again from the log, so that a start need not read it. Default: none, memory only.
	IndexDir string
	// MaxAge after which notifications are deleted; default 30 days, negative: never.
	MaxAge time.Duration
	// MaxBytes on disk above which the oldest notifications are deleted; default 10 GiB, at least MinMaxBytes.
	MaxBytes int64
	// DuplicateWindow is how long a notification with a duplicate key keeps copies of it out; default 24 hours, negative: copies
	// are not looked for. The index is bounded to the newest 500,000 keys, in some 60 MiB of memory.
	DuplicateWindow time.Duration
	// QuarantineBytes bounds the quarantine on disk; default 256 MiB, at least MinMaxBytes.
	QuarantineBytes int64
	// QuarantineAge after which quarantine entries are deleted; default 30 days.
	QuarantineAge time.Duration
	// ParkedBytes bounds what groups have parked on disk; the oldest goes first. Default 256 MiB, at least MinMaxBytes.
	ParkedBytes int64
	// ParkedAge after which parked notifications are deleted; default 30 days.
	ParkedAge time.Duration
	// WindowBytes bounds the memory of the window that live readers share; default 32 MiB.
	WindowBytes int
	// Logger for what the engine has to say. Default: none.
	Logger *slog.Logger
}

// Defaults and bounds of [Options].
const (
	DefaultMaxAge          = 30 * 24 * time.Hour
	DefaultMaxBytes        = 10 << 30
	MinMaxBytes            = 16 << 20
	DefaultDuplicateWindow = 24 * time.Hour
	DefaultQuarantineBytes = 256 << 20
	DefaultQuarantineAge   = 30 * 24 * time.Hour
	DefaultParkedBytes     = 256 << 20
	DefaultParkedAge       = 30 * 24 * time.Hour
	defaultWindowBytes     = 32 << 20
	minAge                 = time.Minute
)

// Check reports whether the options can be used together.
func (o Options) Check() error {
	switch {
	case o.MaxBytes != 0 && o.MaxBytes < MinMaxBytes:
		return fmt.Errorf("a retention size of %d bytes is too small: at least 16 MiB are needed", o.MaxBytes)
	case o.MaxAge > 0 && o.MaxAge < minAge, o.QuarantineAge != 0 && o.QuarantineAge < minAge,
		o.ParkedAge != 0 && o.ParkedAge < minAge:
		return fmt.Errorf("a retention of less than %v is too short", minAge)
	case o.QuarantineBytes != 0 && o.QuarantineBytes < MinMaxBytes:
		return fmt.Errorf("a quarantine of %d bytes is too small: at least 16 MiB are needed", o.QuarantineBytes)
	case o.ParkedBytes != 0 && o.ParkedBytes < MinMaxBytes:
		return fmt.Errorf("%d bytes for parked notifications are too few: at least 16 MiB are needed", o.ParkedBytes)
	}
	return nil
}

func (o Options) withDefaults() Options {
	setDefault(&o.MaxAge, DefaultMaxAge)
	o.MaxAge = max(o.MaxAge, 0)
	setDefault(&o.MaxBytes, DefaultMaxBytes)
	setDefault(&o.DuplicateWindow, DefaultDuplicateWindow)
	o.DuplicateWindow = max(o.DuplicateWindow, 0)
	setDefault(&o.QuarantineBytes, DefaultQuarantineBytes)
	setDefault(&o.QuarantineAge, DefaultQuarantineAge)
	setDefault(&o.ParkedBytes, DefaultParkedBytes)
	setDefault(&o.ParkedAge, DefaultParkedAge)
	setDefault(&o.WindowBytes, defaultWindowBytes)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Log is an open log. Its methods may be called concurrently.
type Log struct {
	options Options
	engine  store.Engine
	store   store.Log
	id      logID
	epochs  epochs
	writer  *writer
	tail    *tail
	frozen  frozen

	duplicates *dedup.Index // nil: copies are not looked for
	quarantine *Quarantine
	groups     *Groups
	erasures   erasures

	background sync.WaitGroup     // the writer's and the tail's goroutines
	stop       context.CancelFunc // ends the tail
	closeOnce  sync.Once
	closeErr   error // set by closeOnce
}

// frozen is the state of a log that can no longer be written. It is set once.
type frozen struct {
	once sync.Once
	done chan struct{} // closed when set
	err  atomic.Pointer[error]
}

func (f *frozen) set(err error) {
	f.once.Do(func() {
		f.err.Store(&err)
		close(f.done)
	})
}

func (f *frozen) get() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Open opens the log, creating it if it does not exist. When Open returns, everything that was ever acknowledged and is
// still retained can be read, also after a crash of the process or the machine.
func Open(ctx context.Context, options Options) (*Log, error) {
	if err := options.Check(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l, err := open(ctx, options.withDefaults())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), options.Engine.Close())
	}
	return l, nil
}

func open(ctx context.Context, options Options) (*Log, error) {
	stored, err := options.Engine.OpenLog(ctx, "log", store.LogOptions{MaxAge: options.MaxAge, MaxBytes: options.MaxBytes})
	if err != nil {
		return nil, err
	}
	l := &Log{options: options, engine: options.Engine, store: stored, id: shortID(stored.ID())}
	l.frozen.done = make(chan struct{})
	info, err := stored.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the state of the log: %w", err)
	}
	l.epochs.set(info.Epochs)
	l.writer, l.tail = newWriter(l), newTail(l, info)
	if err := l.openDuplicates(ctx, info); err != nil {
		return nil, fmt.Errorf("open the index of duplicates: %w", err)
	}
	// Readers that come back after a restart should find the window filled, and the head's position known.
	if err := l.tail.catchUp(ctx); err != nil {
		return nil, fmt.Errorf("read the end of the log: %w", err)
	}
	if l.quarantine, err = openQuarantine(ctx, l); err != nil {
		return nil, err
	}
	if l.groups, err = openGroups(ctx, l); err != nil {
		return nil, err
	}
	if err := l.openErasures(ctx); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.background.Go(func() { l.runErasures(running) })
	l.background.Go(l.writer.run)
	l.background.Go(func() { l.tail.watchRetention(running) })
	l.background.Go(func() { l.watchEngine(running) })
	if l.shared() {
		l.background.Go(func() { l.tail.run(running) })
		erasures, err := l.erasures.table.Watch(running, "")
		if err != nil {
			stop()
			return nil, err
		}
		l.background.Go(func() { l.followErasures(running, erasures) })
	}
	return l, nil
}

// shared reports whether other gateways write to the log too.
func (l *Log) shared() bool { return l.engine.Shared() }

// watchEngine freezes the log when nothing can be written any more.
func (l *Log) watchEngine(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-l.engine.Failed():
		l.frozen.set(fmt.Errorf("%w: %w: %w", ErrFrozen, ErrUnavailable, l.engine.Err()))
	}
}

// Close writes what was handed to Append before, ends all readers with ErrClosed and closes what the log is stored in.
func (l *Log) Close() error {
	l.closeOnce.Do(func() {
		l.writer.close()
		l.tail.close()
		l.stop()
		l.background.Wait()
		l.groups.background.Wait()
		if l.duplicates != nil {
			l.closeErr = l.duplicates.Close()
		}
		l.closeErr = errors.Join(l.closeErr, l.engine.Close())
	})
	return l.closeErr
}

// ID names the log. It is at the front of every notification id.
func (l *Log) ID() string { return l.id.String() }

// Durability returns the policy in force.
func (l *Log) Durability() Durability {
	switch {
	case l.shared():
		return DurabilityReplicated
	case l.engine.Durability() == store.Fsync:
		return DurabilityFsync
	}
	return DurabilityProcess
}

// Frozen is closed when the log can no longer be written and must be opened anew; Err then says why.
func (l *Log) Frozen() <-chan struct{} { return l.frozen.done }

// Err returns nil while the log can be written as far as is known, else an error that wraps ErrFrozen or ErrUnavailable.
func (l *Log) Err() error {
	if err := l.frozen.get(); err != nil {
		return err
	}
	if err := l.engine.Writable(); err != nil {
		return l.storeError(err)
	}
	return l.writer.lastErr()
}

// Spooled is what a gateway has stored on its own disk and not forwarded to a shared log yet.
type Spooled struct {
	Batches int
	Bytes   int64
	Since   time.Time // when the oldest came; zero if there is nothing
}

// Spooled returns what is spooled; nothing if the log has no spool.
func (l *Log) Spooled() Spooled {
	spool, ok := l.engine.(interface {
		Spooled() (entries int, bytes int64, since time.Time)
	})
	if !ok {
		return Spooled{}
	}
	entries, bytes, since := spool.Spooled()
	return Spooled{Batches: entries, Bytes: bytes, Since: since}
}

// Info describes a log at one moment.
type Info struct {
	// First is the place before the oldest retained notification. Equal to Next if none is retained.
	First Cursor
	// FirstWritten is when the oldest retained notification was written; zero if none is retained.
	FirstWritten time.Time
	// Head is the newest notification ever written; zero if there never was one.
	Head Position
	// HeadWritten is when it was written.
	HeadWritten time.Time
	// Next is the place after the head.
	Next Cursor
	// Batches retained, and the bytes that they take.
	Batches, Bytes uint64
	// MaxAge and MaxBytes are the retention; zero means no limit.
	MaxAge   time.Duration
	MaxBytes int64
}

// Empty reports whether no notification is retained.
func (i Info) Empty() bool { return i.Batches == 0 }

// Info returns the state of the log, including everything acknowledged before the call.
func (l *Log) Info(ctx context.Context) (Info, error) {
	stored, err := l.store.Info(ctx)
	if err != nil {
		return Info{}, l.readError(ctx, fmt.Errorf("read the state of the log: %w", err))
	}
	// Another gateway's append may be stored and not be here yet.
	if err := l.tail.waitHead(ctx, stored.Next-1); err != nil {
		return Info{}, err
	}
	head := l.tail.headInfo()
	info := Info{
		Head: head.position, HeadWritten: head.written, Next: Cursor{Stream: head.position.Stream + 1},
		First: Cursor{Stream: stored.First}, FirstWritten: stored.FirstTime,
		Batches: stored.Next - stored.First, Bytes: uint64(stored.Bytes), MaxAge: l.options.MaxAge, MaxBytes: l.options.MaxBytes,
	}
	if info.Empty() {
		info.First = info.Next
	}
	return info, nil
}

// readError gives an error of the engine the meaning it has for a reader.
func (l *Log) readError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case l.tail.isClosed():
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Head returns the newest notification that readers have been shown, and when it was written; zero if there never was one.
func (l *Log) Head() (Position, time.Time) {
	head := l.tail.headInfo()
	return head.position, head.written
}
