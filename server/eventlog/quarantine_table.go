package eventlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linksgate/linksgate/server/store"
)

const (
	entryPrefix     = "entry."
	releasingPrefix = "releasing."
	// maxReleased bounds what is remembered of releases.
	maxReleased = 4096
)

// releases is the table of the quarantine: entries under their numbers, which follow the clock. Before an entry is released into the
// log, the table says from where on the log may have it. So a release that finds such a note, because a crash came between the log and
// the removal of the entry, looks there first.
type releases struct {
	kv store.KV

	mu        sync.Mutex
	last      uint64                   // mu; the highest number given
	releasing map[uint64]chan struct{} // mu; closed when the release of an entry has ended
	positions map[uint64]Position      // mu; of late, for those who release the same at the same moment
}

func openQuarantine(ctx context.Context, l *Log) (*Quarantine, error) {
	kv, err := l.engine.OpenKV(ctx, "quarantine", store.KVOptions{MaxAge: l.options.QuarantineAge, MaxBytes: l.options.QuarantineBytes})
	if err != nil {
		return nil, err
	}
	q := &Quarantine{log: l, releases: releases{
		kv: kv, releasing: make(map[uint64]chan struct{}), positions: make(map[uint64]Position),
	}}
	for value, err := range kv.List(ctx, entryPrefix, "", true) {
		if err != nil {
			return nil, err
		}
		q.last = max(q.last, numberOf(value.Key))
	}
	return q, nil
}

func entryKey(number uint64) string     { return fmt.Sprintf("%s%020d", entryPrefix, number) }
func releasingKey(number uint64) string { return fmt.Sprintf("%s%020d", releasingPrefix, number) }

// numberOf returns the number at the end of a key; 0 if there is none.
func numberOf(key string) uint64 {
	number, _ := strconv.ParseUint(key[strings.LastIndexByte(key, '.')+1:], 10, 64)
	return number
}

func (q *Quarantine) put(ctx context.Context, data []byte) error {
	for {
		q.mu.Lock()
		q.last = max(q.last+1, uint64(time.Now().UnixMicro()))
		number := q.last
		q.mu.Unlock()
		_, err := q.kv.Put(ctx, entryKey(number), data, store.Absent)
		switch {
		case errors.Is(err, store.ErrConflict): // another gateway was faster
			continue
		case err != nil:
			return q.log.storeError(err)
		}
		return nil
	}
}

func (q *Quarantine) list(ctx context.Context, from uint64, yield func(number uint64, data []byte, err error) bool) error {
	for value, err := range q.kv.List(ctx, entryPrefix, entryKey(from-1), false) {
		corrupt := errors.Is(err, store.ErrCorrupt)
		if err != nil && !corrupt {
			return err
		}
		if corrupt {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if !yield(numberOf(value.Key), value.Data, err) {
			return nil
		}
	}
	return nil
}

func (q *Quarantine) get(ctx context.Context, number uint64) ([]byte, error) {
	value, err := q.kv.Get(ctx, entryKey(number))
	return value.Data, q.entryError(err)
}

func (q *Quarantine) remove(ctx context.Context, number uint64) error {
	return q.entryError(q.kv.Delete(ctx, entryKey(number), store.Any))
}

// entryError gives an error of the table the meaning that it has for an entry.
func (q *Quarantine) entryError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return errNoEntry
	case errors.Is(err, store.ErrCorrupt):
		return fmt.Errorf("quarantine entry: %w: %w", ErrDamaged, err)
	}
	return q.log.storeError(err)
}

func (q *Quarantine) release(ctx context.Context, number uint64, data []byte) (Position, bool, error) {
	defer q.alone(number)()
	q.mu.Lock()
	position, released := q.positions[number]
	q.mu.Unlock()
	if released {
		return position, true, nil
	}
	if _, err := q.get(ctx, number); err != nil && !errors.Is(err, ErrDamaged) {
		return Position{}, false, err // somebody else has released it just now
	}
	note, err := q.kv.Get(ctx, releasingKey(number))
	if err == nil && len(note.Data) == 8 {
		position, found, err := q.find(ctx, binary.BigEndian.Uint64(note.Data), q.id(number))
		if found || err != nil {
			return position, found, err
		}
	} else if err := q.note(ctx, number); err != nil {
		return Position{}, false, err
	}
	position, before, err := q.log.appendOnce(ctx, []byte(q.id(number)), data)
	if err != nil {
		return Position{}, false, err
	}
	q.mu.Lock()
	if len(q.positions) >= maxReleased {
		clear(q.positions)
	}
	q.positions[number] = position
	q.mu.Unlock()
	if err := q.remove(ctx, number); err != nil && !errors.Is(err, ErrNotFound) {
		return position, before, err
	}
	// What a crash leaves of this goes with its age.
	if err := q.kv.Delete(ctx, releasingKey(number), store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
		return position, before, q.log.storeError(err)
	}
	return position, before, nil
}

// note makes durable from where on the log may have what is released from an entry.
func (q *Quarantine) note(ctx context.Context, number uint64) error {
	from := binary.BigEndian.AppendUint64(nil, q.log.tail.headInfo().position.Stream+1)
	if _, err := q.kv.Put(ctx, releasingKey(number), from, store.Any); err != nil {
		return q.log.storeError(err)
	}
	return nil
}

// alone waits until nobody else releases an entry, and returns what lets others.
func (q *Quarantine) alone(number uint64) func() {
	for {
		q.mu.Lock()
		other := q.releasing[number]
		if other == nil {
			own := make(chan struct{})
			q.releasing[number] = own
			q.mu.Unlock()
			return func() {
				q.mu.Lock()
				defer q.mu.Unlock()
				delete(q.releasing, number)
				close(own)
			}
		}
		q.mu.Unlock()
		<-other
	}
}

// find looks for the notification that was released from an entry, from a record batch on.
func (q *Quarantine) find(ctx context.Context, from uint64, id string) (Position, bool, error) {
	for item, err := range q.log.store.Read(ctx, from) {
		if err != nil {
			return Position{}, false, q.log.readError(ctx, err)
		}
		b, gap := q.log.unpackItem(item)
		if gap != nil {
			continue
		}
		for i := range b.records {
			if n, err := b.records[i].Notification(); err == nil && n.GetQuarantineId() == id {
				return b.records[i].Position, true, nil
			}
		}
	}
	return Position{}, false, nil
}

func (q *Quarantine) describe(ctx context.Context) (entries, bytes uint64, oldest time.Time, err error) {
	info, err := q.kv.Info(ctx)
	if err != nil {
		return 0, 0, time.Time{}, q.log.storeError(err)
	}
	return uint64(info.Keys), uint64(info.Bytes), info.Oldest, nil
}
