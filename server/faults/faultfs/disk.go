package faultfs

import (
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
)

// blockSize is what the disk writes whole or not at all, and the unit of its space.
const blockSize = 4096

// disk is the model: what processes see, and what would be left. It knows neither FUSE nor locks.
type disk struct {
	metadata Metadata
	root     *node
	lastID   uint64

	// journal has the operations on names that are not durable, oldest first, and behind those, ones that are.
	journal []*operation
	number  uint64 // of the last operation ever

	used, capacity int64
}

// node is a file or a directory.
type node struct {
	id       uint64
	dir      bool
	mode     uint32
	modified time.Time
	name     string // the last one it had

	entries        map[string]*node // of a directory, as processes see it
	durableEntries map[string]*node // the same on the disk, without the journal

	data    []byte   // of a file, as processes see it
	durable []byte   // the same on the disk
	changes []change // lead from durable to data

	last uint64 // the last operation that concerned it

	linked  bool   // has a name
	handles int    // that are open
	lookups uint64 // by the kernel, which has not forgotten them
}

// change is a write, or the setting of a size.
type change struct {
	offset   int64 // or the size
	data     []byte
	truncate bool
}

// operation is the creation, renaming or removal of a node.
type operation struct {
	number  uint64
	node    *node
	creates bool
	entries []entry // one or two
	durable bool
}

// entry is what a name in a directory stands for: nothing if node is nil.
type entry struct {
	dir  *node
	name string
	node *node
}

func newDisk(metadata Metadata) *disk {
	d := &disk{metadata: metadata}
	d.root = d.newNode(true, 0o755)
	d.root.linked = true
	return d
}

func (d *disk) newNode(dir bool, mode uint32) *node {
	d.lastID++
	n := &node{id: d.lastID, dir: dir, mode: mode, modified: time.Now()}
	if dir {
		n.entries, n.durableEntries = map[string]*node{}, map[string]*node{}
	}
	return n
}

// free returns how many bytes can still be used.
func (d *disk) free() int64 {
	if d.capacity == 0 {
		return 1 << 40
	}
	return max(d.capacity-d.used, 0)
}

// space returns what a file of this size takes.
func space(size int64) int64 { return (size + blockSize - 1) / blockSize * blockSize }

// record performs an operation on names: at once for processes, in the journal for the disk.
func (d *disk) record(n *node, creates bool, entries ...entry) {
	d.number++
	op := &operation{number: d.number, node: n, creates: creates, entries: entries}
	n.last = op.number
	for _, e := range entries {
		if old := e.dir.entries[e.name]; old != nil && old != n {
			old.last = op.number
			old.linked = false
			d.release(old)
		}
		if e.node != nil {
			e.dir.entries[e.name] = e.node
			e.node.name = e.name
		} else {
			delete(e.dir.entries, e.name)
		}
		e.dir.last = op.number
		e.dir.modified = time.Now()
	}
	d.journal = append(d.journal, op)
}

// create makes a file or a directory.
func (d *disk) create(parent *node, name string, dir bool, mode uint32) (*node, syscall.Errno) {
	switch {
	case !parent.linked:
		return nil, syscall.ENOENT
	case parent.entries[name] != nil:
		return nil, syscall.EEXIST
	case d.free() < blockSize:
		return nil, syscall.ENOSPC
	}
	n := d.newNode(dir, mode)
	n.linked = true
	d.used += blockSize
	d.record(n, true, entry{parent, name, n})
	return n, 0
}

// remove takes away a file, or an empty directory if dir is set.
func (d *disk) remove(parent *node, name string, dir bool) syscall.Errno {
	n := parent.entries[name]
	switch {
	case n == nil:
		return syscall.ENOENT
	case n.dir && !dir:
		return syscall.EISDIR
	case !n.dir && dir:
		return syscall.ENOTDIR
	case len(n.entries) > 0:
		return syscall.ENOTEMPTY
	}
	n.linked = false
	d.record(n, false, entry{parent, name, nil})
	d.release(n)
	return 0
}

