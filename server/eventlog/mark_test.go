package eventlog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whatever becomes of the engine's files while the gateway is stopped, the log keeps its id, gives no sequence out again, and tells
// readers of what is missing.
func TestLostFilesAreNoticedAtOpen(t *testing.T) {
	newest := func(t *testing.T, dir string) string {
		t.Helper()
		blocks, err := filepath.Glob(filepath.Join(recordsPath(dir, streamName), "*"+blockSuffix))
		if err != nil || len(blocks) < 2 {
			t.Fatalf("%d blocks, %v: the damage needs more", len(blocks), err)
		}
		return blocks[len(blocks)-1]
	}
	for name, harm := range map[string]func(t *testing.T, dir string){
		"last block gone":      func(t *testing.T, dir string) { remove(t, newest(t, dir)) },
		"last block cut short": func(t *testing.T, dir string) { cutOff(1<<20)(t, newest(t, dir)) },
		"last block emptied":   func(t *testing.T, dir string) { empty(t, newest(t, dir)) },
		"records gone":         func(t *testing.T, dir string) { remove(t, recordsPath(dir, streamName)) },
		"settings damaged": func(t *testing.T, dir string) {
			flip(0, 40)(t, filepath.Join(dir, streamsDir, streamName, settingsFile))
		},
		"all gone":    func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "jetstream")) },
		"stream gone": func(t *testing.T, dir string) { remove(t, filepath.Join(dir, streamsDir, streamName)) },
		"nothing":     func(*testing.T, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stopped, killed := dataDirs(t)
			if strings.HasPrefix(name, "last block") { // the engine's index tells of it
				killed = stopped
			}
			mark, err := os.ReadFile(filepath.Join(stopped, markFile)) // as it is a second later
			if err == nil {
				err = os.WriteFile(filepath.Join(killed, markFile), mark, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			before, _, err := readMark(killed)
			if err != nil || before.Confirmed != checkedBatches {
				t.Fatalf("%+v %v", before, err)
			}
			harm(t, killed)

			began := time.Now()
			l := openLog(t, Options{Dir: killed, NoSync: true})
			if took := time.Since(began); took > headWait {
				t.Errorf("opening took %v: it waited for what is not there", took)
			}
			if l.ID() != before.LogID {
				t.Errorf("the log's id became %s, it was %s", l.ID(), before.LogID)
			}
			p, err := l.Append(t.Context(), notification(1))
			if err != nil {
				t.Fatal(err)
			}
			if p.Stream <= before.Confirmed {
				t.Errorf("stream sequence %d was given out again, %d were confirmed", p.Stream, before.Confirmed)
			}
			found, missing, reasons := readGaps(t, l, Cursor{Stream: 1}, Cursor{Stream: p.Stream + 1})
			if found+missing < checkedBatches+1 {
				t.Errorf("%d batches read and %d told as missing, of %d", found, missing, checkedBatches+1)
			}
			if name != "nothing" && name != "settings damaged" && missing == 0 {
				t.Error("nothing was lost: nothing was tested")
			}
			if slices.ContainsFunc(reasons, func(err error) bool { return !errors.Is(err, ErrDamaged) }) {
				t.Errorf("readers are told of %v, and nothing has expired", reasons)
			}
			if _, err := l.Get(t.Context(), Position{Stream: before.Confirmed}); name != "nothing" && name != "settings damaged" && !errors.Is(err, ErrDamaged) {
				t.Errorf("what was lost: %v, want %v", err, ErrDamaged)
			}
			// What a reader had is good, wherever it was.
			last := Cursor{Stream: before.Confirmed + 1}
			if found, _ := readThrough(t, l, last, Cursor{Stream: p.Stream + 1}); found != 1 {
				t.Errorf("a reader that had everything read %d notifications, want the new one", found)
			}
		})
	}
}

// readThrough counts the batches that are read and those that are told as missing.
func readThrough(t *testing.T, l *Log, from, until Cursor) (found, missing uint64) {
	t.Helper()
	found, missing, _ = readGaps(t, l, from, until)
	return found, missing
}

// readGaps is readThrough, with the reasons of the gaps.
func readGaps(t *testing.T, l *Log, from, until Cursor) (found, missing uint64, reasons []error) {
	t.Helper()
	for step, err := range l.Read(t.Context(), from, ReadOptions{Until: until, Pulse: time.Second}) {
		if err != nil {
			t.Fatal(err)
		}
		found += uint64(len(step.Records)) // one in each batch
		if step.Gap != nil {
			missing += step.Gap.Batches
			reasons = append(reasons, step.Gap.Err)
		}
	}
	return found, missing, reasons
}

// A mark that is damaged or missing does not keep a log from being opened.
func TestLogOpensWithoutItsMark(t *testing.T) {
	for name, harm := range map[string]damage{"missing": remove, "damaged": func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, Options{Dir: dir})
			id := l.ID()
			want := appendAll(t, l, 0, 10, 1)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			harm(t, filepath.Join(dir, markFile))
			l = openLog(t, Options{Dir: dir})
			if l.ID() != id {
				t.Errorf("the log's id became %s, it was %s", l.ID(), id)
			}
			checkExactly(t, l, readTo(t, l, Cursor{Stream: 1}, nil), want)
		})
	}
}

// No sequence is given out that was not reserved before, so the mark bounds what may have been.
func TestSequencesAreReservedBeforeTheyAreGivenOut(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir, NoSync: true})
	for n := range reserveStep + 100 {
		p, err := l.Append(t.Context(), notification(n))
		if err != nil {
			t.Fatal(err)
		}
		if n%500 != 0 && n < reserveStep-10 {
			continue
		}
		if m, found, err := readMark(dir); err != nil || !found || m.Reserved < p.Stream {
			t.Fatalf("sequence %d with the mark %+v, %v", p.Stream, m, err)
		}
	}
}

func TestMarkIsWrittenWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	m := openMarker(dir, Options{}.withDefaults().Logger)
	m.mark.LogID = newLogID().String()
	if err := m.confirm(7); err != nil {
		t.Fatal(err)
	}
	// A directory in the way of the new file: nothing can be written any more.
	if err := os.Mkdir(filepath.Join(dir, markFile+".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.confirm(8); err == nil {
		t.Error("nothing can be written, and nobody says so")
	}
	if got, found, err := readMark(dir); err != nil || !found || got.Confirmed != 7 {
		t.Errorf("%+v %v %v", got, found, err)
	}
	if err := m.reserve(100_000); err == nil || errors.Is(err, ErrFrozen) {
		t.Errorf("reserve: %v", err)
	}
}
