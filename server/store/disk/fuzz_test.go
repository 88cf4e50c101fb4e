package disk

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/linksgate/linksgate/server/store"
)

// Whatever is in a segment and in a manifest, the directory opens or says why not, is read to its end, and takes an entry.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	engine, err := Open(f.Context(), Options{Dir: dir, MinFree: -1, NoSync: true, firstSegment: fixtureSegment})
	if err != nil {
		f.Fatal(err)
	}
	log, err := engine.OpenLog(f.Context(), "log", store.LogOptions{})
	if err != nil {
		f.Fatal(err)
	}
	log.(*Log).max = fixtureSegment
	for n := range fixtureEntries {
		if _, err := log.Append(f.Context(), []byte(entryText(n))); err != nil {
			f.Fatal(err)
		}
	}
	if err := engine.Close(); err != nil {
		f.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "log", manifestName))
	if err != nil {
		f.Fatal(err)
	}
	segment, err := os.ReadFile(segmentPath(filepath.Join(dir, "log"), 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(segment, manifest)
	f.Add(segment, []byte{})
	f.Add([]byte{}, manifest)
	f.Fuzz(func(t *testing.T, segment, manifest []byte) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "log"), 0o700); err != nil {
			t.Fatal(err)
		}
		for path, data := range map[string][]byte{segmentPath(filepath.Join(dir, "log"), 1): segment, filepath.Join(dir, "log", manifestName): manifest} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		engine := open(t, Options{Dir: dir, NoSync: true, ScrubRate: -1})
		defer engine.Close()
		log, err := engine.OpenLog(t.Context(), "log", store.LogOptions{})
		if err != nil {
			return
		}
		e, err := log.Append(t.Context(), []byte("after"))
		if err != nil {
			t.Fatal(err)
		}
		last := store.Item{}
		for item, err := range log.Read(t.Context(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			last = item
		}
		if last.Sequence != e.Sequence || string(last.Data) != "after" {
			t.Errorf("the last item is %+v, want %d", last, e.Sequence)
		}
	})
}
