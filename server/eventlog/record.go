package eventlog

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// Limits of one record batch. NATS carries messages of 1 MiB at most by default.
const (
	// MaxBatchRecords is the most notifications in one batch.
	MaxBatchRecords = 512
	// maxBatchBytes ends a batch that could take more.
	maxBatchBytes = 512 << 10
	// MaxRecordBytes is the most that one marshalled notification may take. One larger than maxBatchBytes is a batch of
	// its own.
	MaxRecordBytes = 1000 << 10
)

// Field numbers of linksgate.v1.RecordBatch, Batch and Notification, for the parts that are read or written without
// unmarshalling. A test compares them with the generated code.
const (
	fieldNotifications = 1 // of both RecordBatch and Batch
	fieldID            = 1
	fieldToken         = 2
	fieldSequence      = 3
	fieldAccount       = 4
	fieldKind          = 5
	fieldICCIDs        = 13
	fieldPartnerCode   = 14
	fieldDuplicateKey  = 15
)

var errNotABatch = errors.New("not a record batch")

// Record is one notification as it is in the log. Records of one batch share memory; they must not be changed.
type Record struct {
	// Position of the notification.
	Position Position
	// Next is the place after it: its token's cursor.
	Next Cursor

	account, partnerCode, duplicateKey []byte // parts of framed
	kind                               linksgatev1.NotificationKind
	framed                             []byte
	message                            int // where the message begins in framed
	erased                             bool
}

// Framed returns the notification with id, token and sequence, marshalled as one element of the field
// linksgate.v1.Batch.notifications. The elements of a batch are adjacent in memory, in order, so that any run of them is one
// slice: see [Join].
func (r *Record) Framed() []byte { return r.framed }

// Notification unmarshals the notification, with id, token and sequence.
func (r *Record) Notification() (*linksgatev1.Notification, error) {
	n := new(linksgatev1.Notification)
	if err := proto.Unmarshal(r.framed[r.message:], n); err != nil {
		return nil, fmt.Errorf("record %d: %w: %w", r.Position.Sequence(), ErrDamaged, err)
	}
	return n, nil
}

// Join returns a and b as one slice if b follows a in memory, as [Record.Framed] of neighbours does.
func Join(a, b []byte) ([]byte, bool) {
	if len(a) == 0 || len(b) == 0 || cap(a) < len(a)+len(b) {
		return nil, false
	}
	joined := a[:len(a)+len(b)]
	if &joined[len(a)] != &b[0] {
		return nil, false
	}
	return joined, true
}

// Message returns the notification with id, token and sequence, marshalled.
func (r *Record) Message() []byte { return r.framed[r.message:] }

// ICCIDs yields the ICCIDs of the notification. They are parts of the record.
func (r *Record) ICCIDs() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for number, value := range fields(r.framed[r.message:]) {
			if number == fieldICCIDs && !yield(value.bytes) {
				return
			}
		}
	}
}

// batch is one unpacked record batch.
type batch struct {
	stream  uint64
	epoch   uint32
	written time.Time // by the clock of the log
	records []Record
	size    int // bytes of memory
	erased  int // records that are
	damaged bool
}

// from returns the records at and after a cursor.
func (b *batch) from(c Cursor) []Record {
	if c.Stream != b.stream || c.Index == 0 {
		return b.records
	}
	return b.records[min(c.Index, len(b.records)):]
}

// appendFramed appends a marshalled notification as one element of RecordBatch.notifications.
func appendFramed(dst, notification []byte) []byte {
	dst = protowire.AppendTag(dst, fieldNotifications, protowire.BytesType)
	return protowire.AppendBytes(dst, notification)
}

// unpack reads a stored record batch and gives each notification its id, token and sequence, without unmarshalling it: a
// protobuf message may be extended by appending or prepending fields. A batch that cannot be read is returned as damaged.
func unpack(id logID, epoch uint32, stream uint64, written time.Time, data []byte) *batch {
	b := &batch{stream: stream, epoch: epoch, written: written}
	count, err := countFramed(data)
	if err != nil {
		b.damaged = true
		return b
	}
	buf := make([]byte, 0, len(data)+count*frameOverhead)
	b.records = make([]Record, count)
	for i := range b.records {
		_, _, n := protowire.ConsumeTag(data)
		stored, m := protowire.ConsumeBytes(data[n:])
		data = data[n+m:]

		r := &b.records[i]
		r.Position = Position{Stream: stream, Index: i}
		r.Next = after(stream, i, count)
		r.erased = len(stored) == 0
		if buf = r.frame(buf, id, epoch, stored); buf == nil {
			b.records, b.damaged = nil, true
			return b
		}
	}
	for i := range b.records {
		if b.records[i].erased {
			b.erased++
		}
	}
	b.size = cap(buf) + count*128
	return b
}

