package eventlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	"github.com/linksgate/linksgate/server/store"
)

// offsets is how far one incarnation of a group has come in the log. Everything before the floor is settled. Behind it, what was
// delivered is open until it is settled, and what was settled out of turn has an empty progress.
type offsets struct {
	groups *Groups
	record *storagev1.GroupRecord // of the incarnation
	tenure tenure

	saving sync.Mutex // held while the floor is stored
	offset fenced     // saving; the floor

	mu       sync.Mutex
	floor    uint64              // mu; the first stream sequence that is not settled
	stored   uint64              // mu; the floor as it is stored
	next     uint64              // mu; the next one to be delivered
	order    []uint64            // mu; delivered, ascending; the first is open
	open     map[uint64]struct{} // mu; delivered and not settled
	settled  map[uint64]struct{} // mu; behind the floor, and stored to be settled
	progress map[uint64]struct{} // mu; with progress stored, all settled or not
}

// offsetsOf returns the offsets of an incarnation, which are read if they are not known.
func (g *Groups) offsetsOf(ctx context.Context, record *storagev1.GroupRecord) (*offsets, error) {
	key := incarnationKey(record)
	g.mu.Lock()
	o := g.offsets[key]
	g.mu.Unlock()
	if o != nil {
		return o, nil
	}
	tenure, served := g.tenureOf(record.GetGroup().GetName())
	o = &offsets{
		groups: g, record: record, tenure: tenure, open: make(map[uint64]struct{}), settled: make(map[uint64]struct{}), progress: make(map[uint64]struct{}),
	}
	if err := o.load(ctx, served); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if known := g.offsets[key]; known != nil {
		return known, nil
	}
	if g.log.shared() && (!served || g.acquired[record.GetGroup().GetName()] != tenure) {
		return o, nil // to look at
	}
	g.offsets[key] = o
	return o, nil
}

// load reads what is stored. Offsets that do not hold are not believed: the group begins again at its start, and what is settled there
// out of turn is not delivered again.
func (o *offsets) load(ctx context.Context, served bool) error {
	kv := o.groups.kv
	o.floor = start(o.record).Stream
	o.offset.key = offsetPrefix + incarnationKey(o.record)
	value, err := kv.Get(ctx, o.offset.key)
	o.offset.revision = value.Revision
	switch {
	case err == nil && len(value.Data) == 8:
		o.stored = binary.BigEndian.Uint64(value.Data)
		o.floor = max(o.floor, o.stored)
	case err == nil, errors.Is(err, store.ErrCorrupt):
		o.groups.log.options.Logger.Error("group offset corrupt: it begins again at its start", "group", o.record.GetGroup().GetName())
	case !errors.Is(err, store.ErrNotFound):
		return o.groups.storeError("read offset", err)
	}
	if served && o.groups.log.shared() { // from here on, what was stored before is all that there is
		if err := o.offset.put(ctx, o.groups, binary.BigEndian.AppendUint64(nil, o.floor)); err != nil {
			return o.groups.storeError("store offset", err)
		}
	}
	prefix := fmt.Sprintf("%s%s.%v.", progressPrefix, incarnationKey(o.record), SourceLog)
	for value, err := range kv.List(ctx, prefix, "", false) {
		if err != nil && !errors.Is(err, store.ErrCorrupt) {
			return o.groups.storeError("read progress", err)
		}
		stream := numberOf(strings.TrimPrefix(value.Key, prefix))
		o.progress[stream] = struct{}{}
		if err == nil && len(value.Data) == 0 {
			o.settled[stream] = struct{}{}
		}
	}
	// A copy of a directory in use may have a table that is ahead of the log.
	o.floor = min(o.floor, max(o.groups.log.tail.headInfo().position.Stream+1, start(o.record).Stream))
	o.next = o.floor
	return nil
}

// restart makes everything that is not settled to be delivered again.
func (o *offsets) restart() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next, o.order = o.floor, nil
	clear(o.open)
}

// deliver takes note that a batch is delivered, and reports whether it is to be: it is not if it is settled.
func (o *offsets) deliver(stream uint64) (due, before bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next = max(o.next, stream+1)
	if _, settled := o.settled[stream]; settled || stream < o.floor {
		o.advance()
		return false, true
	}
	if _, open := o.open[stream]; !open {
		o.open[stream] = struct{}{}
		o.order = append(o.order, stream)
	}
	o.advance()
	_, before = o.progress[stream]
	return true, before || stream <= o.tenure.ends[SourceLog]
}

// skip takes note that everything before a stream sequence was delivered, or is not there.
func (o *offsets) skip(to uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next = max(o.next, to)
	o.advance()
}

// advance moves the floor to the first that is open, or to the next. The caller holds mu.
func (o *offsets) advance() {
	for len(o.order) > 0 {
		if _, open := o.open[o.order[0]]; open {
			break
		}
		o.order = o.order[1:]
	}
	floor := o.next
	if len(o.order) > 0 {
		floor = o.order[0]
	}
	for o.floor < floor && len(o.settled) > 0 {
		delete(o.settled, o.floor)
		o.floor++
	}
	o.floor = max(o.floor, floor)
}

