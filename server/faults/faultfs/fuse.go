package faultfs

import (
	"maps"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// handle is an open file or directory.
type handle struct {
	node    *node
	flags   uint32          // of open(2)
	listing []fuse.DirEntry // of a directory, as it was when it was opened
}

// synchronous reports whether each write is synced.
func (h *handle) synchronous() bool { return h.flags&syscall.O_DSYNC != 0 } // part of O_SYNC too

// bridge translates between the kernel and the model. The kernel caches nothing: it asks for every name and attribute anew and
// passes reads and writes on as they are, so that it cannot show what a power cut has taken away.
type bridge struct {
	fuse.RawFileSystem // refuses everything that is not defined here
	fs                 *FS
}

// node returns what the kernel means. What it knew before a power cut does not exist any more.
func (b bridge) node(id uint64) (*node, fuse.Status) {
	if b.fs.power.off {
		return nil, fuse.EIO
	}
	if n := b.fs.nodes[id]; n != nil {
		return n, fuse.OK
	}
	return nil, fuse.Status(syscall.ESTALE)
}

// open makes a handle.
func (b bridge) open(n *node, flags uint32, out *fuse.OpenOut) *handle {
	b.fs.handle++
	h := &handle{node: n, flags: flags}
	n.handles++
	b.fs.handles[b.fs.handle] = h
	out.Fh = b.fs.handle
	return h
}

// look tells the kernel of a node.
func (b bridge) look(n *node, out *fuse.EntryOut) {
	n.lookups++
	b.fs.nodes[n.id] = n
	out.NodeId, out.Generation = n.id, 1
	n.attributes(&out.Attr)
}

func (n *node) attributes(out *fuse.Attr) {
	*out = fuse.Attr{Ino: n.id, Mode: n.mode & 0o7777, Nlink: 1, Size: uint64(len(n.data)), Blksize: blockSize}
	out.Owner = *fuse.CurrentOwner()
	if n.dir {
		out.Mode |= syscall.S_IFDIR
		out.Nlink = 2
	} else {
		out.Mode |= syscall.S_IFREG
		out.Blocks = uint64(space(int64(len(n.data)))) / 512
	}
	if !n.linked {
		out.Nlink = 0
	}
	out.SetTimes(&n.modified, &n.modified, &n.modified)
}

func (b bridge) String() string { return "faultfs" }

func (b bridge) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	parent, status := b.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	n := parent.entries[name]
	if n == nil {
		return fuse.ENOENT
	}
	b.look(n, out)
	return fuse.OK
}

func (b bridge) Forget(id, count uint64) {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	if n := b.fs.nodes[id]; n != nil && id != fuse.FUSE_ROOT_ID {
		if n.lookups -= count; n.lookups == 0 {
			delete(b.fs.nodes, id)
		}
	}
}

func (b bridge) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	n, status := b.node(in.NodeId)
	if status.Ok() {
		n.attributes(&out.Attr)
	}
	return status
}

func (b bridge) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	n, status := b.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	if size, ok := in.GetSize(); ok {
		if status := b.truncate(n, int64(size)); !status.Ok() {
			return status
		}
	}
	if mode, ok := in.GetMode(); ok {
		n.mode = mode
	}
	if modified, ok := in.GetMTime(); ok {
		n.modified = modified
	}
	n.attributes(&out.Attr)
	return fuse.OK
}

func (b bridge) truncate(n *node, size int64) fuse.Status {
	if n.dir {
		return fuse.Status(syscall.EISDIR)
	}
	if status := b.fs.begin(OpTruncate, n.name); !status.Ok() {
		return status
	}
	return fuse.Status(b.fs.disk.truncate(n, size))
}

// create makes a file or a directory and tells the kernel of it.
func (b bridge) create(parentID uint64, name string, dir bool, mode uint32, out *fuse.EntryOut) (*node, fuse.Status) {
	parent, status := b.node(parentID)
	if !status.Ok() {
		return nil, status
	}
	b.fs.stats.Names++
	if status := b.fs.begin(OpCreate, name); !status.Ok() {
		return nil, status
	}
	n, errno := b.fs.disk.create(parent, name, dir, mode)
	if errno != 0 {
		return nil, fuse.Status(errno)
	}
	b.look(n, out)
	return n, fuse.OK
}

func (b bridge) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	_, status := b.create(in.NodeId, name, true, in.Mode, out)
	return status
}

func (b bridge) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	n, status := b.create(in.NodeId, name, false, in.Mode, &out.EntryOut)
	if !status.Ok() {
		return status
	}
	b.open(n, in.Flags, &out.OpenOut)
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

func (b bridge) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return b.remove(in.NodeId, name, false)
}

func (b bridge) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return b.remove(in.NodeId, name, true)
}

func (b bridge) remove(parentID uint64, name string, dir bool) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	parent, status := b.node(parentID)
	if !status.Ok() {
		return status
	}
	b.fs.stats.Names++
	if status := b.fs.begin(OpRemove, name); !status.Ok() {
		return status
	}
	return fuse.Status(b.fs.disk.remove(parent, name, dir))
}

