package eventlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	// reclaimTime is enough for the engine to have ready what it was just given back.
	reclaimTime = 50 * time.Millisecond
	// pinRenewal is how often the engine is reminded at most.
	pinRenewal = time.Second
)

// consumersDir is where the engine keeps the consumers of a stream, below its directory, and consumerStateFile what it keeps of each.
const (
	consumersDir      = "obs"
	consumerStateFile = "o.dat"
)

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

// consumerName names both consumers of an incarnation of a group.
func consumerName(record *linksgatev1.GroupRecord) string {
	return consumerPrefix + record.GetGroup().GetName() + "-" + incarnation(record)
}

// stream returns the stream that a source is in.
func (g *Groups) stream(source Source) jetstream.Stream {
	if source == SourceReplay {
		return g.parked
	}
	return g.log.stream
}

// pinned reports whether a group's consumers serve one gateway at a time. Of an embedded log there is only one.
func (g *Groups) pinned(record *linksgatev1.GroupRecord) bool {
	return !g.log.engine.embedded() && ordered(record)
}

func ordered(record *linksgatev1.GroupRecord) bool {
	return record.GetGroup().GetOrdering() == linksgatev1.Ordering_ORDERING_BY_SIM
}

func ackWait(record *linksgatev1.GroupRecord) time.Duration {
	return record.GetGroup().GetLeaseDuration().AsDuration() + LeaseMargin
}

// start is where a group starts.
func start(record *linksgatev1.GroupRecord) Cursor {
	c := Cursor(PositionOf(record.GetStartSequence()))
	c.Stream = max(c.Stream, 1)
	return c
}

func (g *Groups) consumerConfig(record *linksgatev1.GroupRecord, source Source) jetstream.ConsumerConfig {
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
func (g *Groups) ensure(ctx context.Context, record *linksgatev1.GroupRecord, source Source) (*jetstream.ConsumerInfo, error) {
	return g.consumer(ctx, record, source, false)
}

// refresh is ensure for whoever has just read or stored the record: it also gives the consumer the lease duration in force, and the bound
// of this version.
func (g *Groups) refresh(ctx context.Context, record *linksgatev1.GroupRecord, source Source) (*jetstream.ConsumerInfo, error) {
	return g.consumer(ctx, record, source, true)
}

func (g *Groups) consumer(ctx context.Context, record *linksgatev1.GroupRecord, source Source, update bool) (*jetstream.ConsumerInfo, error) {
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

// createDurable makes a consumer that lasts. Of an embedded log, it returns nil only if the consumer's directory is durable.
func (g *Groups) createDurable(ctx context.Context, record *linksgatev1.GroupRecord, source Source) (jetstream.Consumer, error) {
	config := g.consumerConfig(record, source)
	g.log.engine.resume(g.stream(source).CachedInfo().Config.Name, &config)
	consumer, err := g.stream(source).CreateConsumer(ctx, config)
	if !g.log.engine.embedded() {
		return consumer, err
	}
	dir := filepath.Join(g.log.engine.dir, streamsDir, g.stream(source).CachedInfo().Config.Name, consumersDir, consumerName(record))
	if errors.Is(err, jetstream.ErrConsumerExists) { // somebody else was faster, with settings of another moment
		consumer, err = g.stream(source).Consumer(ctx, consumerName(record))
	}
	if _, statErr := os.Stat(filepath.Join(dir, consumerStateFile)); err != nil && ctx.Err() == nil && statErr == nil {
		// The engine does not get past what is left of a consumer that is damaged.
		g.log.options.Logger.Error("a group's place in the log is damaged and will be made anew: the group begins again at its start",
			"group", record.GetGroup().GetName(), "error", err)
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		consumer, err = g.stream(source).CreateConsumer(ctx, config)
	}
	if err != nil || g.log.options.NoSync {
		return consumer, err
	}
	return consumer, syncDirs(dir, filepath.Dir(g.log.engine.dir))
}

// deleteConsumer deletes a consumer, if it is there.
func (g *Groups) deleteConsumer(ctx context.Context, stream jetstream.Stream, name string) error {
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

// State returns the state of a group. Errors: ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed.
func (g *Groups) State(ctx context.Context, record *linksgatev1.GroupRecord) (GroupState, error) {
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
func (g *Groups) place(ctx context.Context, state *GroupState, unsettled uint64, start Cursor) error {
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
	} else if message, err := g.log.stream.GetMsg(bounded, state.Oldest.Stream, jetstream.WithGetMsgSubject(allSubjects)); err == nil {
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
func (g *Groups) count(ctx context.Context, stream jetstream.Stream, subjects string) (uint64, error) {
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
func (g *Groups) read(ctx context.Context, stream jetstream.Stream, subjects string, from uint64, yield func(storedMessage) bool) error {
	if err := g.log.usable(); err != nil {
		return err
	}
	if err := readStored(ctx, stream, subjects, from, yield); err != nil {
		return g.fail(ctx, "read "+subjects, err)
	}
	return nil
}

func sortRecords(records []*linksgatev1.GroupRecord) {
	slices.SortFunc(records, func(a, b *linksgatev1.GroupRecord) int {
		return strings.Compare(a.GetGroup().GetName(), b.GetGroup().GetName())
	})
}
