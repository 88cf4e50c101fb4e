package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// GroupReader reads the log for a group, one of several gateways perhaps. Each record batch that it gets is a [Claim], to be kept alive
// and settled. Its methods may be called concurrently, as far as Fetch does not say otherwise.
//
// An ordered group on an external log is served through one gateway at a time; the others stand by, and one of them takes over
// when that one has not asked for more, nor kept a claim alive, for some seconds. What it had in hand may then still be unsettled:
// see [Claim.Turn].
type GroupReader struct {
	groups  *Groups
	record  *linksgatev1.GroupRecord
	pullers [len(sources)]*puller
	lending lending
	earlier Outstanding
	next    uint64 // stream sequence that the log's consumer delivers next; 0: cannot be told; owned by who fetches from the log

	mu      sync.Mutex
	standby bool // mu
	closed  bool // mu
}

// Attach opens a group's place for reading, and makes consumers that are missing: where one was lost with its files, the group
// begins again at its start. The record must be that of the incarnation to be read.
//
// Errors: ErrNoGroup, ErrGroupChanged if the group has another incarnation by now, ErrUnavailable, ErrClosed.
func (g *Groups) Attach(ctx context.Context, record *linksgatev1.GroupRecord) (*GroupReader, error) {
	record, err := g.current(ctx, record)
	if err != nil {
		return nil, err
	}
	r := &GroupReader{groups: g, record: record}
	if r.lending.bounded = ordered(record) && g.log.engine.embedded(); r.lending.bounded {
		if r.lending.found, err = g.readLending(ctx, record); err != nil {
			return nil, err
		}
	}
	var floors, read, undelivered [len(sources)]uint64
	for _, source := range sources {
		info, err := g.refresh(ctx, record, source)
		if err != nil {
			return nil, err
		}
		floors[source], read[source], undelivered[source] = info.AckFloor.Stream, info.Delivered.Stream, info.NumPending
		if source == SourceLog && g.log.engine.embedded() {
			if r.next = info.Delivered.Stream + 1; info.Delivered.Consumer == 0 {
				r.next = start(record).Stream // the engine has passed over what was not there any more
			}
		}
		if err := r.reclaim(ctx, info); err != nil {
			return nil, err
		}
	}
	r.earlier = r.outstanding(read, undelivered)
	if _, err := g.current(ctx, record); err != nil {
		if errors.Is(err, ErrNoGroup) || errors.Is(err, ErrGroupChanged) {
			err = errors.Join(err, g.removeIncarnation(ctx, record)) // what was just made, perhaps
		}
		return nil, err
	}
	if err := g.learnProgress(ctx, record, floors); err != nil {
		return nil, err
	}
	for _, source := range sources {
		if r.pullers[source], err = newPuller(g.log, g.stream(source).CachedInfo().Config.Name, consumerName(record), g.pinned(record)); err != nil {
			return nil, g.fail(ctx, "attach", err)
		}
	}
	return r, nil
}

// reclaim makes the engine hand out at once what a former process on the embedded log had in hand: nobody else can have it. Members
// may be working on it still: see [GroupReader.Outstanding]. Of an ordered group without a lending record nobody can say that, and it
// is left to come when its leases have ended.
func (r *GroupReader) reclaim(ctx context.Context, info *jetstream.ConsumerInfo) error {
	g := r.groups
	if !g.log.engine.embedded() || r.lending.bounded && r.lending.found == nil || info.NumAckPending == 0 {
		return nil
	}
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	// The engine does not tell which messages these are, and ignores what it is told of others.
	for sequence := info.AckFloor.Stream + 1; sequence <= info.Delivered.Stream; sequence++ {
		subject := fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.%d.0", info.Stream, info.Name, sequence, info.Delivered.Consumer, time.Now().UnixNano())
		if sequence < info.Delivered.Stream {
			err = g.log.engine.conn.Publish(subject, []byte(ackGiveBack))
		} else { // and wait until all were understood
			_, err = g.log.engine.conn.RequestWithContext(bounded, subject, []byte(ackGiveBack))
		}
		if err != nil {
			return g.fail(ctx, "get back what was in hand", err)
		}
	}
	// The engine hands them out from a timer, and would begin with what is new.
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(reclaimTime):
		return nil
	}
}

