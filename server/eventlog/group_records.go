package eventlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
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

// Groups stores what must outlive a gateway of the groups that share the log. Its methods may be called concurrently.
//
// A group is one record, and that is the truth about it. How far it has come in the log is stored for each of its incarnations: a new
// one begins when the group is moved. How far it has come inside a record batch is stored beside that, and what it has parked in a
// table of its own.
//
// One gateway at a time serves a group. On a log that several gateways share that one is the one that acquired it last: what another
// one still writes about its offsets is refused from then on.
type Groups struct {
	log    *Log
	kv     store.KV
	parked store.KV
	opened tenure // of all groups, where no other gateway serves any

	background sync.WaitGroup // removals of what is not needed any more

	mu       sync.Mutex
	acquired map[string]tenure    // mu; by group, on a shared log
	offsets  map[string]*offsets  // mu; by incarnation, of groups that are served here
	left     map[string]time.Time // mu; by incarnation: when a reader left without coming to its End
	replayed chan struct{}        // mu; closed when something is given to a group again
}

// tenure is when a gateway began to serve a group, and where the sources ended then.
type tenure struct {
	since time.Time
	ends  [len(sources)]uint64
}

func openGroups(ctx context.Context, l *Log) (*Groups, error) {
	kv, err := l.engine.OpenKV(ctx, "groups", store.KVOptions{})
	if err != nil {
		return nil, err
	}
	parked, err := l.engine.OpenKV(ctx, "parked", store.KVOptions{MaxAge: l.options.ParkedAge, MaxBytes: l.options.ParkedBytes})
	if err != nil {
		return nil, err
	}
	g := &Groups{
		log: l, kv: kv, parked: parked, replayed: make(chan struct{}), acquired: make(map[string]tenure),
		offsets: make(map[string]*offsets), left: make(map[string]time.Time),
	}
	if g.opened, err = g.beginTenure(ctx); err != nil {
		return nil, err
	}
	return g, g.tidy(ctx)
}

func (g *Groups) beginTenure(ctx context.Context) (tenure, error) {
	t := tenure{since: time.Now()}
	t.ends[SourceLog] = g.log.tail.headInfo().position.Stream
	for value, err := range g.parked.List(ctx, replayPrefix, "", true) {
		if err != nil {
			return t, g.storeError("list replays", err)
		}
		t.ends[SourceReplay] = max(t.ends[SourceReplay], value.Revision)
	}
	return t, nil
}

// Acquire begins to serve a group here, on a log that several gateways share: what another gateway stored of it counts, and what was
// known of it here does not. Errors: ErrUnavailable, ErrClosed.
func (g *Groups) Acquire(ctx context.Context, name string) error {
	if _, err := g.log.Info(ctx); err != nil { // waits until the head is known here
		return err
	}
	t, err := g.beginTenure(ctx)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(name)
	g.acquired[name] = t
	return nil
}

// Release says that a group is not served here any more.
func (g *Groups) Release(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(name)
	delete(g.acquired, name)
}

// forget drops what is known of a group. The caller holds mu.
func (g *Groups) forget(name string) {
	for key := range g.offsets {
		if strings.HasPrefix(key, name+".") {
			delete(g.offsets, key)
		}
	}
	for key := range g.left {
		if strings.HasPrefix(key, name+".") {
			delete(g.left, key)
		}
	}
}

