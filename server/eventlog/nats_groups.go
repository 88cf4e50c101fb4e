package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	groupsStream  = "LINKSGATE_GROUPS"
	groupsSubject = "linksgate.groups."
	recordSuffix  = ".record"
	// changedSubject, with the name of a group, is where the engine tells of a record that was stored.
	changedSubject = "linksgate.changed."
	// groupsBytes bounds the stream. What does not fit is refused: nothing in it may go by itself.
	groupsBytes = 256 << 20
)

// The subjects of the streams.
var (
	groupsSubjects = []string{groupsSubject + "*" + recordSuffix, groupsSubject + "*" + progressInfix + ">"}
	parkedSubjects = []string{parkedSubject + "*.*", replaySubject + "*.*"}
)

// natsGroups keeps what must outlive a gateway of the groups that share the log. Its methods may be called concurrently.
//
// A group is one record in a stream of its own, [Groups.Get], and that is the truth about it. Its place in the log is a durable
// consumer of the engine, named after the group and its incarnation, so that one incarnation's place is never another's. The consumer
// hands out record batches to whichever gateway asks, one gateway each, and again when it was not told for a while that the batch is
// in hand: see [GroupReader]. How far the gateways have come inside a batch is stored beside the record, [Groups.PutProgress].
//
// What a group has set aside is in a third stream, under two kinds of subjects: parked, until somebody decides; and to be replayed,
// which the group gets through a second consumer.
//
// A crash between two steps leaves consumers that are missing, and are made when the group is attached; or some that no group
// has any more, and go when a log is opened.
type natsGroups struct {
	log     *Log
	engine  *engine
	records jetstream.Stream
	parked  jetstream.Stream
	replica uint64

	mu     sync.Mutex
	stored map[string]map[string]struct{} // mu; by name of the log's consumer: subjects of progress that may be stored
}

// openGroups implements [backend].
func (e *engine) openGroups(ctx context.Context, l *Log) (Groups, error) {
	g := &natsGroups{log: l, engine: e, replica: newReplica(), stored: make(map[string]map[string]struct{})}
	var err error
	if g.records, err = openOrCreate(ctx, e.js, jetstream.StreamConfig{
		Name:              groupsStream,
		Description:       "Linksgate groups and their progress",
		Subjects:          groupsSubjects,
		MaxBytes:          groupsBytes,
		MaxMsgsPerSubject: 1,
		Discard:           jetstream.DiscardNew,
		Replicas:          l.options.Replicas,
		RePublish: &jetstream.RePublish{
			Source: groupsSubject + "*" + recordSuffix, Destination: changedSubject + "{{wildcard(1)}}", HeadersOnly: true,
		},
	}); err != nil {
		return nil, err
	}
	if g.parked, err = openOrCreate(ctx, e.js, jetstream.StreamConfig{
		Name:              parkedStream,
		Description:       "Linksgate notifications that groups have parked",
		Subjects:          parkedSubjects,
		MaxAge:            l.options.ParkedAge,
		MaxBytes:          l.options.ParkedBytes,
		MaxMsgsPerSubject: 1,
		Replicas:          l.options.Replicas,
	}); err != nil {
		return nil, err
	}
	if err := g.tidy(ctx); err != nil {
		l.options.Logger.Warn("what deleted groups have left could not be removed", "error", err)
	}
	return g, nil
}

func recordSubject(name string) string { return groupsSubject + name + recordSuffix }

