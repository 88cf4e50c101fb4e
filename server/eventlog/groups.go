package eventlog

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// Groups keeps what must outlive a gateway of the groups that share the log. Its methods may be called concurrently.
//
// A group is one record, and that is the truth about it. How far it has come in the log is kept for each of its incarnations: a new one
// begins when the group is moved. Record batches are handed to whichever gateway asks, one gateway each: see [GroupReader]. How far
// the gateways have come inside a batch is stored beside the record, [Groups.PutProgress]. What a group has set aside is parked, until
// somebody decides.
type Groups interface {
	// Create returns nil only if the group is durable. Errors: ErrNoGroup if the name cannot be one, ErrGroupExists, ErrTooManyGroups
	// (gateways that create groups at the same moment may pass MaxGroups a little), ErrGroupChanged if others create and delete it all
	// the while, ErrUnavailable, ErrClosed. After ErrUnavailable the group may or may not exist.
	Create(ctx context.Context, record *linksgatev1.GroupRecord) error
	// Get returns a group and its revision, for Put. Errors: ErrNoGroup, ErrDamaged, ErrUnavailable, ErrClosed.
	Get(ctx context.Context, name string) (*linksgatev1.GroupRecord, uint64, error)
	// List returns all groups, by name. One whose record is damaged is left out, and logged. Errors: ErrUnavailable, ErrClosed.
	List(ctx context.Context) ([]*linksgatev1.GroupRecord, error)
	// Put replaces the record of a group that still has a revision, and returns nil only if that is durable. Where the incarnation differs,
	// the group was moved: what is kept of the old one is removed, and claims of it are worth nothing any more. Errors: ErrGroupChanged,
	// ErrNoGroup, ErrUnavailable, ErrClosed.
	Put(ctx context.Context, record *linksgatev1.GroupRecord, revision uint64) error
	// Delete deletes a group and what it has parked. It returns nil only if the group is gone for good; what cannot be removed of the
	// rest then goes when a log is opened. Errors: ErrNoGroup, ErrGroupChanged, ErrUnavailable, ErrClosed.
	Delete(ctx context.Context, name string) error

	// State returns the state of a group. Errors: ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
	State(ctx context.Context, record *linksgatev1.GroupRecord) (GroupState, error)
	// Attach opens a group for reading. The record must be that of the incarnation to be read. Errors: ErrNoGroup, ErrGroupChanged if the
	// group has another incarnation by now, ErrUnavailable, ErrClosed.
	Attach(ctx context.Context, record *linksgatev1.GroupRecord) (GroupReader, error)
	// Progress returns what is stored of a group's progress with a record batch and its revision, for PutProgress; nil and 0 if nothing
	// is. Errors: ErrNoGroup if the name cannot be one, ErrDamaged, ErrUnavailable, ErrClosed.
	Progress(ctx context.Context, record *linksgatev1.GroupRecord, source Source, stream uint64) (*linksgatev1.BatchProgress, uint64, error)
	// PutProgress replaces what is stored of a group's progress with a record batch, if that still has a revision; 0: if nothing is
	// stored. It returns the new revision, only if that is durable. It is removed when the batch is settled. Errors: ErrGroupChanged,
	// ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed. It does not look whether the group exists.
	PutProgress(ctx context.Context, record *linksgatev1.GroupRecord, source Source, stream uint64,
		progress *linksgatev1.BatchProgress, revision uint64) (uint64, error)

	// Park returns nil only if the notification is durably parked, under the same policy as the log. One that is parked already is kept
	// once, as it was parked last. The oldest ones of all groups go when they are too many or too old. Errors: ErrNoGroup if the name
	// cannot be one, ErrDamaged if the record cannot be read, ErrUnavailable, ErrClosed.
	Park(ctx context.Context, group string, record *Record, reason linksgatev1.ParkReason, detail string, attempts uint32) error
	// Parked yields what a group has parked, after the entry with a cursor or from the beginning if that is empty, up to the last one
	// that there was when it began. Entries that cannot be read are left out, and logged. Errors: ErrBadToken, ErrOtherLog, ErrNoGroup if
	// the name cannot be one, ErrUnavailable, ErrClosed.
	Parked(ctx context.Context, group, after string) iter.Seq2[ParkedEntry, error]
	// Replay gives a parked notification to its group again, by its id. When it returns nil, that is durable and the notification is
	// not parked any more. However often it is called for one entry, at once or after a crash, the group gets it once for that. Errors:
	// ErrBadID, ErrOtherLog, ErrNotFound if it is not parked, ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
	Replay(ctx context.Context, group string, id string) error
	// Replayed returns a notification that was given to a group again, and is not settled since. It may have expired from the log.
	// Errors: ErrNotFound, ErrDamaged, ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
	Replayed(ctx context.Context, group string, position Position) (*Record, error)
	// Purge deletes a parked notification, by its id. Errors: as for Replay.
	Purge(ctx context.Context, group string, id string) error

	// Watch calls changed with the name of each group whose record was stored or deleted by another gateway, once that can be read;
	// several changes of one group may be told once. It is called with "" when anything may have changed. All calls come from one
	// goroutine. stop returns when changed will not be called again; changed must not call it. Errors: ErrUnavailable, ErrClosed.
	Watch(changed func(name string)) (stop func(), err error)
	// Replica names this gateway among those on the log, for as long as the log is open; 0 if there are no others.
	Replica() uint64
	// Answer answers what other gateways ask this one, with what handler makes of it; nil is no answer. The handler is called from
	// several goroutines at once, and ctx ends when stop is called, which returns when no call is running any more. Errors:
	// ErrUnavailable, ErrClosed.
	Answer(handler func(ctx context.Context, method string, request []byte) []byte) (stop func(), err error)
	// Ask asks another gateway. Errors: ErrNoPeer, ErrUnavailable.
	Ask(ctx context.Context, replica uint64, method string, request []byte) ([]byte, error)
	// AskAll asks all other gateways and returns what they answer within a time.
	AskAll(ctx context.Context, method string, request []byte, wait time.Duration) [][]byte
}