// current returns a group's record if it is of the same incarnation.
func (g *Groups) current(ctx context.Context, record *linksgatev1.GroupRecord) (*linksgatev1.GroupRecord, error) {
	name := record.GetGroup().GetName()
	stored, _, err := g.Get(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case incarnation(stored) != incarnation(record):
		return nil, fmt.Errorf("group %s was moved: %w", name, ErrGroupChanged)
	}
	return stored, nil
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

	reader   *GroupReader
	reply    string    // where the engine is told
	progress string    // subject of the batch's progress
	position Position  // of the notification, for SourceReplay
	parkedAt time.Time // for SourceReplay
}

// Fetch returns record batches that the group has not settled and no other gateway has in hand: from 1 to most of them, those that are
// there or the first to arrive; none if none did within wait, or if another gateway is served. First deliveries come in the order of
// the stream. A batch that was not kept alive comes again, as a new Claim of the same Stream, also to the gateway that has it.
//
// One goroutine at a time may fetch from a source. When ctx ends, what has arrived is returned, or kept for the next call and given
// back by Close. Errors: ErrNoGroup, ErrGroupChanged if the group was moved, ErrUnavailable, ErrClosed, or the cause of ctx's end.
func (r *GroupReader) Fetch(ctx context.Context, source Source, most int, wait time.Duration) ([]*Claim, error) {
	if err := r.groups.log.usable(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(wait)
	for {
		if source == SourceReplay && r.replaysElsewhere(ctx) {
			return nil, r.pause(ctx, time.Until(deadline))
		}
		messages, err := r.pullers[source].fetch(ctx, max(most, 1), time.Until(deadline))
		if errors.Is(err, errConsumerGone) {
			if err = r.revive(ctx, source); err == nil {
				err = r.pause(ctx, leastWait)
			}
		}
		switch {
		case ctx.Err() != nil && err != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, ErrClosed), errors.Is(err, ErrFrozen), errors.Is(err, ErrNoGroup), errors.Is(err, ErrGroupChanged):
			return nil, err
		case err != nil:
			return nil, r.groups.fail(ctx, "fetch", err)
		}
		r.noteStandby(ctx, source, len(messages))
		// What came is looked at against who is served by now: see replaysElsewhere.
		if len(messages) > 0 && source == SourceReplay && r.replaysElsewhere(ctx) {
			r.giveBack(messages)
			messages = nil
		}
		if claims := r.claims(ctx, source, messages); len(claims) > 0 || !time.Now().Before(deadline) {
			return claims, nil
		}
	}
}

// replaysElsewhere reports whether another gateway should get what is replayed: the one that gets the log. The engine pins each
// consumer by itself, and two notifications of one SIM must not be with two gateways. It is asked before and after: either this gateway
// finds that another is served, or that one finds, when its turn comes, that there are replays which it does not have.
func (r *GroupReader) replaysElsewhere(ctx context.Context) bool {
	return r.groups.pinned(r.record) && r.servedElsewhere(ctx)
}

// servedElsewhere reports whether another gateway gets the log.
func (r *GroupReader) servedElsewhere(ctx context.Context) bool {
	info, err := r.groups.ensure(ctx, r.record, SourceLog)
	if err != nil {
		return true
	}
	own, _ := r.pullers[SourceLog].pinAndTurn()
	return pinOf(info) != "" && pinOf(info) != own
}

// noteStandby finds out whether another gateway is served, when nothing came.
func (r *GroupReader) noteStandby(ctx context.Context, source Source, messages int) {
	if source != SourceLog || !r.groups.pinned(r.record) {
		return
	}
	standby := messages == 0 && r.servedElsewhere(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.standby = standby
}

// Standby reports whether another gateway is served, as of the last Fetch from the log.
func (r *GroupReader) Standby() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.standby
}

