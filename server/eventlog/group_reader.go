package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	"github.com/linksgate/linksgate/server/store"
)

// GroupReader is the one reader of a group: it reads the log in order from the group's offset on, and passes over what is settled. Each
// record batch that it gets is a [Claim], to be settled or given back. Its methods may be called concurrently, as far as Fetch does not
// say otherwise.
type GroupReader struct {
	groups  *Groups
	record  *storagev1.GroupRecord
	offsets *offsets
	lending lending
	earlier Outstanding
	missed  uint64 // record batches that are gone, and not told with a claim yet; owned by who fetches from the log

	mu      sync.Mutex
	later   map[uint64]time.Time // mu; batches of the log that were given back, and when they are due
	replays map[uint64]time.Time // mu; replays that are delivered, and when they are due again; zero: they are in hand
}

// Attach opens a group for reading. The record must be that of the incarnation to be read. Errors: ErrNoGroup, ErrGroupChanged if the
// group has another incarnation by now, ErrUnavailable, ErrClosed.
func (g *Groups) Attach(ctx context.Context, record *storagev1.GroupRecord) (*GroupReader, error) {
	name := record.GetGroup().GetName()
	stored, _, err := g.Get(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case incarnation(stored) != incarnation(record):
		return nil, fmt.Errorf("group %s was moved: %w", name, ErrGroupChanged)
	}
	r := &GroupReader{groups: g, record: record, later: make(map[uint64]time.Time), replays: make(map[uint64]time.Time)}
	if r.offsets, err = g.offsetsOf(ctx, record); err != nil {
		return nil, err
	}
	r.offsets.restart()
	if r.lending.bounded = ordered(record); r.lending.bounded {
		if r.lending.found, err = r.lending.read(ctx, g, record); err != nil {
			return nil, err
		}
	}
	r.earlier = r.outstanding()
	return r, nil
}

// Fetch returns record batches that the group has not settled and no other gateway has in hand: from 1 to most of them, those that
// are there or the first to arrive; none if none did within wait, or if another gateway is served. First deliveries come in the order
// of the log. A batch that was not kept alive comes again, as a new Claim of the same Stream, also to the gateway that has it.
//
// One goroutine at a time may fetch from a source. Errors: ErrNoGroup, ErrGroupChanged if the group was moved, ErrUnavailable,
// ErrClosed, or the cause of ctx's end.
func (r *GroupReader) Fetch(ctx context.Context, source Source, most int, wait time.Duration) ([]*Claim, error) {
	fetch := r.fetchLog
	if source == SourceReplay {
		fetch = r.fetchReplays
	}
	for deadline := time.Now().Add(wait); ; {
		if err := r.groups.log.usable(); err != nil {
			return nil, err
		}
		claims, pause, err := fetch(ctx, max(most, 1))
		if err != nil || len(claims) > 0 || !time.Now().Before(deadline) {
			return claims, err
		}
		if err := pause(deadline); err != nil {
			return nil, err
		}
	}
}

// fetchLog returns what is due of what was given back, and what comes next in the log.
func (r *GroupReader) fetchLog(ctx context.Context, most int) ([]*Claim, func(time.Time) error, error) {
	claims, until, err := r.fetchLater(ctx, most)
	if err != nil {
		return nil, nil, err
	}
	r.offsets.mu.Lock()
	next := r.offsets.next
	r.offsets.mu.Unlock()
	head := r.groups.log.tail.headInfo().position.Stream
	for next <= head && len(claims) < most && err == nil && ctx.Err() == nil {
		if b, place := r.groups.log.tail.at(Cursor{Stream: next}); place == placeWindow {
			claims = r.claim(claims, b)
			next++
		} else {
			claims, next, err = r.readBehind(ctx, claims, next, head, most)
		}
	}
	if err == nil && ctx.Err() != nil && len(claims) == 0 {
		err = context.Cause(ctx)
	}
	return claims, func(deadline time.Time) error {
		if !until.IsZero() && until.Before(deadline) {
			deadline = until
		}
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		_, err := r.groups.log.tail.wait(ctx, Cursor{Stream: next}, []interest{{field: interestAny}}, timer.C)
		return err
	}, err
}

