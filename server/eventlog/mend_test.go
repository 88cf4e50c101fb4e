package eventlog

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// mendDir mends the files of a stream.
func mendDir(t *testing.T, dir, stream string) []flaw {
	t.Helper()
	paths, err := blocksOf(dir, stream)
	if err != nil {
		t.Fatal(err)
	}
	_, flaws, err := mender{dir, func(int64) {}}.run(t.Context(), recordFormats[stream], paths)
	if err != nil {
		t.Fatal(err)
	}
	return flaws
}

// Nothing is lost where only the head of a record is damaged, but for its time, which nothing else tells.
func TestDamagedHeadsAreMadeWholeAgain(t *testing.T) {
	stopped, _ := dataDirs(t)
	for stream, blocks := range map[string][]int{streamName: {1, 2, 3}, quarantineStream: {1}} {
		for _, number := range blocks {
			path := filepath.Join(recordsPath(stopped, stream), fmt.Sprint(number, blockSuffix))
			sound, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, record := range []int{0, 1, 10} {
				for offset := range headSize {
					if 12 <= offset && offset < 20 {
						continue
					}
					flip(record, offset)(t, path)
					flaws := mendDir(t, stopped, stream)
					if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, sound) || len(flaws) != 1 || flaws[0].remedy != remedyRepair {
						t.Fatalf("%s, block %d, record %d, byte %d: %+v, the same: %v, %v", stream, number, record, offset, flaws, bytes.Equal(got, sound), err)
					}
				}
			}
		}
	}
}

// Whatever bytes are damaged, all records beside them are kept, and the engine can read the files to their end.
func TestDamageCostsWhatItHits(t *testing.T) {
	stopped, _ := dataDirs(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, stream := range []string{streamName, quarantineStream} {
		paths, err := blocksOf(stopped, stream)
		if err != nil {
			t.Fatal(err)
		}
		for round := range 60 {
			path := paths[r.IntN(len(paths))]
			sound, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := bytes.Clone(sound)
			at, size := r.IntN(len(sound)), 1
			if round%3 == 0 {
				size = 1 + r.IntN(4*sectorSize) // a bad place of a disk
			}
			for i := at; i < min(at+size, len(damaged)); i++ {
				damaged[i] ^= byte(1 + r.IntN(255))
			}
			if round%10 == 1 { // what nobody wrote there
				at, size = len(sound), 1+r.IntN(100)
				damaged = append(bytes.Clone(sound), bytes.Repeat([]byte{byte(r.IntN(255))}, size)...)
			}
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			before := wholeRecords(t, recordFormats[stream], path, sound)
			flaws := mendDir(t, stopped, stream)
			if len(flaws) == 0 {
				t.Fatalf("%s: %d bytes from %d on: no flaw was found", path, size, at)
			}
			mended, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			after := wholeRecords(t, recordFormats[stream], path, mended)
			hit := 0
			for offset, record := range before {
				if at < offset+len(record) && offset < at+size {
					hit++
				} else if !bytes.Equal(after[offset], record) {
					t.Fatalf("%s: %d bytes from %d on: the record at %d, %d bytes, is gone: %+v", path, size, at, offset, len(record), flaws)
				}
			}
			if again := mendDir(t, stopped, stream); len(again) > 0 || hit == 0 && at < len(sound) {
				t.Fatalf("%s: %d bytes from %d on hit %d records; found again: %+v", path, size, at, hit, again)
			}
			if flaws[0].remedy != remedyRepair {
				if kept, err := os.ReadFile(flaws[0].kept); err != nil || !bytes.Equal(kept, damaged[flaws[0].offset:][:flaws[0].size]) {
					t.Fatalf("%s: what was damaged was not kept: %v", path, err)
				}
			}
			if err := os.WriteFile(path, sound, 0o600); err != nil {
				t.Fatal(err)
			}
			remove(t, filepath.Join(stopped, damagedDir))
		}
	}
}

// wholeRecords returns the records of a block, by their offsets.
func wholeRecords(t *testing.T, format recordFormat, path string, data []byte) map[int][]byte {
	t.Helper()
	b, err := readBlock(format, path)
	if err != nil {
		t.Fatal(err)
	}
	b.data = data
	records := make(map[int][]byte)
	for at := 0; at < len(data); {
		r, ok := b.record(at)
		if !ok {
			t.Fatalf("%s: no record at %d of %d", path, at, len(data))
		}
		records[at] = data[at : at+r.size]
		at += r.size
	}
	return records
}

// What is accepted after a byte was flipped is kept when the process is killed, and what was kept before it is not lost then either.
func TestWhatFollowsDamageOutlivesAKill(t *testing.T) {
	const more = 10
	stopped, killed := dataDirs(t)
	for name, tt := range map[string]struct {
		block          string
		record, offset int
		missing        uint64
	}{
		"message in the last block":  {"3.blk", 3, 5000, 1},
		"message in an early block":  {"1.blk", 3, 5000, 1},
		"the first of all":           {"1.blk", 0, 5000, 1},
		"the first of a block":       {"2.blk", 0, 5000, 1},
		"the last of a block":        {"2.blk", 80, 5000, 1},
		"the last of all":            {"3.blk", 37, 5000, 1},
		"length in the last block":   {"3.blk", 3, 1, 0},
		"sequence in an early block": {"1.blk", 3, 4 + 6, 0},
		"time in the last block":     {"3.blk", 3, 12 + 5, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for state, sound := range map[string]string{"stopped": stopped, "killed": killed} {
				dir := filepath.Join(t.TempDir(), "log")
				copyDir(t, sound, dir)
				flip(tt.record, tt.offset)(t, filepath.Join(recordsPath(dir, streamName), tt.block))
				flip(9, 60)(t, filepath.Join(recordsPath(dir, quarantineStream), "1.blk"))
				l := openLog(t, Options{Dir: dir, NoSync: true})
				var given []Position
				for n := range more {
					given = append(given, mustAppend(t, l, notification(n)))
				}
				addEntries(t, l.Quarantine(), more)
				again := filepath.Join(t.TempDir(), "again")
				copyDir(t, dir, again)

				l = openLog(t, Options{Dir: again, NoSync: true})
				next := mustAppend(t, l, notification(more))
				last := given[more-1]
				if given[0].Stream <= checkedBatches || next.Stream <= last.Stream {
					t.Errorf("%s: sequences were given out again: %d, %d after %d", state, given[0].Stream, next.Stream, last.Stream)
				}
				found, missing := readThrough(t, l, Cursor{Stream: 1}, Cursor{Stream: next.Stream + 1})
				if found != checkedBatches-tt.missing+more+1 || missing != tt.missing {
					t.Errorf("%s: %d notifications read and %d told as missing of %d, want %d missing", state, found, missing, checkedBatches+more+1, tt.missing)
				}
				for _, p := range given {
					if _, err := l.Get(t.Context(), p); err != nil {
						t.Errorf("%s: what was accepted at %v: %v", state, p, err)
					}
				}
				if got := len(entriesAfter(t, l.Quarantine(), "")); got != checkedEntries-2+more {
					t.Errorf("%s: %d quarantine entries, want %d", state, got, checkedEntries-2+more)
				}
			}
		})
	}
}

