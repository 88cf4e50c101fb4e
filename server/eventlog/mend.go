package eventlog

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/minio/highwayhash"
)

// The engine opens a file of records that does not match its index by reading it up to the first record that it cannot read, and cuts
// off the rest: one flipped byte costs all that was stored behind it, then or after the next crash. So before the engine sees the files
// they are read here, each record is compared with its checksum, and one that is damaged is made whole again or, where that cannot be
// done, sealed: something takes its place that the engine reads over. What stands behind it stays.

// A record in one of the engine's files: the head (length, stream sequence, time, length of the subject, little-endian), the subject,
// if the first bit of the length is set the length of a header and the header, the message, and a checksum of all but the lengths.
// The first two bits of the sequence are flags.
const (
	headSize       = 4 + 8 + 8 + 2
	checksumSize   = 8
	leastRecord    = headSize + checksumSize
	greatestRecord = 32 << 20
	hasHeader      = 1 << 31
	sequenceMask   = 1<<62 - 1
	erased         = 1 << 63 // stands for a message that was removed
	// greatestStep is how far a sequence is believed to be from another one that is known.
	greatestStep = 1 << 24
	// sectorSize is the least that a disk writes.
	sectorSize = 512
)

var (
	headerBegin = []byte("NATS/1.0\r\n")
	headerEnd   = []byte("\r\n\r\n")
)

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

// recordFormat is what is known about the records of a stream.
type recordFormat struct {
	stream   string
	subjects []string // what subjects begin with
	whole    bool     // a subject is the first of subjects, if it is not longer than that
	tells    bool     // readers are told of records that they cannot read: an empty message stands for one
}

var recordFormats = map[string]recordFormat{
	streamName:       {streamName, []string{subject, releasedSubject}, true, true},
	quarantineStream: {quarantineStream, []string{quarantineSubject}, true, false},
	groupsStream:     {groupsStream, []string{groupsSubject}, false, false},
	parkedStream:     {parkedStream, []string{parkedSubject, replaySubject}, false, false},
}

func (f recordFormat) isSubject(b []byte) bool {
	return slices.ContainsFunc(f.subjects, func(s string) bool { return bytes.HasPrefix(b, []byte(s)) }) &&
		!bytes.ContainsFunc(b, func(r rune) bool { return r <= ' ' || r > '~' }) &&
		(!f.whole || len(b) == len(f.subjects[0]) || len(f.subjects) > 1 && bytes.HasPrefix(b, []byte(f.subjects[1])))
}

// block is one file of records.
type block struct {
	format recordFormat
	path   string
	hash   *highwayhash.Digest64
	sum    [checksumSize]byte
	data   []byte
}

// readBlock reads a file of records. The engine's checksums depend on the stream's name and the file's number.
func readBlock(format recordFormat, path string) (*block, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	number := strings.TrimSuffix(filepath.Base(path), blockSuffix)
	hash, err := newHash(format.stream + "-" + number)
	return &block{format: format, path: path, hash: hash, data: data}, err
}

// newHash returns what makes the engine's checksums of a file, which depend on its name.
func newHash(name string) (*highwayhash.Digest64, error) {
	key := sha256.Sum256([]byte(name))
	return highwayhash.NewDigest64(key[:])
}

// storedRecord is what matters of a record.
type storedRecord struct {
	size     int
	sequence uint64
	time     uint64
	removed  bool // it stands for a message that was removed, from here or from another file
}

func (r storedRecord) written() time.Time {
	if r.size == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(r.time))
}

// record reads the record that begins at an offset. It reports false unless that is whole and matches its checksum.
func (b *block) record(offset int) (storedRecord, bool) { return b.parse(b.data[offset:]) }

