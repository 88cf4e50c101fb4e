// Package store is the contract between the gateway and what keeps its data: everything durable is a [Log] or a [KV] of an
// [Engine], and nothing above an engine knows which one it is.
//
// A log is an append-only sequence of opaque entries. Sequences are given by the engine, begin at 1 and only grow; an entry,
// once appended, never changes (but for [Rewriter]). Nothing can be inserted, and only the beginning can be removed. A table
// holds small values that change, each with a revision. Those two shapes are few enough that an engine stays a package of a
// few hundred lines, and store/storetest holds every engine to the promises written here.
package store

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Bounds of what is stored, in bytes.
const (
	// MaxEntry is the most that the data of one entry of a log may have.
	MaxEntry = 1 << 20
	// MaxKey is the most that a key of a table may have.
	MaxKey = 512
	// MaxValue is the most that a value of a table may have.
	MaxValue = 1 << 20
)

// Fsync is the Durability of an engine whose writes are on this machine's disk when they return.
const Fsync = "fsync before each answer"

var (
	// ErrTooLarge is returned for data, a key or a value over its bound. Nothing was stored.
	ErrTooLarge = errors.New("too large")
	// ErrNoSpace is returned when a write would use the space that is reserved, or the device is full. Nothing was stored, and
	// nothing is broken: writes succeed again when there is space.
	ErrNoSpace = errors.New("no space left")
	// ErrUnavailable is returned when an engine elsewhere does not confirm. What was to be stored may have been stored.
	ErrUnavailable = errors.New("store unavailable")
	// ErrFailed is returned by every write after one whose outcome on the device is unknown, such as a failed sync. It is final:
	// only opening the engine anew tells what is stored.
	ErrFailed = errors.New("store failed")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("store closed")
	// ErrNotFound is returned for a key without a value, and a sequence without an entry.
	ErrNotFound = errors.New("not found")
	// ErrConflict is returned when a value has another revision than the one that a change was made for.
	ErrConflict = errors.New("revision conflict")
	// ErrCorrupt is returned for a value or an entry whose checksum does not hold.
	ErrCorrupt = errors.New("corrupt")
)

// Engine keeps logs and tables by name. Its methods may be called concurrently.
type Engine interface {
	// OpenLog opens a log, and creates it when there is none of this name. A name is opened once. Names are lower-case letters.
	OpenLog(ctx context.Context, name string, options LogOptions) (Log, error)
	// OpenKV opens a table, and creates it when there is none of this name.
	OpenKV(ctx context.Context, name string, options KVOptions) (KV, error)
	// Writable returns nil when a write would be tried, and ErrNoSpace, ErrUnavailable, ErrFailed or ErrClosed otherwise. It does
	// not write.
	Writable() error
	// MaxEntry is the most that the data of one entry or value may have in this engine, at most [MaxEntry].
	MaxEntry() int
	// Durability says what a write that returned nil survives, for a person: [Fsync] or something else.
	Durability() string
	// Shared reports whether other gateways write to the same logs and tables.
	Shared() bool
	// Failed is closed when the engine has failed for good; Err then says why.
	Failed() <-chan struct{}
	Err() error
	// Close completes the writes that have begun, seals what is open and gives the engine free. Logs and tables are not used
	// afterwards.
	Close() error
}

// LogOptions bound a log. Beyond either bound the oldest entries are removed.
type LogOptions struct {
	// MaxAge is how long an entry is readable, by the time it was appended; 0: unlimited. The bound is exact to a second for
	// every way of reading, whenever the bytes are removed.
	MaxAge time.Duration
	// MaxBytes is how much the log may occupy; 0: unlimited. An engine keeps to it by whole segments, so that up to a sixteenth
	// less may be readable.
	MaxBytes int64
}

