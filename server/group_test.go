package server_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/simulator"
)

func TestMembersShareTheWork(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{})
	const count, members = 3000, 3
	var mu sync.Mutex
	handled, shares := make(map[string]int), make([]int, members)
	var working sync.WaitGroup
	done := make(chan struct{})
	var idle sync.WaitGroup // members that got nothing yet: nobody acknowledges before each has a part
	idle.Add(members)
	var joined []*member
	for range members {
		joined = append(joined, r.join(t, 16))
	}
	for i, m := range joined {
		working.Go(func() {
			first := sync.OnceFunc(idle.Done)
			defer first()
			for {
				frame, err := m.Recv()
				if err != nil {
					return
				}
				leases := frame.GetLeases().GetLeases()
				if len(leases) == 0 {
					continue
				}
				first()
				idle.Wait()
				response, err := r.Acknowledge(t.Context(), &linksgatev1.AcknowledgeRequest{GroupName: r.name, LeaseTokens: tokens(leases)})
				if err != nil {
					t.Error(err)
					return
				}
				for n, outcome := range outcomes(response.GetResults()) {
					if outcome != leaseOK {
						t.Errorf("acknowledging: %v", response.GetResults()[n])
					}
				}
				mu.Lock()
				for _, id := range leased(leases) {
					handled[id]++
				}
				shares[i] += len(leases)
				if len(handled) == count {
					select {
					case <-done:
					default:
						close(done)
					}
				}
				mu.Unlock()
			}
		})
	}
	g.deliverMany(t, 0, count)
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("not everything was handled in time")
	}
	r.idle(t)
	status := r.status(t)
	if len(status.GetMembers()) != members || status.GetInFlight() != 0 || status.GetRetrying() != 0 || status.GetParked() != 0 {
		t.Errorf("status: %v", status)
	}
	for _, m := range joined {
		m.leave()
	}
	working.Wait()
	if len(handled) != count {
		t.Errorf("%d handled, want %d", len(handled), count)
	}
	for id, times := range handled {
		if times != 1 {
			t.Errorf("%s was handled %d times", id, times)
		}
	}
	for i, share := range shares {
		if share == 0 {
			t.Errorf("member %d handled nothing", i)
		}
	}
	eventually(t, "the members are gone", func() bool { return len(r.status(t).GetMembers()) == 0 })
}

func TestAMemberThatDisconnectsGivesItsLeasesBack(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{})
	want := g.deliverSMS(t, 0, 10)
	first := r.join(t, 10)
	taken := first.take(t, 10)
	if diff := cmp.Diff(want, leased(taken)); diff != "" {
		t.Errorf("not in the order of the log: %s", diff)
	}
	second := r.join(t, 10)
	if status := r.status(t); status.GetInFlight() != 10 || len(status.GetMembers()) != 2 {
		t.Errorf("status: %v", status)
	}
	first.leave()
	left := time.Now()
	again := second.take(t, 10)
	if took := time.Since(left); took > 3*time.Second {
		t.Errorf("the leases came after %v", took)
	}
	for _, lease := range again {
		if lease.GetAttempt() != 2 {
			t.Errorf("attempt %d, want 2", lease.GetAttempt())
		}
	}
	for i, outcome := range r.acknowledge(t, tokens(taken)...) {
		if outcome != leaseStale {
			t.Errorf("a lease that was given back and leased again: %d: %v", i, outcome)
		}
	}
	for i, outcome := range r.acknowledge(t, tokens(again)...) {
		if outcome != leaseOK {
			t.Errorf("%d: %v", i, outcome)
		}
	}
	for i, outcome := range r.acknowledge(t, tokens(again)...) {
		if outcome != leaseOK {
			t.Errorf("acknowledged twice: %d: %v", i, outcome)
		}
	}
	r.idle(t)
}

func TestALateMemberGetsItsShare(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{})
	g.deliverMany(t, 0, 200)
	first := r.join(t, 16)
	held := first.take(t, 16)
	late := r.join(t, 16)
	if got := late.take(t, 16); len(got) != 16 {
		t.Errorf("%d leases", len(got))
	}
	r.acknowledge(t, tokens(held)...)
	first.take(t, 16) // and the first one goes on
}

