package eventlog

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// groupRecord returns the record of a group that starts at a place.
func groupRecord(name string, from Cursor) *storagev1.GroupRecord {
	return &storagev1.GroupRecord{
		Group: &linksgatev1.Group{
			Name: name, Ordering: linksgatev1.GroupOrdering_GROUP_ORDERING_NONE, LeaseDuration: durationpb.New(time.Hour), MaxAttempts: 10,
		},
		Generation: []byte(name + "-first"), TokenKey: []byte("key"), StartSequence: Position(from).Sequence(),
	}
}

func mustCreate(t *testing.T, l *Log, record *storagev1.GroupRecord) *storagev1.GroupRecord {
	t.Helper()
	if err := l.Groups().Create(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	return record
}

func names(records []*storagev1.GroupRecord) []string {
	var all []string
	for _, record := range records {
		all = append(all, record.GetGroup().GetName())
	}
	return all
}

func listed(t *testing.T, l *Log) []string {
	t.Helper()
	records, err := l.Groups().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return names(records)
}

// consumers returns the names of the groups' consumers in both streams.
func TestGroupsAreKept(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, onDisk{Dir: dir})
	for _, name := range []string{"b", "a", "c"} {
		mustCreate(t, l, groupRecord(name, Cursor{Stream: 1}))
	}
	if err := l.Groups().Create(t.Context(), groupRecord("a", Cursor{Stream: 1})); !errors.Is(err, ErrGroupExists) {
		t.Errorf("create again: %v", err)
	}
	if err := l.Groups().Delete(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if err := l.Groups().Delete(t.Context(), "b"); !errors.Is(err, ErrNoGroup) {
		t.Errorf("delete again: %v", err)
	}
	if _, _, err := l.Groups().Get(t.Context(), "b"); !errors.Is(err, ErrNoGroup) {
		t.Errorf("get a deleted group: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	l = openLog(t, onDisk{Dir: dir})
	if got := listed(t, l); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("groups %v", got)
	}
	want := groupRecord("a", Cursor{Stream: 1})
	got, revision, err := l.Groups().Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
	mustCreate(t, l, groupRecord("b", Cursor{Stream: 1})) // the name is free again
	want.Group.MaxAttempts = 3
	if err := l.Groups().Put(t.Context(), want, revision); err != nil {
		t.Fatal(err)
	}
	if err := l.Groups().Put(t.Context(), want, revision); !errors.Is(err, ErrGroupChanged) {
		t.Errorf("put over a change: %v", err)
	}
	if err := l.Groups().Put(t.Context(), groupRecord("d", Cursor{Stream: 1}), 1); !errors.Is(err, ErrNoGroup) {
		t.Errorf("put a group that does not exist: %v", err)
	}
}

func TestConcurrentChangesOfAGroupAreOne(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	run := func(change func() error, refused error) {
		t.Helper()
		const tries = 8
		results := make(chan error, tries)
		for range tries {
			go func() { results <- change() }()
		}
		done := 0
		for range tries {
			switch err := <-results; {
			case err == nil:
				done++
			case !errors.Is(err, refused):
				t.Errorf("refused with %v, want %v", err, refused)
			}
		}
		if done != 1 {
			t.Errorf("%d of %d were done", done, tries)
		}
	}
	run(func() error { return l.Groups().Create(context.Background(), groupRecord("a", Cursor{Stream: 1})) }, ErrGroupExists)
	record, revision, err := l.Groups().Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	run(func() error {
		return l.Groups().Put(context.Background(), proto.CloneOf(record), revision)
	}, ErrGroupChanged)

	// Once a group is deleted there can be another one of its name, although what it left is being removed still.
	for range 50 {
		deleted := make(chan error)
		go func() { deleted <- l.Groups().Delete(context.Background(), "a") }()
		for err = nil; !errors.Is(err, ErrNoGroup); {
			if _, _, err = l.Groups().Get(t.Context(), "a"); err != nil && !errors.Is(err, ErrNoGroup) {
				t.Fatal(err)
			}
		}
		mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
		if err := <-deleted; err != nil {
			t.Error(err)
		}
	}
}

func TestNamesOfGroupsAreChecked(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	g := l.Groups()
	mustAppend(t, l, notification(1))
	record, err := l.Get(t.Context(), Position{Stream: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "*", ">", "a.b", "a.record", "A", "1a", "-a", "a b", "a*", string(make([]byte, 64))} {
		bad := groupRecord(name, Cursor{Stream: 1})
		calls := map[string]error{"create": g.Create(t.Context(), bad), "delete": g.Delete(t.Context(), name), "put": g.Put(t.Context(), bad, 1)}
		_, _, calls["get"] = g.Get(t.Context(), name)
		_, calls["attach"] = g.Attach(t.Context(), bad)
		_, calls["state"] = g.State(t.Context(), bad)
		_, _, calls["progress"] = g.Progress(t.Context(), bad, SourceLog, 1)
		_, calls["put progress"] = g.PutProgress(t.Context(), bad, SourceLog, 1, &storagev1.BatchProgress{}, 0)
		calls["park"] = g.Park(t.Context(), name, record, linksgatev1.ParkReason_PARK_REASON_REQUESTED, "", 1)
		calls["replay"] = g.Replay(t.Context(), name, l.NotificationID(Position{Stream: 1}))
		calls["purge"] = g.Purge(t.Context(), name, l.NotificationID(Position{Stream: 1}))
		for _, calls["parked"] = range g.Parked(t.Context(), name, "") {
		}
		for call, err := range calls {
			if !errors.Is(err, ErrNoGroup) {
				t.Errorf("%s %q: %v", call, name, err)
			}
		}
	}
}

func TestProgressIsComparedAndSet(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, onDisk{Dir: dir})
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	first := &storagev1.BatchProgress{Notifications: []*storagev1.NotificationProgress{{Index: 1, Attempts: 2}}}
	revision, err := l.Groups().PutProgress(t.Context(), record, SourceLog, 7, first, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []uint64{0, revision - 1, revision + 1} {
		if _, err := l.Groups().PutProgress(t.Context(), record, SourceLog, 7, first, wrong); !errors.Is(err, ErrGroupChanged) {
			t.Errorf("revision %d instead of %d: %v", wrong, revision, err)
		}
	}
	second := &storagev1.BatchProgress{Notifications: []*storagev1.NotificationProgress{{Index: 1, Settled: true}}}
	if revision, err = l.Groups().PutProgress(t.Context(), record, SourceLog, 7, second, revision); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, onDisk{Dir: dir})
	got, of, err := l.Groups().Progress(t.Context(), record, SourceLog, 7)
	if err != nil || of != revision {
		t.Errorf("revision %d, want %d; %v", of, revision, err)
	}
	if diff := cmp.Diff(second, got, protocmp.Transform()); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
	for _, source := range []Source{SourceLog, SourceReplay} {
		if got, revision, err := l.Groups().Progress(t.Context(), record, source, 8-uint64(source)); got != nil || revision != 0 || err != nil {
			t.Errorf("of another batch: %v %d %v", got, revision, err)
		}
	}
}

// A group whose record is damaged keeps its name from nobody.
