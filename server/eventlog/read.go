package eventlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// fetchMessages and fetchBytes bound what a reader behind the window holds in memory. The size must exceed that of the
	// largest message, or it would never be fetched.
	fetchMessages = 256
	fetchBytes    = 2 << 20
	// fetchWait is how long a fetch waits for messages that the stream is known to have.
	fetchWait = 2 * time.Second
	// consumerIdle is when the engine forgets a reader that does not come back.
	consumerIdle = time.Minute
)

// ReadOptions say what Read yields.
type ReadOptions struct {
	// Filter selects records. Nil: all.
	Filter *Filter
	// Until ends the reading when everything before this cursor has been yielded. The zero value: never.
	Until Cursor
	// Pulse is the longest time without a step while nothing arrives. Required.
	Pulse time.Duration
}

// Step is one step of reading: some records, or none.
type Step struct {
	// Records that pass the filter, in order, all of one stored batch.
	Records []*Record
	// Next is where reading goes on: everything before it has been yielded, filtered out, or told as a gap.
	Next Cursor
	// Gap is set if notifications between the previous step and this one cannot be read. Records is then empty.
	Gap *Gap
	// State of the reader after this step.
	State State
	// Lag behind the head after this step.
	Lag Lag
}

// State says where a reader is.
type State int

const (
	// StateReplaying is behind the window, reading the stream.
	StateReplaying State = iota
	// StateFollowing is inside the window.
	StateFollowing
	// StateLive is at the head.
	StateLive
)

// Gap tells of record batches that cannot be read.
type Gap struct {
	// Err is ErrExpired or ErrDamaged.
	Err error
	// Batches is how many record batches are missing, the first one perhaps partly.
	Batches uint64
}

// Lag is the distance to the head.
type Lag struct {
	// Batches between the reader and the head.
	Batches uint64
	// Time between the writing of the batch read last and of the head; 0 at the head.
	Time time.Duration
}

// Read yields the log from a cursor on, for ever or until options.Until, in order and without leaving anything out: what
// cannot be read is yielded as a gap, and the caller decides whether to go on.
//
// An error ends the reading: ErrAhead, ErrUnavailable, ErrClosed, or the cause of ctx's end. The memory of a reader is
// bounded, however slow its caller is.
func (l *Log) Read(ctx context.Context, from Cursor, options ReadOptions) iter.Seq2[Step, error] {
	return func(yield func(Step, error) bool) {
		r := &reader{log: l, options: options, interests: options.Filter.interests(), next: from}
		defer r.release()
		if err := r.run(ctx, yield); err != nil {
			yield(Step{}, err)
		}
	}
}

// reader is one run of Read. It belongs to the goroutine that iterates.
type reader struct {
	log       *Log
	options   ReadOptions
	interests []interest
	next      Cursor
	lastRead  time.Time          // writing time of the last batch read
	consumer  jetstream.Consumer // behind the window only
	position  uint64             // stream sequence that consumer delivers next
	seen      func(*batch)       // if set, is shown each batch instead of the caller being given its records
}

var errStop = errors.New("stop") // the caller does not want more; never leaves this file

