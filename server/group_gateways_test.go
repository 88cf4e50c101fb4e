package server_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/config"
)

// What members have done, and have, survives a planned restart: nothing is repeated, and old leases are settled at the new gateway.
func TestARestartRepeatsNothing(t *testing.T) {
	t.Parallel()
	for _, ordering := range []linksgatev1.GroupOrdering{linksgatev1.GroupOrdering_GROUP_ORDERING_NONE, linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM} {
		t.Run(ordering.String(), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			g := startGateway(t, cfg)
			r := g.group(t, &linksgatev1.Group{Ordering: ordering})
			ids := make(map[string]bool)
			for _, id := range g.deliverSMS(t, 0, 30) {
				ids[id] = true
			}
			m := r.join(t, 10)
			held := m.take(t, 10)
			for i, outcome := range r.acknowledge(t, tokens(held[:5])...) {
				if outcome != leaseOK {
					t.Errorf("%d: %v", i, outcome)
				}
			}
			g.cancel()
			closing := false
			for {
				frame, err := m.Recv()
				if err != nil {
					if status.Code(err) != codes.Unavailable {
						t.Errorf("the stream ended with %v", err)
					}
					break
				}
				held = append(held, frame.GetLeases().GetLeases()...)
				closing = closing || frame.GetClosing().GetReason() == linksgatev1.ClosingReason_CLOSING_REASON_DRAINING
			}
			if !closing {
				t.Error("the stream ended without Closing")
			}
			g.stop(t)

			g = startGateway(t, cfg)
			r = r.on(g)
			rest := make(map[string]bool)
			for id := range ids {
				rest[id] = true
			}
			for _, lease := range held {
				delete(rest, lease.GetNotification().GetId())
			}
			for len(rest) > 0 {
				for _, lease := range r.fetch(t, 1) {
					id := lease.GetNotification().GetId()
					if !rest[id] {
						t.Errorf("%s was leased again (attempt %d)", id, lease.GetAttempt())
					}
					delete(rest, id)
					if got := r.acknowledge(t, lease.GetLeaseToken()); got[0] != leaseOK {
						t.Errorf("%s: %v", id, got)
					}
				}
			}
			for i, outcome := range r.acknowledge(t, tokens(held[5:])...) {
				if outcome != leaseOK {
					t.Errorf("old lease %d: %v", i, outcome)
				}
			}
			r.idle(t)
		})
	}
}

// A stream that the gateway ends as planned takes nothing from its member.
func TestLeasesOutliveThePlannedEndOfAStream(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.GRPC.MaxStreamAge = config.Duration(time.Second)
	g := startGateway(t, cfg)
	r := g.group(t, &linksgatev1.Group{MaxAttempts: 1})
	g.deliverSMS(t, 0, 3)
	m := r.join(t, 2)
	held := m.take(t, 2)
	for {
		frame, err := m.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || frame.GetClosing() != nil && frame.GetClosing().GetReason() != linksgatev1.ClosingReason_CLOSING_REASON_MAX_AGE {
			t.Fatalf("%v %v", frame, err)
		}
	}
	if status := r.status(t); status.GetInFlight() != 2 || len(status.GetMembers()) != 0 {
		t.Errorf("status: %v", status)
	}
	rest := r.fetch(t, 1)
	for i, outcome := range r.acknowledge(t, append(tokens(held), tokens(rest)...)...) {
		if outcome != leaseOK {
			t.Errorf("%d: %v", i, outcome)
		}
	}
	r.idle(t)
}

// externalConfig is that of gateways on one external log.
func externalConfig(t *testing.T) config.Config {
	t.Helper()
	nats, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), MaxPayload: 2 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	nats.Start()
	t.Cleanup(func() { nats.Shutdown(); nats.WaitForShutdown() })
	if !nats.ReadyForConnections(patience) {
		t.Fatal("the NATS server is not ready")
	}
	cfg := testConfig(t)
	cfg.Log = config.Log{NATS: &config.NATS{URL: nats.ClientURL(), Replicas: 1}, MinFree: 1}
	return cfg
}

// spooled gives a gateway a spool of its own.
func spooled(t *testing.T, cfg config.Config) config.Config {
	t.Helper()
	cfg.Log.Spool.Dir = t.TempDir()
	return cfg
}

