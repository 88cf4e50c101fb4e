package eventlog

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A log that has lost thousands of record batches opens all the same, and goes on after every sequence that it may have given out.
func TestALongEndIsFilled(t *testing.T) {
	const given, reserved = 10, 6_000
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir, NoSync: true})
	for n := range given {
		mustAppend(t, l, notification(n))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(mark{LogID: l.ID(), Confirmed: given + 1, Reserved: reserved})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, markFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, Options{Dir: dir, NoSync: true})
	p := mustAppend(t, l, notification(given))
	if p.Stream != reserved+1 {
		t.Errorf("went on at %d, want %d", p.Stream, reserved+1)
	}
	const most = 2 * (reserved - given) / fetchMessages
	if found, missing, gaps := readGaps(t, l, Cursor{Stream: 1}, Cursor{Stream: p.Stream + 1}); found != given+1 || missing != reserved-given || len(gaps) > most {
		t.Errorf("%d read, %d told as missing in %d gaps; want %d, %d and at most %d", found, missing, len(gaps), given+1, reserved-given, most)
	}
}

// Bounds that are a small part of those before are no obstacle to opening.
func TestBoundsCanBeLowered(t *testing.T) {
	dir := t.TempDir()
	for _, options := range []Options{
		{MaxBytes: 100 << 30, QuarantineBytes: 50 << 30, ParkedBytes: 50 << 30},
		{MaxBytes: MinMaxBytes, QuarantineBytes: MinMaxBytes, ParkedBytes: MinMaxBytes},
	} {
		options.Dir, options.NoSync = dir, true
		l := openLog(t, options)
		mustAppend(t, l, notification(1))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Readers behind the window, more than the engine has room for by default, do not get into the way of others.
func TestManyReadersAtOnce(t *testing.T) {
	const readers = 1_100
	l := openLog(t, Options{NoSync: true})
	mustAppend(t, l, notification(1))
	for range readers {
		if _, err := createConsumer(t.Context(), l.stream, jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}); err != nil {
			t.Fatal(err)
		}
	}
}

// Closing, an arrival and the end of readers at the same moment: everyone gets on.
func TestWaitersEndWhileTheTailCloses(t *testing.T) {
	for range 300 {
		l := &Log{options: Options{WindowBytes: 1 << 20}, duplicates: newDuplicates(0)}
		tail := newTail(l, jetstream.StreamState{})
		interests := []interest{{field: interestAny}}
		var waiters sync.WaitGroup
		expired := make(chan time.Time)
		for range 100 {
			waiters.Go(func() { _, _ = tail.wait(t.Context(), Cursor{Stream: 1}, interests, expired) })
		}
		var ends sync.WaitGroup
		ends.Go(func() { close(expired) })
		ends.Go(func() { tail.close(); tail.add(&batch{stream: 1}) })
		ended := make(chan struct{})
		go func() { ends.Wait(); waiters.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("somebody waits for ever")
		}
	}
}
