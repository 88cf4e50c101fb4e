package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/eventlog/eventlogtest"
	"github.com/linksgate/linksgate/server/group"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/rpc"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
	"github.com/linksgate/linksgate/server/store/disk"
	"github.com/linksgate/linksgate/server/webhook"
)

// The benchmarks run the gateway's own front and gRPC server on loopback, in one process with the load generator: both share
// the machine's cores. Notifications are signed MO SMS and the other kinds in turn, of some 150 to 450 bytes. The log is the
// embedded one, with fsync before each answer, in a directory beside the source rather than under /tmp, which may be memory.

// doNothing is the store of the baseline: the whole front, and nothing behind it.
type doNothing struct{ appended atomic.Uint64 }

func (d *doNothing) Append(context.Context, *linksgatev1.Notification) (eventlog.Position, error) {
	return eventlog.Position{Stream: d.appended.Add(1)}, nil
}

func (d *doNothing) NotificationID(p eventlog.Position) string {
	return "0000000000000-" + strconv.FormatUint(p.Sequence(), 10)
}

var benchSender = simulator.Sender{
	MD5:   signature.Secret{Name: "bench", Value: "a made-up notification secret"},
	KeyID: "bench-key",
	HMAC:  signature.Secret{Name: "bench", Value: "a made-up key"},
}

func benchAccounts() map[string]*webhook.Account {
	return map[string]*webhook.Account{"bench": {Keys: signature.Keyring{
		MD5:  []signature.Secret{benchSender.MD5},
		HMAC: map[string][]signature.Secret{benchSender.KeyID: {benchSender.HMAC}},
	}}}
}

// benchLog opens a log on the disk that holds the source.
func benchLog(b *testing.B) *eventlog.Log {
	b.Helper()
	dir, err := os.MkdirTemp(".", "bench-data-")
	if err != nil {
		b.Fatal(err)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return eventlogtest.OpenOn(b, disk.Options{Dir: dir}, eventlog.Options{IndexDir: filepath.Join(dir, "index")})
}

// benchFront serves the webhook front over a store and returns its address.
func benchFront(b *testing.B, store webhook.Log) string {
	b.Helper()
	front := &http.Server{Handler: webhook.New(webhook.Options{Log: store, Settings: webhook.Settings{Accounts: benchAccounts()}}), ReadTimeout: 10 * time.Second}
	listener := listen(b)
	var serving sync.WaitGroup
	serving.Go(func() { _ = front.Serve(listener) })
	b.Cleanup(func() { _ = front.Close(); serving.Wait() })
	return listener.Addr().String()
}

func listen(b *testing.B) net.Listener {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return listener
}

// benchRPC serves a log and its groups over gRPC and returns its address.
func benchRPC(b *testing.B, log *eventlog.Log) string {
	b.Helper()
	groups := group.New(log, slog.New(slog.DiscardHandler))
	s := rpc.New(rpc.Options{Log: log, Groups: groups})
	listener := listen(b)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(listener) })
	b.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		serving.Wait()
		groups.Close()
	})
	return listener.Addr().String()
}

// benchWarmUp is how many requests are sent before measuring: connections, pools and heap warm up.
const benchWarmUp = 1000

// benchRequests renders requests, no two the same, before the measurement: the load generator only writes bytes, so that as little
// as possible of the machine goes to it.
func benchRequests(b *testing.B, count int) [][]byte {
	b.Helper()
	requests := make([][]byte, 0, count)
	kinds := payload.Kinds()
	for n := range uint64(count) {
		kind := kinds[n%uint64(len(kinds))]
		one, err := benchSender.Make(kind, n)
		if err != nil {
			b.Fatal(err)
		}
		var text bytes.Buffer
		fmt.Fprintf(&text, "POST %sbench/%s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n", webhook.PathPrefix, payload.KindName(kind), len(one.Body))
		if err := one.Header.Write(&text); err != nil {
			b.Fatal(err)
		}
		text.WriteString("\r\n")
		text.Write(one.Body)
		requests = append(requests, text.Bytes())
	}
	return requests
}

// load posts requests over a number of connections and returns the latency of each, sorted.
func load(b *testing.B, address string, requests [][]byte, connections int) []time.Duration {
	b.Helper()
	var next atomic.Int64
	latencies := make([][]time.Duration, connections)
	var group sync.WaitGroup
	for i := range connections {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		group.Go(func() {
			defer conn.Close()
			reader := bufio.NewReader(conn)
			for {
				n := int(next.Add(1)) - 1
				if n >= len(requests) {
					return
				}
				start := time.Now()
				if err := post(conn, reader, requests[n]); err != nil {
					b.Error(err)
					return
				}
				latencies[i] = append(latencies[i], time.Since(start))
			}
		})
	}
	group.Wait()
	all := slices.Concat(latencies...)
	slices.Sort(all)
	return all
}

