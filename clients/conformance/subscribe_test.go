package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// texts are those of SMS.
func texts(events []event) []string {
	var all []string
	for _, e := range events {
		all = append(all, e.Text)
	}
	return all
}

// numbers are the texts that gateway.send gives to a number of SMS.
func numbers(from, to int) []string {
	var all []string
	for n := from; n < to; n++ {
		all = append(all, fmt.Sprint(n))
	}
	return all
}

// exactly requires that SMS came, each once and in order.
func exactly(t *testing.T, got []event, to int) {
	t.Helper()
	if want := numbers(0, to); !slices.Equal(texts(got), want) {
		t.Errorf("came %v\nwant %v", texts(got), want)
	}
}

func TestResumesAfterTheGatewayWasKilled(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.send(20)
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "earliest"})
		h.await("handled", 20)
		g.killed()
		g.start()
		g.send(20)
		exactly(t, h.await("notification", 40), 40)
		if said := h.stop(); said.Error != "" {
			t.Errorf("it ended with %q: %s", said.Error, said.Detail)
		}
	})
}

func TestResumesAfterAPlannedStop(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "earliest"})
		g.send(10)
		h.await("handled", 10)
		g.stopped()
		g.start()
		g.send(10)
		exactly(t, h.await("notification", 20), 20)
		h.stop()
	})
}

// A gateway that is frozen, or a cable that is cut, sends nothing, not even an end: the next address is tried.
func TestAFrozenConnectionIsLeft(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		p := startProxy(t, g.GRPC)
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{p.address, g.GRPC}, "start": "earliest", "heartbeat_ms": 1000})
		g.send(5)
		h.await("handled", 5)
		p.frozen.Store(true)
		g.send(5)
		exactly(t, h.await("notification", 10), 10)
		h.stop()
	})
}

// A connection that is cut at any place of a batch costs nothing and repeats nothing.
func TestConnectionsAreCutInTheMiddle(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.send(60)
		p := startProxy(t, g.GRPC)
		p.limit.Store(2000)
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{p.address}, "start": "earliest", "handler_ms": 10})
		for n := 5; n < 60; n += 11 {
			h.await("notification", n)
			p.limit.Store(int64(1 + 997*n%3000))
			if n%2 == 0 {
				p.cut()
			}
		}
		g.send(3)
		exactly(t, h.await("notification", 63), 63)
		h.stop()
	})
}

// What was being handled when the program failed comes again; what was handled before does not.
func TestAFailedHandlerIsResumedAt(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.send(10)
		o := order{
			"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "earliest", "checkpoint": filepath.Join(t.TempDir(), "token"),
			"handler_ms": 300, "until_head": true,
		}
		o["fail_at"] = 6
		first := c.start(t, o)
		first.awaitExit()
		handled := len(first.so("handled"))
		delete(o, "fail_at")
		second := c.start(t, o)
		second.endsWith("")
		again := texts(second.so("notification"))
		if handled != 5 || len(again) == 0 || !slices.Equal(again, numbers(10-len(again), 10)) {
			t.Fatalf("%d were handled, then came %v", handled, again)
		}
		// A checkpoint is stored every second: up to four of these can come again.
		if from := 10 - len(again); from > 5 || from < 1 {
			t.Errorf("it went on at %d; 5 was not handled, and at least one was stored before", from)
		}
	})
}

func TestACheckpointOutlivesTheProgram(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.send(10)
		o := order{"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "earliest", "checkpoint": filepath.Join(t.TempDir(), "token")}
		first := c.start(t, o)
		first.await("handled", 10)
		time.Sleep(1500 * time.Millisecond) // until it is stored
		first.kill()
		g.send(5)
		second := c.start(t, o)
		if got := texts(second.await("notification", 5)); !slices.Equal(got, numbers(10, 15)) {
			t.Errorf("after a kill came %v", got)
		}
		second.await("handled", 5)
		second.stop()
		g.send(1)
		third := c.start(t, o)
		if got := texts(third.await("notification", 1)); !slices.Equal(got, numbers(15, 16)) {
			t.Errorf("after a stop came %v", got)
		}
		third.stop()
	})
}

// The position moves on also while nothing matches, so that a quiet subscription does not expire.
func TestAFilterThatMatchesNothingMovesOn(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.send(3)
		path := filepath.Join(t.TempDir(), "token")
		h := c.start(t, order{
			"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "earliest", "checkpoint": path, "kinds": []string{"CUBE"}, "heartbeat_ms": 1000,
		})
		read := func() string { data, _ := os.ReadFile(path); return string(data) }
		eventually(t, "a position is stored", func() bool { return read() != "" })
		before := read()
		g.send(3)
		eventually(t, "it moves on", func() bool { return read() != before })
		h.stop()
		if got := h.so("notification"); len(got) != 0 {
			t.Errorf("came %v", texts(got))
		}
	})
}

func TestTheHeadOfAnEmptyLogIsTheEnd(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		o := order{"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "earliest", "until_head": true}
		c.start(t, o).endsWith("")
		g.send(7)
		h := c.start(t, o)
		h.endsWith("")
		exactly(t, h.so("notification"), 7)
	})
}

