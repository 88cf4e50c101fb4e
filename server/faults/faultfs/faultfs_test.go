package faultfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// session performs operations on a file system and stops at the first that fails.
type session struct {
	t   *testing.T
	dir string
}

func (s session) path(name string) string { return filepath.Join(s.dir, name) }

func (s session) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// open opens a file for reading and writing, and creates it if it is missing. It is closed at the end of the test.
func (s session) open(name string, flags int) *os.File {
	s.t.Helper()
	file, err := os.OpenFile(s.path(name), os.O_RDWR|os.O_CREATE|flags, 0o600)
	s.must(err)
	s.t.Cleanup(func() { file.Close() })
	return file
}

// write appends to a file without syncing it.
func (s session) write(name, text string) {
	s.t.Helper()
	file := s.open(name, os.O_APPEND)
	_, err := file.WriteString(text)
	s.must(err)
	s.must(file.Close())
}

// sync syncs a file or a directory.
func (s session) sync(name string) {
	s.t.Helper()
	file, err := os.Open(s.path(name))
	s.must(err)
	s.must(file.Sync())
	s.must(file.Close())
}

func (s session) mkdir(name string)       { s.t.Helper(); s.must(os.Mkdir(s.path(name), 0o700)) }
func (s session) remove(name string)      { s.t.Helper(); s.must(os.Remove(s.path(name))) }
func (s session) rename(old, name string) { s.t.Helper(); s.must(os.Rename(s.path(old), s.path(name))) }

// stored writes a file and makes it durable, name and all.
func (s session) stored(name, text string) {
	s.t.Helper()
	s.write(name, text)
	s.sync(name)
	s.sync(filepath.Dir(name))
}

