package dedup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A copy that is waiting tries itself when the write that it waits for fails, one after the other.
func TestAfterAFailureTheNextCopyTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(time.Hour)
		failed := errors.New("failed")
		var mu sync.Mutex
		writing, writes := 0, 0
		write := func() (uint64, error) {
			mu.Lock()
			writes++
			mine := writes
			if writing++; writing > 1 {
				t.Error("two copies are being written at once")
			}
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			writing--
			if mine <= 3 {
				return 0, failed
			}
			return uint64(mine), nil
		}
		const copies = 10
		failures, copied := 0, 0
		var group sync.WaitGroup
		for range copies {
			group.Go(func() {
				position, isCopy, err := d.Once(t.Context(), Key{1}, write)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, failed):
					failures++
				case err != nil || position != 4:
					t.Errorf("%v %v", position, err)
				case isCopy:
					copied++
				}
			})
		}
		group.Wait()
		if writes != 4 || failures != 3 || copied != copies-4 {
			t.Errorf("%d writes, %d failures, %d copies; want 4, 3 and %d", writes, failures, copied, copies-4)
		}
		if len(d.claims) != 0 {
			t.Errorf("%d claims are left", len(d.claims))
		}
	})
}

func TestWaitingCopyGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(time.Hour)
		release := make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() {
			_, _, err := d.Once(context.Background(), Key{1}, func() (uint64, error) { <-release; return 1, nil })
			if err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := d.Once(ctx, Key{1}, func() (uint64, error) { panic("written twice") })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("gave up with %v", err)
		}
		close(release)
		group.Wait()
	})
}

// writeNext is a write that always succeeds, each time at the next position.
func writeNext() func() (uint64, error) {
	var last uint64
	return func() (uint64, error) {
		last++
		return last, nil
	}
}

func TestWindowExpires(t *testing.T) {
	for name, between := range map[string]bool{"with other keys in between": true, "with nothing in between": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, write := New(time.Hour), writeNext()
				once := func(key byte) (uint64, bool) {
					sequence, copied, err := d.Once(t.Context(), Key{key}, write)
					if err != nil {
						t.Fatal(err)
					}
					return sequence, copied
				}
				first, _ := once(1)
				time.Sleep(time.Hour - time.Second)
				if got, copied := once(1); !copied || got != first {
					t.Errorf("within the window: %v, copy: %v", got, copied)
				}
				time.Sleep(2 * time.Second)
				if between {
					once(2)
				}
				if got, copied := once(1); copied || got == first {
					t.Errorf("after the window: %v, copy: %v", got, copied)
				}
			})
		})
	}
}

func TestIndexIsBounded(t *testing.T) {
	d := New(time.Hour)
	d.Complete()
	now := time.Now()
	const over = 1000
	for n := range uint64(MaxKeys + over) {
		var key Key
		binary.BigEndian.PutUint64(key[:], n)
		_ = d.Learn(n+1, 0, now, []Stored{{key, n + 1}}) // in memory, nothing can fail
	}
	if len(d.stored) != MaxKeys || len(d.order) != MaxKeys {
		t.Errorf("%d keys, %d in order, want %d", len(d.stored), len(d.order), MaxKeys)
	}
	for n, want := range map[uint64]bool{0: false, over - 1: false, over: true, MaxKeys + over - 1: true} {
		var key Key
		binary.BigEndian.PutUint64(key[:], n)
		if _, ok := d.stored[key]; ok != want {
			t.Errorf("key %d is known: %v, want %v", n, ok, want)
		}
	}
}

// What was learnt is known to the next index as far as there are whole files of it, and the rest is said to be missing. Deleting files
// costs reading, not keys.
func TestRunsAreReadOrMissing(t *testing.T) {
	const batches = 3*runBatches + 100
	key := func(n uint64) Key { return Key(binary.BigEndian.AppendUint64(make([]byte, 8), n)) }
	epoch := func(batch uint64) (uint32, bool) { return 7, batch <= batches }
	fill := func(t *testing.T, dir string) *Index {
		x, err := Open(dir, "log", time.Hour, epoch)
		if err != nil {
			t.Fatal(err)
		}
		x.Complete()
		for n := uint64(1); n <= batches; n++ {
			if err := x.Learn(n, 7, time.Now(), []Stored{{key(n), n << 12}}); err != nil {
				t.Fatal(err)
			}
		}
		return x
	}
	file := func(dir string, first uint64) string {
		return filepath.Join(dir, fmt.Sprintf("%020d%s", first, runExtension))
	}
	for name, test := range map[string]struct {
		change  func(t *testing.T, dir string, x *Index) error
		open    string
		missing []Range
	}{
		"closed": {func(_ *testing.T, _ string, x *Index) error { return x.Close() }, "log", nil},
		"killed": {func(*testing.T, string, *Index) error { return nil }, "log", []Range{{3*runBatches + 1, batches}}},
		"a file deleted": {func(_ *testing.T, dir string, x *Index) error {
			return errors.Join(x.Close(), os.Remove(file(dir, runBatches+1)))
		}, "log", []Range{{runBatches + 1, 2 * runBatches}}},
		"a byte flipped": {func(_ *testing.T, dir string, x *Index) error {
			data, err := os.ReadFile(file(dir, 1))
			data[len(data)/2] ^= 4
			return errors.Join(err, x.Close(), os.WriteFile(file(dir, 1), data, 0o600))
		}, "log", []Range{{1, runBatches}}},
		"another log": {func(_ *testing.T, _ string, x *Index) error { return x.Close() }, "other", []Range{{1, batches}}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			x := fill(t, dir)
			if err := test.change(t, dir, x); err != nil {
				t.Fatal(err)
			}
			x, err := Open(dir, test.open, time.Hour, epoch)
			if err != nil {
				t.Fatal(err)
			}
			missing := x.Missing(1, batches)
			if !slices.Equal(missing, test.missing) {
				t.Errorf("missing %v, want %v", missing, test.missing)
			}
			for n := uint64(1); n <= batches; n++ {
				within := slices.ContainsFunc(missing, func(r Range) bool { return r.First <= n && n <= r.Last })
				if sequence, known := x.stored[key(n)]; known == within || known && sequence != n<<12 {
					t.Fatalf("key %d is known: %v, at %d", n, known, sequence)
				}
			}
		})
	}
}