// Members of an ordered group may be at any gateway. When one of them goes, what is out stays out, and its order is kept.
func TestAnOrderedGroupIsServedAtEveryGateway(t *testing.T) {
	t.Parallel()
	cfg := externalConfig(t)
	a, b := startGateway(t, spooled(t, cfg)), startGateway(t, spooled(t, cfg))
	r := a.group(t, &linksgatev1.Group{Ordering: linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM})
	other := r.on(b)
	sim := func(n int) string { return fmt.Sprintf("8986022019000000%04d", n) }
	send := func(n int) {
		body := fmt.Sprintf(`{"sim_id":"%s","text_message":"x"}`, sim(n))
		b.deliver(t, "/linksfield/acme/sms-received", signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body))
	}
	send(1)
	send(2)
	held := r.join(t, 2).take(t, 2) // and no more
	send(1)                         // behind what is out
	send(3)
	free := other.fetch(t, 1)
	if got := free[0].GetNotification().GetIccids(); !slices.Equal(got, []string{sim(3)}) {
		t.Errorf("at the other gateway the first lease is about %v", got)
	}
	a.stop(t)
	if got := other.acknowledge(t, held[0].GetLeaseToken()); got[0] != leaseOK {
		t.Errorf("a lease of the first gateway: %v", got)
	}
	next := other.fetch(t, 1)
	if got := next[0].GetNotification().GetIccids(); !slices.Equal(got, []string{sim(1)}) || next[0].GetAttempt() != 1 {
		t.Errorf("after it was acknowledged: %v", next)
	}
	other.acknowledge(t, append(tokens(free), next[0].GetLeaseToken(), held[1].GetLeaseToken())...)
	other.idle(t)
}

// Members can be served by several gateways on one external log, and settle with any of them.
func TestGatewaysShareAGroup(t *testing.T) {
	t.Parallel()
	cfg := externalConfig(t)
	a, b := startGateway(t, spooled(t, cfg)), startGateway(t, spooled(t, cfg))
	r := a.group(t, &linksgatev1.Group{})
	other := r.on(b)
	a.deliverSMS(t, 0, 20)
	taken := r.join(t, 20).take(t, 20)
	for i, outcome := range other.acknowledge(t, tokens(taken[:10])...) {
		if outcome != leaseOK {
			t.Errorf("settled with the other gateway: %d: %v", i, outcome)
		}
	}
	for i, outcome := range r.acknowledge(t, tokens(taken[:10])...) {
		if outcome != leaseOK {
			t.Errorf("settled again with the first one: %d: %v", i, outcome)
		}
	}
	other.join(t, 5)
	status := other.status(t)
	if status.GetInFlight() != 10 || len(status.GetMembers()) != 2 {
		t.Errorf("status over both: %v", status)
	}
	a.stop(t) // its members' leases stay good
	for i, outcome := range other.acknowledge(t, tokens(taken[10:15])...) {
		if outcome != leaseOK {
			t.Errorf("settled after the first gateway was gone: %d: %v", i, outcome)
		}
	}
	b.deliverSMS(t, 20, 3)
	fresh := other.fetch(t, 3)
	for _, lease := range fresh {
		if slices.Contains(leased(taken), lease.GetNotification().GetId()) {
			t.Errorf("%s is leased to two members", lease.GetNotification().GetId())
		}
	}
	other.acknowledge(t, tokens(fresh)...)
	other.acknowledge(t, tokens(taken[15:])...)
	other.idle(t)
}

// What is replayed to an ordered group disturbs no member.
func TestAReplayLeavesTheMembersOfAnOrderedGroupAlone(t *testing.T) {
	t.Parallel()
	g := startGateway(t, spooled(t, externalConfig(t)))
	r := g.group(t, &linksgatev1.Group{Ordering: linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM})
	first := g.deliverSMS(t, 0, 1)
	m := r.join(t, 4)
	r.reject(t, &linksgatev1.LeaseRejection{LeaseToken: m.take(t, 1)[0].GetLeaseToken(), Action: &linksgatev1.LeaseRejection_Park{Park: true}})
	if _, err := r.ReplayParked(t.Context(), &linksgatev1.ReplayParkedRequest{GroupName: r.name, All: true}); err != nil {
		t.Fatal(err)
	}
	replayed := m.take(t, 1)
	next := g.deliverSMS(t, 1, 1)
	if diff := cmp.Diff(append(first, next...), leased(append(replayed, m.take(t, 1)...))); diff != "" {
		t.Error(diff)
	}
}