func (b bridge) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	const noReplace = 1 // RENAME_NOREPLACE
	if in.Flags&^noReplace != 0 {
		return fuse.EINVAL
	}
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	oldParent, status := b.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	newParent, status := b.node(in.Newdir)
	if !status.Ok() {
		return status
	}
	b.fs.stats.Names++
	if status := b.fs.begin(OpRename, oldName); !status.Ok() {
		return status
	}
	return fuse.Status(b.fs.disk.rename(oldParent, oldName, newParent, newName, in.Flags == noReplace))
}

func (b bridge) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	n, status := b.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	if status := b.fs.begin(OpOpen, n.name); !status.Ok() {
		return status
	}
	if in.Flags&syscall.O_TRUNC != 0 {
		if status := b.truncate(n, 0); !status.Ok() {
			return status
		}
	}
	b.open(n, in.Flags, out)
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

func (b bridge) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	n, status := b.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	if status := b.fs.begin(OpOpen, n.name); !status.Ok() {
		return status
	}
	h := b.open(n, in.Flags, out)
	h.listing = []fuse.DirEntry{{Name: ".", Mode: syscall.S_IFDIR, Ino: n.id}, {Name: "..", Mode: syscall.S_IFDIR, Ino: n.id}}
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		e := fuse.DirEntry{Name: name, Mode: syscall.S_IFREG, Ino: n.entries[name].id}
		if n.entries[name].dir {
			e.Mode = syscall.S_IFDIR
		}
		h.listing = append(h.listing, e)
	}
	return fuse.OK
}

// opened returns an open file or directory. One from before a power cut is of no use.
func (b bridge) opened(fh uint64) (*handle, fuse.Status) {
	if h := b.fs.handles[fh]; h != nil {
		return h, fuse.OK
	}
	return nil, fuse.EIO
}

func (b bridge) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	h, status := b.opened(in.Fh)
	if !status.Ok() {
		return status
	}
	for i := in.Offset; i < uint64(len(h.listing)); i++ {
		e := h.listing[i]
		e.Off = i + 1
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (b bridge) Read(_ <-chan struct{}, in *fuse.ReadIn, buffer []byte) (fuse.ReadResult, fuse.Status) {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	h, status := b.opened(in.Fh)
	if !status.Ok() {
		return nil, status
	}
	if status := b.fs.begin(OpRead, h.node.name); !status.Ok() {
		return nil, status
	}
	n := 0
	if in.Offset < uint64(len(h.node.data)) {
		n = copy(buffer, h.node.data[in.Offset:])
	}
	return fuse.ReadResultData(buffer[:n]), fuse.OK
}

func (b bridge) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	h, status := b.opened(in.Fh)
	if !status.Ok() {
		return 0, status
	}
	b.fs.stats.Writes++
	if status := b.fs.begin(OpWrite, h.node.name); !status.Ok() {
		return 0, status
	}
	offset := int64(in.Offset)
	if h.flags&syscall.O_APPEND != 0 {
		offset = int64(len(h.node.data))
	}
	n, errno := b.fs.disk.write(h.node, offset, data)
	if errno != 0 {
		return 0, fuse.Status(errno)
	}
	if h.synchronous() {
		b.fs.stats.SyncWrites++
		if status := b.sync(OpSync, h.node); !status.Ok() {
			return 0, status
		}
	}
	return uint32(n), fuse.OK
}

// sync syncs a file or a directory.
func (b bridge) sync(op Op, n *node) fuse.Status {
	status := b.fs.begin(op, n.name)
	switch {
	case status.Ok():
		b.fs.sync(n)
	case !b.fs.power.off:
		b.fs.disk.syncFailed(n, b.fs.random)
	}
	return status
}

func (b bridge) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	h, status := b.opened(in.Fh)
	if !status.Ok() {
		return status
	}
	b.fs.stats.Syncs++
	return b.sync(OpSync, h.node)
}

func (b bridge) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	h, status := b.opened(in.Fh)
	if !status.Ok() {
		return status
	}
	b.fs.stats.DirSyncs++
	return b.sync(OpSyncDir, h.node)
}

// Flush is close(2), which syncs nothing.
func (b bridge) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (b bridge) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { b.release(in.Fh) }

func (b bridge) ReleaseDir(in *fuse.ReleaseIn) { b.release(in.Fh) }

func (b bridge) release(fh uint64) {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	if h := b.fs.handles[fh]; h != nil {
		delete(b.fs.handles, fh)
		h.node.handles--
		b.fs.disk.release(h.node)
	}
}

func (b bridge) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	b.fs.mu.Lock()
	defer b.fs.mu.Unlock()
	if b.fs.power.off {
		return fuse.EIO
	}
	free := uint64(b.fs.disk.free()) / blockSize
	*out = fuse.StatfsOut{
		Blocks: uint64(b.fs.disk.used)/blockSize + free, Bfree: free, Bavail: free,
		Files: 1 << 32, Ffree: 1 << 31, Bsize: blockSize, Frsize: blockSize, NameLen: 255,
	}
	return fuse.OK
}
