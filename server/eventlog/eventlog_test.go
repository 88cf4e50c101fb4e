package eventlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/store"
	"github.com/linksgate/linksgate/server/store/disk"
)

// onDisk says how a test opens a log on disk.
type onDisk struct {
	Dir                                    string // default: one of the test's own
	NoSync                                 bool
	MaxBytes, ParkedBytes, QuarantineBytes int64
	MaxAge, DuplicateWindow                time.Duration
	WindowBytes                            int
}

func openOnDisk(t *testing.T, o onDisk) (*Log, error) {
	t.Helper()
	engine, err := disk.Open(t.Context(), disk.Options{Dir: o.Dir, NoSync: o.NoSync, MinFree: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return Open(t.Context(), Options{
		Engine: engine, IndexDir: filepath.Join(o.Dir, "index"), MaxBytes: o.MaxBytes, ParkedBytes: o.ParkedBytes,
		QuarantineBytes: o.QuarantineBytes, MaxAge: o.MaxAge, DuplicateWindow: o.DuplicateWindow, WindowBytes: o.WindowBytes,
	})
}

func openLog(t *testing.T, o onDisk) *Log {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	l, err := openOnDisk(t, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// dirOf returns the directory of a log on disk.
func dirOf(l *Log) string { return filepath.Dir(l.options.IndexDir) }

func notification(n int) *linksgatev1.Notification {
	return &linksgatev1.Notification{
		Account: fmt.Sprintf("account-%d", n%3),
		Kind:    linksgatev1.NotificationKind(n%8 + 1),
		Iccids:  []string{fmt.Sprintf("8944%015d", n%10)},
		Raw:     &linksgatev1.Notification_Body{Body: fmt.Sprintf(`{"n":%d}`, n)},
	}
}

// forgetWindow empties the window, as a restart does, once the tail has taken over everything that was stored.
func forgetWindow(t *testing.T, l *Log) {
	t.Helper()
	l.tail.mu.Lock()
	defer l.tail.mu.Unlock()
	l.tail.window, l.tail.bytes = nil, 0
}

// appendAll appends count notifications from several goroutines and returns their bodies by sequence.
func appendAll(t *testing.T, l *Log, first, count, workers int) map[uint64]string {
	t.Helper()
	var mu sync.Mutex
	stored := make(map[uint64]string, count)
	numbers := make(chan int)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for n := range numbers {
				one := notification(n)
				position, err := l.Append(context.Background(), one)
				if err != nil {
					t.Errorf("append %d: %v", n, err)
					continue
				}
				mu.Lock()
				stored[position.Sequence()] = one.GetBody()
				mu.Unlock()
			}
		})
	}
	for n := range count {
		numbers <- first + n
	}
	close(numbers)
	group.Wait()
	return stored
}

// readTo reads from a cursor to the head as it is now.
func readTo(t *testing.T, l *Log, from Cursor, filter *Filter) []*linksgatev1.Notification {
	t.Helper()
	info, err := l.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []*linksgatev1.Notification
	if !from.Before(info.Next) {
		return nil
	}
	for step, err := range l.Read(t.Context(), from, ReadOptions{Filter: filter, Until: info.Next, Pulse: time.Second}) {
		if err != nil {
			t.Fatal(err)
		}
		if step.Gap != nil {
			t.Fatalf("gap: %+v", step.Gap)
		}
		for _, record := range step.Records {
			n, err := record.Notification()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, n)
		}
	}
	return all
}

// checkExactly checks that notifications are those stored, each once, in order, with the places that belong to them.
func checkExactly(t *testing.T, l *Log, got []*linksgatev1.Notification, want map[uint64]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("read %d notifications, want %d", len(got), len(want))
	}
	var last uint64
	for _, n := range got {
		sequence := uint64(n.GetSequence())
		if sequence <= last {
			t.Errorf("sequence %d follows %d", sequence, last)
		}
		last = sequence
		if want[last] != n.GetBody() {
			t.Errorf("sequence %d holds %s, want %s", last, n.GetBody(), want[last])
		}
		position, err := l.ParseNotificationID(n.GetId())
		if err != nil || position.Sequence() != last {
			t.Errorf("id %s is at %v (%v), want %d", n.GetId(), position, err, last)
		}
	}
}

