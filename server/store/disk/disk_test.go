package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linksgate/linksgate/server/store"
	"github.com/linksgate/linksgate/server/store/storetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Fixture {
		t.Parallel()
		dir := t.TempDir()
		return storetest.Fixture{
			Open: func(t *testing.T) store.Engine { return open(t, Options{Dir: dir}) },
			Crash: func(t *testing.T, engine store.Engine) {
				killed := filepath.Join(t.TempDir(), "killed")
				copyDir(t, dir, killed) // while it is open
				if err := engine.Close(); err != nil {
					t.Error(err)
				}
				dir = killed
			},
			Bound: 16 << 20,
		}
	})
}

func open(t *testing.T, options Options) *Engine {
	t.Helper()
	options.MinFree = -1
	engine, err := Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

// copyDir copies a directory that may be in use, as cp does: what vanishes meanwhile is left out.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}
