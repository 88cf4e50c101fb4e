package eventlog

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"sync"

	"github.com/linksgate/linksgate/server/store"
)

// indexBits is how much of a sequence number is the index in the batch. It leaves 52 bits for the stream sequence and room
// for batches eight times as large as today's.
const indexBits = 12

// Position is where one notification is in the log.
type Position struct {
	// Stream is the stream sequence of its record batch, from 1.
	Stream uint64
	// Index in the batch, from 0.
	Index int
}

// Sequence is the position as one number: strictly increasing along the log, not contiguous.
func (p Position) Sequence() uint64 {
	if p.Stream == 0 {
		return 0
	}
	return p.Stream<<indexBits | uint64(p.Index)
}

// PositionOf returns the position whose sequence is given.
func PositionOf(sequence uint64) Position {
	return Position{Stream: sequence >> indexBits, Index: int(sequence & (1<<indexBits - 1))}
}

// Cursor is a place between two notifications: the position of what is read next. It may lie after the end of its batch,
// never after an end that is known: a cursor after the last notification of a batch stands at the start of the next.
// So a cursor never makes a reader expect a batch that it does not need.
type Cursor struct {
	// Stream is the stream sequence of the next record batch, from 1.
	Stream uint64
	// Index of the next notification in it, from 0.
	Index int
}

// Before reports whether c is before d.
func (c Cursor) Before(d Cursor) bool {
	return c.Stream < d.Stream || (c.Stream == d.Stream && c.Index < d.Index)
}

// after returns the cursor after notification index of a batch of count.
func after(stream uint64, index, count int) Cursor {
	if index+1 < count {
		return Cursor{Stream: stream, Index: index + 1}
	}
	return Cursor{Stream: stream + 1}
}

// logID tells logs apart.
type logID [8]byte

var idText = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

func parseLogID(s string) (logID, error) {
	var id logID
	raw, err := idText.DecodeString(s)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("%q is not a log id", s)
	}
	copy(id[:], raw)
	return id, nil
}

func (id logID) String() string { return idText.EncodeToString(id[:]) }

// A token is, in unpadded base64url: one byte version, the log id, the epoch of what the cursor has behind it, the cursor as a
// sequence number, and a checksum of these. It is opaque to clients and compared by nobody.
const (
	tokenVersion  = 3
	parkedVersion = 2 // a location among what is parked, instead of a cursor
	tokenRawLen   = 1 + len(logID{}) + 4 + 8 + 4
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	tokenLen   = base64.RawURLEncoding.EncodedLen(tokenRawLen)
)

// appendToken appends the token of a cursor, behind what was appended to the log in an epoch.
func (id logID) appendToken(dst []byte, epoch uint32, c Cursor) []byte {
	return id.appendSealed(dst, tokenVersion, epoch, c.Stream<<indexBits|uint64(c.Index))
}

// appendSealed appends a number of this log as a token.
func (id logID) appendSealed(dst []byte, version byte, epoch uint32, number uint64) []byte {
	var raw [tokenRawLen]byte
	raw[0] = version
	copy(raw[1:], id[:])
	binary.BigEndian.PutUint32(raw[9:], epoch)
	binary.BigEndian.PutUint64(raw[13:], number)
	binary.BigEndian.PutUint32(raw[21:], crc32.Checksum(raw[:21], castagnoli))
	return base64.RawURLEncoding.AppendEncode(dst, raw[:])
}

// appendID appends the id of the notification at a position, which was appended to the log in an epoch. A log that has no epochs, on
// NATS, leaves them out.
func (id logID) appendID(dst []byte, epoch uint32, p Position) []byte {
	dst = idText.AppendEncode(dst, id[:])
	dst = append(dst, '-')
	if epoch != 0 {
		var raw [4]byte
		binary.BigEndian.PutUint32(raw[:], epoch)
		dst = append(idText.AppendEncode(dst, raw[:]), '-')
	}
	return strconv.AppendUint(dst, p.Sequence(), 10)
}

// Token returns the resume token of a cursor of this log.
func (l *Log) Token(c Cursor) string {
	epoch, _ := l.epochOf(c.behind())
	return string(l.id.appendToken(nil, epoch, c))
}

// behind is the stream sequence of the last record batch that a cursor has something of behind it.
func (c Cursor) behind() uint64 {
	if c.Index > 0 {
		return c.Stream
	}
	return c.Stream - 1
}

// NotificationID returns the id of the notification at a position of this log.
func (l *Log) NotificationID(p Position) string {
	if p == (Position{}) { // spooled
		return ""
	}
	epoch, _ := l.epochOf(p.Stream)
	return string(l.id.appendID(nil, epoch, p))
}

