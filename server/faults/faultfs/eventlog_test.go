package faultfs

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	storedisk "github.com/linksgate/linksgate/server/store/disk"
)

var (
	seed = flag.Uint64("seed", 0, "seed of when the power goes and what survives; 0: a new one")
	cuts = flag.Int("cuts", 10, "how often the power goes in each test of the log")
)

// childEnv holds the directory of the log in a child process.
const childEnv = "LINKSGATE_FAULTFS_LOG"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := runLog(dir, os.Args[1:]); err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", "; "))
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	os.Exit(m.Run())
}

// body is that of notification n: it says so, and how long it should be.
func body(n, size int) string {
	return fmt.Sprintf("%d %d %s", n, size, bytes.Repeat([]byte{byte('a' + n%26)}, size))
}

// number reads a body, which must be whole.
func number(text string) (int, error) {
	var n, size int
	if _, err := fmt.Sscan(text, &n, &size); err != nil || text != body(n, size) {
		return 0, fmt.Errorf("damaged body %.30q of %d bytes", text, len(text))
	}
	return n, nil
}

// runLog is the child: it opens the log, tells what is in it, appends, and closes it after so many batches, unless it is killed or
// something fails before. It tells of each notification as soon as that is acknowledged.
//
//	first SEQUENCE BYTES   of the log
//	have NUMBER SEQUENCE   was found
//	gap TEXT               something is missing
//	ready                  all was told
//	acked NUMBER SEQUENCE  was appended
//	error TEXT             the end, unless it was asked for
func runLog(dir string, args []string) error {
	var arguments [4]int
	for i := range arguments {
		arguments[i], _ = strconv.Atoi(args[i])
	}
	next, size, maxBytes, batches := arguments[0], arguments[1], arguments[2], arguments[3]
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	engine, err := storedisk.Open(ctx, storedisk.Options{Dir: dir, Logger: logger})
	if err != nil {
		return err
	}
	log, err := eventlog.Open(ctx, eventlog.Options{
		Engine: engine, IndexDir: filepath.Join(dir, "index"), MaxBytes: int64(maxBytes), Logger: logger,
	})
	if err != nil {
		return err
	}
	if err := tellAll(ctx, log); err != nil {
		return err
	}
	numbers, failed := make(chan int), make(chan error, 1)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for n := range numbers {
				sequence, err := appendOne(ctx, log, n, size)
				if err != nil {
					select {
					case failed <- err:
					default:
					}
					return
				}
				fmt.Println("acked", n, sequence) // one write(2), so whole
			}
		})
	}
	for log.Stats().Batches.Load() < uint64(batches) {
		select {
		case numbers <- next:
			next++
		case err := <-failed:
			return err // and leave the log as it is, like a gateway that is restarted
		}
	}
	close(numbers)
	group.Wait()
	return log.Close()
}

// appendOne returns the sequence that notification n was given. A log that does not answer has failed.
func appendOne(ctx context.Context, log *eventlog.Log, n, size int) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	position, err := log.Append(ctx, &linksgatev1.Notification{
		Account: "a", Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, Raw: &linksgatev1.Notification_Body{Body: body(n, size)},
	})
	return position.Sequence(), err
}

func tellAll(ctx context.Context, log *eventlog.Log) error {
	info, err := log.Info(ctx)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	fmt.Fprintln(out, "first", eventlog.Position{Stream: info.First.Stream}.Sequence(), info.Bytes)
	if info.First.Before(info.Next) {
		for step, err := range log.Read(ctx, info.First, eventlog.ReadOptions{Until: info.Next, Pulse: time.Second}) {
			if err != nil {
				return err
			}
			if step.Gap != nil {
				fmt.Fprintln(out, "gap", step.Gap.Batches, step.Gap.Err)
			}
			for _, record := range step.Records {
				one, err := record.Notification()
				if err != nil {
					return err
				}
				n, err := number(one.GetBody())
				if err != nil {
					return err
				}
				fmt.Fprintln(out, "have", n, record.Position.Sequence())
			}
		}
	}
	fmt.Fprintln(out, "ready")
	return out.Flush()
}

// logRun is a log on a disk that loses its power again and again, and what its children said.
type logRun struct {
	t              *testing.T
	disk           *FS
	random         *rand.Rand
	size, maxBytes int
	acked          map[int]uint64 // sequence by number, of all children
	rounds         int            // that were begun
	opened         int            // children that could tell all that the log has
}

func newLogRun(t *testing.T, metadata Metadata, size, maxBytes int) *logRun {
	t.Helper()
	t.Logf("-seed %d", *seed)
	run := &logRun{
		t: t, disk: Start(t, Options{Metadata: metadata, Seed: *seed}), random: rand.New(rand.NewPCG(*seed, 0)),
		size: size, maxBytes: maxBytes, acked: map[int]uint64{},
	}
	t.Cleanup(func() {
		t.Logf("%d acknowledged, log opened %d times in %d rounds, %+v", len(run.acked), run.opened, run.rounds, run.disk.Stats())
	})
	return run
}

// cut runs a child, cuts the power meanwhile or afterwards, and restores it. It returns what the child missed.
func (r *logRun) cut() []string {
	r.t.Helper()
	// Half of the children close the log before the power goes, or are closing it when it does.
	missing := r.child(1+r.random.IntN(200), r.disk.PowerCutAfter(r.random.IntN(300), r.random))
	r.disk.PowerCut(r.random)
	r.disk.Restore()
	return missing
}

// lost cuts the power again and again until something is missing, and returns that.
func (r *logRun) lost() []string {
	r.t.Helper()
	for range *cuts {
		if missing := r.cut(); len(missing) > 0 {
			return missing
		}
	}
	opened := r.opened
	missing := r.child(0, nil)
	if r.opened == opened {
		missing = append(missing, "the log cannot be opened")
	}
	return missing
}

