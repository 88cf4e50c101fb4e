package server_test

import (
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/config"
)

// closed takes frames until the member's stream ends with OK, and returns why it was closed.
func (m *member) closed(t *testing.T) linksgatev1.ClosingReason {
	t.Helper()
	reason := linksgatev1.ClosingReason_CLOSING_REASON_UNSPECIFIED
	for {
		frame, err := m.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return reason
		case err != nil:
			t.Fatalf("the stream ended with %v", err)
		case frame.GetClosing() != nil:
			reason = frame.GetClosing().GetReason()
		}
	}
}

// TestAnyGatewayAsksWhoCalls requires of a gateway that passes calls on to the one that coordinates a group that it asks who calls, and
// that everything works there that works at the other: leaving, pausing, the end of rights, and the audit log.
func TestAnyGatewayAsksWhoCalls(t *testing.T) {
	t.Parallel()
	cfg := externalConfig(t)
	callers := guard(&cfg)
	var inForce atomic.Pointer[config.Access]
	inForce.Store(cfg.Access)
	reload := make(chan struct{})
	a := startGateway(t, spooled(t, cfg))
	elsewhere := spooled(t, cfg)
	b := startGatewayIn(t, elsewhere, server.Env{Reload: reload, PollInterval: never, Source: func() (config.Config, error) {
		changed := elsewhere
		changed.Access = inForce.Load()
		return changed, nil
	}})
	group := a.as(t, callers.root).group(t, &linksgatev1.Group{Name: "shared", Filter: &linksgatev1.NotificationFilter{Accounts: []string{"acme"}}})
	group.join(t, 1).leave() // so that the first gateway coordinates it
	ops, billing := group.on(b.as(t, callers.ops)), group.on(b.as(t, callers.billing))
	_, err := billing.Fetch(t.Context(), &linksgatev1.FetchRequest{GroupName: group.name})
	checkDenied(t, "at the other gateway", err, access.Work)
	checkDenied(t, "to settle there", settle(t, billing), access.Work)

	join := func() (*member, string) {
		t.Helper()
		opened, err := ops.Consume(t.Context(), &linksgatev1.ConsumeRequest{GroupName: group.name, HeartbeatInterval: durationpb.New(1e9)})
		if err != nil {
			t.Fatal(err)
		}
		frame, err := opened.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return &member{opened, nil}, frame.GetJoined().GetMemberId()
	}
	m, id := join()
	if _, err := ops.Leave(t.Context(), &linksgatev1.LeaveRequest{GroupName: group.name, MemberId: id}); err != nil {
		t.Fatal(err)
	}
	if got := m.closed(t); got != linksgatev1.ClosingReason_CLOSING_REASON_LEFT {
		t.Errorf("after leaving: %v", got)
	}
	pause := func(paused bool) {
		t.Helper()
		if _, err := ops.UpdateGroup(t.Context(), &linksgatev1.UpdateGroupRequest{
			GroupName: group.name, Group: &linksgatev1.Group{Paused: paused}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"paused"}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	pause(true)
	ids := b.deliverSMS(t, 1, 1)
	response, err := ops.Fetch(t.Context(), &linksgatev1.FetchRequest{GroupName: group.name, Wait: durationpb.New(3e8)})
	if err != nil || len(response.GetLeases()) != 0 {
		t.Errorf("paused: %v, %v", response.GetLeases(), err)
	}
	pause(false)
	if got := leased(ops.fetch(t, 1)); !slices.Equal(got, ids) {
		t.Errorf("resumed: %v", got)
	}

	m, _ = join()
	fewer := *cfg.Access
	fewer.Callers = maps.Clone(fewer.Callers)
	delete(fewer.Callers, "ops")
	inForce.Store(&fewer)
	handOver(t, reload, struct{}{})
	if got := m.closed(t); got != linksgatev1.ClosingReason_CLOSING_REASON_ACCESS_CHANGED {
		t.Errorf("after the caller was taken out there: %v", got)
	}

	for name, g := range map[string]*gateway{"one": a, "the other": b} {
		page, err := linksgatev1.NewAuditServiceClient(g.as(t, callers.auditor).conn).ListAuditEntries(t.Context(), &linksgatev1.ListAuditEntriesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, entry := range page.GetEntries() {
			said = append(said, entry.GetCaller()+" "+entry.GetAction())
			if entry.GetCaller() != "operator" && !strings.HasPrefix(entry.GetSourceAddress(), "127.0.0.1:") {
				t.Errorf("%v", entry)
			}
		}
		if want := []string{"root CreateGroup", "ops UpdateGroup", "ops UpdateGroup", "operator ConfigurationChanged"}; !slices.Equal(said, want) {
			t.Errorf("recorded, says %s: %v; want %v", name, said, want)
		}
	}
}
