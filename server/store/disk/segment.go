package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	pageBytes    = 4096
	entriesBegin = 2 * pageBytes // behind the headers
	summaryBytes = 64
	markBytes    = 24
	indexHead    = 8 + 4 // sign, and number of marks
	// markEvery is how far apart the marks of an index are, in bytes of entries.
	markEvery = 64 << 10

	segmentExtension = ".seg"
	spareName        = "spare"
	beginName        = "begin" // a segment that is being made because there was no spare
)

var (
	headerSign  = [8]byte{'l', 'g', 's', 'e', 'g', 'm', '0', '1'}
	indexSign   = [8]byte{'l', 'g', 'i', 'n', 'd', 'x', '0', '1'}
	summarySign = [8]byte{'l', 'g', 's', 'u', 'm', 'm', '0', '1'}
)

// origin is what a segment's header says. It never changes.
type origin struct {
	ID    id     `json:"-"`
	Epoch uint32 `json:"epoch"`
	Salt  uint32 `json:"salt"`
	First uint64 `json:"first"` // sequence that its first entry has
	Size  int64  `json:"size"`  // that was allocated
}

// id identifies a log or table.
type id [16]byte

// content is what a sealed segment's summary says.
type content struct {
	Last     uint64 `json:"last,omitempty"` // sequence of the last entry; First-1 without one
	LastTime int64  `json:"time,omitempty"`
	End      int64  `json:"end,omitempty"` // offset behind the entries
	// Index is where the index is, and its checksum.
	Index    int64  `json:"index,omitempty"`
	IndexLen uint32 `json:"index_bytes,omitempty"`
	IndexCRC uint32 `json:"index_crc,omitempty"`
}

// mark is one line of an index.
type mark struct {
	sequence uint64
	time     int64
	offset   int64
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", first, segmentExtension))
}

// segmentFirst reads the name of a segment; false if it is not one.
func segmentFirst(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentExtension)
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, ok && err == nil && len(digits) == 20 && first > 0
}

func newOrigin(identity id, epoch uint32, first uint64, size int64) origin {
	return origin{ID: identity, Epoch: epoch, Salt: rand.Uint32(), First: first, Size: size}
}

// header returns both copies of a segment's header.
func (o origin) header() []byte {
	pages := make([]byte, entriesBegin)
	b := pages[:pageBytes]
	copy(b, headerSign[:])
	copy(b[8:], o.ID[:])
	binary.LittleEndian.PutUint32(b[24:], o.Epoch)
	binary.LittleEndian.PutUint32(b[28:], o.Salt)
	binary.LittleEndian.PutUint64(b[32:], o.First)
	binary.LittleEndian.PutUint64(b[40:], uint64(o.Size))
	binary.LittleEndian.PutUint32(b[48:], crc32.Checksum(b[:48], castagnoli))
	copy(pages[pageBytes:], b)
	return pages
}

// readOrigin reads the header of a segment, from the copy that holds.
func readOrigin(f io.ReaderAt) (origin, error) {
	for _, at := range []int64{0, pageBytes} {
		var b [52]byte
		if _, err := f.ReadAt(b[:], at); err != nil && !errors.Is(err, io.EOF) {
			return origin{}, err
		}
		if [8]byte(b[:8]) == headerSign && binary.LittleEndian.Uint32(b[48:]) == crc32.Checksum(b[:48], castagnoli) {
			return origin{
				ID: id(b[8:24]), Epoch: binary.LittleEndian.Uint32(b[24:]), Salt: binary.LittleEndian.Uint32(b[28:]),
				First: binary.LittleEndian.Uint64(b[32:]), Size: int64(binary.LittleEndian.Uint64(b[40:])),
			}, nil
		}
	}
	return origin{}, errNoHeader
}

var errNoHeader = errors.New("no segment header holds")

// appendSeal appends what a sealed segment has behind its entries, which end at offset end, and completes the content.
func appendSeal(buffer []byte, c *content, end int64, marks []mark, extra []byte) []byte {
	at := len(buffer)
	buffer = append(buffer, indexSign[:]...)
	buffer = binary.LittleEndian.AppendUint32(buffer, uint32(len(marks)))
	for _, m := range marks {
		buffer = binary.LittleEndian.AppendUint64(buffer, m.sequence)
		buffer = binary.LittleEndian.AppendUint64(buffer, uint64(m.time))
		buffer = binary.LittleEndian.AppendUint64(buffer, uint64(m.offset))
	}
	buffer = append(buffer, extra...)
	c.End, c.Index, c.IndexLen = end, end, uint32(len(buffer)-at)
	c.IndexCRC = crc32.Checksum(buffer[at:], castagnoli)
	var b [summaryBytes]byte
	copy(b[:], summarySign[:])
	binary.LittleEndian.PutUint64(b[8:], c.Last)
	binary.LittleEndian.PutUint64(b[16:], uint64(c.LastTime))
	binary.LittleEndian.PutUint64(b[24:], uint64(c.End))
	binary.LittleEndian.PutUint64(b[32:], uint64(c.Index))
	binary.LittleEndian.PutUint32(b[40:], c.IndexLen)
	binary.LittleEndian.PutUint32(b[44:], c.IndexCRC)
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return append(append(buffer, b[:]...), b[:]...)
}

// readContent reads the summary of a segment, from the copy that holds; false if it is not sealed, or neither does.
func readContent(f *os.File) (content, bool) {
	info, err := f.Stat()
	if err != nil {
		return content{}, false
	}
	for _, back := range []int64{summaryBytes, 2 * summaryBytes} {
		var b [summaryBytes]byte
		if _, err := f.ReadAt(b[:], info.Size()-back); err != nil {
			continue
		}
		if [8]byte(b[:8]) == summarySign && binary.LittleEndian.Uint32(b[60:]) == crc32.Checksum(b[:60], castagnoli) {
			return content{
				Last: binary.LittleEndian.Uint64(b[8:]), LastTime: int64(binary.LittleEndian.Uint64(b[16:])),
				End: int64(binary.LittleEndian.Uint64(b[24:])), Index: int64(binary.LittleEndian.Uint64(b[32:])),
				IndexLen: binary.LittleEndian.Uint32(b[40:]), IndexCRC: binary.LittleEndian.Uint32(b[44:]),
			}, true
		}
	}
	return content{}, false
}

// readIndex reads the index of a sealed segment; false if it does not hold: then only scanning the entries tells.
func readIndex(f io.ReaderAt, c content) (marks []mark, extra []byte, ok bool) {
	b := make([]byte, c.IndexLen)
	if _, err := f.ReadAt(b, c.Index); err != nil || len(b) < indexHead || crc32.Checksum(b, castagnoli) != c.IndexCRC {
		return nil, nil, false
	}
	n := int(binary.LittleEndian.Uint32(b[len(indexSign):]))
	b = b[indexHead:]
	if n*markBytes > len(b) {
		return nil, nil, false
	}
	marks = make([]mark, n)
	for i := range marks {
		marks[i] = mark{
			sequence: binary.LittleEndian.Uint64(b), time: int64(binary.LittleEndian.Uint64(b[8:])),
			offset: int64(binary.LittleEndian.Uint64(b[16:])),
		}
		b = b[markBytes:]
	}
	return marks, b, true
}
