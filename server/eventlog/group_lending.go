package eventlog

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	// lendingSuffix is what stands for source and stream sequence in the subject of a lending record.
	lendingSuffix = "lending.all"
	// lendingMargin is how much longer than a lease is waited for, because a member may be a little slow to notice its end.
	lendingMargin = time.Second
)

// lending is what a reader of an ordered group on an embedded log knows of its lending record. The engine writes what it has
// delivered a little later than it delivers it, so what was lent just before the death of the process looks new to the next one. Where
// order matters that must be known, and what says so must be durable before the lease is given.
type lending struct {
	bounded bool // else nothing of all this is needed

	background sync.WaitGroup // who stores ahead
	storing    sync.Mutex     // held while it is stored

	mu    sync.Mutex
	found *linksgatev1.LendingRecord // mu; as it is stored; nil if none is
	ahead bool                       // mu; somebody stores ahead
	used  bool                       // mu; this reader has allowed something by it
	over  bool                       // mu; and allows nothing more
}

// covers reports whether what is stored allows something. The caller holds mu.
func (l *lending) covers(stream uint64, lease time.Duration) bool {
	return l.found != nil && !l.found.GetEnded() && stream <= l.found.GetThrough() && lease <= l.found.GetLease().AsDuration()
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

func lendingSubject(record *linksgatev1.GroupRecord) string {
	return progressPrefix(record) + lendingSuffix
}

// readLending reads the lending record of a group; nil if there is none.
func (g *Groups) readLending(ctx context.Context, record *linksgatev1.GroupRecord) (*linksgatev1.LendingRecord, error) {
	message, err := g.last(ctx, g.records, lendingSubject(record))
	if err != nil || message == nil {
		return nil, err
	}
	found := new(linksgatev1.LendingRecord)
	if err := proto.Unmarshal(message.Data, found); err != nil {
		g.log.options.Logger.Error("how far a group was lent cannot be read: everything may be out",
			"group", record.GetGroup().GetName(), "error", err)
		return &linksgatev1.LendingRecord{Through: math.MaxUint64, Lease: record.GetGroup().GetLeaseDuration()}, nil
	}
	return found, nil
}

// outstanding concludes what may be out from what is stored, and from what the engine has delivered and has still to deliver.
func (r *GroupReader) outstanding(read, undelivered [len(sources)]uint64) Outstanding {
	g, found, o := r.groups, r.lending.found, Outstanding{Read: read}
	if found == nil || found.GetEnded() && read[SourceLog] >= found.GetDelivered() && read[SourceReplay] >= found.GetDeliveredReplays() {
		return o
	}
	since := g.opened
	o.Through = [...]uint64{SourceLog: min(found.GetThrough(), g.ends[SourceLog]), SourceReplay: g.ends[SourceReplay]}
	if undelivered[SourceReplay] == 0 {
		o.Through[SourceReplay] = read[SourceReplay]
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if left, ok := g.left[consumerName(r.record)]; ok { // this process, whose engine knows everything
		since = left
		for source := range o.Through {
			o.Through[source] = max(o.Through[source], read[source])
		}
	}
	o.Until = since.Add(found.GetLease().AsDuration() + lendingMargin)
	return o
}

// Outstanding returns what may be out since before the group was attached.
func (r *GroupReader) Outstanding() Outstanding { return r.earlier }

// Reach must be called before anything is lent from record batches up to a stream sequence of the log, or of what is replayed, for up to
// a lease duration, and returns nil only if a gateway that finds the log after the death of this one will know of that. What is stored
// allows some batches more, so that it is seldom waited for: after a crash all of them may be out, as far as they were in the log
// by then. It does nothing if the group is not ordered, or on an external log, where the engine outlives the gateway. Errors:
// ErrUnavailable, ErrClosed.
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
	next := new(linksgatev1.LendingRecord)
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

// End must be called only if all that was lent is settled or stored as progress, by this reader and those before. Whoever attaches the
// group next takes nothing for lent that progress does not say is. Errors: ErrUnavailable, ErrClosed; then it does.
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
	for _, source := range sources {
		info, err := r.groups.ensure(ctx, r.record, source)
		if err != nil {
			return err
		}
		if source == SourceLog {
			next.Delivered = info.Delivered.Stream
		} else {
			next.DeliveredReplays = info.Delivered.Stream
		}
	}
	if err := r.storeLending(ctx, next); err != nil {
		return err
	}
	l.mu.Lock()
	l.used = false
	l.mu.Unlock()
	r.groups.mu.Lock()
	defer r.groups.mu.Unlock()
	delete(r.groups.left, consumerName(r.record))
	return nil
}

// storeLending makes a lending record durable. The caller holds lending.storing.
func (r *GroupReader) storeLending(ctx context.Context, next *linksgatev1.LendingRecord) error {
	data, err := proto.Marshal(next)
	if err != nil {
		return fmt.Errorf("store how far a group is lent: %w", err)
	}
	// Also on a disk that is nearly full: members go on until nothing is left to be lent.
	if _, err := r.groups.store(ctx, "store how far a group is lent", &nats.Msg{Subject: lendingSubject(r.record), Data: data}); err != nil {
		return err
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
	r.groups.left[consumerName(r.record)] = time.Now()
}
