package eventlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/linksgate/linksgate/server/store"
)

// streamLog is a [store.Log] that is a stream of a NATS cluster, one message for each record batch. It has one epoch.
type streamLog struct {
	engine *engine
	id     string

	stop   context.CancelFunc // ends the following
	follow sync.WaitGroup

	mu     sync.Mutex
	last   uint64        // mu; the highest stream sequence that is known
	grown  chan struct{} // mu; closed when last grows, and by Close
	closed bool          // mu
}

var _ store.Log = (*streamLog)(nil)

func newStreamLog(e *engine, id string) (*streamLog, error) {
	ctx, stop := context.WithCancel(context.Background())
	l := &streamLog{engine: e, id: id, stop: stop, grown: make(chan struct{}), last: e.stream.CachedInfo().State.LastSeq}
	l.follow.Go(func() { l.run(ctx) })
	return l, nil
}

// run follows the stream, for its sequences only, until ctx ends.
func (l *streamLog) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.followOnce(ctx); err != nil && ctx.Err() == nil {
			l.engine.options.Logger.Debug("following the stream was interrupted", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (l *streamLog) followOnce(ctx context.Context) error {
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	consumer, err := l.engine.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: last + 1, HeadersOnly: true,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(512))
	if err != nil {
		return err
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	for {
		message, err := messages.Next()
		if err != nil {
			return err
		}
		meta, err := message.Metadata()
		if err != nil {
			return err
		}
		l.grow(meta.Sequence.Stream)
	}
}

// grow takes note of a stream sequence that is stored.
func (l *streamLog) grow(sequence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sequence > l.last && !l.closed {
		l.last = sequence
		close(l.grown)
		l.grown = make(chan struct{})
	}
}

func (l *streamLog) ID() string { return l.id }

// Append implements [store.Log]. The batch's id makes a second try safe: the engine stores one id once within duplicateWindow.
func (l *streamLog) Append(ctx context.Context, data []byte) (store.Entry, error) {
	msg := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{jetstream.MsgIDHeader: {nuid.Next()}}}
	written := time.Now()
	var err error
	for range publishTries {
		var ack *jetstream.PubAck
		if ack, err = l.engine.publish(ctx, msg); err == nil {
			l.grow(ack.Sequence)
			return store.Entry{Sequence: ack.Sequence, Time: written}, nil
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return store.Entry{}, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// Wait implements [store.Log].
func (l *streamLog) Wait(ctx context.Context, sequence uint64) error {
	for {
		l.mu.Lock()
		last, grown, closed := l.last, l.grown, l.closed
		l.mu.Unlock()
		switch {
		case last >= sequence:
			return nil
		case closed:
			return store.ErrClosed
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// state asks the stream.
func (l *streamLog) state(ctx context.Context) (jetstream.StreamState, error) {
	info, err := l.engine.stream.Info(ctx)
	if err != nil {
		return jetstream.StreamState{}, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return info.State, nil
}

// Info implements [store.Log].
func (l *streamLog) Info(ctx context.Context) (store.Info, error) {
	state, err := l.state(ctx)
	if err != nil {
		return store.Info{}, err
	}
	l.grow(state.LastSeq)
	info := store.Info{First: state.FirstSeq, Next: state.LastSeq + 1, Bytes: int64(state.Bytes), LastTime: state.LastTime}
	if state.Msgs == 0 {
		info.First = info.Next
	} else {
		info.FirstTime = state.FirstTime
	}
	info.Epochs = []store.Epoch{{First: info.First}}
	return info, nil
}

// Find implements [store.Log].
func (l *streamLog) Find(ctx context.Context, at time.Time) (uint64, error) {
	state, err := l.state(ctx)
	switch {
	case err != nil:
		return 0, err
	case state.Msgs == 0 || state.LastTime.Before(at):
		return state.LastSeq + 1, nil
	case !state.FirstTime.Before(at):
		return state.FirstSeq, nil
	}
	consumer, err := createConsumer(ctx, l.engine.stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &at,
	})
	if err != nil {
		return 0, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	defer l.release(consumer)
	if consumer.CachedInfo().NumPending == 0 {
		return state.LastSeq + 1, nil
	}
	message, err := consumer.Next(jetstream.FetchMaxWait(fetchWait))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	meta, err := message.Metadata()
	if err != nil {
		return 0, err
	}
	return meta.Sequence.Stream, nil
}

// release gives a consumer back to the engine. It is only a courtesy: the engine forgets idle ones.
func (l *streamLog) release(consumer jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := l.engine.stream.DeleteConsumer(ctx, consumer.CachedInfo().Name); err != nil {
		l.engine.options.Logger.Debug("consumer not released", "error", err)
	}
}

// Read implements [store.Log].
func (l *streamLog) Read(ctx context.Context, from uint64) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		state, err := l.state(ctx)
		if err != nil {
			yield(store.Item{}, err)
			return
		}
		r := &streamReader{log: l, next: from, first: state.FirstSeq, last: state.LastSeq, yield: yield}
		if from == 0 {
			r.next = state.FirstSeq
		}
		defer r.release()
		if err := r.run(ctx); err != nil {
			yield(store.Item{}, err)
		}
	}
}

// streamReader is one pass over a stream, up to what was its end.
type streamReader struct {
	log               *streamLog
	next, first, last uint64
	yield             func(store.Item, error) bool
	consumer          jetstream.Consumer // nil: none stands at next
	stopped           bool               // the caller wants no more
}

func (r *streamReader) run(ctx context.Context) error {
	empty := 0
	for r.next <= r.last && !r.stopped {
		if err := ctx.Err(); err != nil {
			return err
		}
		got, err := r.fetch(ctx)
		switch {
		case r.stopped:
			return nil
		case err == nil && got:
			empty = 0
			continue
		}
		r.release() // it may be gone; a new one is made at next
		if empty++; empty < 3 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
		if err := r.skipMissing(ctx); err != nil {
			return err
		}
	}
	return nil
}

// fetch yields a bounded piece, and reports whether there was anything.
func (r *streamReader) fetch(ctx context.Context) (got bool, err error) {
	if r.consumer == nil {
		if r.consumer, err = createConsumer(ctx, r.log.engine.stream, jetstream.ConsumerConfig{
			DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.next,
		}); err != nil {
			return false, err
		}
	}
	fetched, err := r.consumer.Fetch(int(min(r.last-r.next+1, fetchMessages)), jetstream.FetchMaxBytes(fetchBytes), jetstream.FetchMaxWait(fetchWait))
	if err != nil {
		return false, err
	}
	for message := range fetched.Messages() {
		meta, err := message.Metadata()
		if err != nil {
			return got, err
		}
		got = true
		if r.skip(min(meta.Sequence.Stream, r.last+1)); r.stopped || r.next > r.last {
			return true, nil
		}
		r.next = meta.Sequence.Stream + 1
		r.stopped = !r.yield(store.Item{Entry: store.Entry{Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Data: message.Data()}}, nil)
		if ctx.Err() != nil {
			return true, nil
		}
	}
	return got, fetched.Error()
}

// skip yields what is missing before a sequence.
func (r *streamReader) skip(to uint64) {
	for r.next < to && !r.stopped {
		gap := store.Gap{From: r.next, Count: to - r.next, Reason: store.Corrupt}
		if r.next < r.first {
			gap.Reason, gap.Count = store.Expired, min(to, r.first)-r.next
		}
		r.next += gap.Count
		r.stopped = !r.yield(store.Item{Gap: gap}, nil)
	}
}

// skipMissing finds out why the engine delivered nothing although the stream goes on.
func (r *streamReader) skipMissing(ctx context.Context) error {
	state, err := r.log.state(ctx)
	if err != nil {
		return err
	}
	r.first = max(r.first, state.FirstSeq)
	message, err := r.log.engine.stream.GetMsg(ctx, r.next, jetstream.WithGetMsgSubject(allSubjects)) // the first one from there on
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		r.skip(r.last + 1)
	case err == nil && message.Sequence > r.next:
		r.skip(min(message.Sequence, r.last+1))
	}
	return nil // slow rather than missing, as far as can be told
}

func (r *streamReader) release() {
	if r.consumer != nil {
		r.log.release(r.consumer)
		r.consumer = nil
	}
}

// Trim implements [store.Log].
func (l *streamLog) Trim(ctx context.Context, before uint64) error {
	return l.engine.stream.Purge(ctx, jetstream.WithPurgeSequence(before))
}

// SetOptions implements [store.Log].
func (l *streamLog) SetOptions(store.LogOptions) error { return errors.ErrUnsupported }

// Close implements [store.Log].
func (l *streamLog) Close() error {
	l.stop()
	l.follow.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.grown)
	}
	return nil
}
