package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// GroupReader reads the log for a group, one of several gateways perhaps. Each record batch that it gets is a [Claim], to be kept alive
// and settled. Its methods may be called concurrently, as far as Fetch does not say otherwise.
//
// An ordered group on an external log is served through one gateway at a time; the others stand by, and one of them takes over
// when that one has not asked for more, nor kept a claim alive, for some seconds. What it had in hand may then still be unsettled:
// see [Claim.Turn].
type natsGroupReader struct {
	groups  *natsGroups
	record  *linksgatev1.GroupRecord
	pullers [len(sources)]*puller
	read    Outstanding

	mu      sync.Mutex
	standby bool // mu
	closed  bool // mu
}

// Attach opens a group's place for reading, and makes consumers that are missing: where one was lost with its files, the group
// begins again at its start. The record must be that of the incarnation to be read.
//
// Errors: ErrNoGroup, ErrGroupChanged if the group has another incarnation by now, ErrUnavailable, ErrClosed.
func (g *natsGroups) Attach(ctx context.Context, record *linksgatev1.GroupRecord) (GroupReader, error) {
	record, err := g.current(ctx, record)
	if err != nil {
		return nil, err
	}
	r := &natsGroupReader{groups: g, record: record}
	var floors [len(sources)]uint64
	for _, source := range sources {
		info, err := g.refresh(ctx, record, source)
		if err != nil {
			return nil, err
		}
		floors[source], r.read.Read[source] = info.AckFloor.Stream, info.Delivered.Stream
	}
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
		if r.pullers[source], err = newPuller(g, g.stream(source).CachedInfo().Config.Name, consumerName(record), g.pinned(record)); err != nil {
			return nil, g.fail(ctx, "attach", err)
		}
	}
	return r, nil
}

