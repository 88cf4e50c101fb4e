package eventlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// quarantineMark stands before the number in an entry's id.
const quarantineMark = "-q"

// Quarantine is the requests that were refused, in a table beside the log, bounded in size and age. Its methods may be called
// concurrently.
type Quarantine struct {
	log *Log
	releases
}

// Quarantine returns the log's quarantine.
func (l *Log) Quarantine() *Quarantine { return l.quarantine }

// Add returns nil only if the entry is durable, under the same policy as the log. Its id must not be set.
func (q *Quarantine) Add(ctx context.Context, entry *linksgatev1.QuarantineEntry) error {
	data, err := proto.Marshal(entry)
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if len(data) > MaxRecordBytes {
		return fmt.Errorf("quarantine: %w", ErrTooLarge)
	}
	if err := q.put(ctx, data); err != nil {
		return fmt.Errorf("quarantine: %w", err)
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
	err := q.list(ctx, start, func(number uint64, data []byte, err error) bool {
		var entry *linksgatev1.QuarantineEntry
		if err == nil {
			entry, err = q.unmarshal(number, data)
		}
		if err != nil { // the others can be read
			entry = &linksgatev1.QuarantineEntry{Id: q.id(number), Detail: err.Error()}
		}
		return yield(entry)
	})
	if err != nil {
		return q.log.readError(ctx, fmt.Errorf("read the quarantine: %w", err))
	}
	return nil
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
	data, err := q.get(ctx, sequence)
	if err != nil {
		return nil, err
	}
	return q.unmarshal(sequence, data)
}

var errNoEntry = fmt.Errorf("quarantine entry %w: it was released or purged, or its time was over", ErrNotFound)

// Remove deletes an entry. Errors: as for Get.
func (q *Quarantine) Remove(ctx context.Context, id string) error {
	sequence, err := q.parseID(id)
	if err != nil {
		return err
	}
	return q.remove(ctx, sequence)
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
// is durable. However often it is called for one entry, at once or after a crash, the log holds the notification once. A crash before
// the entry is removed leaves it to be released again, with Before.
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
		position, released.Before, err = q.release(ctx, sequence, data)
		return position, err
	}
	if key, ok := q.log.keyOf(n); ok {
		released.Position, released.Copy, err = q.log.once(ctx, key, write)
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
	entries, bytes, oldest, err := q.describe(ctx)
	return QuarantineInfo{
		Entries: entries, Bytes: bytes, Oldest: oldest, MaxBytes: q.log.options.QuarantineBytes, MaxAge: q.log.options.QuarantineAge,
	}, err
}
