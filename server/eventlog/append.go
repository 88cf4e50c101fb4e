package eventlog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/store"
)

const (
	// errMemory is how long a failed write counts against the log when no other write has been tried since.
	errMemory = 15 * time.Second
)

// Append returns nil only if the notification, or a copy of it by its duplicate key, is durable under the policy in force,
// and then returns where: the zero Position if it has no place in the log
// yet, because it is spooled on the way to a shared one. It MUST NOT be answered to anyone as accepted before that.
//
// id, token and sequence must not be set. If ctx ends first, or on ErrUnavailable, the notification may or may not have been
// stored; on ErrTooLarge, ErrNoSpace and ErrClosed it was not.
func (l *Log) Append(ctx context.Context, n *linksgatev1.Notification) (Position, error) {
	data, err := marshal(n)
	if err != nil {
		return Position{}, err
	}
	var position Position
	copied := false
	if key, ok := l.keyOf(n); ok {
		elsewhere := false
		position, copied, err = l.once(ctx, key, func() (position Position, err error) {
			position, elsewhere, err = l.appendOnce(ctx, key[:], data)
			return position, err
		})
		copied = copied || elsewhere
	} else {
		position, err = l.writer.append(ctx, data)
	}
	if copied {
		l.writer.stats.Duplicates.Add(1)
	}
	if err != nil {
		return Position{}, fmt.Errorf("append: %w", err)
	}
	return position, nil
}

// appendOnce appends a marshalled notification, unless another gateway has appended one with this key a short time ago.
func (l *Log) appendOnce(ctx context.Context, key, data []byte) (_ Position, copied bool, err error) {
	keyed, ok := l.store.(store.Keyed)
	if !ok {
		position, err := l.writer.append(ctx, data)
		return position, false, err
	}
	if err := l.usable(); err != nil {
		return Position{}, false, err
	}
	batch := appendFramed(nil, data)
	entry, copied, err := keyed.AppendKeyed(ctx, key, batch)
	if err != nil {
		l.writer.failed(l.storeError(err))
		return Position{}, false, l.storeError(err)
	}
	if !copied {
		l.writer.succeeded(entry, batch, 1)
	}
	return Position{Stream: entry.Sequence}, copied, nil
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

// writer writes what is handed to Append.
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

// sharedBatches is how many batches are under way at once to a log elsewhere, so that distance costs no throughput.
const sharedBatches = 8

// run writes batches until the writer is closed and its queue is empty: one at a time, or some to a log elsewhere.
func (w *writer) run() {
	var writing sync.WaitGroup
	defer close(w.done)
	defer writing.Wait()
	room := make(chan struct{}, sharedBatches)
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
		if !w.log.shared() {
			batch, next = w.gather(next)
			w.write(batch)
			continue
		}
		room <- struct{}{}
		batch, next = w.gather(next)
		writing.Go(func() {
			defer func() { <-room }()
			w.write(batch)
		})
	}
}

// gather takes what is waiting now, up to the limits of a batch. It returns the one that no longer fitted, if any. Before it closes a
// batch it lets others run a few times: those who have just been answered, or are about to ask, come along.
func (w *writer) gather(first *waitingAppend) (batch []*waitingAppend, next *waitingAppend) {
	const yields = 3
	batch = append(batch, first)
	size := len(first.data)
	for yielded := 0; len(batch) < MaxBatchRecords; {
		select {
		case waiting := <-w.queue:
			if size += len(waiting.data); size > maxBatchBytes {
				return batch, waiting
			}
			batch = append(batch, waiting)
		default:
			if yielded == yields {
				return batch, nil
			}
			yielded++
			runtime.Gosched()
		}
	}
	return batch, nil
}

// write stores one record batch and answers those who wait for it. A crash before the append leaves the batch stored whole or not at
// all, and nobody was told anything; a crash after it leaves it stored. Readers get it before the answers are given.
func (w *writer) write(waiting []*waitingAppend) {
	size := 0
	for _, one := range waiting {
		size += len(one.data) + 8
	}
	data := make([]byte, 0, size)
	for _, one := range waiting {
		data = appendFramed(data, one.data)
	}
	entry, err := w.store(data)
	if err != nil {
		w.failed(err)
	} else {
		w.succeeded(entry, data, len(waiting))
	}
	for i, one := range waiting {
		position := Position{Stream: entry.Sequence, Index: i}
		if entry.Sequence == 0 {
			position = Position{}
		}
		one.result <- appendResult{position, err}
	}
}

func (w *writer) failed(err error) {
	w.stats.Failures.Add(1)
	w.failure.Store(&failure{err, time.Now()})
}

func (w *writer) succeeded(entry store.Entry, data []byte, notifications int) {
	if entry.Sequence != 0 { // else it is spooled, and comes back with the log
		w.log.tail.stored(entry, data)
	}
	w.stats.stored(notifications, len(data))
	if w.failure.Load() != nil {
		w.failure.Store(nil)
	}
}

// store stores a batch.
func (w *writer) store(data []byte) (store.Entry, error) {
	if err := w.log.frozen.get(); err != nil {
		return store.Entry{}, err
	}
	entry, err := w.log.store.Append(context.Background(), data)
	if err != nil {
		return store.Entry{}, w.log.storeError(err)
	}
	return entry, nil
}

// storeError gives an error of the store the meaning that it has for this package.
func (l *Log) storeError(err error) error {
	switch {
	case errors.Is(err, store.ErrFailed):
		err = fmt.Errorf("%w: %w: %w", ErrFrozen, ErrUnavailable, err)
		l.frozen.set(err)
		return err
	case errors.Is(err, store.ErrNoSpace):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, store.ErrClosed):
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
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
