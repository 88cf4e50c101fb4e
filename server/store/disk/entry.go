package disk

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

const (
	// headBytes is the size of an entry's head.
	headBytes = 48
	alignment = 8
	sector    = 512
	// headSign is in every head, where the byte is never zero.
	headSign = 0xE7
)

// kind says what an entry is.
type kind uint8

const (
	kindData    kind = 1
	kindErased  kind = 2 // a log's entry that was removed on purpose: a tombstone without payload
	kindDeleted kind = 3 // a table's key that has no value any more: a tombstone
	kindCorrupt kind = 4 // a table's key whose value was found corrupt when its segment was removed
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is what stands in front of an entry, and behind it again.
type head struct {
	sequence uint64
	time     int64  // Unix nanoseconds
	revision uint64 // of a table's value; else 0
	payload  int    // bytes
	checksum uint32 // of the payload
	back     uint32 // from the entry to the first one that was written with it
	kind     kind
	key      []byte
}

func align(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }

// bodyBytes is how much of an entry comes before its second head.
func (h *head) bodyBytes() int64 { return align(int64(headBytes + len(h.key) + h.payload)) }

// bytes is the size of the whole entry.
func (h *head) bytes() int64 { return h.bodyBytes() + align(int64(headBytes+len(h.key))) }

func (h *head) when() time.Time { return time.Unix(0, h.time) }

// appendEntry appends an entry with its payload, as it is stored, to buffer, whose length is a multiple of 8.
func appendEntry(buffer []byte, h *head, payload []byte, salt uint32) []byte {
	h.payload = len(payload)
	h.checksum = crc32.Update(salt, castagnoli, payload)
	buffer = appendHead(buffer, h, salt)
	buffer = append(buffer, payload...)
	buffer = pad(buffer)
	return pad(appendHead(buffer, h, ^salt))
}

func pad(buffer []byte) []byte {
	for len(buffer)%alignment != 0 {
		buffer = append(buffer, 0)
	}
	return buffer
}

func appendHead(buffer []byte, h *head, salt uint32) []byte {
	at := len(buffer)
	buffer = append(buffer, make([]byte, headBytes)...)
	b := buffer[at:]
	binary.LittleEndian.PutUint32(b[4:], uint32(h.payload))
	binary.LittleEndian.PutUint64(b[8:], h.sequence)
	binary.LittleEndian.PutUint64(b[16:], uint64(h.time))
	binary.LittleEndian.PutUint64(b[24:], h.revision)
	binary.LittleEndian.PutUint32(b[32:], h.checksum)
	binary.LittleEndian.PutUint32(b[36:], h.back)
	binary.LittleEndian.PutUint16(b[40:], uint16(len(h.key)))
	b[42], b[43] = byte(h.kind), headSign
	buffer = append(buffer, h.key...)
	binary.LittleEndian.PutUint32(buffer[at:], crc32.Update(salt, castagnoli, buffer[at+4:]))
	return buffer
}

// parseHead reads a head at the start of b; false if none holds there. The key is a view of b. salt is that of the segment for the
// first head of an entry, and its complement for the second.
func parseHead(b []byte, salt uint32) (head, bool) {
	if len(b) < headBytes || b[43] != headSign {
		return head{}, false
	}
	end := headBytes + int(binary.LittleEndian.Uint16(b[40:]))
	if end > len(b) || binary.LittleEndian.Uint32(b) != crc32.Update(salt, castagnoli, b[4:end]) {
		return head{}, false
	}
	return head{
		payload: int(binary.LittleEndian.Uint32(b[4:])), sequence: binary.LittleEndian.Uint64(b[8:]),
		time: int64(binary.LittleEndian.Uint64(b[16:])), revision: binary.LittleEndian.Uint64(b[24:]),
		checksum: binary.LittleEndian.Uint32(b[32:]), back: binary.LittleEndian.Uint32(b[36:]),
		kind: kind(b[42]), key: b[headBytes:end],
	}, true
}

// torn reports whether what stands at offset, the beginning of b in its file, was never wholly written: some sector's part of it
// is in zeros. b is the extent of the entry, or its head's when that does not say more.
func torn(b []byte, offset int64) bool {
	for len(b) > 0 {
		n := min(int64(len(b)), sector-offset%sector)
		if isZero(b[:n]) {
			return true
		}
		b, offset = b[n:], offset+n
	}
	return false
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
