// Package audit answers: who changed what?
//
// A [Trail] is a bounded table of entries, one for each change that a caller made or tried to make, and for each change of the
// configuration. An entry holds names, ids and counts; never a body, a token or a secret. Entries are written after what they are
// about: that an entry cannot be stored does not undo a change, and is logged with the entry. So the gateway's log has them too.
package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/store"
)

// Bounds of a trail, and of an entry.
const (
	MaxBytes  = 16 << 20
	MaxAge    = 400 * 24 * time.Hour
	maxText   = 500 // bytes of a value
	prefix    = "entry."
	writeTime = 5 * time.Second
)

// ErrBadCursor is returned for a text that [Trail.Read] has not given.
var ErrBadCursor = errors.New("not a page token of this list")

// Trail is the audit log. Its methods may be called concurrently.
type Trail struct {
	table  store.KV
	logger *slog.Logger

	mu   sync.Mutex
	last uint64 // mu; the highest number given
}

// Open opens the trail of an engine.
func Open(ctx context.Context, engine store.Engine, logger *slog.Logger) (*Trail, error) {
	table, err := engine.OpenKV(ctx, "audit", store.KVOptions{MaxAge: MaxAge, MaxBytes: MaxBytes})
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return &Trail{table: table, logger: logger}, nil
}

// Record logs an entry and stores it, durably when it returns. Its time is set here. Whoever made the change may be gone: it does not
// end with ctx.
func (t *Trail) Record(ctx context.Context, entry *linksgatev1.AuditEntry) {
	entry.At = timestamppb.Now()
	entry.Detail = shorten(entry.GetDetail())
	for name, value := range entry.GetSubject() {
		entry.Subject[name] = shorten(value)
	}
	t.log(entry)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	if err := t.put(ctx, entry); err != nil {
		t.logger.Error("audit entry not stored", "action", entry.GetAction(), "caller", entry.GetCaller(), "error", err)
	}
}

func shorten(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

func (t *Trail) log(entry *linksgatev1.AuditEntry) {
	attributes := []any{
		"caller", entry.GetCaller(), "credential", entry.GetCredential(), "source", entry.GetSourceAddress(), "action", entry.GetAction(),
		"outcome", entry.GetOutcome(),
	}
	for _, name := range slices.Sorted(maps.Keys(entry.GetSubject())) {
		attributes = append(attributes, name, entry.GetSubject()[name])
	}
	if entry.GetCount() != 0 {
		attributes = append(attributes, "count", entry.GetCount())
	}
	if entry.GetDetail() != "" {
		attributes = append(attributes, "detail", entry.GetDetail())
	}
	t.logger.Info("audit", attributes...)
}

func (t *Trail) put(ctx context.Context, entry *linksgatev1.AuditEntry) error {
	data, err := proto.Marshal(entry)
	if err != nil {
		return err
	}
	for {
		t.mu.Lock()
		t.last = max(t.last+1, uint64(time.Now().UnixMicro())) // so that numbers grow over restarts too
		number := t.last
		t.mu.Unlock()
		_, err := t.table.Put(ctx, keyOf(number), data, store.Absent)
		if !errors.Is(err, store.ErrConflict) { // else another gateway was faster
			return err
		}
	}
}

func keyOf(number uint64) string { return fmt.Sprintf("%s%020d", prefix, number) }

// Entry is one step of reading.
type Entry struct {
	*linksgatev1.AuditEntry
	// Cursor is where to read on after this entry.
	Cursor string
}

// Read yields entries in the order in which they were made: after a cursor, or else those made at a time or later (all, if that is
// zero). One that is corrupt says so in its detail. Errors: ErrBadCursor, those of the table.
func (t *Trail) Read(ctx context.Context, after string, since time.Time) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		from := ""
		if !since.IsZero() && since.UnixMicro() > 0 {
			from = keyOf(uint64(since.UnixMicro()) - 1)
		}
		if after != "" {
			number, err := strconv.ParseUint(after, 10, 64)
			if err != nil {
				yield(Entry{}, ErrBadCursor)
				return
			}
			from = keyOf(number)
		}
		for value, err := range t.table.List(ctx, prefix, from, false) {
			if err != nil && !errors.Is(err, store.ErrCorrupt) {
				yield(Entry{}, fmt.Errorf("read the audit log: %w", err))
				return
			}
			entry := new(linksgatev1.AuditEntry)
			if err != nil || proto.Unmarshal(value.Data, entry) != nil {
				entry = &linksgatev1.AuditEntry{At: timestamppb.New(value.Time), Detail: "this entry is corrupt on disk"}
			}
			if !yield(Entry{entry, strings.TrimLeft(strings.TrimPrefix(value.Key, prefix), "0")}, nil) {
				return
			}
		}
	}
}
