package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	"github.com/linksgate/linksgate/server/store"
)

const (
	// lendingMargin is how much longer than a lease is waited for, because a member may be a little slow to notice its end.
	lendingMargin = time.Second
)

// lending is what the reader of an ordered group knows of its lending record. What is leased is not stored, so to the gateway after a
// crash it looks new. Where order matters that must be known, and what says so must be durable before the lease is given.
type lending struct {
	bounded bool // else nothing of all this is needed

	background sync.WaitGroup // who stores ahead
	storing    sync.Mutex     // held while it is stored
	record     fenced         // storing

	mu    sync.Mutex
	found *storagev1.LeaseBound // mu; as it is stored; nil if none is
	ahead bool                  // mu; somebody stores ahead
	used  bool                  // mu; this reader has allowed something by it
	over  bool                  // mu; and allows nothing more
}

// covers reports whether what is stored allows something. The caller holds mu.
func (l *lending) covers(stream uint64, lease time.Duration) bool {
	return l.found != nil && !l.found.GetEnded() && stream <= l.found.GetThrough() && lease <= l.found.GetLease().AsDuration()
}

// read reads the lending record of a group; nil if there is none.
func (l *lending) read(ctx context.Context, g *Groups, record *storagev1.GroupRecord) (*storagev1.LeaseBound, error) {
	l.record.key = lendingPrefix + incarnationKey(record)
	value, err := g.kv.Get(ctx, l.record.key)
	l.record.revision = value.Revision
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	found := new(storagev1.LeaseBound)
	if err == nil {
		if err = proto.Unmarshal(value.Data, found); err != nil {
			err = fmt.Errorf("%w: %w", store.ErrCorrupt, err)
		}
	}
	if errors.Is(err, store.ErrCorrupt) {
		g.log.options.Logger.Error("group lending corrupt: everything may be leased", "group", record.GetGroup().GetName(), "error", err)
		return &storagev1.LeaseBound{Through: math.MaxUint64, Lease: record.GetGroup().GetLeaseDuration()}, nil
	}
	return found, g.storeError("read lending", err)
}

// outstanding concludes what may be out from what is stored.
func (r *GroupReader) outstanding() Outstanding {
	g, found := r.groups, r.lending.found
	r.offsets.mu.Lock()
	o := Outstanding{Read: [len(sources)]uint64{SourceLog: r.offsets.floor - 1}}
	delivered := r.offsets.next - 1
	r.offsets.mu.Unlock()
	if found == nil || found.GetEnded() {
		return o
	}
	since := r.offsets.tenure.since
	o.Through = [...]uint64{SourceLog: min(found.GetThrough(), r.offsets.tenure.ends[SourceLog]), SourceReplay: r.offsets.tenure.ends[SourceReplay]}
	g.mu.Lock()
	defer g.mu.Unlock()
	if left, ok := g.left[incarnationKey(r.record)]; ok { // this process
		since = left
		o.Through[SourceLog] = max(o.Through[SourceLog], min(found.GetThrough(), max(delivered, g.log.tail.headInfo().position.Stream)))
		o.Through[SourceReplay] = math.MaxUint64
	}
	o.Until = since.Add(found.GetLease().AsDuration() + lendingMargin)
	return o
}

// Outstanding returns what may be out since before the group was attached.
func (r *GroupReader) Outstanding() Outstanding { return r.earlier }

// Reach must be called before anything is leased from record batches up to a stream sequence of the log, or of what is replayed, for
// up to a lease duration, and returns nil only if a gateway that finds the log after a crash of this one will know of that. What is
// stored allows some batches more, so that it is seldom waited for. Errors: ErrUnavailable, ErrClosed.
func (r *GroupReader) Reach(ctx context.Context, stream, more uint64, lease time.Duration) error {
	l := &r.lending
	if !l.bounded {
		return nil
	}
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		return ErrClosed
	}
	l.used = true
	if !l.covers(stream, lease) {
		l.mu.Unlock()
		return r.extend(ctx, stream, more, lease)
	}
	defer l.mu.Unlock()
	if l.ahead || stream == 0 || l.covers(stream+more/2, lease) {
		return nil
	}
	l.ahead = true
	l.background.Go(func() {
		if err := r.extend(context.Background(), stream, more, lease); err != nil { // whoever needs it will find out too
			r.groups.log.options.Logger.Debug("how far a group is lent was not stored ahead", "error", err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ahead = false
	})
	return nil
}

// extend stores that more may be lent.
func (r *GroupReader) extend(ctx context.Context, stream, more uint64, lease time.Duration) error {
	l := &r.lending
	l.storing.Lock()
	defer l.storing.Unlock()
	next := new(storagev1.LeaseBound)
	l.mu.Lock()
	if l.found != nil && (!l.found.GetEnded() || !r.earlier.Until.IsZero()) {
		next.Through, next.Lease = l.found.GetThrough(), l.found.GetLease()
	}
	l.mu.Unlock()
	if stream > 0 {
		next.Through = max(next.GetThrough(), stream+more)
	}
	next.Lease = durationpb.New(max(lease, next.GetLease().AsDuration()))
	return r.storeLending(ctx, next)
}

// End must be called only if all that was leased is settled or stored as progress, by this reader and those before. Whoever attaches
// the group next takes nothing for leased that progress does not say is. Errors: ErrUnavailable, ErrClosed; then it does.
func (r *GroupReader) End(ctx context.Context) error {
	l := &r.lending
	l.mu.Lock()
	l.over = true
	ended := l.found == nil || l.found.GetEnded()
	l.mu.Unlock()
	l.background.Wait()
	if ended {
		return nil
	}
	l.storing.Lock()
	defer l.storing.Unlock()
	next := proto.CloneOf(l.found)
	next.Ended = true
	if err := r.storeLending(ctx, next); err != nil {
		return err
	}
	l.mu.Lock()
	l.used = false
	l.mu.Unlock()
	r.groups.mu.Lock()
	defer r.groups.mu.Unlock()
	delete(r.groups.left, incarnationKey(r.record))
	return nil
}

// storeLending makes a lending record durable. The caller holds lending.storing.
func (r *GroupReader) storeLending(ctx context.Context, next *storagev1.LeaseBound) error {
	data, err := proto.Marshal(next)
	if err != nil {
		return fmt.Errorf("store how far a group is lent: %w", err)
	}
	if err := r.lending.record.put(ctx, r.groups, data); err != nil {
		return r.groups.storeError("store how far a group is leased", err)
	}
	r.lending.mu.Lock()
	defer r.lending.mu.Unlock()
	r.lending.found = next
	return nil
}

// leave remembers, as long as the process lives, that this reader did not come to its End. Nobody may call Reach any more.
func (r *GroupReader) leave() {
	r.lending.background.Wait()
	r.lending.mu.Lock()
	defer r.lending.mu.Unlock()
	if !r.lending.used {
		return
	}
	r.groups.mu.Lock()
	defer r.groups.mu.Unlock()
	r.groups.left[incarnationKey(r.record)] = time.Now()
}
