package eventlog

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// Groups returns what is stored of the log's groups.
func (l *Log) Groups() *Groups { return l.groups }

// Claim is a record batch that a group has in flight, until it is settled or given back. Its methods may be called concurrently.
type Claim struct {
	// Source that it is from.
	Source Source
	// Stream is the batch's sequence in its stream; for SourceReplay that is not the log.
	Stream uint64
	// Again says that the batch may have been in flight before, or that progress with it may be stored.
	Again bool
	// Records of the batch, for SourceLog from the group's start on, for SourceReplay exactly one.
	Records []*Record
	// Written is when the batch was stored in its stream.
	Written time.Time
	// Bytes of memory.
	Bytes int
	// Damaged is set if the batch cannot be read. Records is then empty. It must be settled all the same.
	Damaged bool
	// Missed is how many record batches that the group should have got just before this one were lost: expired, or corrupt.
	Missed uint64

	reader *GroupReader
}

// GiveBack ends the claim: it comes again at once.
func (c *Claim) GiveBack() { c.GiveBackFor(0) }

// GiveBackFor ends the claim: it comes again when a time has passed, or to the next reader of the group.
func (c *Claim) GiveBackFor(wait time.Duration) { c.reader.giveBack(c, time.Now().Add(wait)) }

// Outstanding says what may be out on leases of which nothing is known, because a gateway ended without handing back what it had: the
// former process, or this one when the log was not writable.
type Outstanding struct {
	// Until is when all such leases have ended; zero if there are none.
	Until time.Time
	// Through is the last stream sequence of each source that such a lease may be of.
	Through [len(sources)]uint64
	// Read is up to where the engine had delivered each source when the group was attached, as far as it remembers.
	Read [len(sources)]uint64
}

// ParkedEntry is one parked notification.
type ParkedEntry struct {
	// Parked is the notification with its id, token and sequence, and why it was parked.
	Parked *linksgatev1.ParkedNotification
	// Cursor is an opaque token for going on after this one.
	Cursor string
}

// validName reports whether a name can be part of a subject: a lower-case letter, and up to 62 more, digits and hyphens.
func validName(name string) bool {
	for i, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '-') {
			continue
		}
		return false
	}
	return name != "" && len(name) <= 63
}

// usable returns an error if the log is closed or frozen.
func (l *Log) usable() error {
	select {
	case <-l.writer.closing:
		return ErrClosed
	default:
		return l.frozen.get()
	}
}

func parseRecord(name string, data []byte) (*storagev1.GroupRecord, error) {
	record := new(storagev1.GroupRecord)
	if err := proto.Unmarshal(data, record); err != nil {
		return nil, fmt.Errorf("group %s: %w: %w", name, ErrDamaged, err)
	}
	if record.GetGroup().GetName() != name {
		return nil, fmt.Errorf("group %s: %w: its record names %q", name, ErrDamaged, record.GetGroup().GetName())
	}
	return record, nil
}

// incarnation names an incarnation of a group.
func incarnation(record *storagev1.GroupRecord) string {
	return hex.EncodeToString(record.GetGeneration())
}

// MaxGroups is the most groups that a log has.
const MaxGroups = 1000

// Source says where a group has a record batch from.
type Source uint8

// The sources.
const (
	// SourceLog is the log.
	SourceLog Source = iota
	// SourceReplay is what was parked and given to the group again.
	SourceReplay
)

var sources = [...]Source{SourceLog, SourceReplay}

// String names the source; the names are stored.
func (s Source) String() string {
	switch s {
	case SourceLog:
		return "log"
	case SourceReplay:
		return "replay"
	}
	return fmt.Sprintf("Source(%d)", uint8(s))
}

func ordered(record *storagev1.GroupRecord) bool {
	return record.GetGroup().GetOrdering() == linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM
}

// start is where a group starts.
func start(record *storagev1.GroupRecord) Cursor {
	c := Cursor(PositionOf(record.GetStartSequence()))
	c.Stream = max(c.Stream, 1)
	return c
}

// GroupState says how far a group has come at one moment.
type GroupState struct {
	// Unsettled record batches of the log were delivered, and not settled. Undelivered ones were not delivered yet.
	Unsettled, Undelivered uint64
	// UnsettledReplays were given to the group again.
	UnsettledReplays uint64
	// Oldest is the place before the first record batch that is retained and not settled; the end of the log if there is none.
	Oldest Cursor
	// OldestWritten is when that was written; zero if there is none, or if it cannot be read.
	OldestWritten time.Time
	// Lag of Oldest: in record batches behind the head, and in time behind now.
	Lag Lag
	// Parked notifications.
	Parked uint64
}

func sortRecords(records []*storagev1.GroupRecord) {
	slices.SortFunc(records, func(a, b *storagev1.GroupRecord) int {
		return strings.Compare(a.GetGroup().GetName(), b.GetGroup().GetName())
	})
}

// parseParkedCursor returns what a [ParkedEntry.Cursor] stands for. Errors: ErrBadToken, ErrOtherLog.
func (l *Log) parseParkedCursor(cursor string) (uint64, error) {
	number, _, err := l.parseSealed(parkedVersion, cursor)
	return number, err
}
