package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// benchGroupStored is how many notifications the members of BenchmarkGroup share.
const benchGroupStored = 100_000

// BenchmarkGroup measures how fast members get through a backlog by acknowledging each notification, every member a client of its
// own on a connection of its own: with Consume and Acknowledge, and beside it with a plain JetStream pull consumer whose messages
// are one notification each. Both go over loopback TCP to a server in this process, on the same disk with fsync; clients unmarshal every
// notification, and both acknowledge what they got in one go.
func BenchmarkGroup(b *testing.B) {
	log := benchLog(b)
	load(b, benchFront(b, log), benchRequests(b, benchGroupStored), 512)
	address := benchRPC(b, log)
	plain := benchPlain(b, log)
	for _, members := range []int{1, 4, 16} {
		for _, inFlight := range []int{16, 256} {
			b.Run(fmt.Sprintf("members=%d/in-flight=%d/by=linksgate", members, inFlight), func(b *testing.B) {
				benchShare(b, address, linksgatev1.GroupOrdering_GROUP_ORDERING_NONE, members, inFlight, benchGroupStored)
			})
			b.Run(fmt.Sprintf("members=%d/in-flight=%d/by=jetstream", members, inFlight), func(b *testing.B) {
				for range b.N {
					sharePlain(b, plain, members, inFlight)
				}
				b.ReportMetric(benchGroupStored*float64(b.N)/b.Elapsed().Seconds(), "notifications/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkGroupSingly measures the same where each record batch holds one notification, as in a log that gets few at a time, and with
// the order of SIMs, which costs writes.
func BenchmarkGroupSingly(b *testing.B) {
	const stored = 20_000
	log := benchLog(b)
	load(b, benchFront(b, log), benchRequests(b, stored), 1)
	address := benchRPC(b, log)
	for _, ordering := range []linksgatev1.GroupOrdering{linksgatev1.GroupOrdering_GROUP_ORDERING_NONE, linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM} {
		b.Run(ordering.String(), func(b *testing.B) { benchShare(b, address, ordering, 4, 256, stored) })
	}
}

func benchShare(b *testing.B, address string, ordering linksgatev1.GroupOrdering, members, inFlight, stored int) {
	for range b.N {
		shareGroup(b, address, ordering, members, inFlight, stored)
	}
	b.ReportMetric(float64(stored)*float64(b.N)/b.Elapsed().Seconds(), "notifications/s")
	b.ReportMetric(0, "ns/op")
}

func benchDial(b *testing.B, address string) *grpc.ClientConn {
	b.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// shareGroup lets members get through the whole log.
func shareGroup(b *testing.B, address string, ordering linksgatev1.GroupOrdering, members, inFlight, stored int) {
	b.Helper()
	name := fmt.Sprintf("bench-%d", time.Now().UnixNano())
	conn := benchDial(b, address)
	defer conn.Close()
	if _, err := linksgatev1.NewGroupServiceClient(conn).CreateGroup(b.Context(), &linksgatev1.CreateGroupRequest{
		Group: &linksgatev1.Group{Name: name, Ordering: ordering}, Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}},
	}); err != nil {
		b.Fatal(err)
	}
	ctx, done := context.WithCancel(b.Context())
	defer done()
	var handled atomic.Int64
	var working sync.WaitGroup
	for range members {
		conn := benchDial(b, address)
		defer conn.Close()
		working.Go(func() {
			client := linksgatev1.NewWorkerServiceClient(conn)
			stream, err := client.Consume(ctx, &linksgatev1.ConsumeRequest{GroupName: name, MaxInFlight: int32(inFlight)})
			if err != nil {
				b.Error(err)
				return
			}
			request := &linksgatev1.AcknowledgeRequest{GroupName: name}
			for {
				frame, err := stream.Recv()
				if err != nil {
					if ctx.Err() == nil {
						b.Error(err)
					}
					return
				}
				leases := frame.GetLeases().GetLeases()
				if len(leases) == 0 {
					continue
				}
				request.LeaseTokens = request.GetLeaseTokens()[:0]
				for _, lease := range leases {
					request.LeaseTokens = append(request.LeaseTokens, lease.GetLeaseToken())
				}
				response, err := client.Acknowledge(ctx, request)
				if err != nil {
					if ctx.Err() == nil {
						b.Error(err)
					}
					return
				}
				for _, result := range response.GetResults() {
					if result.GetOutcome() != linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK {
						b.Error(result)
						return
					}
				}
				if handled.Add(int64(len(leases))) >= int64(stored) {
					done()
					return
				}
			}
		})
	}
	working.Wait()
	if handled.Load() != int64(stored) {
		b.Errorf("handled %d of %d", handled.Load(), stored)
	}
}

// benchPlain copies a log to a stream of a NATS server, one message for each notification, and returns the server's address.
func benchPlain(b *testing.B, log *eventlog.Log) string {
	b.Helper()
	dir, err := os.MkdirTemp(".", "bench-data-")
	if err != nil {
		b.Fatal(err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	loading, stop := benchNATS(b, dir, false) // storing is not what is measured
	js, closeConn := benchJetStream(b, loading)
	if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "PLAIN", Subjects: []string{"plain"}}); err != nil {
		b.Fatal(err)
	}
	info, err := log.Info(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for step, err := range log.Read(b.Context(), info.First, eventlog.ReadOptions{Until: info.Next, Pulse: time.Second}) {
		if err != nil {
			b.Fatal(err)
		}
		for _, record := range step.Records {
			if _, err := js.PublishAsync("plain", record.Message(), jetstream.WithStallWait(time.Minute)); err != nil {
				b.Fatal(err)
			}
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(5 * time.Minute):
		b.Fatal("the copy was not stored in time")
	}
	closeConn()
	stop()
	address, stop := benchNATS(b, dir, true)
	b.Cleanup(stop)
	return address
}

// benchNATS runs a NATS server on a directory.
func benchNATS(b *testing.B, dir string, sync bool) (address string, stop func()) {
	b.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: dir, SyncAlways: sync,
	})
	if err != nil {
		b.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		b.Fatal("the NATS server is not ready")
	}
	return s.ClientURL(), func() { s.Shutdown(); s.WaitForShutdown() }
}

func benchJetStream(b *testing.B, url string) (jetstream.JetStream, func()) {
	b.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		b.Fatal(err)
	}
	return js, conn.Close
}

// sharePlain lets members get through the whole stream with one durable pull consumer.
func sharePlain(b *testing.B, url string, members, inFlight int) {
	b.Helper()
	js, closeConn := benchJetStream(b, url)
	defer closeConn()
	const name = "members"
	if _, err := js.CreateConsumer(b.Context(), "PLAIN", jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: max(1000, 2*members*inFlight),
	}); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = js.DeleteConsumer(b.Context(), "PLAIN", name) }()
	ctx, done := context.WithCancel(b.Context())
	defer done()
	var handled atomic.Int64
	var working sync.WaitGroup
	for range members {
		js, closeConn := benchJetStream(b, url)
		defer closeConn()
		consumer, err := js.Consumer(b.Context(), "PLAIN", name)
		if err != nil {
			b.Fatal(err)
		}
		messages, err := consumer.Messages(jetstream.PullMaxMessages(inFlight), jetstream.WithMessagesErrOnMissingHeartbeat(false))
		if err != nil {
			b.Fatal(err)
		}
		defer context.AfterFunc(ctx, messages.Stop)()
		working.Go(func() {
			for {
				message, err := messages.Next()
				if err != nil {
					if ctx.Err() == nil {
						b.Error(err)
					}
					return
				}
				if err := proto.Unmarshal(message.Data(), new(linksgatev1.Notification)); err != nil {
					b.Error(err)
					return
				}
				if err := message.Ack(); err != nil {
					b.Error(err)
					return
				}
				if handled.Add(1) == benchGroupStored {
					done()
				}
			}
		})
	}
	working.Wait()
}