// post sends one rendered request and requires a 200.
func post(conn net.Conn, reader *bufio.Reader, request []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	status, err := reader.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("answer: %s", status)
	}
	length := 0
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	_, err = reader.Discard(length)
	return err
}

// reportLoad reports a run of load as notifications per second and latencies.
func reportLoad(b *testing.B, latencies []time.Duration, took time.Duration) {
	b.Helper()
	if len(latencies) == 0 {
		b.Fatal("nothing was sent")
	}
	b.ReportMetric(float64(len(latencies))/took.Seconds(), "notifications/s")
	for name, q := range map[string]float64{"p50-ms": 0.5, "p99-ms": 0.99} {
		b.ReportMetric(latencies[int(q*float64(len(latencies)-1))].Seconds()*1000, name)
	}
	b.ReportMetric(0, "ns/op") // connections overlap: it would mean nothing
}

// BenchmarkIngest measures durable notifications per second over HTTP, beside the same front with a store that does nothing.
func BenchmarkIngest(b *testing.B) {
	for _, connections := range []int{1, 64, 256} {
		for _, store := range []string{"fsync", "nothing"} {
			b.Run(fmt.Sprintf("connections=%d/store=%s", connections, store), func(b *testing.B) {
				var log webhook.Log = &doNothing{}
				if store == "fsync" {
					log = benchLog(b)
				}
				address, requests := benchFront(b, log), benchRequests(b, benchWarmUp+b.N)
				load(b, address, requests[:benchWarmUp], connections)
				b.ResetTimer()
				latencies := load(b, address, requests[benchWarmUp:], connections)
				b.StopTimer()
				reportLoad(b, latencies, b.Elapsed())
			})
		}
	}
}

// BenchmarkIngestWithIdleSubscribers measures what 1,000 subscribers whose filter matches nothing cost the front.
func BenchmarkIngestWithIdleSubscribers(b *testing.B) {
	for _, subscribers := range []int{0, 1000} {
		b.Run(fmt.Sprintf("subscribers=%d", subscribers), func(b *testing.B) {
			log := benchLog(b)
			address, requests := benchFront(b, log), benchRequests(b, benchWarmUp+b.N)
			nobody := &linksgatev1.NotificationFilter{Accounts: []string{"nobody"}}
			stop := subscribe(b, benchRPC(b, log), subscribers, &linksgatev1.SubscribeRequest{Filter: nobody}, func(*linksgatev1.SubscribeResponse) {})
			load(b, address, requests[:benchWarmUp], 64)
			b.ResetTimer()
			latencies := load(b, address, requests[benchWarmUp:], 64)
			b.StopTimer()
			reportLoad(b, latencies, b.Elapsed())
			stop()
		})
	}
}

// subscribe opens subscriptions, waits for each to be confirmed, and hands every frame to received until stop is called.
func subscribe(b *testing.B, address string, count int, request *linksgatev1.SubscribeRequest, received func(*linksgatev1.SubscribeResponse)) (stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var reading, confirmed sync.WaitGroup
	const perConnection = 100
	var conn *grpc.ClientConn
	for i := range count {
		if i%perConnection == 0 {
			var err error
			if conn, err = grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = conn.Close() })
		}
		stream, err := linksgatev1.NewNotificationServiceClient(conn).Subscribe(ctx, request)
		if err != nil {
			b.Fatal(err)
		}
		confirmed.Add(1)
		reading.Go(func() {
			for first := true; ; first = false {
				frame, err := stream.Recv()
				if first {
					confirmed.Done()
				}
				if err != nil {
					if ctx.Err() == nil && !errors.Is(err, io.EOF) {
						b.Error(err)
					}
					return
				}
				received(frame)
			}
		})
	}
	confirmed.Wait()
	return func() { cancel(); reading.Wait() }
}

// BenchmarkDeliver measures deliveries per second to live subscribers while 64 connections send.
func BenchmarkDeliver(b *testing.B) {
	for _, subscribers := range []int{1, 100} {
		b.Run(fmt.Sprintf("subscribers=%d", subscribers), func(b *testing.B) {
			log := benchLog(b)
			address, requests := benchFront(b, log), benchRequests(b, b.N)
			var delivered atomic.Int64
			stop := subscribe(b, benchRPC(b, log), subscribers, &linksgatev1.SubscribeRequest{MaxBatch: 512},
				func(frame *linksgatev1.SubscribeResponse) {
					delivered.Add(int64(len(frame.GetBatch().GetNotifications())))
				})
			b.ResetTimer()
			load(b, address, requests, 64)
			for delivered.Load() < int64(b.N)*int64(subscribers) {
				time.Sleep(100 * time.Microsecond)
			}
			b.StopTimer()
			b.ReportMetric(float64(delivered.Load())/b.Elapsed().Seconds(), "deliveries/s")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "notifications/s")
			b.ReportMetric(0, "ns/op")
			stop()
		})
	}
}