// begin bounds a call to the engine, unless there is no use in it. The context that it returns is for the engine alone: why a call
// failed is found out with fail and the caller's own.
func (g *natsGroups) begin(ctx context.Context) (context.Context, func(), error) {
	if err := g.log.usable(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	return ctx, cancel, nil
}

// fail gives an error of the engine the meaning it has for a caller with a context.
func (g *natsGroups) fail(ctx context.Context, what string, err error) error {
	if frozen := g.log.frozen.get(); frozen != nil {
		return fmt.Errorf("%s: %w", what, frozen)
	}
	return fmt.Errorf("%s: %w", what, g.log.readError(ctx, err))
}

// publish stores a message durably, within a bounded time, unless the disk is nearly full. Where an option names the sequence that the
// last message of its subject must have, and it has another one, the error is ErrGroupChanged.
func (g *natsGroups) publish(ctx context.Context, what string, message *nats.Msg, options ...jetstream.PublishOpt) (uint64, error) {
	if err := g.log.usable(); err != nil {
		return 0, err
	}
	return g.store(ctx, what, message, options...)
}

// store is publish, however full the disk is.
func (g *natsGroups) store(ctx context.Context, what string, message *nats.Msg, options ...jetstream.PublishOpt) (uint64, error) {
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	ack, err := g.engine.publish(bounded, message, options...)
	switch {
	case isWrongSequence(err):
		return 0, fmt.Errorf("%s: %w", what, ErrGroupChanged)
	case err != nil:
		return 0, g.fail(ctx, what, err)
	}
	return ack.Sequence, nil
}

// isWrongSequence reports whether a message was refused because another one was stored before.
func isWrongSequence(err error) bool {
	var apiErr *jetstream.APIError
	return errors.As(err, &apiErr) && (apiErr.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		apiErr.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// last returns the message of a subject; nil if there is none.
func (g *natsGroups) last(ctx context.Context, stream jetstream.Stream, subject string) (*jetstream.RawStreamMsg, error) {
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	message, err := stream.GetLastMsgForSubject(bounded, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, g.fail(ctx, "read "+subject, err)
	}
	return message, nil
}

// remove deletes one message, if it is there.
func (g *natsGroups) remove(ctx context.Context, stream jetstream.Stream, sequence uint64) error {
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	err = stream.DeleteMsg(bounded, sequence)
	if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		return nil
	}
	return g.fail(ctx, "remove", err)
}

// purge deletes the messages of subjects that were stored before a sequence; 0: all.
func (g *natsGroups) purge(ctx context.Context, stream jetstream.Stream, subjects string, before uint64) error {
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	options := []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject(subjects)}
	if before > 0 {
		options = append(options, jetstream.WithPurgeSequence(before))
	}
	if err := stream.Purge(bounded, options...); err != nil {
		return g.fail(ctx, "purge", err)
	}
	return nil
}

// storedGroup is what is stored under the name of a group.
type storedGroup struct {
	record   *linksgatev1.GroupRecord // nil if the group was deleted
	revision uint64                   // 0 if nothing is stored
}

func (g *natsGroups) get(ctx context.Context, name string) (storedGroup, error) {
	message, err := g.last(ctx, g.records, recordSubject(name))
	switch {
	case err != nil:
		return storedGroup{}, err
	case message == nil:
		return storedGroup{}, nil
	case len(message.Data) == 0:
		return storedGroup{revision: message.Sequence}, nil
	}
	record, err := parseRecord(name, message.Data)
	return storedGroup{record, message.Sequence}, err
}

// put stores a record if the last one stored under its name has a sequence; 0: if there is none.
func (g *natsGroups) put(ctx context.Context, name string, record *linksgatev1.GroupRecord, revision uint64) (uint64, error) {
	var data []byte // empty: deleted
	if record != nil {
		var err error
		if data, err = proto.Marshal(record); err != nil {
			return 0, fmt.Errorf("store group %s: %w", name, err)
		}
	}
	return g.publish(ctx, "store group "+name, &nats.Msg{Subject: recordSubject(name), Data: data},
		jetstream.WithExpectLastSequencePerSubject(revision))
}

// Create returns nil only if the group is durable. Its consumers are made then, or when it is first attached. Errors: ErrNoGroup if
// the name cannot be one, ErrGroupExists, ErrTooManyGroups (gateways that create groups at the same moment may pass MaxGroups a
// little), ErrGroupChanged if others create and delete it all the while, ErrUnavailable, ErrClosed. After ErrUnavailable the group may or
// may not exist.
func (g *natsGroups) Create(ctx context.Context, record *linksgatev1.GroupRecord) error {
	name := record.GetGroup().GetName()
	if !validName(name) {
		return fmt.Errorf("create group %q: %w", name, ErrNoGroup)
	}
	for tries := publishTries; ; tries-- {
		stored, err := g.get(ctx, name)
		switch {
		case err != nil && !errors.Is(err, ErrDamaged): // what cannot be read is replaced
			return err
		case stored.record != nil:
			return fmt.Errorf("%w: %s", ErrGroupExists, name)
		}
		count, err := g.count(ctx, g.records, recordSubject("*"))
		switch {
		case err != nil:
			return err
		case count >= MaxGroups:
			return fmt.Errorf("%w: there are %d", ErrTooManyGroups, count)
		}
		_, err = g.put(ctx, name, record, stored.revision)
		if err == nil {
			break
		}
		// Somebody was faster, or what was left of a deleted group has just gone.
		if !errors.Is(err, ErrGroupChanged) || tries == 1 {
			return err
		}
	}
	g.prepare(ctx, record)
	return nil
}

// prepare makes a group's consumers ahead of their use, if that can be done now.
func (g *natsGroups) prepare(ctx context.Context, record *linksgatev1.GroupRecord) {
	for _, source := range sources {
		if _, err := g.refresh(ctx, record, source); err != nil {
			g.log.options.Logger.Warn("a group's consumer will be made later", "group", record.GetGroup().GetName(), "error", err)
		}
	}
}

// Get returns a group and its revision, for Put. Errors: ErrNoGroup, ErrDamaged, ErrUnavailable, ErrClosed.
func (g *natsGroups) Get(ctx context.Context, name string) (*linksgatev1.GroupRecord, uint64, error) {
	if !validName(name) {
		return nil, 0, fmt.Errorf("%w: %q", ErrNoGroup, name)
	}
	stored, err := g.get(ctx, name)
	switch {
	case err != nil:
		return nil, stored.revision, err
	case stored.record == nil:
		return nil, 0, fmt.Errorf("%w: %s", ErrNoGroup, name)
	}
	return stored.record, stored.revision, nil
}

// List returns all groups, by name. One whose record is damaged is left out, and logged. Errors: ErrUnavailable, ErrClosed.
func (g *natsGroups) List(ctx context.Context) ([]*linksgatev1.GroupRecord, error) {
	records, _, err := g.list(ctx)
	return records, err
}

// list returns all groups by name, and the names and revisions of those that were deleted and may have left something.
func (g *natsGroups) list(ctx context.Context) (records []*linksgatev1.GroupRecord, deleted map[string]uint64, err error) {
	deleted = make(map[string]uint64)
	err = g.read(ctx, g.records, recordSubject("*"), 1, func(message storedMessage) bool {
		name := strings.TrimSuffix(strings.TrimPrefix(message.subject, groupsSubject), recordSuffix)
		if len(message.data) == 0 {
			deleted[name] = message.sequence
			return true
		}
		record, err := parseRecord(name, message.data)
		if err != nil {
			g.log.options.Logger.Error("the record of a group cannot be read", "group", name, "error", err)
			return true
		}
		records = append(records, record)
		return true
	})
	sortRecords(records)
	return records, deleted, err
}

// Put replaces the record of a group that still has a revision, and returns nil only if that is durable. Where the lease duration
// differs, the group's consumers follow. Where the incarnation differs, the group was moved: the consumers and the progress
// of the old one are removed, and claims of it are worth nothing any more. Errors: ErrGroupChanged, ErrNoGroup, ErrUnavailable, ErrClosed.
func (g *natsGroups) Put(ctx context.Context, record *linksgatev1.GroupRecord, revision uint64) error {
	name := record.GetGroup().GetName()
	old, current, err := g.Get(ctx, name)
	switch {
	case err != nil:
		return err
	case current != revision:
		return fmt.Errorf("store group %s: %w", name, ErrGroupChanged)
	}
	if _, err := g.put(ctx, name, record, revision); err != nil {
		return err
	}
	// A crash from here on leaves the old incarnation's consumers and progress, which nobody asks for.
	if incarnation(old) != incarnation(record) {
		if err := g.removeIncarnation(ctx, old); err != nil {
			g.log.options.Logger.Warn("a group's former place in the log could not be removed", "group", name, "error", err)
		}
	}
	g.prepare(ctx, record)
	return nil
}

// removeIncarnation removes what belongs to one incarnation of a group.
func (g *natsGroups) removeIncarnation(ctx context.Context, record *linksgatev1.GroupRecord) error {
	name := consumerName(record)
	g.forgetProgress(name)
	return errors.Join(
		g.deleteConsumer(ctx, g.engine.stream, name), g.deleteConsumer(ctx, g.parked, name),
		g.purge(ctx, g.records, progressSubjects(record)+">", 0))
}

// Delete deletes a group and what it has parked. It returns nil only if the group is gone for good; what cannot be removed of the
// rest then goes when a log is opened. Errors: ErrNoGroup, ErrGroupChanged, ErrUnavailable, ErrClosed.
func (g *natsGroups) Delete(ctx context.Context, name string) error {
	record, revision, err := g.Get(ctx, name)
	if err != nil && !errors.Is(err, ErrDamaged) { // of what cannot be read the rest goes when a log is opened
		return err
	}
	// An empty record is durable, and told to those who watch, where the removal of a message is neither. A crash from here on
	// leaves it, and it says what is to be removed still.
	revision, err = g.put(ctx, name, nil, revision)
	if err != nil {
		return err
	}
	if record != nil {
		err = g.removeIncarnation(ctx, record)
	}
	if err := errors.Join(err, g.removeRest(ctx, name, revision)); err != nil {
		g.log.options.Logger.Warn("not all that a deleted group had could be removed", "group", name, "error", err)
	}
	return nil
}

// removeRest removes what a deleted group has left, and at last the empty record with a revision that says so. What a new group of
// the name stores is younger than that.
func (g *natsGroups) removeRest(ctx context.Context, name string, revision uint64) error {
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	info, err := g.parked.Info(bounded)
	end()
	if err != nil {
		return g.fail(ctx, "remove what group "+name+" has parked", err)
	}
	if err := errors.Join(
		g.purge(ctx, g.records, groupsSubject+name+progressInfix+">", revision),
		g.purge(ctx, g.parked, parkedSubject+name+".*", info.State.LastSeq+1),
		g.purge(ctx, g.parked, replaySubject+name+".*", info.State.LastSeq+1),
	); err != nil {
		return err
	}
	return g.remove(ctx, g.records, revision)
}

// tidy removes what crashes have left of groups that are gone.
func (g *natsGroups) tidy(ctx context.Context) error {
	// In this order: a group is stored before it has a consumer or progress.
	info, err := g.records.Info(ctx, jetstream.WithSubjectFilter(groupsSubject+"*"+progressInfix+">"))
	if err != nil {
		return err
	}
	names := make(map[jetstream.Stream][]string)
	for _, stream := range []jetstream.Stream{g.engine.stream, g.parked} {
		lister := stream.ConsumerNames(ctx)
		for name := range lister.Name() {
			if strings.HasPrefix(name, consumerPrefix) {
				names[stream] = append(names[stream], name)
			}
		}
		if err := lister.Err(); err != nil {
			return err
		}
	}
	records, deleted, err := g.list(ctx)
	if err != nil {
		return err
	}
	known, progress := make(map[string]bool), make(map[string]bool)
	for _, record := range records {
		known[consumerName(record)] = true
		progress[progressSubjects(record)] = true
	}
	var errs []error
	for name, revision := range deleted {
		errs = append(errs, g.removeRest(ctx, name, revision))
	}
	for subject := range info.State.Subjects {
		if prefix := incarnationPrefix(subject); !progress[prefix] {
			progress[prefix] = true // once
			errs = append(errs, g.purge(ctx, g.records, prefix+">", 0))
		}
	}
	for stream, all := range names {
		for _, name := range all {
			if !known[name] {
				errs = append(errs, g.deleteConsumer(ctx, stream, name))
			}
		}
	}
	return errors.Join(errs...)
}