// pause waits.
func (r *GroupReader) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.groups.log.writer.closing:
		return ErrClosed
	case <-timer.C:
		return nil
	}
}

// revive makes a consumer anew that is gone although the group is not.
func (r *GroupReader) revive(ctx context.Context, source Source) error {
	record, err := r.groups.current(ctx, r.record)
	if err == nil {
		_, err = r.groups.refresh(ctx, record, source)
	}
	return err
}

func (r *GroupReader) giveBack(messages []*nats.Msg) {
	for _, message := range messages {
		_ = r.groups.log.engine.conn.Publish(message.Reply, []byte(ackGiveBack))
	}
}

// claims makes claims of messages.
func (r *GroupReader) claims(ctx context.Context, source Source, messages []*nats.Msg) []*Claim {
	claims := make([]*Claim, 0, len(messages))
	for _, message := range messages {
		c, err := r.claim(source, message)
		if err != nil {
			r.groups.log.options.Logger.Error("a message of a group cannot be understood", "subject", message.Subject, "error", err)
			continue
		}
		if len(c.Records) == 0 && !c.Damaged {
			_ = c.Settle(ctx) // all of it is before the group's start
			continue
		}
		claims = append(claims, c)
	}
	return claims
}

func (r *GroupReader) claim(source Source, message *nats.Msg) (*Claim, error) {
	meta, err := message.Metadata()
	if err != nil {
		return nil, err
	}
	c := &Claim{
		Source: source, Stream: meta.Sequence.Stream, Deliveries: meta.NumDelivered, Written: meta.Timestamp, Turn: r.turn(source),
		reader: r, reply: message.Reply, progress: progressSubject(r.record, source, meta.Sequence.Stream),
	}
	if source == SourceReplay {
		r.readReplay(c, message)
	} else {
		r.readBatch(c, message)
	}
	if c.Deliveries == 1 && r.groups.mayHaveProgress(consumerName(r.record), c.progress) {
		c.Deliveries = 2 // the engine has forgotten the first one, when the process died
	}
	return c, nil
}

// turn counts the pins that this gateway got for a source.
func (r *GroupReader) turn(source Source) uint64 {
	if !r.groups.pinned(r.record) {
		return 1
	}
	_, turn := r.pullers[source].pinAndTurn()
	return turn
}

func (r *GroupReader) readBatch(c *Claim, message *nats.Msg) {
	b, place := r.groups.log.tail.at(Cursor{Stream: c.Stream})
	if place != placeWindow {
		b = unpack(r.groups.log.id, c.Stream, c.Written, message.Data)
	}
	records := b.from(start(r.record))
	c.Records = make([]*Record, len(records))
	for i := range records {
		c.Records[i] = &records[i]
	}
	c.Bytes, c.Damaged = max(b.size, len(message.Data)), b.damaged
	if r.next > 0 && c.Stream >= r.next {
		c.Missed, r.next = c.Stream-r.next, c.Stream+1
	}
}

func (r *GroupReader) readReplay(c *Claim, message *nats.Msg) {
	c.Bytes = len(message.Data)
	p, err := parseParked(storedMessage{subject: message.Subject, header: message.Header, data: message.Data})
	if err == nil {
		var record *Record
		if record, err = p.unpack(r.groups.log.id); err == nil {
			c.Records, c.position, c.parkedAt = []*Record{record}, record.Position, p.record.GetParkedAt().AsTime()
			return
		}
	}
	c.Damaged = true
	r.groups.log.options.Logger.Error("a notification that was to be replayed cannot be read", "subject", message.Subject, "error", err)
}

