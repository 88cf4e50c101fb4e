package conformance

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/faults"
)

// BenchmarkReplay compares how fast each client replays a log with what its generated code alone does on the same gateway: medians of
// three runs each, in turns.
func BenchmarkReplay(b *testing.B) {
	const count, runs = 200_000, 3
	binary, err := gatewayBinary()
	if err != nil {
		b.Fatal(err)
	}
	g, err := faults.NewGateway(binary, b.TempDir(), faults.Options{})
	if err == nil {
		err = g.Start(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	fill(b, g, count)
	for _, language := range chosen() {
		b.Run(language, func(b *testing.B) {
			c := client{language, built(b, language)}
			for b.Loop() {
				rates := map[string][]float64{}
				for range runs {
					for _, mode := range []string{"bare", "replay"} {
						h := c.start(b, order{"mode": mode, "addresses": []string{g.GRPC}, "max_batch": 512})
						said := h.await("stopped", 1)[0]
						h.kill()
						if said.Count != count {
							b.Fatalf("%s: %d of %d", mode, said.Count, count)
						}
						rates[mode] = append(rates[mode], count/said.Seconds)
					}
				}
				for _, all := range rates {
					slices.Sort(all)
				}
				bare, replay := rates["bare"][runs/2], rates["replay"][runs/2]
				b.ReportMetric(bare, "bare/s")
				b.ReportMetric(replay, "client/s")
				b.ReportMetric(replay/bare, "of-bare")
			}
		})
	}
}

// fill sends notifications, many at once, so that record batches are large.
func fill(b *testing.B, g *faults.Gateway, count int) {
	const senders = 256
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	transport := &http.Transport{MaxIdleConnsPerHost: senders}
	defer transport.CloseIdleConnections()
	sender := faults.FirstSecrets.Sender()
	numbers := make(chan uint64)
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for n := range numbers {
				notification, err := sender.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, n)
				if err != nil {
					panic(err)
				}
				request, err := notification.Request(ctx, g.Webhook)
				if err != nil {
					panic(err)
				}
				response, err := transport.RoundTrip(request)
				if err != nil {
					panic(err)
				}
				_ = response.Body.Close()
				if response.StatusCode != http.StatusOK {
					panic(fmt.Sprint(response.Status))
				}
			}
		})
	}
	for n := range uint64(count) {
		numbers <- n
	}
	close(numbers)
	sending.Wait()
}
