package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linksgate/linksgate/server/store"
)

func testKVRevisions(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	kv := openKV(t, engine, store.KVOptions{})
	_, err := kv.Get(t.Context(), "a.b")
	wantError(t, "getting what is not there", err, store.ErrNotFound)
	wantError(t, "deleting what is not there", kv.Delete(t.Context(), "a.b", store.Any), store.ErrNotFound)
	first := put(t, kv, "a.b", "one", store.Absent)
	_, err = kv.Put(t.Context(), "a.b", []byte("two"), store.Absent)
	wantError(t, "creating what is there", err, store.ErrConflict)
	second := put(t, kv, "a.b", "two", first)
	if second <= first {
		t.Errorf("revisions are %d and %d", first, second)
	}
	_, err = kv.Put(t.Context(), "a.b", []byte("three"), first)
	wantError(t, "changing what has changed", err, store.ErrConflict)
	wantError(t, "deleting what has changed", kv.Delete(t.Context(), "a.b", first), store.ErrConflict)
	v, err := kv.Get(t.Context(), "a.b")
	if err != nil || string(v.Data) != "two" || v.Revision != second || time.Since(v.Time).Abs() > time.Minute {
		t.Errorf("value %+v, %v", v, err)
	}
	third := put(t, kv, "a.b", "", store.Any)
	must(t, kv.Delete(t.Context(), "a.b", third))
	_, err = kv.Get(t.Context(), "a.b")
	wantError(t, "getting what was deleted", err, store.ErrNotFound)
	if again := put(t, kv, "a.b", "again", store.Absent); again <= third {
		t.Errorf("the revision after %d is %d", third, again)
	}
}

// testKVDeletes: whoever reads a value while it is deleted gets it, or that there is none; nothing between.
func testKVDeletes(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	kv := openKV(t, engine, store.KVOptions{})
	stop := make(chan struct{})
	var reading sync.WaitGroup
	check := func(how string, v store.Value, err error) {
		if err == nil && string(v.Data) != "value" || err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %q, %v", how, v.Data, err)
		}
	}
	for range 2 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v, err := kv.Get(context.Background(), "a.b")
				check("got", v, err)
				for v, err := range kv.List(context.Background(), "a.", "", false) {
					check("listed", v, err)
				}
			}
		})
	}
	for range 200 {
		put(t, kv, "a.b", "value", store.Absent)
		must(t, kv.Delete(t.Context(), "a.b", store.Any))
	}
	close(stop)
	reading.Wait()
}

func testKVReopens(t *testing.T, f Fixture) {
	engine := f.Open(t)
	kv := openKV(t, engine, store.KVOptions{})
	want := make(map[string]string)
	for round := range 4 {
		for n := range 20 {
			key, value := fmt.Sprintf("key.%d", n*(round+1)), fmt.Sprintf("%d in round %d", n, round)
			put(t, kv, key, value, store.Any)
			want[key] = value
		}
		gone := fmt.Sprintf("key.%d", round+1)
		if _, there := want[gone]; there {
			must(t, kv.Delete(t.Context(), gone, store.Any))
			delete(want, gone)
		}
		if round%2 == 0 || f.Crash == nil {
			must(t, engine.Close())
		} else {
			f.Crash(t, engine)
		}
		engine = f.Open(t)
		kv = openKV(t, engine, store.KVOptions{})
		if got := list(t, kv, "", "", true); len(got) != len(want) {
			t.Fatalf("after round %d there are %d keys, want %d", round, len(got), len(want))
		}
		for key, value := range want {
			if got := get(t, kv, key); got != value {
				t.Errorf("after round %d %s is %q, want %q", round, key, got, value)
			}
		}
	}
	must(t, engine.Close())
}

func testKVLists(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	kv := openKV(t, engine, store.KVOptions{})
	for n := range 600 {
		put(t, kv, fmt.Sprintf("n.%04d", (n*7)%600), fmt.Sprint(n), store.Any)
	}
	for _, key := range []string{"a", "m.1", "nn", "o.1"} {
		put(t, kv, key, key, store.Any)
	}
	all := list(t, kv, "", "", true)
	if len(all) != 604 || !slices.IsSorted(all) {
		t.Errorf("%d are listed, in order: %v", len(all), slices.IsSorted(all))
	}
	under := list(t, kv, "n.", "", false)
	if len(under) != 600 || !slices.IsSorted(under) || under[7] != "n.0007=1" {
		t.Errorf("%d are listed, the eighth is %s", len(under), under[min(7, len(under)-1)])
	}
	if got := list(t, kv, "n.", "n.0597", true); !slices.Equal(got, []string{"n.0598=", "n.0599="}) {
		t.Errorf("behind n.0597: %q", got)
	}
	if got := list(t, kv, "none.", "", false); len(got) != 0 {
		t.Errorf("under none: %q", got)
	}
}