// contents returns all files with what they contain, and empty directories.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if entry.IsDir() {
			if list, err := os.ReadDir(path); err != nil || len(list) == 0 && name != "." {
				all[name+"/"] = ""
				return err
			}
			return nil
		}
		data, err := os.ReadFile(path)
		all[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestPowerCut cuts the power after some operations and compares what is left when only what is durable survives.
func TestPowerCut(t *testing.T) {
	type files map[string]string
	tests := []struct {
		name string
		do   func(session)
		// left in each model; unordered and posix default to the one before.
		journal, unordered, posix files
	}{{
		name:    "contents not synced",
		do:      func(s session) { s.stored("a", "old"); s.write("a", "new") },
		journal: files{"a": "old"},
	}, {
		name:    "contents synced",
		do:      func(s session) { s.stored("a", "old"); s.write("a", "new"); s.sync("a") },
		journal: files{"a": "oldnew"},
	}, {
		name:    "truncation not synced",
		do:      func(s session) { s.stored("a", "old"); s.must(os.Truncate(s.path("a"), 1)) },
		journal: files{"a": "old"},
	}, {
		name:    "truncation synced",
		do:      func(s session) { s.stored("a", "old"); s.must(os.Truncate(s.path("a"), 1)); s.sync("a") },
		journal: files{"a": "o"},
	}, {
		name: "opened with O_TRUNC",
		do: func(s session) {
			s.stored("a", "old")
			s.open("a", os.O_TRUNC)
		},
		journal: files{"a": "old"},
	}, {
		name: "synchronous writes",
		do: func(s session) {
			for name, flag := range map[string]int{"sync": os.O_SYNC, "dsync": syscall.O_DSYNC} {
				s.stored(name, "")
				_, err := s.open(name, flag).WriteString("kept")
				s.must(err)
			}
		},
		journal: files{"sync": "kept", "dsync": "kept"},
	}, {
		name:    "file not synced",
		do:      func(s session) { s.write("a", "lost") },
		journal: files{},
	}, {
		name:    "file synced, not its directory",
		do:      func(s session) { s.write("a", "text"); s.sync("a") },
		journal: files{"a": "text"}, posix: files{},
	}, {
		name:    "directory synced, not the file",
		do:      func(s session) { s.write("a", "lost"); s.sync(".") },
		journal: files{"a": ""},
	}, {
		name:    "file synced in new directories",
		do:      func(s session) { s.mkdir("d"); s.mkdir("d/e"); s.write("d/e/a", "text"); s.sync("d/e/a") },
		journal: files{"d/e/a": "text"}, posix: files{},
	}, {
		name:    "directory not synced",
		do:      func(s session) { s.mkdir("d") },
		journal: files{},
	}, {
		name:    "earlier names, later sync",
		do:      func(s session) { s.mkdir("d"); s.write("b", "text"); s.sync("b") },
		journal: files{"d/": "", "b": "text"}, unordered: files{"b": "text"}, posix: files{},
	}, {
		name:    "rename not synced",
		do:      func(s session) { s.stored("a", "text"); s.rename("a", "b") },
		journal: files{"a": "text"},
	}, {
		name:    "rename, directory synced",
		do:      func(s session) { s.stored("a", "text"); s.rename("a", "b"); s.sync(".") },
		journal: files{"b": "text"},
	}, {
		name:    "rename, then file synced",
		do:      func(s session) { s.stored("a", "text"); s.rename("a", "b"); s.sync("b") },
		journal: files{"b": "text"}, unordered: files{"a": "text"},
	}, {
		name:    "rename without sync of the contents",
		do:      func(s session) { s.stored("a", "old"); s.write("b", "new"); s.rename("b", "a"); s.sync(".") },
		journal: files{"a": ""},
	}, {
		name: "replacement by rename",
		do: func(s session) {
			s.stored("a", "old")
			s.write("b", "new")
			s.sync("b")
			s.rename("b", "a")
		},
		journal: files{"a": "old", "b": "new"}, posix: files{"a": "old"},
	}, {
		name: "replacement by rename, synced",
		do: func(s session) {
			s.stored("a", "old")
			s.write("b", "new")
			s.sync("b")
			s.rename("b", "a")
			s.sync(".")
		},
		journal: files{"a": "new"},
	}, {
		name:    "removal not synced",
		do:      func(s session) { s.stored("a", "text"); s.remove("a") },
		journal: files{"a": "text"},
	}, {
		name:    "removal, later sync elsewhere",
		do:      func(s session) { s.stored("a", "text"); s.remove("a"); s.mkdir("d"); s.sync("d") },
		journal: files{"d/": ""}, unordered: files{"a": "text", "d/": ""}, posix: files{"a": "text"},
	}, {
		name:    "removal, directory synced",
		do:      func(s session) { s.stored("a", "text"); s.remove("a"); s.sync(".") },
		journal: files{},
	}, {
		name: "sync of a removed file",
		do: func(s session) {
			s.stored("b", "stays")
			file := s.open("a", 0)
			s.remove("a")
			_, err := file.WriteString("gone")
			s.must(err)
			s.must(file.Sync())
		},
		journal: files{"b": "stays"}, unordered: files{"a": "gone", "b": "stays"}, posix: files{"b": "stays"},
	}, {
		name:    "name used again",
		do:      func(s session) { s.stored("a", "old"); s.remove("a"); s.write("a", "new"); s.sync("a") },
		journal: files{"a": "new"}, posix: files{"a": "old"},
	}}
	for _, test := range tests {
		if test.unordered == nil {
			test.unordered = test.journal
		}
		if test.posix == nil {
			test.posix = test.unordered
		}
		for metadata, want := range map[Metadata]files{Journal: test.journal, Unordered: test.unordered, Posix: test.posix} {
			t.Run(test.name+"/"+metadata.String(), func(t *testing.T) {
				disk := Start(t, Options{Metadata: metadata})
				test.do(session{t, disk.Dir()})
				disk.PowerCut(nil)
				disk.Restore()
				if diff := cmp.Diff(want, files(contents(t, disk.Dir()))); diff != "" {
					t.Error(diff)
				}
				disk.PowerCut(nil)
				disk.Restore()
				if diff := cmp.Diff(want, files(contents(t, disk.Dir()))); diff != "" {
					t.Errorf("after another cut: %s", diff)
				}
			})
		}
	}
}

func TestAllIsSeenBeforeItIsDurable(t *testing.T) {
	disk := Start(t, Options{})
	s := session{t, disk.Dir()}
	s.mkdir("d")
	s.write("d/a", "one")
	s.write("d/a", "two")
	s.rename("d/a", "b")
	s.write("c", "text")
	s.rename("c", "d/c")
	s.write("gone", "text")
	s.remove("gone")
	file := s.open("hole", 0)
	_, err := file.WriteAt([]byte("x"), 3)
	s.must(err)
	want := map[string]string{"b": "onetwo", "d/c": "text", "hole": "\x00\x00\x00x"}
	if diff := cmp.Diff(want, contents(t, disk.Dir())); diff != "" {
		t.Error(diff)
	}
}

func TestNothingIsReachableWithoutPower(t *testing.T) {
	disk := Start(t, Options{})
	s := session{t, disk.Dir()}
	s.stored("a", "text")
	file := s.open("a", 0)
	cut := disk.PowerCutAfter(1, nil)
	s.write("a", "last")
	select {
	case <-cut:
		t.Fatal("cut too early")
	default:
	}
	if err := file.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	<-cut
	_, statErr := os.Stat(s.path("a"))
	_, listErr := os.ReadDir(disk.Dir())
	_, readErr := file.ReadAt(make([]byte, 1), 0)
	_, createErr := os.Create(s.path("b"))
	for what, err := range map[string]error{
		"stat": statErr, "list": listErr, "read": readErr, "create": createErr,
		"remove": os.Remove(s.path("a")), "statfs": syscall.Statfs(disk.Dir(), new(syscall.Statfs_t)),
	} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v, want EIO", what, err)
		}
	}
	disk.Restore()
	if _, err := file.WriteString("from the past"); err == nil {
		t.Error("a file from before the cut can be written")
	}
	if diff := cmp.Diff(map[string]string{"a": "text"}, contents(t, disk.Dir())); diff != "" {
		t.Error(diff)
	}
}