// A write that was interrupted at the end of the log is nothing that readers are told of.
func TestAnInterruptedWriteIsNoGap(t *testing.T) {
	zeros := func(bytes int) damage {
		return func(t *testing.T, path string) {
			t.Helper()
			data, err := os.ReadFile(path)
			if err == nil {
				copy(data[len(data)-bytes:], make([]byte, bytes))
				err = os.WriteFile(path, data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, interrupt := range map[string]damage{"short": cutOff(10), "the head alone": cutOff(100 << 10), "pages never written": zeros(8 << 10)} {
		t.Run(name, func(t *testing.T) {
			_, killed := dataDirs(t)
			interrupt(t, filepath.Join(recordsPath(killed, streamName), "3.blk"))
			l := openLog(t, Options{Dir: killed, NoSync: true})
			p := mustAppend(t, l, notification(1))
			if found, missing := readThrough(t, l, Cursor{Stream: 1}, Cursor{Stream: p.Stream + 1}); found != checkedBatches || missing != 0 {
				t.Errorf("%d read, %d told as missing, want %d and none", found, missing, checkedBatches)
			}
		})
	}
}

// Opening a log ends with its caller's wish.
func TestOpeningEndsWithItsContext(t *testing.T) {
	stopped, _ := dataDirs(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := Open(ctx, Options{Dir: stopped}); err == nil {
		_ = l.Close()
		t.Error("it was opened")
	}
}

// An index is read as the engine wrote it.
func TestIndexIsUnderstood(t *testing.T) {
	stopped, _ := dataDirs(t)
	want := map[string][]indexedBlock{
		streamName:       {{1, 1, 81, 81}, {2, 82, 162, 81}, {3, 163, checkedBatches, 38}},
		quarantineStream: {{1, 1, checkedEntries, checkedEntries - 1}},
	}
	for stream, blocks := range want {
		data, err := os.ReadFile(filepath.Join(recordsPath(stopped, stream), indexFile))
		if err != nil {
			t.Fatal(err)
		}
		index, err := parseIndex(stream, data)
		if err != nil || !slices.Equal(index.blocks, blocks) {
			t.Errorf("%s: %+v %v, want %+v", stream, index.blocks, err, blocks)
		}
		for cut := range data {
			if _, err := parseIndex(stream, data[:cut]); err == nil {
				t.Fatalf("%s: %d of %d bytes are an index", stream, cut, len(data))
			}
		}
	}
}
