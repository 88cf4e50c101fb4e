package dedup

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// runBatches and runKeys end a run.
	runBatches = 4096
	runKeys    = 16_384

	runExtension = ".keys"
	keyBytes     = 16 + 8 + 8
)

// A file of a run is, in little-endian: a sign, the identity of the log, the first and the last record batch of the run, their epoch,
// the keys with their sequences and times, and a CRC-32C of all that.
var runSign = []byte("lgkeys01")

const runHead = 8 + 32 + 8 + 8 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// run is the keys of some record batches.
type run struct {
	first, last uint64 // batches; last is 0: none
	epoch       uint32 // of the last
	keys        []stored
}

// runs are the files of an index. The zero value has none.
type runs struct {
	dir      string
	identity [32]byte
	known    []run // without their keys; in order, until the index is complete
}

// Range is some record batches, by the first and the last.
type Range struct{ First, Last uint64 }

// Open returns the index of a log, with what the files in a directory say of it. identity tells logs apart; epochOf returns the epoch of
// a record batch, or false if the log does not have it: runs of another log, or of a copy that went on by itself, are removed.
func Open(dir string, identity string, window time.Duration, epochOf func(batch uint64) (uint32, bool)) (*Index, error) {
	x := New(window)
	copy(x.runs.identity[:], identity)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	x.runs.dir = dir
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	// The newest first: what is beyond the bound would only be forgotten again.
	slices.Reverse(entries)
	count := 0
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if !strings.HasSuffix(entry.Name(), runExtension) {
			continue
		}
		r, ok := x.runs.read(path, count < MaxKeys)
		if epoch, known := epochOf(r.last); !ok || !known || epoch != r.epoch {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		count += len(r.keys)
		for _, one := range r.keys {
			if _, known := x.stored[one.key]; !known {
				x.stored[one.key] = one.sequence
				x.order = append(x.order, one)
			}
		}
		r.keys = nil
		x.runs.known = append(x.runs.known, r)
	}
	slices.SortFunc(x.runs.known, func(a, b run) int { return cmp.Compare(a.first, b.first) })
	x.sort()
	x.forget(time.Now())
	return x, nil
}

// Missing returns which of the record batches from first to last have to be learnt from the log.
func (x *Index) Missing(first, last uint64) (missing []Range) {
	for _, r := range x.runs.known {
		if r.first > first {
			missing = append(missing, Range{first, min(r.first-1, last)})
		}
		if first = max(first, r.last+1); first > last {
			break
		}
	}
	if first <= last {
		missing = append(missing, Range{first, last})
	}
	return slices.DeleteFunc(missing, func(r Range) bool { return r.First > r.Last })
}

// Full reports whether there are as many keys as there may be: what is missing of older ones would be forgotten.
func (x *Index) Full() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.order) >= MaxKeys
}

// Complete says that all that was missing was learnt, or that what was not would be forgotten.
func (x *Index) Complete() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sort()
	x.whole = true
	x.forget(time.Now())
	x.runs.known = nil
}

// Close writes what is in no file. Without it, the next index has to learn that from the log.
func (x *Index) Close() error {
	x.mu.Lock()
	last := x.fresh
	x.fresh = run{}
	x.mu.Unlock()
	if last.last == 0 {
		return nil
	}
	return x.runs.write(last)
}

// Trim removes the files of runs that the window has left behind.
func (x *Index) Trim(now time.Time) error {
	if x.runs.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(x.runs.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !strings.HasSuffix(entry.Name(), runExtension) || now.Sub(info.ModTime()) <= x.window {
			continue
		}
		if err := os.Remove(filepath.Join(x.runs.dir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// write writes the file of a run. It need not be durable: one that is not whole is not believed.
func (r *runs) write(full run) error {
	if r.dir == "" {
		return nil
	}
	b := make([]byte, 0, runHead+len(full.keys)*keyBytes+4)
	b = append(append(b, runSign...), r.identity[:]...)
	b = binary.LittleEndian.AppendUint64(b, full.first)
	b = binary.LittleEndian.AppendUint64(b, full.last)
	b = binary.LittleEndian.AppendUint32(b, full.epoch)
	for _, one := range full.keys {
		b = append(b, one.key[:]...)
		b = binary.LittleEndian.AppendUint64(b, one.sequence)
		b = binary.LittleEndian.AppendUint64(b, uint64(one.written))
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	path := filepath.Join(r.dir, fmt.Sprintf("%020d%s", full.first, runExtension))
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// read reads the file of a run, or only what it is about; false if it does not hold, or is of another log.
func (r *runs) read(path string, keys bool) (run, bool) {
	if !keys {
		return r.readHead(path)
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) < runHead+4 || (len(b)-runHead-4)%keyBytes != 0 || !bytes.HasPrefix(b, runSign) ||
		[32]byte(b[8:40]) != r.identity || crc32.Checksum(b[:len(b)-4], castagnoli) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return run{}, false
	}
	found := parseRunHead(b)
	for b = b[runHead : len(b)-4]; len(b) > 0; b = b[keyBytes:] {
		found.keys = append(found.keys, stored{
			key: Key(b[:16]), sequence: binary.LittleEndian.Uint64(b[16:]), written: int64(binary.LittleEndian.Uint64(b[24:])),
		})
	}
	return found, true
}

// readHead reads what the run in a file is about.
func (r *runs) readHead(path string) (run, bool) {
	f, err := os.Open(path)
	if err != nil {
		return run{}, false
	}
	defer f.Close()
	b := make([]byte, runHead)
	if _, err := f.ReadAt(b, 0); err != nil || !bytes.HasPrefix(b, runSign) || [32]byte(b[8:40]) != r.identity {
		return run{}, false
	}
	return parseRunHead(b), true
}

func parseRunHead(b []byte) run {
	return run{
		first: binary.LittleEndian.Uint64(b[40:]), last: binary.LittleEndian.Uint64(b[48:]), epoch: binary.LittleEndian.Uint32(b[56:]),
	}
}
