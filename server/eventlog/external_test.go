package eventlog

import (
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// startNATS runs a NATS server with JetStream of its own, reached over TCP.
func startNATS(t *testing.T) (url string) {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: t.TempDir(),
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

// Two gateways on one external log read what either appends, under one id, and recognise each other's copies.
func TestGatewaysShareAnExternalLog(t *testing.T) {
	options := Options{URL: startNATS(t), Replicas: 1}
	open := func() *Log {
		l, err := Open(t.Context(), options)
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
	a, b := open(), open()
	if a.ID() != b.ID() || a.Durability() != DurabilityReplicated {
		t.Errorf("ids %s and %s, durability %v", a.ID(), b.ID(), a.Durability())
	}
	want := appendAll(t, a, 0, 300, 8)
	for sequence, body := range appendAll(t, b, 300, 300, 8) {
		want[sequence] = body
	}
	for name, l := range map[string]*Log{"a": a, "b": b, "opened later": open()} {
		t.Run(name, func(t *testing.T) { checkExactly(t, l, readTo(t, l, Cursor{Stream: 1}, nil), want) })
	}

	copied := notification(1000)
	copied.DuplicateKey = []byte("key")
	first, err := a.Append(t.Context(), copied)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Info(t.Context()); err != nil { // by then b has seen it
		t.Fatal(err)
	}
	if second, err := b.Append(t.Context(), copied); err != nil || second != first {
		t.Errorf("a copy is at %v (%v), want %v", second, err, first)
	}
}
