package nats

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/linksgate/linksgate/server/store"
	"github.com/linksgate/linksgate/server/store/storetest"
)

// cluster runs three real NATS servers with JetStream, which find each other over TCP.
func cluster(t *testing.T) string {
	t.Helper()
	const servers = 3
	ports := freePorts(t, servers)
	var routes []string
	for _, port := range ports {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	var running []*natsserver.Server
	for n, port := range ports {
		s, err := natsserver.NewServer(&natsserver.Options{
			ServerName: fmt.Sprint("n", n), Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), MaxPayload: 2 << 20,
			Cluster: natsserver.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port},
			Routes:  natsserver.RoutesFromStr(strings.Join(routes, ",")),
		})
		if err != nil {
			t.Fatal(err)
		}
		go s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		running = append(running, s)
	}
	var urls []string
	for _, s := range running {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a NATS server is not ready")
		}
		urls = append(urls, s.ClientURL())
	}
	return strings.Join(urls, ",")
}

// freePorts returns ports that nobody listens on.
func freePorts(t *testing.T, count int) (ports []int) {
	t.Helper()
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func open(t *testing.T, options Options) *Engine {
	t.Helper()
	options.Logger = slog.New(slog.DiscardHandler)
	var e *Engine
	var err error
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if e, err = Open(t.Context(), options); err == nil {
			if _, err = e.js.AccountInfo(t.Context()); err == nil {
				return e
			}
			_ = e.Close()
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestConformance(t *testing.T) {
	urls, prefix := cluster(t), 0
	storetest.Run(t, func(*testing.T) storetest.Fixture {
		prefix++
		options := Options{URL: urls, Prefix: fmt.Sprint("t", prefix), Replicas: 3}
		return storetest.Fixture{
			Open:  func(t *testing.T) store.Engine { return open(t, options) },
			Crash: func(_ *testing.T, engine store.Engine) { engine.(*Engine).conn.Close() },
			Bound: 8 << 20, Approximate: true,
		}
	})
}
