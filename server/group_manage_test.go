package server_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

func TestSeekMovesTheGroup(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{})
	ids := g.deliverSMS(t, 0, 6)
	m := r.join(t, 6)
	first := m.take(t, 6)
	r.acknowledge(t, tokens(first[:3])...)
	if _, err := r.SeekGroup(t.Context(), &linksgatev1.SeekGroupRequest{
		GroupName: r.name, To: &linksgatev1.Start{Position: &linksgatev1.Start_After{After: first[1].GetNotification().GetToken()}},
	}); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := m.Recv()
		if err != nil {
			if status.Code(err) != codes.Unavailable || reasonOf(err) != "GROUP_MOVED" {
				t.Errorf("the member's stream ended with %v", err)
			}
			break
		}
		if frame.GetClosing() != nil && frame.GetClosing().GetReason() != linksgatev1.ClosingReason_CLOSING_REASON_GROUP_MOVED {
			t.Errorf("closing: %v", frame)
		}
	}
	again := r.fetch(t, 4)
	if diff := cmp.Diff(ids[2:], leased(again)); diff != "" {
		t.Errorf("after seeking: %s", diff)
	}
	for i, outcome := range r.acknowledge(t, tokens(first)...) {
		if outcome != leaseStale {
			t.Errorf("lease %d from before: %v", i, outcome)
		}
	}
	if _, err := r.SeekGroup(t.Context(), &linksgatev1.SeekGroupRequest{GroupName: r.name, To: &linksgatev1.Start{Position: &linksgatev1.Start_Latest{Latest: true}}}); err != nil {
		t.Fatal(err)
	}
	fresh := g.deliverSMS(t, 6, 1)
	if diff := cmp.Diff(fresh, leased(r.fetch(t, 1))); diff != "" {
		t.Errorf("after seeking to the head: %s", diff)
	}
}

