package spool

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/linksgate/linksgate/server/store"
	"github.com/linksgate/linksgate/server/store/nats"
)

// cluster is a real NATS server that can be away.
type cluster struct {
	t      *testing.T
	port   int
	dir    string
	server *natsserver.Server
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, port: listener.Addr().(*net.TCPAddr).Port, dir: t.TempDir()}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	c.start()
	t.Cleanup(c.stop)
	return c
}

func (c *cluster) start() {
	c.t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: c.port, NoSigs: true, NoLog: true, JetStream: true, StoreDir: c.dir, MaxPayload: 2 << 20,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	s.Start()
	if c.server = s; !s.ReadyForConnections(20 * time.Second) {
		c.t.Fatal("the NATS server is not ready")
	}
}

func (c *cluster) stop() {
	c.server.Shutdown()
	c.server.WaitForShutdown()
}

func (c *cluster) open(dir string) (*Engine, *Log) {
	c.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	engine, err := nats.Open(c.t.Context(), nats.Options{URL: c.server.ClientURL(), Replicas: 1, Logger: logger})
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := Open(c.t.Context(), Options{Dir: dir, Bound: 500 * time.Millisecond, MinFree: -1, Logger: logger})
	if err != nil {
		c.t.Fatal(err)
	}
	e := Wrap(engine, s)
	log, err := e.OpenLog(c.t.Context(), "log", store.LogOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return e, log.(*Log)
}

// await waits until the spool is empty and checks that the log has each text once and in order.
func await(t *testing.T, e *Engine, log *Log, count int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); e.Spool().Status().Entries > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the spool has %+v", e.Spool().Status())
		}
	}
	next := 0
	for item, err := range log.Read(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if string(item.Data) != fmt.Sprint(next) {
			t.Fatalf("entry %d is %q", next, item.Data)
		}
		next++
	}
	if next != count {
		t.Errorf("the log has %d entries, want %d", next, count)
	}
}

func appendTexts(t *testing.T, log *Log, from, until int) (longest time.Duration) {
	t.Helper()
	for n := from; n < until; n++ {
		began := time.Now()
		if _, err := log.Append(t.Context(), fmt.Append(nil, n)); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		longest = max(longest, time.Since(began))
	}
	return longest
}

// Nothing is refused while the cluster is away, also when the gateway is started again meanwhile, and all of it is in the log once and in
// order when it is back.
func TestClusterThatIsAwayIsShelteredFrom(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	e, log := c.open(dir)
	appendTexts(t, log, 0, 10)
	c.stop()
	if longest := appendTexts(t, log, 10, 60); longest > 3*time.Second {
		t.Errorf("one waited for %v", longest)
	}
	if status := e.Spool().Status(); status.Entries != 50 || status.Since.IsZero() || e.Writable() != nil {
		t.Errorf("the spool has %+v, writable: %v", status, e.Writable())
	}
	c.start()
	appendTexts(t, log, 60, 80)
	await(t, e, log, 80)
	if entry, err := log.Append(t.Context(), []byte("80")); err != nil || entry.Sequence != 81 {
		t.Errorf("behind what was spooled: %+v, %v", entry, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// An entry that was stored without being confirmed, or forwarded without being taken off the spool, is in the log once.
func TestForwardingIsExactlyOnce(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	e, log := c.open(dir)
	appendTexts(t, log, 0, 3)
	// Stored, and not confirmed: the ticket with which it was tried is in the spool.
	ticket := log.NewTicket("a", nil)
	if _, _, err := log.Submit(t.Context(), ticket, []byte("3")); err != nil {
		t.Fatal(err)
	}
	s := e.Spool()
	for _, one := range []struct {
		ticket nats.Ticket
		text   string
	}{{ticket, "3"}, {log.NewTicket("a", nil), "4"}, {log.NewTicket("a", nil), "5"}} {
		s.enter(true)
		if _, err := s.put(t.Context(), one.ticket, []byte(one.text)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, e, log, 6)
	// Forwarded, and then killed before it was taken off: the same entries again.
	before, err := s.log.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again := log.NewTicket(s.lane(), nil)
	for range 2 {
		if _, _, err := log.Submit(t.Context(), again, []byte("6")); err != nil {
			t.Fatal(err)
		}
	}
	await(t, e, log, 7)
	if before.First != before.Next {
		t.Errorf("the spool retains %+v", before)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// What a gateway leaves in its spool is forwarded by the next one on the same directory.
func TestSpoolOutlivesTheProcess(t *testing.T) {
	c, dir := newCluster(t), t.TempDir()
	e, log := c.open(dir)
	c.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for n := range 20 {
		if _, err := log.Append(ctx, fmt.Append(nil, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	c.start()
	e, log = c.open(dir)
	await(t, e, log, 20)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
