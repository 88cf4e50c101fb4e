package eventlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// keyed is a notification with a duplicate key.
func keyed(account string, kind linksgatev1.Kind, key string) *linksgatev1.Notification {
	return &linksgatev1.Notification{Account: account, Kind: kind, DuplicateKey: []byte(key)}
}

func mustAppend(t *testing.T, l *Log, n *linksgatev1.Notification) Position {
	t.Helper()
	position, err := l.Append(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return position
}

// checkStored requires that the log holds so many notifications.
func checkStored(t *testing.T, l *Log, want int) {
	t.Helper()
	if got := len(readTo(t, l, Cursor{Stream: 1}, nil)); got != want {
		t.Errorf("the log holds %d notifications, want %d", got, want)
	}
}

func TestConcurrentCopiesAreStoredOnce(t *testing.T) {
	l := openLog(t, Options{})
	const copies = 100
	positions := make([]Position, copies)
	var group sync.WaitGroup
	for i := range positions {
		group.Go(func() {
			position, err := l.Append(context.Background(), keyed("acme", linksgatev1.Kind_KIND_CUBE, "key"))
			if err != nil {
				t.Errorf("append: %v", err)
			}
			positions[i] = position
		})
	}
	group.Wait()
	checkStored(t, l, 1)
	for _, position := range positions {
		if position != positions[0] || position.Stream == 0 {
			t.Errorf("a copy got the position %v, another one %v", position, positions[0])
		}
	}
	if got := l.Stats().Duplicates.Load(); got != copies-1 {
		t.Errorf("%d duplicates were counted, want %d", got, copies-1)
	}
}

func TestOnlyTheSameAccountKindAndKeyAreCopies(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	different := []*linksgatev1.Notification{
		keyed("acme", linksgatev1.Kind_KIND_CUBE, "key"),
		keyed("acme", linksgatev1.Kind_KIND_CUBE, "other key"),
		keyed("acme", linksgatev1.Kind_KIND_DATA_USAGE_ALERT, "key"),
		keyed("other", linksgatev1.Kind_KIND_CUBE, "key"),
		keyed("acm", linksgatev1.Kind_KIND_CUBE, "ekey"),
		keyed("", linksgatev1.Kind_KIND_CUBE, "key"),
	}
	seen := make(map[Position]int)
	for i, n := range different {
		position := mustAppend(t, l, n)
		if other, ok := seen[position]; ok {
			t.Errorf("%v is taken for a copy of %v", n, different[other])
		}
		seen[position] = i
	}
	for _, n := range different {
		if position := mustAppend(t, l, n); len(seen) != len(different) || seen[position] >= len(different) {
			t.Errorf("a copy of %v got %v", n, position)
		}
	}
	checkStored(t, l, len(different))
}

func TestWithoutAKeyNothingIsACopy(t *testing.T) {
	l := openLog(t, Options{NoSync: true})
	for range 5 {
		mustAppend(t, l, keyed("acme", linksgatev1.Kind_KIND_PLAN_ORDER_STATUS, ""))
	}
	checkStored(t, l, 5)
}

func TestWindowCanBeTurnedOff(t *testing.T) {
	l := openLog(t, Options{NoSync: true, DuplicateWindow: -1})
	for range 3 {
		mustAppend(t, l, keyed("acme", linksgatev1.Kind_KIND_CUBE, "key"))
	}
	checkStored(t, l, 3)
}

// The index is made from the log, by the tail reader for what is in its window and by a reading for what is before that.
func TestIndexIsRebuiltFromTheLog(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir, NoSync: true})
	first := make(map[string]Position)
	const count = preload + 200
	for n := range count {
		key := fmt.Sprint(n)
		first[key] = mustAppend(t, l, keyed("acme", linksgatev1.Kind_KIND_CUBE, key))
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, Options{Dir: dir, NoSync: true})
		for key, want := range first {
			if got := mustAppend(t, l, keyed("acme", linksgatev1.Kind_KIND_CUBE, key)); got != want {
				t.Fatalf("the copy of %s got %v after the log was opened again, want %v", key, got, want)
			}
		}
		checkStored(t, l, count)
	}
}

// A copy that is waiting tries itself when the write that it waits for fails, one after the other.
func TestAfterAFailureTheNextCopyTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDuplicates(time.Hour)
		failed := errors.New("failed")
		var mu sync.Mutex
		writing, writes := 0, 0
		write := func() (Position, error) {
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
				return Position{}, failed
			}
			return Position{Stream: uint64(mine)}, nil
		}
		const copies = 10
		failures, copied := 0, 0
		var group sync.WaitGroup
		for range copies {
			group.Go(func() {
				position, isCopy, err := d.once(t.Context(), duplicateKey{1}, write)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, failed):
					failures++
				case err != nil || position != Position{Stream: 4}:
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
		d := newDuplicates(time.Hour)
		release := make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() {
			_, _, err := d.once(context.Background(), duplicateKey{1}, func() (Position, error) { <-release; return Position{Stream: 1}, nil })
			if err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := d.once(ctx, duplicateKey{1}, func() (Position, error) { panic("written twice") })
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("gave up with %v", err)
		}
		close(release)
		group.Wait()
	})
}

// writeNext is a write that always succeeds, each time at the next position.
func writeNext() func() (Position, error) {
	var last Position
	return func() (Position, error) {
		last.Stream++
		return last, nil
	}
}

func TestWindowExpires(t *testing.T) {
	for name, between := range map[string]bool{"with other keys in between": true, "with nothing in between": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, write := newDuplicates(time.Hour), writeNext()
				once := func(key byte) (Position, bool) {
					position, copied, err := d.once(t.Context(), duplicateKey{key}, write)
					if err != nil {
						t.Fatal(err)
					}
					return position, copied
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
	d := newDuplicates(time.Hour)
	now := time.Now()
	const over = 1000
	for n := range uint64(maxDuplicateKeys + over) {
		var key duplicateKey
		binary.BigEndian.PutUint64(key[:], n)
		d.learn(key, Position{Stream: n + 1}, now)
	}
	if len(d.stored) != maxDuplicateKeys || len(d.order) != maxDuplicateKeys {
		t.Errorf("%d keys in %d places, want %d", len(d.stored), len(d.order), maxDuplicateKeys)
	}
	for n, want := range map[uint64]bool{0: false, over - 1: false, over: true, maxDuplicateKeys + over - 1: true} {
		var key duplicateKey
		binary.BigEndian.PutUint64(key[:], n)
		if _, ok := d.stored[key]; ok != want {
			t.Errorf("key %d is known: %v, want %v", n, ok, want)
		}
	}
}
