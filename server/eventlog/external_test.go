package eventlog

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/linksgate/linksgate/server/store/nats"
)

// startNATS runs a NATS server with JetStream of its own, reached over TCP.
func startNATS(t *testing.T) (url string) {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), MaxPayload: 2 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the NATS server is not ready")
	}
	return s.ClientURL()
}

// openShared opens a log on NATS servers, as one of several gateways.
func openShared(t *testing.T, url string) *Log {
	t.Helper()
	engine, err := nats.Open(t.Context(), nats.Options{URL: url, Replicas: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), Options{Engine: engine})
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

// Two gateways on one log read what either appends, under one id, and recognise each other's copies, also at the same moment.
func TestGatewaysShareALog(t *testing.T) {
	url := startNATS(t)
	a, b := openShared(t, url), openShared(t, url)
	if a.ID() != b.ID() || a.Durability() != DurabilityReplicated {
		t.Errorf("ids %s and %s, durability %v", a.ID(), b.ID(), a.Durability())
	}
	want := appendAll(t, a, 0, 300, 8)
	for sequence, body := range appendAll(t, b, 300, 300, 8) {
		want[sequence] = body
	}
	for name, l := range map[string]*Log{"a": a, "b": b, "opened later": openShared(t, url)} {
		t.Run(name, func(t *testing.T) { checkExactly(t, l, readTo(t, l, Cursor{Stream: 1}, nil), want) })
	}
	for n := range 50 {
		copied := notification(1000 + n)
		copied.DuplicateKey = fmt.Appendf(nil, "key %d", n)
		var positions [2]Position
		var appending sync.WaitGroup
		for i, l := range []*Log{a, b} {
			appending.Go(func() {
				var err error
				if positions[i], err = l.Append(t.Context(), copied); err != nil {
					t.Error(err)
				}
			})
		}
		appending.Wait()
		if positions[0] != positions[1] {
			t.Fatalf("copies are at %v", positions)
		}
	}
}

// A group that another gateway serves by now is not changed by the one that served it before, and goes on where that one was.
func TestGroupGoesOnAtAnotherGateway(t *testing.T) {
	url := startNATS(t)
	a, b := openShared(t, url), openShared(t, url)
	for n := range 10 {
		mustAppend(t, a, notification(n))
	}
	record := mustCreate(t, a, groupRecord("g", Cursor{Stream: 1}))
	acquire := func(l *Log) *GroupReader {
		t.Helper()
		if err := l.Groups().Acquire(t.Context(), "g"); err != nil {
			t.Fatal(err)
		}
		return attach(t, l, record)
	}
	before := acquire(a)
	claims := fetch(t, before, SourceLog, 10)
	settle(t, claims[0], claims[1], claims[5])
	after := acquire(b)
	if err := before.Settle(t.Context(), claims[2:5]); !errors.Is(err, ErrGroupChanged) {
		t.Errorf("the gateway of before settles: %v", err)
	}
	next := fetch(t, after, SourceLog, 7)
	if checkStreams(t, next, 3, 4, 5, 7, 8, 9, 10); !next[0].Again {
		t.Error("what was in flight is not told apart")
	}
	settle(t, next...)
	fetchNone(t, attach(t, openShared(t, url), record), SourceLog)
}

// What is erased at one gateway cannot be read at any other.
func TestErasedIsUnreadableAtEveryGateway(t *testing.T) {
	url := startNATS(t)
	a, b := openShared(t, url), openShared(t, url)
	const iccid = "89860220190000000001"
	one := notification(1)
	one.Iccids = []string{iccid}
	mustAppend(t, a, one)
	position := Position{Stream: 1}
	if _, err := b.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), position); err != nil {
		t.Fatal(err)
	}
	if erased, err := a.Erase(t.Context(), iccid, false); err != nil || erased.Notifications != 1 {
		t.Fatalf("%+v, %v", erased, err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := b.Get(t.Context(), position)
		if errors.Is(err, ErrErased) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("at the other gateway: %v", err)
		}
	}
	if _, err := openShared(t, url).Get(t.Context(), position); !errors.Is(err, ErrErased) {
		t.Errorf("at a gateway that is opened later: %v", err)
	}
}
