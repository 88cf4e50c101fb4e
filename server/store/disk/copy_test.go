package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/linksgate/linksgate/server/store"
)

// A copy that is made while the directory is in use has everything that was acknowledged before it began, and opens; a second one copies
// what is new only.
func TestCopyOfADirectoryInUse(t *testing.T) {
	t.Parallel()
	for name, link := range map[string]bool{"linked": true, "copied": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
			engine := open(t, Options{Dir: from, firstSegment: 64 << 10})
			log, kv := openBoth(t, engine)
			log.max, kv.max = 64<<10, 64<<10
			const rounds, perRound = 3, 400
			for round := range rounds {
				for n := range perRound {
					appendText(t, log, round*perRound+n)
					if _, err := kv.Put(t.Context(), fmt.Sprintf("key.%d", n), fmt.Append(nil, round), store.Any); err != nil {
						t.Fatal(err)
					}
				}
				stop := make(chan struct{})
				var load sync.WaitGroup
				load.Go(func() {
					for n := 1_000_000 * (round + 1); ; n++ {
						select {
						case <-stop:
							return
						default:
							if _, err := log.Append(t.Context(), []byte(entryText(n))); err != nil {
								t.Error(err)
							}
						}
					}
				})
				copied, err := Copy(t.Context(), from, to, CopyOptions{Link: link})
				close(stop)
				load.Wait()
				if err != nil {
					t.Fatal(err)
				}
				if round > 0 && copied.Present == 0 || link == (copied.Linked == 0) {
					t.Errorf("round %d: %+v", round, copied)
				}
				checkCopy(t, to, (round+1)*perRound, perRound, round)
			}
			if err := engine.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// checkCopy opens a copy of a copy, and looks for what it must have.
func checkCopy(t *testing.T, dir string, entries, keys, round int) {
	t.Helper()
	again := filepath.Join(t.TempDir(), "again")
	if _, err := Copy(t.Context(), dir, again, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	engine := open(t, Options{Dir: again})
	log, kv := openBoth(t, engine)
	found := 0
	for item, err := range log.Read(t.Context(), 1) {
		if err != nil || item.Gap.Count > 0 {
			t.Fatalf("%+v %v", item.Gap, err)
		}
		var n int
		if _, err := fmt.Sscanf(string(item.Data), "entry %d,", &n); err == nil && n < 1_000_000 {
			found++
		}
	}
	if found != entries {
		t.Errorf("%d entries, want %d", found, entries)
	}
	for n := range keys {
		if v, err := kv.Get(t.Context(), fmt.Sprintf("key.%d", n)); err != nil || string(v.Data) != fmt.Sprint(round) {
			t.Fatalf("key %d is %q, %v", n, v.Data, err)
		}
	}
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyDataDirectoriesAreCopied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Copy(t.Context(), dir, filepath.Join(t.TempDir(), "to"), CopyOptions{}); err == nil || !strings.Contains(err.Error(), "not the data directory") {
		t.Errorf("an empty directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "jetstream"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), dir, filepath.Join(t.TempDir(), "to"), CopyOptions{}); err == nil || !strings.Contains(err.Error(), "unreleased version") {
		t.Errorf("an old directory: %v", err)
	}
}