// Log is an append-only sequence of entries. Its methods may be called concurrently; entries that are appended at the same time get
// their sequences in any order.
type Log interface {
	// ID identifies the log, among all logs: it is made up when the log is created, and stays. A copy has the same id.
	ID() string

	// Append stores an entry after all others, and returns it (without its data). It returns nil only if the entry survives
	// what Durability says. An error but ErrUnavailable and ErrFailed means that nothing was stored, now or later.
	// The data is not used after Append has returned.
	Append(ctx context.Context, data []byte) (Entry, error)

	// Read yields everything from a sequence on to what is the end when Read is called, in order: each sequence is in exactly one
	// item, an entry or a gap. From 0 or before the first retained one, the first item is a gap that is Expired (from 0 it has
	// none: reading starts at the first). It ends without an error at the end, with ctx's error when that is done, with ErrClosed
	// or ErrUnavailable. What the items hold is valid until the next one is asked for.
	Read(ctx context.Context, from uint64) iter.Seq2[Item, error]

	// Find returns the first sequence that was appended at a time or later, and that is retained: what Info calls Next when there
	// is none.
	Find(ctx context.Context, at time.Time) (uint64, error)

	// Wait returns nil when the log has an entry (or a gap) with a sequence or a later one, ctx's error, ErrClosed, or
	// ErrUnavailable.
	Wait(ctx context.Context, sequence uint64) error

	// Info describes the log. It is cheap: an engine answers from memory, or asks once.
	Info(ctx context.Context) (Info, error)

	// Trim removes every entry before a sequence. They are unreadable when it returns; their space is freed later.
	Trim(ctx context.Context, before uint64) error

	// SetOptions changes the bounds while the log is in use.
	SetOptions(options LogOptions) error

	// Close gives the log free; reads that run end with ErrClosed. The engine's Close does the same.
	Close() error
}

// Rewriter is a log that can physically replace what it stores.
type Rewriter interface {
	// Rewrite calls edit with each of the entries at these sequences (ascending) that are retained and intact, and stores what it
	// returns in their place: at most as long, with the same sequence, time and epoch. Nil data leaves a gap that is Erased. When
	// it returns nil, the data replaced is in no file of the log any more. After an error or a crash, each entry is what it was
	// or what it became; calling again completes it. Reads go on meanwhile and see either.
	Rewrite(ctx context.Context, sequences []uint64, edit func(sequence uint64, data []byte) ([]byte, error)) error
}

// Keyed is a log that several gateways share, and that recognises what two of them append at the same time.
type Keyed interface {
	// AppendKeyed appends an entry as Append does, unless one with this key was appended a short time ago, by whichever gateway: then
	// it returns that one, and true.
	AppendKeyed(ctx context.Context, key, data []byte) (Entry, bool, error)
}

// Compactor is a table that can physically remove what is out of date.
type Compactor interface {
	// Compact returns nil when nothing that was out of date when it was called is in any file of the table.
	Compact(ctx context.Context) error
}

// Entry is what a log stores under a sequence.
type Entry struct {
	Sequence uint64
	// Time is when it was appended, by the engine's clock. It never decreases along a log. An engine elsewhere lets Append return
	// the caller's own time.
	Time time.Time
	// Epoch is that of the opening of the log that appended it. Two copies of a log that both went on have different epochs
	// from where they parted, with a probability of one in 2^32 to be the same.
	Epoch uint32
	Data  []byte
}

// Item is one step of reading: an entry, or a gap when Gap.Count is not 0.
type Item struct {
	Entry
	Gap Gap
}

// Gap is a run of sequences without readable entries.
type Gap struct {
	From, Count uint64
	Reason      Reason
}

// Reason says why there is nothing to read.
type Reason int

const (
	// Expired entries were removed by a bound or by Trim.
	Expired Reason = iota + 1
	// Corrupt entries do not hold what was written: their checksum does not match, or their file is missing.
	Corrupt
	// Erased entries were removed on purpose by Rewrite.
	Erased
)

