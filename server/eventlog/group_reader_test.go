package eventlog

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

func attach(t *testing.T, l *Log, record *storagev1.GroupRecord) *GroupReader {
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
		if err := c.reader.Settle(t.Context(), []*Claim{c}); err != nil {
			t.Error(err)
		}
	}
}

// awaitState waits until a group's state is as it should be.
func awaitState(t *testing.T, l *Log, record *storagev1.GroupRecord, ok func(GroupState) bool) GroupState {
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
	l := openLog(t, onDisk{NoSync: true})
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
			if c.Stream != next || c.Again || c.Missed != 0 || c.Damaged || c.Bytes == 0 || c.Written.IsZero() {
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
	entry, err := l.store.Append(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	l.tail.stored(entry, data)
	mustAppend(t, l, notification(5))
}

// The engine writes what it has delivered a little later than it delivers. A batch that it has forgotten to have delivered, and that there
// is progress with, is told as delivered before.
// What retention deletes does not come, and is counted; having had it in hand is no error.
func TestBatchesThatExpireAreMissed(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true, MaxBytes: MinMaxBytes})
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
	time.Sleep(2 * retainedEvery) // until the window has followed
	awaitState(t, l, record, func(s GroupState) bool { return s.Oldest == Cursor{Stream: first()} })
	settle(t, claims[0])
	next := fetch(t, r, SourceLog, 2)
	if want := first() - 3; next[0].Stream != first() || next[0].Missed != want || next[1].Missed != 0 {
		t.Errorf("batch %d after %d missed ones, want %d", next[0].Stream, next[0].Missed, want)
	}
	// Also when they expired before the group was first read, or between two readers.
	next = fetch(t, attach(t, l, late), SourceLog, 1)
	if want := first() - 2; next[0].Missed != want {
		t.Errorf("%d missed before the first, want %d", next[0].Missed, want)
	}
	delivered := next[0].Stream // and not settled
	for was := first(); first() < was+5; {
		big()
	}
	time.Sleep(2 * retainedEvery)
	next = fetch(t, attach(t, l, late), SourceLog, 1)
	if want := next[0].Stream - delivered; next[0].Stream != first() || next[0].Missed != want {
		t.Errorf("batch %d after %d missed ones, want %d", next[0].Stream, next[0].Missed, want)
	}
}

func TestSourceNames(t *testing.T) {
	if got := fmt.Sprint(SourceLog, SourceReplay, Source(9)); got != "log replay Source(9)" {
		t.Error(got)
	}
}