// killedDir returns a copy of a running gateway's directory: what a kill of its process leaves.
func (g *gateway) killedDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir(g.config.Log.Dir, func(path string, entry fs.DirEntry, err error) error {
		to := filepath.Join(dir, strings.TrimPrefix(path, g.config.Log.Dir))
		switch {
		case errors.Is(err, fs.ErrNotExist): // files are replaced
			return nil
		case err != nil:
			return err
		case entry.IsDir():
			return os.MkdirAll(to, 0o700)
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, os.WriteFile(to, data, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The gateway is killed while members work. Of an ordered group nothing is lent that may be out, nor what comes behind it, until the
// leases of before have ended; they can be settled, and what nobody can have goes on at once. What was acknowledged does not come again.
func TestOrderOutlivesAKillOfTheGateway(t *testing.T) {
	t.Parallel()
	const lease = 5 * time.Second
	cfg := testConfig(t)
	g := startGateway(t, cfg)
	r := g.group(t, &linksgatev1.Group{
		Ordering: linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM, LeaseDuration: durationpb.New(lease),
		BackOff: &linksgatev1.RetryBackOff{Initial: durationpb.New(0)},
	})
	send := func(g *gateway, sim int, text string) {
		g.deliver(t, "/linksfield/acme/sms-received", signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED,
			fmt.Sprintf(`{"sim_id":"8986022019000000%04d","text_message":"%s"}`, sim, text)))
	}
	text := func(lease *linksgatev1.Lease) string { return lease.GetNotification().GetSmsReceived().GetText() }
	for n, text := range []string{"1 out", "1 behind", "2 out", "3 done", "3 out"} {
		send(g, []int{1, 1, 2, 3, 3}[n], text)
	}
	m, held := r.join(t, 3), make(map[string]*linksgatev1.Lease)
	for _, lease := range m.take(t, 3) {
		held[text(lease)] = lease
	}
	r.acknowledge(t, held["3 done"].GetLeaseToken())
	held["3 out"] = m.take(t, 1)[0]
	if text(held["3 out"]) != "3 out" || held["1 out"] == nil || held["2 out"] == nil {
		t.Fatalf("leased: %v", held)
	}
	cfg.Log.Dir = g.killedDir(t)
	g = startGateway(t, cfg)
	free := time.Now().Add(lease) // not before this time can what is not told of be lent
	r = r.on(g)
	send(g, 4, "4 new")
	send(g, 1, "1 new")
	m = r.join(t, 20)
	if next := m.take(t, 1)[0]; text(next) != "4 new" || !time.Now().Before(free) {
		t.Errorf("the first lease after the death is of %q", text(next))
	} else {
		r.acknowledge(t, next.GetLeaseToken())
	}
	if got := r.acknowledge(t, held["1 out"].GetLeaseToken(), held["3 out"].GetLeaseToken()); got[0] != leaseOK || got[1] != leaseOK {
		t.Errorf("acknowledging leases of before: %v", got)
	}
	if got := r.reject(t, &linksgatev1.LeaseRejection{LeaseToken: held["2 out"].GetLeaseToken()}); got[0] != leaseOK {
		t.Errorf("rejecting a lease of before: %v", got)
	}
	if again := m.take(t, 1)[0]; text(again) != "2 out" || again.GetAttempt() != 2 || !time.Now().Before(free) {
		t.Errorf("after a rejection %q is leased, attempt %d", text(again), again.GetAttempt())
	} else {
		r.acknowledge(t, again.GetLeaseToken())
	}
	var rest []string
	for !slices.Contains(rest, "1 new") {
		for _, lease := range m.leases(t) {
			if time.Now().Before(free) {
				t.Errorf("%q was leased while something of its SIM could be out", text(lease))
			}
			rest = append(rest, text(lease))
			r.acknowledge(t, lease.GetLeaseToken())
		}
	}
	r.idle(t)
	if slices.Contains(rest, "1 out") || slices.Contains(rest, "3 out") || slices.Contains(rest, "3 done") {
		t.Errorf("what was acknowledged came again: %q", rest)
	}
	if slices.Index(rest, "1 behind") < 0 || slices.Index(rest, "1 behind") > slices.Index(rest, "1 new") {
		t.Errorf("one SIM's came as %q", rest)
	}
}
