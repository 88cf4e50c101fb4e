package eventlog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
)

// The head of a record in one of the engine's block files: length, stream sequence, time, and length of the subject, little-endian.
// The first bit of the length and the first two of the sequence are flags.
const (
	headSize       = 4 + 8 + 8 + 2
	leastRecord    = headSize + 8 // a checksum ends it
	greatestRecord = 64 << 20
	lengthMask     = 1<<31 - 1
	sequenceMask   = 1<<62 - 1
	// greatestStep is how far apart the sequences of neighbours may be. The engine takes the time and memory of every sequence in
	// between, before it looks at a checksum: a few more bits would keep it busy for hours.
	greatestStep = 1 << 24
)

// mendHeads looks at every head in the blocks of a stream, in order, and gives those with a sequence that cannot be the one that
// follows. If only the sequence was damaged, that mends the record; if not, its checksum does not match, and the engine leaves it out.
// In a sparse stream there may be any number of sequences between two blocks, but not in one: what is removed leaves gaps that the
// block once held. It returns the last sequence up to the end of each block.
func mendHeads(blocks []string, sparse bool, logger *slog.Logger) (lasts []uint64, err error) {
	var last uint64
	for _, block := range blocks {
		if sparse {
			last = 0
		}
		if last, err = mendBlock(block, last, logger); err != nil {
			return nil, err
		}
		lasts = append(lasts, last)
	}
	return lasts, nil
}

// recordHead is what matters of a head.
type recordHead struct {
	offset   int64
	sequence uint64
	removed  bool // it stands for a record that was removed, from here or from another block
}

// mendBlock mends one block. last is the sequence before it, 0 if that is not known; it returns the last one in it.
func mendBlock(path string, last uint64, logger *slog.Logger) (_ uint64, err error) {
	heads, err := readHeads(path)
	heads = slices.DeleteFunc(heads, func(h recordHead) bool { return h.removed })
	if err != nil || len(heads) == 0 {
		return last, err
	}
	if last == 0 { // the beginning of what is retained
		last = before(heads)
	}
	var file *os.File
	for _, head := range heads {
		if head.sequence <= last+greatestStep {
			last = max(last, head.sequence)
			continue
		}
		last++
		logger.Error("the head of a record is damaged: it is given the sequence that follows", "file", path, "offset", head.offset,
			"stream_sequence", last)
		if file == nil {
			if file, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
				return 0, err
			}
			defer func() { err = errors.Join(err, file.Sync(), file.Close()) }()
		}
		if _, err := file.WriteAt(binary.LittleEndian.AppendUint64(nil, last), head.offset+4); err != nil {
			return 0, err
		}
	}
	return last, nil
}

// before returns the sequence before the first of some heads, of which one may be damaged: if the first does not go with the second
// and not with the third either, it is the first.
func before(heads []recordHead) uint64 {
	first := heads[0].sequence
	for _, other := range heads[1:min(len(heads), 3)] {
		if other.sequence-first <= greatestStep { // not if it is less: the difference wraps around
			return first - 1
		}
	}
	if len(heads) > 1 {
		return heads[1].sequence - 2
	}
	return first - 1
}

// readHeads returns the heads in a block, up to the first that cannot be one: what follows is the engine's to judge.
func readHeads(path string) ([]recordHead, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	reader := bufio.NewReaderSize(file, 1<<20)
	var heads []recordHead
	for at := int64(0); ; {
		head, err := reader.Peek(headSize)
		if errors.Is(err, io.EOF) {
			return heads, nil
		}
		if err != nil {
			return nil, err
		}
		length := int64(binary.LittleEndian.Uint32(head) & lengthMask)
		if length < leastRecord || length > greatestRecord {
			return heads, nil
		}
		if sequence := binary.LittleEndian.Uint64(head[4:]); sequence&sequenceMask > 0 {
			heads = append(heads, recordHead{at, sequence & sequenceMask, sequence > sequenceMask})
		}
		at += length
		if _, err := reader.Discard(int(length)); err != nil {
			return heads, nil // cut off
		}
	}
}