func TestALeaseThatEndsComesAgain(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{
		LeaseDuration: durationpb.New(time.Second), MaxAttempts: 2, BackOff: &linksgatev1.RetryBackOff{Initial: durationpb.New(0)},
	})
	g.deliverSMS(t, 0, 2)
	first := r.fetch(t, 2)
	ends := first[0].GetExpiresAt().AsTime()
	if in := time.Until(ends); in > time.Second || in < -patience {
		t.Errorf("the lease ends in %v", in)
	}
	// One is extended for as long as it is needed. It gets no more than a lease has.
	kept := first[1].GetLeaseToken()
	extend := func() {
		response, err := r.ExtendLeases(t.Context(), &linksgatev1.ExtendLeasesRequest{
			GroupName: r.name, LeaseTokens: []string{kept}, Duration: durationpb.New(time.Hour),
		})
		if err != nil || response.GetResults()[0].GetOutcome() != leaseOK {
			t.Fatalf("extend: %v %v", response, err)
		}
		if in := time.Until(response.GetResults()[0].GetExpiresAt().AsTime()); in > time.Second || in < -patience {
			t.Errorf("the lease was extended by %v", in)
		}
	}
	extend()
	again := make(chan *linksgatev1.FetchResponse, 1)
	go func() {
		response, err := r.Fetch(t.Context(), &linksgatev1.FetchRequest{GroupName: r.name, Wait: durationpb.New(patience)})
		if err != nil {
			t.Error(err)
		}
		again <- response
	}()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	var second []*linksgatev1.Lease
	for second == nil {
		select {
		case response := <-again:
			second = response.GetLeases()
			if len(second) != 1 {
				t.Fatalf("%d leases", len(second))
			}
		case <-ticker.C:
			extend()
		}
	}
	if time.Now().Before(ends) || second[0].GetAttempt() != 2 || second[0].GetNotification().GetId() != first[0].GetNotification().GetId() {
		t.Errorf("leased again: %v", second[0])
	}
	if got := r.acknowledge(t, first[0].GetLeaseToken(), kept); got[0] != leaseStale || got[1] != leaseOK {
		t.Errorf("the ended lease and the extended one: %v", got)
	}
	// The second attempt is the last one.
	eventually(t, "it is parked", func() bool { return r.status(t).GetParked() == 1 })
	parked, err := r.ListParked(t.Context(), &linksgatev1.ListParkedRequest{GroupName: r.name})
	if err != nil || len(parked.GetParked()) != 1 {
		t.Fatalf("%v %v", parked, err)
	}
	one := parked.GetParked()[0]
	if one.GetReason() != linksgatev1.ParkReason_PARK_REASON_LEASE_ENDED || one.GetAttempts() != 2 || one.GetParkedAt() == nil {
		t.Errorf("parked: %v", one)
	}
	if diff := cmp.Diff(g.get(t, first[0].GetNotification().GetId()), one.GetNotification(), protocmp.Transform()); diff != "" {
		t.Errorf("parked is not what is in the log: %s", diff)
	}
	if got := r.acknowledge(t, second[0].GetLeaseToken()); got[0] != leaseStale {
		t.Errorf("acknowledging what is parked: %v", got)
	}
	r.idle(t)
}

