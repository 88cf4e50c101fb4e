package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// groupOf reads the group that a command printed with --json.
func groupOf(t *testing.T, args ...string) *linksgatev1.Group {
	t.Helper()
	g := new(linksgatev1.Group)
	if err := protojson.Unmarshal([]byte(runs(t, exitOK, append([]string{"group"}, append(args, "--json")...)...)), g); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGroupFromCreationToDeletion(t *testing.T) {
	s := newSite(t)
	s.start(t, rightSecret)
	for n := range 3 {
		s.send(t, "acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body(n), http.StatusOK)
	}
	created := groupOf(t, "create", "sms", "--kind", "sms-received,cube", "--account", "acme", "--iccid", "8944", "--partner-code", "P1",
		"--ordering", "by-sim", "--lease", "90s", "--max-attempts", "3", "--back-off", "2s", "--back-off-max", "1h", "--from-start")
	if created.GetName() != "sms" || created.GetOrdering() != linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM || created.GetMaxAttempts() != 3 ||
		created.GetLeaseDuration().AsDuration() != 90*time.Second || created.GetBackOff().GetInitial().AsDuration() != 2*time.Second ||
		created.GetBackOff().GetMaximum().AsDuration() != time.Hour {
		t.Errorf("created %v", created)
	}
	if got, want := filterText(created.GetFilter()), "account=acme kind=sms-received,cube iccid=8944 partner-code=P1"; got != want {
		t.Errorf("filter %s, want %s", got, want)
	}
	runs(t, exitFailure, "group", "create", "sms")

	// Only what is given changes.
	updated := groupOf(t, "update", "sms", "--back-off-max", "5m", "--kind", "sms-received")
	if got := filterText(updated.GetFilter()); got != "kind=sms-received" {
		t.Errorf("filter %s", got)
	}
	if b := updated.GetBackOff(); b.GetInitial().AsDuration() != 2*time.Second || b.GetMaximum().AsDuration() != 5*time.Minute || updated.GetMaxAttempts() != 3 {
		t.Errorf("updated %v", updated)
	}
	if updated = groupOf(t, "update", "sms", "--no-filter"); filterText(updated.GetFilter()) != "all notifications" {
		t.Errorf("updated %v", updated)
	}

	// There and back again.
	place := groupOf(t, "show", "sms").GetStatus().GetOldestUnsettled()
	if place == nil {
		t.Fatal("a group that starts at the beginning has nothing before it")
	}
	code, stderr := execute(t, new(strings.Builder), "group", "seek", "sms", "--latest")
	if code != exitOK || !strings.Contains(stderr, "linksgate group seek sms --after "+place.GetToken()+" goes back") {
		t.Errorf("seek: exit %d, %s", code, stderr)
	}
	if left := groupOf(t, "show", "sms").GetStatus().GetOldestUnsettled(); left != nil {
		t.Errorf("at the head: %v", left)
	}
	groupOf(t, "seek", "sms", "--after", place.GetToken())
	if back := groupOf(t, "show", "sms").GetStatus().GetOldestUnsettled(); back.GetSequence() != place.GetSequence() {
		t.Errorf("back at %v, want %v", back, place)
	}

	runs(t, exitOK, "group", "create", "all")
	table := runs(t, exitOK, "group", "list")
	if lines := strings.Split(table, "\n"); len(lines) != 4 || !strings.HasPrefix(lines[0], "GROUP  ORDERING  LAG") ||
		!strings.HasPrefix(lines[1], "all    none      none ") || !strings.HasPrefix(lines[2], "sms    by-sim    3 record batches, ") {
		t.Errorf("list:\n%s", table)
	}
	if got := runs(t, exitOK, "group", "delete", "all", "--dry-run"); got != "group all with 0 parked and 0 members would be deleted\n" {
		t.Errorf("dry run: %s", got)
	}
	runs(t, exitUsage, "group", "delete", "all")
	runs(t, exitOK, "group", "delete", "all", "--yes")
	runs(t, exitFailure, "group", "show", "all")
	if got := runs(t, exitOK, "group", "list", "--json"); strings.Count(got, "\n") != 1 {
		t.Errorf("list: %s", got)
	}
}

func TestGroupText(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	at := func(ago time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-ago)) }
	g := &linksgatev1.Group{
		Name: "sms", Filter: &linksgatev1.NotificationFilter{Kinds: []linksgatev1.NotificationKind{linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE}},
		Ordering: linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM, LeaseDuration: durationpb.New(time.Hour), MaxAttempts: 10,
		BackOff: &linksgatev1.RetryBackOff{Initial: durationpb.New(0), Maximum: durationpb.New(90 * time.Minute)}, CreatedAt: at(time.Hour),
		Status: &linksgatev1.GroupStatus{
			Lag:             &linksgatev1.Lag{RecordBatches: 2, Time: durationpb.New(61500 * time.Millisecond)},
			OldestUnsettled: &linksgatev1.LogPosition{Token: "t7", Sequence: 7, WrittenAt: at(time.Minute)},
			InFlight:        3, Retrying: 1, Parked: 4, MissedRecordBatches: 1, Held: 2, Blocked: true,
			Members: []*linksgatev1.GroupMember{{ClientName: "a b\x1b", JoinedAt: at(3 * time.Minute), InFlight: 3, MaxInFlight: 6}, {JoinedAt: at(0)}},
		},
	}
	const want = `group         sms
filter        kind=cube
ordering      by-sim
lease         1h
max attempts  10
back-off      0s to 1h30m
created       2026-03-10T11:00:00.000Z
lag           2 record batches, 1m1.5s
oldest        sequence 7 of 2026-03-10T11:59:00.000Z (--after t7)
in flight     3
retrying      1
held          2, which may still be out since the gateway ended without stopping
parked        4
missed        1 record batch, expired or corrupt before the group got them
blocked       all that is in flight is leased, or waits for another attempt or its SIM: settle some of it
members       2
  "a b\x1b"  3 of 6 in flight, joined 3m ago
  -  0 of 0 in flight, joined 0s ago
`
	if got := groupText(g, now); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}