func TestEveryAppendIsReadOnceInOrder(t *testing.T) {
	l := openLog(t, onDisk{})
	want := appendAll(t, l, 0, 3000, 64)
	if batches := l.Stats().Batches.Load(); batches >= 3000 {
		t.Errorf("%d batches for 3000 concurrent appends: none were gathered", batches)
	}
	checkExactly(t, l, readTo(t, l, Cursor{Stream: 1}, nil), want)
}

func TestReopenedLogContinues(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, onDisk{Dir: dir})
	want := appendAll(t, l, 0, 300, 8)
	id := l.ID()
	all := readTo(t, l, Cursor{Stream: 1}, nil)
	middle := all[149].GetToken()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	l = openLog(t, onDisk{Dir: dir})
	if l.ID() != id {
		t.Errorf("id %s became %s", id, l.ID())
	}
	for sequence, body := range appendAll(t, l, 300, 100, 8) {
		want[sequence] = body
	}
	checkExactly(t, l, readTo(t, l, Cursor{Stream: 1}, nil), want)
	cursor, err := l.ParseToken(middle)
	if err != nil {
		t.Fatal(err)
	}
	after := readTo(t, l, cursor, nil)
	if len(after) != 250 || after[0].GetId() != all[150].GetId() {
		t.Errorf("resumed with %d notifications at %s, want 250 at %s", len(after), after[0].GetId(), all[150].GetId())
	}
}

func TestEveryTokenResumesAfterItsNotification(t *testing.T) {
	l := openLog(t, onDisk{})
	appendAll(t, l, 0, 200, 32)
	all := readTo(t, l, Cursor{Stream: 1}, nil)
	for i, n := range all {
		cursor, err := l.ParseToken(n.GetToken())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all[i+1:], readTo(t, l, cursor, nil), protocmp.Transform(), cmpEmpty); diff != "" {
			t.Fatalf("after token of %d:\n%s", i, diff)
		}
	}
}

var cmpEmpty = cmp.FilterValues(func(a, b []*linksgatev1.Notification) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore())

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	openLog(t, onDisk{Dir: dir})
	if _, err := openOnDisk(t, onDisk{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second open: %v", err)
	}
}

func TestReaderBehindTheWindowCatchesUp(t *testing.T) {
	l := openLog(t, onDisk{WindowBytes: 4 << 10, NoSync: true})
	want := appendAll(t, l, 0, 2000, 4)
	states := make(map[State]int)
	var got []*linksgatev1.Notification
	for step, err := range l.Read(t.Context(), Cursor{Stream: 1}, ReadOptions{Pulse: time.Second}) {
		if err != nil {
			t.Fatal(err)
		}
		states[step.State]++
		for _, record := range step.Records {
			n, err := record.Notification()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, n)
		}
		if step.State == StateLive {
			break
		}
	}
	if states[StateReplaying] == 0 {
		t.Error("everything was in the window: nothing was tested")
	}
	checkExactly(t, l, got, want)
}

func TestFilters(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	appendAll(t, l, 0, 240, 16)
	for name, test := range map[string]struct {
		filter *Filter
		pass   func(*linksgatev1.Notification) bool
	}{
		"account": {&Filter{Accounts: map[string]bool{"account-1": true}},
			func(n *linksgatev1.Notification) bool { return n.GetAccount() == "account-1" }},
		"kind": {&Filter{Kinds: map[linksgatev1.NotificationKind]bool{linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE: true}},
			func(n *linksgatev1.Notification) bool {
				return n.GetKind() == linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE
			}},
		"iccid and account": {&Filter{ICCIDs: map[string]bool{"8944000000000000003": true}, Accounts: map[string]bool{"account-0": true}},
			func(n *linksgatev1.Notification) bool {
				return n.GetIccids()[0] == "8944000000000000003" && n.GetAccount() == "account-0"
			}},
		"nothing": {&Filter{PartnerCodes: map[string]bool{"P1": true}}, func(*linksgatev1.Notification) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			var want []*linksgatev1.Notification
			for _, n := range readTo(t, l, Cursor{Stream: 1}, nil) {
				if test.pass(n) {
					want = append(want, n)
				}
			}
			got := readTo(t, l, Cursor{Stream: 1}, test.filter)
			if diff := cmp.Diff(want, got, protocmp.Transform(), cmpEmpty); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A waiting reader is woken by what passes its filter, and nothing else has to happen for it.
func TestWaitingReaderIsWokenByItsInterest(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	for name, filter := range map[string]*Filter{
		"any":     nil,
		"account": {Accounts: map[string]bool{"account-2": true}},
		"kind":    {Kinds: map[linksgatev1.NotificationKind]bool{linksgatev1.NotificationKind(6): true}},
		"iccid":   {ICCIDs: map[string]bool{"8944000000000000005": true}},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := l.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			next, stop := pull(t, l, info.Next, filter)
			defer stop()
			if step := next(); step.State != StateLive {
				t.Fatalf("first step: %+v", step)
			}
			go func() {
				for n := range 6 { // the last one matches every filter
					_, _ = l.Append(context.Background(), notification(n))
				}
			}()
			for {
				step := next()
				for _, record := range step.Records {
					if n, _ := record.Notification(); n.GetBody() == `{"n":5}` {
						return
					}
				}
			}
		})
	}
}

// pull reads step by step, with a pulse so long that only a wake-up can explain a step.
func pull(t *testing.T, l *Log, from Cursor, filter *Filter) (next func() Step, stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	steps := make(chan Step)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(steps)
		for step, err := range l.Read(ctx, from, ReadOptions{Filter: filter, Pulse: time.Hour}) {
			if err != nil {
				return
			}
			select {
			case steps <- step:
			case <-ctx.Done():
				return
			}
		}
	})
	next = func() Step {
		step, ok := <-steps
		if !ok {
			t.Fatal("the reading ended, or nothing arrived for 20 s")
		}
		return step
	}
	return next, func() { cancel(); reading.Wait() }
}