// TestUnsyncedBlocks looks for every state that blocks may be left in when they were not synced.
func TestUnsyncedBlocks(t *testing.T) {
	disk := Start(t, Options{})
	s := session{t, disk.Dir()}
	random := rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{}
	for range 200 {
		s.stored("a", strings.Repeat("0", 2*blockSize))
		_, err := s.open("a", 0).WriteAt(bytes.Repeat([]byte("1"), 2*blockSize), blockSize)
		s.must(err)
		disk.PowerCut(random)
		disk.Restore()
		state := ""
		data := []byte(contents(t, disk.Dir())["a"])
		for ; len(data) >= blockSize; data = data[blockSize:] {
			if bytes.Count(data[:blockSize], data[:1]) != blockSize {
				t.Fatal("a block is torn")
			}
			state += fmt.Sprintf("%q", data[:1])
		}
		seen[state] = true
		s.remove("a")
		s.sync(".")
	}
	want := map[string]bool{`"0""0"`: true, `"0""1"`: true, `"0""0""1"`: true, `"0""1""1"`: true}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
}

// TestUnsyncedNames looks for every state that names may be left in when they were not synced.
func TestUnsyncedNames(t *testing.T) {
	states := map[Metadata][]string{
		Journal:   {"", "a", "a b", "c b"},
		Unordered: {"", "a", "b", "a b", "c", "c b"},
	}
	for metadata, possible := range states {
		t.Run(metadata.String(), func(t *testing.T) {
			disk := Start(t, Options{Metadata: metadata})
			s := session{t, disk.Dir()}
			random := rand.New(rand.NewPCG(1, 2))
			seen, want := map[string]bool{}, map[string]bool{}
			for _, state := range possible {
				want[state] = true
			}
			for range 300 {
				s.mkdir("a")
				s.mkdir("b")
				s.rename("a", "c")
				disk.PowerCut(random)
				disk.Restore()
				var names []string
				for _, name := range []string{"a", "c", "b"} {
					if os.Remove(s.path(name)) == nil {
						names = append(names, name)
					}
				}
				seen[strings.Join(names, " ")] = true
				s.sync(".")
			}
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestPowerCutDuringWrites holds what several writers were told against what is left of their files.
func TestPowerCutDuringWrites(t *testing.T) {
	disk := Start(t, Options{})
	random := rand.New(rand.NewPCG(3, 4))
	const writers = 4

	expected := func(place int) byte { return byte(place%251) + 1 } // never 0, which is what is lost
	var length, synced [writers]int                                 // written and synced without an error, by writer
	for round := range 20 {
		cut := disk.PowerCutAfter(random.IntN(300), random)
		var group sync.WaitGroup
		for i := range writers {
			group.Go(func() {
				file, err := os.OpenFile(filepath.Join(disk.Dir(), fmt.Sprint(i)), os.O_CREATE|os.O_RDWR, 0o600)
				if err != nil {
					return
				}
				defer file.Close()
				for {
					line := make([]byte, 700)
					for j := range line {
						line[j] = expected(length[i] + j)
					}
					if _, err := file.WriteAt(line, int64(length[i])); err != nil {
						return
					}
					length[i] += len(line)
					if err := file.Sync(); err != nil {
						return
					}
					synced[i] = length[i]
				}
			})
		}
		group.Wait()
		<-cut
		disk.Restore()
		left := contents(t, disk.Dir())
		for i := range writers {
			data := left[fmt.Sprint(i)]
			if len(data) < synced[i] {
				t.Fatalf("round %d: file %d has %d bytes, %d were synced", round, i, len(data), synced[i])
			}
			for j := range synced[i] {
				if data[j] != expected(j) {
					t.Fatalf("round %d: file %d is damaged at %d of %d", round, i, j, synced[i])
				}
			}
			length[i] = synced[i]
		}
	}
}

func TestFail(t *testing.T) {
	disk := Start(t, Options{})
	s := session{t, disk.Dir()}
	s.stored("a.blk", "text")
	s.stored("other", "text")
	file, other := s.open("a.blk", 0), s.open("other", 0)
	write := func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 0); return err }
	tests := []struct {
		name  string
		fault Fault
		do    func() error
		want  []error // of each attempt
	}{
		{"write", Fault{Ops: OpWrite, Err: syscall.EIO}, func() error { return write(file) }, []error{syscall.EIO, syscall.EIO}},
		{"sync", Fault{Ops: OpSync, Err: syscall.EIO}, file.Sync, []error{syscall.EIO}},
		{"no sync", Fault{Ops: OpSync, Err: syscall.EIO}, func() error { return write(file) }, []error{nil}},
		{"after, times", Fault{Ops: OpWrite, Err: syscall.ENOSPC, After: 1, Times: 2}, func() error { return write(file) },
			[]error{nil, syscall.ENOSPC, syscall.ENOSPC, nil}},
		{"name", Fault{Ops: OpWrite, Err: syscall.EIO, Name: "*.blk"}, func() error { return write(file) }, []error{syscall.EIO}},
		{"other name", Fault{Ops: OpWrite, Err: syscall.EIO, Name: "*.blk"}, func() error { return write(other) }, []error{nil}},
		{"open", Fault{Ops: OpOpen, Err: syscall.EMFILE}, func() error { _, err := os.Open(s.path("other")); return err },
			[]error{syscall.EMFILE}},
		{"create", Fault{Ops: OpCreate, Err: syscall.ENOSPC}, func() error { return os.Mkdir(s.path("d"), 0o700) }, []error{syscall.ENOSPC}},
		{"rename", Fault{Ops: OpRename, Err: syscall.EIO}, func() error { return os.Rename(s.path("other"), s.path("new")) }, []error{syscall.EIO}},
		{"remove", Fault{Ops: OpRemove, Err: syscall.EIO}, func() error { return os.Remove(s.path("other")) }, []error{syscall.EIO}},
		{"truncate", Fault{Ops: OpTruncate, Err: syscall.EIO}, func() error { return file.Truncate(100) }, []error{syscall.EIO}},
		{"read", Fault{Ops: OpRead, Err: syscall.EIO}, func() error { _, err := file.ReadAt(make([]byte, 1), 0); return err }, []error{syscall.EIO}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			clear := disk.Fail(test.fault)
			for i, want := range test.want {
				if err := test.do(); !errors.Is(err, want) {
					t.Errorf("attempt %d: %v, want %v", i, err, want)
				}
			}
			clear()
			if test.fault.Ops&(OpWrite|OpSync) != 0 {
				if err := test.do(); err != nil {
					t.Errorf("after the fault: %v", err)
				}
			}
		})
	}
}

func TestProbability(t *testing.T) {
	disk := Start(t, Options{Seed: 1})
	file := session{t, disk.Dir()}.open("a", 0)
	disk.Fail(Fault{Ops: OpWrite, Err: syscall.EIO, Probability: 0.3})
	failed := 0
	for range 1000 {
		if _, err := file.WriteAt([]byte("x"), 0); err != nil {
			failed++
		}
	}
	if failed < 200 || failed > 400 {
		t.Errorf("%d of 1000 failed, want about 300", failed)
	}
}

// TestFailedSync checks that a sync that succeeds after one that failed does not make good for it.
func TestFailedSync(t *testing.T) {
	disk := Start(t, Options{Seed: 1})
	s := session{t, disk.Dir()}
	s.stored("a", "")
	file := s.open("a", 0)
	clear := disk.Fail(Fault{Ops: OpSync, Err: syscall.EIO})
	text := strings.Repeat("x", 64*blockSize)
	_, err := file.WriteString(text)
	s.must(err)
	if err := file.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	clear()
	s.must(file.Sync())
	if contents(t, disk.Dir())["a"] != text {
		t.Error("the contents are no longer seen")
	}
	disk.PowerCut(nil)
	disk.Restore()
	if left := strings.Count(contents(t, disk.Dir())["a"], "x"); left == 0 || left == len(text) {
		t.Errorf("%d of %d bytes are left, want a part", left, len(text))
	}
}

func TestCapacity(t *testing.T) {
	disk := Start(t, Options{})
	s := session{t, disk.Dir()}
	free := func() int64 {
		t.Helper()
		var stat syscall.Statfs_t
		s.must(syscall.Statfs(disk.Dir(), &stat))
		return int64(stat.Bavail) * int64(stat.Bsize) //nolint:unconvert // not of this type everywhere
	}
	if free() < 1<<30 {
		t.Errorf("%d bytes free without a limit", free())
	}
	disk.SetCapacity(10 * blockSize)
	file := s.open("a", 0)
	if got := free(); got != 9*blockSize {
		t.Errorf("%d bytes free after a file was created", got)
	}
	n, err := file.Write(make([]byte, 20*blockSize))
	if n != 9*blockSize || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote %d bytes: %v", n, err)
	}
	if got := free(); got != 0 {
		t.Errorf("%d bytes free on a full disk", got)
	}
	if _, err := file.WriteAt([]byte("x"), 0); err != nil {
		t.Errorf("write over what is there: %v", err)
	}
	if err := os.Mkdir(s.path("d"), 0o700); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("mkdir: %v", err)
	}
	s.must(file.Truncate(blockSize + 1))
	if got := free(); got != 7*blockSize {
		t.Errorf("%d bytes free after a truncation", got)
	}
	s.must(file.Sync())
	disk.PowerCut(nil)
	disk.Restore()
	if got := free(); got != 7*blockSize {
		t.Errorf("%d bytes free after a power cut", got)
	}
	s.remove("a")
	if got := free(); got != 10*blockSize {
		t.Errorf("%d bytes free on an empty disk", got)
	}
	disk.SetCapacity(0)
	s.write("a", strings.Repeat("x", 20*blockSize))
}