// ParseToken returns the cursor of a resume token. Errors: ErrBadToken, ErrOtherLog, and ErrAhead for one of a copy of this log that
// parted from it before the token's cursor. Whether the cursor is ahead of the head or no longer retained is found by Read.
func (l *Log) ParseToken(token string) (Cursor, error) {
	sequence, epoch, err := l.parseSealed(tokenVersion, token)
	if err != nil {
		return Cursor{}, err
	}
	cursor := Cursor(PositionOf(sequence))
	if cursor.Stream == 0 {
		return Cursor{}, ErrBadToken
	}
	if own, known := l.epochOf(cursor.behind()); known && own != epoch {
		return Cursor{}, fmt.Errorf("%w: it was given by a copy of this log that has gone on by itself", ErrAhead)
	}
	return cursor, nil
}

// parseSealed returns the number and epoch that a token of a version holds. Errors: ErrBadToken, ErrOtherLog.
func (l *Log) parseSealed(version byte, token string) (number uint64, epoch uint32, err error) {
	var raw [tokenRawLen]byte
	if len(token) != tokenLen {
		return 0, 0, ErrBadToken
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(token)); err != nil {
		return 0, 0, ErrBadToken
	}
	if raw[0] != version || binary.BigEndian.Uint32(raw[21:]) != crc32.Checksum(raw[:21], castagnoli) {
		return 0, 0, ErrBadToken
	}
	if id := logID(raw[1:9]); id != l.id {
		return 0, 0, fmt.Errorf("token %w: its log is %s, this one is %s", ErrOtherLog, id, l.id)
	}
	return binary.BigEndian.Uint64(raw[13:]), binary.BigEndian.Uint32(raw[9:]), nil
}

// ParseNotificationID returns the position that an id names. Errors: ErrBadID, ErrOtherLog, which is also what the id of a copy of this
// log gets that names something else here.
func (l *Log) ParseNotificationID(text string) (Position, error) {
	log, number, found := strings.Cut(text, "-")
	id, err := parseLogID(log)
	var epoch uint32
	if in, behind, ok := strings.Cut(number, "-"); ok {
		number = behind
		raw, epochErr := idText.DecodeString(in)
		if found = epochErr == nil && len(raw) == 4; found {
			epoch = binary.BigEndian.Uint32(raw)
		}
	}
	sequence, numErr := strconv.ParseUint(number, 10, 64)
	if !found || err != nil || numErr != nil || sequence>>indexBits == 0 || strconv.FormatUint(sequence, 10) != number {
		return Position{}, fmt.Errorf("%w of a notification: %.100q", ErrBadID, text)
	}
	if id != l.id {
		return Position{}, fmt.Errorf("id %w: its log is %s, this one is %s", ErrOtherLog, id, l.id)
	}
	p := PositionOf(sequence)
	if own, known := l.epochOf(p.Stream); known && own != epoch {
		return Position{}, fmt.Errorf("id %w: a copy of this log gave it, after it had gone on by itself", ErrOtherLog)
	}
	return p, nil
}

// epochOf returns the epoch of a record batch; false if it is not retained, or there is none yet.
func (l *Log) epochOf(stream uint64) (uint32, bool) {
	if stream > l.tail.headInfo().position.Stream {
		return 0, false
	}
	return l.epochs.at(stream)
}

// epochs are the epochs of a log, by the stream sequences that they begin with.
type epochs struct {
	mu  sync.RWMutex
	all []store.Epoch // mu; ascending
}

// set replaces all.
func (e *epochs) set(all []store.Epoch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = all
}

// add takes note of the epoch of a record batch that was appended.
func (e *epochs) add(epoch uint32, stream uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.all); n == 0 || e.all[n-1].ID != epoch {
		e.all = append(e.all, store.Epoch{ID: epoch, First: stream})
	}
}

// trim forgets the epochs that have nothing from a stream sequence on.
func (e *epochs) trim(first uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.all) > 1 && e.all[1].First <= first {
		e.all = e.all[1:]
	}
	if len(e.all) > 0 && e.all[0].First < first {
		e.all = append([]store.Epoch{{ID: e.all[0].ID, First: first}}, e.all[1:]...)
	}
}

// at returns the epoch of a record batch; false if it is before all that are known.
func (e *epochs) at(stream uint64) (uint32, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return store.Info{Epochs: e.all}.EpochAt(stream)
}

// shortID is the part of a store's log id that names the log here.
func shortID(long string) (id logID) {
	raw, err := base32.HexEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(long))
	if err == nil {
		copy(id[:], raw)
	}
	return id
}
