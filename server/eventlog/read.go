package eventlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/linksgate/linksgate/server/store"
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
	// Err is ErrExpired, ErrDamaged or ErrErased.
	Err error
	// Batches is how many record batches are missing, the first one perhaps partly.
	Batches uint64
	// Notifications is how many are missing of one record batch, when they were erased.
	Notifications uint64
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
	lastRead  time.Time // writing time of the last batch read
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
			err = r.follow(b, emit)
		case placeBehind:
			err = r.catchUp(ctx, r.log.tail.headInfo().position.Stream, emit)
		case placeHead:
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
	if !b.damaged {
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
	if b.damaged {
		r.next = Cursor{Stream: b.stream + 1}
		return emit(r.step(Step{Gap: &Gap{Err: ErrDamaged, Batches: 1}}, state))
	}
	if b.erased > 0 {
		if err := r.tellErased(b, emit, state); err != nil {
			return err
		}
	}
	var records []*Record
	all := b.from(r.next)
	r.next = Cursor{Stream: b.stream + 1}
	for i := range all {
		if until := r.options.Until; until != (Cursor{}) && !(Cursor(all[i].Position)).Before(until) {
			r.next = until
			break
		}
		if !all[i].erased && r.options.Filter.Match(&all[i]) {
			records = append(records, &all[i])
		}
	}
	return emit(r.step(Step{Records: records}, state))
}

// tellErased yields a gap for what was erased of a batch, from the reader's cursor on.
func (r *reader) tellErased(b *batch, emit func(Step) error, state State) error {
	gap := &Gap{Err: ErrErased}
	for _, record := range b.from(r.next) {
		if record.erased {
			gap.Notifications++
		}
	}
	if gap.Notifications == 0 {
		return nil
	}
	return emit(r.step(Step{Gap: gap}, state))
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

// catchUp reads the log up to a stream sequence that is known to have been stored. Damaged batches beside each other are one gap.
func (r *reader) catchUp(ctx context.Context, last uint64, emit func(Step) error) error {
	var gap Gap
	tell := func() error {
		if gap.Batches == 0 {
			return nil
		}
		told := gap
		gap = Gap{}
		return emit(r.step(Step{Gap: &told}, StateReplaying))
	}
	for item, err := range r.log.store.Read(ctx, r.next.Stream) {
		if err != nil {
			return r.log.readError(ctx, err)
		}
		b, missing := r.log.unpackItem(item)
		if missing != nil || b.damaged {
			if b != nil {
				missing, r.lastRead = &Gap{Err: ErrDamaged, Batches: 1}, b.written
			} else {
				missing.Batches = item.Gap.From + item.Gap.Count - r.next.Stream
			}
			if gap.Batches > 0 && !errors.Is(gap.Err, missing.Err) {
				if err := tell(); err != nil {
					return err
				}
			}
			gap = Gap{Err: missing.Err, Batches: gap.Batches + missing.Batches}
			r.next.Stream, r.next.Index = r.next.Stream+missing.Batches, 0
		} else {
			if err := tell(); err != nil {
				return err
			}
			if err := r.take(b, emit, StateReplaying); err != nil {
				return err
			}
		}
		if r.atEnd() || r.next.Stream > last || ctx.Err() != nil {
			break
		}
	}
	return tell()
}

// unpackItem unpacks what the store yields: a batch, or a gap.
func (l *Log) unpackItem(item store.Item) (*batch, *Gap) {
	switch {
	case item.Gap.Count == 0:
		b := unpack(l.id, item.Epoch, item.Sequence, item.Time, item.Data)
		l.erasures.apply(b)
		return b, nil
	case item.Gap.Reason == store.Expired:
		return nil, &Gap{Err: ErrExpired, Batches: item.Gap.Count}
	case item.Gap.Reason == store.Erased:
		return nil, &Gap{Err: ErrErased, Batches: item.Gap.Count}
	}
	return nil, &Gap{Err: ErrDamaged, Batches: item.Gap.Count}
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
	stream, err := l.store.Find(ctx, t)
	if err != nil {
		return Cursor{}, l.readError(ctx, fmt.Errorf("find a time in the log: %w", err))
	}
	return Cursor{Stream: stream}, nil
}

var errNoNotification = fmt.Errorf("notification %w", ErrNotFound)

// Get returns the notification at a position. Errors: ErrNotFound, ErrExpired, ErrDamaged, ErrUnavailable, ErrClosed.
func (l *Log) Get(ctx context.Context, p Position) (*Record, error) {
	b, err := l.batchAt(ctx, p.Stream)
	switch {
	case err != nil:
		return nil, err
	case b.damaged:
		return nil, ErrDamaged
	case p.Index >= len(b.records):
		return nil, errNoNotification
	case b.records[p.Index].erased:
		return nil, ErrErased
	}
	return &b.records[p.Index], nil
}

// batchAt returns a record batch, from the window or from the store.
func (l *Log) batchAt(ctx context.Context, stream uint64) (*batch, error) {
	b, place := l.tail.at(Cursor{Stream: stream})
	switch place {
	case placeWindow:
		return b, nil
	case placeHead:
		return nil, errNoNotification
	}
	for item, err := range l.store.Read(ctx, stream) {
		if err != nil {
			return nil, l.readError(ctx, err)
		}
		b, gap := l.unpackItem(item)
		if gap != nil {
			return nil, gap.Err
		}
		return b, nil
	}
	return nil, errNoNotification
}
