package eventlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/minio/highwayhash"
)

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
	begin, end int
	sound      bool
	first      storedRecord // of those that are messages; zero if there is none
	last       storedRecord // the one with the highest sequence, which may be the mark of a removal; zero if there is none
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
			if run.first.size == 0 && !r.removed {
				run.first = r
			}
			if r.sequence >= run.last.sequence {
				run.last = r
			}
		}
		if before = max(before, run.last.sequence); at > run.begin {
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
	overrun := own == 0 && b.around.last && before >= b.around.confirmed && b.isCutShort(damaged, before)
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
