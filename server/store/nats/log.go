package nats

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/linksgate/linksgate/server/store"
)

const (
	idKey = "linksgate-log-id" // in the stream's metadata
	// recentBytes bounds what is remembered of the newest entries.
	recentBytes = 8 << 20
	// fetchMessages and fetchBytes bound what is read at once. The latter exceeds the largest entry, or that would never be fetched.
	fetchMessages, fetchBytes = 256, 2 << 20
	fetchWait                 = time.Second
)

// Log is a stream. It has one epoch. It implements [store.Log] and [store.Keyed].
type Log struct {
	engine  *Engine
	stream  jetstream.Stream
	id      string
	subject string     // of lanes, with a period at its end
	lanes   chan *lane // that are free

	end       context.CancelFunc // ends the following
	following sync.WaitGroup

	mu     sync.Mutex
	last   uint64        // mu; the highest sequence that is known
	grown  chan struct{} // mu; closed when last grows, and by stop
	closed bool          // mu
	recent []store.Entry // mu; the newest entries, without a gap
	bytes  int           // mu; of recent
}

var (
	_ store.Log   = (*Log)(nil)
	_ store.Keyed = (*Log)(nil)
)

// OpenLog implements [store.Engine]. Bounds are those that the stream was created with; SetOptions changes them.
func (e *Engine) OpenLog(ctx context.Context, name string, options store.LogOptions) (store.Log, error) {
	if e.isClosing() {
		return nil, store.ErrClosed
	}
	var raw [16]byte
	rand.Read(raw[:]) // never fails, as documented
	window := keyWindow
	if options.MaxAge > 0 {
		window = min(window, options.MaxAge)
	}
	subject := logSubject(e.options.Prefix, name)
	stream, err := e.openStream(ctx, jetstream.StreamConfig{
		Name: e.streamName("LOG", name), Subjects: []string{subject + "*"}, Description: "Linksgate " + name,
		MaxAge: options.MaxAge, MaxBytes: unlimited(options.MaxBytes), Duplicates: window,
		Metadata: map[string]string{idKey: strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:]))},
	})
	if err != nil {
		return nil, err
	}
	info := stream.CachedInfo()
	l := &Log{
		engine: e, stream: stream, id: info.Config.Metadata[idKey], subject: subject, lanes: make(chan *lane, lanes),
		last: info.State.LastSeq, grown: make(chan struct{}),
	}
	if l.id == "" {
		return nil, fmt.Errorf("stream %s is not a log of Linksgate", info.Config.Name)
	}
	for range lanes {
		l.lanes <- l.newLane()
	}
	following, end := context.WithCancel(context.Background())
	l.end = end
	l.following.Go(func() {
		e.follow(following, stream, l.lastKnown, false, func(message jetstream.Msg, meta *jetstream.MsgMetadata) {
			l.grow(store.Entry{Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Data: message.Data()})
		})
	})
	e.add(l)
	return l, nil
}

func logSubject(prefix, name string) string { return prefix + ".log." + name + "." }

func (e *Engine) streamName(kind, name string) string {
	return strings.ToUpper(e.options.Prefix + "_" + kind + "_" + name)
}

// unlimited is a bound on bytes as JetStream writes it.
func unlimited(bytes int64) int64 {
	if bytes == 0 {
		return -1
	}
	return bytes
}

// ID implements [store.Log].
func (l *Log) ID() string { return l.id }

func (l *Log) lastKnown() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// grow takes note of an entry that is stored.
func (l *Log) grow(entry store.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if entry.Sequence <= l.last || l.closed {
		return
	}
	if entry.Sequence != l.last+1 {
		l.recent, l.bytes = nil, 0
	}
	l.recent = append(l.recent, entry)
	l.bytes += len(entry.Data)
	for l.bytes > recentBytes && len(l.recent) > 1 {
		l.bytes -= len(l.recent[0].Data)
		l.recent = l.recent[1:]
	}
	l.noteLast(entry.Sequence)
}