// TestRemovedFileKeepsItsSpace until it is closed.
func TestRemovedFileKeepsItsSpace(t *testing.T) {
	disk := Start(t, Options{})
	s := session{t, disk.Dir()}
	for _, replaced := range []bool{false, true} {
		file := s.open("a", 0)
		_, err := file.Write(make([]byte, 3*blockSize))
		s.must(err)
		if replaced {
			s.write("b", "")
			s.rename("b", "a")
		} else {
			s.remove("a")
		}
		if used := disk.Used(); used < 4*blockSize {
			t.Errorf("%d bytes used while a file is open", used)
		}
		s.must(file.Close())
	}
	s.remove("a")
	s.sync(".") // comes after the kernel's word that the file was closed
	if used := disk.Used(); used != 0 {
		t.Errorf("%d bytes used in the end", used)
	}
}

func TestLying(t *testing.T) {
	disk := Start(t, Options{})
	s := session{t, disk.Dir()}
	s.stored("a", "old")
	disk.SetLying(true)
	s.write("a", "new")
	s.sync("a")
	_, err := s.open("a", os.O_SYNC).WriteString("new")
	s.must(err)
	s.write("b", "text")
	s.sync(".")
	if got := disk.Stats(); got.Lies != 3 {
		t.Errorf("%+v, want 3 lies", got)
	}
	disk.PowerCut(nil)
	disk.SetLying(false)
	disk.Restore()
	if diff := cmp.Diff(map[string]string{"a": "old"}, contents(t, disk.Dir())); diff != "" {
		t.Error(diff)
	}
}

