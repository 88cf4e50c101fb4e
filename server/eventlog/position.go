package eventlog

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
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

func newLogID() logID {
	var id logID
	rand.Read(id[:]) // never fails, as documented
	return id
}

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

// A token is, in unpadded base64url: one byte version, the log id, the cursor as a sequence number, and a checksum of
// these. It is opaque to clients and compared by nobody.
const (
	tokenVersion  = 1
	parkedVersion = 2 // a place among what is parked, instead of a cursor
	tokenRawLen   = 1 + len(logID{}) + 8 + 4
	tokenLen      = tokenRawLen / 3 * 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendToken appends the token of a cursor.
func (id logID) appendToken(dst []byte, c Cursor) []byte {
	return id.appendSealed(dst, tokenVersion, c.Stream<<indexBits|uint64(c.Index))
}

// appendSealed appends a number of this log as a token.
func (id logID) appendSealed(dst []byte, version byte, number uint64) []byte {
	var raw [tokenRawLen]byte
	raw[0] = version
	copy(raw[1:], id[:])
	binary.BigEndian.PutUint64(raw[9:], number)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[:17], castagnoli))
	return base64.RawURLEncoding.AppendEncode(dst, raw[:])
}

// appendID appends the id of the notification at a position.
func (id logID) appendID(dst []byte, p Position) []byte {
	dst = idText.AppendEncode(dst, id[:])
	dst = append(dst, '-')
	return strconv.AppendUint(dst, p.Sequence(), 10)
}

// Token returns the resume token of a cursor of this log.
func (l *Log) Token(c Cursor) string { return string(l.id.appendToken(nil, c)) }

// NotificationID returns the id of the notification at a position of this log.
func (l *Log) NotificationID(p Position) string { return string(l.id.appendID(nil, p)) }

// ParseToken returns the cursor of a resume token. Errors: ErrBadToken, ErrOtherLog. Whether the cursor is ahead of the head
// or no longer retained is found by Read.
func (l *Log) ParseToken(token string) (Cursor, error) {
	sequence, err := l.parseSealed(tokenVersion, token)
	if err != nil {
		return Cursor{}, err
	}
	cursor := Cursor(PositionOf(sequence))
	if cursor.Stream == 0 {
		return Cursor{}, ErrBadToken
	}
	return cursor, nil
}

// parseSealed returns the number that a token of a version holds. Errors: ErrBadToken, ErrOtherLog.
func (l *Log) parseSealed(version byte, token string) (uint64, error) {
	var raw [tokenRawLen]byte
	if len(token) != tokenLen {
		return 0, ErrBadToken
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(token)); err != nil {
		return 0, ErrBadToken
	}
	if raw[0] != version || binary.BigEndian.Uint32(raw[17:]) != crc32.Checksum(raw[:17], castagnoli) {
		return 0, ErrBadToken
	}
	if id := logID(raw[1:9]); id != l.id {
		return 0, fmt.Errorf("token %w: its log is %s, this one is %s", ErrOtherLog, id, l.id)
	}
	return binary.BigEndian.Uint64(raw[9:]), nil
}

// ParseNotificationID returns the position that an id names. Errors: ErrBadID, ErrOtherLog.
func (l *Log) ParseNotificationID(text string) (Position, error) {
	log, number, found := strings.Cut(text, "-")
	id, err := parseLogID(log)
	sequence, numErr := strconv.ParseUint(number, 10, 64)
	if !found || err != nil || numErr != nil || sequence>>indexBits == 0 || strconv.FormatUint(sequence, 10) != number {
		return Position{}, fmt.Errorf("%w of a notification: %.100q", ErrBadID, text)
	}
	if id != l.id {
		return Position{}, fmt.Errorf("id %w: its log is %s, this one is %s", ErrOtherLog, id, l.id)
	}
	return PositionOf(sequence), nil
}
