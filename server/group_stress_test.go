package server_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/simulator"
)

// Members do whatever members do: they handle notifications, reject, release and park them, let leases end, vanish, and come back
// with leases that are long over. In the end everything was handled once or is parked, and with BY_SIM no two notifications of one SIM
// were out at once, nor out of order.
func TestAnyMembersGetEverythingDone(t *testing.T) {
	t.Parallel()
	for _, ordering := range []linksgatev1.GroupOrdering{linksgatev1.GroupOrdering_GROUP_ORDERING_NONE, linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM} {
		t.Run(ordering.String(), func(t *testing.T) {
			t.Parallel()
			const count, sims, workers = 600, 23, 6
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			g := startGateway(t, testConfig(t))
			tr := &trial{
				t: t, group: g.group(t, &linksgatev1.Group{
					Ordering: ordering, LeaseDuration: durationpb.New(time.Second), MaxAttempts: 5,
					BackOff: &linksgatev1.RetryBackOff{Initial: durationpb.New(0), Maximum: durationpb.New(time.Second)},
				}),
				ordered: ordering == linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM,
				out:     make(map[string]*linksgatev1.Lease), newest: make(map[string]uint64), handled: make(map[string]bool),
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			var working sync.WaitGroup
			for n := range workers {
				chance := rand.New(rand.NewPCG(seed, uint64(n)))
				working.Go(func() { tr.work(ctx, chance) })
			}
			notifications := make(chan simulator.Notification, count)
			for n := range count {
				notifications <- signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED,
					fmt.Sprintf(`{"sim_id":"8986022019000000%04d","text_message":"%d"}`, n%sims, n))
			}
			close(notifications)
			g.deliverAtOnce(t, 8, "/linksfield/acme/sms-received", notifications)
			eventually(t, "everything is handled or parked", func() bool {
				status := tr.group.status(t)
				return status.GetOldestUnsettled() == nil && tr.done()+int(status.GetParked()) >= count
			})
			cancel()
			working.Wait()
			eventually(t, "the members are gone", func() bool { return len(tr.group.status(t).GetMembers()) == 0 })
			tr.check(count)
		})
	}
}

// trial is what the members of a group know together.
type trial struct {
	t       *testing.T
	group   *grouped
	ordered bool

	mu      sync.Mutex
	out     map[string]*linksgatev1.Lease // mu; by SIM: what some member is working on
	newest  map[string]uint64             // mu; by SIM: sequence of the newest notification that was leased
	handled map[string]bool               // mu; by id
	over    []*linksgatev1.Lease          // mu; leases that can not be good any more
}

func (tr *trial) done() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.handled)
}

// work is one client: it joins again and again.
func (tr *trial) work(ctx context.Context, chance *rand.Rand) {
	for ctx.Err() == nil {
		joined, leave := context.WithCancel(ctx)
		if chance.IntN(5) == 0 {
			response, err := tr.group.Fetch(joined, &linksgatev1.FetchRequest{
				GroupName: tr.group.name, MaxLeases: int32(1 + chance.IntN(8)), Wait: durationpb.New(0),
			})
			if err != nil && ctx.Err() == nil {
				tr.t.Error(err)
			}
			tr.handle(ctx, chance, response.GetLeases())
		} else {
			tr.consume(joined, chance)
		}
		leave()
	}
}

// consume is one membership. What it has in the end is given back.
func (tr *trial) consume(ctx context.Context, chance *rand.Rand) {
	stream, err := tr.group.Consume(ctx, &linksgatev1.ConsumeRequest{GroupName: tr.group.name, MaxInFlight: int32(1 + chance.IntN(20))})
	var had []*linksgatev1.Lease
	defer func() {
		for _, lease := range had {
			tr.end(lease)
		}
	}()
	for range 2 + chance.IntN(40) {
		var frame *linksgatev1.ConsumeResponse
		if err == nil {
			frame, err = stream.Recv()
		}
		if err != nil {
			if ctx.Err() == nil {
				tr.t.Error(err)
			}
			return
		}
		had = append(had, frame.GetLeases().GetLeases()...)
		if !tr.handle(ctx, chance, frame.GetLeases().GetLeases()) {
			return
		}
	}
}

