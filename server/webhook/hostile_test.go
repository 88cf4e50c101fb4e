package webhook_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/simulator"
	"github.com/linksgate/linksgate/server/webhook"
)

func takesAll() faultyLog {
	return faultyLog{func(context.Context, *linksgatev1.Notification) error { return nil }}
}

// TestUnfinishedBodiesAreBounded leaves large bodies unfinished on many connections: what they take is bounded, the rest is told so, and
// a genuine sender is answered.
func TestUnfinishedBodiesAreBounded(t *testing.T) {
	const connections, sent = 600, 255 << 10 // 150 MiB in all
	f := serve(t, webhook.Options{Log: takesAll()})
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	part := bytes.Repeat([]byte{'x'}, sent)
	var refused atomic.Int64
	var sending sync.WaitGroup
	for range connections {
		conn, err := net.Dial("tcp", f.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		sending.Go(func() {
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: front\r\nContent-Length: %d\r\n\r\n", smsPath, 256<<10)
			_, _ = conn.Write(part) // the front may have hung up
			_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
			status := make([]byte, len("HTTP/1.1 429"))
			if n, _ := conn.Read(status); string(status[:n]) == "HTTP/1.1 429" {
				refused.Add(1)
			}
		})
	}
	sending.Wait()
	if a := f.post(t.Context(), sms(t)); a.status != http.StatusOK {
		t.Errorf("a genuine sender got %+v", a)
	}
	runtime.GC()
	runtime.ReadMemStats(&during)
	if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > 120<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
	if refused.Load() == 0 {
		t.Error("nobody was told that it is too much")
	}
}

// measuringQuarantine adds up what it is given.
type measuringQuarantine struct {
	mu    sync.Mutex
	bytes int
	last  *linksgatev1.QuarantineEntry
}

func (q *measuringQuarantine) Add(_ context.Context, e *linksgatev1.QuarantineEntry) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes += proto.Size(e)
	q.last = e
	return nil
}

// TestOneSourceFillsNoQuarantine sends small bodies with large headers, whose invalid bytes become three each when they are stored: one
// source gets an eighth of the quarantine at most, and what is stored is what is counted.
func TestOneSourceFillsNoQuarantine(t *testing.T) {
	const most = 32 << 20
	quarantine := new(measuringQuarantine)
	f := serve(t, webhook.Options{Log: takesAll(), Quarantine: quarantine, QuarantineBytes: most})
	header := make(http.Header)
	for n := range 4 {
		header.Set(fmt.Sprintf("X-Lf-Strange-%d", n), strings.Repeat("a\xff", 2040))
	}
	for range 1900 {
		if a := f.post(t.Context(), simulator.Notification{Header: header, Body: []byte(`{}`)}); a.status != http.StatusUnauthorized {
			t.Fatalf("%+v; want 401", a)
		}
	}
	if quarantine.bytes < most/16 || quarantine.bytes > most/8+most/64 {
		t.Errorf("%d KiB of a quarantine of %d KiB were given to one source", quarantine.bytes>>10, most>>10)
	}
	for _, h := range quarantine.last.GetHeaders() {
		if len(h.GetValue()) > 4<<10 {
			t.Errorf("a header takes %d bytes", len(h.GetValue()))
		}
	}
}

// TestStrangersKeepOutNothingSigned sends more without a signature than is kept of one source, as everybody is behind a proxy that is not
// trusted: what bears a signature, of a secret that is not configured yet, is kept all the same.
func TestStrangersKeepOutNothingSigned(t *testing.T) {
	quarantine := new(measuringQuarantine)
	f := serve(t, webhook.Options{Log: takesAll(), Quarantine: quarantine})
	for range 2600 {
		f.post(t.Context(), simulator.Notification{Body: []byte(smsBody)})
	}
	forged, err := sender.Forger().MakeWithBody(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, []byte(smsBody))
	if err != nil {
		t.Fatal(err)
	}
	forged.Header.Set("X-Forwarded-For", "203.0.113.7")
	if a := f.post(t.Context(), forged); a.status != http.StatusUnauthorized {
		t.Errorf("%+v; want 401", a)
	}
	if last := quarantine.last.GetReason(); last != linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MISMATCH {
		t.Errorf("the last one that was kept: %v", last)
	}
	f.Close()
	if !strings.Contains(f.logs.String(), "proxy not trusted") {
		t.Error("nothing says that the proxy is not trusted")
	}
}

// TestLargeGarbageLeavesGenuineSendersTheirPace has many senders of large bodies with thousands of values and a wrong signature at work,
// and compares what a genuine one waits with what it waits without them.
func TestLargeGarbageLeavesGenuineSendersTheirPace(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("needs a processor for either")
	}
	f := serve(t, webhook.Options{Log: takesAll()})
	garbage := simulator.Notification{
		Header: http.Header{"X-Lf-Md5": {"00000000000000000000000000000000"}, "Content-Type": {"application/json"}},
		Body:   []byte(`{"a":[` + strings.Repeat("1,", 32_000) + `1]}`),
	}
	median := func() time.Duration {
		var all [101]time.Duration
		for i := range all {
			began := time.Now()
			if a := f.post(t.Context(), sms(t)); a.status != http.StatusOK {
				t.Fatalf("%+v; want 200", a)
			}
			all[i] = time.Since(began)
			for j := i; j > 0 && all[j] < all[j-1]; j-- {
				all[j], all[j-1] = all[j-1], all[j]
			}
		}
		return all[len(all)/2]
	}
	quiet := median()
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	for range 32 {
		flood.Go(func() {
			for ctx.Err() == nil {
				f.post(ctx, garbage)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	loaded := median()
	stop()
	flood.Wait()
	t.Logf("median %v without, %v with 32 senders of garbage", quiet, loaded)
	// The senders of garbage run in this process too, and take their part of the processors. Without a bound it was 150 times.
	if loaded > 30*quiet+20*time.Millisecond {
		t.Errorf("a genuine sender waited for %v instead of %v", loaded, quiet)
	}
}
