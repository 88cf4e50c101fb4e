package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/linksgate/linksgate/server/store"
)

func testLogReads(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	log := openLog(t, engine, store.LogOptions{})
	if got := read(t, log, 0); len(got) != 0 {
		t.Errorf("an empty log yields %q", got)
	}
	if i := info(t, log); i.First != i.Next || !i.FirstTime.IsZero() {
		t.Errorf("an empty log says %+v", i)
	}
	began := time.Now().Add(-time.Minute) // a server's clock may differ a little
	entries := fill(t, log, 0, 100)
	for k, e := range entries {
		if e.Sequence != entries[0].Sequence+uint64(k) || e.Time.Before(began) || k > 0 && e.Time.Before(entries[k-1].Time) {
			t.Fatalf("entry %d is %+v", k, e)
		}
	}
	first := entries[0].Sequence
	for _, n := range []int{0, 1, 50, 99, 100} {
		if got, want := read(t, log, first+uint64(n)), texts(first+uint64(n), n, 100); !slices.Equal(got, want) {
			t.Errorf("reading from %d yields %q", n, got)
		}
	}
	if got := read(t, log, 0); !slices.Equal(got, texts(first, 0, 100)) {
		t.Errorf("reading from 0 yields %q", got)
	}
	i := info(t, log)
	if i.First != first || i.Next != first+100 || i.Bytes <= 0 || !f.same(i.FirstTime, entries[0].Time) || !f.same(i.LastTime, entries[99].Time) {
		t.Errorf("info is %+v", i)
	}
	for item, err := range log.Read(t.Context(), first+7) {
		must(t, err)
		if epoch, ok := i.EpochAt(item.Sequence); !ok || epoch != item.Epoch || item.Epoch != entries[0].Epoch || !f.same(item.Time, entries[7].Time) {
			t.Errorf("entry %+v has epoch %d in %+v", item.Entry, epoch, i)
		}
		break
	}
}

func testLogReopens(t *testing.T, f Fixture) {
	engine := f.Open(t)
	log := openLog(t, engine, store.LogOptions{})
	id, first := log.ID(), fill(t, log, 0, 1)[0].Sequence
	total := 1
	for round := range 4 {
		fill(t, log, total, total+10)
		total += 10
		if round%2 == 0 || f.Crash == nil {
			must(t, engine.Close())
		} else {
			f.Crash(t, engine)
		}
		engine = f.Open(t)
		log = openLog(t, engine, store.LogOptions{})
		if got := read(t, log, 0); !slices.Equal(got, texts(first, 0, total)) {
			t.Fatalf("after round %d the log yields %q", round, got)
		}
		if log.ID() != id {
			t.Errorf("the log's id was %s and is %s", id, log.ID())
		}
	}
	if i := info(t, log); i.First != first || i.Next != first+uint64(total) {
		t.Errorf("info is %+v", i)
	}
	must(t, engine.Close())
}

func testLogFinds(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	log := openLog(t, engine, store.LogOptions{})
	fill(t, log, 0, 3)
	time.Sleep(20 * time.Millisecond)
	fill(t, log, 3, 6)
	var entries []store.Entry // with the engine's times
	for item, err := range log.Read(t.Context(), 0) {
		must(t, err)
		entries = append(entries, item.Entry)
	}
	before, behind := entries[:3], entries[3:]
	for _, test := range []struct {
		at   time.Time
		want uint64
	}{
		{before[0].Time.Add(-time.Hour), before[0].Sequence},
		{before[0].Time, before[0].Sequence},
		{behind[0].Time.Add(-5 * time.Millisecond), behind[0].Sequence},
		{behind[2].Time.Add(time.Hour), behind[2].Sequence + 1},
	} {
		if got, err := log.Find(t.Context(), test.at); err != nil || got != test.want {
			t.Errorf("find %v: %d, %v; want %d", test.at, got, err, test.want)
		}
	}
}