// tenureOf returns since when a group is served here; false: it is not.
func (g *Groups) tenureOf(name string) (tenure, bool) {
	if !g.log.shared() {
		return g.opened, true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t, ok := g.acquired[name]
	return t, ok
}

// tidy removes what crashes have left of groups that are gone. Keys are listed before records are: what another gateway creates
// meanwhile is not taken for left.
func (g *Groups) tidy(ctx context.Context) error {
	var keys, parkedKeys []string
	for _, prefix := range []string{offsetPrefix, lendingPrefix, progressPrefix} {
		if err := g.keysUnder(ctx, g.kv, prefix, &keys); err != nil {
			return err
		}
	}
	for _, prefix := range []string{parkedPrefix, replayPrefix} {
		if err := g.keysUnder(ctx, g.parked, prefix, &parkedKeys); err != nil {
			return err
		}
	}
	records, err := g.List(ctx)
	if err != nil {
		return err
	}
	known, names := make(map[string]bool), make(map[string]bool)
	for _, record := range records {
		known[incarnationKey(record)], names[record.GetGroup().GetName()] = true, true
	}
	if err := g.remove(ctx, g.kv, slices.DeleteFunc(keys, func(key string) bool {
		parts := strings.SplitN(key, ".", 4)
		return len(parts) > 2 && known[parts[1]+"."+parts[2]]
	})); err != nil {
		return err
	}
	return g.remove(ctx, g.parked, slices.DeleteFunc(parkedKeys, func(key string) bool {
		name := strings.SplitN(key, ".", 3)[1]
		return names[name] || g.recordCorrupt(ctx, name)
	}))
}

// keysUnder appends the keys of a table under a prefix.
func (g *Groups) keysUnder(ctx context.Context, kv store.KV, prefix string, keys *[]string) error {
	for value, err := range kv.List(ctx, prefix, "", true) {
		if err != nil {
			return g.storeError("list", err)
		}
		*keys = append(*keys, value.Key)
	}
	return nil
}

// recordCorrupt reports whether the record of a group is there and does not hold: what it has parked is not removed then.
func (g *Groups) recordCorrupt(ctx context.Context, name string) bool {
	_, _, err := g.Get(ctx, name)
	return errors.Is(err, ErrDamaged)
}

// remove removes values, many at the same moment so that they share syncs.
func (g *Groups) remove(ctx context.Context, kv store.KV, keys []string) error {
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
func (g *Groups) storeError(what string, err error) error {
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
func incarnationKey(record *storagev1.GroupRecord) string {
	return record.GetGroup().GetName() + "." + incarnation(record)
}

// Create returns nil only if the group is durable. Errors: ErrNoGroup if the name cannot be one, ErrGroupExists, ErrTooManyGroups
// (gateways that create groups at the same moment may pass MaxGroups a little), ErrGroupChanged if others create and delete it all
// the while, ErrUnavailable, ErrClosed. After ErrUnavailable the group may or may not exist.
func (g *Groups) Create(ctx context.Context, record *storagev1.GroupRecord) error {
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

// Get returns a group and its revision, for Put. Errors: ErrNoGroup, ErrDamaged, ErrUnavailable, ErrClosed.
func (g *Groups) Get(ctx context.Context, name string) (*storagev1.GroupRecord, uint64, error) {
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

// List returns all groups, by name. One whose record is damaged is left out, and logged. Errors: ErrUnavailable, ErrClosed.
func (g *Groups) List(ctx context.Context) ([]*storagev1.GroupRecord, error) {
	var records []*storagev1.GroupRecord
	for value, err := range g.kv.List(ctx, recordPrefix, "", false) {
		name := strings.TrimPrefix(value.Key, recordPrefix)
		var record *storagev1.GroupRecord
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

// Put replaces the record of a group that still has a revision, and returns nil only if that is durable. Where the incarnation differs,
// the group was moved: what is kept of the old one is removed, and claims of it are worth nothing any more. Errors: ErrGroupChanged,
// ErrNoGroup, ErrUnavailable, ErrClosed.
func (g *Groups) Put(ctx context.Context, record *storagev1.GroupRecord, revision uint64) error {
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
func (g *Groups) removeIncarnation(ctx context.Context, record *storagev1.GroupRecord) error {
	key := incarnationKey(record)
	g.mu.Lock()
	delete(g.offsets, key)
	delete(g.left, key)
	g.mu.Unlock()
	keys := []string{offsetPrefix + key, lendingPrefix + key}
	if err := g.keysUnder(ctx, g.kv, progressPrefix+key+".", &keys); err != nil {
		return err
	}
	return g.remove(ctx, g.kv, keys)
}

// Delete deletes a group and what it has parked. It returns nil only if the group is gone for good; what cannot be removed of the
// rest then goes when a log is opened. Errors: ErrNoGroup, ErrGroupChanged, ErrUnavailable, ErrClosed.
func (g *Groups) Delete(ctx context.Context, name string) error {
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
	var parked []string
	err = errors.Join(g.keysUnder(ctx, g.parked, parkedPrefix+name+".", &parked), g.keysUnder(ctx, g.parked, replayPrefix+name+".", &parked))
	err = errors.Join(err, g.remove(ctx, g.parked, parked))
	if record != nil {
		err = errors.Join(err, g.removeIncarnation(ctx, record))
	}
	if err != nil {
		g.log.options.Logger.Warn("deleted group not removed as a whole", "group", name, "error", err)
	}
	return nil
}

func progressKey(record *storagev1.GroupRecord, source Source, stream uint64) string {
	return fmt.Sprintf("%s%s.%v.%020d", progressPrefix, incarnationKey(record), source, stream)
}

// Progress returns what is stored of a group's progress with a record batch and its revision, for PutProgress; nil and 0 if nothing
// is. Errors: ErrNoGroup if the name cannot be one, ErrDamaged, ErrUnavailable, ErrClosed.
func (g *Groups) Progress(ctx context.Context, record *storagev1.GroupRecord, source Source, stream uint64) (*storagev1.BatchProgress, uint64, error) {
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
	progress := new(storagev1.BatchProgress)
	if err := proto.Unmarshal(value.Data, progress); err != nil {
		return nil, value.Revision, fmt.Errorf("progress with record batch %d: %w: %w", stream, ErrDamaged, err)
	}
	return progress, value.Revision, nil
}

// PutProgress replaces what is stored of a group's progress with a record batch, if that still has a revision; 0: if nothing is
// stored. It returns the new revision, only if that is durable. It is removed when the batch is settled. Errors: ErrGroupChanged,
// ErrNoGroup if the name cannot be one, ErrUnavailable, ErrClosed. It does not look whether the group exists.
func (g *Groups) PutProgress(ctx context.Context, record *storagev1.GroupRecord, source Source, stream uint64,
	progress *storagev1.BatchProgress, revision uint64,
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

// fenced is a value that only the gateway that serves a group changes: what another one wrote since it was read is not overwritten.
// It belongs to one goroutine at a time.
type fenced struct {
	key      string
	revision uint64
	tried    []byte // was put, and may have been stored; nil: nothing is unclear
}

// put replaces the value. Errors: ErrGroupChanged when another gateway serves the group by now; those of the table.
func (f *fenced) put(ctx context.Context, g *Groups, data []byte) error {
	for {
		revision, err := g.kv.Put(ctx, f.key, data, f.revision)
		switch {
		case err == nil:
			f.revision, f.tried = revision, nil
			return nil
		case errors.Is(err, store.ErrUnavailable):
			f.tried = data
			return err
		case !errors.Is(err, store.ErrConflict) || f.tried == nil:
			return err
		}
		stored, readErr := g.kv.Get(ctx, f.key)
		if readErr != nil || !bytes.Equal(stored.Data, f.tried) {
			return err
		}
		f.revision, f.tried = stored.Revision, nil
	}
}