func (b *block) parse(data []byte) (storedRecord, bool) {
	size := lengthOf(data)
	if size == 0 {
		return storedRecord{}, false
	}
	data = data[:size]
	subject := data[headSize:]
	if n := int(binary.LittleEndian.Uint16(data[20:])); n <= size-leastRecord {
		subject = subject[:n]
	}
	if len(subject) > 0 && !b.format.isSubject(subject) {
		return storedRecord{}, false
	}
	message := headSize + len(subject)
	if binary.LittleEndian.Uint32(data)&hasHeader != 0 {
		message += 4
	}
	if message > size-checksumSize || !bytes.Equal(b.checksum(data, len(subject), message), data[size-checksumSize:]) {
		return storedRecord{}, false
	}
	// The checksum leaves the lengths out.
	if message > headSize+len(subject) {
		header, length := data[message:size-checksumSize], binary.LittleEndian.Uint32(data[message-4:])
		if length > uint32(len(header)) || !bytes.HasSuffix(header[:length], headerEnd) {
			return storedRecord{}, false
		}
	}
	sequence := binary.LittleEndian.Uint64(data[4:])
	return storedRecord{size, sequence & sequenceMask, binary.LittleEndian.Uint64(data[12:]), sequence > sequenceMask}, true
}

// lengthOf returns the length of a record as its head says; 0 if it cannot be that.
func lengthOf(data []byte) int {
	if len(data) < leastRecord {
		return 0
	}
	size := int(binary.LittleEndian.Uint32(data) &^ hasHeader)
	if size < leastRecord || size > min(len(data), greatestRecord) {
		return 0
	}
	return size
}

func (b *block) checksum(record []byte, subject, message int) []byte {
	b.hash.Reset()
	_, _ = b.hash.Write(record[4:20])
	_, _ = b.hash.Write(record[headSize : headSize+subject])
	_, _ = b.hash.Write(record[message : len(record)-checksumSize])
	return b.hash.Sum(b.sum[:0])
}

// span is a part of a block: a run of sound records, or a place without any.
type span struct {
	begin, end  int
	sound       bool
	first, last storedRecord // of those that are messages; zero if there is none
	highest     uint64       // sequence, also of what was removed
}

// spans divides the block.
func (b *block) spans() []span {
	var spans []span
	for at := 0; at < len(b.data); {
		run := span{begin: at, sound: true}
		for at < len(b.data) {
			r, ok := b.record(at)
			if !ok {
				break
			}
			at += r.size
			run.highest = max(run.highest, r.sequence)
			if r.removed {
				continue
			}
			if run.first.size == 0 {
				run.first = r
			}
			run.last = r
		}
		if run.end = at; run.end > run.begin {
			spans = append(spans, run)
		}
		if at < len(b.data) {
			at = b.nextSound(at)
			for at-run.end < leastRecord && at < len(b.data) { // nothing so short can take its place
				r, _ := b.record(at)
				at += r.size
				if r.size == 0 {
					at = b.nextSound(at)
				}
			}
			spans = append(spans, span{begin: run.end, end: at})
		}
	}
	return spans
}

// nextSound returns where the first sound record behind a damaged one begins; the end of the block if there is none.
func (b *block) nextSound(damaged int) int {
	if size := lengthOf(b.data[damaged:]); size > 0 && damaged+size < len(b.data) {
		if _, ok := b.record(damaged + size); ok {
			return damaged + size
		}
	}
	// The length is damaged, or more than one record. A message may hold bytes that look like a record, but it cannot make them join the
	// next one: so a place from which on all records are sound is better than the first that is.
	first := len(b.data)
	for at := damaged + 1; at+leastRecord <= len(b.data); at++ {
		size := lengthOf(b.data[at:])
		if size == 0 || size > leastRecord && binary.LittleEndian.Uint16(b.data[at+20:]) == 0 {
			continue
		}
		if _, ok := b.record(at); !ok {
			continue
		}
		if b.soundFrom(at) {
			return at
		}
		first = min(first, at)
	}
	return first
}

// soundFrom reports whether all records from an offset on are sound.
func (b *block) soundFrom(at int) bool {
	for at < len(b.data) {
		r, ok := b.record(at)
		if !ok {
			return false
		}
		at += r.size
	}
	return true
}

// site is what is known of the surroundings of a damaged place.
type site struct {
	before, after storedRecord // the messages next to it, in this block or another; zero if there is none
	end           bool         // it is the end of the stream
}

// fits reports whether a sequence lies between those around.
func (p site) fits(sequence uint64) bool {
	return sequence > p.before.sequence && (p.after.sequence == 0 || sequence < p.after.sequence)
}