func testLogWaits(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	log := openLog(t, engine, store.LogOptions{})
	next := info(t, log).Next
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantError(t, "waiting in vain", log.Wait(ctx, next), context.DeadlineExceeded)
	done := make(chan error)
	go func() { done <- log.Wait(t.Context(), next+1) }()
	fill(t, log, 0, 2)
	must(t, <-done)
	must(t, log.Wait(t.Context(), next))
}

func testLogTrims(t *testing.T, f Fixture) {
	engine := f.Open(t)
	log := openLog(t, engine, store.LogOptions{})
	first := fill(t, log, 0, 10)[0].Sequence
	must(t, log.Trim(t.Context(), first+4))
	check := func() {
		t.Helper()
		if got := read(t, log, 0); !slices.Equal(got, texts(first+4, 4, 10)) {
			t.Errorf("reading from 0 yields %q", got)
		}
		want := append([]string{fmt.Sprintf("%d+3 %d", first+1, store.Expired)}, texts(first+4, 4, 10)...)
		if got := read(t, log, first+1); !slices.Equal(got, want) {
			t.Errorf("reading from before the first yields %q", got)
		}
		if i := info(t, log); i.First != first+4 || i.Next != first+10 {
			t.Errorf("info is %+v", i)
		}
		if got, err := log.Find(t.Context(), time.Unix(1, 0)); err != nil || got != first+4 {
			t.Errorf("the first entry is found at %d, %v", got, err)
		}
	}
	check()
	must(t, engine.Close())
	engine = f.Open(t)
	defer closing(t, engine)
	log = openLog(t, engine, store.LogOptions{})
	check()
	must(t, log.Trim(t.Context(), first+100))
	if i := info(t, log); i.First != i.Next || i.Next != first+10 {
		t.Errorf("info of what is trimmed as a whole is %+v", i)
	}
	fill(t, log, 10, 11)
	if got := read(t, log, 0); !slices.Equal(got, texts(first+10, 10, 11)) {
		t.Errorf("what came after that is %q", got)
	}
}

func testLogAge(t *testing.T, f Fixture) {
	const age = 2 * time.Second
	engine := f.Open(t)
	defer closing(t, engine)
	log := openLog(t, engine, store.LogOptions{MaxAge: age})
	first := fill(t, log, 0, 3)[0].Sequence
	time.Sleep(age / 2)
	fill(t, log, 3, 4)
	if got := read(t, log, 0); !slices.Equal(got, texts(first, 0, 4)) {
		t.Errorf("before the age the log yields %q", got)
	}
	eventually(t, "what is too old is gone, and nothing else", func() bool { return info(t, log).First == first+3 })
	if got := read(t, log, 0); !slices.Equal(got, texts(first+3, 3, 4)) {
		t.Errorf("after the age the log yields %q", got)
	}
	if got := read(t, log, first); len(got) == 0 || got[0] != fmt.Sprintf("%d+3 %d", first, store.Expired) {
		t.Errorf("reading what is too old yields %q", got)
	}
}

func testLogBytes(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	log := openLog(t, engine, store.LogOptions{MaxBytes: f.Bound})
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	var first uint64
	for written := int64(0); written < 2*f.Bound; written += int64(len(data)) {
		e, err := log.Append(t.Context(), data)
		must(t, err)
		if first == 0 {
			first = e.Sequence
		}
	}
	eventually(t, "the log keeps to its bound", func() bool {
		i := info(t, log)
		return i.First > first && i.Bytes <= f.Bound+f.Bound/4
	})
	count := 0
	for item, err := range log.Read(t.Context(), 0) {
		must(t, err)
		if item.Gap.Count > 0 || !bytes.Equal(item.Data, data) {
			t.Fatalf("item %+v", item.Gap)
		}
		count++
	}
	if kept := int64(count) * int64(len(data)); kept < f.Bound*5/8 {
		t.Errorf("%d bytes are kept of %d that may be", kept, f.Bound)
	}
}

