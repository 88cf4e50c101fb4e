package eventlog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	quarantineStream  = "LINKSGATE_QUARANTINE"
	quarantineSubject = "linksgate.quarantine"
	// quarantineMark stands before the number in an entry's id.
	quarantineMark = "-q"
)

// Quarantine keeps requests that were refused. It is a stream of its own beside the log, one message for each entry, bounded
// in size and age.
type Quarantine struct {
	log       *Log
	stream    jetstream.Stream
	releasing chan struct{} // one for each release that writes to the log
}

// maxReleases is how many releases write to the log at the same time; they share reserveMargin with the writer.
const maxReleases = 16

// Quarantine returns the log's quarantine.
func (l *Log) Quarantine() *Quarantine { return l.quarantine }

func openQuarantine(ctx context.Context, l *Log) (*Quarantine, error) {
	stream, err := openOrCreate(ctx, l.engine.js, jetstream.StreamConfig{
		Name:        quarantineStream,
		Description: "Linksgate requests that were refused",
		Subjects:    []string{quarantineSubject},
		MaxAge:      l.options.QuarantineAge,
		MaxBytes:    l.options.QuarantineBytes,
		Replicas:    l.options.Replicas,
	})
	return &Quarantine{log: l, stream: stream, releasing: make(chan struct{}, maxReleases)}, err
}

// Add returns nil only if the entry is durable, under the same policy as the log. Its id must not be set.
func (q *Quarantine) Add(ctx context.Context, entry *linksgatev1.QuarantineEntry) error {
	data, err := proto.Marshal(entry)
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if len(data) > MaxRecordBytes {
		return fmt.Errorf("quarantine: %w", ErrTooLarge)
	}
	if err := q.log.engine.checkSpace(); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if _, err := q.log.engine.publish(ctx, &nats.Msg{Subject: quarantineSubject, Data: data}); err != nil {
		return fmt.Errorf("quarantine: %w: %w", ErrUnavailable, err)
	}
	return nil
}

// id returns the id of the entry with a sequence.
func (q *Quarantine) id(sequence uint64) string {
	return q.log.id.String() + quarantineMark + strconv.FormatUint(sequence, 10)
}

// parseID returns the sequence that an entry's id names.
func (q *Quarantine) parseID(id string) (uint64, error) {
	log, number, found := strings.Cut(id, quarantineMark)
	of, err := parseLogID(log)
	sequence, numErr := strconv.ParseUint(number, 10, 64)
	if !found || err != nil || numErr != nil || sequence == 0 || strconv.FormatUint(sequence, 10) != number {
		return 0, fmt.Errorf("%w of a quarantine entry: %.100q", ErrBadID, id)
	}
	if of != q.log.id {
		return 0, fmt.Errorf("id %w: its log is %s, this one is %s", ErrOtherLog, of, q.log.id)
	}
	return sequence, nil
}