// handle does something with leases. It reports whether the member goes on.
func (tr *trial) handle(ctx context.Context, chance *rand.Rand, leases []*linksgatev1.Lease) bool {
	var good []*linksgatev1.Lease
	for _, lease := range leases {
		if tr.begin(lease) {
			good = append(good, lease)
		}
	}
	for _, lease := range good {
		rejection := &linksgatev1.LeaseRejection{LeaseToken: lease.GetLeaseToken()}
		switch dice := chance.IntN(200); {
		case dice < 4: // let it end
			continue
		case dice < 10: // vanish, with the rest
			return false
		case dice < 18:
			rejection.Action = &linksgatev1.LeaseRejection_RetryAfter{RetryAfter: durationpb.New(time.Duration(chance.IntN(50)) * time.Millisecond)}
		case dice < 22:
			rejection.Action = &linksgatev1.LeaseRejection_Park{Park: true}
		case dice < 28:
			rejection.Action = &linksgatev1.LeaseRejection_Release{Release: true}
		case dice < 34: // with the back-off of the group
		case dice < 40:
			tr.tryWhatIsOver(ctx)
			fallthrough
		default:
			tr.acknowledge(ctx, lease)
			continue
		}
		tr.end(lease)
		response, err := tr.group.Reject(ctx, &linksgatev1.RejectRequest{GroupName: tr.group.name, Rejections: []*linksgatev1.LeaseRejection{rejection}})
		switch {
		case err == nil && response.GetResults()[0].GetOutcome() == leaseOK:
			tr.mu.Lock()
			tr.over = append(tr.over, lease)
			tr.mu.Unlock()
		case err != nil && ctx.Err() == nil:
			tr.t.Error(err)
		}
		if rejection.GetRelease() {
			return false
		}
	}
	if chance.IntN(20) == 0 {
		if _, err := tr.group.UpdateGroup(ctx, &linksgatev1.UpdateGroupRequest{GroupName: tr.group.name,
			Group:      &linksgatev1.Group{Name: tr.group.name, MaxAttempts: int32(4 + chance.IntN(3))},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"max_attempts"}},
		}); err != nil && ctx.Err() == nil && reasonOf(err) != "GROUP_CHANGED" {
			tr.t.Error(err)
		}
	}
	return true
}

// begin notes that a member has got a lease. It reports false if that is over already: members can be slow.
func (tr *trial) begin(lease *linksgatev1.Lease) bool {
	n := lease.GetNotification()
	sim := n.GetIccids()[0]
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if isOver(lease) {
		return false
	}
	if tr.handled[n.GetId()] {
		tr.t.Errorf("%d was leased again after it was acknowledged", n.GetSequence())
	}
	if !tr.ordered {
		return true
	}
	if other := tr.out[sim]; other != nil && !isOver(other) {
		tr.t.Errorf("%d and %d of one SIM are out at once", other.GetNotification().GetSequence(), n.GetSequence())
	}
	if uint64(n.GetSequence()) < tr.newest[sim] {
		tr.t.Errorf("%d was leased after %d of the same SIM", n.GetSequence(), tr.newest[sim])
	}
	tr.out[sim], tr.newest[sim] = lease, uint64(n.GetSequence())
	return true
}

// end notes that a member is about to end a lease.
func (tr *trial) end(lease *linksgatev1.Lease) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if sim := lease.GetNotification().GetIccids()[0]; tr.out[sim] == lease {
		delete(tr.out, sim)
	}
}

func isOver(lease *linksgatev1.Lease) bool { return !time.Now().Before(lease.GetExpiresAt().AsTime()) }

func (tr *trial) acknowledge(ctx context.Context, lease *linksgatev1.Lease) {
	tr.end(lease)
	over := isOver(lease)
	response, err := tr.group.Acknowledge(ctx, &linksgatev1.AcknowledgeRequest{GroupName: tr.group.name, LeaseTokens: []string{lease.GetLeaseToken()}})
	if err != nil {
		if ctx.Err() == nil {
			tr.t.Error(err)
		}
		return
	}
	n := lease.GetNotification()
	switch outcome := response.GetResults()[0].GetOutcome(); {
	case outcome == leaseOK && over:
		tr.t.Errorf("a lease of %d was good after its end", n.GetSequence())
	case outcome == leaseOK:
		tr.mu.Lock()
		if tr.handled[n.GetId()] {
			tr.t.Errorf("two leases of %d were good", n.GetSequence())
		}
		tr.handled[n.GetId()] = true
		tr.mu.Unlock()
	case outcome != leaseStale:
		tr.t.Errorf("acknowledging %d: %v", n.GetSequence(), response.GetResults()[0])
	}
}

// tryWhatIsOver acknowledges leases that were rejected, which must not be.
func (tr *trial) tryWhatIsOver(ctx context.Context) {
	tr.mu.Lock()
	over := tr.over
	tr.over = nil
	tr.mu.Unlock()
	if len(over) == 0 {
		return
	}
	response, err := tr.group.Acknowledge(ctx, &linksgatev1.AcknowledgeRequest{GroupName: tr.group.name, LeaseTokens: tokens(over)})
	if err != nil {
		if ctx.Err() == nil {
			tr.t.Error(err)
		}
		return
	}
	for i, result := range response.GetResults() {
		if result.GetOutcome() != leaseStale {
			tr.t.Errorf("a rejected lease of %d was good: %v", over[i].GetNotification().GetSequence(), result)
		}
	}
}

// check requires that each of count notifications was handled or is parked.
func (tr *trial) check(count int) {
	tr.t.Helper()
	status := tr.group.status(tr.t)
	if status.GetInFlight() != 0 || status.GetRetrying() != 0 {
		tr.t.Errorf("status: %v", status)
	}
	parked, err := tr.group.ListParked(tr.t.Context(), &linksgatev1.ListParkedRequest{GroupName: tr.group.name, PageSize: int32(count)})
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, one := range parked.GetParked() {
		if id := one.GetNotification().GetId(); tr.handled[id] {
			tr.t.Errorf("%d was acknowledged, and is parked", one.GetNotification().GetSequence())
		}
	}
	if handled, all := len(tr.handled), len(tr.handled)+len(parked.GetParked()); all != count {
		tr.t.Errorf("%d handled and %d parked of %d", handled, all-handled, count)
	}
}
