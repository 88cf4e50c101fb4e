package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nats-io/nats-server/v2/server/avl"
)

// The engine's index of a stream: two bytes (a mark and a version), the state of the stream, its subjects, its files of records, the last
// checksum in the last of them, and a checksum of all that. Numbers are varints.
const (
	indexMark    = 11
	indexVersion = 4
)

var errIndex = errors.New("not an index of the version that is known")

// indexedBlock is a file of records as the index knows it.
type indexedBlock struct {
	number      uint64
	first, last uint64 // sequences
	messages    uint64
}

// parseIndex reads what the index of a stream knows of its files, in order.
func parseIndex(stream string, data []byte) ([]indexedBlock, error) {
	hash, err := newHash(stream)
	if err != nil || len(data) < 2+checksumSize {
		return nil, errors.Join(errIndex, err)
	}
	body, sum := data[:len(data)-checksumSize], data[len(data)-checksumSize:]
	_, _ = hash.Write(body)
	if !bytes.Equal(hash.Sum(nil), sum) || body[0] != indexMark || body[1] != indexVersion {
		return nil, errIndex
	}
	r := indexReader{data: body[2:]}
	r.skip(6) // of the stream: messages, bytes, first and last with their times
	for subjects := r.next(); subjects > 0 && r.err == nil; subjects-- {
		r.bytes(r.next())
		r.skip(3)
	}
	var known []indexedBlock
	for blocks := r.next(); blocks > 0 && r.err == nil; blocks-- {
		b := indexedBlock{number: r.next()}
		r.skip(1) // bytes
		b.first = r.next()
		r.skip(1) // its time
		b.last = r.next()
		r.skip(1)
		removed := r.next()
		r.skip(2) // messages that expire by themselves, or are due later
		if removed > 0 {
			r.removed()
		}
		b.messages = b.last + 1 - b.first - min(removed, b.last+1-b.first)
		known = append(known, b)
	}
	return known, r.err
}

// indexReader reads an index. The first error is kept.
type indexReader struct {
	data []byte
	err  error
}

func (r *indexReader) next() uint64 {
	n, size := binary.Uvarint(r.data)
	if size <= 0 {
		r.err, r.data = errIndex, nil
		return 0
	}
	r.data = r.data[size:]
	return n
}

// skip skips numbers. Signed ones take as many bytes as others.
func (r *indexReader) skip(numbers int) {
	for range numbers {
		r.next()
	}
}

func (r *indexReader) bytes(n uint64) []byte {
	if n > uint64(len(r.data)) {
		r.err, r.data = errIndex, nil
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

// removed skips a set of sequences.
func (r *indexReader) removed() {
	_, size, err := avl.Decode(r.data)
	if err != nil {
		r.err, r.data = errIndex, nil
		return
	}
	r.data = r.data[size:]
}

// goneBlock is a file of records that the engine's index knows, and that is not there.
type goneBlock struct {
	indexedBlock
	path string
}

// goneBlocks returns the files of a stream that are gone, in order. It takes a stop in order to know: the engine's index is of any earlier
// time else, and what it tells of may have been removed since.
func goneBlocks(dir, stream string, before stopped) (gone []goneBlock) {
	records := recordsPath(dir, stream)
	data, err := os.ReadFile(filepath.Join(records, indexFile))
	if err != nil || !before.InOrder {
		return nil
	}
	known, err := parseIndex(stream, data)
	if err != nil {
		return nil
	}
	pathOf := func(b indexedBlock) string {
		return filepath.Join(records, strconv.FormatUint(b.number, 10)+blockSuffix)
	}
	for _, b := range known {
		if _, err := os.Stat(pathOf(b)); b.messages > 0 && errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, goneBlock{b, pathOf(b)})
		}
	}
	return gone
}

// compareIndex reports files of records that are gone.
func (c *checker) compareIndex(s *checkedStream) {
	for _, b := range goneBlocks(c.dir, s.name, c.before) {
		s.gone = append(s.gone, b)
		c.report(Problem{Stream: s.name, File: filepath.Join(streamsDir, s.name, recordsDir, filepath.Base(b.path)), First: b.first, Last: b.last,
			Index: -1, What: fmt.Sprintf("the file is missing: %d records", b.messages), Meaning: s.lost})
	}
}
