package eventlog

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// onDisk counts the files below a directory that have a text in them.
func filesWith(t *testing.T, dir, text string) (count int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if bytes.Contains(data, []byte(text)) {
			count++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// What is erased cannot be read when Erase returns, in any way, also after a kill; it is in no file a little later, its places are told as
// gaps, and nothing else is missing. What comes later is kept.
func TestErasedIsUnreadableAndGone(t *testing.T) {
	l := openLog(t, onDisk{})
	const total = 100
	appendAll(t, l, 0, total, 8)
	const iccid = "8944000000000000003" // of every tenth
	e := entry(1)
	e.Raw = &linksgatev1.QuarantineEntry_Body{Body: `{"sim_id":"` + iccid + `"}`}
	if err := l.Quarantine().Add(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	addEntries(t, l.Quarantine(), 2)
	mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	var positions []Position
	for _, one := range records(t, l, total) {
		if one.has(iccid) {
			positions = append(positions, one.Position)
			mustPark(t, l, "a", one)
		}
	}
	want := Erased{Notifications: total / 10, Quarantined: 1, Parked: total / 10}
	if got, err := l.Erase(t.Context(), iccid, true); err != nil || got != want {
		t.Errorf("dry run: %+v %v, want %+v", got, err, want)
	}
	if filesWith(t, dirOf(l), iccid) == 0 {
		t.Error("the dry run has removed something")
	}
	if got, err := l.Erase(t.Context(), iccid, false); err != nil || got != want {
		t.Fatalf("%+v %v, want %+v", got, err, want)
	}
	check := func(l *Log, later int) {
		t.Helper()
		info, err := l.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		read, erased := 0, uint64(0)
		for step, err := range l.Read(t.Context(), Cursor{Stream: 1}, ReadOptions{Until: info.Next, Pulse: time.Second}) {
			if err != nil {
				t.Fatal(err)
			}
			if step.Gap != nil {
				if !errors.Is(step.Gap.Err, ErrErased) {
					t.Errorf("gap %+v", step.Gap)
				}
				erased += step.Gap.Notifications
			}
			for _, r := range step.Records {
				read++
				if r.has(iccid) && r.Position.Sequence() <= positions[len(positions)-1].Sequence() {
					t.Errorf("%v is read", r.Position)
				}
			}
		}
		if read != total*9/10+later || erased != total/10 {
			t.Errorf("%d are read and %d told to be erased", read, erased)
		}
		for _, p := range positions {
			if _, err := l.Get(t.Context(), p); !errors.Is(err, ErrErased) {
				t.Errorf("get %v: %v", p, err)
			}
		}
		if got := parkedAfter(t, l, "a", ""); len(got) != 0 {
			t.Errorf("%d are parked", len(got))
		}
		if got := entriesAfter(t, l.Quarantine(), ""); len(got) != 2 {
			t.Errorf("%d are in quarantine", len(got))
		}
	}
	check(l, 0)
	check(killed(t, l), 0)
	for end := time.Now().Add(20 * time.Second); filesWith(t, dirOf(l), iccid) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d files have it still", filesWith(t, dirOf(l), iccid))
		}
	}
	check(l, 0)
	mustAppend(t, l, notification(3))
	check(l, 1)
	check(killed(t, l), 1)
	for _, bad := range []string{"", "12", "x8944000000000000003", "89440000000000000030000000"} {
		if _, err := l.Erase(t.Context(), bad, false); !errors.Is(err, ErrBadICCID) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
