package eventlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	// consumerPrefix begins the names of groups' consumers; readers' have names that the engine makes up.
	consumerPrefix = "group-"
	// priorityGroup is the one priority group of a consumer that serves one gateway at a time.
	priorityGroup = "gateway"
	// maxUnsettled is how many record batches of a group may be in hand at once, by all gateways, or given back for later. The engine
	// writes all their numbers each time that it writes its state.
	maxUnsettled = 32_768
	// LeaseMargin is how much longer than a lease the engine waits for a gateway that does not say any more that it has a batch in
	// hand: what a dead one had lent is not given out again before the leases have ended, unless its successor takes it back (reclaim).
	LeaseMargin = 5 * time.Second
	// pinTime is when another gateway is served because the one that was does not ask any more. pinnedWait, how long one request for
	// batches waits then, and the interval at which batches in hand are kept alive must be well below.
	pinTime    = 5 * time.Second
	pinnedWait = 2 * time.Second
	// pinRenewal is how often the engine is reminded at most.
	pinRenewal = time.Second
)

// consumerName names both consumers of an incarnation of a group.
func consumerName(record *linksgatev1.GroupRecord) string {
	return consumerPrefix + record.GetGroup().GetName() + "-" + incarnation(record)
}

// stream returns the stream that a source is in.
func (g *natsGroups) stream(source Source) jetstream.Stream {
	if source == SourceReplay {
		return g.parked
	}
	return g.engine.stream
}

// pinned reports whether a group's consumers serve one gateway at a time. Of an embedded log there is only one.
func (g *natsGroups) pinned(record *linksgatev1.GroupRecord) bool {
	return ordered(record)
}

func ackWait(record *linksgatev1.GroupRecord) time.Duration {
	return record.GetGroup().GetLeaseDuration().AsDuration() + LeaseMargin
}

func (g *natsGroups) consumerConfig(record *linksgatev1.GroupRecord, source Source) jetstream.ConsumerConfig {
	config := jetstream.ConsumerConfig{
		Durable:       consumerName(record),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait(record),
		MaxDeliver:    -1,
		MaxAckPending: maxUnsettled,
	}
	if source == SourceReplay {
		config.DeliverPolicy, config.FilterSubject = jetstream.DeliverAllPolicy, replaySubject+record.GetGroup().GetName()+".*"
	} else {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, start(record).Stream
	}
	if g.pinned(record) {
		config.PriorityPolicy, config.PriorityGroups, config.PinnedTTL = jetstream.PriorityPolicyPinned, []string{priorityGroup}, pinTime
	}
	return config
}

// ensure returns the state of a group's consumer. It makes one that is missing.
func (g *natsGroups) ensure(ctx context.Context, record *linksgatev1.GroupRecord, source Source) (*jetstream.ConsumerInfo, error) {
	return g.consumer(ctx, record, source, false)
}

// refresh is ensure for whoever has just read or stored the record: it also gives the consumer the lease duration in force, and the bound
// of this version.
func (g *natsGroups) refresh(ctx context.Context, record *linksgatev1.GroupRecord, source Source) (*jetstream.ConsumerInfo, error) {
	return g.consumer(ctx, record, source, true)
}

func (g *natsGroups) consumer(ctx context.Context, record *linksgatev1.GroupRecord, source Source, update bool) (*jetstream.ConsumerInfo, error) {
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	stream := g.stream(source)
	consumer, err := stream.Consumer(bounded, consumerName(record))
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		consumer, err = g.createDurable(bounded, record, source)
	case err == nil && update:
		config := consumer.CachedInfo().Config
		if config.AckWait == ackWait(record) && config.MaxAckPending == maxUnsettled {
			break
		}
		config.AckWait, config.MaxAckPending = ackWait(record), maxUnsettled
		consumer, err = stream.UpdateConsumer(bounded, config)
	}
	if err != nil {
		return nil, g.fail(ctx, fmt.Sprintf("open the place of group %s in the %v", record.GetGroup().GetName(), source), err)
	}
	return consumer.CachedInfo(), nil
}