// rename gives a file or directory another name, in place of what has that name unless noReplace is set.
func (d *disk) rename(oldParent *node, oldName string, newParent *node, newName string, noReplace bool) syscall.Errno {
	n, replaced := oldParent.entries[oldName], newParent.entries[newName]
	switch {
	case n == nil, !newParent.linked:
		return syscall.ENOENT
	case n == replaced:
		return 0
	case replaced == nil:
	case noReplace:
		return syscall.EEXIST
	case replaced.dir && !n.dir:
		return syscall.EISDIR
	case !replaced.dir && n.dir:
		return syscall.ENOTDIR
	case len(replaced.entries) > 0:
		return syscall.ENOTEMPTY
	}
	d.record(n, false, entry{oldParent, oldName, nil}, entry{newParent, newName, n})
	n.linked = true
	return 0
}

// release gives back the space of a file that has neither a name nor a descriptor any more.
func (d *disk) release(n *node) {
	if !n.linked && n.handles == 0 {
		d.used -= blockSize + space(int64(len(n.data)))
	}
}

// write returns how much of the data was written: less than all if the disk is full.
func (d *disk) write(n *node, offset int64, data []byte) (int, syscall.Errno) {
	size := int64(len(n.data))
	if room := space(size) + d.free()/blockSize*blockSize; offset+int64(len(data)) > room {
		if offset >= room {
			return 0, syscall.ENOSPC
		}
		data = data[:room-offset]
	}
	c := change{offset: offset, data: slices.Clone(data)}
	n.changes = append(n.changes, c)
	n.data = c.apply(n.data)
	n.modified = time.Now()
	d.used += space(int64(len(n.data))) - space(size)
	return len(data), 0
}

func (d *disk) truncate(n *node, size int64) syscall.Errno {
	old := int64(len(n.data))
	if size == old {
		return 0
	}
	if space(size)-space(old) > d.free() {
		return syscall.ENOSPC
	}
	c := change{offset: size, truncate: true}
	n.changes = append(n.changes, c)
	n.data = c.apply(n.data)
	n.modified = time.Now()
	d.used += space(size) - space(old)
	return 0
}

// apply returns the contents after the change.
func (c change) apply(contents []byte) []byte {
	if c.truncate {
		return resize(contents, c.offset)
	}
	if end := c.offset + int64(len(c.data)); end > int64(len(contents)) {
		contents = resize(contents, end)
	}
	copy(contents[c.offset:], c.data)
	return contents
}

// resize cuts contents or extends them with zeros.
func resize(contents []byte, size int64) []byte {
	old := int64(len(contents))
	if size <= old {
		return contents[:size]
	}
	contents = slices.Grow(contents, int(size-old))[:size]
	clear(contents[old:])
	return contents
}

// pieces are the parts of the change that reach the disk each by itself.
func (c change) pieces(yield func(change) bool) {
	if c.truncate {
		yield(c)
		return
	}
	for offset, data := c.offset, c.data; len(data) > 0; {
		length := min(blockSize-offset%blockSize, int64(len(data)))
		if !yield(change{offset: offset, data: data[:length]}) {
			return
		}
		offset, data = offset+length, data[length:]
	}
}

// sync makes durable all that a sync of n does.
func (d *disk) sync(n *node) {
	for _, c := range n.changes {
		n.durable = c.apply(n.durable)
	}
	for _, c := range n.changes { // whole blocks go out, with what a failed sync has left behind in them
		end := min(space(c.offset+int64(len(c.data))), int64(len(n.data)), int64(len(n.durable)))
		if from := c.offset / blockSize * blockSize; !c.truncate && from < end {
			copy(n.durable[from:end], n.data[from:end])
		}
	}
	n.changes = nil
	if d.metadata == Journal {
		for _, op := range d.journal {
			op.durable = op.durable || op.number <= n.last
		}
	} else {
		d.syncNames(n)
	}
	// What is durable and has nothing before it that is not, is no longer in question.
	for len(d.journal) > 0 && d.journal[0].durable {
		d.journal[0].apply()
		d.journal = d.journal[1:]
	}
}

