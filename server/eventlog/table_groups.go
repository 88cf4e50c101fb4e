package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/store"
)

// The keys of the table of groups: a group's record under its name; under name and incarnation the first record batch that is not
// settled, what may be leased, and, by source and stream sequence, the progress with a batch, empty if all of it is settled.
const (
	recordPrefix   = "record."
	offsetPrefix   = "offset."
	lendingPrefix  = "lending."
	progressPrefix = "progress."
)

// tableGroups are the [Groups] of a log that only this gateway has open.
type tableGroups struct {
	log    *Log
	kv     store.KV
	parked store.KV
	opened time.Time            // when the log was
	ends   [len(sources)]uint64 // last stream sequences at that time

	background sync.WaitGroup // removals of what is not needed any more

	mu       sync.Mutex
	offsets  map[string]*offsets  // mu; by incarnation
	left     map[string]time.Time // mu; by incarnation: when a reader left without coming to its End
	replayed chan struct{}        // mu; closed when something is given to a group again
}

var _ Groups = (*tableGroups)(nil)

func openTableGroups(ctx context.Context, l *Log, kv, parked store.KV) (*tableGroups, error) {
	g := &tableGroups{
		log: l, kv: kv, parked: parked, opened: time.Now(), replayed: make(chan struct{}),
		offsets: make(map[string]*offsets), left: make(map[string]time.Time),
	}
	g.ends[SourceLog] = l.tail.headInfo().position.Stream
	for value, err := range parked.List(ctx, replayPrefix, "", true) {
		if err != nil {
			return nil, err
		}
		g.ends[SourceReplay] = max(g.ends[SourceReplay], value.Revision)
	}
	return g, g.tidy(ctx)
}

// tidy removes what crashes have left of groups that are gone.
func (g *tableGroups) tidy(ctx context.Context) error {
	records, err := g.List(ctx)
	if err != nil {
		return err
	}
	known, names := make(map[string]bool), make(map[string]bool)
	for _, record := range records {
		known[incarnationKey(record)], names[record.GetGroup().GetName()] = true, true
	}
	for _, prefix := range []string{offsetPrefix, lendingPrefix, progressPrefix} {
		if err := g.removeKeys(ctx, g.kv, prefix, func(key string) bool {
			parts := strings.SplitN(strings.TrimPrefix(key, prefix), ".", 3)
			return !known[strings.Join(parts[:min(2, len(parts))], ".")]
		}); err != nil {
			return err
		}
	}
	for _, prefix := range []string{parkedPrefix, replayPrefix} {
		if err := g.removeKeys(ctx, g.parked, prefix, func(key string) bool {
			name, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), ".")
			return !names[name] && !g.recordCorrupt(ctx, name)
		}); err != nil {
			return err
		}
	}
	return nil
}

// recordCorrupt reports whether the record of a group is there and does not hold: what it has parked is not removed then.
func (g *tableGroups) recordCorrupt(ctx context.Context, name string) bool {
	_, _, err := g.Get(ctx, name)
	return errors.Is(err, ErrDamaged)
}

// removeKeys removes the values of a table under a prefix whose keys are chosen.
func (g *tableGroups) removeKeys(ctx context.Context, kv store.KV, prefix string, chosen func(key string) bool) error {
	var keys []string
	for value, err := range kv.List(ctx, prefix, "", true) {
		if err != nil {
			return g.storeError("list", err)
		}
		if chosen(value.Key) {
			keys = append(keys, value.Key)
		}
	}
	return g.remove(ctx, kv, keys)
}

// remove removes values, many at the same moment so that they share syncs.
func (g *tableGroups) remove(ctx context.Context, kv store.KV, keys []string) error {
	const together = 64
	var errs sync.Map
	for len(keys) > 0 {
		var removing sync.WaitGroup
		for _, key := range keys[:min(together, len(keys))] {
			removing.Go(func() {
				if err := kv.Delete(ctx, key, store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
					errs.Store(key, err)
				}
			})
		}
		removing.Wait()
		keys = keys[min(together, len(keys)):]
	}
	var failed error
	errs.Range(func(_, err any) bool { failed = g.storeError("remove", err.(error)); return false })
	return failed
}