// current returns a group's record if it is of the same incarnation.
func (g *natsGroups) current(ctx context.Context, record *linksgatev1.GroupRecord) (*linksgatev1.GroupRecord, error) {
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

// natsHand is what makes a [Claim] one of a NATS consumer.
type natsHand struct {
	reader   *natsGroupReader
	claim    *Claim
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
func (r *natsGroupReader) Fetch(ctx context.Context, source Source, most int, wait time.Duration) ([]*Claim, error) {
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
func (r *natsGroupReader) replaysElsewhere(ctx context.Context) bool {
	return r.groups.pinned(r.record) && r.servedElsewhere(ctx)
}

// servedElsewhere reports whether another gateway gets the log.
func (r *natsGroupReader) servedElsewhere(ctx context.Context) bool {
	info, err := r.groups.ensure(ctx, r.record, SourceLog)
	if err != nil {
		return true
	}
	own, _ := r.pullers[SourceLog].pinAndTurn()
	return pinOf(info) != "" && pinOf(info) != own
}

// noteStandby finds out whether another gateway is served, when nothing came.
func (r *natsGroupReader) noteStandby(ctx context.Context, source Source, messages int) {
	if source != SourceLog || !r.groups.pinned(r.record) {
		return
	}
	standby := messages == 0 && r.servedElsewhere(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.standby = standby
}

// Standby reports whether another gateway is served, as of the last Fetch from the log.
func (r *natsGroupReader) Standby() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.standby
}

// pause waits.
func (r *natsGroupReader) pause(ctx context.Context, wait time.Duration) error {
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
func (r *natsGroupReader) revive(ctx context.Context, source Source) error {
	record, err := r.groups.current(ctx, r.record)
	if err == nil {
		_, err = r.groups.refresh(ctx, record, source)
	}
	return err
}

func (r *natsGroupReader) giveBack(messages []*nats.Msg) {
	for _, message := range messages {
		_ = r.groups.engine.conn.Publish(message.Reply, []byte(ackGiveBack))
	}
}

// claims makes claims of messages.
func (r *natsGroupReader) claims(ctx context.Context, source Source, messages []*nats.Msg) []*Claim {
	claims := make([]*Claim, 0, len(messages))
	for _, message := range messages {
		c, err := r.claim(source, message)
		if err != nil {
			r.groups.log.options.Logger.Error("a message of a group cannot be understood", "subject", message.Subject, "error", err)
			continue
		}
		if len(c.Records) == 0 && !c.Damaged {
			_ = r.Settle(ctx, []*Claim{c}) // all of it is before the group's start
			continue
		}
		claims = append(claims, c)
	}
	return claims
}

func (r *natsGroupReader) claim(source Source, message *nats.Msg) (*Claim, error) {
	meta, err := message.Metadata()
	if err != nil {
		return nil, err
	}
	c := &Claim{
		Source: source, Stream: meta.Sequence.Stream, Deliveries: meta.NumDelivered, Written: meta.Timestamp, Turn: r.turn(source),
	}
	hand := &natsHand{
		reader: r, claim: c, reply: message.Reply, progress: progressSubject(r.record, source, meta.Sequence.Stream),
	}
	c.hand = hand
	if source == SourceReplay {
		r.readReplay(hand, message)
	} else {
		r.readBatch(c, message)
	}
	if c.Deliveries == 1 && r.groups.mayHaveProgress(consumerName(r.record), hand.progress) {
		c.Deliveries = 2 // the engine has forgotten the first one, when the process died
	}
	return c, nil
}

// turn counts the pins that this gateway got for a source.
func (r *natsGroupReader) turn(source Source) uint64 {
	if !r.groups.pinned(r.record) {
		return 1
	}
	_, turn := r.pullers[source].pinAndTurn()
	return turn
}

func (r *natsGroupReader) readBatch(c *Claim, message *nats.Msg) {
	b, place := r.groups.log.tail.at(Cursor{Stream: c.Stream})
	if place != placeWindow {
		b = unpack(r.groups.log.id, 0, c.Stream, c.Written, message.Data)
	}
	records := b.from(start(r.record))
	c.Records = make([]*Record, len(records))
	for i := range records {
		c.Records[i] = &records[i]
	}
	c.Bytes, c.Damaged = max(b.size, len(message.Data)), b.damaged
}

func (r *natsGroupReader) readReplay(hand *natsHand, message *nats.Msg) {
	c := hand.claim
	c.Bytes = len(message.Data)
	p, err := parseParked(storedMessage{subject: message.Subject, header: message.Header, data: message.Data})
	if err == nil {
		var record *Record
		if record, err = p.unpack(r.groups.log.id); err == nil {
			c.Records, hand.position, hand.parkedAt = []*Record{record}, record.Position, p.record.GetParkedAt().AsTime()
			return
		}
	}
	c.Damaged = true
	r.groups.log.options.Logger.Error("a notification that was to be replayed cannot be read", "subject", message.Subject, "error", err)
}

// tell tells the engine about the claim. That costs next to nothing, and it is not known whether it arrives.
func (h *natsHand) tell(what string) error {
	g := h.reader.groups
	if err := g.log.usable(); err != nil {
		return err
	}
	if err := g.engine.conn.Publish(h.reply, []byte(what)); err != nil {
		return fmt.Errorf("record batch %d: %w", h.claim.Stream, g.log.readError(context.Background(), err))
	}
	return nil
}

func (h *natsHand) keepAlive() error {
	h.reader.pullers[h.claim.Source].renew()
	if h.claim.Source == SourceReplay {
		h.reader.pullers[SourceLog].renew()
	}
	return h.tell(ackKeep)
}

// settle returns without waiting for the engine: the death of a gateway, or of the connection, right after that may bring the batch
// again.
func (h *natsHand) settle(ctx context.Context) error {
	if err := h.tell(ackSettled); err != nil {
		return err
	}
	g, consumer := h.reader.groups, consumerName(h.reader.record)
	var errs []error
	if h.claim.Deliveries > 1 || g.mayHaveProgress(consumer, h.progress) {
		errs = append(errs, g.removeProgress(ctx, consumer, h.progress))
	}
	if h.claim.Source == SourceReplay {
		errs = append(errs, g.removeReplay(ctx, h.reader.record.GetGroup().GetName(), h.position, h.claim.Stream, h.parkedAt))
	}
	return errors.Join(errs...)
}

// giveBack returns when the engine has understood.
func (h *natsHand) giveBack(ctx context.Context, wait time.Duration) error {
	g := h.reader.groups
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	what := ackGiveBackFor + max(wait, 0).String()
	if _, err := g.engine.conn.RequestWithContext(bounded, h.reply, []byte(what)); err != nil {
		return g.fail(ctx, fmt.Sprintf("give back record batch %d", h.claim.Stream), err)
	}
	return nil
}

// Settle implements [GroupReader].
func (r *natsGroupReader) Settle(ctx context.Context, claims []*Claim) error {
	var errs []error
	for _, c := range claims {
		errs = append(errs, c.hand.(*natsHand).settle(ctx))
	}
	return errors.Join(errs...)
}

// Durable implements [GroupReader]: the engine is told what is settled, and does not say when that is durable.
func (r *natsGroupReader) Durable() bool { return false }

// Outstanding implements [GroupReader].
func (r *natsGroupReader) Outstanding() Outstanding { return r.read }

// Reach implements [GroupReader]: the engine outlives the gateway, and nothing need be noted.
func (r *natsGroupReader) Reach(context.Context, uint64, uint64, time.Duration) error { return nil }

// End implements [GroupReader].
func (r *natsGroupReader) End(context.Context) error { return nil }

// State returns the state of the group. Errors: as for [Groups.State].
func (r *natsGroupReader) State(ctx context.Context) (GroupState, error) {
	return r.groups.State(ctx, r.record)
}

// Close gives back what has arrived and was not fetched, and lets another gateway be served. Claims stay in hand until they are not kept
// alive. Nobody may be fetching any more.
func (r *natsGroupReader) Close() {
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
	r.groups.forgetProgress(consumerName(r.record))
}

// unpin lets another gateway be served at once, instead of after a while.
func (r *natsGroupReader) unpin(source Source) {
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
