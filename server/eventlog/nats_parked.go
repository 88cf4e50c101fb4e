package eventlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	parkedStream = "LINKSGATE_PARKED"
	// parkedSubject and replaySubject, with a group and a notification's sequence, are the subjects of what is parked, and of what was
	// given to the group again.
	parkedSubject = "linksgate.parked."
	replaySubject = "linksgate.replay."
	// nextHeader holds the cursor after the notification, as a sequence: its token needs that, and it does not follow from the
	// notification's own.
	nextHeader = "Linksgate-Next"
)

func placeSubject(prefix, group string, p Position) string {
	return prefix + group + "." + strconv.FormatUint(p.Sequence(), 10)
}

// Park returns nil only if the notification is durably parked, under the same policy as the log. One that is parked already is kept
// once, as it was parked last. The oldest ones of all groups go when they are too many or too old.
//
// Errors: ErrNoGroup if the name cannot be one, ErrDamaged if the record cannot be read, ErrUnavailable, ErrClosed.
func (g *natsGroups) Park(ctx context.Context, group string, record *Record, reason linksgatev1.ParkReason, detail string, attempts uint32) error {
	if !validName(group) {
		return fmt.Errorf("park: %w: %q", ErrNoGroup, group)
	}
	n, err := record.Notification()
	if err != nil {
		return fmt.Errorf("park: %w", err)
	}
	n.Id, n.Token, n.Sequence = "", "", 0
	data, err := proto.Marshal(&linksgatev1.ParkedRecord{
		Notification: n, Sequence: record.Position.Sequence(), ParkedAt: timestamppb.Now(), Reason: reason, Detail: detail, Attempts: attempts,
	})
	if err != nil {
		return fmt.Errorf("park: %w", err)
	}
	_, err = g.publish(ctx, "park", &nats.Msg{
		Subject: placeSubject(parkedSubject, group, record.Position), Data: data, Header: nextHeaderOf(record.Next),
	})
	return err
}

func nextHeaderOf(next Cursor) nats.Header {
	return nats.Header{nextHeader: {strconv.FormatUint(Position(next).Sequence(), 10)}}
}

// parkedMessage is a parked notification, or one that was given to its group again.
type parkedMessage struct {
	record *linksgatev1.ParkedRecord
	next   Cursor
}

func parseParked(message storedMessage) (parkedMessage, error) {
	p := parkedMessage{record: new(linksgatev1.ParkedRecord)}
	if err := proto.Unmarshal(message.data, p.record); err != nil {
		return p, fmt.Errorf("%s: %w: %w", message.subject, ErrDamaged, err)
	}
	position := PositionOf(p.record.GetSequence())
	if position.Stream == 0 {
		return p, fmt.Errorf("%s: %w: no sequence", message.subject, ErrDamaged)
	}
	p.next = Cursor{Stream: position.Stream, Index: position.Index + 1} // good enough, if there is nothing better
	if sequence, err := strconv.ParseUint(message.header.Get(nextHeader), 10, 64); err == nil {
		p.next = Cursor(PositionOf(sequence))
	}
	return p, nil
}

// unpack returns the notification as it was read from the log.
func (p parkedMessage) unpack(id logID) (*Record, error) {
	data, err := proto.Marshal(p.record.GetNotification())
	if err != nil {
		return nil, err
	}
	r := &Record{Position: PositionOf(p.record.GetSequence()), Next: p.next}
	if r.frame(make([]byte, 0, len(data)+frameOverhead), id, 0, data) == nil {
		return nil, ErrDamaged
	}
	return r, nil
}

// Parked yields what a group has parked, after the entry with a cursor or from the beginning if that is empty, in the order of
// parking, up to the last one that there was when it began. Entries that cannot be read are left out, and logged.
//
// Errors: ErrBadToken, ErrOtherLog, ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
func (g *natsGroups) Parked(ctx context.Context, group, after string) iter.Seq2[ParkedEntry, error] {
	return func(yield func(ParkedEntry, error) bool) {
		if err := g.readParked(ctx, group, after, func(e ParkedEntry) bool { return yield(e, nil) }); err != nil {
			yield(ParkedEntry{}, err)
		}
	}
}

