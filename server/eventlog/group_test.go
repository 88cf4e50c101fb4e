package eventlog

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// groupRecord returns the record of a group that starts at a place.
func groupRecord(name string, from Cursor) *linksgatev1.GroupRecord {
	return &linksgatev1.GroupRecord{
		Group: &linksgatev1.Group{
			Name: name, Ordering: linksgatev1.Ordering_ORDERING_NONE, LeaseDuration: durationpb.New(time.Hour), MaxAttempts: 10,
		},
		Incarnation: []byte(name + "-first"), TokenKey: []byte("key"), StartSequence: Position(from).Sequence(),
	}
}

// forgetful makes the engine give batches again soon after they were kept alive last.
func forgetful(record *linksgatev1.GroupRecord) *linksgatev1.GroupRecord {
	record.Group.LeaseDuration = durationpb.New(300*time.Millisecond - LeaseMargin)
	return record
}

func mustCreate(t *testing.T, l *Log, record *linksgatev1.GroupRecord) *linksgatev1.GroupRecord {
	t.Helper()
	if err := l.Groups().Create(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	return record
}

func mustPut(t *testing.T, l *Log, record *linksgatev1.GroupRecord) {
	t.Helper()
	_, revision, err := l.Groups().Get(t.Context(), record.GetGroup().GetName())
	if err == nil {
		err = l.Groups().Put(t.Context(), record, revision)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func names(records []*linksgatev1.GroupRecord) []string {
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
func consumers(t *testing.T, l *Log) []string {
	t.Helper()
	var all []string
	for _, source := range sources {
		lister := l.groups.stream(source).ConsumerNames(t.Context())
		for name := range lister.Name() {
			all = append(all, source.String()+" "+name)
		}
		if err := lister.Err(); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(all)
	return all
}

func TestGroupsAreKept(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir})
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

	l = openLog(t, Options{Dir: dir})
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
	l := openLog(t, Options{NoSync: true})
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
	l := openLog(t, Options{NoSync: true})
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
		_, calls["put progress"] = g.PutProgress(t.Context(), bad, SourceLog, 1, &linksgatev1.BatchProgress{}, 0)
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

// The bound is tested with the stream filled directly: a thousand groups take some seconds.
func TestTooManyGroupsAreRefused(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	for n := range MaxGroups {
		if _, err := l.engine.js.PublishAsync(recordSubject(fmt.Sprintf("g%d", n)), []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	<-l.engine.js.PublishAsyncComplete()
	if err := l.Groups().Create(t.Context(), groupRecord("one-more", Cursor{Stream: 1})); !errors.Is(err, ErrTooManyGroups) {
		t.Errorf("one group more than there may be: %v", err)
	}
}

// changes records what Watch tells.
type changes struct {
	mu   sync.Mutex
	told []string
	wake chan struct{}
}

func watch(t *testing.T, l *Log) (*changes, func()) {
	t.Helper()
	c := &changes{wake: make(chan struct{}, 1000)}
	stop, err := l.Groups().Watch(func(name string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.told = append(c.told, name)
		c.wake <- struct{}{}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return c, stop
}

// await waits until a change is told, and forgets it.
func (c *changes) await(t *testing.T, name string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		i := slices.Index(c.told, name)
		if i >= 0 {
			c.told = slices.Delete(c.told, i, i+1)
		}
		c.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-c.wake:
		case <-timeout:
			t.Fatalf("the change of %q was not told", name)
		}
	}
}

func TestChangesOfGroupsAreTold(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	seen, stop := watch(t, l)
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	seen.await(t, "a")
	mustPut(t, l, record)
	seen.await(t, "a")
	if err := l.Groups().Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	seen.await(t, "a")
	stop()
	mustCreate(t, l, groupRecord("b", Cursor{Stream: 1}))
	second, _ := watch(t, l)
	mustCreate(t, l, groupRecord("c", Cursor{Stream: 1}))
	second.await(t, "c")
	if len(seen.told) != 0 {
		t.Errorf("told after the end: %v", seen.told)
	}
}

// What is told can be read: it is not told before it is stored.
func TestChangesAreToldAfterTheyAreStored(t *testing.T) {
	l := openLog(t, Options{})
	const last = 20
	done := make(chan struct{}, last)
	stop, err := l.Groups().Watch(func(name string) {
		record, _, err := l.Groups().Get(context.Background(), name)
		if err != nil {
			t.Errorf("read what was told: %v", err)
		} else if record.GetGroup().GetMaxAttempts() == last {
			done <- struct{}{} // also when the change before is told late
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	record := groupRecord("a", Cursor{Stream: 1})
	record.Group.MaxAttempts = 1
	mustCreate(t, l, record)
	for n := uint32(2); n <= last; n++ {
		record.Group.MaxAttempts = n
		mustPut(t, l, record)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("the last change was not told, or told before it could be read")
	}
}

// What a crash leaves of a group that was being deleted or moved goes when the log is opened; what a crash kept from being made is made
// when the group is attached.
func TestCrashesBetweenTheStepsAreMended(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir, NoSync: true})
	mustAppend(t, l, notification(1))
	parked, err := l.Get(t.Context(), Position{Stream: 1})
	if err != nil {
		t.Fatal(err)
	}
	g := l.Groups()
	deleted, moved := mustCreate(t, l, groupRecord("deleted", Cursor{Stream: 1})), mustCreate(t, l, groupRecord("moved", Cursor{Stream: 1}))
	for range 2 { // the second one is replayed
		if err := g.Park(t.Context(), "deleted", parked, linksgatev1.ParkReason_PARK_REASON_REQUESTED, "", 1); err != nil {
			t.Fatal(err)
		}
		if err := g.Replay(t.Context(), "deleted", l.NotificationID(parked.Position)); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Park(t.Context(), "deleted", parked, linksgatev1.ParkReason_PARK_REASON_REQUESTED, "", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := g.PutProgress(t.Context(), deleted, SourceLog, 1, &linksgatev1.BatchProgress{}, 0); err != nil {
		t.Fatal(err)
	}
	// The first steps of Delete, Put and Create.
	stored, err := g.get(t.Context(), "deleted")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.put(t.Context(), "deleted", nil, stored.revision); err != nil {
		t.Fatal(err)
	}
	if stored, err = g.get(t.Context(), "moved"); err != nil {
		t.Fatal(err)
	}
	for _, incarnation := range []string{"first", "second"} {
		moved.Incarnation = []byte(incarnation)
		if _, err := g.PutProgress(t.Context(), moved, SourceLog, 1, &linksgatev1.BatchProgress{}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.put(t.Context(), "moved", moved, stored.revision); err != nil {
		t.Fatal(err)
	}
	if _, err := g.put(t.Context(), "created", groupRecord("created", Cursor{Stream: 1}), 0); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	l = openLog(t, Options{Dir: dir, NoSync: true})
	if got := consumers(t, l); len(got) != 0 {
		t.Errorf("consumers of groups that are gone: %v", got)
	}
	for _, stream := range []string{groupsStream, parkedStream} {
		s, err := l.engine.js.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{groupsStream: 3, parkedStream: 0}[stream] // two records, and the progress of one
		if got := s.CachedInfo().State.Msgs; got != want {
			t.Errorf("%s has %d messages, want %d", stream, got, want)
		}
	}
	for _, record := range []*linksgatev1.GroupRecord{moved, groupRecord("created", Cursor{Stream: 1})} {
		r := attach(t, l, record)
		if claims := fetch(t, r, SourceLog, 1); len(claims) != 1 {
			t.Errorf("group %s got %v", record.GetGroup().GetName(), claims)
		}
	}
}

func TestMovedGroupStartsAnew(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	for n := range 5 {
		mustAppend(t, l, notification(n))
	}
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	old := attach(t, l, record)
	claim := fetch(t, old, SourceLog, 1)[0]
	if _, err := l.Groups().PutProgress(t.Context(), record, SourceLog, 1, &linksgatev1.BatchProgress{}, 0); err != nil {
		t.Fatal(err)
	}
	moved := proto.CloneOf(record)
	moved.Incarnation, moved.StartSequence = []byte("second"), Position{Stream: 4}.Sequence()
	mustPut(t, l, moved)
	if err := claim.Settle(t.Context()); err != nil {
		t.Errorf("settle a claim of before: %v", err)
	}
	if _, err := old.Fetch(t.Context(), SourceLog, 1, time.Second); !errors.Is(err, ErrGroupChanged) {
		t.Errorf("fetch from where the group was: %v", err)
	}
	if _, err := l.Groups().Attach(t.Context(), record); !errors.Is(err, ErrGroupChanged) {
		t.Errorf("attach to where the group was: %v", err)
	}
	if progress, revision, err := l.Groups().Progress(t.Context(), record, SourceLog, 1); progress != nil || revision != 0 || err != nil {
		t.Errorf("progress of before: %v %d %v", progress, revision, err)
	}
	r := attach(t, l, moved)
	checkStreams(t, fetch(t, r, SourceLog, 2), 4, 5)
	if want, got := []string{"log " + consumerName(moved), "replay " + consumerName(moved)}, consumers(t, l); !slices.Equal(got, want) {
		t.Errorf("consumers %v, want %v", got, want)
	}
	if err := l.Groups().Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(t.Context(), SourceLog, 1, time.Second); !errors.Is(err, ErrNoGroup) {
		t.Errorf("fetch for a group that was deleted: %v", err)
	}
	if got := consumers(t, l); len(got) != 0 {
		t.Errorf("consumers %v", got)
	}
}

func TestLeaseDurationFollows(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	r := attach(t, l, record)
	changed := proto.CloneOf(record)
	changed.Group.LeaseDuration = durationpb.New(time.Minute)
	mustPut(t, l, changed)
	for range 2 {
		for _, source := range sources {
			consumer, err := l.groups.stream(source).Consumer(t.Context(), consumerName(record))
			if err != nil {
				t.Fatal(err)
			}
			if got := consumer.CachedInfo().Config.AckWait; got != time.Minute+LeaseMargin {
				t.Errorf("the engine waits %v", got)
			}
		}
		if _, err := r.State(t.Context()); err != nil { // with an older record
			t.Fatal(err)
		}
	}
}

func TestProgressIsComparedAndSet(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir})
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	first := &linksgatev1.BatchProgress{Notifications: []*linksgatev1.NotificationProgress{{Index: 1, Attempts: 2}}}
	revision, err := l.Groups().PutProgress(t.Context(), record, SourceLog, 7, first, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []uint64{0, revision - 1, revision + 1} {
		if _, err := l.Groups().PutProgress(t.Context(), record, SourceLog, 7, first, wrong); !errors.Is(err, ErrGroupChanged) {
			t.Errorf("revision %d instead of %d: %v", wrong, revision, err)
		}
	}
	second := &linksgatev1.BatchProgress{Notifications: []*linksgatev1.NotificationProgress{{Index: 1, Settled: true}}}
	if revision, err = l.Groups().PutProgress(t.Context(), record, SourceLog, 7, second, revision); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, Options{Dir: dir})
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
func TestDamagedGroupsAreReplacedAndDeleted(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	for _, name := range []string{"replaced", "deleted"} {
		mustCreate(t, l, groupRecord(name, Cursor{Stream: 1}))
		if _, err := l.engine.conn.Request(recordSubject(name), make([]byte, 20), publishTimeout); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.Groups().Get(t.Context(), name); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want %v", name, err, ErrDamaged)
		}
	}
	mustCreate(t, l, groupRecord("replaced", Cursor{Stream: 1}))
	if err := l.Groups().Delete(t.Context(), "deleted"); err != nil {
		t.Error(err)
	}
	if got := listed(t, l); !slices.Equal(got, []string{"replaced"}) {
		t.Errorf("groups %v", got)
	}
	mustCreate(t, l, groupRecord("deleted", Cursor{Stream: 1}))
}

func TestDoctorLooksAtGroups(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir})
	one := notification(1)
	one.ContentDigest = digestOf(one.GetBody())
	mustAppend(t, l, one)
	record, err := l.Get(t.Context(), Position{Stream: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		group := mustCreate(t, l, bySIM(groupRecord(name, Cursor{Stream: 1})))
		if _, err := l.Groups().PutProgress(t.Context(), group, SourceLog, 1, &linksgatev1.BatchProgress{}, 0); err != nil {
			t.Fatal(err)
		}
		if err := attach(t, l, group).Reach(t.Context(), 1, 10, time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := l.Groups().Park(t.Context(), name, record, linksgatev1.ParkReason_PARK_REASON_REJECTED, "", 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Groups().Delete(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	summary, problems := check(t, dir)
	if summary.Groups != 2 || summary.Parked != 2 || len(problems) != 0 {
		t.Errorf("%+v %+v", summary, problems)
	}
	for stream, want := range map[string]string{groupsStream: "settings are missing or do not match", parkedStream: "settings are missing or do not match"} {
		damaged := filepath.Join(t.TempDir(), "data")
		copyDir(t, dir, damaged)
		remove(t, filepath.Join(damaged, streamsDir, stream, settingsFile))
		summary, problems := check(t, damaged)
		if got := shortly(problems); got != settingsFile+" "+want || summary.Groups != 2 || summary.Parked != 2 {
			t.Errorf("%q %+v", got, summary)
		}
		l := openLog(t, Options{Dir: damaged})
		if got := listed(t, l); !slices.Equal(got, []string{"a", "c"}) {
			t.Errorf("groups %v", got)
		}
		mustCreate(t, l, groupRecord("b", Cursor{Stream: 1}))
	}
}