// syncNames makes durable the names that a sync of n does without a journal.
func (d *disk) syncNames(n *node) {
	for i, op := range d.journal {
		concerns := op.node == n && op.creates && d.metadata != Posix
		for _, e := range op.entries {
			concerns = concerns || e.dir == n
		}
		if !concerns || op.durable {
			continue
		}
		for _, earlier := range d.journal[:i+1] {
			earlier.durable = earlier.durable || earlier.node == op.node
		}
	}
	if d.metadata != Posix {
		d.syncCreation(n)
	}
}

// syncCreation makes durable that n and the directories above it exist.
func (d *disk) syncCreation(n *node) {
	for _, op := range d.journal {
		if op.node == n && op.creates {
			op.durable = true
			d.syncCreation(op.entries[0].dir)
		}
	}
}

// apply performs the operation on the disk.
func (op *operation) apply() {
	for _, e := range op.entries {
		if e.node != nil {
			e.dir.durableEntries[e.name] = e.node
		} else {
			delete(e.dir.durableEntries, e.name)
		}
	}
}

// syncFailed writes back a part of what is to be synced and forgets the rest.
func (d *disk) syncFailed(n *node, random *rand.Rand) {
	n.durable = n.surviving(coin(random, 0.5))
	n.changes = nil
}

// powerCut leaves what is durable and what else random decides.
func (d *disk) powerCut(random *rand.Rand) {
	survives, point := coin(nil, 0), 0
	if random != nil {
		// Extremes are likely: all of one thing with nothing of another is where mistakes show.
		chances := []float64{0, 0.1, 0.5, 0.9, 1}
		survives = coin(random, chances[random.IntN(len(chances))])
		point = random.IntN(len(d.journal) + 1)
	}
	lost := make(map[*node]bool)
	for i, op := range d.journal {
		kept := op.durable
		if d.metadata == Journal {
			kept = kept || i < point
		} else {
			kept = kept || !lost[op.node] && survives()
		}
		if kept {
			op.apply()
		} else {
			lost[op.node] = true
		}
	}
	d.journal = nil
	d.used = 0
	root := d.root.id
	d.root = d.survivor(d.root, survives)
	d.root.id = root // the one that the kernel cannot look up
}

// survivor returns what a node is after the cut: a new one, since no process may reach it from before.
func (d *disk) survivor(n *node, survives func() bool) *node {
	after := d.newNode(n.dir, n.mode)
	after.modified, after.linked = n.modified, true
	if !n.dir {
		after.durable = n.surviving(survives)
		after.data = slices.Clone(after.durable)
		d.used += space(int64(len(after.data)))
		return after
	}
	for _, name := range slices.Sorted(maps.Keys(n.durableEntries)) {
		child := d.survivor(n.durableEntries[name], survives)
		child.name = name
		after.entries[name], after.durableEntries[name] = child, child
		d.used += blockSize
	}
	return after
}

// surviving returns the contents on the disk when only some of the changes since the last sync have reached it.
func (n *node) surviving(survives func() bool) []byte {
	contents := n.durable
	waiting := map[int64][]change{} // by block: they reach the disk when a later change of the block does
	for _, c := range n.changes {
		for piece := range c.pieces {
			block := piece.offset / blockSize
			if !piece.truncate {
				waiting[block] = append(waiting[block], piece)
			}
			switch {
			case !survives():
			case piece.truncate:
				contents = piece.apply(contents)
				clear(waiting)
			default:
				for _, piece := range waiting[block] {
					contents = piece.apply(contents)
				}
				delete(waiting, block)
			}
		}
	}
	return contents
}

// coin returns a decision that is true with a probability.
func coin(random *rand.Rand, probability float64) func() bool {
	return func() bool { return random != nil && random.Float64() < probability }
}
