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
	greatestRecord = 2 << 20 // the engine takes messages of 1 MiB
	// greatestSeal is the most that one record stands for that is lost: readers must be able to fetch it.
	greatestSeal = 1 << 20
	// greatestWork is how many bytes are hashed at most to find one's way in a damaged file. What looks like the head of a record may be
	// part of a message, and whoever writes messages could have put many there.
	greatestWork = 4 << 30
	hasHeader    = 1 << 31
	sequenceMask = 1<<62 - 1
	erased       = 1 << 63 // stands for a message that was removed
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
	told     bool     // who reads the stream tells of messages that cannot be read: one stands for what is lost
	dense    bool     // sequences follow on each other
}

var recordFormats = map[string]recordFormat{
	streamName:       {streamName, []string{subject, releasedSubject}, true, true, true},
	quarantineStream: {quarantineStream, []string{quarantineSubject}, true, true, false},
	groupsStream:     {groupsStream, []string{groupsSubject}, false, true, false},
	parkedStream:     {parkedStream, []string{parkedSubject, replaySubject}, false, false, false},
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
	around surroundings

	stopped func() bool // nobody waits for the result any more
	work    int         // bytes hashed to find one's way
	sizes   map[int]int // of sound records by offset, as far as they were looked at; 0: there is none
	ends    map[int]int // by offset of a sound record: where the run of them ends that begins there
}

// readBlock reads a file of records. The engine's checksums depend on the stream's name and the file's number.
func readBlock(format recordFormat, path string, around surroundings) (*block, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	number := strings.TrimSuffix(filepath.Base(path), blockSuffix)
	hash, err := newHash(format.stream + "-" + number)
	return &block{
		format: format, path: path, hash: hash, data: data, around: around, stopped: func() bool { return false },
		sizes: make(map[int]int), ends: make(map[int]int),
	}, err
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
	before := b.around.before.sequence
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
		if before = max(before, run.highest); at > run.begin {
			run.end = at
			spans = append(spans, run)
		}
		if at < len(b.data) {
			begin := at
			at = b.nextSound(begin, before)
			for at-begin < leastRecord && at < len(b.data) { // nothing so short can take its place
				r, _ := b.record(at)
				at += r.size
				if r.size == 0 {
					at = b.nextSound(at, before)
				}
			}
			spans = append(spans, span{begin: begin, end: at})
		}
	}
	return spans
}

// nextSound returns where the first sound record behind a damaged one begins; the end of the block if there is none. before is the
// highest sequence in front of it, 0 if none is known.
//
// Bytes that look like a sound record may be part of a message, whose sender has put them there. But a run of such records ends before
// the message does: it cannot join the record that follows, because a checksum that nobody can foresee is in between. So a run that
// is longer than any record, or that ends with the block, is believed. What comes before the first of them, because more than one place
// is damaged, is believed only if the damaged record does not say by its length, or by its checksum, that it is a part of it.
func (b *block) nextSound(damaged int, before uint64) int {
	own := lengthOf(b.data[damaged:])
	overrun := own == 0 && b.around.last && !b.around.whole && b.isCutShort(damaged, before)
	end, first := len(b.data), 0
	for at := damaged + 1; at+leastRecord <= len(b.data) && b.work < greatestWork && !b.stopped(); at++ {
		if !b.follows(at, before) || b.soundAt(at) == 0 {
			continue
		}
		if run := b.runEnd(at); run == len(b.data) || run-at > greatestRecord {
			end = at
			break
		}
		if sequence := binary.LittleEndian.Uint64(b.data[at+4:]); first == 0 && sequence > before && sequence <= sequenceMask {
			first = at
		}
	}
	target := damaged + own
	switch {
	case overrun && !b.isWhole(damaged, end, before):
		return len(b.data) // it was not written to its end
	case own > 0 && target <= end && b.isEndOrSound(target) && (first == 0 || b.runEnd(first) != b.runEnd(target)):
		return target
	case first > 0 && !b.isWhole(damaged, end, before):
		return first
	}
	return end
}

// isWhole reports whether a place holds one record whose head alone is damaged.
func (b *block) isWhole(begin, end int, before uint64) bool {
	_, ok := b.repair(b.data[begin:end], site{before: storedRecord{sequence: before}})
	return ok
}

// isCutShort reports whether a record begins like one, and ends behind the end of the file.
func (b *block) isCutShort(at int, before uint64) bool {
	if len(b.data)-at < headSize {
		return true
	}
	head := b.data[at:]
	length, name := int(binary.LittleEndian.Uint32(head)&^hasHeader), int(binary.LittleEndian.Uint16(head[20:]))
	name = min(headSize+name, len(head))
	return length <= greatestRecord && at+length > len(b.data) && b.follows(at, before) &&
		(b.format.isSubject(head[headSize:name]) || slices.ContainsFunc(b.format.subjects, func(s string) bool {
			return strings.HasPrefix(s, string(head[headSize:name])) // cut off in the middle
		}))
}

// follows reports whether what seems to be a record at an offset has a sequence that can be behind another one.
func (b *block) follows(at int, before uint64) bool {
	sequence := binary.LittleEndian.Uint64(b.data[at+4:]) & sequenceMask
	return before == 0 || sequence <= before+greatestStep
}

func (b *block) isEndOrSound(at int) bool { return at == len(b.data) || b.soundAt(at) > 0 }

