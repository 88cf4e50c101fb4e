package eventlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// mendDir mends the files of a stream.
func mendDir(t *testing.T, dir, stream string) []flaw {
	t.Helper()
	paths, err := blocksOf(dir, stream)
	if err != nil {
		t.Fatal(err)
	}
	_, flaws, err := mender{dir: dir, format: recordFormats[stream], seen: func(int64) {}}.run(t.Context(), paths)
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
			if round%10 == 2 {
				size = 1 + r.IntN(3<<20)
				clear(damaged[at:min(at+size, len(damaged))])
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
	b, err := readBlock(format, path, surroundings{})
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
		block   string
		harm    damage
		missing uint64
	}{
		"message in the last block":      {"3.blk", flip(3, 5000), 1},
		"message in an early block":      {"1.blk", flip(3, 5000), 1},
		"the first of all":               {"1.blk", flip(0, 5000), 1},
		"the first of a block":           {"2.blk", flip(0, 5000), 1},
		"the last of a block":            {"2.blk", flip(80, 5000), 1},
		"the last of all":                {"3.blk", flip(37, 5000), 1},
		"length in the last block":       {"3.blk", flip(3, 1), 0},
		"sequence in an early block":     {"1.blk", flip(3, 4+6), 0},
		"time in the last block":         {"3.blk", flip(3, 12+5), 1},
		"megabytes":                      {"2.blk", zero(1<<20, 3<<20), 31},
		"a length and something later":   {"1.blk", both(flip(3, 1), flip(50, 5000)), 1},
		"two heads":                      {"1.blk", both(flip(3, 3), flip(50, 4+6)), 0},
		"beyond the end, and a torn end": {"3.blk", both(longer(35), cutOff(10)), 1},
		"beyond the end, and contents":   {"3.blk", both(longer(35), flip(35, 5000)), 1},
		"a record's length and contents": {"1.blk", both(both(flip(3, 1), flip(3, 5000)), flip(9, 5000)), 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for state, sound := range map[string]string{"stopped": stopped, "killed": killed} {
				dir := filepath.Join(t.TempDir(), "log")
				copyDir(t, sound, dir)
				if state == "killed" { // not in the first second
					mark, err := os.ReadFile(filepath.Join(stopped, markFile))
					if err == nil {
						err = os.WriteFile(filepath.Join(dir, markFile), mark, 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				tt.harm(t, filepath.Join(recordsPath(dir, streamName), tt.block))
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
				damaged := 0
				entries := entriesAfter(t, l.Quarantine(), "")
				for _, e := range entries {
					if e.GetReceivedAt() == nil && strings.Contains(e.GetDetail(), ErrDamaged.Error()) {
						damaged++
					}
				}
				if len(entries) != checkedEntries-1+more || damaged != 1 {
					t.Errorf("%s: %d quarantine entries, %d of them say that they are damaged; want %d and 1", state, len(entries), damaged, checkedEntries-1+more)
				}
			}
		})
	}
}

// zero writes zeros over a part of a file.
func zero(offset, size int) damage {
	return func(t *testing.T, path string) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err == nil {
			clear(data[offset : offset+size])
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// longer makes a record say that it is longer by a mebibyte.
func longer(record int) damage {
	return func(t *testing.T, path string) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for range record {
			at += lengthOf(data[at:])
		}
		data[at+2] ^= 1 << 4
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func both(first, second damage) damage {
	return func(t *testing.T, path string) {
		t.Helper()
		second(t, path) // it is found by the lengths of those before
		first(t, path)
	}
}

// What a sender has put into a message is not taken for records, whatever happens to that message.
func TestForgedRecordsAreNotBelieved(t *testing.T) {
	const kept = 5
	forger := func(t *testing.T, sequence uint64) []byte { // marks of removal, for what was kept before
		t.Helper()
		hash, err := newHash(quarantineStream + "-1")
		if err != nil {
			t.Fatal(err)
		}
		b := &block{format: recordFormats[quarantineStream], hash: hash}
		const removed = 1 << 62
		var forged []byte
		for n := range uint64(3000) {
			record := make([]byte, leastRecord)
			binary.LittleEndian.PutUint32(record, leastRecord)
			binary.LittleEndian.PutUint64(record[4:], max(sequence, n%kept+1)|removed)
			copy(record[leastRecord-checksumSize:], b.checksum(record, 0, headSize))
			forged = append(forged, record...)
		}
		return forged
	}
	for name, harm := range map[string]damage{
		"its length":              flip(kept, 3),
		"its length, a little":    flip(kept, 2),
		"its contents":            flip(kept, 5000),
		"its length and contents": both(flip(kept, 3), flip(kept, 5000)),
		"its time":                flip(kept, 15),
		"it was not written out":  func(t *testing.T, path string) { cutAt(t, path, 40<<10) },
		"nor at a record's end":   func(t *testing.T, path string) { cutAt(t, path, 30<<10+7) },
	} {
		for _, sequence := range []uint64{0, 1 << 40} {
			for _, behind := range []int{0, 3} {
				t.Run(fmt.Sprint(name, ", sequence ", sequence, ", behind ", behind), func(t *testing.T) {
					if behind > 0 && strings.Contains(name, "not written") || behind > 0 && strings.Contains(name, "record's end") {
						t.Skip("nothing can be behind it")
					}
					dir, killed := t.TempDir(), filepath.Join(t.TempDir(), "log")
					l := openLog(t, Options{Dir: dir, NoSync: true})
					addEntries(t, l.Quarantine(), kept)
					e := entry(kept)
					e.Raw = &linksgatev1.QuarantineEntry_BodyBytes{BodyBytes: forger(t, sequence)}
					if err := l.Quarantine().Add(t.Context(), e); err != nil {
						t.Fatal(err)
					}
					addEntries(t, l.Quarantine(), behind)
					copyDir(t, dir, killed)
					harm(t, filepath.Join(recordsPath(killed, quarantineStream), "1.blk"))
					l = openLog(t, Options{Dir: killed, NoSync: true})
					sound := 0
					for _, e := range entriesAfter(t, l.Quarantine(), "") {
						if e.GetReceivedAt() != nil && len(e.GetBodyBytes()) == 0 {
							sound++
						}
					}
					if sound != kept+behind {
						t.Errorf("%d entries beside the forger's are left, want %d", sound, kept+behind)
					}
				})
			}
		}
	}
}

func cutAt(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
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
		known, err := parseIndex(stream, data)
		if err != nil || !slices.Equal(known, blocks) {
			t.Errorf("%s: %+v %v, want %+v", stream, known, err, blocks)
		}
		for cut := range data {
			if _, err := parseIndex(stream, data[:cut]); err == nil {
				t.Fatalf("%s: %d of %d bytes are an index", stream, cut, len(data))
			}
		}
	}
}

// A mark of a removal that is damaged may be forgotten, but is not taken for an entry that was lost.
func TestDamagedRemovalIsNoEntry(t *testing.T) {
	const kept = 5
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir, NoSync: true})
	addEntries(t, l.Quarantine(), kept)
	if err := l.Quarantine().Remove(t.Context(), l.Quarantine().id(2)); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(t.TempDir(), "log")
	copyDir(t, dir, killed)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for state, dir := range map[string]string{"stopped": dir, "killed": killed} {
		flip(kept, leastRecord-1)(t, filepath.Join(recordsPath(dir, quarantineStream), "1.blk"))
		l := openLog(t, Options{Dir: dir, NoSync: true})
		for _, e := range entriesAfter(t, l.Quarantine(), "") {
			if e.GetReceivedAt() == nil {
				t.Errorf("%s: %s: %s", state, e.GetId(), e.GetDetail())
			}
		}
		addEntries(t, l.Quarantine(), 1)
		if entries := entriesAfter(t, l.Quarantine(), l.Quarantine().id(kept)); len(entries) != 1 {
			t.Errorf("%s: %d entries after the last of before, want 1", state, len(entries))
		}
	}
}
