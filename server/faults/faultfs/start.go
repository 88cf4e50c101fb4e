package faultfs

import (
	"errors"
	"os"
	"testing"
)

// required is set to 1 where nothing may be left out, as in CI.
const required = "LINKSGATE_REQUIRE_FUSE"

// Start mounts a file system for a test. It ends with the test; processes that use it must have ended before. A test is skipped where
// mounting is impossible, unless that is not allowed: then it fails.
func Start(t testing.TB, options Options) *FS {
	t.Helper()
	fs, err := Mount(t.TempDir(), options)
	if errors.Is(err, ErrNoFUSE) && os.Getenv(required) != "1" {
		t.Skipf("NOT TESTED here is what survives a power cut, a full disk and failing syncs: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	})
	return fs
}