// repair returns the record that was at a damaged place, if that was one record and only its head is damaged.
func (b *block) repair(damaged []byte, p site) ([]byte, bool) {
	if len(damaged) < leastRecord || len(damaged) > greatestRecord {
		return nil, false
	}
	length := binary.LittleEndian.Uint32(damaged)&hasHeader | uint32(len(damaged))
	shapes := [][]byte{bytes.Clone(damaged)}
	binary.LittleEndian.PutUint32(shapes[0], length)
	if header := bytes.Index(damaged, headerBegin); header >= headSize+4 && header <= 1<<16 {
		if end := bytes.Index(damaged[header:], headerEnd); end > 0 {
			shape := bytes.Clone(damaged)
			binary.LittleEndian.PutUint32(shape, length|hasHeader)
			binary.LittleEndian.PutUint16(shape[20:], uint16(header-4-headSize))
			binary.LittleEndian.PutUint32(shape[header-4:], uint32(end+len(headerEnd)))
			shapes = append(shapes, shape)
		}
	}
	if b.format.whole {
		shape := bytes.Clone(damaged)
		binary.LittleEndian.PutUint32(shape, length&^hasHeader)
		binary.LittleEndian.PutUint16(shape[20:], uint16(len(b.format.subjects[0])))
		shapes = append(shapes, shape)
	}
	for _, shape := range shapes {
		own := binary.LittleEndian.Uint64(damaged[4:])
		for _, sequence := range []uint64{own, p.before.sequence + 1, p.after.sequence - 1} {
			binary.LittleEndian.PutUint64(shape[4:], sequence)
			if r, ok := b.parse(shape); ok && (r.removed || p.fits(r.sequence)) {
				return shape, true
			}
		}
	}
	return nil, false
}

// isTorn reports whether the end of a stream looks like a write that an end of the process or the machine has interrupted: it is not as
// long as it says, or one of the disk's sectors in it was never written. Nobody had an answer to that.
func (b *block) isTorn(s span) bool {
	if lengthOf(b.data[s.begin:s.end]) != s.end-s.begin {
		return true
	}
	for at := s.begin; at < s.end; {
		next := min(at-at%sectorSize+sectorSize, s.end)
		if len(bytes.Trim(b.data[at:next], "\x00")) == 0 {
			return true
		}
		at = next
	}
	return false
}

// sequence returns the sequence of what seals a damaged place; 0 if no message is missing there.
func (b *block) sequence(s span, p site) uint64 {
	own := uint64(0)
	if s.end-s.begin >= leastRecord {
		own = binary.LittleEndian.Uint64(b.data[s.begin+4:]) & sequenceMask
	}
	next := p.before.sequence + 1
	switch {
	case p.before.sequence == 0 && p.after.sequence == 0: // nothing to compare with
		if own <= greatestStep {
			return own
		}
		return 0
	case p.before.sequence == 0:
		if p.fits(own) && p.after.sequence-own <= greatestStep {
			return own
		}
		return p.after.sequence - 1
	case p.after.sequence > 0 && p.fits(own):
		return own
	case p.after.sequence == 0 && !b.format.tells && p.fits(own) && own-next < greatestStep:
		return own // what was removed has left gaps
	case p.fits(next):
		return next
	}
	return 0
}

// seal returns what takes the place of something damaged, of the same size.
func (b *block) seal(size int, sequence uint64, p site) []byte {
	record := make([]byte, size)
	binary.LittleEndian.PutUint32(record, uint32(size))
	binary.LittleEndian.PutUint64(record[4:], sequence|erased)
	binary.LittleEndian.PutUint64(record[12:], cmp.Or(p.before.time, p.after.time))
	if name := b.format.subjects[0]; b.format.tells && sequence > 0 && size >= leastRecord+len(name) {
		binary.LittleEndian.PutUint64(record[4:], sequence)
		binary.LittleEndian.PutUint16(record[20:], uint16(copy(record[headSize:], name)))
	}
	subject := int(binary.LittleEndian.Uint16(record[20:]))
	copy(record[size-checksumSize:], b.checksum(record, subject, headSize+subject))
	return record
}

// surroundings are the messages next to a block, in other files; zero if there is none.
type surroundings struct {
	before, after storedRecord
	last          bool // there is no other file behind it
}