// readBehind reads what is behind the window.
func (r *GroupReader) readBehind(ctx context.Context, claims []*Claim, next, head uint64, most int) ([]*Claim, uint64, error) {
	for item, err := range r.groups.log.store.Read(ctx, next) {
		if err != nil {
			return claims, next, r.groups.log.readError(ctx, err)
		}
		b, gap := r.groups.log.unpackItem(item)
		if gap != nil {
			next = item.Gap.From + item.Gap.Count
			r.missed += item.Gap.Count
			r.offsets.skip(next)
		} else {
			claims = r.claim(claims, b)
			next = item.Sequence + 1
		}
		if len(claims) >= most || next > head {
			break
		}
	}
	return claims, next, nil
}

// claim adds a batch of the log, unless it is settled or before the group's start.
func (r *GroupReader) claim(claims []*Claim, b *batch) []*Claim {
	due, before := r.offsets.deliver(b.stream)
	if !due {
		return claims
	}
	c := r.claimOf(b, before)
	if len(c.Records) == 0 && !c.Damaged {
		r.offsets.mu.Lock()
		delete(r.offsets.open, b.stream)
		r.offsets.advance()
		r.offsets.mu.Unlock()
		return claims
	}
	c.Missed, r.missed = r.missed, 0
	return append(claims, c)
}

func (r *GroupReader) claimOf(b *batch, before bool) *Claim {
	records := b.from(start(r.record))
	c := &Claim{
		Source: SourceLog, Stream: b.stream, Again: before, Written: b.written, Bytes: b.size, Damaged: b.damaged, reader: r,
		Records: make([]*Record, 0, len(records)),
	}
	for i := range records {
		if !records[i].erased {
			c.Records = append(c.Records, &records[i])
		}
	}
	return c
}

// fetchLater returns batches that were given back and are due, and when the next one is; zero if none is.
func (r *GroupReader) fetchLater(ctx context.Context, most int) (claims []*Claim, until time.Time, err error) {
	now := time.Now()
	var due []uint64
	r.mu.Lock()
	for stream, at := range r.later {
		switch {
		case at.After(now) || len(due) == most:
			if until.IsZero() || at.Before(until) {
				until = at
			}
		default:
			due = append(due, stream)
			delete(r.later, stream)
		}
	}
	r.mu.Unlock()
	for _, stream := range due {
		b, err := r.groups.log.batchAt(ctx, stream)
		switch {
		case errors.Is(err, ErrExpired), errors.Is(err, ErrDamaged), errors.Is(err, ErrNotFound):
			r.missed++
			if err := r.offsets.settle(ctx, []uint64{stream}); err != nil {
				return claims, until, err
			}
		case err != nil:
			r.giveBackBatch(stream, now)
			return claims, until, err
		default:
			claims = append(claims, r.claimOf(b, true))
		}
	}
	return claims, until, nil
}

func (r *GroupReader) giveBackBatch(stream uint64, due time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.later[stream] = due
}

