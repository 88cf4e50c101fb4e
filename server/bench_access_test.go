package server_test

import (
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/rpc"
	"github.com/linksgate/linksgate/server/store/disk"
)

// BenchmarkCallers measures what it costs to ask who calls: the smallest unary calls, 16 at a time over one connection, by everybody
// (nobody is asked), by one of 100 callers with a token, and with a JWT.
func BenchmarkCallers(b *testing.B) {
	engine, err := disk.Open(b.Context(), disk.Options{Dir: b.TempDir(), NoSync: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	log, err := eventlog.Open(b.Context(), eventlog.Options{Engine: engine})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	i := newIssuer(b)
	policy := access.Policy{}
	var token string
	for range 100 {
		token = access.NewToken()
		policy.Callers = append(policy.Callers, access.CallerPolicy{
			Name: access.DigestOf(token).String()[:8], Grants: access.Everything(), Tokens: []access.Token{{Name: "1", Digest: access.DigestOf(token)}},
			JWTs: []access.JWTIdentity{{Issuer: "corp", Subject: token}},
		})
	}
	i.mu.Lock()
	keys := i.set(b)
	i.mu.Unlock()
	policy.Issuers = []access.Issuer{{Name: "corp", URL: i.URL, Audience: "linksgate", Keys: keys, CallerClaim: "sub"}}
	signed := i.sign(b, i.claims(token))
	logger := slog.New(slog.DiscardHandler)
	for _, tt := range []struct {
		name, shown string
		control     *access.Control
	}{
		{"everybody", "", nil},
		{"token", "Bearer " + token, access.NewControl(b.Context(), policy, logger, nil)},
		{"JWT", "Bearer " + signed, access.NewControl(b.Context(), policy, logger, nil)},
	} {
		b.Run(tt.name, func(b *testing.B) {
			options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
			if tt.shown != "" {
				options = append(options, grpc.WithPerRPCCredentials(authorization{tt.shown}))
			}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			server := rpc.New(rpc.Options{Log: log, Access: tt.control})
			go func() { _ = server.Serve(listener) }()
			conn, err := grpc.NewClient(listener.Addr().String(), options...)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = conn.Close(); server.Shutdown(b.Context()) }()
			client := linksgatev1.NewNotificationServiceClient(conn)
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := client.GetLogInfo(b.Context(), &linksgatev1.GetLogInfoRequest{}); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}

// BenchmarkAuthenticate measures what is asked for each call alone, of one of 100 callers.
func BenchmarkAuthenticate(b *testing.B) {
	var policy access.Policy
	var token string
	for range 100 {
		token = access.NewToken()
		policy.Callers = append(policy.Callers, access.CallerPolicy{
			Name: access.DigestOf(token).String()[:8], Grants: access.Everything(), Tokens: []access.Token{{Name: "1", Digest: access.DigestOf(token)}},
		})
	}
	control := access.NewControl(b.Context(), policy, slog.New(slog.DiscardHandler), nil)
	shown := access.Credentials{Authorization: []string{"Bearer " + token}}
	b.ReportAllocs()
	for b.Loop() {
		caller, err := control.Authenticate(b.Context(), shown)
		if err != nil {
			b.Fatal(err)
		}
		if err := caller.Request(); err != nil {
			b.Fatal(err)
		}
	}
}