func (g *natsGroups) readParked(ctx context.Context, group, after string, yield func(ParkedEntry) bool) error {
	if !validName(group) {
		return fmt.Errorf("%w: %q", ErrNoGroup, group)
	}
	from := uint64(1)
	if after != "" {
		last, err := g.log.parseParkedCursor(after)
		if err != nil {
			return err
		}
		from = last + 1
	}
	return g.read(ctx, g.parked, parkedSubject+group+".*", from, func(message storedMessage) bool {
		p, err := parseParked(message)
		if err != nil {
			g.log.options.Logger.Error("a parked notification cannot be read", "error", err)
			return true
		}
		n := p.record.GetNotification()
		if n == nil {
			n = new(linksgatev1.Notification)
		}
		position := PositionOf(p.record.GetSequence())
		n.Id, n.Token, n.Sequence = g.log.NotificationID(position), g.log.Token(p.next), position.Sequence()
		return yield(ParkedEntry{
			Parked: &linksgatev1.ParkedNotification{
				Notification: n, ParkedAt: p.record.GetParkedAt(), Reason: p.record.GetReason(), Detail: p.record.GetDetail(), Attempts: p.record.GetAttempts(),
			},
			Cursor: string(g.log.id.appendSealed(nil, parkedVersion, 0, message.sequence)),
		})
	})
}

// Replay gives a parked notification to its group again, by its id. When it returns nil, that is durable and the notification is
// not parked any more. However often it is called for one entry, at once or after a crash, the group gets it once for that: what is to
// be replayed has a subject of its own, and the engine is told what must be stored there before.
//
// Errors: ErrBadID, ErrOtherLog, ErrNotFound if it is not parked, ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
func (g *natsGroups) Replay(ctx context.Context, group string, id string) error {
	parked, position, err := g.parkedByID(ctx, group, id)
	if err != nil {
		return err
	}
	subject := placeSubject(replaySubject, group, position)
	for tries := publishTries; ; tries-- {
		before, err := g.last(ctx, g.parked, subject)
		if err != nil {
			return err
		}
		expected := uint64(0)
		if before != nil {
			if string(before.Data) == string(parked.Data) {
				break // a crash came between this and the removal
			}
			// It was parked again while it was being replayed, and that is not settled yet: what is parked takes its place.
			expected = before.Sequence
		}
		_, err = g.publish(ctx, "replay", &nats.Msg{Subject: subject, Data: parked.Data, Header: parkedHeader(parked.Header)},
			jetstream.WithExpectLastSequencePerSubject(expected))
		if err == nil {
			break
		}
		if !errors.Is(err, ErrGroupChanged) || tries == 1 {
			return err
		}
	}
	return g.remove(ctx, g.parked, parked.Sequence)
}

// Replayed returns a notification that was given to a group again, and is not settled since. It may have expired from the log. Errors:
// ErrNotFound, ErrDamaged, ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
func (g *natsGroups) Replayed(ctx context.Context, group string, position Position) (*Record, error) {
	if !validName(group) {
		return nil, fmt.Errorf("%w: %q", ErrNoGroup, group)
	}
	message, err := g.last(ctx, g.parked, placeSubject(replaySubject, group, position))
	switch {
	case err != nil:
		return nil, err
	case message == nil:
		return nil, fmt.Errorf("replayed notification %w", ErrNotFound)
	}
	p, err := parseParked(storedMessage{subject: message.Subject, header: message.Header, data: message.Data})
	if err != nil {
		return nil, err
	}
	return p.unpack(g.log.id)
}

// parkedHeader returns what of a message's header is kept.
func parkedHeader(header nats.Header) nats.Header {
	return nats.Header{nextHeader: header[nextHeader]}
}

// Purge deletes a parked notification, by its id. Errors: as for Replay.
func (g *natsGroups) Purge(ctx context.Context, group string, id string) error {
	parked, _, err := g.parkedByID(ctx, group, id)
	if err != nil {
		return err
	}
	return g.remove(ctx, g.parked, parked.Sequence)
}

// parkedByID finds a parked notification.
func (g *natsGroups) parkedByID(ctx context.Context, group, id string) (*jetstream.RawStreamMsg, Position, error) {
	if !validName(group) {
		return nil, Position{}, fmt.Errorf("%w: %q", ErrNoGroup, group)
	}
	position, err := g.log.ParseNotificationID(id)
	if err != nil {
		return nil, Position{}, err
	}
	message, err := g.last(ctx, g.parked, placeSubject(parkedSubject, group, position))
	if err == nil && message == nil {
		err = fmt.Errorf("parked notification %w", ErrNotFound)
	}
	return message, position, err
}

// removeReplay removes what a group was given again and has settled, and the parked notification that it came from, should a crash
// have left it.
func (g *natsGroups) removeReplay(ctx context.Context, group string, position Position, stream uint64, parkedAt time.Time) error {
	err := g.remove(ctx, g.parked, stream)
	left, readErr := g.last(ctx, g.parked, placeSubject(parkedSubject, group, position))
	if readErr != nil || left == nil {
		return errors.Join(err, readErr)
	}
	if p, parseErr := parseParked(storedMessage{data: left.Data}); parseErr != nil || !p.record.GetParkedAt().AsTime().Equal(parkedAt) {
		return err
	}
	return errors.Join(err, g.remove(ctx, g.parked, left.Sequence))
}
