package server_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/simulator"
)

// grouped is a group on a gateway.
type grouped struct {
	linksgatev1.GroupServiceClient
	linksgatev1.WorkerServiceClient
	name string
}

// group creates a group that starts with the oldest notification.
func (g *gateway) group(t *testing.T, settings *linksgatev1.Group) *grouped {
	t.Helper()
	if settings.GetName() == "" {
		settings.Name = "billing"
	}
	client := linksgatev1.NewGroupServiceClient(g.conn)
	if _, err := client.CreateGroup(t.Context(), &linksgatev1.CreateGroupRequest{
		Group: settings, Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}},
	}); err != nil {
		t.Fatal(err)
	}
	return &grouped{client, linksgatev1.NewWorkerServiceClient(g.conn), settings.GetName()}
}

// on returns the same group on another gateway, or the same one after a restart.
func (r *grouped) on(g *gateway) *grouped {
	return &grouped{linksgatev1.NewGroupServiceClient(g.conn), linksgatev1.NewWorkerServiceClient(g.conn), r.name}
}

func (r *grouped) status(t *testing.T) *linksgatev1.GroupStatus {
	t.Helper()
	response, err := r.GetGroup(t.Context(), &linksgatev1.GetGroupRequest{GroupName: r.name})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetGroup().GetStatus()
}

// idle waits until everything is settled.
func (r *grouped) idle(t *testing.T) {
	t.Helper()
	eventually(t, "everything is settled", func() bool { return r.status(t).GetOldestUnsettled() == nil })
}

// fetch returns the next count leases.
func (r *grouped) fetch(t *testing.T, count int) []*linksgatev1.Lease {
	t.Helper()
	var all []*linksgatev1.Lease
	for len(all) < count {
		response, err := r.Fetch(t.Context(), &linksgatev1.FetchRequest{
			GroupName: r.name, MaxLeases: int32(count - len(all)), Wait: durationpb.New(patience),
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(response.GetLeases()) == 0 {
			t.Fatalf("%d were leased, want %d", len(all), count)
		}
		all = append(all, response.GetLeases()...)
	}
	return all
}

// acknowledge returns the outcomes.
func (r *grouped) acknowledge(t *testing.T, tokens ...string) []linksgatev1.LeaseOutcome {
	t.Helper()
	response, err := r.Acknowledge(t.Context(), &linksgatev1.AcknowledgeRequest{GroupName: r.name, LeaseTokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	return outcomes(response.GetResults())
}

func (r *grouped) reject(t *testing.T, rejections ...*linksgatev1.LeaseRejection) []linksgatev1.LeaseOutcome {
	t.Helper()
	response, err := r.Reject(t.Context(), &linksgatev1.RejectRequest{GroupName: r.name, Rejections: rejections})
	if err != nil {
		t.Fatal(err)
	}
	return outcomes(response.GetResults())
}

func outcomes(results []*linksgatev1.LeaseResult) []linksgatev1.LeaseOutcome {
	var all []linksgatev1.LeaseOutcome
	for _, result := range results {
		all = append(all, result.GetOutcome())
	}
	return all
}

const (
	leaseOK      = linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK
	leaseStale   = linksgatev1.LeaseOutcome_LEASE_OUTCOME_STALE
	leaseInvalid = linksgatev1.LeaseOutcome_LEASE_OUTCOME_INVALID
)

// reasonOf returns the stable reason of an error; empty if it has none.
func reasonOf(err error) string { return detail[*errdetails.ErrorInfo](err).GetReason() }

// member is one open Consume.
type member struct {
	linksgatev1.WorkerService_ConsumeClient
	leave context.CancelFunc
}

// join opens a Consume and takes its first frame.
func (r *grouped) join(t *testing.T, most int32) *member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	opened, err := r.Consume(ctx, &linksgatev1.ConsumeRequest{
		GroupName: r.name, MaxInFlight: most, ClientName: "a member", HeartbeatInterval: durationpb.New(time.Second),
	})
	if err != nil {
		t.Fatal(err)
	}
	frame, err := opened.Recv()
	if err != nil || frame.GetJoined().GetGroup().GetName() != r.name {
		t.Fatalf("the first frame is %v (%v); want Joined", frame, err)
	}
	return &member{opened, cancel}
}

// leases returns the next leases, passing over heartbeats.
func (m *member) leases(t *testing.T) []*linksgatev1.Lease {
	t.Helper()
	for {
		frame, err := m.Recv()
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		if leases := frame.GetLeases().GetLeases(); len(leases) > 0 {
			return leases
		}
	}
}

// take returns the next count leases.
func (m *member) take(t *testing.T, count int) []*linksgatev1.Lease {
	t.Helper()
	var all []*linksgatev1.Lease
	for len(all) < count {
		all = append(all, m.leases(t)...)
	}
	return all
}

func tokens(leases []*linksgatev1.Lease) []string {
	var all []string
	for _, lease := range leases {
		all = append(all, lease.GetLeaseToken())
	}
	return all
}

func leased(leases []*linksgatev1.Lease) []string {
	var all []string
	for _, lease := range leases {
		all = append(all, lease.GetNotification().GetId())
	}
	return all
}

// deliverMany sends count MO SMS over several connections.
func (g *gateway) deliverMany(t *testing.T, first, count uint64) {
	t.Helper()
	notifications := make(chan simulator.Notification)
	go func() {
		defer close(notifications)
		for n := first; n < first+count; n++ {
			made, err := linksfield.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, n)
			if err != nil {
				t.Error(err)
				return
			}
			notifications <- made
		}
	}()
	g.deliverAtOnce(t, 16, "/linksfield/acme/sms-received", notifications)
}