func TestStats(t *testing.T) {
	disk := Start(t, Options{})
	s := session{t, disk.Dir()}
	file := s.open("a", os.O_SYNC)
	_, err := file.WriteString("text")
	s.must(err)
	s.write("a", "text")
	s.must(file.Sync())
	s.must(syscall.Fdatasync(int(file.Fd())))
	s.sync(".")
	s.rename("a", "b")
	want := Stats{Writes: 2, SyncWrites: 1, Syncs: 2, DirSyncs: 1, Names: 2}
	if diff := cmp.Diff(want, disk.Stats()); diff != "" {
		t.Error(diff)
	}
}

// TestLock checks that the kernel keeps flock(2), and that a lock does not outlive a power cut.
func TestLock(t *testing.T) {
	disk := Start(t, Options{})
	s := session{t, disk.Dir()}
	s.stored("lock", "")
	lock := func(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
	s.must(lock(s.open("lock", 0)))
	if err := lock(s.open("lock", 0)); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("second lock: %v", err)
	}
	disk.PowerCut(nil)
	disk.Restore()
	s.must(lock(s.open("lock", 0)))
}

func BenchmarkWriteAndSync(b *testing.B) {
	disk := Start(b, Options{})
	file, err := os.Create(filepath.Join(disk.Dir(), "a"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	for i := range b.N {
		if _, err := file.WriteAt(make([]byte, 1000), int64(i%4000*1000)); err != nil {
			b.Fatal(err)
		}
		if err := file.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}
