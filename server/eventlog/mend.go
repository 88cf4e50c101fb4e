package eventlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The engine opens a file of records that does not match its index by reading it up to the first record that it cannot read, and cuts
// off the rest: one flipped byte costs all that was stored behind it, then or after the next crash. So before the engine sees the files
// they are read here, each record is compared with its checksum, and one that is damaged is made whole again or, where that cannot be
// done, sealed: something takes its place that the engine reads over. What stands behind it stays.

// flaw is a place in a file of records that is not as it was written.
type flaw struct {
	stream, file string
	offset, size int64
	// first and last are the sequences that are lost; 0 if none is, as far as can be told.
	first, last uint64
	// after and before are when the messages next to it were written; zero if there is none.
	after, before time.Time
	remedy        remedy
	kept          string // the file that holds a copy of the bytes; empty if it could not be written
}

// remedy is what was done about a flaw.
type remedy int

const (
	remedyRepair remedy = iota // only the head was damaged: the record is whole again
	remedySeal                 // what was there is lost, what follows is not
	remedyCut                  // an interrupted write at the end, as far as can be told
)

// blockState is what is known of a file of records after it was read and, if need be, mended.
type blockState struct {
	first, last storedRecord // as of a span
	flawed      bool
}

func (b *block) state() (state blockState) {
	for _, s := range b.spans() {
		state.flawed = state.flawed || !s.sound
		if state.first.size == 0 {
			state.first = s.first
		}
		if s.last.sequence >= state.last.sequence {
			state.last = s.last
		}
	}
	return state
}

// mender reads the files of a stream's records before the engine does, and mends those that are damaged.
type mender struct {
	dir       string // of the log
	format    recordFormat
	confirmed uint64            // a sequence of the stream that was stored
	seen      func(bytes int64) // is told how much was read
}

// run mends the files, given in order. It returns what became of each, and what was wrong.
func (m mender) run(ctx context.Context, paths []string) (states []blockState, flaws []flaw, err error) {
	flawed := false
	for i, path := range paths {
		b, err := readBlock(m.format, path, m.around(states, i, len(paths)))
		if err != nil {
			return nil, nil, err
		}
		b.stopped = func() bool { return ctx.Err() != nil }
		state := b.state()
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		states, flawed = append(states, state), flawed || state.flawed
		m.seen(int64(len(b.data)))
	}
	if !flawed {
		return states, nil, nil
	}
	records := filepath.Dir(paths[0])
	// The engine's index of the stream is of the time before; it makes a new one.
	if err := os.Remove(filepath.Join(records, indexFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	if err := syncDir(records); err != nil {
		return nil, nil, err
	}
	for i, path := range paths {
		if !states[i].flawed {
			continue
		}
		found, err := m.mendFile(ctx, path, m.around(states, i, len(paths)), &states[i])
		if err != nil {
			return nil, nil, err
		}
		flaws = append(flaws, found...)
	}
	return states, flaws, nil
}

// around returns the surroundings of one of so many files of a stream, as far as the others were read.
func (m mender) around(states []blockState, i, files int) (around surroundings) {
	around.last, around.confirmed = i == files-1, m.confirmed
	for _, state := range states[:i] {
		if state.last.sequence > around.before.sequence {
			around.before = state.last
		}
	}
	for _, state := range states[min(i+1, len(states)):] {
		if around.after = state.first; around.after.size > 0 {
			break
		}
	}
	return around
}

// mendFile mends one file, and keeps a copy of what it changes there. A crash in the middle leaves a place that is mended next time.
func (m mender) mendFile(ctx context.Context, path string, around surroundings, state *blockState) ([]flaw, error) {
	b, err := readBlock(m.format, path, around)
	if err != nil {
		return nil, err
	}
	b.stopped = func() bool { return ctx.Err() != nil }
	damaged := bytes.Clone(b.data)
	flaws := b.mend()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	b.sizes, b.ends = make(map[int]int), make(map[int]int)
	*state = b.state()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	for i := range flaws {
		f := &flaws[i]
		f.kept = m.keep(f, damaged[f.offset:f.offset+f.size])
		if f.remedy != remedyCut && err == nil {
			_, err = file.WriteAt(b.data[f.offset:f.offset+f.size], f.offset)
		}
	}
	if len(b.data) < len(damaged) && err == nil {
		err = file.Truncate(int64(len(b.data)))
	}
	return flaws, errors.Join(err, file.Sync(), file.Close())
}

// damagedDir is where copies of damaged records are kept, below the data directory. Most of a record may be readable for people.
const damagedDir = "damaged"

// keep makes a copy of what is about to be changed durable, and returns the name of its file; none if it could not be written, which must
// not keep the log from being opened.
func (m mender) keep(f *flaw, data []byte) string {
	dir := filepath.Join(m.dir, damagedDir)
	if err := makeDir(dir); err != nil {
		return ""
	}
	number := strings.TrimSuffix(filepath.Base(f.file), blockSuffix)
	for n := 1; ; n++ { // the same place may be damaged more than once
		path := filepath.Join(dir, fmt.Sprintf("%s-%s-%d-%d", f.stream, number, f.offset, n))
		kept, err := os.ReadFile(path)
		switch {
		case err == nil && bytes.Equal(kept, data): // by a process that did not live to change anything
			return path
		case err == nil:
		case !errors.Is(err, fs.ErrNotExist) || writeWhole(path, data) != nil:
			return ""
		default:
			return path
		}
	}
}