// Read yields the entries after the one with an id, or all if the id is empty, in the order of arrival, up to the last one
// there was when it began. One that is damaged has only its id, and says so. Errors: ErrBadID, ErrOtherLog, ErrUnavailable.
func (q *Quarantine) Read(ctx context.Context, after string) iter.Seq2[*linksgatev1.QuarantineEntry, error] {
	return func(yield func(*linksgatev1.QuarantineEntry, error) bool) {
		if err := q.read(ctx, after, func(e *linksgatev1.QuarantineEntry) bool { return yield(e, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

func (q *Quarantine) read(ctx context.Context, after string, yield func(*linksgatev1.QuarantineEntry) bool) error {
	start := uint64(1)
	if after != "" {
		sequence, err := q.parseID(after)
		if err != nil {
			return err
		}
		start = sequence + 1
	}
	err := readStored(ctx, q.stream, "", start, func(message storedMessage) bool {
		entry, err := q.unmarshal(message.sequence, message.data)
		if err != nil { // the others can be read
			entry = &linksgatev1.QuarantineEntry{Id: q.id(message.sequence), Detail: err.Error()}
		}
		return yield(entry)
	})
	if err != nil {
		return q.log.readError(ctx, fmt.Errorf("read the quarantine: %w", err))
	}
	return nil
}

// storedMessage is a message of a stream.
type storedMessage struct {
	sequence uint64
	time     time.Time
	subject  string
	header   nats.Header
	data     []byte
}

// readStored shows the messages of a stream, or of some of its subjects, from a sequence on, up to the last one that there was when
// it began, until yield returns false.
func readStored(ctx context.Context, stream jetstream.Stream, subjects string, from uint64, yield func(storedMessage) bool) error {
	consumer, err := createConsumer(ctx, stream, jetstream.ConsumerConfig{
		FilterSubject: subjects, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
	})
	if err != nil {
		return err
	}
	defer func() { _ = stream.DeleteConsumer(context.WithoutCancel(ctx), consumer.CachedInfo().Name) }()
	for left := consumer.CachedInfo().NumPending; left > 0; {
		fetched, err := consumer.Fetch(int(min(left, fetchMessages)), jetstream.FetchMaxBytes(fetchBytes), jetstream.FetchMaxWait(fetchWait))
		if err != nil {
			return err
		}
		got := uint64(0)
		for message := range fetched.Messages() {
			got++
			meta, err := message.Metadata()
			if err != nil {
				return err
			}
			if !yield(storedMessage{meta.Sequence.Stream, meta.Timestamp, message.Subject(), message.Headers(), message.Data()}) {
				return nil
			}
		}
		if got == 0 {
			return checkRead(ctx, consumer, fetched.Error())
		}
		left -= min(got, left)
	}
	return nil
}

// checkRead returns nil only if nothing is left to read: removed by somebody else in the meantime. An engine that is slow to answer
// looks the same to a fetch, and a list that ends there would be a part that is taken for the whole.
func checkRead(ctx context.Context, consumer jetstream.Consumer, err error) error {
	if err != nil {
		return err
	}
	info, err := consumer.Info(ctx)
	if err == nil && info.NumPending > 0 {
		err = fmt.Errorf("%w: the engine did not deliver what it has", ErrUnavailable)
	}
	return err
}

func (q *Quarantine) unmarshal(sequence uint64, data []byte) (*linksgatev1.QuarantineEntry, error) {
	entry := new(linksgatev1.QuarantineEntry)
	if err := proto.Unmarshal(data, entry); err != nil {
		return nil, fmt.Errorf("quarantine entry %d: %w: %w", sequence, ErrDamaged, err)
	}
	entry.Id = q.id(sequence)
	return entry, nil
}

// Get returns an entry. Errors: ErrBadID, ErrOtherLog, ErrNotFound, ErrDamaged, ErrUnavailable.
func (q *Quarantine) Get(ctx context.Context, id string) (*linksgatev1.QuarantineEntry, error) {
	sequence, err := q.parseID(id)
	if err != nil {
		return nil, err
	}
	message, err := q.stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, errNoEntry
	}
	if err != nil {
		return nil, q.log.readError(ctx, err)
	}
	return q.unmarshal(sequence, message.Data)
}

var errNoEntry = fmt.Errorf("quarantine entry %w: it was released or purged, or its time was over", ErrNotFound)

// Remove deletes an entry. Errors: as for Get.
func (q *Quarantine) Remove(ctx context.Context, id string) error {
	sequence, err := q.parseID(id)
	if err != nil {
		return err
	}
	err = q.stream.DeleteMsg(ctx, sequence)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful):
		return errNoEntry
	case err != nil:
		return q.log.readError(ctx, err)
	}
	return nil
}

// Released says what became of a release.
type Released struct {
	// Position of the notification in the log.
	Position Position
	// Before is set if an earlier release had stored it already.
	Before bool
	// Copy is set if the log holds a copy that was accepted in the meantime.
	Copy bool
}

// Release appends the notification of an entry to the log and removes the entry. It returns nil only if the notification
// is durable. However often it is called for one entry, at once or after a crash, the log holds the notification once:
// what is released has a subject of its own, named after the entry, and the engine stores the first message of a subject
// only if there is none yet. A crash before the entry is removed leaves it to be released again, with Before.
//
// The mark is as old as the log's retention: an entry whose removal was lost, and whose notification has expired since, would
// be released once more.
func (q *Quarantine) Release(ctx context.Context, id string, n *linksgatev1.Notification) (Released, error) {
	sequence, err := q.parseID(id)
	if err != nil {
		return Released{}, err
	}
	data, err := marshal(n)
	if err != nil {
		return Released{}, err
	}
	// The caller's end does not end the writing, of whose outcome the log's readers must hear. It is bounded by itself.
	ctx = context.WithoutCancel(ctx)
	var released Released
	write := func() (position Position, err error) {
		position, released.Before, err = q.append(ctx, releaseSubject(sequence, n), appendFramed(nil, data))
		return position, err
	}
	if key, ok := q.log.duplicates.keyOf([]byte(n.GetAccount()), n.GetKind(), n.GetDuplicateKey()); ok {
		released.Position, released.Copy, err = q.log.duplicates.once(ctx, key, write)
	} else {
		released.Position, err = write()
	}
	if err != nil {
		return Released{}, fmt.Errorf("release: %w", err)
	}
	if released.Copy && q.released(ctx, id, released.Position) {
		released.Before, released.Copy = true, false
	}
	if err := q.Remove(ctx, id); err != nil && !errors.Is(err, ErrNotFound) {
		return released, fmt.Errorf("remove %s after its release: %w", id, err)
	}
	return released, nil
}

// releaseSubject is the subject of what is released from an entry. Body and arrival take part: the numbers of a quarantine that
// was lost are given out again.
func releaseSubject(sequence uint64, n *linksgatev1.Notification) string {
	sum := sha256.Sum256(fmt.Append(nil, n.GetContentDigest(), n.GetReceivedAt().AsTime().UnixNano()))
	return releasedSubject + strconv.FormatUint(sequence, 10) + "-" + hex.EncodeToString(sum[:8])
}

// append stores what was released from an entry, unless that was done before.
func (q *Quarantine) append(ctx context.Context, subject string, batch []byte) (position Position, before bool, err error) {
	if err := q.log.engine.checkSpace(); err != nil {
		return Position{}, false, err
	}
	q.releasing <- struct{}{} // given back within publishTimeout
	defer func() { <-q.releasing }()
	written := time.Now()
	if err := q.log.marker.reserve(q.log.tail.stored.Load()); err != nil {
		return Position{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	ack, err := q.log.engine.publish(ctx, &nats.Msg{Subject: subject, Data: batch}, jetstream.WithExpectLastSequencePerSubject(0))
	switch {
	case err == nil:
		q.log.writer.stats.stored(1, len(batch))
		q.log.tail.offer(offer{ack.Sequence, written, batch})
		return Position{Stream: ack.Sequence}, false, nil
	case isWrongSequence(err):
		stored, err := q.log.stream.GetLastMsgForSubject(ctx, subject)
		if err != nil {
			return Position{}, false, q.log.readError(ctx, err)
		}
		return Position{Stream: stored.Sequence}, true, nil
	}
	return Position{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// released reports whether the notification at a position came from an entry.
func (q *Quarantine) released(ctx context.Context, id string, p Position) bool {
	record, err := q.log.Get(ctx, p)
	if err != nil {
		return false
	}
	n, err := record.Notification()
	return err == nil && n.GetQuarantineId() == id
}

// QuarantineInfo describes the quarantine at one moment.
type QuarantineInfo struct {
	Entries, Bytes uint64
	MaxBytes       int64
	MaxAge         time.Duration
	Oldest         time.Time // zero if there is none
}

// Info describes the quarantine.
func (q *Quarantine) Info(ctx context.Context) (QuarantineInfo, error) {
	info, err := q.stream.Info(ctx)
	if err != nil {
		return QuarantineInfo{}, q.log.readError(ctx, err)
	}
	described := QuarantineInfo{
		Entries: info.State.Msgs, Bytes: info.State.Bytes,
		MaxBytes: q.log.options.QuarantineBytes, MaxAge: q.log.options.QuarantineAge,
	}
	if described.Entries > 0 {
		described.Oldest = info.State.FirstTime
	}
	return described, nil
}