// noteLast takes note of the highest sequence. The caller holds mu.
func (l *Log) noteLast(sequence uint64) {
	if sequence > l.last && !l.closed {
		l.last = sequence
		close(l.grown)
		l.grown = make(chan struct{})
	}
}

// Wait implements [store.Log].
func (l *Log) Wait(ctx context.Context, sequence uint64) error {
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
func (l *Log) state(ctx context.Context) (state jetstream.StreamState, err error) {
	err = l.engine.try(ctx, func(ctx context.Context) error {
		info, err := l.stream.Info(ctx)
		if err == nil {
			state = info.State
		}
		return err
	})
	return state, meaning(err)
}

// Info implements [store.Log].
func (l *Log) Info(ctx context.Context) (store.Info, error) {
	state, err := l.state(ctx)
	if err != nil {
		return store.Info{}, err
	}
	info := store.Info{First: state.FirstSeq, Next: state.LastSeq + 1, Bytes: int64(state.Bytes)}
	if state.Msgs == 0 {
		info.First = info.Next
	} else {
		info.FirstTime, info.LastTime = state.FirstTime, state.LastTime
	}
	info.First, info.Next = max(info.First, 1), max(info.Next, 1)
	info.Epochs = []store.Epoch{{First: info.First}}
	return info, nil
}

// Find implements [store.Log].
func (l *Log) Find(ctx context.Context, at time.Time) (uint64, error) {
	state, err := l.state(ctx)
	switch {
	case err != nil:
		return 0, err
	case state.Msgs == 0 || state.LastTime.Before(at):
		return state.LastSeq + 1, nil
	case !state.FirstTime.Before(at):
		return state.FirstSeq, nil
	}
	var found uint64
	err = l.engine.try(ctx, func(ctx context.Context) error {
		consumer, err := l.consumer(ctx, jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &at, HeadersOnly: true})
		if err != nil {
			return err
		}
		defer l.release(consumer)
		message, err := consumer.Next(jetstream.FetchMaxWait(fetchWait))
		if err != nil {
			return err
		}
		meta, err := message.Metadata()
		if err == nil {
			found = meta.Sequence.Stream
		}
		return err
	})
	return found, meaning(err)
}

// consumer creates one that leaves nothing behind.
func (l *Log) consumer(ctx context.Context, config jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	config.AckPolicy, config.InactiveThreshold, config.MemoryStorage, config.Replicas = jetstream.AckNonePolicy, time.Minute, true, 1
	return l.stream.CreateConsumer(ctx, config)
}

// release gives a consumer back. It is only a courtesy: idle ones are forgotten.
func (l *Log) release(consumer jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
	defer cancel()
	if err := l.stream.DeleteConsumer(ctx, consumer.CachedInfo().Name); err != nil {
		l.engine.options.Logger.Debug("consumer not released", "error", err)
	}
}

// Read implements [store.Log].
func (l *Log) Read(ctx context.Context, from uint64) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		if l.engine.isClosing() {
			yield(store.Item{}, store.ErrClosed)
			return
		}
		state, err := l.state(ctx)
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			yield(store.Item{}, err)
			return
		}
		r := &reader{log: l, next: from, first: state.FirstSeq, last: state.LastSeq, yield: yield}
		if from == 0 {
			r.next = state.FirstSeq
		}
		r.next = max(r.next, 1)
		if state.Msgs == 0 {
			r.first = state.LastSeq + 1
		}
		defer r.release()
		if err := r.run(ctx); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			yield(store.Item{}, err)
		}
	}
}

// Trim implements [store.Log].
func (l *Log) Trim(ctx context.Context, before uint64) error {
	state, err := l.state(ctx)
	if err != nil {
		return err
	}
	return meaning(l.engine.try(ctx, func(ctx context.Context) error {
		if before > state.LastSeq {
			return l.stream.Purge(ctx)
		}
		return l.stream.Purge(ctx, jetstream.WithPurgeSequence(before))
	}))
}

// SetOptions implements [store.Log], for all gateways.
func (l *Log) SetOptions(options store.LogOptions) error {
	return l.engine.update(l.stream, options.MaxAge, options.MaxBytes)
}

