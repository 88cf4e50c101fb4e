package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// serveRaw does something with each connection, and returns the address.
func serveRaw(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { defer conn.Close(); handle(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	return listener.Addr().String()
}

// serveGRPC serves nothing over gRPC.
func serveGRPC(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveGRPCOn(t, listener, options...)
}

func serveGRPCOn(t *testing.T, listener net.Listener, options ...grpc.ServerOption) string {
	t.Helper()
	s := grpc.NewServer(options...)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(listener) })
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	return listener.Addr().String()
}

// What can never give a stream ends a command at once, and with a word about what to do.
func TestWrongAddressesEndAtOnce(t *testing.T) {
	web := httptest.NewServer(http.NotFoundHandler())
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a page") }))
	secure.EnableHTTP2 = true
	secure.StartTLS()
	old := httptest.NewTLSServer(http.NotFoundHandler()) // speaks HTTP/1.1 only
	for _, s := range []*httptest.Server{web, secure, old} {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(s.Close)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	certificates := secure.TLS.Certificates
	grpcTLS := func(config *tls.Config) string { return serveGRPC(t, grpc.Creds(credentials.NewTLS(config))) }
	overTLS := grpcTLS(&tls.Config{Certificates: certificates})
	noALPN, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certificates})
	if err != nil {
		t.Fatal(err)
	}
	address := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	for _, tt := range []struct {
		name, address string
		flags         []string
		want          string
	}{
		{"HTTP", address(web), nil, "speaks HTTP/1.1, not gRPC: give the port of the gateway's gRPC"},
		{"HTTP, with TLS", address(web), []string{"--tls"}, "does not speak TLS: connect without --tls and --ca"},
		{"HTTPS", address(old), []string{"--ca", ca}, "speaks TLS, but not gRPC: give the port"},
		{"HTTP/2", address(secure), []string{"--ca", ca}, "Linksgate"},
		{"gRPC over TLS, without", overTLS, nil, "speaks TLS: connect with --tls"},
		{"gRPC without TLS, with", serveGRPC(t), []string{"--tls"}, "does not speak TLS"},
		{"gRPC over TLS, not trusted", overTLS, []string{"--tls"}, "--ca FILE names the certificates to trust"},
		{"another name", strings.Replace(overTLS, "127.0.0.1", "localhost", 1), []string{"--ca", ca}, "connect by a name that the certificate has"},
		{"a client certificate", grpcTLS(&tls.Config{Certificates: certificates, ClientAuth: tls.RequireAnyClientCert}), []string{"--ca", ca}, "asks for a client certificate"},
		{"TLS of a proxy that knows no HTTP/2", serveGRPCOn(t, noALPN), []string{"--ca", ca}, "let the proxy there offer h2 (ALPN)"},
		{"something else", serveRaw(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 mail.example.com ESMTP\r\n"); _, _ = io.ReadAll(c) }), nil, "speaks something else, not gRPC"},
		{"no such service", serveGRPC(t), nil, "Linksgate"},
	} {
		for _, command := range []string{"tail", "consume g --address", "group list --address", "quarantine list --address"} {
			args := append(append(strings.Fields(command), tt.address), tt.flags...)
			code, stderr := execute(t, io.Discard, args...)
			if code != exitFailure || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "again in") {
				t.Errorf("%s: %s: exit status %d, %q; want %q", tt.name, command, code, stderr, tt.want)
			}
		}
	}
	for _, address := range []string{"localhost", "http://localhost:9090", "localhost:"} {
		if code, stderr := execute(t, io.Discard, "tail", address); code != exitUsage || !strings.Contains(stderr, "give HOST:PORT") {
			t.Errorf("%s: exit status %d, %q", address, code, stderr)
		}
	}
}

// Where nobody listens, and where connections are closed at once, as by a proxy whose gateway is away, somebody may be there later.
func TestAGatewayThatIsNotThereYetIsWaitedFor(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	var c connection
	conn, err := c.dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waits, shown := 0, 0
	var notices []string
	f := follower{
		client: linksgatev1.NewNotificationServiceClient(conn),
		request: &linksgatev1.SubscribeRequest{
			Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}, Until: &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true},
		},
		show:     func(notifications []*linksgatev1.Notification) error { shown += len(notifications); return nil },
		remember: func(string) error { return nil },
		session: session{
			address: address, silence: time.Minute,
			examine: func(ctx context.Context) error { return c.examine(ctx, address) },
			notice:  func(text string) { notices = append(notices, text) },
			wait: func(ctx context.Context, _ time.Duration) error {
				if waits++; waits == 3 {
					if listener, err = net.Listen("tcp", address); err != nil {
						return err
					}
					startGatewayOn(t, listener, 5)
				}
				return wait(ctx, time.Millisecond)
			},
		},
	}
	if err := f.run(t.Context()); err != nil || shown != 5 || waits < 3 {
		t.Errorf("shown %d after %d waits, %v", shown, waits, err)
	}
	if len(notices) != 2 || !strings.HasPrefix(notices[0], address+": Unavailable: ") || !strings.Contains(notices[0], "refused\"; subscribing again in ") ||
		!strings.HasSuffix(notices[0], ", then less and less often, down to every 30s") || notices[1] != "subscribed" {
		t.Errorf("notices: %q", notices)
	}

	for _, flags := range []connection{{}, {tls: true}} {
		if err := flags.examine(t.Context(), serveRaw(t, func(net.Conn) {})); err != nil {
			t.Errorf("closed at once: %v", err)
		}
	}
}