// Groups returns what is kept of the log's groups.
func (l *Log) Groups() Groups { return l.groups }

// GroupReader reads the log for a group, one of several gateways perhaps. Each record batch that it gets is a [Claim], to be kept alive
// and settled. Its methods may be called concurrently, as far as Fetch does not say otherwise.
//
// An ordered group on a log that gateways share is served through one gateway at a time; the others stand by, and one of them takes
// over when that one has not asked for more, nor kept a claim alive, for some seconds. What it had in hand may then still be
// unsettled: see [Claim.Turn].
type GroupReader interface {
	// Fetch returns record batches that the group has not settled and no other gateway has in hand: from 1 to most of them, those that
	// are there or the first to arrive; none if none did within wait, or if another gateway is served. First deliveries come in the order
	// of the log. A batch that was not kept alive comes again, as a new Claim of the same Stream, also to the gateway that has it.
	//
	// One goroutine at a time may fetch from a source. Errors: ErrNoGroup, ErrGroupChanged if the group was moved, ErrUnavailable,
	// ErrClosed, or the cause of ctx's end.
	Fetch(ctx context.Context, source Source, most int, wait time.Duration) ([]*Claim, error)
	// Settle ends claims: everything in their batches is settled, and the group does not get them again; nor is the progress with them
	// needed any more. If the reader is Durable, it returns nil only if that is. Errors: ErrUnavailable, ErrClosed; then the batches may
	// come again.
	Settle(ctx context.Context, claims []*Claim) error
	// Durable reports whether Settle and PutProgress return only when what they are told is durable, and cheaply enough to do so before
	// each acknowledgement is answered.
	Durable() bool
	// Standby reports whether another gateway is served, as of the last Fetch from the log.
	Standby() bool
	// State returns the state of the group. Errors: as for [Groups.State].
	State(ctx context.Context) (GroupState, error)
	// Outstanding returns what may be out since before the group was attached.
	Outstanding() Outstanding
	// Reach must be called before anything is leased from record batches up to a stream sequence of the log, or of what is replayed, for
	// up to a lease duration, and returns nil only if a gateway that finds the log after a crash of this one will know of that. What is
	// stored allows some batches more, so that it is seldom waited for. Errors: ErrUnavailable, ErrClosed.
	Reach(ctx context.Context, stream, more uint64, lease time.Duration) error
	// End must be called only if all that was leased is settled or stored as progress, by this reader and those before. Whoever attaches
	// the group next takes nothing for leased that progress does not say is. Errors: ErrUnavailable, ErrClosed; then it does.
	End(ctx context.Context) error
	// Close lets another gateway be served. Claims stay in hand until they are not kept alive. Nobody may be fetching any more.
	Close()
}

