// Package storetest holds engines to the promises of package store. An engine's own test calls [Run] with a [Fixture].
package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/linksgate/linksgate/server/store"
)

// Fixture is what the test needs of an engine: opened, closed and crashed again and again on what it has stored.
type Fixture struct {
	// Open opens the engine on what is stored.
	Open func(t *testing.T) store.Engine
	// Crash ends an open engine as kill -9 of it would. The next Open must find everything that was acknowledged. nil: it cannot be.
	Crash func(t *testing.T, engine store.Engine)
	// Bound is a bound on bytes that the engine can keep to, small enough that a test writes more.
	Bound int64
	// Approximate says that the times that Append returns are not those of the engine.
	Approximate bool
}

// same reports whether two times are one and the same, as far as the engine says.
func (f Fixture) same(a, b time.Time) bool {
	return a.Equal(b) || f.Approximate && a.Sub(b).Abs() < 2*time.Second
}

// Run runs every test, each with a fixture of its own.
func Run(t *testing.T, fixture func(t *testing.T) Fixture) {
	for name, test := range map[string]func(*testing.T, Fixture){
		"LogReadsWhatWasAppended":      testLogReads,
		"LogSurvivesCloseAndCrash":     testLogReopens,
		"LogFindsByTime":               testLogFinds,
		"LogWaits":                     testLogWaits,
		"LogTrims":                     testLogTrims,
		"LogKeepsToItsAge":             testLogAge,
		"LogKeepsToItsBytes":           testLogBytes,
		"LogRefusesWhatIsTooLarge":     testLogTooLarge,
		"LogIsReadWhileItIsWritten":    testLogConcurrent,
		"LogRewrites":                  testLogRewrites,
		"KVComparesRevisions":          testKVRevisions,
		"KVSurvivesCloseAndCrash":      testKVReopens,
		"KVListsInOrder":               testKVLists,
		"KVWatchesWithoutMissing":      testKVWatches,
		"KVOneOfManyPutsWins":          testKVConcurrent,
		"KVDeletesAtOnce":              testKVDeletes,
		"KVKeepsToItsAge":              testKVAge,
		"KVKeepsToItsBytes":            testKVBytes,
		"KVKeepsWhatIsCurrent":         testKVCompacts,
		"KVRefusesBadKeysAndTooLarge":  testKVBad,
		"NothingIsUsableAfterItsClose": testClosed,
	} {
		t.Run(name, func(t *testing.T) { test(t, fixture(t)) })
	}
}

func openLog(t *testing.T, engine store.Engine, options store.LogOptions) store.Log {
	t.Helper()
	log, err := engine.OpenLog(t.Context(), "log", options)
	must(t, err)
	return log
}

func openKV(t *testing.T, engine store.Engine, options store.KVOptions) store.KV {
	t.Helper()
	kv, err := engine.OpenKV(t.Context(), "table", options)
	must(t, err)
	return kv
}

// closing closes an engine at the end of a test.
func closing(t *testing.T, engine store.Engine) {
	t.Helper()
	if err := engine.Close(); err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// text is what the tests store under a number.
func text(n int) string { return fmt.Sprintf("entry %d of the log", n) }

// fill appends entries with the texts of from to until, and returns them.
func fill(t *testing.T, log store.Log, from, until int) []store.Entry {
	t.Helper()
	var entries []store.Entry
	for n := from; n < until; n++ {
		e, err := log.Append(t.Context(), []byte(text(n)))
		must(t, err)
		entries = append(entries, e)
	}
	return entries
}

// read returns what a log yields, as "sequence text" for entries and "sequence+count reason" for gaps.
func read(t *testing.T, log store.Log, from uint64) []string {
	t.Helper()
	var items []string
	for item, err := range log.Read(t.Context(), from) {
		must(t, err)
		if item.Gap.Count > 0 {
			items = append(items, fmt.Sprintf("%d+%d %d", item.Gap.From, item.Gap.Count, item.Gap.Reason))
			continue
		}
		items = append(items, fmt.Sprintf("%d %s", item.Sequence, item.Data))
	}
	return items
}

// texts is what read returns for entries as fill appended them, the first of them at a sequence.
func texts(sequence uint64, from, until int) []string {
	var items []string
	for n := from; n < until; n++ {
		items = append(items, fmt.Sprintf("%d %s", sequence+uint64(n-from), text(n)))
	}
	return items
}

func info(t *testing.T, log store.Log) store.Info {
	t.Helper()
	i, err := log.Info(t.Context())
	must(t, err)
	return i
}

// eventually waits until a condition holds, for some seconds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is not so after 20 s that %s", what)
		}
	}
}

// list returns the keys and values that a table yields.
func list(t *testing.T, kv store.KV, prefix, after string, keysOnly bool) []string {
	t.Helper()
	var values []string
	for v, err := range kv.List(t.Context(), prefix, after, keysOnly) {
		must(t, err)
		values = append(values, v.Key+"="+string(v.Data))
	}
	return values
}

func put(t *testing.T, kv store.KV, key, value string, revision uint64) uint64 {
	t.Helper()
	got, err := kv.Put(t.Context(), key, []byte(value), revision)
	must(t, err)
	return got
}

func get(t *testing.T, kv store.KV, key string) string {
	t.Helper()
	v, err := kv.Get(t.Context(), key)
	must(t, err)
	return string(v.Data)
}

// collect pulls a sequence in the background, until it ends or ctx does.
func collect[T any](ctx context.Context, values iter.Seq2[T, error]) <-chan T {
	out := make(chan T, 1024)
	go func() {
		defer close(out)
		for v, err := range values {
			if err != nil {
				return
			}
			select {
			case out <- v:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