// Info describes a log at one moment.
type Info struct {
	// First is the sequence of the first retained entry, Next that of the next one to be appended. They are equal when there is
	// nothing to read.
	First, Next uint64
	// FirstTime and LastTime are those of the first and last retained entry; zero without one.
	FirstTime, LastTime time.Time
	// Bytes is what the log occupies.
	Bytes int64
	// Epochs are those of the retained entries, in the order of the log: each with the first sequence that has it.
	Epochs []Epoch
}

// Epoch is a run of entries that were appended by one opening of a log.
type Epoch struct {
	ID    uint32
	First uint64
}

// EpochAt returns the epoch of a sequence; false when it is before all that are known.
func (i Info) EpochAt(sequence uint64) (uint32, bool) {
	for k := len(i.Epochs) - 1; k >= 0; k-- {
		if i.Epochs[k].First <= sequence {
			return i.Epochs[k].ID, true
		}
	}
	return 0, false
}

// KVOptions bound a table. Beyond either bound the values that were put longest ago are removed first.
type KVOptions struct {
	// MaxAge is how long a value is kept after it was put; 0: unlimited.
	MaxAge time.Duration
	// MaxBytes is how many bytes of keys and values are kept; 0: unlimited.
	MaxBytes int64
}

// Revisions that no value has, for Put.
const (
	// Absent is the revision of a key without a value.
	Absent uint64 = 0
	// Any puts whatever the revision is.
	Any uint64 = 1<<64 - 1
)

// KV is a table of small values. Keys consist of letters, digits and "-_=./", do not begin or end with a period and have no two in
// a row, so that they are subjects of NATS too. All methods may be called concurrently.
type KV interface {
	// Get returns the value of a key; ErrNotFound, or ErrCorrupt when it does not hold.
	Get(ctx context.Context, key string) (Value, error)

	// Put stores a value if the one that is there has the given revision, Absent or Any, and returns the new revision:
	// ErrConflict otherwise. It returns nil only if the value survives what Durability says; an error but ErrUnavailable and
	// ErrFailed means that nothing was stored. Puts that are made together share one sync. A corrupt value keeps its revision
	// and can be replaced.
	Put(ctx context.Context, key string, data []byte, revision uint64) (uint64, error)

	// Delete removes a value, durably, if it has the given revision, or Any. Without a value it returns ErrNotFound.
	Delete(ctx context.Context, key string, revision uint64) error

	// List yields the values whose keys begin with a prefix (all of them when it is empty; else it ends with a period), in the
	// order of their keys, after a key ("": from the first). A value that does not hold is yielded with ErrCorrupt beside its key,
	// and the listing goes on; any other error ends it. Values that are put or deleted meanwhile may or may not be yielded. With
	// keysOnly, data is not read and not given.
	List(ctx context.Context, prefix, after string, keysOnly bool) iter.Seq2[Value, error]

	// Watch yields what is put and deleted under a prefix from when it is called on, until ctx is done or with an error. When
	// several changes of a key come close together, all but the last may be left out. Data is not given: see Get.
	Watch(ctx context.Context, prefix string) (iter.Seq2[Change, error], error)

	// Info describes the table.
	Info(ctx context.Context) (KVInfo, error)

	// SetOptions changes the bounds while the table is in use.
	SetOptions(options KVOptions) error
}

// Value is what a table holds under a key.
type Value struct {
	Key      string
	Data     []byte // the caller's own
	Revision uint64 // grows with each change of the table
	Time     time.Time
}

// Change is one change of a key.
type Change struct {
	Key     string
	Deleted bool
}

// KVInfo describes a table at one moment.
type KVInfo struct {
	Keys  int
	Bytes int64 // of keys and values
	Disk  int64 // what the table occupies
	// Removed counts the values that were removed by a bound since the table was opened.
	Removed uint64
	// Corrupt counts values found corrupt, since it was opened.
	Corrupt uint64
	// Oldest is when the oldest value was put; zero without one.
	Oldest time.Time
}
