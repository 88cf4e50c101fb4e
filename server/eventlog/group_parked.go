package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/store"
)

// The keys of the table of what is parked: under the name of the group and the sequence of the notification, parked until somebody
// decides, or given to the group again.
const (
	parkedPrefix = "parked."
	replayPrefix = "replay."
)

func parkedKey(prefix, group string, sequence uint64) string {
	return fmt.Sprintf("%s%s.%020d", prefix, group, sequence)
}

// Park returns nil only if the notification is durably parked, under the same policy as the log. One that is parked already is kept
// once, as it was parked last. The oldest ones of all groups go when they are too many or too old. Errors: ErrNoGroup if the name
// cannot be one, ErrDamaged if the record cannot be read, ErrUnavailable, ErrClosed.
func (g *Groups) Park(ctx context.Context, group string, record *Record, reason linksgatev1.ParkReason, detail string, attempts uint32) error {
	if !validName(group) {
		return fmt.Errorf("park: %w: %q", ErrNoGroup, group)
	}
	n, err := record.Notification()
	if err != nil {
		return fmt.Errorf("park: %w", err)
	}
	data, err := proto.Marshal(&storagev1.ParkedRecord{
		Notification: n, Sequence: record.Position.Sequence(), ParkedAt: timestamppb.Now(), Reason: reason, Detail: detail, Attempts: attempts,
	})
	if err != nil {
		return fmt.Errorf("park: %w", err)
	}
	_, err = g.parked.Put(ctx, parkedKey(parkedPrefix, group, record.Position.Sequence()), data, store.Any)
	return g.storeError("park", err)
}

// parkedRecord returns a parked notification as it was read from the log: its id and token are stored with it.
func (g *Groups) parkedRecord(data []byte) (*Record, error) {
	parked := new(storagev1.ParkedRecord)
	if err := proto.Unmarshal(data, parked); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	n := parked.GetNotification()
	message, err := proto.Marshal(n)
	if err != nil {
		return nil, err
	}
	next, _, err := g.log.parseSealed(tokenVersion, n.GetToken())
	if err != nil || parked.GetSequence()>>indexBits == 0 {
		return nil, fmt.Errorf("%w: not a parked notification", ErrDamaged)
	}
	r := &Record{Position: PositionOf(parked.GetSequence()), Next: Cursor(PositionOf(next))}
	r.framed = appendFramed(nil, message)
	r.message = len(r.framed) - len(message)
	if !r.readKeys() {
		return nil, ErrDamaged
	}
	return r, nil
}

// Parked yields what a group has parked, after the entry with a cursor or from the beginning if that is empty, up to the last one
// that there was when it began. Entries that cannot be read are left out, and logged. Errors: ErrBadToken, ErrOtherLog, ErrNoGroup if
// the name cannot be one, ErrUnavailable, ErrClosed.
func (g *Groups) Parked(ctx context.Context, group, after string) iter.Seq2[ParkedEntry, error] {
	return func(yield func(ParkedEntry, error) bool) {
		if !validName(group) {
			yield(ParkedEntry{}, fmt.Errorf("%w: %q", ErrNoGroup, group))
			return
		}
		last := uint64(0)
		if after != "" {
			var err error
			if last, err = g.log.parseParkedCursor(after); err != nil {
				yield(ParkedEntry{}, err)
				return
			}
		}
		keys, err := g.inOrder(ctx, parkedPrefix+group+".", last)
		if err != nil {
			yield(ParkedEntry{}, err)
			return
		}
		for _, key := range keys {
			value, err := g.parked.Get(ctx, key.Key)
			if errors.Is(err, store.ErrNotFound) || err == nil && value.Revision != key.Revision {
				continue // since then
			}
			parked := new(storagev1.ParkedRecord)
			if err == nil {
				err = proto.Unmarshal(value.Data, parked)
			} else if !errors.Is(err, store.ErrCorrupt) {
				yield(ParkedEntry{}, g.storeError("read parked", err))
				return
			}
			if err != nil {
				g.log.options.Logger.Error("parked notification corrupt", "key", value.Key, "error", err)
				continue
			}
			if !yield(ParkedEntry{
				Parked: &linksgatev1.ParkedNotification{
					Notification: parked.GetNotification(), ParkedAt: parked.GetParkedAt(), Reason: parked.GetReason(),
					Detail: parked.GetDetail(), Attempts: int32(parked.GetAttempts()),
				},
				Cursor: string(g.log.id.appendSealed(nil, parkedVersion, 0, value.Revision)),
			}, nil) {
				return
			}
		}
	}
}

