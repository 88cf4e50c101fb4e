package disk

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/linksgate/linksgate/server/store"
)

// A segment that has no entry, because its first one could not be stored or is about to be, does not make retention by age take what is
// before it.
func TestEmptySegmentExpiresNothing(t *testing.T) {
	const entries = 3
	openAged := func(t *testing.T, dir string) (*Engine, *Log) {
		engine := open(t, Options{Dir: dir})
		l, err := engine.OpenLog(t.Context(), "log", store.LogOptions{MaxAge: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return engine, l.(*Log)
	}
	fill := func(t *testing.T, l *Log, from, until int) {
		for n := from; n < until; n++ {
			if _, err := l.Append(t.Context(), fmt.Append(nil, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(t *testing.T, l *Log, count int) {
		t.Helper()
		l.tick(time.Now())
		next := 0
		for item, err := range l.Read(t.Context(), 1) {
			if err != nil || item.Gap.Count > 0 || string(item.Data) != fmt.Sprint(next) {
				t.Fatalf("at %d: %q, %+v, %v", next, item.Data, item.Gap, err)
			}
			next++
		}
		if next != count {
			t.Errorf("%d entries, want %d", next, count)
		}
	}
	reopen := func(t *testing.T, dir string, engine *Engine) (*Engine, *Log) {
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
		return openAged(t, dir)
	}
	t.Run("before its first entry", func(t *testing.T) {
		dir := t.TempDir()
		engine, l := openAged(t, dir)
		fill(t, l, 0, entries)
		engine, l = reopen(t, dir, engine)
		l.appending.Lock()
		_, err := l.begin(1)
		l.appending.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		check(t, l, entries)
		fill(t, l, entries, entries+1)
		check(t, l, entries+1)
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("after a crash before its first entry", func(t *testing.T) {
		dir := t.TempDir()
		engine, l := openAged(t, dir)
		fill(t, l, 0, entries)
		engine, l = reopen(t, dir, engine)
		l.appending.Lock()
		_, err := l.begin(1)
		l.appending.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		killed := filepath.Join(t.TempDir(), "killed")
		copyDir(t, dir, killed)
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
		dir = killed
		engine, l = openAged(t, dir)
		check(t, l, entries)
		fill(t, l, entries, entries+2)
		check(t, l, entries+2)
		for range 2 {
			engine, l = reopen(t, dir, engine)
			check(t, l, entries+2)
		}
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
