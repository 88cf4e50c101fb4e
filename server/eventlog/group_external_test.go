package eventlog

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// openGateway opens an external log.
func openGateway(t *testing.T, url string) *Log {
	t.Helper()
	l, err := Open(t.Context(), Options{URL: url, Replicas: 1})
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

func bySIM(record *linksgatev1.GroupRecord) *linksgatev1.GroupRecord {
	record.Group.Ordering = linksgatev1.Ordering_ORDERING_BY_SIM
	return record
}

func TestGatewaysShareAGroup(t *testing.T) {
	t.Parallel() // it waits most of the time
	url := startNATS(t)
	a, b := openGateway(t, url), openGateway(t, url)
	seen, _ := watch(t, b)
	record := mustCreate(t, a, groupRecord("a", Cursor{Stream: 1}))
	seen.await(t, "a")
	const batches = 100
	for n := range batches {
		mustAppend(t, a, notification(n))
	}
	readers := []GroupReader{attach(t, a, record), attach(t, b, record)}
	var all []uint64
	for len(all) < batches {
		for _, r := range readers {
			claims, err := r.Fetch(t.Context(), SourceLog, 7, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if len(claims) == 0 && len(all) < batches {
				t.Errorf("a gateway got nothing after %d", len(all))
			}
			all = append(all, streams(claims)...)
			settle(t, claims...)
		}
	}
	slices.Sort(all)
	if len(all) != batches || len(slices.Compact(all)) != batches {
		t.Errorf("%d batches, want each of %d once", len(all), batches)
	}
	// What one gives back, or parks and replays, the other gets.
	mustAppend(t, b, notification(1))
	claim := fetch(t, readers[0], SourceLog, 1)[0]
	if err := claim.GiveBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := fetch(t, readers[1], SourceLog, 1)[0]
	if again.Stream != claim.Stream || again.Deliveries < 2 {
		t.Errorf("got %+v, want batch %d again", again, claim.Stream)
	}
	mustPark(t, a, "a", claim.Records[0])
	if err := b.Groups().Replay(t.Context(), "a", b.NotificationID(claim.Records[0].Position)); err != nil {
		t.Fatal(err)
	}
	settle(t, fetch(t, readers[0], SourceReplay, 1)...)
	settle(t, again)
	awaitState(t, b, record, func(s GroupState) bool { return s.Unsettled == 0 && s.UnsettledReplays == 0 && !s.Pinned })
	if err := a.Groups().Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	seen.await(t, "a")
}

// awaitStandby fetches until a gateway knows that another one is served; it must not get anything.
func awaitStandby(t *testing.T, r GroupReader) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !r.Standby(); {
		claims, err := r.Fetch(t.Context(), SourceLog, 10, 100*time.Millisecond)
		if err != nil || len(claims) > 0 {
			t.Fatalf("got %v from the log, want nothing; %v", streams(claims), err)
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not know that it stands by")
		}
	}
}

func TestOneGatewayAtATimeIsServedInOrder(t *testing.T) {
	t.Parallel() // it waits most of the time
	url := startNATS(t)
	a, b := openGateway(t, url), openGateway(t, url)
	record := mustCreate(t, a, bySIM(groupRecord("a", Cursor{Stream: 1})))
	for n := range 20 {
		mustAppend(t, a, notification(n))
	}
	first, second := attach(t, a, record), attach(t, b, record)
	claims := fetch(t, first, SourceLog, 5)
	if claims[0].Turn == 0 || claims[4].Turn != claims[0].Turn {
		t.Errorf("turns %d and %d", claims[0].Turn, claims[4].Turn)
	}
	// With its hands full, the first one asks for nothing, for longer than the engine is patient.
	for ended := time.Now().Add(pinTime + 2*time.Second); time.Now().Before(ended); {
		for _, c := range claims {
			if err := c.KeepAlive(); err != nil {
				t.Fatal(err)
			}
		}
		awaitStandby(t, second)
		if got, err := second.Fetch(t.Context(), SourceLog, 10, 500*time.Millisecond); err != nil || len(got) > 0 {
			t.Fatalf("both are served: %v %v", streams(got), err)
		}
	}
	more := fetch(t, first, SourceLog, 2)
	if checkStreams(t, more, 6, 7); more[0].Turn != claims[0].Turn || first.Standby() {
		t.Errorf("turn %d became %d", claims[0].Turn, more[0].Turn)
	}
	// Nor is the second one given replays meanwhile.
	mustPark(t, b, "a", claims[0].Records[0])
	if err := b.Groups().Replay(t.Context(), "a", b.NotificationID(claims[0].Records[0].Position)); err != nil {
		t.Fatal(err)
	}
	fetchNone(t, second, SourceReplay)
	replay := fetch(t, first, SourceReplay, 1)
	settle(t, replay...)
	if state, err := first.State(t.Context()); err != nil || !state.Pinned || state.Unsettled != 7 {
		t.Errorf("state %+v %v", state, err)
	}
	// It leaves, with claims that are neither settled nor given back.
	settle(t, claims...)
	first.Close()
	taken := fetch(t, second, SourceLog, 3)
	if checkStreams(t, taken, 8, 9, 10); second.Standby() {
		t.Error("it stands by although it is served")
	}
	if state := awaitState(t, b, record, func(s GroupState) bool { return s.Unsettled == 5 }); state.Oldest.Stream != 6 {
		t.Errorf("the second one cannot know of what the first one has: %+v", state)
	}
	if err := more[0].GiveBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := fetch(t, second, SourceLog, 1)[0]
	for got.Stream > 10 { // what is new may be faster
		got = fetch(t, second, SourceLog, 1)[0]
	}
	if got.Stream != 6 || got.Deliveries < 2 || got.Turn != taken[0].Turn {
		t.Errorf("got %+v, want what was given back", got)
	}
}

// A gateway that dies, or stands still, is replaced; when it comes back, it knows that its turn was over.
func TestAnotherGatewayTakesOver(t *testing.T) {
	t.Parallel() // it waits most of the time
	url := startNATS(t)
	a, b := openGateway(t, url), openGateway(t, url)
	record := mustCreate(t, a, bySIM(groupRecord("a", Cursor{Stream: 1})))
	for n := range 10 {
		mustAppend(t, a, notification(n))
	}
	first, second := attach(t, a, record), attach(t, b, record)
	was := fetch(t, first, SourceLog, 2)
	awaitStandby(t, second)
	if got := fetch(t, second, SourceLog, 2); streams(got)[0] != 3 {
		t.Errorf("took over with %v", streams(got))
	}
	awaitStandby(t, first)
	second.Close()
	if again := fetch(t, first, SourceLog, 1)[0]; again.Turn == was[0].Turn {
		t.Errorf("turn %d again, although another one was served meanwhile", again.Turn)
	}
}

// When nobody is served, a replay has somebody serve it.
func TestReplayWhileTheLogIsIdle(t *testing.T) {
	t.Parallel() // it waits most of the time
	url := startNATS(t)
	a, b := openGateway(t, url), openGateway(t, url)
	mustAppend(t, a, notification(1))
	one := records(t, a, 1)[0]
	record := mustCreate(t, a, bySIM(groupRecord("a", Cursor{Stream: 2})))
	first, second := attach(t, a, record), attach(t, b, record)
	fetchNone(t, first, SourceLog)
	mustPark(t, a, "a", one)
	if err := a.Groups().Replay(t.Context(), "a", a.NotificationID(one.Position)); err != nil {
		t.Fatal(err)
	}
	claim := fetch(t, second, SourceReplay, 1)[0]
	fetchNone(t, first, SourceReplay)
	mustAppend(t, a, notification(2))
	next := fetch(t, first, SourceLog, 1)[0]
	if next.Turn == 0 || claim.Turn == 0 {
		t.Errorf("turns %d and %d", next.Turn, claim.Turn)
	}
	// From now on the first one is to get replays. That the second one has one still, it is told.
	if state, err := first.State(t.Context()); err != nil || state.UnsettledReplays != 1 {
		t.Errorf("state %+v %v", state, err)
	}
	fetchNone(t, second, SourceReplay)
	settle(t, claim)
	second.Close()
	mustPark(t, a, "a", one)
	if err := a.Groups().Replay(t.Context(), "a", a.NotificationID(one.Position)); err != nil {
		t.Fatal(err)
	}
	fetch(t, first, SourceReplay, 1)
}

func answer(t *testing.T, l *Log, handler func(method, request string) []byte) (stop func()) {
	t.Helper()
	stop, err := l.Groups().Answer(func(_ context.Context, method string, request []byte) []byte { return handler(method, string(request)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return stop
}

func TestGatewaysAskEachOther(t *testing.T) {
	t.Parallel() // it waits most of the time
	url := startNATS(t)
	gateways := []*Log{openGateway(t, url), openGateway(t, url), openGateway(t, url)}
	asking := gateways[0].Groups()
	if got := asking.AskAll(t.Context(), "status", nil, time.Hour); len(got) != 0 {
		t.Errorf("nobody answered %q", got)
	}
	stops := make([]func(), len(gateways))
	for i, l := range gateways {
		stops[i] = answer(t, l, func(method, request string) []byte {
			switch method {
			case "nothing":
				return nil
			case "empty":
				return []byte{}
			}
			return []byte(method + " " + request + " " + string(rune('a'+i)))
		})
	}
	if a, b := gateways[0].Groups().Replica(), gateways[1].Groups().Replica(); a == 0 || a == b {
		t.Errorf("replicas %d and %d", a, b)
	}
	for i, l := range gateways[1:] {
		got, err := asking.Ask(t.Context(), l.Groups().Replica(), "acknowledge", []byte("this"))
		if want := "acknowledge this " + string(rune('b'+i)); err != nil || string(got) != want {
			t.Errorf("answer %q %v, want %q", got, err, want)
		}
	}
	if got, err := asking.Ask(t.Context(), gateways[1].Groups().Replica(), "empty", nil); err != nil || len(got) != 0 {
		t.Errorf("answer %q %v", got, err)
	}
	if _, err := asking.Ask(t.Context(), gateways[1].Groups().Replica(), "nothing", nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no answer: %v", err)
	}
	for _, nobody := range []uint64{0, 12345, asking.Replica()} {
		if _, err := asking.Ask(t.Context(), nobody, "status", nil); !errors.Is(err, ErrNoPeer) {
			t.Errorf("ask gateway %d: %v", nobody, err)
		}
	}
	var all []string
	for _, one := range asking.AskAll(t.Context(), "status", []byte("x"), 2*time.Second) {
		all = append(all, string(one))
	}
	slices.Sort(all)
	if !slices.Equal(all, []string{"status x b", "status x c"}) {
		t.Errorf("answers %q", all)
	}
	if got := asking.AskAll(t.Context(), "nothing", nil, 200*time.Millisecond); len(got) != 0 {
		t.Errorf("answers %q", got)
	}
	stops[1]()
	if _, err := asking.Ask(t.Context(), gateways[1].Groups().Replica(), "status", nil); !errors.Is(err, ErrNoPeer) {
		t.Errorf("ask a gateway that does not answer any more: %v", err)
	}
	if err := gateways[2].Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; { // the server hears of it a little later
		_, err := asking.Ask(t.Context(), gateways[2].Groups().Replica(), "status", nil)
		if errors.Is(err, ErrNoPeer) {
			break
		}
		if !errors.Is(err, ErrUnavailable) || time.Now().After(deadline) {
			t.Fatalf("ask a gateway that was closed: %v", err)
		}
	}
}

func TestNobodyToAskOfAnEmbeddedLog(t *testing.T) {
	g := openLog(t, Options{NoSync: true}).Groups()
	stop, err := g.Answer(nil)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := g.Ask(t.Context(), g.Replica(), "status", nil); !errors.Is(err, ErrNoPeer) || g.Replica() != 0 {
		t.Errorf("ask: %v", err)
	}
	if got := g.AskAll(t.Context(), "status", nil, time.Hour); len(got) != 0 {
		t.Errorf("answers %q", got)
	}
}

// After stop nothing is answered, and what was being answered was told to end.
func TestAnsweringEnds(t *testing.T) {
	url := startNATS(t)
	a, b := openGateway(t, url), openGateway(t, url)
	asked, ended := make(chan struct{}), false
	stop, err := a.Groups().Answer(func(ctx context.Context, _ string, _ []byte) []byte {
		close(asked)
		<-ctx.Done()
		ended = true
		return []byte("late")
	})
	if err != nil {
		t.Fatal(err)
	}
	var asking sync.WaitGroup
	asking.Go(func() { _, _ = b.Groups().Ask(context.Background(), a.Groups().Replica(), "wait", nil) })
	<-asked
	stop()
	if !ended {
		t.Error("stop did not wait")
	}
	asking.Wait()
}

// A gateway goes on after an interruption of its connection, and is told that anything may have changed.
func TestGroupsGoOnAfterAnInterruption(t *testing.T) {
	t.Parallel() // it waits most of the time
	store := t.TempDir()
	start := func(port int) *natsserver.Server {
		s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: port, NoSigs: true, JetStream: true, StoreDir: store})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("the NATS server is not ready")
		}
		return s
	}
	server := start(natsserver.RANDOM_PORT)
	l := openGateway(t, server.ClientURL())
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	mustAppend(t, l, notification(1))
	r := attach(t, l, record)
	settle(t, fetch(t, r, SourceLog, 1)...)
	awaitState(t, l, record, func(s GroupState) bool { return s.Unsettled == 0 })
	seen, _ := watch(t, l)
	port := server.Addr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Port()
	server.Shutdown()
	server.WaitForShutdown()
	if _, err := r.Fetch(t.Context(), SourceLog, 1, 300*time.Millisecond); err != nil && !errors.Is(err, ErrUnavailable) {
		t.Errorf("fetch without a server: %v", err)
	}
	server = start(int(port))
	t.Cleanup(func() { server.Shutdown(); server.WaitForShutdown() })
	seen.await(t, "")
	mustAppend(t, l, notification(2))
	for deadline := time.Now().Add(60 * time.Second); ; {
		claims, err := r.Fetch(t.Context(), SourceLog, 1, time.Second)
		if len(claims) == 1 {
			checkStreams(t, claims, 2)
			break
		}
		if err != nil && !errors.Is(err, ErrUnavailable) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