// createDurable makes a consumer that lasts.
func (g *natsGroups) createDurable(ctx context.Context, record *linksgatev1.GroupRecord, source Source) (jetstream.Consumer, error) {
	return g.stream(source).CreateConsumer(ctx, g.consumerConfig(record, source))
}

// deleteConsumer deletes a consumer, if it is there.
func (g *natsGroups) deleteConsumer(ctx context.Context, stream jetstream.Stream, name string) error {
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := stream.DeleteConsumer(bounded, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return g.fail(ctx, "remove "+name, err)
	}
	return nil
}

// State returns the state of a group. Errors: ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
func (g *natsGroups) State(ctx context.Context, record *linksgatev1.GroupRecord) (GroupState, error) {
	name := record.GetGroup().GetName()
	if !validName(name) {
		return GroupState{}, fmt.Errorf("%w: %q", ErrNoGroup, name)
	}
	consumer, err := g.ensure(ctx, record, SourceLog)
	if err != nil {
		return GroupState{}, err
	}
	replays, err := g.ensure(ctx, record, SourceReplay)
	if err != nil {
		return GroupState{}, err
	}
	state := GroupState{
		Unsettled: uint64(consumer.NumAckPending), Undelivered: consumer.NumPending,
		UnsettledReplays: uint64(replays.NumAckPending), UndeliveredReplays: replays.NumPending,
		Pinned: pinOf(consumer) != "" || pinOf(replays) != "",
	}
	if state.Parked, err = g.count(ctx, g.parked, parkedSubject+name+".*"); err != nil {
		return GroupState{}, err
	}
	return state, g.place(ctx, &state, consumer.AckFloor.Stream+1, start(record))
}

// place fills in where the oldest batch is that is not settled.
func (g *natsGroups) place(ctx context.Context, state *GroupState, unsettled uint64, start Cursor) error {
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	info, err := g.log.Info(bounded) // after the consumers' state, so that it is not behind
	if err != nil {
		return g.fail(ctx, "read the state of the log", err)
	}
	state.Oldest = Cursor{Stream: unsettled}
	if state.Oldest.Before(start) {
		state.Oldest = start
	}
	if state.Oldest.Before(info.First) {
		state.Oldest = info.First
	}
	if state.Unsettled+state.Undelivered == 0 || !state.Oldest.Before(info.Next) {
		state.Oldest = info.Next
		return nil
	}
	state.Lag.Batches = info.Next.Stream - state.Oldest.Stream
	if b, place := g.log.tail.at(state.Oldest); place == placeWindow {
		state.OldestWritten = b.written
	} else if message, err := g.engine.stream.GetMsg(bounded, state.Oldest.Stream, jetstream.WithGetMsgSubject(allSubjects)); err == nil {
		state.OldestWritten = message.Time
	}
	if !state.OldestWritten.IsZero() {
		state.Lag.Time = max(info.HeadWritten.Sub(state.OldestWritten), 0)
	}
	return nil
}

// pinOf returns what names the client that a consumer serves at the moment; empty if it serves any.
func pinOf(info *jetstream.ConsumerInfo) string {
	if len(info.PriorityGroups) == 0 {
		return ""
	}
	return info.PriorityGroups[0].PinnedClientID
}

// count returns how many messages some subjects have. It does not list them: there may be very many.
func (g *natsGroups) count(ctx context.Context, stream jetstream.Stream, subjects string) (uint64, error) {
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	consumer, err := createConsumer(bounded, stream, jetstream.ConsumerConfig{FilterSubject: subjects, DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return 0, g.fail(ctx, "count "+subjects, err)
	}
	defer func() { _ = stream.DeleteConsumer(bounded, consumer.CachedInfo().Name) }()
	return consumer.CachedInfo().NumPending, nil
}

// read shows what is stored under some subjects from a sequence on, up to the last one that there was when it began, until yield
// returns false.
func (g *natsGroups) read(ctx context.Context, stream jetstream.Stream, subjects string, from uint64, yield func(storedMessage) bool) error {
	if err := g.log.usable(); err != nil {
		return err
	}
	if err := readStored(ctx, stream, subjects, from, yield); err != nil {
		return g.fail(ctx, "read "+subjects, err)
	}
	return nil
}