// update changes the bounds of a stream.
func (e *Engine) update(stream jetstream.Stream, age time.Duration, bytes int64) error {
	return meaning(e.try(context.Background(), func(ctx context.Context) error {
		info, err := stream.Info(ctx)
		if err != nil {
			return err
		}
		config := info.Config
		config.MaxAge, config.MaxBytes = age, unlimited(bytes)
		if age > 0 && config.Duplicates > age {
			config.Duplicates = age
		}
		_, err = e.js.UpdateStream(ctx, config)
		return err
	}))
}

// Close implements [store.Log].
func (l *Log) Close() error {
	l.stop()
	return nil
}

func (l *Log) stop() {
	l.end()
	l.following.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.grown)
	}
}

// reader is one pass over a stream, up to what was its end.
type reader struct {
	log               *Log
	next, first, last uint64
	yield             func(store.Item, error) bool
	consumer          jetstream.Consumer // nil: none is at next
	stopped           bool               // the caller wants no more
}

func (r *reader) run(ctx context.Context) error {
	for failures := 0; r.next <= r.last && !r.stopped; {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.skip(min(r.first, r.last+1))
		if r.stopped || r.recent() {
			continue
		}
		got, err := r.fetch(ctx)
		switch {
		case r.stopped:
			return nil
		case err == nil && got:
			failures = 0
			continue
		}
		r.release() // it may be gone; a new one is made at next
		if failures++; failures > 1 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-r.log.engine.closing:
				return store.ErrClosed
			case <-time.After(100 * time.Millisecond):
			}
		}
		if err := r.skipMissing(ctx); err != nil {
			return err
		}
	}
	return nil
}

// recent yields what is remembered from next on, and reports whether that was anything.
func (r *reader) recent() bool {
	r.log.mu.Lock()
	entries := r.log.recent
	r.log.mu.Unlock()
	if len(entries) == 0 || r.next < entries[0].Sequence {
		return false
	}
	for skip := r.next - entries[0].Sequence; skip < uint64(len(entries)) && r.next <= r.last && !r.stopped; skip++ {
		entry := entries[skip]
		r.next++
		r.stopped = !r.yield(store.Item{Entry: entry}, nil)
	}
	return r.stopped || r.next > r.last
}

// fetch yields a bounded piece, and reports whether there was anything.
func (r *reader) fetch(ctx context.Context) (got bool, err error) {
	asking, cancel := context.WithTimeout(ctx, 2*tryTimeout)
	defer cancel()
	if r.consumer == nil {
		if r.consumer, err = r.log.consumer(asking, jetstream.ConsumerConfig{
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
		if r.stopped || ctx.Err() != nil || r.next > r.last {
			return true, nil
		}
	}
	return got, fetched.Error()
}

// skip yields what is missing before a sequence.
func (r *reader) skip(to uint64) {
	for r.next < to && !r.stopped {
		gap := store.Gap{From: r.next, Count: to - r.next, Reason: store.Corrupt}
		if r.next < r.first {
			gap.Reason, gap.Count = store.Expired, min(to, r.first)-r.next
		}
		r.next += gap.Count
		r.stopped = !r.yield(store.Item{Gap: gap}, nil)
	}
}

// skipMissing finds out why nothing was delivered although the stream goes on.
func (r *reader) skipMissing(ctx context.Context) error {
	state, err := r.log.state(ctx)
	if err != nil {
		return err
	}
	r.first = max(r.first, state.FirstSeq)
	if state.Msgs == 0 {
		r.first = state.LastSeq + 1
	}
	message, err := r.log.stream.GetMsg(ctx, r.next, jetstream.WithGetMsgSubject(r.log.subject+"*")) // the first one from there on
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		r.skip(r.last + 1)
	case err == nil && message.Sequence > r.next:
		r.skip(min(message.Sequence, r.last+1))
	}
	return nil // slow rather than missing, as far as can be told
}

func (r *reader) release() {
	if r.consumer != nil {
		r.log.release(r.consumer)
		r.consumer = nil
	}
}
