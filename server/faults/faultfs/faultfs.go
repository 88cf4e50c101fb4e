// Package faultfs answers one question: what is on the disk after the power went?
//
// It is a file system for tests. The process under test, a child of the test, works on it through the kernel as on any other; the test
// decides when the power goes, which operations fail, how large the disk is and whether its syncs tell the truth.
//
// # Two views
//
// Running processes see every operation at once, as they do through the page cache. The disk has only what was made durable:
//
//   - The contents of a file: what was written or truncated, through whatever descriptor, before an fsync or fdatasync of that file or
//     by the end of a write through a descriptor opened with O_SYNC or O_DSYNC. Nothing else syncs: neither close nor rename.
//   - The names of files and directories: as the chosen [Metadata] says. Its values range from what ext4 and xfs do to the least that
//     POSIX promises.
//
// [FS.PowerCut] ends all access. Of what was not durable, a seeded part survives: it may have been written back already, block by block
// of 4 KiB in any order, so a write may be torn at each multiple of that. A block that is lost before one that survives leaves zeros.
// Contents and names survive independently of each other, so a file that was renamed but not synced may be empty. [FS.Restore] serves
// what survived, now all of it durable.
//
// A sync that fails by [FS.Fail] has written back a part of what it should have and forgets the rest, as on Linux: running processes
// still see the contents, but a later sync that succeeds brings them to the disk only where their block has been written to since.
//
// # What is left out
//
// Modes and times are durable at once. There are no links, no owners, no extended attributes, no writable shared mappings. sync(2) and
// syncfs(2) do nothing here: programs that rely on them lose data that a real disk would keep. A disk that damages what was durable is
// another kind of fault. All contents are in memory, up to three times.
//
// # Use
//
//	disk := faultfs.Start(t, faultfs.Options{})
//	child := startGateway(disk.Dir())
//	cut := disk.PowerCutAfter(random.IntN(1000), random)
//	<-cut
//	child.Kill() // before Restore: it must not meet its own past
//	disk.Restore()
//
// The process that serves the file system should not use it for more than single operations: a thread that waits for the kernel, which
// waits for this process, is a deadlock when it is the last one.
package faultfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Metadata says when the creation, renaming and removal of files and directories is durable. Each of them is atomic.
type Metadata int

const (
	// Journal keeps them in one order, as ext4 and xfs do. A sync of a file or directory makes durable the last of them that
	// concerned it, and with it all earlier ones, wherever they were. A power cut loses all after some point. It is stricter than
	// those file systems where a sync for other reasons takes the whole journal along, as one after an append does on ext4.
	Journal Metadata = iota
	// Unordered loses each by itself, except that nothing that happened to a file survives without what happened to it before. A
	// sync of a file or directory makes its creation durable, with that of the directories above it; a sync of a directory
	// also makes durable all that happened to the names in it. A rename between two directories needs a sync of one of them.
	Unordered
	// Posix is Unordered, but only a sync of the directory makes a creation durable, not one of the file or from below.
	Posix
)

// String names the model.
func (m Metadata) String() string {
	switch m {
	case Journal:
		return "journal"
	case Unordered:
		return "unordered"
	case Posix:
		return "posix"
	}
	return fmt.Sprintf("Metadata(%d)", int(m))
}

// Options of a file system. The zero value of a field means its default.
type Options struct {
	// Metadata is when names are durable. Default: Journal.
	Metadata Metadata
	// Capacity in bytes; see [FS.SetCapacity]. Default: no limit.
	Capacity int64
	// Seed of the faults that have a probability, and of what a failed sync wrote back. The same seed gives the same
	// decisions only to the same operations in the same order.
	Seed uint64
}

// ErrNoFUSE says that this machine cannot mount the file system.
var ErrNoFUSE = errors.New("no FUSE here: Linux, /dev/fuse and the right to mount are needed")

// FS is a mounted file system. Its methods may be called concurrently.
type FS struct {
	dir    string
	server *fuse.Server

	mu      sync.Mutex // held by every operation, so a power cut comes between two of them
	disk    *disk
	nodes   map[uint64]*node // that the kernel knows
	handles map[uint64]*handle
	handle  uint64 // the last one given out
	random  *rand.Rand
	faults  []*fault
	lying   bool
	stats   Stats
	power   power
}

