package eventlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// killed returns a log that is opened on what a kill of the process would leave of another one, which stays open.
func killed(t *testing.T, l *Log) *Log {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "killed")
	err := filepath.WalkDir(dirOf(l), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, strings.TrimPrefix(path, dirOf(l)))
		if entry.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // replaced just now
		}
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return openLog(t, onDisk{Dir: dir})
}

// What is settled is settled, in turn or out of it, also after a kill; everything else comes again.
func TestSettledSurvivesAKill(t *testing.T) {
	l := openLog(t, onDisk{})
	for n := range 10 {
		mustAppend(t, l, notification(n))
	}
	record := mustCreate(t, l, groupRecord("g", Cursor{Stream: 1}))
	r := attach(t, l, record)
	claims := fetch(t, r, SourceLog, 10)
	settle(t, claims[0], claims[1], claims[4], claims[8])
	for range 3 {
		l = killed(t, l)
		r = attach(t, l, record)
		checkStreams(t, fetch(t, r, SourceLog, 6), 3, 4, 6, 7, 8, 10)
		fetchNone(t, r, SourceLog)
	}
	state, err := l.Groups().State(t.Context(), record)
	if err != nil || state.Unsettled != 6 || state.Undelivered != 0 || state.Oldest != (Cursor{Stream: 3}) || state.Lag.Time <= 0 {
		t.Errorf("state %+v %v", state, err)
	}
	settle(t, fetch(t, attach(t, l, record), SourceLog, 6)...)
	if state, err := l.Groups().State(t.Context(), record); err != nil || state.Unsettled != 0 || state.Lag != (Lag{}) {
		t.Errorf("state when all is settled: %+v %v", state, err)
	}
}

// What was given back comes when it is due, and not before.
func TestGivenBackComesWhenItIsDue(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	for n := range 3 {
		mustAppend(t, l, notification(n))
	}
	r := attach(t, l, mustCreate(t, l, groupRecord("g", Cursor{Stream: 1})))
	claims := fetch(t, r, SourceLog, 3)
	began := time.Now()
	claims[1].GiveBackFor(300 * time.Millisecond)
	checkStreams(t, fetch(t, r, SourceLog, 1), 2)
	if early := time.Since(began); early < 300*time.Millisecond {
		t.Errorf("it came again after %v", early)
	}
}

// Of an ordered group it is known after a kill what may have been leased, and after an orderly end that nothing is.
func TestWhatMayBeLeasedIsKnown(t *testing.T) {
	l := openLog(t, onDisk{})
	for n := range 5 {
		mustAppend(t, l, notification(n))
	}
	record := groupRecord("g", Cursor{Stream: 1})
	record.Group.Ordering = linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM
	mustCreate(t, l, record)
	r := attach(t, l, record)
	if o := r.Outstanding(); !o.Until.IsZero() {
		t.Errorf("of a new group is out: %+v", o)
	}
	fetch(t, r, SourceLog, 5)
	if err := r.Reach(t.Context(), 3, 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	after := killed(t, l)
	o := attach(t, after, record).Outstanding()
	if o.Through[SourceLog] != 5 || time.Until(o.Until) < 50*time.Second {
		t.Errorf("after a kill is out: %+v", o)
	}
	if err := r.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if o := attach(t, killed(t, l), record).Outstanding(); !o.Until.IsZero() {
		t.Errorf("after the end is out: %+v", o)
	}
}

// A corrupt offset is not believed: the group begins again at its start, without what is stored to be settled out of turn.
func TestCorruptOffsetIsNotBelieved(t *testing.T) {
	l := openLog(t, onDisk{})
	for n := range 5 {
		mustAppend(t, l, notification(n))
	}
	record := mustCreate(t, l, groupRecord("g", Cursor{Stream: 1}))
	claims := fetch(t, attach(t, l, record), SourceLog, 5)
	settle(t, claims[3])
	settle(t, claims[0])
	if _, err := l.groups.kv.Put(t.Context(), offsetPrefix+incarnationKey(record), []byte("nonsense?"), 1<<64-1); err != nil {
		t.Fatal(err)
	}
	l = killed(t, l)
	checkStreams(t, fetch(t, attach(t, l, record), SourceLog, 4), 1, 2, 3, 5)
}

// A thousand groups are listed and closed at once: nothing takes time for each.
func TestManyIdleGroupsCostNothing(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	mustAppend(t, l, notification(1))
	for n := range MaxGroups {
		mustCreate(t, l, groupRecord(fmt.Sprintf("g%d", n), Cursor{Stream: 1}))
	}
	err := l.Groups().Create(t.Context(), groupRecord("more", Cursor{Stream: 1}))
	if !errors.Is(err, ErrTooManyGroups) {
		t.Errorf("one more: %v", err)
	}
	records, err := l.Groups().List(t.Context())
	if err != nil || len(records) != MaxGroups {
		t.Errorf("%d are listed, %v", len(records), err)
	}
}