// BenchmarkReplay measures how fast one subscriber reads a long log from its beginning, in batches of 512: with a client that
// unmarshals every notification, as services do, and with one that only counts the frames' notifications, which leaves the
// machine to the gateway.
func BenchmarkReplay(b *testing.B) {
	log := benchLog(b)
	const stored = 300_000
	load(b, benchFront(b, log), benchRequests(b, stored), 512)
	address := benchRPC(b, log)
	for _, client := range []struct {
		name    string
		options []grpc.DialOption
	}{
		{"unmarshals", nil},
		{"counts", []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.ForceCodecV2(countingCodec{encoding.GetCodecV2("proto")}))}},
	} {
		b.Run("client="+client.name, func(b *testing.B) {
			for range b.N {
				if got := replay(b, address, client.options); got != stored {
					b.Fatalf("replayed %d of %d", got, stored)
				}
			}
			b.ReportMetric(stored*float64(b.N)/b.Elapsed().Seconds(), "notifications/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// replay reads a log from its beginning to its head and returns how many notifications came.
func replay(b *testing.B, address string, options []grpc.DialOption) int {
	b.Helper()
	conn, err := grpc.NewClient(address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	stream, err := linksgatev1.NewNotificationServiceClient(conn).Subscribe(b.Context(), &linksgatev1.SubscribeRequest{
		Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}},
		Until: &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true}, MaxBatch: eventlog.MaxBatchRecords,
	})
	if err != nil {
		b.Fatal(err)
	}
	for count := 0; ; {
		frame, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return count
		}
		if err != nil {
			b.Fatal(err)
		}
		count += len(frame.GetBatch().GetNotifications())
	}
}

// countingCodec leaves notifications unread: each becomes an empty one.
type countingCodec struct{ encoding.CodecV2 }

// Unmarshal implements [encoding.CodecV2] for frames that hold a batch.
func (c countingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	const fieldBatch, fieldNotifications = 3, 1
	frame := data.Materialize()
	for len(frame) > 0 {
		number, kind, n := protowire.ConsumeTag(frame)
		m := protowire.ConsumeFieldValue(number, kind, frame[n:])
		if n < 0 || m < 0 {
			return errors.New("not a frame")
		}
		if number != fieldBatch {
			frame = frame[n+m:]
			continue
		}
		batch, _ := protowire.ConsumeBytes(frame[n:])
		var counted linksgatev1.NotificationBatch
		for len(batch) > 0 {
			_, _, n := protowire.ConsumeTag(batch)
			m := protowire.ConsumeFieldValue(fieldNotifications, protowire.BytesType, batch[n:])
			if m < 0 {
				return errors.New("not a batch")
			}
			counted.Notifications = append(counted.Notifications, nil)
			batch = batch[n+m:]
		}
		v.(*linksgatev1.SubscribeResponse).Frame = &linksgatev1.SubscribeResponse_Batch{Batch: &counted}
		return nil
	}
	return nil
}

// BenchmarkEndToEnd measures the time from the start of a POST to the notification at a subscriber, at 1,000 a second.
func BenchmarkEndToEnd(b *testing.B) {
	log := benchLog(b)
	address := benchFront(b, log)
	started := make(chan time.Time, 1)
	var latencies []time.Duration
	stop := subscribe(b, benchRPC(b, log), 1, &linksgatev1.SubscribeRequest{}, func(frame *linksgatev1.SubscribeResponse) {
		if frame.GetBatch() != nil {
			latencies = append(latencies, time.Since(<-started))
		}
	})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	reader, requests := bufio.NewReader(conn), benchRequests(b, b.N)
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	b.ResetTimer()
	for n := range b.N {
		<-ticker.C
		started <- time.Now()
		if err := post(conn, reader, requests[n]); err != nil {
			b.Fatal(err)
		}
	}
	for len(started) > 0 {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	stop()
	slices.Sort(latencies)
	reportLoad(b, latencies, b.Elapsed())
}

// BenchmarkMemory measures the heap that subscribers take that follow the log, their clients in the same process included.
func BenchmarkMemory(b *testing.B) {
	for _, subscribers := range []int{1, 1000} {
		b.Run(fmt.Sprintf("subscribers=%d", subscribers), func(b *testing.B) {
			for range b.N {
				log := benchLog(b)
				address := benchFront(b, log)
				before := heap()
				stop := subscribe(b, benchRPC(b, log), subscribers, &linksgatev1.SubscribeRequest{}, func(*linksgatev1.SubscribeResponse) {})
				load(b, address, benchRequests(b, 2000), 64)
				b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
				stop()
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// heap returns the bytes of live objects.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
