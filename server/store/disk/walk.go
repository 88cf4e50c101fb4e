package disk

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
)

// walkBuffer is how much of a file is read at once.
const walkBuffer = 256 << 10

var zeros [pageBytes]byte

// walker steps over the entries of one segment, and over what does not hold.
type walker struct {
	file io.ReaderAt
	salt uint32
	at   int64 // of the next entry
	end  int64 // behind the last

	buffer []byte
	begin  int64 // of the buffer in the file
}

// found is one entry, at an offset. Its key and payload are views that are valid until the next step.
type found struct {
	head
	offset  int64
	payload []byte
	corrupt bool // the payload does not hold, or is not there
}

// next returns the next entry of which a head holds; io.EOF, with w.at where entries ended, if there is none.
func (w *walker) next() (found, error) {
	if w.at >= w.end {
		return found{}, io.EOF
	}
	b, err := w.view(w.at, headBytes+maxKey)
	if err != nil {
		return found{}, err
	}
	h, ok := parseHead(b, w.salt)
	if ok {
		return w.entry(h, nil)
	}
	begin, h, err := w.scan()
	if err != nil {
		return found{}, err
	}
	w.at = begin
	return w.entry(h, h.key)
}

// entry reads the payload of the entry at w.at, and steps over it. key is the entry's if it is not to be read there.
func (w *walker) entry(h head, key []byte) (found, error) {
	from := headBytes + len(h.key)
	if h.payload > maxPayload || w.at+h.bytes() > w.end {
		// It claims what is not in the file: the file was cut.
		f := found{head: h, offset: w.at, corrupt: true}
		w.at = w.end
		return f, nil
	}
	b, err := w.view(w.at, from+h.payload)
	if err != nil {
		return found{}, err
	}
	f := found{head: h, offset: w.at, corrupt: len(b) < from+h.payload}
	if f.key = key; key == nil {
		f.key = b[headBytes:min(from, len(b))] // the view may have moved
	}
	if !f.corrupt {
		f.payload = b[from:]
		f.corrupt = crc32.Update(w.salt, castagnoli, f.payload) != h.checksum
	}
	w.at += h.bytes()
	return f, nil
}

// scan looks behind w.at, where no head holds, for the second head of the entry there, or the next first head that holds. It returns
// where the entry of that head begins, and a copy of the head.
func (w *walker) scan() (begin int64, h head, err error) {
	for at := w.at + alignment; at < w.end; at += alignment {
		b, err := w.view(at, headBytes+maxKey)
		if err != nil {
			return 0, head{}, err
		}
		if len(b) < headBytes {
			break
		}
		if at%pageBytes == 0 {
			if page, err := w.view(at, pageBytes); err == nil && bytes.Equal(page, zeros[:]) {
				at += pageBytes - alignment
				continue
			}
		}
		if b[43] != headSign {
			continue
		}
		if h, ok := parseHead(b, w.salt); ok {
			return at, h.clone(), nil
		}
		if h, ok := parseHead(b, ^w.salt); ok && at-h.bodyBytes() == w.at {
			return w.at, h.clone(), nil
		}
	}
	return 0, head{}, io.EOF
}

// clone returns the head with a key of its own: the buffer may move.
func (h head) clone() head {
	h.key = bytes.Clone(h.key)
	return h
}

// view returns n bytes at an offset, fewer where the file ends. They are valid until the next view.
func (w *walker) view(at int64, n int) ([]byte, error) {
	n = int(min(int64(n), max(w.end-at, 0)))
	if at >= w.begin && at+int64(n) <= w.begin+int64(len(w.buffer)) {
		return w.buffer[at-w.begin:][:n], nil
	}
	size := int(min(int64(max(n, walkBuffer)), w.end-at))
	if cap(w.buffer) < size {
		w.buffer = make([]byte, size)
	}
	w.buffer, w.begin = w.buffer[:size], at
	read, err := w.file.ReadAt(w.buffer, at)
	w.buffer = w.buffer[:read]
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return w.buffer[:min(n, read)], nil
}