// storeError gives an error of a table the meaning that it has for a caller.
func (g *tableGroups) storeError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrConflict):
		return fmt.Errorf("%s: %w", what, ErrGroupChanged)
	case errors.Is(err, store.ErrCorrupt):
		return fmt.Errorf("%s: %w: %w", what, ErrDamaged, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, g.log.storeError(err))
}

// incarnationKey names an incarnation of a group within keys.
func incarnationKey(record *linksgatev1.GroupRecord) string {
	return record.GetGroup().GetName() + "." + incarnation(record)
}

func (g *tableGroups) Create(ctx context.Context, record *linksgatev1.GroupRecord) error {
	name := record.GetGroup().GetName()
	if !validName(name) {
		return fmt.Errorf("create group %q: %w", name, ErrNoGroup)
	}
	data, err := proto.Marshal(record)
	if err != nil {
		return fmt.Errorf("create group %s: %w", name, err)
	}
	revision := store.Absent
	stored, err := g.kv.Get(ctx, recordPrefix+name)
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s", ErrGroupExists, name)
	case errors.Is(err, store.ErrCorrupt): // what cannot be read is replaced
		revision = stored.Revision
	case !errors.Is(err, store.ErrNotFound):
		return g.storeError("create group "+name, err)
	}
	count := 0
	for _, err := range g.kv.List(ctx, recordPrefix, "", true) {
		if err != nil {
			return g.storeError("count groups", err)
		}
		count++
	}
	if count >= MaxGroups && revision == store.Absent {
		return fmt.Errorf("%w: there are %d", ErrTooManyGroups, count)
	}
	if _, err := g.kv.Put(ctx, recordPrefix+name, data, revision); errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("%w: %s", ErrGroupExists, name)
	} else if err != nil {
		return g.storeError("create group "+name, err)
	}
	return nil
}

func (g *tableGroups) Get(ctx context.Context, name string) (*linksgatev1.GroupRecord, uint64, error) {
	if !validName(name) {
		return nil, 0, fmt.Errorf("%w: %q", ErrNoGroup, name)
	}
	value, err := g.kv.Get(ctx, recordPrefix+name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, fmt.Errorf("%w: %s", ErrNoGroup, name)
	}
	if err != nil {
		return nil, value.Revision, g.storeError("group "+name, err)
	}
	record, err := parseRecord(name, value.Data)
	return record, value.Revision, err
}

func (g *tableGroups) List(ctx context.Context) ([]*linksgatev1.GroupRecord, error) {
	var records []*linksgatev1.GroupRecord
	for value, err := range g.kv.List(ctx, recordPrefix, "", false) {
		name := strings.TrimPrefix(value.Key, recordPrefix)
		var record *linksgatev1.GroupRecord
		if err == nil {
			record, err = parseRecord(name, value.Data)
		}
		switch {
		case errors.Is(err, store.ErrCorrupt), errors.Is(err, ErrDamaged):
			g.log.options.Logger.Error("group record corrupt", "group", name, "error", err)
		case err != nil:
			return nil, g.storeError("list groups", err)
		default:
			records = append(records, record)
		}
	}
	sortRecords(records)
	return records, nil
}

func (g *tableGroups) Put(ctx context.Context, record *linksgatev1.GroupRecord, revision uint64) error {
	name := record.GetGroup().GetName()
	old, current, err := g.Get(ctx, name)
	switch {
	case err != nil:
		return err
	case current != revision:
		return fmt.Errorf("store group %s: %w", name, ErrGroupChanged)
	}
	data, err := proto.Marshal(record)
	if err != nil {
		return fmt.Errorf("store group %s: %w", name, err)
	}
	if _, err := g.kv.Put(ctx, recordPrefix+name, data, revision); err != nil {
		return g.storeError("store group "+name, err)
	}
	// A crash from here on leaves what the old incarnation had, which goes when a log is opened.
	if incarnation(old) != incarnation(record) {
		if err := g.removeIncarnation(ctx, old); err != nil {
			g.log.options.Logger.Warn("old offsets not removed", "group", name, "error", err)
		}
	}
	return nil
}