// soundAt returns the size of the sound record at an offset; 0 if there is none.
func (b *block) soundAt(at int) int {
	size, known := b.sizes[at]
	if known {
		return size
	}
	length := lengthOf(b.data[at:])
	if length == 0 {
		return 0
	}
	name := int(binary.LittleEndian.Uint16(b.data[at+20:]))
	if name > length-leastRecord || name == 0 && length > leastRecord || name > 0 && !b.format.isSubject(b.data[at+headSize:at+headSize+name]) {
		return 0
	}
	b.work += length
	if r, ok := b.record(at); ok {
		size = r.size
	}
	b.sizes[at] = size
	return size
}

// runEnd returns where a run of sound records ends.
func (b *block) runEnd(at int) int {
	var passed []int
	end := at
	for end < len(b.data) {
		if known, ok := b.ends[end]; ok {
			end = known
			break
		}
		size := b.soundAt(end)
		if size == 0 {
			break
		}
		passed = append(passed, end)
		end += size
	}
	for _, offset := range passed {
		b.ends[offset] = end
	}
	return end
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
	case p.after.sequence == 0 && !b.format.dense && p.fits(own) && own-next < greatestStep:
		return own // what was removed has left gaps
	case p.fits(next):
		return next
	}
	return 0
}

// seal puts records in the place of what is damaged: the first one with a sequence, further ones, if one would be too large, with those
// that follow, as long as they fit. It returns the last sequence.
func (b *block) seal(damaged []byte, sequence uint64, p site) uint64 {
	name := b.subjectOf(damaged)
	pieces := (len(damaged) + greatestSeal - 1) / greatestSeal
	last := uint64(0)
	for i := range pieces {
		piece := damaged[:len(damaged)/(pieces-i)]
		damaged = damaged[len(piece):]
		if highest := p.after.sequence - 1; i == pieces-1 && p.end && p.after.sequence > 0 && p.fits(highest) {
			sequence = highest // so that it is not given out again
		}
		clear(piece)
		binary.LittleEndian.PutUint32(piece, uint32(len(piece)))
		binary.LittleEndian.PutUint64(piece[4:], sequence|erased)
		binary.LittleEndian.PutUint64(piece[12:], cmp.Or(p.before.time, p.after.time))
		subject := 0
		if b.format.told && sequence > 0 && name != "" && len(piece) >= leastRecord+len(name) {
			binary.LittleEndian.PutUint64(piece[4:], sequence)
			subject = copy(piece[headSize:], name)
			binary.LittleEndian.PutUint16(piece[20:], uint16(subject))
		}
		copy(piece[len(piece)-checksumSize:], b.checksum(piece, subject, headSize+subject))
		if last = max(last, sequence); sequence > 0 {
			if sequence++; p.after.sequence == 0 || !p.fits(sequence) {
				sequence = 0
			}
		}
	}
	return last
}

// subjectOf returns the subject of a damaged record; empty if it cannot be told.
func (b *block) subjectOf(damaged []byte) string {
	if b.format.whole {
		return b.format.subjects[0]
	}
	if len(damaged) < leastRecord {
		return ""
	}
	name := damaged[headSize:min(headSize+int(binary.LittleEndian.Uint16(damaged[20:])), len(damaged))]
	if !b.format.isSubject(name) {
		return ""
	}
	return string(name)
}

// surroundings are the messages next to a block, in other files; zero if there is none.
type surroundings struct {
	before, after storedRecord
	last          bool // there is no other file behind it
	whole         bool // and it was written to its end
}

// mend makes the block one that the engine reads to its end, in memory, and returns what was wrong with it.
func (b *block) mend() (flaws []flaw) {
	spans := b.spans()
	before := b.around.before
	for i, s := range spans {
		if s.sound {
			if s.last.size > 0 {
				before = s.last
			}
			continue
		}
		last := i == len(spans)-1
		p := site{before: before, after: b.around.after, end: b.around.last && last}
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
		if p.end && !b.around.whole && (b.isTorn(s) || sequence == 0) || last && len(damaged) < leastRecord {
			f.remedy = remedyCut
			b.data = b.data[:s.begin]
			return append(flaws, f)
		}
		f.remedy, f.first = remedySeal, sequence
		f.last = b.seal(damaged, sequence, p)
		if sequence > 0 && before.sequence > 0 && p.after.sequence > 0 {
			f.first, f.last = before.sequence+1, p.after.sequence-1
		}
		if f.last > 0 {
			before = storedRecord{size: len(damaged), sequence: f.last, time: before.time}
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

// run mends the files of a stream, given in order. stopped is what was noted of it when it was stopped in order; nil if it was not. It
// returns what became of each file, and what was wrong.
func (m mender) run(ctx context.Context, format recordFormat, paths []string, stopped *streamEnd) (states []blockState, flaws []flaw, err error) {
	flawed := false
	for i, path := range paths {
		b, err := readBlock(format, path, around(states, i, len(paths)))
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
		surroundings := around(states, i, len(paths))
		if surroundings.last && stopped != nil && stopped.File == filepath.Base(path) {
			surroundings.whole = true
			surroundings.after = storedRecord{sequence: stopped.Last + 1}
		}
		found, err := m.mendFile(ctx, format, path, surroundings, &states[i])
		if err != nil {
			return nil, nil, err
		}
		flaws = append(flaws, found...)
	}
	return states, flaws, nil
}

// around returns the surroundings of one of so many files of a stream, as far as the others were read.
func around(states []blockState, i, files int) (around surroundings) {
	around.last = i == files-1
	for _, state := range slices.Backward(states[:i]) {
		if around.before = state.last; around.before.size > 0 {
			break
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
func (m mender) mendFile(ctx context.Context, format recordFormat, path string, around surroundings, state *blockState) ([]flaw, error) {
	b, err := readBlock(format, path, around)
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