func TestRetentionBySizeIsToldAsAGap(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true, MaxBytes: MinMaxBytes, WindowBytes: 64 << 10})
	big := notification(1)
	big.Raw = &linksgatev1.Notification_Body{Body: strings.Repeat("x", 200<<10)}
	for range 200 { // 40 MiB
		if _, err := l.Append(t.Context(), big); err != nil {
			t.Fatal(err)
		}
	}
	info, err := l.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.First.Stream == 1 || info.Bytes > MinMaxBytes {
		t.Fatalf("nothing was retired: %+v", info)
	}
	var gap *Gap
	read := uint64(0)
	for step, err := range l.Read(t.Context(), Cursor{Stream: 1}, ReadOptions{Until: info.Next, Pulse: time.Second}) {
		if err != nil {
			t.Fatal(err)
		}
		if step.Gap != nil {
			gap = step.Gap
		}
		read += uint64(len(step.Records))
	}
	if gap == nil || !errors.Is(gap.Err, ErrExpired) || gap.Batches != info.First.Stream-1 {
		t.Errorf("gap %+v, want %d expired batches", gap, info.First.Stream-1)
	}
	if read != info.Batches {
		t.Errorf("read %d, want %d", read, info.Batches)
	}
	if _, err := l.Get(t.Context(), Position{Stream: 1}); !errors.Is(err, ErrExpired) {
		t.Errorf("get of an expired position: %v", err)
	}
}

