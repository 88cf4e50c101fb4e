package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

func attach(t *testing.T, l *Log, record *linksgatev1.GroupRecord) *GroupReader {
	t.Helper()
	r, err := l.Groups().Attach(t.Context(), record)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// fetch returns exactly so many claims, as soon as there are.
func fetch(t *testing.T, r *GroupReader, source Source, count int) []*Claim {
	t.Helper()
	var all []*Claim
	for deadline := time.Now().Add(30 * time.Second); len(all) < count; {
		claims, err := r.Fetch(t.Context(), source, count-len(all), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, claims...); time.Now().After(deadline) {
			t.Fatalf("%d claims, want %d", len(all), count)
		}
	}
	return all
}

// fetchNone requires that there is nothing to be fetched.
func fetchNone(t *testing.T, r *GroupReader, source Source) {
	t.Helper()
	claims, err := r.Fetch(t.Context(), source, 10, 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if len(claims) != 0 {
		t.Errorf("got %v, want nothing", streams(claims))
	}
}

func streams(claims []*Claim) []uint64 {
	var all []uint64
	for _, c := range claims {
		all = append(all, c.Stream)
	}
	return all
}

func checkStreams(t *testing.T, claims []*Claim, want ...uint64) {
	t.Helper()
	if got := streams(claims); !slices.Equal(got, want) {
		t.Errorf("got record batches %v, want %v", got, want)
	}
}

func settle(t *testing.T, claims ...*Claim) {
	t.Helper()
	for _, c := range claims {
		if err := c.Settle(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// awaitState waits until a group's state is as it should be: what the engine is told about a claim has its effect a little later.
func awaitState(t *testing.T, l *Log, record *linksgatev1.GroupRecord, ok func(GroupState) bool) GroupState {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		state, err := l.Groups().State(t.Context(), record)
		if err != nil {
			t.Fatal(err)
		}
		if ok(state) {
			return state
		}
		if time.Now().After(deadline) {
			t.Fatalf("state %+v", state)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestGroupGetsEveryBatchInOrder(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	want := appendAll(t, l, 0, 1500, 8)
	r := attach(t, l, mustCreate(t, l, groupRecord("a", Cursor{Stream: 1})))
	if l.Stats().Batches.Load() < 100 {
		t.Fatal("too few batches to say anything")
	}
	forgetWindow(t, l)
	var got []*linksgatev1.Notification
	next := uint64(1)
	for len(got) < len(want) {
		claims, err := r.Fetch(t.Context(), SourceLog, 40, 10*time.Second)
		if err != nil || len(claims) == 0 {
			t.Fatalf("after %d: %v %v", len(got), claims, err)
		}
		if len(claims) > 40 {
			t.Errorf("%d claims", len(claims))
		}
		for _, c := range claims {
			if c.Stream != next || c.Deliveries != 1 || c.Missed != 0 || c.Damaged || c.Bytes == 0 || c.Turn != 1 || c.Written.IsZero() {
				t.Errorf("claim %+v, want batch %d", c, next)
			}
			next++
			for _, record := range c.Records {
				n, err := record.Notification()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, n)
			}
		}
		settle(t, claims...)
	}
	checkExactly(t, l, got, want)
	fetchNone(t, r, SourceLog)
	info, err := l.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	state := awaitState(t, l, r.record, func(s GroupState) bool { return s.Unsettled == 0 })
	if state.Oldest != info.Next || state.Lag != (Lag{}) || state.Undelivered != 0 || !state.OldestWritten.IsZero() {
		t.Errorf("state %+v", state)
	}
	// What is new comes at once.
	arrived := make(chan []*Claim)
	go func() {
		claims, err := r.Fetch(t.Context(), SourceLog, 10, 20*time.Second)
		if err != nil {
			t.Error(err)
		}
		arrived <- claims
	}()
	position := mustAppend(t, l, notification(1))
	checkStreams(t, <-arrived, position.Stream)
}

// fiveInOne stores one record batch of five notifications, and one more batch.
func fiveInOne(t *testing.T, l *Log) {
	t.Helper()
	var data []byte
	for n := range 5 {
		one, err := marshal(notification(n))
		if err != nil {
			t.Fatal(err)
		}
		data = appendFramed(data, one)
	}
	ack, err := l.engine.js.Publish(t.Context(), subject, data)
	if err != nil {
		t.Fatal(err)
	}
	l.tail.offer(offer{ack.Sequence, time.Now(), data})
	mustAppend(t, l, notification(5))
}

func TestGroupStartsInsideABatch(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	fiveInOne(t, l)
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1, Index: 3}))
	state, err := l.Groups().State(t.Context(), record)
	if err != nil || state.Oldest != (Cursor{Stream: 1, Index: 3}) || state.Undelivered != 2 || state.Lag.Batches != 2 || state.OldestWritten.IsZero() {
		t.Errorf("state %+v; %v", state, err)
	}
	claims := fetch(t, attach(t, l, record), SourceLog, 2)
	if len(claims[0].Records) != 2 || claims[0].Records[0].Position != (Position{Stream: 1, Index: 3}) {
		t.Errorf("claim %+v", claims[0])
	}
	// After the end of a batch that a cursor does not know the end of.
	late := mustCreate(t, l, groupRecord("b", Cursor{Stream: 1, Index: 5}))
	checkStreams(t, fetch(t, attach(t, l, late), SourceLog, 1), 2)
	awaitState(t, l, late, func(s GroupState) bool { return s.Unsettled == 1 && s.Oldest.Stream == 2 })
	// At the head.
	latest := mustCreate(t, l, groupRecord("c", Cursor{Stream: 3}))
	r := attach(t, l, latest)
	fetchNone(t, r, SourceLog)
	mustAppend(t, l, notification(6))
	checkStreams(t, fetch(t, r, SourceLog, 1), 3)
}

func TestBatchComesAgainUntilItIsSettled(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	for n := range 3 {
		mustAppend(t, l, notification(n))
	}
	record := mustCreate(t, l, forgetful(groupRecord("a", Cursor{Stream: 1})))
	r := attach(t, l, record)
	first := fetch(t, r, SourceLog, 3)
	settle(t, first[1])
	// The one that is kept alive does not come while the other comes many times.
	again := 0
	for deadline := time.Now().Add(1200 * time.Millisecond); time.Now().Before(deadline); {
		if err := first[2].KeepAlive(); err != nil {
			t.Fatal(err)
		}
		claims, err := r.Fetch(t.Context(), SourceLog, 10, 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range claims {
			switch {
			case c.Stream == 1 && c.Deliveries > 1:
				again++
			case c.Stream == 3: // on a machine that stood still for longer than the engine waits
				t.Logf("batch %d came in spite of being kept", c.Stream)
			default:
				t.Errorf("got %+v", c)
			}
		}
	}
	if again == 0 {
		t.Error("what was not kept did not come again")
	}
	if err := first[2].GiveBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	var third *Claim
	for third == nil {
		for _, c := range fetch(t, r, SourceLog, 1) {
			if c.Stream == 3 {
				third = c
			}
		}
	}
	if third.Deliveries < 2 || len(third.Records) != 1 {
		t.Errorf("given back: %+v", third)
	}
	const wait = 500 * time.Millisecond
	began := time.Now()
	if err := third.GiveBackFor(t.Context(), wait); err != nil {
		t.Fatal(err)
	}
	for third = nil; third == nil; {
		for _, c := range fetch(t, r, SourceLog, 1) {
			if c.Stream == 3 {
				third = c
			}
		}
	}
	if waited := time.Since(began); waited < wait {
		t.Errorf("what was given back for %v came after %v", wait, waited)
	}
	settle(t, first[0], third) // the first one by a claim that was overtaken
	awaitState(t, l, record, func(s GroupState) bool { return s.Unsettled == 0 })
	settle(t, first...) // does nothing
	if err := first[0].KeepAlive(); err != nil {
		t.Error(err)
	}
	if err := first[0].GiveBack(t.Context()); err != nil {
		t.Error(err)
	}
	fetchNone(t, r, SourceLog)
}

func TestClaimsOutliveTheProcess(t *testing.T) {
	dir, killed := t.TempDir(), filepath.Join(t.TempDir(), "killed")
	l := openLog(t, Options{Dir: dir})
	for n := range 5 {
		mustAppend(t, l, notification(n))
	}
	record := mustCreate(t, l, forgetful(groupRecord("a", Cursor{Stream: 1})))
	r := attach(t, l, record)
	claims := fetch(t, r, SourceLog, 4)
	settle(t, claims[0], claims[2])
	revision, err := l.Groups().PutProgress(t.Context(), record, SourceLog, 2, &linksgatev1.BatchProgress{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	awaitState(t, l, record, func(s GroupState) bool { return s.Unsettled == 2 })
	// What the end of the process leaves, once the engine has written its state: that takes it a tenth of a second.
	state := filepath.Join(streamsDir, streamName, consumersDir, consumerName(record), consumerStateFile)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		before, err := os.ReadFile(filepath.Join(dir, state))
		if err == nil {
			os.RemoveAll(killed)
			copyDir(t, dir, killed)
			after, _ := os.ReadFile(filepath.Join(killed, state))
			l := openLog(t, Options{Dir: killed})
			state, err := l.Groups().State(t.Context(), record)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Equal(before, after) && state.Unsettled == 2 && state.Undelivered == 1 {
				break
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the engine does not write down what was settled")
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"stopped": dir, "killed": killed} {
		t.Run(name, func(t *testing.T) {
			if name == "killed" { // it was opened above to look
				copyDir(t, dir, dir+"-again")
				dir += "-again"
			}
			l := openLog(t, Options{Dir: dir})
			r := attach(t, l, record)
			got := make(map[uint64]uint64)
			for len(got) < 3 {
				for _, c := range fetch(t, r, SourceLog, 1) {
					got[c.Stream] = c.Deliveries
					if err := c.KeepAlive(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got[2] < 2 || got[4] < 2 || got[5] != 1 {
				t.Errorf("deliveries %v, want batch 2 and 4 again and 5 for the first time", got)
			}
			if _, of, err := l.Groups().Progress(t.Context(), record, SourceLog, 2); err != nil || of != revision {
				t.Errorf("revision %d, want %d; %v", of, revision, err)
			}
		})
	}
}

// The engine writes what it has delivered a little later than it delivers. A batch that it has forgotten to have delivered, and that there
// is progress with, is told as delivered before.
func TestProgressTellsOfDeliveriesThatWereForgotten(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	for n := range 3 {
		mustAppend(t, l, notification(n))
	}
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	if _, err := l.Groups().PutProgress(t.Context(), record, SourceLog, 2, &linksgatev1.BatchProgress{}, 0); err != nil {
		t.Fatal(err)
	}
	l.groups.forgetProgress(consumerName(record)) // as a new process
	r := attach(t, l, record)
	claims := fetch(t, r, SourceLog, 3)
	if claims[0].Deliveries != 1 || claims[1].Deliveries != 2 || claims[2].Deliveries != 1 {
		t.Errorf("deliveries %d, %d and %d", claims[0].Deliveries, claims[1].Deliveries, claims[2].Deliveries)
	}
	settle(t, claims...)
	if progress, _, err := l.Groups().Progress(t.Context(), record, SourceLog, 2); progress != nil || err != nil {
		t.Errorf("progress with what is settled: %v %v", progress, err)
	}
	awaitState(t, l, record, func(s GroupState) bool { return s.Unsettled == 0 })
	// Another gateway stored some for what was settled meanwhile: it goes at the next start.
	if _, err := l.Groups().PutProgress(t.Context(), record, SourceLog, 2, &linksgatev1.BatchProgress{}, 0); err != nil {
		t.Fatal(err)
	}
	attach(t, l, record)
	if progress, _, err := l.Groups().Progress(t.Context(), record, SourceLog, 2); progress != nil || err != nil {
		t.Errorf("progress with what was settled long ago: %v %v", progress, err)
	}
}

func TestConsumersThatAreLostAreMadeAnew(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, dir string){
		"all of it":          remove,
		"its settings":       func(t *testing.T, dir string) { remove(t, filepath.Join(dir, settingsFile)) },
		"a bit of its state": func(t *testing.T, dir string) { flip(0, 3)(t, filepath.Join(dir, consumerStateFile)) },
		"its state": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, consumerStateFile), []byte("nonsense"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a name in its settings":  func(t *testing.T, dir string) { flip(0, 3)(t, filepath.Join(dir, settingsFile)) },
		"a value in its settings": func(t *testing.T, dir string) { flip(0, 200)(t, filepath.Join(dir, settingsFile)) },
		"the checksum of these":   func(t *testing.T, dir string) { flip(0, 3)(t, filepath.Join(dir, settingsSumFile)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, Options{Dir: dir})
			mustAppend(t, l, notification(1))
			mustAppend(t, l, notification(2))
			record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
			settle(t, fetch(t, attach(t, l, record), SourceLog, 1)...)
			awaitState(t, l, record, func(s GroupState) bool { return s.Unsettled == 0 && s.Undelivered == 1 })
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			for _, stream := range []string{streamName, parkedStream} {
				lose(t, filepath.Join(dir, streamsDir, stream, consumersDir, consumerName(record)))
			}
			// A crash in the middle of the mending changes nothing.
			if _, err := settleFiles(t.Context(), dir, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			l = openLog(t, Options{Dir: dir})
			checkStreams(t, fetch(t, attach(t, l, record), SourceLog, 1), 2)
		})
	}
	t.Run("after a crash", func(t *testing.T) { // where it was is not known then
		dir, crashed := t.TempDir(), filepath.Join(t.TempDir(), "log")
		l := openLog(t, Options{Dir: dir})
		mustAppend(t, l, notification(1))
		record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
		settle(t, fetch(t, attach(t, l, record), SourceLog, 1)...)
		awaitState(t, l, record, func(s GroupState) bool { return s.Unsettled == 0 })
		copyDir(t, dir, crashed)
		remove(t, filepath.Join(crashed, streamsDir, streamName, consumersDir, consumerName(record)))
		checkStreams(t, fetch(t, attach(t, openLog(t, Options{Dir: crashed}), record), SourceLog, 1), 1)
	})
	t.Run("while it is read", func(t *testing.T) {
		l := openLog(t, Options{NoSync: true})
		mustAppend(t, l, notification(1))
		record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
		r := attach(t, l, record)
		settle(t, fetch(t, r, SourceLog, 1)...)
		if err := l.stream.DeleteConsumer(t.Context(), consumerName(record)); err != nil {
			t.Fatal(err)
		}
		checkStreams(t, fetch(t, r, SourceLog, 1), 1)
	})
}

// What retention deletes does not come, and is counted; having had it in hand is no error.
func TestBatchesThatExpireAreMissed(t *testing.T) {
	l := openLog(t, Options{NoSync: true, MaxBytes: MinMaxBytes})
	big := func() {
		t.Helper()
		n := notification(1)
		n.Raw = &linksgatev1.Notification_Body{Body: strings.Repeat("x", 500<<10)}
		mustAppend(t, l, n)
	}
	first := func() uint64 {
		t.Helper()
		info, err := l.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.First.Stream
	}
	for range 4 {
		big()
	}
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	late := mustCreate(t, l, groupRecord("late", Cursor{Stream: 2}))
	r := attach(t, l, record)
	claims := fetch(t, r, SourceLog, 2)
	for first() < 10 {
		big()
	}
	awaitState(t, l, record, func(s GroupState) bool { return s.Unsettled == 0 && s.Oldest == Cursor{Stream: first()} })
	settle(t, claims[0])
	if err := claims[1].KeepAlive(); err != nil {
		t.Error(err)
	}
	next := fetch(t, r, SourceLog, 2)
	if want := first() - 3; next[0].Stream != first() || next[0].Missed != want || next[1].Missed != 0 {
		t.Errorf("batch %d after %d missed ones, want %d", next[0].Stream, next[0].Missed, want)
	}
	// Also when they expired before the group was first read, or between two readers.
	next = fetch(t, attach(t, l, late), SourceLog, 1)
	if want := first() - 2; next[0].Missed != want {
		t.Errorf("%d missed before the first, want %d", next[0].Missed, want)
	}
	for was := first(); first() < was+5; {
		big()
	}
	next = fetch(t, attach(t, l, late), SourceLog, 1)
	if want := next[0].Stream - (first() - 5) - 1; next[0].Stream != first() || next[0].Missed != want {
		t.Errorf("batch %d after %d missed ones, want %d", next[0].Stream, next[0].Missed, want)
	}
}

func TestDamagedBatchIsClaimedAsDamaged(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	mustAppend(t, l, notification(1))
	if _, err := l.engine.js.Publish(t.Context(), subject, []byte("not a batch")); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, notification(2))
	mustAppend(t, l, notification(3))
	if err := l.stream.DeleteMsg(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	claims := fetch(t, attach(t, l, record), SourceLog, 3)
	checkStreams(t, claims, 1, 2, 4)
	if !claims[1].Damaged || len(claims[1].Records) != 0 || claims[2].Missed != 1 {
		t.Errorf("claims %+v and %+v", claims[1], claims[2])
	}
	settle(t, claims...)
	awaitState(t, l, record, func(s GroupState) bool { return s.Unsettled == 0 })
}

// What arrives when nobody waits any more is not lost for the length of a lease.
func TestImpatienceLosesNothing(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1})) // leases of an hour
	r := attach(t, l, record)
	const batches = 50
	background := make(chan struct{})
	go func() {
		defer close(background)
		for n := range batches {
			if _, err := l.Append(context.Background(), notification(n)); err != nil {
				t.Error(err)
			}
		}
	}()
	seen := make(map[uint64]bool)
	for deadline := time.Now().Add(30 * time.Second); len(seen) < batches; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		claims, err := r.Fetch(ctx, SourceLog, 5, time.Second)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		for _, c := range claims {
			seen[c.Stream] = true
		}
		if len(seen) > batches/2 && !seen[0] { // once, in between: another reader goes on
			seen[0] = true
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := r.Fetch(ctx, SourceLog, 5, time.Second); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			r.Close()
			r = attach(t, l, record)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d batches", len(seen), batches)
		}
	}
	<-background
}

// What has arrived for a reader that is closed is given to the next one.
func TestClosingGivesBackWhatHasArrived(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1})) // leases of an hour
	r := attach(t, l, record)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if claims, err := r.Fetch(ctx, SourceLog, 5, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v from an empty log; %v", claims, err)
	}
	mustAppend(t, l, notification(1)) // for the request that was left behind
	awaitState(t, l, record, func(s GroupState) bool { return s.Unsettled == 1 })
	r.Close()
	checkStreams(t, fetch(t, attach(t, l, record), SourceLog, 1), 1)
}

func TestReadersShareTheLog(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	const batches = 300
	for n := range batches {
		mustAppend(t, l, notification(n))
	}
	results := make(chan []uint64)
	for range 3 {
		r := attach(t, l, record)
		go func() {
			var got []uint64
			for {
				claims, err := r.Fetch(context.Background(), SourceLog, 7, 300*time.Millisecond)
				if err != nil {
					t.Error(err)
				}
				if len(claims) == 0 {
					results <- got
					return
				}
				for _, c := range claims {
					if len(got) > 0 && got[len(got)-1] >= c.Stream {
						t.Errorf("%d after %d", c.Stream, got[len(got)-1])
					}
					got = append(got, c.Stream)
				}
				settle(t, claims...)
			}
		}()
	}
	var all []uint64
	for range 3 {
		all = append(all, <-results...)
	}
	slices.Sort(all)
	if len(all) != batches || len(slices.Compact(all)) != batches {
		t.Errorf("%d batches, want each of %d once", len(all), batches)
	}
}

func TestMostThatIsInHandIsBounded(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	for n := range maxUnsettled + 10 {
		if _, err := l.engine.js.PublishAsync(subject, appendFramed(nil, []byte{}), jetstream.WithStallWait(time.Minute)); err != nil {
			t.Fatal(n, err)
		}
	}
	<-l.engine.js.PublishAsyncComplete()
	r := attach(t, l, record)
	claims := fetch(t, r, SourceLog, maxUnsettled)
	fetchNone(t, r, SourceLog)
	settle(t, claims[:3]...)
	checkStreams(t, fetch(t, r, SourceLog, 3), maxUnsettled+1, maxUnsettled+2, maxUnsettled+3)
}

// Nothing hangs, or seems to succeed, when the log is closed or its engine has given up.
func TestGroupsEndWithTheLog(t *testing.T) {
	for name, end := range map[string]struct {
		end  func(l *Log)
		want error
	}{
		"closed": {func(l *Log) { _ = l.Close() }, ErrClosed},
		"frozen": {func(l *Log) { l.engine.giveUp(errors.New("disk gone")); <-l.Frozen() }, ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			l := openLog(t, Options{NoSync: true})
			mustAppend(t, l, notification(1))
			one, err := l.Get(t.Context(), Position{Stream: 1})
			if err != nil {
				t.Fatal(err)
			}
			g := l.Groups()
			record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
			r := attach(t, l, record)
			claim := fetch(t, r, SourceLog, 1)[0]
			waiting := make(chan error, 1)
			go func() {
				_, err := r.Fetch(context.Background(), SourceLog, 1, time.Hour)
				waiting <- err
			}()
			started := time.Now()
			end.end(l)
			calls := map[string]error{
				"waiting":   <-waiting,
				"create":    g.Create(t.Context(), groupRecord("b", Cursor{Stream: 1})),
				"put":       g.Put(t.Context(), record, 1),
				"delete":    g.Delete(t.Context(), "a"),
				"settle":    claim.Settle(t.Context()),
				"keep":      claim.KeepAlive(),
				"give back": claim.GiveBack(t.Context()),
				"park":      g.Park(t.Context(), "a", one, linksgatev1.ParkReason_PARK_REASON_REQUESTED, "", 1),
				"replay":    g.Replay(t.Context(), "a", l.NotificationID(one.Position)),
				"purge":     g.Purge(t.Context(), "a", l.NotificationID(one.Position)),
			}
			_, _, calls["get"] = g.Get(t.Context(), "a")
			_, calls["list"] = g.List(t.Context())
			_, calls["watch"] = g.Watch(func(string) {})
			_, calls["attach"] = g.Attach(t.Context(), record)
			_, calls["fetch"] = r.Fetch(t.Context(), SourceReplay, 1, time.Hour)
			_, calls["state"] = r.State(t.Context())
			_, _, calls["progress"] = g.Progress(t.Context(), record, SourceLog, 1)
			_, calls["put progress"] = g.PutProgress(t.Context(), record, SourceLog, 1, &linksgatev1.BatchProgress{}, 0)
			_, calls["answer"] = g.Answer(nil)
			_, calls["ask"] = g.Ask(t.Context(), 1, "method", nil)
			for _, calls["parked"] = range g.Parked(t.Context(), "a", "") {
			}
			for call, err := range calls {
				if !errors.Is(err, end.want) {
					t.Errorf("%s: %v, want %v", call, err, end.want)
				}
			}
			r.Close()
			if took := time.Since(started); took > 30*time.Second {
				t.Errorf("all that took %v", took)
			}
		})
	}
}

func TestSourceNames(t *testing.T) {
	if got := fmt.Sprint(SourceLog, SourceReplay, Source(9)); got != "log replay Source(9)" {
		t.Error(got)
	}
	if wait := ackWait(&linksgatev1.GroupRecord{Group: &linksgatev1.Group{LeaseDuration: durationpb.New(time.Second)}}); wait <= time.Second {
		t.Errorf("the engine waits %v for a lease of a second", wait)
	}
}

// Of an ordered group it is known what may have been lent by a process that died, also when the engine had not written what it had
// delivered, and that nothing is when everything was handed back.
func TestWhatMayBeOutIsKnown(t *testing.T) {
	const lease, more = time.Minute, 50
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir})
	record := bySIM(groupRecord("a", Cursor{Stream: 1}))
	record.Group.LeaseDuration = durationpb.New(lease)
	mustCreate(t, l, record)
	last := uint64(0)
	for n := range 2*more + 2 {
		last = mustAppend(t, l, notification(n)).Stream
	}
	state := filepath.Join(streamsDir, streamName, consumersDir, consumerName(record), consumerStateFile)
	// outstanding returns what is out according to the next process, if this one dies now.
	outstanding := func(withState bool) (o Outstanding, opened time.Time) {
		t.Helper()
		killed := filepath.Join(t.TempDir(), "killed")
		copyDir(t, dir, killed)
		if !withState {
			remove(t, filepath.Join(killed, state))
		}
		next := openLog(t, Options{Dir: killed})
		defer next.Close()
		return attach(t, next, record).Outstanding(), next.Groups().opened
	}
	ends := func(o Outstanding, since time.Time, longest time.Duration) {
		t.Helper()
		if want := since.Add(longest + lendingMargin); !o.Until.Equal(want) {
			t.Errorf("out until %v, want %v", o.Until, want)
		}
	}

	r := attach(t, l, record)
	if o := r.Outstanding(); !o.Until.IsZero() {
		t.Errorf("of a new group is out: %+v", o)
	}
	fetch(t, r, SourceLog, 2)
	if err := r.Reach(t.Context(), 2, more, lease); err != nil {
		t.Fatal(err)
	}
	o, opened := outstanding(false)
	ends(o, opened, lease)
	if got := o.Through[SourceLog]; got < 2 || got > 2+more {
		t.Errorf("out through batch %d, of 2 that were lent", got)
	}
	// A longer lease is known before it is given, and not forgotten for a shorter one. What is not stored yet cannot be out.
	for _, longest := range []time.Duration{2 * lease, lease} {
		if err := r.Reach(t.Context(), last, more, longest); err != nil {
			t.Fatal(err)
		}
	}
	o, opened = outstanding(false)
	ends(o, opened, 2*lease)
	if got := o.Through[SourceLog]; got != last {
		t.Errorf("out through batch %d of %d", got, last)
	}

	// The process goes on without knowing what it had: its own leases are to be waited for.
	r.Close()
	left := time.Now()
	r = attach(t, l, record)
	if o := r.Outstanding(); o.Until.Before(left.Add(2*lease)) || o.Until.After(left.Add(2*lease+2*lendingMargin)) || o.Through[SourceLog] < 2 {
		t.Errorf("after leaving: out until %v through %v", o.Until.Sub(left), o.Through)
	}

	if err := r.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o := attach(t, l, record).Outstanding(); !o.Until.IsZero() {
		t.Errorf("after the end: %+v", o)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if o, _ := outstanding(true); o.Until.IsZero() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("after the end, and what the engine has written: something is out")
		}
	}
	if o, opened = outstanding(false); o.Until.IsZero() { // the engine has forgotten what progress alone does not tell
		t.Error("nothing is out, but the engine's place is older than the end")
	}
	ends(o, opened, 2*lease)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, Options{Dir: dir})
	if o := attach(t, l, record).Outstanding(); !o.Until.IsZero() {
		t.Errorf("after the end and a planned restart: %+v", o)
	}
}