func testLogTooLarge(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	log := openLog(t, engine, store.LogOptions{})
	_, err := log.Append(t.Context(), make([]byte, engine.MaxEntry()+1))
	wantError(t, "appending too much", err, store.ErrTooLarge)
	large := bytes.Repeat([]byte{7}, engine.MaxEntry())
	_, err = log.Append(t.Context(), large)
	must(t, err)
	for item, err := range log.Read(t.Context(), 0) {
		must(t, err)
		if !bytes.Equal(item.Data, large) {
			t.Errorf("%d bytes are read, gap %+v", len(item.Data), item.Gap)
		}
	}
}

func testLogConcurrent(t *testing.T, f Fixture) {
	const total = 500
	engine := f.Open(t)
	defer closing(t, engine)
	log := openLog(t, engine, store.LogOptions{})
	first := fill(t, log, 0, 1)[0].Sequence
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for next := first; next < first+total; {
				if err := log.Wait(t.Context(), next); err != nil {
					t.Error(err)
					return
				}
				for item, err := range log.Read(t.Context(), next) {
					if err != nil || item.Sequence != next || string(item.Data) != text(int(next-first)) {
						t.Errorf("at %d: %d %q %+v %v", next, item.Sequence, item.Data, item.Gap, err)
						return
					}
					next++
				}
			}
		})
	}
	fill(t, log, 1, total)
	readers.Wait()
}

func testLogRewrites(t *testing.T, f Fixture) {
	engine := f.Open(t)
	log := openLog(t, engine, store.LogOptions{})
	rewriter, ok := log.(store.Rewriter)
	if !ok {
		must(t, engine.Close())
		t.Skip("this engine cannot replace what it stores")
	}
	entries := fill(t, log, 0, 10)
	first := entries[0].Sequence
	must(t, rewriter.Rewrite(t.Context(), []uint64{first + 2, first + 5}, func(sequence uint64, data []byte) ([]byte, error) {
		if string(data) != text(int(sequence-first)) {
			t.Errorf("%d is given as %q", sequence, data)
		}
		if sequence == first+2 {
			return nil, nil
		}
		return []byte("other"), nil
	}))
	fill(t, log, 10, 12)
	want := append(texts(first, 0, 2), fmt.Sprintf("%d+1 %d", first+2, store.Erased))
	want = append(append(want, texts(first+3, 3, 5)...), fmt.Sprintf("%d other", first+5))
	want = append(want, texts(first+6, 6, 12)...)
	if got := read(t, log, 0); !slices.Equal(got, want) {
		t.Errorf("after rewriting: %q", got)
	}
	broken := errors.New("broken")
	err := rewriter.Rewrite(t.Context(), []uint64{first + 3}, func(uint64, []byte) ([]byte, error) { return nil, broken })
	wantError(t, "an edit that fails", err, broken)
	must(t, engine.Close())
	engine = f.Open(t)
	defer closing(t, engine)
	log = openLog(t, engine, store.LogOptions{})
	if got := read(t, log, 0); !slices.Equal(got, want) {
		t.Errorf("after opening again: %q", got)
	}
	for item, err := range log.Read(t.Context(), first+5) {
		must(t, err)
		if item.Epoch != entries[5].Epoch || !f.same(item.Time, entries[5].Time) {
			t.Errorf("an entry that was replaced is %+v, it was %+v", item.Entry, entries[5])
		}
		break
	}
}

func testClosed(t *testing.T, f Fixture) {
	engine := f.Open(t)
	log, kv := openLog(t, engine, store.LogOptions{}), openKV(t, engine, store.KVOptions{})
	waiting := make(chan error, 1)
	next := info(t, log).Next
	go func() { waiting <- log.Wait(context.Background(), next) }()
	must(t, engine.Writable())
	must(t, engine.Close())
	wantError(t, "waiting", <-waiting, store.ErrClosed)
	_, err := log.Append(t.Context(), []byte("late"))
	wantError(t, "appending", err, store.ErrClosed)
	_, err = kv.Put(t.Context(), "late", nil, store.Any)
	wantError(t, "putting", err, store.ErrClosed)
	wantError(t, "writable", engine.Writable(), store.ErrClosed)
	must(t, engine.Close())
}