// mend makes the block one that the engine reads to its end, in memory, and returns what was wrong with it.
func (b *block) mend(around surroundings) (flaws []flaw) {
	spans := b.spans()
	before := around.before
	for i, s := range spans {
		if s.sound {
			if s.last.size > 0 {
				before = s.last
			}
			continue
		}
		last := i == len(spans)-1
		p := site{before: before, after: around.after, end: around.last && last}
		for _, later := range spans[i+1:] {
			if later.first.size > 0 {
				p.after = later.first
				break
			}
		}
		f := flaw{
			stream: b.format.stream, file: b.path, offset: int64(s.begin), size: int64(s.end - s.begin),
			after: p.before.written(), before: p.after.written(),
		}
		damaged := b.data[s.begin:s.end]
		if whole, ok := b.repair(damaged, p); ok {
			copy(damaged, whole)
			if r, _ := b.parse(whole); !r.removed {
				before = r
			}
			flaws = append(flaws, f)
			continue
		}
		sequence := b.sequence(s, p)
		if p.end && (b.isTorn(s) || sequence == 0) || last && (len(damaged) < leastRecord || len(damaged) > greatestRecord) {
			f.remedy = remedyCut
			b.data = b.data[:s.begin]
			return append(flaws, f)
		}
		f.remedy, f.first, f.last = remedySeal, sequence, sequence
		if b.format.tells && sequence > 0 && before.size > 0 && p.after.size > 0 {
			f.first, f.last = before.sequence+1, p.after.sequence-1
		}
		copy(damaged, b.seal(len(damaged), sequence, p))
		if sequence > 0 {
			before = storedRecord{size: len(damaged), sequence: sequence, time: before.time}
		}
		flaws = append(flaws, f)
	}
	return flaws
}

// blockState is what is known of a file of records after it was read and, if need be, mended.
type blockState struct {
	first, last storedRecord // messages; zero if there is none
	highest     uint64       // sequence
	flawed      bool
}

func (b *block) state() (state blockState) {
	for _, s := range b.spans() {
		state.flawed = state.flawed || !s.sound
		state.highest = max(state.highest, s.highest)
		if state.first.size == 0 {
			state.first = s.first
		}
		if s.last.size > 0 {
			state.last = s.last
		}
	}
	return state
}

// mender reads the files of records before the engine does, and mends those that are damaged.
type mender struct {
	dir  string            // of the log
	seen func(bytes int64) // is told how much was read
}

// run mends the files of a stream, given in order. It returns what became of each, and what was wrong.
func (m mender) run(ctx context.Context, format recordFormat, paths []string) (states []blockState, flaws []flaw, err error) {
	flawed := false
	for _, path := range paths {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		b, err := readBlock(format, path)
		if err != nil {
			return nil, nil, err
		}
		state := b.state()
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
		found, err := m.mendFile(format, path, around(states, i), &states[i])
		if err != nil {
			return nil, nil, err
		}
		flaws = append(flaws, found...)
	}
	return states, flaws, nil
}

// around returns the surroundings of one of a stream's files.
func around(states []blockState, i int) (around surroundings) {
	around.last = i == len(states)-1
	for _, state := range slices.Backward(states[:i]) {
		if around.before = state.last; around.before.size > 0 {
			break
		}
	}
	for _, state := range states[i+1:] {
		if around.after = state.first; around.after.size > 0 {
			break
		}
	}
	return around
}

// mendFile mends one file, and keeps a copy of what it changes there. A crash in the middle leaves a place that is mended next time.
func (m mender) mendFile(format recordFormat, path string, around surroundings, state *blockState) ([]flaw, error) {
	b, err := readBlock(format, path)
	if err != nil {
		return nil, err
	}
	damaged := bytes.Clone(b.data)
	flaws := b.mend(around)
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

// keep writes a copy of what is about to be changed, and returns the name of its file; none if it could not be written, which must not
// keep the log from being opened. One that is there was written by a process that did not live to change anything.
func (m mender) keep(f *flaw, data []byte) string {
	dir := filepath.Join(m.dir, damagedDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ""
	}
	number := strings.TrimSuffix(filepath.Base(f.file), blockSuffix)
	path := filepath.Join(dir, fmt.Sprintf("%s-%s-%d", f.stream, number, f.offset))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return path
	}
	if err != nil {
		return ""
	}
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		_ = os.Remove(path)
		return ""
	}
	return path
}
