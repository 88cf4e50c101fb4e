package eventlog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	quarantineStream  = "LINKSGATE_QUARANTINE"
	quarantineSubject = "linksgate.quarantine"

	// fetchMessages and fetchBytes bound what is read from a stream at once. The size must exceed that of the largest message, or it
	// would never be fetched.
	fetchMessages = 256
	fetchBytes    = 2 << 20
	// fetchWait is how long a fetch waits for messages that the stream is known to have.
	fetchWait = 2 * time.Second
	// consumerIdle is when the engine forgets a reader that does not come back.
	consumerIdle = time.Minute
)

// quarantineMessages is a quarantine that is a stream of NATS, one message for each entry.
type quarantineMessages struct {
	log       *Log
	engine    *engine
	stream    jetstream.Stream
	releasing chan struct{} // one for each release that writes to the log
}

// maxReleases is how many releases write to the log at the same time.
const maxReleases = 16

func (e *engine) openQuarantine(ctx context.Context, l *Log) (quarantineStore, error) {
	stream, err := openOrCreate(ctx, e.js, jetstream.StreamConfig{
		Name:        quarantineStream,
		Description: "Linksgate requests that were refused",
		Subjects:    []string{quarantineSubject},
		MaxAge:      l.options.QuarantineAge,
		MaxBytes:    l.options.QuarantineBytes,
		Replicas:    l.options.Replicas,
	})
	return &quarantineMessages{log: l, engine: e, stream: stream, releasing: make(chan struct{}, maxReleases)}, err
}

func (q *quarantineMessages) add(ctx context.Context, data []byte) error {
	if _, err := q.engine.publish(ctx, &nats.Msg{Subject: quarantineSubject, Data: data}); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

func (q *quarantineMessages) read(ctx context.Context, from uint64, yield func(number uint64, data []byte, err error) bool) error {
	return readStored(ctx, q.stream, "", from, func(message storedMessage) bool { return yield(message.sequence, message.data, nil) })
}

func (q *quarantineMessages) get(ctx context.Context, number uint64) ([]byte, error) {
	message, err := q.stream.GetMsg(ctx, number)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, errNoEntry
	}
	if err != nil {
		return nil, q.log.readError(ctx, err)
	}
	return message.Data, nil
}

func (q *quarantineMessages) remove(ctx context.Context, number uint64) error {
	err := q.stream.DeleteMsg(ctx, number)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful):
		return errNoEntry
	case err != nil:
		return q.log.readError(ctx, err)
	}
	return nil
}

// release stores what was released from an entry, unless that was done before: it has a subject of its own, named after the entry, and
// the engine stores the first message of a subject only if there is none yet. The mark is as old as the log's retention: an entry whose
// removal was lost, and whose notification has expired since, would be released once more.
func (q *quarantineMessages) release(ctx context.Context, number uint64, n *linksgatev1.Notification, data []byte) (Position, bool, error) {
	q.releasing <- struct{}{} // given back within publishTimeout
	defer func() { <-q.releasing }()
	batch, subject := appendFramed(nil, data), releaseSubject(number, n)
	ack, err := q.engine.publish(ctx, &nats.Msg{Subject: subject, Data: batch}, jetstream.WithExpectLastSequencePerSubject(0))
	switch {
	case err == nil:
		q.log.writer.stats.stored(1, len(batch))
		return Position{Stream: ack.Sequence}, false, nil
	case isWrongSequence(err):
		stored, err := q.engine.stream.GetLastMsgForSubject(ctx, subject)
		if err != nil {
			return Position{}, false, q.log.readError(ctx, err)
		}
		return Position{Stream: stored.Sequence}, true, nil
	}
	return Position{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func (q *quarantineMessages) info(ctx context.Context) (entries, bytes uint64, oldest time.Time, err error) {
	info, err := q.stream.Info(ctx)
	if err != nil {
		return 0, 0, time.Time{}, q.log.readError(ctx, err)
	}
	if info.State.Msgs > 0 {
		oldest = info.State.FirstTime
	}
	return info.State.Msgs, info.State.Bytes, oldest, nil
}

// releaseSubject is the subject of what is released from an entry. Body and arrival take part: the numbers of a quarantine that
// was lost are given out again.
func releaseSubject(sequence uint64, n *linksgatev1.Notification) string {
	sum := sha256.Sum256(fmt.Append(nil, n.GetContentDigest(), n.GetReceivedAt().AsTime().UnixNano()))
	return releasedSubject + strconv.FormatUint(sequence, 10) + "-" + hex.EncodeToString(sum[:8])
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

// createConsumer creates a consumer that leaves nothing behind.
func createConsumer(ctx context.Context, stream jetstream.Stream, config jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	config.AckPolicy = jetstream.AckNonePolicy
	config.InactiveThreshold = consumerIdle
	config.MemoryStorage = true
	config.Replicas = 1
	return stream.CreateConsumer(ctx, config)
}