// child runs one child until it ends or end is closed. It returns what is missing of what was acknowledged before.
func (r *logRun) child(batches int, end <-chan struct{}) (missing []string) {
	r.t.Helper()
	r.rounds++
	child := exec.Command(os.Args[0], fmt.Sprint(r.rounds*1_000_000), fmt.Sprint(r.size), fmt.Sprint(r.maxBytes), fmt.Sprint(batches))
	child.Env = append(os.Environ(), childEnv+"="+filepath.Join(r.disk.Dir(), "log"))
	var stderr bytes.Buffer
	child.Stderr = &stderr
	out, err := child.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		missing = r.listen(out)
	}()
	select {
	case <-end:
	case <-done:
	case <-time.After(time.Minute):
		r.t.Error("the child neither ends nor lets the power go")
	}
	_ = child.Process.Kill() // it may have ended
	<-done
	_ = child.Wait() // with an error: it was killed
	if len(missing) > 0 {
		missing = append(missing, stderr.String())
	}
	return missing
}

// listen hears a child out.
func (r *logRun) listen(out io.Reader) (missing []string) {
	var firstSequence, retained uint64
	have, acked := map[int]uint64{}, map[int]uint64{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var n int
		var sequence uint64
		switch word, rest, _ := strings.Cut(lines.Text(), " "); word {
		case "first":
			fmt.Sscan(rest, &firstSequence, &retained)
		case "have":
			fmt.Sscan(rest, &n, &sequence)
			have[n] = sequence
		case "gap":
			missing = append(missing, lines.Text())
		case "acked":
			fmt.Sscan(rest, &n, &sequence)
			acked[n] = sequence
		case "ready":
			r.opened++
			missing = append(missing, r.compare(have, firstSequence, retained)...)
		}
	}
	maps.Copy(r.acked, acked)
	return missing
}

// compare returns what is missing of what was acknowledged and is not older than what retention has left.
func (r *logRun) compare(have map[int]uint64, firstSequence, retained uint64) (missing []string) {
	for n, sequence := range r.acked {
		if have[n] != sequence && (r.maxBytes == 0 || sequence >= firstSequence) {
			missing = append(missing, fmt.Sprintf("notification %d at %d, found at %d", n, sequence, have[n]))
		}
	}
	// Retention removes whole segments, of a sixteenth of the limit, and each start begins one that stays smaller.
	if limit := uint64(r.maxBytes); uint64(len(r.acked)*r.size) > limit && retained+limit/6 < limit {
		missing = append(missing, fmt.Sprintf("retention left %d of %d bytes", retained, limit))
	}
	return missing
}

// summary shortens what is missing.
func summary(missing []string) string {
	return fmt.Sprintf("%d missing:\n%s", len(missing), strings.Join(missing[max(0, len(missing)-20):], "\n"))
}

// TestLogSurvivesPowerCuts requires every acknowledged notification to be in the log after any number of power cuts.
func TestLogSurvivesPowerCuts(t *testing.T) {
	for _, metadata := range []Metadata{Journal, Unordered, Posix} {
		t.Run("small notifications/"+metadata.String(), func(t *testing.T) {
			if missing := newLogRun(t, metadata, 300, 0).lost(); len(missing) > 0 {
				t.Error(summary(missing))
			}
		})
		t.Run("blocks that roll and are deleted/"+metadata.String(), func(t *testing.T) {
			if missing := newLogRun(t, metadata, 60_000, eventlog.MinMaxBytes).lost(); len(missing) > 0 {
				t.Error(summary(missing))
			}
		})
	}
}

// TestLogOnLyingDisk proves that the test above can fail: the same must lose something when syncs do nothing.
func TestLogOnLyingDisk(t *testing.T) {
	run := newLogRun(t, Journal, 300, 0)
	if missing := run.child(1, nil); len(missing) > 0 {
		t.Fatal(summary(missing))
	}
	run.disk.SetLying(true)
	if missing := run.lost(); len(missing) == 0 {
		t.Error("nothing was lost")
	}
}

// TestLogAfterFailures restarts the log after a write or a sync of a block has failed, without a power cut in between, and cuts the
// power later: what the failure left undone must not take with it what was acknowledged afterwards. A sync that fails leaves a hole in
// the last block that is seen only after the power cut, since until then the page cache hides it.
func TestLogAfterFailures(t *testing.T) {
	for name, op := range map[string]Op{"write": OpWrite, "sync": OpSync} {
		t.Run(name, func(t *testing.T) {
			run := newLogRun(t, Journal, 3000, 0)
			for range *cuts/3 + 1 {
				clear := run.disk.Fail(Fault{Ops: op, Err: syscall.EIO, Name: "*.seg", After: run.random.IntN(30), Times: 1})
				missing := run.child(1000, nil)
				clear()
				missing = append(missing, run.cut()...)
				if len(missing) > 0 {
					t.Fatal(summary(missing))
				}
			}
			if missing := run.lost(); len(missing) > 0 {
				t.Error(summary(missing))
			}
		})
	}
}

// TestLogOnFullDisk fills the disk, starts the log once more while it is full, makes room, and cuts the power.
func TestLogOnFullDisk(t *testing.T) {
	run := newLogRun(t, Journal, 3000, 0)
	for range *cuts/3 + 1 {
		run.disk.SetCapacity(run.disk.Used() + 500_000)
		missing := run.child(1000, nil)
		missing = append(missing, run.child(1000, nil)...)
		run.disk.SetCapacity(0)
		missing = append(missing, run.cut()...)
		if len(missing) > 0 {
			t.Fatal(summary(missing))
		}
	}
	if missing := run.lost(); len(missing) > 0 {
		t.Error(summary(missing))
	}
}