// Claim is a record batch that this gateway has in hand. While it is kept alive, no other gateway gets it. Its methods may be called
// concurrently, and when the batch is no longer in hand: they do nothing then.
type Claim struct {
	// Source that it is from.
	Source Source
	// Stream is the batch's sequence in its stream; for SourceReplay that is not the log.
	Stream uint64
	// Deliveries counts, from 1. It is more than 1 if the batch may have been in anybody's hands before, or progress with it may be
	// stored.
	Deliveries uint64
	// Records of the batch, for SourceLog from the group's start on, for SourceReplay exactly one.
	Records []*Record
	// Written is when the batch was stored in its stream.
	Written time.Time
	// Bytes of memory.
	Bytes int
	// Damaged is set if the batch cannot be read. Records is then empty. It must be settled all the same.
	Damaged bool
	// Missed is how many record batches that the group should have got just before this one were lost: expired, or damaged on disk.
	// Of an external log it is 0: it cannot be told there.
	Missed uint64
	// Turn counts how often this gateway, having attached, came to be the one that is served from the source. When it has changed for the
	// log, which decides for both sources, other gateways may have claims of the group that are not settled: State tells. It is 1 for
	// groups that any gateway is served for.
	Turn uint64

	hand hand
}

// hand is how a claim is held.
type hand interface {
	keepAlive() error
	giveBack(ctx context.Context, wait time.Duration) error
}

// KeepAlive keeps the batch from being given to anyone else, counted from now, for the group's lease duration and a little more. It must
// be called at least every two seconds, so that the gateway stays the one that is served. Errors: ErrUnavailable, ErrClosed.
func (c *Claim) KeepAlive() error { return c.hand.keepAlive() }

// GiveBack ends the claim: whoever asks next gets the batch. Errors: ErrUnavailable, ErrClosed; then the batch comes again as after a
// crash of the gateway.
func (c *Claim) GiveBack(ctx context.Context) error { return c.hand.giveBack(ctx, 0) }

// GiveBackFor is GiveBack, but the batch comes to nobody before a time has passed, or this process has ended.
func (c *Claim) GiveBackFor(ctx context.Context, wait time.Duration) error {
	return c.hand.giveBack(ctx, wait)
}

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

func parseRecord(name string, data []byte) (*linksgatev1.GroupRecord, error) {
	record := new(linksgatev1.GroupRecord)
	if err := proto.Unmarshal(data, record); err != nil {
		return nil, fmt.Errorf("group %s: %w: %w", name, ErrDamaged, err)
	}
	if record.GetGroup().GetName() != name {
		return nil, fmt.Errorf("group %s: %w: its record names %q", name, ErrDamaged, record.GetGroup().GetName())
	}
	return record, nil
}

// incarnation names an incarnation of a group.
func incarnation(record *linksgatev1.GroupRecord) string {
	return hex.EncodeToString(record.GetIncarnation())
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

func ordered(record *linksgatev1.GroupRecord) bool {
	return record.GetGroup().GetOrdering() == linksgatev1.Ordering_ORDERING_BY_SIM
}

// start is where a group starts.
func start(record *linksgatev1.GroupRecord) Cursor {
	c := Cursor(PositionOf(record.GetStartSequence()))
	c.Stream = max(c.Stream, 1)
	return c
}

// GroupState says how far a group has come, by all gateways together, at one moment.
type GroupState struct {
	// Unsettled record batches of the log were delivered, and not settled. Undelivered ones were not delivered yet.
	Unsettled, Undelivered uint64
	// UnsettledReplays and UndeliveredReplays are the same of what was given to the group again.
	UnsettledReplays, UndeliveredReplays uint64
	// Oldest is the place before the first record batch that is retained and not settled; the end of the log if there is none.
	Oldest Cursor
	// OldestWritten is when that was written; zero if there is none, or if it cannot be read.
	OldestWritten time.Time
	// Lag of Oldest behind the head.
	Lag Lag
	// Parked notifications.
	Parked uint64
	// Pinned is set if one gateway, this one or another, is served and the others stand by. It can be only for an ordered group on an
	// external log, and is not before there was something to be served.
	Pinned bool
}

func sortRecords(records []*linksgatev1.GroupRecord) {
	slices.SortFunc(records, func(a, b *linksgatev1.GroupRecord) int {
		return strings.Compare(a.GetGroup().GetName(), b.GetGroup().GetName())
	})
}

// parseParkedCursor returns what a [ParkedEntry.Cursor] stands for. Errors: ErrBadToken, ErrOtherLog.
func (l *Log) parseParkedCursor(cursor string) (uint64, error) {
	number, _, err := l.parseSealed(parkedVersion, cursor)
	return number, err
}
