// Package eventlogtest opens logs for the tests of other packages.
package eventlogtest

import (
	"testing"

	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/store/disk"
)

// Open opens a log on disk in a directory of the test's own, without syncing, until the test ends. The engine in the options is set.
func Open(t testing.TB, options eventlog.Options) *eventlog.Log {
	t.Helper()
	return OpenOn(t, disk.Options{Dir: t.TempDir(), NoSync: true}, options)
}

// OpenOn is Open with an engine as it is wanted.
func OpenOn(t testing.TB, engine disk.Options, options eventlog.Options) *eventlog.Log {
	t.Helper()
	var err error
	if options.Engine, err = disk.Open(t.Context(), engine); err != nil {
		t.Fatal(err)
	}
	log, err := eventlog.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() }) // the second one does nothing
	return log
}
