package faultfs

import (
	"path"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Op is a set of operations.
type Op uint

// The operations that can fail.
const (
	// OpOpen opens what exists.
	OpOpen Op = 1 << iota
	// OpCreate creates a file or a directory.
	OpCreate
	OpRead
	OpWrite
	OpTruncate
	// OpSync syncs a file: fsync, fdatasync, and the second half of a write with O_SYNC or O_DSYNC.
	OpSync
	// OpSyncDir syncs a directory.
	OpSyncDir
	OpRename
	// OpRemove removes a file or a directory.
	OpRemove

	// changing are those that a timed power cut counts.
	changing = OpCreate | OpWrite | OpTruncate | OpSync | OpSyncDir | OpRename | OpRemove
)

// Fault describes operations that fail. An operation that fails has changed nothing; see the package comment for syncs.
type Fault struct {
	// Ops that fail. Required.
	Ops Op
	// Err is what they fail with, such as EIO or ENOSPC. Required.
	Err syscall.Errno
	// Name is a pattern of [path.Match] for the last element of the file's name, the old one in a rename. Default: every file.
	Name string
	// After is how many matching operations are let through first.
	After int
	// Times is how many fail, after which the fault is over. Default: until cleared.
	Times int
	// Probability that a matching operation fails, once After is over. Default: 1.
	Probability float64
}

// fault is a Fault in force. The file system's lock guards it.
type fault struct {
	Fault
	failed int
}

// Fail makes operations fail until clear is called. Of several faults the one that was set first decides. A power cut does not clear it.
func (fs *FS) Fail(f Fault) (clear func()) {
	if f.Ops == 0 || f.Err == 0 {
		panic("faultfs: a fault without operations or error")
	}
	if _, err := path.Match(f.Name, ""); err != nil {
		panic("faultfs: " + err.Error() + ": " + f.Name)
	}
	if f.Probability == 0 {
		f.Probability = 1
	}
	set := &fault{Fault: f}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.faults = append(fs.faults, set)
	return func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		set.Ops = 0
	}
}

// failure returns how the operation fails, or OK.
func (fs *FS) failure(op Op, name string) fuse.Status {
	for _, f := range fs.faults {
		if f.hits(op, name) && (f.Probability >= 1 || fs.random.Float64() < f.Probability) {
			f.failed++
			return fuse.Status(f.Err)
		}
	}
	return fuse.OK
}

func (f *fault) hits(op Op, name string) bool {
	if f.Ops&op == 0 || f.Times > 0 && f.failed == f.Times {
		return false
	}
	if matched, _ := path.Match(f.Name, name); f.Name != "" && !matched {
		return false
	}
	if f.After > 0 {
		f.After--
		return false
	}
	return true
}