// run reads until the end, an error, or the caller's wish to stop.
func (r *reader) run(ctx context.Context, yield func(Step, error) bool) error {
	emit := func(step Step) error {
		if !yield(step, nil) {
			return errStop
		}
		return nil
	}
	err := r.loop(ctx, emit)
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func (r *reader) loop(ctx context.Context, emit func(Step) error) error {
	if err := r.checkHead(ctx); err != nil {
		return err
	}
	for !r.atEnd() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b, place := r.log.tail.at(r.next)
		var err error
		switch place {
		case placeWindow:
			r.release()
			err = r.follow(b, emit)
		case placeBehind:
			err = r.fetch(ctx, r.log.tail.headInfo().position.Stream, emit)
		case placeHead:
			r.release()
			err = r.waitAtHead(ctx, emit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkHead refuses a cursor that is ahead of the head: the engine would wait there in silence.
func (r *reader) checkHead(ctx context.Context) error {
	if _, place := r.log.tail.at(r.next); place != placeHead {
		return nil
	}
	info, err := r.log.Info(ctx)
	if err != nil {
		return err
	}
	if info.Next.Before(r.next) {
		return fmt.Errorf("%w: it is at %d, the log ends at %d", ErrAhead, r.next.Stream, info.Head.Stream)
	}
	return nil
}

func (r *reader) atEnd() bool {
	return r.options.Until != Cursor{} && !r.next.Before(r.options.Until)
}

// follow yields what is in the window: the records of a batch, or a gap for all damaged ones from there on.
func (r *reader) follow(b *batch, emit func(Step) error) error {
	if !b.damaged || r.seen != nil {
		return r.take(b, emit, StateFollowing)
	}
	gap := &Gap{Err: ErrDamaged}
	for place := placeWindow; place == placeWindow && b.damaged && !r.atEnd(); b, place = r.log.tail.at(r.next) {
		gap.Batches++
		r.lastRead, r.next = b.written, Cursor{Stream: b.stream + 1}
	}
	return emit(r.step(Step{Gap: gap}, StateFollowing))
}

// take yields the records of a batch, from the reader's cursor to its end.
func (r *reader) take(b *batch, emit func(Step) error, state State) error {
	r.lastRead = b.written
	if r.seen != nil {
		r.seen(b)
		r.next = Cursor{Stream: b.stream + 1}
		return nil
	}
	if b.damaged {
		r.next = Cursor{Stream: b.stream + 1}
		return emit(r.step(Step{Gap: &Gap{Err: ErrDamaged, Batches: 1}}, state))
	}
	var records []*Record
	all := b.from(r.next)
	r.next = Cursor{Stream: b.stream + 1}
	for i := range all {
		if until := r.options.Until; until != (Cursor{}) && !(Cursor(all[i].Position)).Before(until) {
			r.next = until
			break
		}
		if r.options.Filter.Match(&all[i]) {
			records = append(records, &all[i])
		}
	}
	return emit(r.step(Step{Records: records}, state))
}

// step completes a step with the reader's place.
func (r *reader) step(step Step, state State) Step {
	head := r.log.tail.headInfo()
	step.Next, step.State = r.next, state
	if r.next.Stream > head.position.Stream {
		step.State = StateLive
		return step
	}
	step.Lag.Batches = head.position.Stream - r.next.Stream + 1
	if !r.lastRead.IsZero() {
		step.Lag.Time = max(head.written.Sub(r.lastRead), 0)
	}
	return step
}

// waitAtHead tells that the reader is live, then waits for what it is interested in, for a pulse at most.
func (r *reader) waitAtHead(ctx context.Context, emit func(Step) error) error {
	if err := emit(r.step(Step{}, StateLive)); err != nil {
		return err
	}
	timer := time.NewTimer(r.options.Pulse)
	defer timer.Stop()
	next, err := r.log.tail.wait(ctx, r.next, r.interests, timer.C)
	r.next = next
	return err
}

// fetch reads a bounded piece of the stream, up to a sequence that is known to have been stored.
func (r *reader) fetch(ctx context.Context, last uint64, emit func(Step) error) error {
	if err := r.locate(ctx); err != nil {
		return err
	}
	pending := last - r.next.Stream + 1
	fetched, err := r.consumer.Fetch(int(min(pending, fetchMessages)),
		jetstream.FetchMaxBytes(fetchBytes), jetstream.FetchMaxWait(fetchWait))
	if err != nil {
		return r.log.readError(ctx, err)
	}
	got, damaged := false, uint64(0) // damaged ones beside each other are one gap
	tell := func() error {
		if damaged == 0 {
			return nil
		}
		gap := &Gap{Err: ErrDamaged, Batches: damaged}
		damaged = 0
		return emit(r.step(Step{Gap: gap}, StateReplaying))
	}
	for message := range fetched.Messages() {
		b, err := unpackMessage(r.log.id, message)
		if err != nil {
			return r.log.readError(ctx, err)
		}
		got = true
		r.position = b.stream + 1
		if b.damaged && b.stream == r.next.Stream && r.seen == nil {
			r.next, r.lastRead = Cursor{Stream: b.stream + 1}, b.written
			if damaged++; r.atEnd() || ctx.Err() != nil {
				break
			}
			continue
		}
		if err := tell(); err != nil {
			return err
		}
		if err := r.skipTo(ctx, b.stream, emit); err != nil {
			return err
		}
		if r.atEnd() {
			return nil
		}
		if err := r.take(b, emit, StateReplaying); err != nil {
			return err
		}
		if r.atEnd() || ctx.Err() != nil {
			return nil
		}
	}
	if err := tell(); err != nil {
		return err
	}
	if r.atEnd() || ctx.Err() != nil {
		return nil
	}
	if err := fetched.Error(); err != nil {
		r.release() // the consumer may be gone; a new one is made where the reader stands
		if !got && !errors.Is(err, jetstream.ErrNoHeartbeat) {
			return r.pause(ctx, err)
		}
	}
	if !got {
		return r.skipMissing(ctx, emit)
	}
	return nil
}

// locate makes sure that a consumer of the engine stands at the reader's cursor.
func (r *reader) locate(ctx context.Context) error {
	if r.consumer != nil && r.position == r.next.Stream {
		return nil
	}
	r.release()
	consumer, err := createConsumer(ctx, r.log.stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.next.Stream,
	})
	if err != nil {
		return r.log.readError(ctx, fmt.Errorf("open a reader: %w", err))
	}
	r.consumer, r.position = consumer, r.next.Stream
	return nil
}

// createConsumer creates a consumer that leaves nothing behind.
func createConsumer(ctx context.Context, stream jetstream.Stream, config jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	config.AckPolicy = jetstream.AckNonePolicy
	config.InactiveThreshold = consumerIdle
	config.MemoryStorage = true
	config.Replicas = 1
	return stream.CreateConsumer(ctx, config)
}

// release gives the consumer back to the engine. It is only a courtesy: the engine forgets idle ones.
func (r *reader) release() {
	if r.consumer == nil {
		return
	}
	name := r.consumer.CachedInfo().Name
	r.consumer = nil
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := r.log.stream.DeleteConsumer(ctx, name); err != nil {
		r.log.options.Logger.Debug("a reader could not be given back", "error", err)
	}
}

// skipTo tells of a gap if a batch is not the one that the reader expects next.
func (r *reader) skipTo(ctx context.Context, stream uint64, emit func(Step) error) error {
	if stream <= r.next.Stream {
		return nil
	}
	state, err := r.log.state(ctx)
	if err != nil {
		return err
	}
	gap := &Gap{Err: ErrDamaged, Batches: stream - r.next.Stream}
	if r.next.Stream < state.FirstSeq && !r.log.marker.lost(r.next.Stream) {
		gap.Err = ErrExpired
	}
	r.next = Cursor{Stream: stream}
	return emit(r.step(Step{Gap: gap}, StateReplaying))
}

// skipMissing finds out why the engine delivered nothing although the stream goes on, and tells of the gap.
func (r *reader) skipMissing(ctx context.Context, emit func(Step) error) error {
	state, err := r.log.state(ctx)
	if err != nil {
		return err
	}
	message, err := r.log.stream.GetMsg(ctx, r.next.Stream, jetstream.WithGetMsgSubject(allSubjects)) // the first one from there on
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound) && state.LastSeq >= r.next.Stream:
		return r.skipTo(ctx, state.LastSeq+1, emit)
	case err == nil && message.Sequence > r.next.Stream:
		return r.skipTo(ctx, message.Sequence, emit)
	}
	// Slow rather than missing, as far as can be told. Asking again from a new consumer.
	r.release()
	return r.pause(ctx, err)
}

// pause waits a moment before the engine is asked again. A closed log ends the reading.
func (r *reader) pause(ctx context.Context, err error) error {
	if r.log.tail.isClosed() {
		return ErrClosed
	}
	if err != nil {
		r.log.options.Logger.Debug("reading the log again", "error", err)
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(100 * time.Millisecond):
		return nil
	}
}

// CursorAt returns the place before the first notification written at or after a time; the place after the head if there is
// none.
func (l *Log) CursorAt(ctx context.Context, t time.Time) (Cursor, error) {
	info, err := l.Info(ctx)
	if err != nil {
		return Cursor{}, err
	}
	return l.cursorAt(ctx, info, t)
}

// cursorAt is CursorAt for a log that is as described.
func (l *Log) cursorAt(ctx context.Context, info Info, t time.Time) (_ Cursor, err error) {
	switch {
	case info.Empty() || info.HeadWritten.Before(t):
		return info.Next, nil
	case !info.FirstWritten.Before(t):
		return info.First, nil
	}
	r := reader{log: l}
	r.consumer, err = createConsumer(ctx, l.stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &t,
	})
	if err != nil {
		return Cursor{}, l.readError(ctx, fmt.Errorf("find a time in the log: %w", err))
	}
	defer r.release()
	if r.consumer.CachedInfo().NumPending == 0 {
		return info.Next, nil
	}
	message, err := r.consumer.Next(jetstream.FetchMaxWait(fetchWait))
	if err != nil {
		return Cursor{}, l.readError(ctx, fmt.Errorf("find a time in the log: %w", err))
	}
	meta, err := message.Metadata()
	if err != nil {
		return Cursor{}, l.readError(ctx, err)
	}
	return Cursor{Stream: meta.Sequence.Stream}, nil
}

var errNoNotification = fmt.Errorf("notification %w", ErrNotFound)

// Get returns the notification at a position. Errors: ErrNotFound, ErrExpired, ErrDamaged, ErrUnavailable, ErrClosed.
func (l *Log) Get(ctx context.Context, p Position) (*Record, error) {
	b, place := l.tail.at(Cursor(p))
	if place != placeWindow {
		state, err := l.state(ctx)
		switch {
		case err != nil:
			return nil, err
		case p.Stream > state.LastSeq:
			return nil, errNoNotification
		case p.Stream < state.FirstSeq && l.marker.lost(p.Stream):
			return nil, ErrDamaged
		case p.Stream < state.FirstSeq:
			return nil, ErrExpired
		}
		message, err := l.stream.GetMsg(ctx, p.Stream)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, ErrDamaged
		}
		if err != nil {
			return nil, l.readError(ctx, err)
		}
		b = unpack(l.id, message.Sequence, message.Time, message.Data)
	}
	switch {
	case b.damaged:
		return nil, ErrDamaged
	case p.Index >= len(b.records):
		return nil, errNoNotification
	}
	return &b.records[p.Index], nil
}
