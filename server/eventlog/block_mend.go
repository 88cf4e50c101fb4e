package eventlog

import (
	"bytes"
	"cmp"
	"encoding/binary"
)

// site is what is known of the surroundings of a damaged place.
type site struct {
	before, after storedRecord // the records next to it, in this block or another; zero if there is none
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
	if s.end-s.begin < leastRecord+len(b.format.subjects[0]) {
		return 0 // too short for a message
	}
	own := binary.LittleEndian.Uint64(b.data[s.begin+4:]) & sequenceMask
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

// surroundings are what is known of the other files of a block's stream.
type surroundings struct {
	before, after storedRecord // next to it; zero if there is none
	last          bool         // there is no other file behind it
	confirmed     uint64       // a sequence that was stored: no write up to it was interrupted
}

// mend makes the block one that the engine reads to its end, in memory, and returns what was wrong with it.
func (b *block) mend() (flaws []flaw) {
	spans := b.spans()
	before := b.around.before
	for i, s := range spans {
		if s.sound {
			if s.last.sequence > before.sequence {
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
			if r, _ := b.parse(whole); r.sequence > before.sequence {
				before = r
			}
			flaws = append(flaws, f)
			continue
		}
		confirmed := before.sequence < b.around.confirmed
		if p.end && confirmed {
			p.after = storedRecord{sequence: b.around.confirmed + 1}
		}
		sequence := b.sequence(s, p)
		if p.end && !confirmed && (b.isTorn(s) || sequence == 0) || last && len(damaged) < leastRecord {
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