// recovered is what an unsealed segment holds.
type recovered struct {
	content
	marks     []mark
	corrupt   int   // entries that do not hold and are not torn
	lastWrite int64 // offset of the last write
}

// recoverSegment reads a segment that was not sealed, of so many bytes. It calls visit with each entry,
// also with those that are corrupt, if a head of them holds.
func recoverSegment(f io.ReaderAt, size int64, o origin, visit func(found)) (recovered, error) {
	w := &walker{file: f, salt: o.Salt, at: entriesBegin, end: size}
	r := recovered{content: content{Last: o.First - 1, End: entriesBegin}}
	var bad []extent // that do not hold, in the order of the file
	for {
		before := w.at
		e, err := w.next()
		if errors.Is(err, io.EOF) {
			end, err := w.lastByte(before)
			if err != nil {
				return r, err
			}
			if end > before {
				bad = append(bad, extent{from: before, to: end, unknown: true})
				r.End = align(end)
			}
			break
		}
		if err != nil {
			return r, err
		}
		if e.offset > before {
			bad = append(bad, extent{from: before, to: e.offset})
		}
		if e.corrupt {
			bad = append(bad, extent{from: e.offset, to: w.at, entry: found{head: e.clone(), offset: e.offset, corrupt: true}})
		}
		r.End = w.at
		if !e.corrupt {
			r.lastWrite = e.offset - int64(e.back)
			r.Last, r.LastTime = e.sequence, e.time
			r.mark(e)
			visit(e)
		}
	}
	return r, r.judge(w, bad, size < o.Size, visit)
}

// extent is a part of a segment that does not hold.
type extent struct {
	from, to int64
	entry    found // as far as a head says it
	unknown  bool  // no head says how long it is
}

// judge tells what is torn from what is corrupt, and sets the last sequence.
func (r *recovered) judge(w *walker, bad []extent, cut bool, visit func(found)) error {
	const leastOfHead = 4 // bytes; fewer in zeros are no head
	last := r.Last
	for _, e := range bad {
		if e.from < r.lastWrite { // later writes prove that it was synced
			r.add(e.entry, visit)
			continue
		}
		to := e.to
		if e.unknown {
			to = max(to, e.from+headBytes)
		}
		b, err := w.view(e.from, int(to-e.from))
		if err != nil {
			return err
		}
		head := b[:min(len(b), headBytes)]
		if e.unknown && bytes.HasPrefix(b, indexSign[:]) {
			continue // the segment was being sealed
		}
		if torn(b[:min(len(b), int(e.to-e.from))], e.from) || torn(head, e.from) ||
			e.unknown && len(head)-bytes.Count(head, []byte{0}) < leastOfHead {
			continue
		}
		r.add(e.entry, visit)
		last = max(last+1, e.entry.sequence)
	}
	if cut && last == r.Last {
		last++ // the file lost its end: at least one that was there, as far as anybody can know
		r.corrupt++
	}
	r.Last = last
	return nil
}

// add counts an entry that is corrupt.
func (r *recovered) add(e found, visit func(found)) {
	r.corrupt++
	if e.corrupt {
		visit(e)
	}
}

// mark adds an entry to the index if it is time for one.
func (r *recovered) mark(e found) { r.marks = addMark(r.marks, mark{e.sequence, e.time, e.offset}) }

func addMark(marks []mark, m mark) []mark {
	if len(marks) == 0 || m.offset-marks[len(marks)-1].offset >= markEvery {
		marks = append(marks, m)
	}
	return marks
}

// lastByte returns the offset behind the last byte that is not zero, from an offset on.
func (w *walker) lastByte(from int64) (int64, error) {
	end := from
	for at := from; at < w.end; {
		b, err := w.view(at, walkBuffer)
		if err != nil {
			return 0, err
		}
		if len(b) == 0 {
			break
		}
		if trimmed := bytes.TrimRight(b, "\x00"); len(trimmed) > 0 {
			end = at + int64(len(trimmed))
		}
		at += int64(len(b))
	}
	return end, nil
}