// inOrder returns the keys under a prefix in the order in which they were stored, after a revision.
func (g *Groups) inOrder(ctx context.Context, prefix string, after uint64) ([]store.Value, error) {
	var keys []store.Value
	for value, err := range g.parked.List(ctx, prefix, "", true) {
		if err != nil {
			return nil, g.storeError("list parked", err)
		}
		if value.Revision > after {
			keys = append(keys, value)
		}
	}
	slices.SortFunc(keys, func(a, b store.Value) int { return cmp.Compare(a.Revision, b.Revision) })
	return keys, nil
}

// Replay gives a parked notification to its group again, by its id. When it returns nil, that is durable and the notification is
// not parked any more. However often it is called for one entry, at once or after a crash, the group gets it once for that. Errors:
// ErrBadID, ErrOtherLog, ErrNotFound if it is not parked, ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
func (g *Groups) Replay(ctx context.Context, group, id string) error {
	parked, sequence, err := g.parkedByID(ctx, group, id)
	if err != nil {
		return err
	}
	key := parkedKey(replayPrefix, group, sequence)
	for {
		before, err := g.parked.Get(ctx, key)
		// After a crash between this and the removal it is there. If it was parked again while it was being replayed, and that is not
		// settled yet, what is parked takes its location.
		if err == nil && string(before.Data) == string(parked.Data) {
			break
		}
		if _, err = g.parked.Put(ctx, key, parked.Data, before.Revision); err == nil {
			break
		}
		if !errors.Is(err, store.ErrConflict) { // else the group has settled it just now
			return g.storeError("replay", err)
		}
	}
	g.mu.Lock()
	close(g.replayed)
	g.replayed = make(chan struct{})
	g.mu.Unlock()
	if err := g.parked.Delete(ctx, parked.Key, parked.Revision); err != nil && !errors.Is(err, store.ErrNotFound) {
		return g.storeError("replay", err)
	}
	return nil
}

// Replayed returns a notification that was given to a group again, and is not settled since. It may have expired from the log.
// Errors: ErrNotFound, ErrDamaged, ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
func (g *Groups) Replayed(ctx context.Context, group string, position Position) (*Record, error) {
	if !validName(group) {
		return nil, fmt.Errorf("%w: %q", ErrNoGroup, group)
	}
	value, err := g.parked.Get(ctx, parkedKey(replayPrefix, group, position.Sequence()))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("replayed notification %w", ErrNotFound)
	}
	if err != nil {
		return nil, g.storeError("read replay", err)
	}
	return g.parkedRecord(value.Data)
}

// Purge deletes a parked notification, by its id. Errors: as for Replay.
func (g *Groups) Purge(ctx context.Context, group, id string) error {
	parked, _, err := g.parkedByID(ctx, group, id)
	if err != nil {
		return err
	}
	err = g.parked.Delete(ctx, parked.Key, parked.Revision)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("parked notification %w", ErrNotFound)
	}
	return g.storeError("purge", err)
}

// parkedByID finds a parked notification. The value of one that is corrupt has no data.
func (g *Groups) parkedByID(ctx context.Context, group, id string) (store.Value, uint64, error) {
	if !validName(group) {
		return store.Value{}, 0, fmt.Errorf("%w: %q", ErrNoGroup, group)
	}
	position, err := g.log.ParseNotificationID(id)
	if err != nil {
		return store.Value{}, 0, err
	}
	value, err := g.parked.Get(ctx, parkedKey(parkedPrefix, group, position.Sequence()))
	if errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("parked notification %w", ErrNotFound)
	} else if err != nil {
		err = g.storeError("read parked", err)
	}
	return value, position.Sequence(), err
}