func TestTokensThatAreNoneEndIt(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g, other := startGateway(t), startGateway(t)
		g.send(1)
		other.send(1)
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{other.GRPC}, "start": "earliest", "until_head": true})
		token := h.await("notification", 1)[0].Token
		o := order{"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "after:" + token}
		c.start(t, o).endsWith("OtherLog")
		o["start"] = "after:nonsense"
		c.start(t, o).endsWith("InvalidRequest")
	})
}

// What coming back cannot mend ends a subscription, with the error of the table, at once.
func TestRefusalsEndIt(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		for _, tt := range []struct {
			err   error
			want  string
			token string
		}{
			{refusal(codes.OutOfRange, "EXPIRED", map[string]string{"first_available_token": "first"}), "Expired", "first"},
			{refusal(codes.DataLoss, "CORRUPT", map[string]string{"first_available_token": "good"}), "DataLoss", "good"},
			{refusal(codes.DataLoss, "AHEAD_OF_HEAD", nil), "DataLoss", ""},
			{refusal(codes.FailedPrecondition, "OTHER_LOG", nil), "OtherLog", ""},
			{refusal(codes.Unauthenticated, "", nil), "PermissionDenied", ""},
			{refusal(codes.PermissionDenied, "", nil), "PermissionDenied", ""},
			{refusal(codes.Unimplemented, "UNIMPLEMENTED", nil), "Unsupported", ""},
		} {
			s := startScripted(t, nil, func(*linksgatev1.SubscribeRequest, grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
				return tt.err
			})
			said := c.start(t, order{"mode": "subscribe", "addresses": []string{s.address}, "start": "earliest"}).endsWith(tt.want)
			if said.FirstAvailable != tt.token || len(s.called()) != 1 {
				t.Errorf("%s: first available %q in %d calls", tt.want, said.FirstAvailable, len(s.called()))
			}
		}
	})
}

// Everything else is tried again, not before the gateway asks for it.
func TestWhatPassesIsTriedAgain(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)}
		var s *scripted
		s = startScripted(t, nil, func(_ *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
			switch len(s.called()) {
			case 1:
				return refusal(codes.Unavailable, "DRAINING", nil, retry)
			case 2:
				return refusal(codes.Internal, "INTERNAL", nil)
			case 3:
				return refusal(codes.ResourceExhausted, "TOO_MANY_STREAMS", nil)
			case 4:
				return refusal(codes.Aborted, "CLIENT_NOT_READING", nil)
			case 5:
				return sayAll(stream, confirmed()) // and ends with OK, which is not the end
			}
			return sayAll(stream, confirmed(), batch("one", numbered("1", "{}")), completed())
		})
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{s.address}, "start": "earliest", "until_head": false})
		h.endsWith("")
		calls := s.called()
		if len(calls) != 6 || len(h.so("notification")) != 1 {
			t.Fatalf("%d calls, %d notifications", len(calls), len(h.so("notification")))
		}
		if waited := calls[1].at.Sub(calls[0].at); waited < 1400*time.Millisecond {
			t.Errorf("it came again after %v; it was asked to wait for 1.5 s", waited)
		}
		if agent := strings.Join(calls[0].metadata["user-agent"], ""); !strings.HasPrefix(agent, "linksgate-"+c.language+"/") {
			t.Errorf("the user agent is %q", agent)
		}
	})
}

func TestGapsAreToldOrAreErrors(t *testing.T) {
	gap := func(reason linksgatev1.GapReason) *linksgatev1.SubscribeResponse {
		return &linksgatev1.SubscribeResponse{Token: "after-gap", Frame: &linksgatev1.SubscribeResponse_Gap{
			Gap: &linksgatev1.Gap{Reason: reason, RecordBatches: 2},
		}}
	}
	each(t, func(t *testing.T, c client) {
		s := startScripted(t, nil, func(_ *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
			return sayAll(stream, confirmed(), batch("one", numbered("1", "{}")), gap(linksgatev1.GapReason_GAP_REASON_ERASED),
				gap(linksgatev1.GapReason_GAP_REASON_EXPIRED), batch("two", numbered("2", "{}")), completed())
		})
		o := order{"mode": "subscribe", "addresses": []string{s.address}, "start": "earliest", "on_gap": "continue"}
		h := c.start(t, o)
		h.endsWith("")
		gaps := h.so("gap")
		if len(h.so("notification")) != 2 || len(gaps) != 2 || gaps[0].Reason != "ERASED" || gaps[1].Reason != "EXPIRED" {
			t.Errorf("%d notifications, gaps %v", len(h.so("notification")), gaps)
		}
		if policy := s.called()[0].request.GetOnGap(); policy != linksgatev1.GapPolicy_GAP_POLICY_CONTINUE {
			t.Errorf("it asked for %v", policy)
		}
		o["on_gap"] = "fail"
		h = c.start(t, o)
		h.endsWith("Expired")
		if len(h.so("notification")) != 1 {
			t.Errorf("%d notifications before the gap", len(h.so("notification")))
		}
	})
}