func testKVWatches(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	kv := openKV(t, engine, store.KVOptions{})
	put(t, kv, "w.before", "", store.Any)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watched, err := kv.Watch(ctx, "w.")
	must(t, err)
	changes := collect(ctx, watched)
	waiting := make(map[store.Change]bool)
	for n := range 50 {
		key := fmt.Sprintf("w.%d", n)
		put(t, kv, key, "", store.Any)
		waiting[store.Change{Key: key}] = true
	}
	put(t, kv, "other.1", "", store.Any)
	must(t, kv.Delete(t.Context(), "w.before", store.Any))
	waiting[store.Change{Key: "w.before", Deleted: true}] = true
	for timeout := time.After(10 * time.Second); len(waiting) > 0; {
		select {
		case c := <-changes:
			if !waiting[c] {
				t.Errorf("a change %+v is told", c)
			}
			delete(waiting, c)
		case <-timeout:
			t.Fatalf("not told: %v", waiting)
		}
	}
}

func testKVConcurrent(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	kv := openKV(t, engine, store.KVOptions{})
	var won atomic.Int64
	var all sync.WaitGroup
	for n := range 32 {
		all.Go(func() {
			_, err := kv.Put(t.Context(), "one", fmt.Append(nil, n), store.Absent)
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, store.ErrConflict):
				t.Error(err)
			}
			for k := range 20 {
				if _, err := kv.Put(t.Context(), fmt.Sprintf("own.%d", n), fmt.Append(nil, k), store.Any); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 32 created the same key", won.Load())
	}
	for n := range 32 {
		if got := get(t, kv, fmt.Sprintf("own.%d", n)); got != "19" {
			t.Errorf("own.%d is %s", n, got)
		}
	}
}

func testKVAge(t *testing.T, f Fixture) {
	const age = 2 * time.Second
	engine := f.Open(t)
	defer closing(t, engine)
	kv := openKV(t, engine, store.KVOptions{MaxAge: age})
	put(t, kv, "old", "", store.Any)
	time.Sleep(age / 2)
	put(t, kv, "new", "", store.Any)
	if got := list(t, kv, "", "", true); len(got) != 2 {
		t.Errorf("before the age: %q", got)
	}
	eventually(t, "only what is new is there", func() bool { return slices.Equal(list(t, kv, "", "", true), []string{"new="}) })
}

func testKVBytes(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	kv := openKV(t, engine, store.KVOptions{MaxBytes: f.Bound})
	value := string(bytes.Repeat([]byte("0123456789abcdef"), 4<<10))
	count := int(2 * f.Bound / int64(len(value)))
	for n := range count {
		put(t, kv, fmt.Sprintf("k.%05d", n), value, store.Any)
	}
	eventually(t, "the table keeps to its bound", func() bool {
		i, err := kv.Info(t.Context())
		must(t, err)
		return i.Bytes <= f.Bound
	})
	got := list(t, kv, "", "", true)
	if len(got) < count/4 || got[len(got)-1] != fmt.Sprintf("k.%05d=", count-1) || got[0] == "k.00000=" {
		t.Errorf("%d of %d are kept, from %s to %s", len(got), count, got[0], got[len(got)-1])
	}
}

func testKVCompacts(t *testing.T, f Fixture) {
	engine := f.Open(t)
	kv := openKV(t, engine, store.KVOptions{})
	put(t, kv, "still", "there", store.Any)
	before, err := kv.Get(t.Context(), "still")
	must(t, err)
	put(t, kv, "gone", "", store.Any)
	must(t, kv.Delete(t.Context(), "gone", store.Any))
	value := string(bytes.Repeat([]byte{9}, 64<<10))
	for n := range 200 {
		put(t, kv, fmt.Sprintf("changing.%d", n%3), value, store.Any)
	}
	eventually(t, "what is out of date is removed", func() bool {
		i, err := kv.Info(t.Context())
		must(t, err)
		return i.Disk < 6<<20
	})
	for range 2 {
		v, err := kv.Get(t.Context(), "still")
		if err != nil || string(v.Data) != "there" || v.Revision != before.Revision || !v.Time.Equal(before.Time) {
			t.Errorf("what did not change was %+v and is %+v, %v", before, v, err)
		}
		if got := list(t, kv, "", "", true); len(got) != 4 {
			t.Errorf("there are %q", got)
		}
		must(t, engine.Close())
		engine = f.Open(t)
		kv = openKV(t, engine, store.KVOptions{})
	}
	must(t, engine.Close())
}

func testKVBad(t *testing.T, f Fixture) {
	engine := f.Open(t)
	defer closing(t, engine)
	kv := openKV(t, engine, store.KVOptions{})
	for _, key := range []string{"", ".a", "a.", "a..b", "a b", "a*", "ä", "a\x00"} {
		if _, err := kv.Put(t.Context(), key, nil, store.Any); err == nil {
			t.Errorf("the key %q is taken", key)
		}
	}
	_, err := kv.Put(t.Context(), string(bytes.Repeat([]byte("k"), store.MaxKey+1)), nil, store.Any)
	wantError(t, "a long key", err, store.ErrTooLarge)
	_, err = kv.Put(t.Context(), "k", make([]byte, engine.MaxEntry()+1), store.Any)
	wantError(t, "a large value", err, store.ErrTooLarge)
	put(t, kv, string(bytes.Repeat([]byte("k"), store.MaxKey)), string(make([]byte, engine.MaxEntry())), store.Any)
}