// The end of one batch is the start of the next: a reader that has read all of a batch that has expired since has missed
// nothing.
func TestNoGapAfterTheLastOfAnExpiredBatch(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	appendAll(t, l, 0, 3, 1)
	forgetWindow(t, l)
	if err := l.store.Trim(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for step, err := range l.Read(t.Context(), after(1, 0, 1), ReadOptions{Until: Cursor{Stream: 4}, Pulse: time.Second}) {
		if err != nil || step.Gap != nil {
			t.Errorf("%+v %v", step.Gap, err)
		}
	}
}

// A corrupt byte in a record batch costs that batch, which readers are told; what comes after it is read.
func TestCorruptBatchIsAGap(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	for n := range 5 {
		appendAll(t, l, n, 1, 1)
	}
	dir := dirOf(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "log", "*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	data, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, []byte(`{"n":2}`))
	data[at+5] = '3'
	if err := os.WriteFile(segments[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, onDisk{Dir: dir, NoSync: true})
	var read []uint64
	for step, err := range l.Read(t.Context(), Cursor{Stream: 1}, ReadOptions{Until: Cursor{Stream: 6}, Pulse: time.Second}) {
		if err != nil {
			t.Fatal(err)
		}
		if step.Gap != nil && (!errors.Is(step.Gap.Err, ErrDamaged) || step.Gap.Batches != 1 || len(read) != 2) {
			t.Errorf("gap %+v after %v", step.Gap, read)
		}
		for _, r := range step.Records {
			read = append(read, r.Position.Stream)
		}
	}
	if !slices.Equal(read, []uint64{1, 2, 4, 5}) {
		t.Errorf("read %v", read)
	}
	if _, err := l.Get(t.Context(), Position{Stream: 3}); !errors.Is(err, ErrDamaged) {
		t.Errorf("get: %v", err)
	}
}

// What is older than the retention is unreadable in every way at the same time, also while it is in the window.
func TestRetentionIsTheSameForEveryWayOfReading(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	if err := l.store.SetOptions(store.LogOptions{MaxAge: 1500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	position, err := l.Append(t.Context(), notification(1))
	if err != nil {
		t.Fatal(err)
	}
	token := l.Token(Cursor(position))
	if _, err := l.Get(t.Context(), position); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	if _, err := l.Get(t.Context(), position); !errors.Is(err, ErrExpired) {
		t.Errorf("by id: %v", err)
	}
	cursor, err := l.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	for step, err := range l.Read(t.Context(), cursor, ReadOptions{Until: Cursor{Stream: 2}, Pulse: time.Second}) {
		if err != nil || step.Gap == nil || !errors.Is(step.Gap.Err, ErrExpired) {
			t.Errorf("by token: %+v %v", step, err)
		}
	}
	if info, err := l.Info(t.Context()); err != nil || !info.Empty() {
		t.Errorf("info: %+v %v", info, err)
	}
}

// A copy of a directory and the original go on by themselves: no token is honoured by the other from where they parted, and no id names
// two notifications.
func TestCopiesAreToldApart(t *testing.T) {
	original := openLog(t, onDisk{NoSync: true})
	appendAll(t, original, 0, 10, 1)
	info, err := original.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shared, sharedID := original.Token(info.Next), original.NotificationID(info.Head)
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(dirOf(original))); err != nil { // while it is open
		t.Fatal(err)
	}
	appendAll(t, original, 10, 20, 1)
	restored := openLog(t, onDisk{Dir: dir, NoSync: true})
	appendAll(t, restored, 100, 40, 1)
	for name, pair := range map[string][2]*Log{"of the original": {original, restored}, "of the copy": {restored, original}} {
		from, to := pair[0], pair[1]
		if cursor, err := to.ParseToken(shared); err != nil || cursor != info.Next {
			t.Errorf("a token from before they parted: %v %v", cursor, err)
		}
		if _, err := to.ParseNotificationID(sharedID); err != nil {
			t.Errorf("an id from before they parted: %v", err)
		}
		p := Position{Stream: info.Next.Stream + 5}
		if _, err := to.ParseToken(from.Token(Cursor(p))); !errors.Is(err, ErrAhead) {
			t.Errorf("a token %s: %v", name, err)
		}
		if _, err := to.ParseNotificationID(from.NotificationID(p)); !errors.Is(err, ErrOtherLog) {
			t.Errorf("an id %s: %v", name, err)
		}
	}
}

func TestTokensAreChecked(t *testing.T) {
	l, other := openLog(t, onDisk{}), openLog(t, onDisk{})
	token := l.Token(Cursor{Stream: 7, Index: 3})
	if cursor, err := l.ParseToken(token); err != nil || cursor != (Cursor{Stream: 7, Index: 3}) {
		t.Errorf("%v %v", cursor, err)
	}
	if _, err := other.ParseToken(token); !errors.Is(err, ErrOtherLog) {
		t.Errorf("token of another log: %v", err)
	}
	for i := range token {
		for bit := range 8 {
			damaged := []byte(token)
			damaged[i] ^= 1 << bit
			if _, err := l.ParseToken(string(damaged)); !errors.Is(err, ErrBadToken) {
				t.Fatalf("damaged token %q: %v", damaged, err)
			}
		}
	}
	for _, bad := range []string{"", "x", token + "A", strings.Repeat("A", tokenLen)} {
		if _, err := l.ParseToken(bad); !errors.Is(err, ErrBadToken) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for range l.Read(t.Context(), Cursor{Stream: 7}, ReadOptions{Pulse: time.Second}) {
		break
	}
	for _, err := range l.Read(t.Context(), Cursor{Stream: 7}, ReadOptions{Pulse: time.Second}) {
		if !errors.Is(err, ErrAhead) {
			t.Errorf("reading ahead of the head: %v", err)
		}
	}
}

func TestGet(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	position, err := l.Append(t.Context(), notification(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"in the window", "in the stream"} {
		record, err := l.Get(t.Context(), position)
		if err != nil {
			t.Fatalf("%s: %v", place, err)
		}
		n, err := record.Notification()
		want := notification(1)
		want.Id, want.Token, want.Sequence = l.NotificationID(position), l.Token(record.Next), int64(position.Sequence())
		if diff := cmp.Diff(want, n, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("%s: %v %s", place, err, diff)
		}
		forgetWindow(t, l)
	}
	for _, missing := range []Position{{Stream: 2}, {Stream: 1, Index: 1}} {
		if _, err := l.Get(t.Context(), missing); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: %v", missing, err)
		}
	}
}

func TestCursorAt(t *testing.T) {
	l := openLog(t, onDisk{})
	before := time.Now()
	appendAll(t, l, 0, 3, 1)
	info, err := l.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.batchAt(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		time time.Time
		want Cursor
	}{
		"long before": {before.Add(-time.Hour), Cursor{Stream: 1}},
		"exactly":     {second.written, Cursor{Stream: 2}},
		"just after":  {second.written.Add(1), Cursor{Stream: 3}},
		"future":      {time.Now().Add(time.Hour), info.Next},
	} {
		if got, err := l.CursorAt(t.Context(), test.time); err != nil || got != test.want {
			t.Errorf("%s: %v %v, want %v", name, got, err, test.want)
		}
	}
}

func TestTooLargeIsRefused(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	big := &linksgatev1.Notification{Raw: &linksgatev1.Notification_Body{Body: strings.Repeat("x", MaxRecordBytes)}}
	if _, err := l.Append(t.Context(), big); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	big.Raw = &linksgatev1.Notification_Body{Body: strings.Repeat("x", MaxRecordBytes-8)}
	for proto.Size(big) > MaxRecordBytes {
		big.Raw = &linksgatev1.Notification_Body{Body: big.GetBody()[1:]}
	}
	position, err := l.Append(t.Context(), big)
	if err != nil {
		t.Fatalf("largest: %v", err)
	}
	if _, err := l.Get(t.Context(), position); err != nil {
		t.Error(err)
	}
	if got := readTo(t, l, Cursor{Stream: 1}, nil); len(got) != 1 {
		t.Errorf("read %d", len(got))
	}
}

func TestCloseEndsReadersAndAnswersWriters(t *testing.T) {
	l := openLog(t, onDisk{})
	appendAll(t, l, 0, 1, 1)
	ended := make(chan error, 1)
	go func() {
		var last error
		for _, err := range l.Read(context.Background(), Cursor{Stream: 1}, ReadOptions{Pulse: time.Hour}) {
			last = err
		}
		ended <- last
	}()
	results := make(chan error, 200)
	stored := make(chan Position, 200)
	for n := range 200 {
		go func() {
			position, err := l.Append(context.Background(), notification(n))
			if err == nil {
				stored <- position
			}
			results <- err
		}()
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := <-results; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("append during close: %v", err)
		}
	}
	close(stored)
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("reader ended with %v", err)
	}
	l = openLog(t, onDisk{Dir: dirOf(l)})
	for position := range stored {
		if _, err := l.Get(t.Context(), position); err != nil {
			t.Errorf("acknowledged before the close, not found after: %v", err)
		}
	}
}

// Names of fields that are read and written without the generated code.
func TestFieldNumbers(t *testing.T) {
	fields := (&linksgatev1.Notification{}).ProtoReflect().Descriptor().Fields()
	for name, number := range map[string]int{
		"id": fieldID, "token": fieldToken, "sequence": fieldSequence, "account": fieldAccount, "kind": fieldKind,
		"iccids": fieldICCIDs, "partner_code": fieldPartnerCode,
	} {
		if field := fields.ByNumber(1); field == nil {
			t.Fatal("no fields")
		}
		if field := fields.ByTextName(name); field == nil || int(field.Number()) != number {
			t.Errorf("field %s is not number %d", name, number)
		}
	}
	for _, message := range []proto.Message{&storagev1.RecordBatch{}, &linksgatev1.NotificationBatch{}} {
		field := message.ProtoReflect().Descriptor().Fields().ByTextName("notifications")
		if field == nil || int(field.Number()) != fieldNotifications {
			t.Errorf("%T.notifications is not number %d", message, fieldNotifications)
		}
	}
}
