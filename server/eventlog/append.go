package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	// publishTimeout is how long one try to store a record batch may take, and publishTries how many there are.
	publishTimeout = 5 * time.Second
	publishTries   = 2
	// errMemory is how long a failed write counts against the log when no other write has been tried since.
	errMemory = 15 * time.Second
)

// Append returns nil only if the notification, or a copy of it by its duplicate key, is durable under the policy in force,
// and then returns where. It MUST NOT be answered to anyone as accepted before that.
//
// id, token and sequence must not be set. If ctx ends first, or on ErrUnavailable, the notification may or may not have been
// stored; on ErrTooLarge, ErrNoSpace and ErrClosed it was not.
func (l *Log) Append(ctx context.Context, n *linksgatev1.Notification) (Position, error) {
	data, err := marshal(n)
	if err != nil {
		return Position{}, err
	}
	write := func() (Position, error) { return l.writer.append(ctx, data) }
	var position Position
	if key, ok := l.duplicates.keyOf([]byte(n.GetAccount()), n.GetKind(), n.GetDuplicateKey()); ok {
		var copied bool
		if position, copied, err = l.duplicates.once(ctx, key, write); copied {
			l.writer.stats.Duplicates.Add(1)
		}
	} else {
		position, err = write()
	}
	if err != nil {
		return Position{}, fmt.Errorf("append: %w", err)
	}
	return position, nil
}

// marshal marshals a notification if it fits into a record.
func marshal(n *linksgatev1.Notification) ([]byte, error) {
	data, err := proto.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	if len(data) > MaxRecordBytes {
		return nil, fmt.Errorf("append: %w: %d bytes, at most %d", ErrTooLarge, len(data), MaxRecordBytes)
	}
	return data, nil
}

// writer is the one writer of a log.
type writer struct {
	log   *Log
	queue chan *waitingAppend

	closeOnce sync.Once
	closing   chan struct{} // closed by close: no append may start
	done      chan struct{} // closed when run has ended: no append will be answered

	failure atomic.Pointer[failure] // the last write's, nil if it succeeded
	stats   Stats                   // updated atomically
}

// Stats count since the log was opened.
type Stats struct {
	// Notifications, Batches and Bytes made durable.
	Notifications, Batches, Bytes atomic.Uint64
	// Duplicates are the appends that found a copy.
	Duplicates atomic.Uint64
	// Failures are the batches that could not be written.
	Failures atomic.Uint64
}

func (s *Stats) stored(notifications, bytes int) {
	s.Batches.Add(1)
	s.Notifications.Add(uint64(notifications))
	s.Bytes.Add(uint64(bytes))
}

type failure struct {
	err  error
	when time.Time
}

// waitingAppend is a notification that waits to be written.
type waitingAppend struct {
	data   []byte
	result chan appendResult // buffered
}

type appendResult struct {
	position Position
	err      error
}

func newWriter(l *Log) *writer {
	return &writer{
		log:     l,
		queue:   make(chan *waitingAppend, 2*MaxBatchRecords),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
}

func (w *writer) append(ctx context.Context, data []byte) (Position, error) {
	if err := w.log.frozen.get(); err != nil {
		return Position{}, err
	}
	waiting := &waitingAppend{data: data, result: make(chan appendResult, 1)}
	select {
	case <-w.closing:
		return Position{}, ErrClosed
	default:
	}
	select {
	case w.queue <- waiting:
	case <-w.closing:
		return Position{}, ErrClosed
	case <-ctx.Done():
		return Position{}, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
	}
	select {
	case result := <-waiting.result:
		return result.position, result.err
	case <-ctx.Done():
		return Position{}, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
	case <-w.done:
	}
	select {
	case result := <-waiting.result:
		return result.position, result.err
	default:
		return Position{}, ErrClosed // queued after the writer had looked for the last time
	}
}

// close stops the intake. run ends when what is queued has been written.
func (w *writer) close() { w.closeOnce.Do(func() { close(w.closing) }) }

// run writes batches until the writer is closed and its queue is empty.
func (w *writer) run() {
	defer close(w.done)
	var next *waitingAppend // did not fit into the previous batch
	for {
		if next == nil {
			select {
			case next = <-w.queue:
			case <-w.closing:
				select {
				case next = <-w.queue:
				default:
					return
				}
			}
		}
		var batch []*waitingAppend
		batch, next = w.gather(next)
		w.write(batch)
	}
}

// gather takes what is waiting now, up to the limits of a batch. It returns the one that no longer fitted, if any.
func (w *writer) gather(first *waitingAppend) (batch []*waitingAppend, next *waitingAppend) {
	batch = append(batch, first)
	size := len(first.data)
	for len(batch) < MaxBatchRecords {
		select {
		case waiting := <-w.queue:
			if size += len(waiting.data); size > maxBatchBytes {
				return batch, waiting
			}
			batch = append(batch, waiting)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// write stores one record batch and answers those who wait for it. A crash before the acknowledgement leaves the batch
// stored whole or not at all, and nobody was told anything; a crash after it leaves it stored.
func (w *writer) write(waiting []*waitingAppend) {
	size := 0
	for _, one := range waiting {
		size += len(one.data) + 8
	}
	data := make([]byte, 0, size)
	for _, one := range waiting {
		data = appendFramed(data, one.data)
	}
	// Before what the engine notes as the time of writing, so that reading from this time on includes the batch.
	written := time.Now()
	stream, err := w.publish(data)
	if err != nil {
		w.stats.Failures.Add(1)
		w.failure.Store(&failure{err, time.Now()})
	} else {
		w.log.tail.offer(offer{stream, written, data})
		w.stats.stored(len(waiting), len(data))
		if w.failure.Load() != nil {
			w.failure.Store(nil)
		}
	}
	for i, one := range waiting {
		one.result <- appendResult{Position{Stream: stream, Index: i}, err}
	}
}

// publish stores a batch and returns its stream sequence. The batch's id makes a second try safe: the engine stores one id
// once within duplicateWindow.
func (w *writer) publish(data []byte) (uint64, error) {
	if err := w.log.frozen.get(); err != nil {
		return 0, err
	}
	if err := w.log.engine.checkSpace(); err != nil {
		return 0, err
	}
	if err := w.log.marker.reserve(w.log.tail.stored.Load()); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	msg := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{jetstream.MsgIDHeader: {nuid.Next()}}}
	var err error
	for range publishTries {
		var ack *jetstream.PubAck
		ack, err = w.log.engine.publish(context.Background(), msg)
		if err == nil {
			return ack.Sequence, nil
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	// An embedded engine that meets an error stops: its stream refuses all writes from then on, with an error or with silence. An
	// external one may come back.
	if w.log.engine.embedded() {
		err = fmt.Errorf("%w: %w: %w", ErrFrozen, ErrUnavailable, err)
		w.log.frozen.set(err)
		return 0, err
	}
	return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// lastErr returns why the last write failed, unless that is too long ago to say anything.
func (w *writer) lastErr() error {
	if f := w.failure.Load(); f != nil && time.Since(f.when) < errMemory {
		return f.err
	}
	return nil
}

// Stats returns the counters of the log's writer.
func (l *Log) Stats() *Stats { return &l.writer.stats }
