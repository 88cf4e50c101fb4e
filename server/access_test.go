package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

// otherSender signs for the account other.
var otherSender = simulator.Sender{MD5: signature.Secret{Value: otherSecret}}

// deliverOther sends an SMS to the account other, and returns its id.
func (g *gateway) deliverOther(t *testing.T, n uint64) string {
	t.Helper()
	made, err := otherSender.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, n)
	if err != nil {
		t.Fatal(err)
	}
	return g.deliver(t, "/linksfield/other/sms-received", made)
}

// checkDenied requires PERMISSION_DENIED that names the right that is missing, and nothing that is private.
func checkDenied(t *testing.T, what string, err error, right string, private ...string) {
	t.Helper()
	if status.Code(err) != codes.PermissionDenied || reasonOf(err) != "RIGHT_MISSING" {
		t.Errorf("%s: %v; want PERMISSION_DENIED", what, err)
		return
	}
	if got := detail[*errdetails.ErrorInfo](err).GetMetadata()["right"]; got != right {
		t.Errorf("%s: the right %q is said to be missing; want %q", what, got, right)
	}
	for _, text := range private {
		if strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v tells %q", what, err, text)
		}
	}
}

// TestWhatMayNotBeReadIsNotThere requires of every way to read that a team gets what it was granted and nothing else, whatever it asks.
func TestWhatMayNotBeReadIsNotThere(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	g := startGateway(t, cfg)
	mine := g.deliverSMS(t, 1, 2)
	others := g.deliverOther(t, 3)
	cube := g.deliver(t, cubePath, signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, `{"sim_id":"1"}`)) // of acme, and not an SMS
	root, billing := g.as(t, callers.root), g.as(t, callers.billing)
	earliest := &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}

	idsOf := func(found []*linksgatev1.Notification) (ids []string) {
		for _, n := range found {
			ids = append(ids, n.GetId())
		}
		return ids
	}
	all := append(slices.Clone(mine), others, cube)
	if got := idsOf(root.list(t, new(linksgatev1.ListNotificationsRequest))); !slices.Equal(got, all) {
		t.Errorf("root lists %v; want %v", got, all)
	}
	for name, request := range map[string]*linksgatev1.ListNotificationsRequest{
		"no filter": {}, "its account": {Filter: &linksgatev1.NotificationFilter{Accounts: []string{"acme"}}},
		"the SIM of others":            {Filter: &linksgatev1.NotificationFilter{Iccids: nil}},
		"a page token made by another": {PageToken: root.info(t).GetFirst().GetToken()},
	} {
		if got := idsOf(billing.list(t, request)); !slices.Equal(got, mine) {
			t.Errorf("%s: billing lists %v; want %v", name, got, mine)
		}
	}
	// With a resume token that was made for somebody else too.
	s, _ := root.subscribe(t, &linksgatev1.SubscribeRequest{Start: earliest})
	s.notifications(t, 1)
	for _, start := range []*linksgatev1.Start{earliest, {Position: &linksgatev1.Start_After{After: s.last}}} {
		own, _ := billing.subscribe(t, &linksgatev1.SubscribeRequest{Start: start, Until: &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true}})
		frames, err := own.rest(t)
		if err != nil {
			t.Error(err)
		}
		for _, frame := range frames {
			for _, n := range frame.GetBatch().GetNotifications() {
				if !slices.Contains(mine, n.GetId()) {
					t.Errorf("billing is sent %s", n.GetId())
				}
			}
		}
	}
	live, _ := billing.subscribe(t, new(linksgatev1.SubscribeRequest))
	g.deliverOther(t, 4)
	if got, want := live.notifications(t, 0), 0; len(got) != want {
		t.Error(got)
	}
	next := g.deliverSMS(t, 5, 1)
	if got := live.notifications(t, 1); got[0].GetId() != next[0] {
		t.Errorf("live, billing is sent %v", got)
	}

	for name, filter := range map[string]*linksgatev1.NotificationFilter{
		"another account": {Accounts: []string{"acme", "other"}},
		"no such account": {Accounts: []string{"nobody"}},
		"another kind":    {Kinds: []linksgatev1.NotificationKind{linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE}},
	} {
		checkDenied(t, name, billing.listError(t, &linksgatev1.ListNotificationsRequest{Filter: filter}), access.Read)
		checkDenied(t, name, billing.subscribeError(t, &linksgatev1.SubscribeRequest{Filter: filter}), access.Read)
	}
	for _, id := range []string{others, cube} {
		checkDenied(t, id, billing.getError(t, id), access.Read, "other", "CUBE", "Cube")
	}
	checkDenied(t, "auditor", g.as(t, callers.auditor).listError(t, new(linksgatev1.ListNotificationsRequest)), access.Read)

	// The same over REST, in both forms of a stream.
	header := bearerOf(callers.billing.token)
	if a := g.rest(t, http.MethodGet, "/v1/notifications", header, ""); strings.Contains(a.body, others) || !strings.Contains(a.body, mine[0]) {
		t.Errorf("REST lists %s", a.body)
	}
	for path, want := range map[string]int{
		"/v1/notifications/" + others: http.StatusForbidden, "/v1/notifications/" + mine[0]: http.StatusOK,
		"/v1/notifications?filter.accounts=other":           http.StatusForbidden,
		"/v1/notifications:subscribe?filter.accounts=other": http.StatusForbidden,
		"/v1/quarantine":         http.StatusForbidden,
		"/v1/quarantine/entries": http.StatusForbidden,
		"/v1/audit":              http.StatusForbidden,
		"/v1/groups/any/parked":  http.StatusForbidden,
	} {
		if a := g.rest(t, http.MethodGet, path, header, ""); a.status != want {
			t.Errorf("REST %s: %d %s; want %d", path, a.status, a.body, want)
		}
	}
	for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
		header := header.Clone()
		header.Set("Accept", accept)
		header.Set("Last-Event-ID", s.last) // of root's
		a := g.rest(t, http.MethodGet, "/v1/notifications:subscribe?untilHead=true&start.earliest=true", header, "")
		if strings.Contains(a.body, others) || strings.Contains(a.body, cube) || !strings.Contains(a.body, mine[1]) {
			t.Errorf("%s: %d %s", accept, a.status, a.body)
		}
	}
	if err := billing.eraseError(t, true); status.Code(err) != codes.PermissionDenied {
		t.Errorf("erasure: %v", err)
	}
}