// A gateway of a later version may send frames, fields and values that this client does not know.
func TestWhatIsNotKnownIsPassedOver(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		s := startScripted(t, nil, func(_ *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
			unknownFrame := &linksgatev1.SubscribeResponse{Token: "unknown"}
			unknownFrame.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), []byte("later")))
			later := numbered("1", "{}")
			later.Kind = 77
			later.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 500, protowire.VarintType), 5))
			closing := &linksgatev1.SubscribeResponse{Token: "closing", Frame: &linksgatev1.SubscribeResponse_Closing{
				Closing: &linksgatev1.Closing{Reason: 88, ReconnectAfter: durationpb.New(50 * time.Millisecond)},
			}}
			return sayAll(stream, confirmed(), unknownFrame, batch("one", later), closing)
		})
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{s.address}, "start": "earliest"})
		h.await("notification", 2) // of two streams: what closes for a reason that is not known is opened again
		h.stop()
		if after := s.called()[1].request.GetStart().GetAfter(); after != "closing" {
			t.Errorf("the second stream began after %q", after)
		}
	})
}

// A handler that is slow slows the stream, and does not fill memory.
func TestASlowHandlerSlowsTheStream(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		body := `{"x":"` + strings.Repeat("x", 16<<10) + `"}`
		sent := make(chan int, 1)
		s := startScripted(t, nil, func(_ *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
			count := 0
			defer func() { sent <- count }()
			if err := stream.Send(confirmed()); err != nil {
				return err
			}
			for ; ; count++ {
				if err := stream.Send(batch(fmt.Sprint(count), numbered(fmt.Sprint(count), body))); err != nil {
					return err
				}
			}
		})
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{s.address}, "start": "earliest", "handler_ms": 500})
		h.await("notification", 4)
		h.stop()
		// Two batches, and what the windows of HTTP/2 hold.
		if count := <-sent; count > 2000 {
			t.Errorf("%d MiB were sent to a client that handled four notifications", count*16>>10)
		}
	})
}

func TestLargeBatchesFit(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		const count, size = 512, 100 << 10
		body := strings.Repeat("x", size)
		var all []*linksgatev1.Notification
		for n := range count {
			all = append(all, numbered(fmt.Sprint(n), body))
		}
		frame := batch("all", all...)
		if proto.Size(frame) < 50<<20 {
			t.Fatal("the batch is too small")
		}
		s := startScripted(t, nil, func(_ *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
			return sayAll(stream, confirmed(), frame, completed())
		})
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{s.address}, "start": "earliest", "max_batch": 512})
		h.endsWith("")
		got := h.so("notification")
		if len(got) != count || got[count-1].BodyBytes != size {
			t.Errorf("%d notifications came", len(got))
		}
	})
}

// A handler that takes longer than three heartbeats is not taken for a dead connection.
func TestASlowHandlerIsNoDeadConnection(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		s := startScripted(t, nil, func(_ *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
			if err := sayAll(stream, confirmed(), batch("1", numbered("1", "{}")), batch("2", numbered("2", "{}"))); err != nil {
				return err
			}
			for range 14 {
				time.Sleep(500 * time.Millisecond)
				if err := stream.Send(&linksgatev1.SubscribeResponse{Token: "2", Frame: &linksgatev1.SubscribeResponse_Heartbeat{
					Heartbeat: &linksgatev1.SubscriptionHeartbeat{Now: timestamppb.Now()},
				}}); err != nil {
					return err
				}
			}
			return stream.Send(completed())
		})
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{s.address}, "start": "earliest", "heartbeat_ms": 1000, "handler_ms": 4000})
		h.endsWith("")
		if calls := len(s.called()); calls != 1 || len(h.so("handled")) != 2 {
			t.Errorf("%d streams, %d handled", calls, len(h.so("handled")))
		}
	})
}

// A token is sent, is read from its file again, and is never sent in plain text to somewhere else.
func TestTokens(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		path := filepath.Join(t.TempDir(), "bearer")
		write := func(token string) {
			if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("first")
		s := startScripted(t, nil, func(_ *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
			_ = sayAll(stream, confirmed(), batch("1", numbered("1", "{}")))
			time.Sleep(200 * time.Millisecond)
			return refusal(codes.Unavailable, "DRAINING", nil)
		})
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{s.address}, "start": "earliest", "token_file": path})
		h.await("notification", 1)
		write("second")
		h.await("notification", 3)
		h.stop()
		var sent []string
		for _, call := range s.called() {
			sent = append(sent, strings.Join(call.metadata["authorization"], "|"))
		}
		if sent[0] != "Bearer first" || !slices.Contains(sent, "Bearer second") {
			t.Errorf("sent: %v", sent)
		}
		refused := c.start(t, order{"mode": "subscribe", "addresses": []string{"192.0.2.1:9090"}, "token": "secret"}).stopped()
		if refused.Error == "" {
			t.Error("a token was sent in plain text")
		}
	})
}