// removeIncarnation removes what belongs to one incarnation of a group.
func (g *tableGroups) removeIncarnation(ctx context.Context, record *linksgatev1.GroupRecord) error {
	key := incarnationKey(record)
	g.mu.Lock()
	delete(g.offsets, key)
	delete(g.left, key)
	g.mu.Unlock()
	return errors.Join(
		g.removeKeys(ctx, g.kv, progressPrefix+key+".", func(string) bool { return true }),
		g.remove(ctx, g.kv, []string{offsetPrefix + key, lendingPrefix + key}))
}

func (g *tableGroups) Delete(ctx context.Context, name string) error {
	record, revision, err := g.Get(ctx, name)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	if err := g.kv.Delete(ctx, recordPrefix+name, revision); errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %s", ErrNoGroup, name)
	} else if err != nil {
		return g.storeError("delete group "+name, err)
	}
	// A crash from here on leaves what goes when a log is opened.
	err = errors.Join(
		g.removeKeys(ctx, g.parked, parkedPrefix+name+".", func(string) bool { return true }),
		g.removeKeys(ctx, g.parked, replayPrefix+name+".", func(string) bool { return true }))
	if record != nil {
		err = errors.Join(err, g.removeIncarnation(ctx, record))
	}
	if err != nil {
		g.log.options.Logger.Warn("deleted group not removed as a whole", "group", name, "error", err)
	}
	return nil
}

func progressKey(record *linksgatev1.GroupRecord, source Source, stream uint64) string {
	return fmt.Sprintf("%s%s.%v.%020d", progressPrefix, incarnationKey(record), source, stream)
}

func (g *tableGroups) Progress(ctx context.Context, record *linksgatev1.GroupRecord, source Source, stream uint64) (*linksgatev1.BatchProgress, uint64, error) {
	if !validName(record.GetGroup().GetName()) {
		return nil, 0, fmt.Errorf("read progress: %w", ErrNoGroup)
	}
	value, err := g.kv.Get(ctx, progressKey(record, source, stream))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, value.Revision, g.storeError("read progress", err)
	}
	progress := new(linksgatev1.BatchProgress)
	if err := proto.Unmarshal(value.Data, progress); err != nil {
		return nil, value.Revision, fmt.Errorf("progress with record batch %d: %w: %w", stream, ErrDamaged, err)
	}
	return progress, value.Revision, nil
}

func (g *tableGroups) PutProgress(ctx context.Context, record *linksgatev1.GroupRecord, source Source, stream uint64,
	progress *linksgatev1.BatchProgress, revision uint64,
) (uint64, error) {
	if !validName(record.GetGroup().GetName()) {
		return 0, fmt.Errorf("store progress: %w", ErrNoGroup)
	}
	data, err := proto.Marshal(progress)
	if err != nil {
		return 0, fmt.Errorf("store progress: %w", err)
	}
	if source == SourceLog {
		o, err := g.offsetsOf(ctx, record)
		if err != nil {
			return 0, err
		}
		o.noteProgress(stream)
	}
	stored, err := g.kv.Put(ctx, progressKey(record, source, stream), data, revision)
	return stored, g.storeError("store progress", err)
}

// Watch implements [Groups]: nobody else changes anything.
func (g *tableGroups) Watch(func(string)) (func(), error) { return func() {}, g.log.usable() }

// Replica implements [Groups].
func (g *tableGroups) Replica() uint64 { return 0 }

// Answer implements [Groups]: nobody asks.
func (g *tableGroups) Answer(func(context.Context, string, []byte) []byte) (func(), error) {
	return func() {}, g.log.usable()
}

// Ask implements [Groups].
func (g *tableGroups) Ask(context.Context, uint64, string, []byte) ([]byte, error) {
	return nil, ErrNoPeer
}

// AskAll implements [Groups].
func (g *tableGroups) AskAll(context.Context, string, []byte, time.Duration) [][]byte { return nil }
