package disk

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linksgate/linksgate/server/store"
)

const (
	fixtureEntries = 8
	fixtureSegment = entriesBegin + 640 // two or three entries
)

// everyByte makes the tests of this file damage every byte, which takes minutes, instead of some of them.
var everyByte = flag.Bool("every-byte", false, "damage every byte of every file, not only some")

// fixture makes a small log and table in a directory of some segments, and returns copies of it: one that was closed, one as if the
// process had been killed.
func fixture(t *testing.T) (clean, killed string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "open")
	clean, killed = filepath.Join(t.TempDir(), "clean"), filepath.Join(t.TempDir(), "killed")
	engine := open(t, Options{Dir: dir, firstSegment: fixtureSegment})
	log, kv := openBoth(t, engine)
	for n := range fixtureEntries {
		appendText(t, log, n)
		if _, err := kv.Put(t.Context(), fmt.Sprintf("key.%d", n%5), []byte(entryText(n)), store.Any); err != nil {
			t.Fatal(err)
		}
	}
	copyDir(t, dir, killed)
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	copyDir(t, dir, clean)
	return clean, killed
}

func openBoth(t *testing.T, engine *Engine) (*Log, *KV) {
	t.Helper()
	log, err := engine.OpenLog(t.Context(), "log", store.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kv, err := engine.OpenKV(t.Context(), "table", store.KVOptions{})
	if err != nil {
		t.Fatal(err)
	}
	log.(*Log).max, kv.(*KV).max = fixtureSegment, fixtureSegment
	return log.(*Log), kv.(*KV)
}

func entryText(n int) string {
	return fmt.Sprintf("entry %d, %s", n, strings.Repeat(string(rune('a'+n%26)), 90))
}

func appendText(t *testing.T, log *Log, n int) uint64 {
	t.Helper()
	e, err := log.Append(t.Context(), []byte(entryText(n)))
	if err != nil {
		t.Fatal(err)
	}
	return e.Sequence
}

// A byte of any file may be another one than was written: at most one entry and one value are lost, and are told to be; what is appended
// later is read, also after one more kill.
func TestFlippedByteCostsAtMostItsEntry(t *testing.T) {
	t.Parallel()
	clean, killed := fixture(t)
	for name, dir := range map[string]string{"clean": clean, "killed": killed} {
		for _, file := range filesOf(t, dir) {
			t.Run(name+"/"+file, func(t *testing.T) {
				t.Parallel()
				eachByte(t, dir, file, func(data []byte, at int) []byte {
					data[at] ^= byte(1 << (at % 8))
					return data
				})
			})
		}
	}
}

// A file may end anywhere: what is missing is told, and everything before it is read.
func TestFileThatLostItsEndCostsWhatItHad(t *testing.T) {
	t.Parallel()
	clean, killed := fixture(t)
	for name, dir := range map[string]string{"clean": clean, "killed": killed} {
		for _, file := range filesOf(t, dir) {
			t.Run(name+"/"+file, func(t *testing.T) {
				t.Parallel()
				eachByte(t, dir, file, func(data []byte, at int) []byte { return data[:at] })
			})
		}
	}
}

// eachByte damages a file at each of its bytes that can matter, one at a time, and checks what an engine makes of it.
func eachByte(t *testing.T, dir, file string, damage func(data []byte, at int) []byte) {
	whole, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(t.TempDir(), "work")
	cut := len(damage(slices.Clone(whole), 0)) == 0
	const some = 29
	for at := rand.IntN(some); at < len(whole); at++ {
		if !*everyByte {
			at += rand.IntN(some)
		}
		if at >= len(whole) || isZero(whole[at:min(at+64, len(whole))]) && at%512 != 0 {
			continue // one in so many of those that are padding
		}
		if err := os.RemoveAll(work); err != nil {
			t.Fatal(err)
		}
		copyDir(t, dir, work)
		damaged := damage(slices.Clone(whole), at)
		if err := os.WriteFile(filepath.Join(work, file), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		lossLimit := 1
		if cut {
			lossLimit += strings.Count(string(whole[at:]), "entry ") // what stood behind the cut
		}
		checkDamaged(t, work, file, fmt.Sprintf("byte %d of %d", at, len(whole)), lossLimit, cut)
		if t.Failed() {
			return
		}
	}
}

// checkDamaged opens a directory of which one file is damaged, appends, kills and opens it again.
func checkDamaged(t *testing.T, dir, file, where string, lossLimit int, cut bool) {
	t.Helper()
	inLog := strings.HasPrefix(file, "log")
	for round := range 2 {
		engine := open(t, Options{Dir: dir, firstSegment: fixtureSegment, NoSync: true, ScrubRate: -1})
		log, kv := openBoth(t, engine)
		appendText(t, log, fixtureEntries+round)
		lost := checkLog(t, log, where, fixtureEntries+round+1, cut)
		if !inLog && lost > 0 || lost > lossLimit {
			t.Errorf("%s: %d entries are lost", where, lost)
		}
		if lost := checkTable(t, kv, where, cut, round == 0); inLog && lost > 0 || lost > lossLimit {
			t.Errorf("%s: %d values are lost", where, lost)
		}
		if round == 0 {
			killed := dir + ".killed"
			copyDir(t, dir, killed)
			if err := engine.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(killed, dir); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// checkLog reads a log that had so many entries, and returns how many of them are missing. Each must be told to be.
func checkLog(t *testing.T, log *Log, where string, count int, cut bool) (lost int) {
	t.Helper()
	seen, next, gaps := 0, uint64(1), uint64(0)
	last := -1
	for item, err := range log.Read(t.Context(), 1) {
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if item.Gap.Count > 0 {
			if item.Gap.From != next || item.Gap.Reason != store.Corrupt {
				t.Errorf("%s: gap %+v at %d", where, item.Gap, next)
			}
			next += item.Gap.Count
			gaps += item.Gap.Count
			continue
		}
		var n int
		if _, err := fmt.Sscanf(string(item.Data), "entry %d,", &n); err != nil || string(item.Data) != entryText(n) || n <= last || item.Sequence != next {
			t.Errorf("%s: sequence %d is %q after %d", where, item.Sequence, item.Data, last)
		}
		last = n
		next++
		seen++
	}
	if lost = count - seen; uint64(lost) > gaps && (!cut || gaps == 0) { // what a lost end had is not known
		t.Errorf("%s: %d entries are lost and %d are told", where, lost, gaps)
	}
	return lost
}

// checkTable returns how many values are missing from a table. None may be an older one, unless a file lost its end: then the table
// counts what it had.
func checkTable(t *testing.T, kv *KV, where string, cut, first bool) (lost int) {
	t.Helper()
	want := map[string]string{"key.0": entryText(5), "key.1": entryText(6), "key.2": entryText(7), "key.3": entryText(3), "key.4": entryText(4)}
	for v, err := range kv.List(t.Context(), "", "", false) {
		if err == nil && string(v.Data) == want[v.Key] {
			delete(want, v.Key)
		} else if info, infoErr := kv.Info(t.Context()); err == nil && (infoErr != nil || info.Corrupt == 0 && first || !cut) {
			t.Errorf("%s: %s has the value %q", where, v.Key, v.Data)
		}
	}
	return len(want)
}

func filesOf(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	for _, part := range []string{"log", "table"} {
		entries, err := os.ReadDir(filepath.Join(dir, part))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			files = append(files, filepath.Join(part, entry.Name()))
		}
	}
	return files
}