func TestGroupsAreManaged(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{})
	_ = g.group(t, &linksgatev1.Group{Name: "audit"})
	listed, err := r.ListGroups(t.Context(), &linksgatev1.ListGroupsRequest{PageSize: 1})
	if err != nil || len(listed.GetGroups()) != 1 || listed.GetGroups()[0].GetName() != "audit" {
		t.Fatalf("%v %v", listed, err)
	}
	listed, err = r.ListGroups(t.Context(), &linksgatev1.ListGroupsRequest{PageToken: listed.GetNextPageToken()})
	if err != nil || len(listed.GetGroups()) != 1 || listed.GetGroups()[0].GetName() != "billing" || listed.GetNextPageToken() != "" {
		t.Fatalf("%v %v", listed, err)
	}
	updated, err := r.UpdateGroup(t.Context(), &linksgatev1.UpdateGroupRequest{GroupName: "billing", Group: &linksgatev1.Group{
		Name: "billing", MaxAttempts: 3, LeaseDuration: durationpb.New(time.Minute),
	}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"max_attempts"}}})
	if err != nil || updated.GetGroup().GetMaxAttempts() != 3 || updated.GetGroup().GetLeaseDuration().AsDuration() != 30*time.Second {
		t.Errorf("%v %v", updated, err)
	}
	if _, err := r.DeleteGroup(t.Context(), &linksgatev1.DeleteGroupRequest{GroupName: "billing"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.GetGroup(t.Context(), &linksgatev1.GetGroupRequest{GroupName: "billing"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
}

func TestDeletingAGroupEndsItsMembers(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{})
	m := r.join(t, 1)
	if _, err := r.DeleteGroup(t.Context(), &linksgatev1.DeleteGroupRequest{GroupName: r.name}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := m.Recv(); err != nil {
			if status.Code(err) != codes.NotFound || errors.Is(err, io.EOF) {
				t.Errorf("the stream ended with %v", err)
			}
			return
		}
	}
}

func TestGroupRequestsAreChecked(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	r := g.group(t, &linksgatev1.Group{})
	create := func(group *linksgatev1.Group) func() error {
		return func() error {
			_, err := r.CreateGroup(t.Context(), &linksgatev1.CreateGroupRequest{Group: group})
			return err
		}
	}
	for name, test := range map[string]struct {
		call func() error
		code codes.Code
	}{
		"no group":  {create(nil), codes.InvalidArgument},
		"name":      {create(&linksgatev1.Group{Name: "A.*>"}), codes.InvalidArgument},
		"long name": {create(&linksgatev1.Group{Name: strings.Repeat("a", 64)}), codes.InvalidArgument},
		"exists":    {create(&linksgatev1.Group{Name: "billing"}), codes.AlreadyExists},
		"lease":     {create(&linksgatev1.Group{Name: "x", LeaseDuration: durationpb.New(time.Millisecond)}), codes.InvalidArgument},
		"attempts":  {create(&linksgatev1.Group{Name: "x", MaxAttempts: 101}), codes.InvalidArgument},
		"ordering":  {create(&linksgatev1.Group{Name: "x", Ordering: 9}), codes.InvalidArgument},
		"back-off":  {create(&linksgatev1.Group{Name: "x", BackOff: &linksgatev1.RetryBackOff{Initial: durationpb.New(time.Minute), Maximum: durationpb.New(time.Second)}}), codes.InvalidArgument},
		"filter":    {create(&linksgatev1.Group{Name: "x", Filter: &linksgatev1.NotificationFilter{Iccids: []string{""}}}), codes.InvalidArgument},
		"change of ordering": {func() error {
			_, err := r.UpdateGroup(t.Context(), &linksgatev1.UpdateGroupRequest{GroupName: "billing", Group: &linksgatev1.Group{Name: "billing", Ordering: linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM}})
			return err
		}, codes.InvalidArgument},
		"unknown mask": {func() error {
			_, err := r.UpdateGroup(t.Context(), &linksgatev1.UpdateGroupRequest{GroupName: "billing", Group: &linksgatev1.Group{Name: "billing"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"created_at"}}})
			return err
		}, codes.InvalidArgument},
		"nothing to change": {func() error {
			_, err := r.UpdateGroup(t.Context(), &linksgatev1.UpdateGroupRequest{GroupName: "billing", Group: &linksgatev1.Group{Name: "billing"}})
			return err
		}, codes.InvalidArgument},
		"seek to nowhere": {func() error {
			_, err := r.SeekGroup(t.Context(), &linksgatev1.SeekGroupRequest{GroupName: "billing"})
			return err
		}, codes.InvalidArgument},
		"fetch of nobody": {func() error {
			_, err := r.Fetch(t.Context(), &linksgatev1.FetchRequest{GroupName: "nobody"})
			return err
		}, codes.NotFound},
		"fetch for too long": {func() error {
			_, err := r.Fetch(t.Context(), &linksgatev1.FetchRequest{GroupName: "billing", Wait: durationpb.New(time.Hour)})
			return err
		}, codes.InvalidArgument},
		"acknowledge nothing": {func() error {
			_, err := r.Acknowledge(t.Context(), &linksgatev1.AcknowledgeRequest{GroupName: "billing"})
			return err
		}, codes.InvalidArgument},
		"acknowledge for nobody": {func() error {
			_, err := r.Acknowledge(t.Context(), &linksgatev1.AcknowledgeRequest{GroupName: "nobody", LeaseTokens: []string{"x"}})
			return err
		}, codes.NotFound},
		"parked of nobody": {func() error {
			_, err := r.ListParked(t.Context(), &linksgatev1.ListParkedRequest{GroupName: "nobody"})
			return err
		}, codes.NotFound},
		"replay of nothing": {func() error {
			_, err := r.ReplayParked(t.Context(), &linksgatev1.ReplayParkedRequest{GroupName: "billing"})
			return err
		}, codes.InvalidArgument},
		"replay of nonsense": {func() error {
			_, err := r.ReplayParked(t.Context(), &linksgatev1.ReplayParkedRequest{GroupName: "billing", NotificationIds: []string{"x"}})
			return err
		}, codes.InvalidArgument},
		"page of parked": {func() error {
			_, err := r.ListParked(t.Context(), &linksgatev1.ListParkedRequest{GroupName: "billing", PageToken: "x"})
			return err
		}, codes.InvalidArgument},
		"member of nobody": {func() error {
			stream, err := r.Consume(t.Context(), &linksgatev1.ConsumeRequest{GroupName: "nobody"})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}, codes.NotFound},
		"too much in flight": {func() error {
			stream, err := r.Consume(t.Context(), &linksgatev1.ConsumeRequest{GroupName: "billing", MaxInFlight: 1025})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.call(); status.Code(err) != test.code || reasonOf(err) == "" {
				t.Errorf("%v, want %v", err, test.code)
			}
		})
	}
}