func (g *gateway) eraseError(t *testing.T, dryRun bool) error {
	t.Helper()
	_, err := linksgatev1.NewErasureServiceClient(g.conn).EraseSim(t.Context(), &linksgatev1.EraseSimRequest{Iccid: "89860220190000000001", DryRun: dryRun})
	return err
}

// TestGroupsCarryTheRightsOfTheirCreator requires that a group gets no more than its creator may read, and that a member must be able to
// read all that the group gets, also after the group was changed.
func TestGroupsCarryTheRightsOfTheirCreator(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	g := startGateway(t, cfg)
	mine := g.deliverSMS(t, 1, 2)
	g.deliverOther(t, 3)
	root, ops, billing := g.as(t, callers.root), g.as(t, callers.ops), g.as(t, callers.billing)
	client := linksgatev1.NewGroupServiceClient(billing.conn)
	_, err := client.CreateGroup(t.Context(), &linksgatev1.CreateGroupRequest{Group: &linksgatev1.Group{Name: "billing-sms"}})
	checkDenied(t, "billing creates a group", err, access.Operate)

	sms := []linksgatev1.NotificationKind{linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED}
	all := ops.group(t, &linksgatev1.Group{Name: "billing-all"})
	onlySMS := ops.group(t, &linksgatev1.Group{Name: "billing-sms", Filter: &linksgatev1.NotificationFilter{Kinds: sms}})
	secret := root.group(t, &linksgatev1.Group{Name: "secret"})
	described, err := all.GetGroup(t.Context(), &linksgatev1.GetGroupRequest{GroupName: all.name})
	if err != nil || !slices.Equal(described.GetGroup().GetFilter().GetAccounts(), []string{"acme"}) {
		t.Errorf("a group of ops is about %v (%v); want what ops may read", described.GetGroup().GetFilter(), err)
	}
	_, err = linksgatev1.NewGroupServiceClient(ops.conn).CreateGroup(t.Context(), &linksgatev1.CreateGroupRequest{Group: &linksgatev1.Group{
		Name: "more", Filter: &linksgatev1.NotificationFilter{Accounts: []string{"other"}},
	}})
	checkDenied(t, "a group about others", err, access.Operate)

	fetch := func(r *grouped) error {
		_, err := r.Fetch(t.Context(), &linksgatev1.FetchRequest{GroupName: r.name, MaxLeases: 10})
		return err
	}
	consume := func(r *grouped) error {
		stream, err := r.Consume(t.Context(), &linksgatev1.ConsumeRequest{GroupName: r.name})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	for name, join := range map[string]func(*grouped) error{"Fetch": fetch, "Consume": consume} {
		checkDenied(t, name+" without the right to work", join(secret.on(billing)), access.Work)
		checkDenied(t, name+" of a group about more than billing may read", join(all.on(billing)), access.Read)
		missing := &grouped{all.GroupServiceClient, linksgatev1.NewWorkerServiceClient(billing.conn), "another"}
		checkDenied(t, name+" of a group that is not there", join(missing), access.Work)
	}
	worker := onlySMS.on(billing)
	if got := leased(worker.fetch(t, 2)); !slices.Equal(got, mine) {
		t.Errorf("billing is leased %v; want %v", got, mine)
	}
	checkDenied(t, "another's group is settled", settle(t, secret.on(billing)), access.Work)

	// A member whose group is made wider than it may read is out.
	m := worker.join(t, 1)
	if _, err := onlySMS.UpdateGroup(t.Context(), &linksgatev1.UpdateGroupRequest{
		GroupName: onlySMS.name, Group: &linksgatev1.Group{Filter: &linksgatev1.NotificationFilter{Accounts: []string{"acme"}}},
	}); err != nil {
		t.Fatal(err)
	}
	g.deliver(t, cubePath, signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, `{"sim_id":"1"}`))
	for {
		frame, err := m.Recv()
		if err != nil {
			break
		}
		for _, lease := range frame.GetLeases().GetLeases() {
			if lease.GetNotification().GetKind() != sms[0] {
				t.Errorf("billing is leased %v", lease)
			}
		}
	}
	checkDenied(t, "it joins again", consume(worker), access.Read)

	// What is seen of groups.
	for _, tt := range []struct {
		who  *gateway
		want []string
	}{{billing, []string{"billing-all", "billing-sms"}}, {ops, []string{"billing-all", "billing-sms", "secret"}}, {g.as(t, callers.auditor), nil}} {
		page, err := linksgatev1.NewGroupServiceClient(tt.who.conn).ListGroups(t.Context(), &linksgatev1.ListGroupsRequest{})
		var names []string
		for _, group := range page.GetGroups() {
			names = append(names, group.GetName())
		}
		if err != nil || !slices.Equal(names, tt.want) {
			t.Errorf("groups: %v, %v; want %v", names, err, tt.want)
		}
	}
	for name, err := range map[string]error{
		"delete": deleteGroup(t, secret.on(ops)), "list parked": listParked(t, secret.on(ops)), "purge": purgeParked(t, secret.on(ops)),
	} {
		checkDenied(t, name, err, access.Operate)
	}
}