func TestRejectedIsRetriedOrParkedAndReplayed(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{})
	ids := g.deliverSMS(t, 0, 3)
	first := r.fetch(t, 3)
	got := r.reject(t,
		&linksgatev1.LeaseRejection{LeaseToken: first[0].GetLeaseToken(), Action: &linksgatev1.LeaseRejection_RetryAfter{RetryAfter: durationpb.New(0)}},
		&linksgatev1.LeaseRejection{LeaseToken: first[1].GetLeaseToken(), Action: &linksgatev1.LeaseRejection_Park{Park: true}, Reason: strings.Repeat("é", 2000)},
		&linksgatev1.LeaseRejection{LeaseToken: "nonsense"},
	)
	if diff := cmp.Diff([]linksgatev1.LeaseOutcome{leaseOK, leaseOK, leaseInvalid}, got); diff != "" {
		t.Fatal(diff)
	}
	again := r.fetch(t, 1)
	if len(again) != 1 || again[0].GetNotification().GetId() != ids[0] || again[0].GetAttempt() != 2 {
		t.Errorf("retried: %v", again)
	}
	// What is parked is so when Reject returns.
	parked, err := r.ListParked(t.Context(), &linksgatev1.ListParkedRequest{GroupName: r.name})
	if err != nil || len(parked.GetParked()) != 1 {
		t.Fatalf("%v %v", parked, err)
	}
	if one := parked.GetParked()[0]; one.GetReason() != linksgatev1.ParkReason_PARK_REASON_REQUESTED || one.GetDetail() != strings.Repeat("é", 500) ||
		one.GetNotification().GetId() != ids[1] {
		t.Errorf("parked: %v", one)
	}
	r.acknowledge(t, again[0].GetLeaseToken(), first[2].GetLeaseToken())
	r.idle(t)

	replay, err := r.ReplayParked(t.Context(), &linksgatev1.ReplayParkedRequest{GroupName: r.name, NotificationIds: []string{ids[1], ids[2]}})
	if err != nil || replay.GetReplayed() != 1 || !slices.Equal(replay.GetNotParked(), []string{ids[2]}) {
		t.Errorf("replay: %v %v", replay, err)
	}
	replayed := r.fetch(t, 1)
	if len(replayed) != 1 || replayed[0].GetAttempt() != 1 {
		t.Fatalf("replayed: %v", replayed)
	}
	if diff := cmp.Diff(g.get(t, ids[1]), replayed[0].GetNotification(), protocmp.Transform()); diff != "" {
		t.Errorf("replayed is not what is in the log: %s", diff)
	}
	// It can be parked and replayed again, and purged.
	r.reject(t, &linksgatev1.LeaseRejection{LeaseToken: replayed[0].GetLeaseToken(), Action: &linksgatev1.LeaseRejection_Park{Park: true}})
	if replay, err = r.ReplayParked(t.Context(), &linksgatev1.ReplayParkedRequest{GroupName: r.name, All: true}); err != nil || replay.GetReplayed() != 1 {
		t.Fatalf("replay: %v %v", replay, err)
	}
	r.reject(t, &linksgatev1.LeaseRejection{LeaseToken: r.fetch(t, 1)[0].GetLeaseToken(), Action: &linksgatev1.LeaseRejection_Park{Park: true}})
	if purge, err := r.PurgeParked(t.Context(), &linksgatev1.PurgeParkedRequest{GroupName: r.name, All: true}); err != nil || purge.GetPurged() != 1 {
		t.Errorf("purge: %v %v", purge, err)
	}
	if status := r.status(t); status.GetParked() != 0 || status.GetInFlight() != 0 {
		t.Errorf("status: %v", status)
	}
}

// One notification kills every member that gets it. It is parked in the end, and nothing else is.
func TestAPoisonNotificationIsParkedAlone(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{MaxAttempts: 4, BackOff: &linksgatev1.RetryBackOff{Initial: durationpb.New(0)}})
	ids := g.deliverSMS(t, 0, 40)
	poison := ids[0]
	handled := make(map[string]bool)
	deaths := 0
	for len(handled) < len(ids)-1 || r.status(t).GetParked() == 0 {
		m := r.join(t, 8)
		for alive := true; alive; {
			frame, err := m.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if len(handled) == len(ids)-1 && r.status(t).GetParked() == 1 {
				break
			}
			for _, lease := range frame.GetLeases().GetLeases() {
				id := lease.GetNotification().GetId()
				if id == poison {
					if deaths++; deaths > 4 {
						t.Fatal("delivered more often than max_attempts")
					}
					alive = false
					break // with all that it has in flight
				}
				if got := r.acknowledge(t, lease.GetLeaseToken()); got[0] != leaseOK {
					t.Fatalf("%v", got)
				}
				handled[id] = true
			}
		}
		m.leave()
	}
	parked, err := r.ListParked(t.Context(), &linksgatev1.ListParkedRequest{GroupName: r.name})
	if err != nil || len(parked.GetParked()) != 1 || parked.GetParked()[0].GetNotification().GetId() != poison ||
		parked.GetParked()[0].GetReason() != linksgatev1.ParkReason_PARK_REASON_DISCONNECTED || deaths != 4 {
		t.Errorf("parked after %d deaths: %v %v", deaths, parked, err)
	}
	r.idle(t)
}