// tell tells the engine about the claim. That costs next to nothing, and it is not known whether it arrives.
func (c *Claim) tell(what string) error {
	g := c.reader.groups
	if err := g.log.usable(); err != nil {
		return err
	}
	if err := g.log.engine.conn.Publish(c.reply, []byte(what)); err != nil {
		return fmt.Errorf("record batch %d: %w", c.Stream, g.log.readError(context.Background(), err))
	}
	return nil
}

// KeepAlive keeps the batch from being given to anyone else, counted from now, for the group's lease duration and a little more. It must
// be called at least every two seconds, so that the gateway stays the one that is served. Errors: ErrUnavailable, ErrClosed.
func (c *Claim) KeepAlive() error {
	c.reader.pullers[c.Source].renew()
	if c.Source == SourceReplay {
		c.reader.pullers[SourceLog].renew()
	}
	return c.tell(ackKeep)
}

// Settle ends the claim: everything in the batch is settled, and the group does not get it again; nor is the progress with it needed
// any more. It returns without waiting for the engine: the death of a gateway, or of the connection, right after that may bring
// the batch again. Errors: ErrUnavailable, ErrClosed; then it may come again too, or leave something that goes when the group is
// attached next.
func (c *Claim) Settle(ctx context.Context) error {
	if err := c.tell(ackSettled); err != nil {
		return err
	}
	g, consumer := c.reader.groups, consumerName(c.reader.record)
	var errs []error
	if c.Deliveries > 1 || g.mayHaveProgress(consumer, c.progress) {
		errs = append(errs, g.removeProgress(ctx, consumer, c.progress))
	}
	if c.Source == SourceReplay {
		errs = append(errs, g.removeReplay(ctx, c.reader.record.GetGroup().GetName(), c.position, c.Stream, c.parkedAt))
	}
	return errors.Join(errs...)
}

// GiveBack ends the claim: whoever asks next gets the batch, this gateway too, also after a restart of the engine. It returns when the
// engine has understood. Errors: ErrUnavailable, ErrClosed; then the batch comes again as after the death of the gateway.
func (c *Claim) GiveBack(ctx context.Context) error { return c.giveBack(ctx, ackGiveBack) }

// GiveBackFor is GiveBack, but the batch comes to nobody before a time has passed, or this process has ended.
func (c *Claim) GiveBackFor(ctx context.Context, wait time.Duration) error {
	return c.giveBack(ctx, ackGiveBackFor+max(wait, 0).String())
}

func (c *Claim) giveBack(ctx context.Context, what string) error {
	g := c.reader.groups
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if _, err := g.log.engine.conn.RequestWithContext(bounded, c.reply, []byte(what)); err != nil {
		return g.fail(ctx, fmt.Sprintf("give back record batch %d", c.Stream), err)
	}
	return nil
}

// State returns the state of the group. Errors: as for [Groups.State].
func (r *GroupReader) State(ctx context.Context) (GroupState, error) {
	return r.groups.State(ctx, r.record)
}

// Close gives back what has arrived and was not fetched, and lets another gateway be served. Claims stay in hand until they are not kept
// alive. Nobody may be fetching any more.
func (r *GroupReader) Close() {
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	r.mu.Unlock()
	if closed {
		return
	}
	for _, source := range sources {
		r.pullers[source].close()
		r.unpin(source)
	}
	r.leave()
	r.groups.forgetProgress(consumerName(r.record))
}

// unpin lets another gateway be served at once, instead of after a while.
func (r *GroupReader) unpin(source Source) {
	own, _ := r.pullers[source].pinAndTurn()
	if own == "" {
		return
	}
	ctx, end, err := r.groups.begin(context.Background())
	if err != nil {
		return
	}
	defer end()
	stream, name := r.groups.stream(source), consumerName(r.record)
	consumer, err := stream.Consumer(ctx, name)
	if err == nil && pinOf(consumer.CachedInfo()) == own {
		err = stream.UnpinConsumer(ctx, name, priorityGroup)
	}
	if err != nil {
		r.groups.log.options.Logger.Debug("a gateway could not hand over", "group", r.record.GetGroup().GetName(), "error", err)
	}
}