// frameOverhead is what tag, length, id, token and sequence of a notification take, generously.
const frameOverhead = 2 + 4 + (2 + 13 + 1 + 7 + 1 + 20) + (2 + 34) + 11

// frame appends a stored notification to a buffer with enough room, as one element of Batch.notifications with what follows from
// the record's position, and lets the record have it. It returns nil if the notification cannot be read.
func (r *Record) frame(buf []byte, id logID, epoch uint32, stored []byte) []byte {
	var prefix [frameOverhead]byte
	p := appendPlace(prefix[:0], id, epoch, r)
	start := len(buf)
	buf = protowire.AppendTag(buf, fieldNotifications, protowire.BytesType)
	buf = protowire.AppendVarint(buf, uint64(len(p)+len(stored)))
	r.message = len(buf) - start
	buf = append(buf, p...)
	buf = append(buf, stored...)
	r.framed = buf[start:len(buf):cap(buf)]
	if !r.readKeys() {
		return nil
	}
	return buf
}

// appendPlace appends the fields that follow from a record's position.
func appendPlace(dst []byte, id logID, epoch uint32, r *Record) []byte {
	var text [64]byte
	dst = protowire.AppendTag(dst, fieldID, protowire.BytesType)
	dst = protowire.AppendBytes(dst, id.appendID(text[:0], epoch, r.Position))
	dst = protowire.AppendTag(dst, fieldToken, protowire.BytesType)
	dst = protowire.AppendBytes(dst, id.appendToken(text[:0], epoch, r.Next))
	dst = protowire.AppendTag(dst, fieldSequence, protowire.VarintType)
	return protowire.AppendVarint(dst, r.Position.Sequence())
}

// countFramed returns how many notifications a stored batch holds.
func countFramed(data []byte) (int, error) {
	count := 0
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 || number != fieldNotifications || kind != protowire.BytesType {
			return 0, errNotABatch
		}
		_, m := protowire.ConsumeBytes(data[n:])
		if m < 0 {
			return 0, errNotABatch
		}
		data = data[n+m:]
		count++
	}
	if count == 0 || count > 1<<indexBits {
		return 0, errNotABatch
	}
	return count, nil
}

// readKeys finds what filters look at. It reports whether the whole message could be read.
func (r *Record) readKeys() bool {
	for number, value := range fields(r.framed[r.message:]) {
		switch number {
		case fieldAccount:
			r.account = value.bytes
		case fieldKind:
			r.kind = linksgatev1.NotificationKind(value.varint)
		case fieldPartnerCode:
			r.partnerCode = value.bytes
		case fieldDuplicateKey:
			r.duplicateKey = value.bytes
		case 0:
			return false
		}
	}
	return true
}

type fieldValue struct {
	bytes  []byte
	varint uint64
}

// fields yields the top-level fields of a marshalled message; last, if the message cannot be read to its end, number 0.
func fields(message []byte) iter.Seq2[protowire.Number, fieldValue] {
	return func(yield func(protowire.Number, fieldValue) bool) {
		for len(message) > 0 {
			var value fieldValue
			number, kind, n := protowire.ConsumeTag(message)
			m := -1
			if n > 0 {
				switch kind {
				case protowire.BytesType:
					value.bytes, m = protowire.ConsumeBytes(message[n:])
				case protowire.VarintType:
					value.varint, m = protowire.ConsumeVarint(message[n:])
				default:
					m = protowire.ConsumeFieldValue(number, kind, message[n:])
				}
			}
			if m < 0 {
				yield(0, fieldValue{})
				return
			}
			if !yield(number, value) {
				return
			}
			message = message[n+m:]
		}
	}
}