// With BY_SIM one SIM's notifications are out one at a time, in order; a SIM that waits holds up no other.
func TestOrderBySIM(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{Ordering: linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM})
	const sims, each = 5, 30
	for n := range sims * each {
		body := fmt.Sprintf(`{"sim_id":"8986022019000000%04d","text_message":"%d"}`, n%sims, n)
		g.deliver(t, "/linksfield/acme/sms-received", signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body))
	}
	var mu sync.Mutex
	out, last, total := make(map[string]bool), make(map[string]uint64), 0
	done := make(chan struct{})
	var working sync.WaitGroup
	for range 2 {
		m := r.join(t, 8)
		working.Go(func() {
			for {
				frame, err := m.Recv()
				if err != nil {
					return
				}
				for _, lease := range frame.GetLeases().GetLeases() {
					n := lease.GetNotification()
					sim := n.GetIccids()[0]
					mu.Lock()
					if out[sim] {
						t.Errorf("two of %s are out", sim)
					}
					if uint64(n.GetSequence()) <= last[sim] {
						t.Errorf("%s: %d after %d", sim, n.GetSequence(), last[sim])
					}
					out[sim] = true
					mu.Unlock()
					if lease.GetAttempt() == 1 && n.GetSequence()%7 == 0 {
						mu.Lock()
						out[sim] = false
						mu.Unlock()
						r.reject(t, &linksgatev1.LeaseRejection{LeaseToken: lease.GetLeaseToken(),
							Action: &linksgatev1.LeaseRejection_RetryAfter{RetryAfter: durationpb.New(20 * time.Millisecond)}})
						continue
					}
					mu.Lock()
					out[sim], last[sim] = false, uint64(n.GetSequence())
					if total++; total == sims*each {
						close(done)
					}
					mu.Unlock()
					r.acknowledge(t, lease.GetLeaseToken())
				}
			}
		})
		defer m.leave()
	}
	select {
	case <-done:
	case <-time.After(patience):
		t.Errorf("%d of %d handled in time", total, sims*each)
	}
	r.idle(t)
}

func TestFetchWaits(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{Filter: &linksgatev1.NotificationFilter{Accounts: []string{"acme"}}})
	started := time.Now()
	empty, err := r.Fetch(t.Context(), &linksgatev1.FetchRequest{GroupName: r.name, Wait: durationpb.New(time.Second)})
	if took := time.Since(started); err != nil || len(empty.GetLeases()) != 0 || took < time.Second {
		t.Errorf("%v %v after %v", empty, err, took)
	}
	arrived := make(chan []*linksgatev1.Lease, 1)
	go func() {
		response, err := r.Fetch(t.Context(), &linksgatev1.FetchRequest{GroupName: r.name, Wait: durationpb.New(patience)})
		if err != nil {
			t.Error(err)
		}
		arrived <- response.GetLeases()
	}()
	eventually(t, "the fetch waits", func() bool { return len(r.status(t).GetMembers()) == 1 })
	other := g.request(t, http.MethodPost, "/linksfield/other/sms-received", otherSMS(t).Header, bytes.NewReader(otherSMS(t).Body))
	if other.status != http.StatusOK {
		t.Fatal(other)
	}
	ids := g.deliverSMS(t, 0, 1)
	leases := <-arrived
	if diff := cmp.Diff(ids, leased(leases)); diff != "" {
		t.Error(diff)
	}
	r.acknowledge(t, tokens(leases)...)
	r.idle(t)
}

// otherSMS is an SMS of the account other.
func otherSMS(t *testing.T) simulator.Notification {
	t.Helper()
	sender := linksfield
	sender.MD5.Value = otherSecret
	made, err := sender.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, 1)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// A member that reads nothing costs nobody a notification while there is another one.
func TestAMemberThatLetsLeasesEndParksNothing(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{
		LeaseDuration: durationpb.New(time.Second), MaxAttempts: 2, BackOff: &linksgatev1.RetryBackOff{Initial: durationpb.New(0)},
	})
	ids := g.deliverSMS(t, 0, 20)
	dead := r.join(t, 20)
	dead.take(t, 10) // and nothing more
	handled := make(map[string]bool)
	for m := r.join(t, 5); len(handled) < len(ids); {
		for _, lease := range m.leases(t) {
			r.acknowledge(t, lease.GetLeaseToken())
			handled[lease.GetNotification().GetId()] = true
		}
	}
	r.idle(t)
	if status := r.status(t); status.GetParked() != 0 {
		t.Errorf("status: %v", status)
	}
}