func (o *offsets) noteProgress(stream uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.progress[stream] = struct{}{}
}

// settle makes durable that batches are settled.
func (o *offsets) settle(ctx context.Context, streams []uint64) error {
	var behind []uint64
	least := uint64(0)
	o.mu.Lock()
	for _, stream := range streams {
		delete(o.open, stream)
	}
	o.advance()
	for _, stream := range streams {
		if _, stored := o.settled[stream]; stream < o.floor {
			least = max(least, stream+1)
		} else if !stored {
			behind = append(behind, stream)
			o.progress[stream] = struct{}{}
		}
	}
	o.mu.Unlock()
	var errs [2]error
	var storing sync.WaitGroup
	storing.Go(func() { errs[0] = o.storeSettled(ctx, behind) })
	errs[1] = o.storeFloor(ctx, least)
	storing.Wait()
	return errors.Join(errs[:]...)
}

// storeSettled stores that batches behind the floor are settled.
func (o *offsets) storeSettled(ctx context.Context, streams []uint64) error {
	errs := make([]error, len(streams))
	var storing sync.WaitGroup
	for i, stream := range streams {
		storing.Go(func() {
			_, errs[i] = o.groups.kv.Put(ctx, progressKey(o.record, SourceLog, stream), nil, store.Any)
		})
	}
	storing.Wait()
	if err := errors.Join(errs...); err != nil {
		return o.groups.storeError("store progress", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, stream := range streams {
		if stream >= o.floor {
			o.settled[stream] = struct{}{}
		}
	}
	return nil
}

// storeFloor stores the floor, unless it is stored as far as is needed. Those who wait for it share one write.
func (o *offsets) storeFloor(ctx context.Context, least uint64) error {
	o.saving.Lock()
	defer o.saving.Unlock()
	o.mu.Lock()
	floor, stored := o.floor, o.stored
	o.mu.Unlock()
	if stored >= least {
		return nil
	}
	if err := o.offset.put(ctx, o.groups, binary.BigEndian.AppendUint64(nil, floor)); err != nil {
		return o.groups.storeError("store offset", err)
	}
	var useless []string
	o.mu.Lock()
	o.stored = floor
	for stream := range o.progress {
		if stream < floor {
			useless = append(useless, progressKey(o.record, SourceLog, stream))
			delete(o.progress, stream)
		}
	}
	o.mu.Unlock()
	if len(useless) > 0 {
		o.groups.background.Go(func() {
			if err := o.groups.remove(context.WithoutCancel(ctx), o.groups.kv, useless); err != nil {
				o.groups.log.options.Logger.Debug("old progress not removed", "error", err) // it is when the group is read next
			}
		})
	}
	return nil
}

// State returns the state of a group. Errors: ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
func (g *Groups) State(ctx context.Context, record *storagev1.GroupRecord) (GroupState, error) {
	name := record.GetGroup().GetName()
	if !validName(name) {
		return GroupState{}, fmt.Errorf("%w: %q", ErrNoGroup, name)
	}
	o, err := g.offsetsOf(ctx, record)
	if err != nil {
		return GroupState{}, err
	}
	var state GroupState
	if state.Parked, err = g.count(ctx, parkedPrefix+name+"."); err != nil {
		return state, err
	}
	replays, err := g.count(ctx, replayPrefix+name+".")
	if err != nil {
		return state, err
	}
	info, err := g.log.Info(ctx)
	if err != nil {
		return state, err
	}
	o.mu.Lock()
	state.UnsettledReplays, state.Unsettled = replays, uint64(len(o.open))
	next, floor := max(o.next, info.First.Stream), max(o.floor, info.First.Stream)
	if next < info.Next.Stream {
		state.Undelivered = info.Next.Stream - next
	}
	o.mu.Unlock()
	state.Oldest = Cursor{Stream: floor}
	if at := start(record); state.Oldest.Before(at) {
		state.Oldest = at
	}
	if state.Unsettled+state.Undelivered == 0 || !state.Oldest.Before(info.Next) {
		state.Oldest = info.Next
		return state, nil
	}
	state.Lag.Batches = info.Next.Stream - state.Oldest.Stream
	if b, err := g.log.batchAt(ctx, state.Oldest.Stream); err == nil {
		state.OldestWritten = b.written
		state.Lag.Time = max(time.Since(b.written), 0)
	}
	return state, nil
}

// count returns how many values are parked under a prefix.
func (g *Groups) count(ctx context.Context, prefix string) (uint64, error) {
	count := uint64(0)
	for _, err := range g.parked.List(ctx, prefix, "", true) {
		if err != nil {
			return 0, g.storeError("count", err)
		}
		count++
	}
	return count, nil
}