func settle(t *testing.T, r *grouped) error {
	_, err := r.Acknowledge(t.Context(), &linksgatev1.AcknowledgeRequest{GroupName: r.name, LeaseTokens: []string{"x"}})
	return err
}

func deleteGroup(t *testing.T, r *grouped) error {
	_, err := r.DeleteGroup(t.Context(), &linksgatev1.DeleteGroupRequest{GroupName: r.name})
	return err
}

func listParked(t *testing.T, r *grouped) error {
	_, err := r.ListParked(t.Context(), &linksgatev1.ListParkedRequest{GroupName: r.name})
	return err
}

func purgeParked(t *testing.T, r *grouped) error {
	_, err := r.PurgeParked(t.Context(), &linksgatev1.PurgeParkedRequest{GroupName: r.name, All: true})
	return err
}

// TestQuarantineIsOperatedByAccount requires that an operator sees and changes the entries of its accounts, and no others.
func TestQuarantineIsOperatedByAccount(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	g := startGateway(t, cfg)
	for _, path := range []string{"/linksfield/acme/sms-received", "/linksfield/other/sms-received"} {
		g.request(t, http.MethodPost, path, nil, strings.NewReader(markedBody))
	}
	root, ops := g.as(t, callers.root), g.as(t, callers.ops)
	all, own := quarantined(t, root), quarantined(t, ops)
	if len(all) != 2 || len(own) != 1 || own[0].GetAccount() != "acme" {
		t.Fatalf("root sees %v, ops %v", all, own)
	}
	others := all[slices.IndexFunc(all, func(e *linksgatev1.QuarantineEntry) bool { return e.GetAccount() == "other" })].GetId()
	client := linksgatev1.NewQuarantineServiceClient(ops.conn)
	_, listErr := client.ListQuarantineEntries(t.Context(), &linksgatev1.ListQuarantineEntriesRequest{Accounts: []string{"other"}})
	_, getErr := client.GetQuarantineEntry(t.Context(), &linksgatev1.GetQuarantineEntryRequest{Id: others})
	_, releaseErr := client.ReleaseQuarantineEntry(t.Context(), &linksgatev1.ReleaseQuarantineEntryRequest{Id: others, Force: true})
	_, dryErr := client.ReleaseQuarantineEntry(t.Context(), &linksgatev1.ReleaseQuarantineEntryRequest{Id: others, DryRun: true})
	_, purgeErr := client.PurgeQuarantineEntry(t.Context(), &linksgatev1.PurgeQuarantineEntryRequest{Id: others})
	for name, err := range map[string]error{"list": listErr, "get": getErr, "release": releaseErr, "dry run": dryErr, "purge": purgeErr} {
		checkDenied(t, name, err, access.Operate, bodyMark)
	}
	if got := quarantined(t, root); len(got) != 2 {
		t.Errorf("%d entries are left; want 2", len(got))
	}
	if _, err := client.PurgeQuarantineEntry(t.Context(), &linksgatev1.PurgeQuarantineEntryRequest{Id: own[0].GetId()}); err != nil {
		t.Error(err)
	}
}