// power is the state of the supply.
type power struct {
	off    bool
	left   int           // operations until the cut, if timed is not nil
	timed  chan struct{} // closed by the cut
	random *rand.Rand    // for the cut
}

// Stats count what was asked for since the file system was mounted, whether it succeeded or not.
type Stats struct {
	// Writes, of which SyncWrites through a descriptor opened with O_SYNC or O_DSYNC. The kernel splits large writes.
	Writes, SyncWrites uint64
	// Syncs of files, by fsync and fdatasync.
	Syncs uint64
	// DirSyncs are syncs of directories.
	DirSyncs uint64
	// Names that were created, renamed or removed.
	Names uint64
	// Lies are syncs and synchronous writes that were answered without being done.
	Lies uint64
}

func newFS(options Options) *FS {
	fs := &FS{
		disk:   newDisk(options.Metadata),
		random: rand.New(rand.NewPCG(options.Seed, 0)),
	}
	fs.disk.capacity = options.Capacity
	fs.forget()
	return fs
}

// forget drops everything that the kernel holds of the file system but its root.
func (fs *FS) forget() {
	fs.nodes = map[uint64]*node{fuse.FUSE_ROOT_ID: fs.disk.root}
	fs.handles = make(map[uint64]*handle)
}

// Dir is where the file system is mounted.
func (fs *FS) Dir() string { return fs.dir }

// PowerCut ends all access: from its return on, every operation fails with EIO. A nil random keeps exactly what was durable. Otherwise
// it decides what else survives: nothing, all, or a part. A second cut before Restore does nothing.
func (fs *FS) PowerCut(random *rand.Rand) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.cut(random)
}

// PowerCutAfter cuts the power when so many more operations that change or sync something have been done: the next one of them is
// not. The channel is closed by then, or by a PowerCut that comes first. A second call replaces the first, and Restore cancels it.
func (fs *FS) PowerCutAfter(operations int, random *rand.Rand) <-chan struct{} {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	done := make(chan struct{})
	if fs.power.off {
		close(done)
		return done
	}
	fs.power = power{left: operations, timed: done, random: random}
	return done
}

// cut is PowerCut with the lock held.
func (fs *FS) cut(random *rand.Rand) {
	if fs.power.off {
		return
	}
	if fs.power.timed != nil {
		close(fs.power.timed)
	}
	fs.power = power{off: true}
	fs.disk.powerCut(random)
	fs.forget()
}

// Restore switches the power on again. The processes that had the file system open must have ended, or they would go on by
// name with what they hold for the present. Faults, capacity and lying stay as they were.
func (fs *FS) Restore() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.power = power{}
}

// SetCapacity sets the size of the disk in bytes; 0 means no limit. A write that no longer fits is cut short at a block or fails with
// ENOSPC, and a file or directory that no longer fits is not created. What statfs(2) tells agrees with it. Each file takes its size
// rounded up to blocks of 4 KiB, and one block more. A capacity below what is used leaves nothing free, and removes nothing.
func (fs *FS) SetCapacity(bytes int64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.disk.capacity = bytes
}

// Used returns how many bytes of the capacity are in use.
func (fs *FS) Used() int64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.disk.used
}

// SetLying makes syncs and synchronous writes succeed without making anything durable, as a disk does that keeps its cache to itself.
// A test that passes with it proves nothing.
func (fs *FS) SetLying(lying bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.lying = lying
}

// Stats returns the counters.
func (fs *FS) Stats() Stats {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.stats
}

// begin opens every operation. The name is that of the file concerned.
func (fs *FS) begin(op Op, name string) fuse.Status {
	if fs.power.off {
		return fuse.EIO
	}
	if op&changing != 0 && fs.power.timed != nil {
		if fs.power.left == 0 {
			fs.cut(fs.power.random)
			return fuse.EIO
		}
		fs.power.left--
	}
	return fs.failure(op, name)
}

// sync makes a file or directory durable, or pretends to.
func (fs *FS) sync(n *node) {
	if fs.lying {
		fs.stats.Lies++
		return
	}
	fs.disk.sync(n)
}
