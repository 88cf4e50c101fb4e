package eventlog

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// progressInfix stands between a group's name and the rest of the subjects of its progress: incarnation, source and stream sequence.
const progressInfix = ".progress."

// progressPrefix is what the subjects of the progress of one incarnation of a group begin with.
func progressSubjects(record *linksgatev1.GroupRecord) string {
	return groupsSubject + record.GetGroup().GetName() + progressInfix + incarnation(record) + "."
}

// incarnationPrefix is the part of such a subject that is its incarnation's: all but source and stream sequence.
func incarnationPrefix(subject string) string {
	for range 2 {
		subject = subject[:max(strings.LastIndexByte(subject, '.'), 0)]
	}
	return subject + "."
}

func progressSubject(record *linksgatev1.GroupRecord, source Source, stream uint64) string {
	return progressSubjects(record) + source.String() + "." + strconv.FormatUint(stream, 10)
}

// Progress returns what is stored of a group's progress with a record batch and its revision, for PutProgress; nil and 0 if nothing
// is. Errors: ErrNoGroup if the name cannot be one, ErrDamaged, ErrUnavailable, ErrClosed.
func (g *natsGroups) Progress(ctx context.Context, record *linksgatev1.GroupRecord, source Source, stream uint64) (*linksgatev1.BatchProgress, uint64, error) {
	if !validName(record.GetGroup().GetName()) {
		return nil, 0, fmt.Errorf("read progress: %w", ErrNoGroup)
	}
	subject := progressSubject(record, source, stream)
	message, err := g.last(ctx, g.records, subject)
	if err != nil || message == nil {
		return nil, 0, err
	}
	progress := new(linksgatev1.BatchProgress)
	if err := proto.Unmarshal(message.Data, progress); err != nil {
		return nil, 0, fmt.Errorf("progress with record batch %d: %w: %w", stream, ErrDamaged, err)
	}
	return progress, message.Sequence, nil
}

// PutProgress replaces what is stored of a group's progress with a record batch, if that still has a revision; 0: if nothing is
// stored. It returns the new revision, only if that is durable. It is removed when the batch is settled.
//
// Errors: ErrGroupChanged, ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed. It does not look whether the group exists.
func (g *natsGroups) PutProgress(ctx context.Context, record *linksgatev1.GroupRecord, source Source, stream uint64,
	progress *linksgatev1.BatchProgress, revision uint64,
) (uint64, error) {
	if !validName(record.GetGroup().GetName()) {
		return 0, fmt.Errorf("store progress: %w", ErrNoGroup)
	}
	data, err := proto.Marshal(progress)
	if err != nil {
		return 0, fmt.Errorf("store progress: %w", err)
	}
	subject := progressSubject(record, source, stream)
	// Before it is stored: what may be stored must be removed.
	g.noteProgress(consumerName(record), subject)
	return g.publish(ctx, "store progress", &nats.Msg{Subject: subject, Data: data}, jetstream.WithExpectLastSequencePerSubject(revision))
}

// noteProgress remembers that progress may be stored.
func (g *natsGroups) noteProgress(consumer, subject string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stored[consumer] == nil {
		g.stored[consumer] = make(map[string]struct{})
	}
	g.stored[consumer][subject] = struct{}{}
}

// mayHaveProgress reports whether progress may be stored, as far as this gateway knows.
func (g *natsGroups) mayHaveProgress(consumer, subject string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, found := g.stored[consumer][subject]
	return found
}

// removeProgress removes the progress with a batch.
func (g *natsGroups) removeProgress(ctx context.Context, consumer, subject string) error {
	if err := g.purge(ctx, g.records, subject, 0); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.stored[consumer], subject)
	return nil
}

// forgetProgress forgets what may be stored for a consumer.
func (g *natsGroups) forgetProgress(consumer string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.stored, consumer)
}

// learnProgress finds out for which batches of a group there is progress, and removes that of batches which the group has left
// behind: crashes leave it.
func (g *natsGroups) learnProgress(ctx context.Context, record *linksgatev1.GroupRecord, floors [len(sources)]uint64) error {
	bounded, end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	prefix := progressSubjects(record)
	info, err := g.records.Info(bounded, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return g.fail(ctx, "look for progress", err)
	}
	for subject := range info.State.Subjects {
		kind, number, _ := strings.Cut(strings.TrimPrefix(subject, prefix), ".")
		stream, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			continue
		}
		for _, source := range sources {
			if source.String() != kind {
				continue
			}
			g.noteProgress(consumerName(record), subject)
			if stream <= floors[source] {
				if err := g.removeProgress(ctx, consumerName(record), subject); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