func (r *GroupReader) giveBack(c *Claim, due time.Time) {
	if c.Source == SourceLog {
		r.giveBackBatch(c.Stream, due)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replays[c.Stream] = due
}

// Settle ends claims: everything in their batches is settled, and the group does not get them again; nor is the progress with them
// needed any more. If the reader is Durable, it returns nil only if that is. Errors: ErrUnavailable, ErrClosed; then the batches may
// come again.
func (r *GroupReader) Settle(ctx context.Context, claims []*Claim) error {
	if err := r.groups.log.usable(); err != nil {
		return err
	}
	var streams []uint64
	var errs []error
	for _, c := range claims {
		if c.Source == SourceLog {
			streams = append(streams, c.Stream)
		} else {
			errs = append(errs, r.settleReplay(ctx, c))
		}
	}
	if len(streams) > 0 {
		errs = append(errs, r.offsets.settle(ctx, streams))
	}
	return errors.Join(errs...)
}

// fetchReplays returns what was given to the group again and is not in hand.
func (r *GroupReader) fetchReplays(ctx context.Context, most int) ([]*Claim, func(time.Time) error, error) {
	g := r.groups
	g.mu.Lock()
	replayed := g.replayed
	g.mu.Unlock()
	var claims []*Claim
	now := time.Now()
	keys, err := g.inOrder(ctx, replayPrefix+r.record.GetGroup().GetName()+".", 0)
	if err != nil {
		return nil, nil, err
	}
	for _, value := range keys {
		r.mu.Lock()
		due, known := r.replays[value.Revision]
		take := !known || !due.IsZero() && !due.After(now)
		if take {
			r.replays[value.Revision] = time.Time{}
		}
		r.mu.Unlock()
		if !take {
			continue
		}
		stored, err := g.parked.Get(ctx, value.Key)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		claims = append(claims, r.replayClaim(ctx, stored, err))
		if len(claims) == most {
			break
		}
	}
	return claims, func(deadline time.Time) error {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		select {
		case <-replayed:
		case <-timer.C:
		case <-g.log.writer.closing:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return nil
	}, nil
}

// replayClaim makes a claim of a notification that was given to the group again.
func (r *GroupReader) replayClaim(ctx context.Context, value store.Value, err error) *Claim {
	c := &Claim{Source: SourceReplay, Stream: value.Revision, Written: value.Time, Bytes: len(value.Data), reader: r}
	if _, err := r.groups.kv.Get(ctx, progressKey(r.record, SourceReplay, c.Stream)); !errors.Is(err, store.ErrNotFound) {
		c.Again = true
	}
	var record *Record
	if err == nil {
		record, err = r.groups.parkedRecord(value.Data)
	}
	if err != nil {
		c.Damaged = true
		r.groups.log.options.Logger.Error("replayed notification corrupt", "key", value.Key, "error", err)
		return c
	}
	c.Records = []*Record{record}
	return c
}

// settleReplay removes what was given to the group again, unless it was meanwhile once more, and the parked notification that it came
// from, should a crash have left it.
func (r *GroupReader) settleReplay(ctx context.Context, c *Claim) error {
	g, name := r.groups, r.record.GetGroup().GetName()
	keys := []string{progressKey(r.record, SourceReplay, c.Stream)}
	for value, err := range g.parked.List(ctx, replayPrefix+name+".", "", true) {
		if err != nil {
			return g.storeError("settle replay", err)
		}
		if value.Revision != c.Stream {
			continue
		}
		replay, err := g.parked.Get(ctx, value.Key)
		if err == nil {
			key := parkedPrefix + name + "." + value.Key[len(replayPrefix+name+"."):]
			if left, leftErr := g.parked.Get(ctx, key); leftErr == nil && string(left.Data) == string(replay.Data) {
				if err := g.remove(ctx, g.parked, []string{key}); err != nil {
					return err
				}
			}
		}
		if err := g.parked.Delete(ctx, value.Key, c.Stream); err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) {
			return g.storeError("settle replay", err)
		}
	}
	r.mu.Lock()
	delete(r.replays, c.Stream)
	r.mu.Unlock()
	return g.remove(ctx, g.kv, keys)
}

// State returns the state of the group. Errors: as for [Groups.State].
func (r *GroupReader) State(ctx context.Context) (GroupState, error) {
	return r.groups.State(ctx, r.record)
}

// Close lets another gateway be served. Claims stay in hand until they are not kept alive. Nobody may be fetching any more.
func (r *GroupReader) Close() { r.leave() }
