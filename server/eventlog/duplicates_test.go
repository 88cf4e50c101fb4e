package eventlog

import (
	"context"
	"fmt"
	"sync"
	"testing"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// keyed is a notification with a duplicate key.
func keyed(account string, kind linksgatev1.NotificationKind, key string) *linksgatev1.Notification {
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
	l := openLog(t, onDisk{})
	const copies = 100
	positions := make([]Position, copies)
	var group sync.WaitGroup
	for i := range positions {
		group.Go(func() {
			position, err := l.Append(context.Background(), keyed("acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, "key"))
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
	l := openLog(t, onDisk{NoSync: true})
	different := []*linksgatev1.Notification{
		keyed("acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, "key"),
		keyed("acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, "other key"),
		keyed("acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_DATA_USAGE_ALERT, "key"),
		keyed("other", linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, "key"),
		keyed("acm", linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, "ekey"),
		keyed("", linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, "key"),
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
	l := openLog(t, onDisk{NoSync: true})
	for range 5 {
		mustAppend(t, l, keyed("acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS, ""))
	}
	checkStored(t, l, 5)
}

func TestWindowCanBeTurnedOff(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true, DuplicateWindow: -1})
	for range 3 {
		mustAppend(t, l, keyed("acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, "key"))
	}
	checkStored(t, l, 3)
}

// The index is made from the log, by the tail reader for what is in its window and by a reading for what is before that.
func TestIndexIsRebuiltFromTheLog(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, onDisk{Dir: dir, NoSync: true})
	first := make(map[string]Position)
	const count = preload + 200
	for n := range count {
		key := fmt.Sprint(n)
		first[key] = mustAppend(t, l, keyed("acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, key))
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, onDisk{Dir: dir, NoSync: true})
		for key, want := range first {
			if got := mustAppend(t, l, keyed("acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, key)); got != want {
				t.Fatalf("the copy of %s got %v after the log was opened again, want %v", key, got, want)
			}
		}
		checkStored(t, l, count)
	}
}
