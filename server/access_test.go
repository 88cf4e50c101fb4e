package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/config"
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

// TestOnlyGoodCredentialsAreTaken shows all sorts of headers Authorization, over gRPC and REST.
func TestOnlyGoodCredentialsAreTaken(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	late := access.NewToken()
	billing := cfg.Access.Callers["billing"]
	billing.Tokens = append(billing.Tokens, config.Token{Name: "late", SHA256: access.DigestOf(late).String(), Expires: "2020-01-01"})
	cfg.Access.Callers["billing"] = billing
	g := startGateway(t, cfg)
	good := callers.root.token
	mistyped := good[:len(good)-1] + map[bool]string{true: "1", false: "0"}[strings.HasSuffix(good, "0")]
	for _, tt := range []struct {
		headers []string
		code    codes.Code
		reason  string
		text    string
	}{
		{[]string{"Bearer " + good}, codes.OK, "", ""},
		{[]string{"bearer  " + good}, codes.OK, "", ""},
		{nil, codes.Unauthenticated, "CREDENTIAL_MISSING", "bearer token"},
		{[]string{"Bearer " + good, "Bearer " + good}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "several"},
		{[]string{"Bearer " + good, "Bearer x"}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "several"},
		{[]string{"Basic " + good}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "Bearer"},
		{[]string{good}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "Bearer"},
		{[]string{"Bearer "}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "Bearer"},
		{[]string{""}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "Bearer"},
		{[]string{"Bearer " + mistyped}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "mistyped"},
		{[]string{"Bearer " + access.NewToken()}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "not known"},
		{[]string{"Bearer " + access.DigestOf(good).String()}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "not known"},
		{[]string{"Bearer " + strings.Repeat("x", 20_000)}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "bytes"},
		{[]string{"Bearer " + late}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "expired"},
		{[]string{"Bearer a.b.c"}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "JWT"},
	} {
		ctx := t.Context()
		for _, header := range tt.headers {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
		}
		_, err := g.client.GetLogInfo(ctx, &linksgatev1.GetLogInfoRequest{})
		if status.Code(err) != tt.code || reasonOf(err) != tt.reason || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("gRPC, %.80q: %v; want %v, %s, %q", tt.headers, err, tt.code, tt.reason, tt.text)
		}
		a := g.rest(t, http.MethodGet, "/v1/log", http.Header{"Authorization": tt.headers}, "")
		want := map[codes.Code]int{codes.OK: http.StatusOK, codes.Unauthenticated: http.StatusUnauthorized}[tt.code]
		if a.status != want || (want == http.StatusUnauthorized) != (a.header.Get("WWW-Authenticate") != "") || !strings.Contains(a.body, tt.reason) {
			t.Errorf("REST, %.80q: %d %v %s", tt.headers, a.status, a.header, a.body)
		}
	}
	// What is not a header is not looked at, and what stands for one within the gateway is not taken from outside.
	for _, path := range []string{"/v1/log?access_token=" + good, "/v1/log?authorization=Bearer%20" + good} {
		a := g.rest(t, http.MethodGet, path, nil, "")
		if a.status != http.StatusUnauthorized && a.status != http.StatusBadRequest {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	forged := http.Header{
		"Cookie": {"authorization=Bearer " + good}, "Grpc-Metadata-Authorization": {"Bearer " + good}, "Authorization": {"Bearer \xe9"},
		"Linksgate-Passed-On": {"1"}, "Grpc-Metadata-Linksgate-Passed-On": {"1"},
	}
	if a := g.rest(t, http.MethodGet, "/v1/log", forged, ""); a.status != http.StatusUnauthorized {
		t.Errorf("forged headers: %d %s", a.status, a.body)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "linksgate-passed-on", "x", "linksgate-certificate-bin", "x", "linksgate-address", "10.0.0.1")
	if _, err := g.client.GetLogInfo(ctx, &linksgatev1.GetLogInfoRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("forged metadata: %v", err)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/config": 401, "/secrets": 401, "/callers": 401} {
		if got, _ := g.admin(t, path); got != want {
			t.Errorf("admin %s: %d; want %d", path, got, want)
		}
	}
	if text := g.logs.String(); strings.Contains(text, good) || strings.Contains(text, access.DigestOf(good).String()) {
		t.Error("a token or its digest is in the log")
	}
	_, metrics := g.admin(t, "/metrics")
	for _, line := range []string{
		`linksgate_access_refused_total{caller="unknown",reason="bad_credential"}`, `linksgate_access_refused_total{caller="anonymous",reason="no_credential"}`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// TestJWTs tries good and bad JWTs of an issuer.
func TestJWTs(t *testing.T) {
	t.Parallel()
	cfg, _ := guardedConfig(t)
	i, stranger := newIssuer(t), newIssuer(t)
	cfg.Access.Issuers = map[string]config.Issuer{"corp": {Issuer: i.URL, Audience: "linksgate", JWKSURL: i.URL, GroupsClaim: "groups"}}
	for name, identity := range map[string]config.JWTIdentity{
		"root": {Issuer: "corp", Subject: "admin"}, "billing": {Issuer: "corp", Group: "billing-team"}, "ops": {Issuer: "corp", Group: "ops-team"},
	} {
		caller := cfg.Access.Callers[name]
		caller.JWT = []config.JWTIdentity{identity}
		cfg.Access.Callers[name] = caller
	}
	g := startGateway(t, cfg)
	g.deliverOther(t, 1)
	ask := func(token string) error {
		_, err := g.client.ListNotifications(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), &linksgatev1.ListNotificationsRequest{
			Filter: &linksgatev1.NotificationFilter{Accounts: []string{"other"}},
		})
		return err
	}
	with := func(subject string, changes jwt.MapClaims) string {
		said := i.claims(subject)
		for name, value := range changes {
			if said[name] = value; value == nil {
				delete(said, name)
			}
		}
		return i.sign(t, said)
	}
	good := with("admin", nil)
	parts := strings.Split(good, ".")
	forge := func(header string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "."
	}
	publicKey := func() []byte { i.mu.Lock(); defer i.mu.Unlock(); return i.set(t) }()
	confused := jwt.NewWithClaims(jwt.SigningMethodHS256, i.claims("admin"))
	confused.Header["kid"] = "key-1"
	hmacSigned, err := confused.SignedString(publicKey)
	if err != nil {
		t.Fatal(err)
	}
	byStranger := stranger.claims("admin")
	byStranger["iss"] = i.URL
	past, future := time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
	for name, tt := range map[string]struct {
		token string
		code  codes.Code
		text  string
	}{
		"good":                        {good, codes.OK, ""},
		"again":                       {good, codes.OK, ""},
		"just expired, within leeway": {with("admin", jwt.MapClaims{"exp": time.Now().Add(-5 * time.Second).Unix()}), codes.OK, ""},
		"a group":                     {with("nobody", jwt.MapClaims{"groups": []string{"x", "billing-team"}}), codes.PermissionDenied, "billing does not have the right to read"},
		"groups of two callers":       {with("nobody", jwt.MapClaims{"groups": []string{"ops-team", "billing-team"}}), codes.Unauthenticated, "several callers"},
		"nobody":                      {with("nobody", nil), codes.Unauthenticated, "no caller"},
		"a subject that is no text":   {with("", jwt.MapClaims{"sub": []string{"admin"}}), codes.Unauthenticated, "no caller"},
		"expired":                     {with("admin", jwt.MapClaims{"exp": past}), codes.Unauthenticated, "expired"},
		"no expiry":                   {with("admin", jwt.MapClaims{"exp": nil}), codes.Unauthenticated, "does not verify"},
		"not yet":                     {with("admin", jwt.MapClaims{"nbf": future}), codes.Unauthenticated, "not valid yet"},
		"made in the future":          {with("admin", jwt.MapClaims{"iat": future}), codes.Unauthenticated, "not valid yet"},
		"another audience":            {with("admin", jwt.MapClaims{"aud": "mail"}), codes.Unauthenticated, "audience"},
		"no audience":                 {with("admin", jwt.MapClaims{"aud": nil}), codes.Unauthenticated, ""},
		"an issuer that is unknown":   {with("admin", jwt.MapClaims{"iss": "https://evil.example"}), codes.Unauthenticated, "not trusted"},
		"another's key":               {stranger.sign(t, byStranger), codes.Unauthenticated, "does not verify"},
		"alg none":                    {forge(`{"alg":"none","typ":"JWT"}`), codes.Unauthenticated, "does not verify"},
		"alg None, kid":               {forge(`{"alg":"nOnE","kid":"key-1"}`), codes.Unauthenticated, ""},
		"HMAC with the public key":    {hmacSigned, codes.Unauthenticated, "does not verify"},
		"signature cut off":           {parts[0] + "." + parts[1] + ".", codes.Unauthenticated, "does not verify"},
		"claims changed": {parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+i.URL+`","aud":"linksgate","sub":"admin","exp":9999999999}`)) +
			"." + parts[2], codes.Unauthenticated, "does not verify"},
	} {
		if err := ask(tt.token); status.Code(err) != tt.code || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v; want %v, %q", name, err, tt.code, tt.text)
		}
	}

	// A new key at the issuer is learned when it is first used, and an issuer that is down takes nothing away.
	i.rotate(t, "key-2")
	if err := ask(i.sign(t, i.claims("admin"))); err != nil {
		t.Errorf("with a new key: %v", err)
	}
	i.mu.Lock()
	i.down = true
	before := i.asked
	i.mu.Unlock()
	if err := ask(i.sign(t, i.claims("admin"))); err != nil {
		t.Errorf("while the issuer is down: %v", err)
	}
	for range 50 { // tokens with keys that nobody knows do not become requests to the issuer
		_ = ask(stranger.sign(t, byStranger))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if asked := i.asked - before; asked > 2 {
		t.Errorf("the issuer was asked %d times", asked)
	}
}

// TestAnIssuerThatIsDownAtTheStart requires that the gateway starts, says that it cannot tell yet, and can once the issuer is up.
func TestAnIssuerThatIsDownAtTheStart(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	i := newIssuer(t)
	i.down = true
	cfg.Access.Issuers = map[string]config.Issuer{"corp": {Issuer: i.URL, Audience: "linksgate", JWKSURL: i.URL}}
	root := cfg.Access.Callers["root"]
	root.JWT = []config.JWTIdentity{{Issuer: "corp", Subject: "admin"}}
	cfg.Access.Callers["root"] = root
	g := startGateway(t, cfg)
	if g.as(t, callers.root).info(t).GetLogId() == "" {
		t.Error("tokens do not work")
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+i.sign(t, i.claims("admin")))
	_, err := g.client.GetLogInfo(ctx, &linksgatev1.GetLogInfoRequest{})
	if status.Code(err) != codes.Unavailable || reasonOf(err) != "ISSUER_UNAVAILABLE" {
		t.Errorf("while the issuer is down: %v", err)
	}
	checkRetry(t, "while the issuer is down", err)
	i.mu.Lock()
	i.down = false
	i.mu.Unlock()
	if _, err := g.client.GetLogInfo(ctx, &linksgatev1.GetLogInfoRequest{}); err != nil {
		t.Errorf("once it is up: %v", err)
	}
}

// TestReloadTakesRightsAway requires of streams that are open that they end as planned when their caller loses rights, gets other
// ones, or its credential, and that others go on.
func TestReloadTakesRightsAway(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	one, two := access.NewToken(), access.NewToken()
	caller := func(name, token, grants string) string {
		return "    " + name + ": {tokens: [{sha256: '" + access.DigestOf(token).String() + "'}], grants: {" + grants + "}}\n"
	}
	const all, acme = `read: {accounts: ["*"]}, work: ["*"], admin: true`, `read: {accounts: [acme]}, work: ["*"], admin: true`
	configure := func(lines ...string) string {
		return head + "access:\n  callers:\n" + strings.Join(lines, "") + newSecrets
	}
	g := o.start(t, configure(caller("one", one, all), caller("two", two, all)), never)
	first, second := g.as(t, team{"one", one}), g.as(t, team{"two", two})
	// The token of two is there under a new caller, whose rights are the same: it is somebody else.
	subscribe := func(from *gateway) *stream {
		s, _ := from.subscribe(t, new(linksgatev1.SubscribeRequest))
		s.untilCaughtUp(t)
		return s
	}
	ends := func(name string, s *stream) {
		t.Helper()
		frames, err := s.rest(t)
		if err != nil || len(frames) == 0 || frames[len(frames)-1].GetClosing().GetReason() != linksgatev1.ClosingReason_CLOSING_REASON_ACCESS_CHANGED {
			t.Errorf("%s: the stream ended with %v after %v; want Closing ACCESS_CHANGED and OK", name, err, frames)
		}
	}
	mine, others := subscribe(first), subscribe(second)
	o.change(t, g, configure(caller("one", one, acme), caller("two", two, all)))
	ends("fewer rights", mine)
	g.deliver(t, "/linksfield/acme/sms-received", makeSMS(t, 1))
	others.notifications(t, 1)
	mine = subscribe(first)
	checkDenied(t, "the other account", first.listError(t, &linksgatev1.ListNotificationsRequest{
		Filter: &linksgatev1.NotificationFilter{Accounts: []string{"other"}},
	}), access.Read)
	o.change(t, g, configure(caller("two", two, all)))
	ends("the caller is gone", mine)
	if _, err := first.client.GetLogInfo(t.Context(), &linksgatev1.GetLogInfoRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a caller that is gone: %v", err)
	}
	o.change(t, g, configure(caller("renamed", two, all)))
	ends("the token is another caller's", others)

	// A configuration that cannot be used takes nothing away.
	others = subscribe(second)
	o.change(t, g, configure("    renamed: {}\n"))
	g.deliver(t, "/linksfield/acme/sms-received", makeSMS(t, 2))
	others.notifications(t, 1)

	// The storm: a caller comes and goes while it calls. Each call is answered by the one or the other configuration.
	ctx, cancel := context.WithCancel(t.Context())
	calls := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			_, err := first.client.GetLogInfo(context.WithoutCancel(ctx), &linksgatev1.GetLogInfoRequest{})
			if code := status.Code(err); code != codes.OK && code != codes.Unauthenticated {
				calls <- err
				return
			}
		}
		calls <- nil
	}()
	for n := range 40 {
		lines := []string{caller("renamed", two, all)}
		if n%2 == 0 {
			lines = append(lines, caller("one", one, all))
		}
		o.change(t, g, configure(lines...))
	}
	cancel()
	if err := <-calls; err != nil {
		t.Errorf("in the storm: %v", err)
	}
	g.deliver(t, "/linksfield/acme/sms-received", makeSMS(t, 3))
	others.notifications(t, 1)
}

// TestATokenThatEndsEndsItsStreams requires the same of a JWT, at its end.
func TestATokenThatEndsEndsItsStreams(t *testing.T) {
	t.Parallel()
	cfg, _ := guardedConfig(t)
	i := newIssuer(t)
	none := config.Duration(0)
	cfg.Access.Issuers = map[string]config.Issuer{"corp": {Issuer: i.URL, Audience: "linksgate", JWKSFile: i.writeKeys(t), Leeway: &none}}
	root := cfg.Access.Callers["root"]
	root.JWT = []config.JWTIdentity{{Issuer: "corp", Subject: "admin"}}
	cfg.Access.Callers["root"] = root
	g := startGateway(t, cfg)
	said := i.claims("admin")
	said["exp"] = time.Now().Add(2 * time.Second).Unix()
	who := g.as(t, team{"root", i.sign(t, said)})
	s, _ := who.subscribe(t, new(linksgatev1.SubscribeRequest))
	frames, err := s.rest(t)
	if err != nil || frames[len(frames)-1].GetClosing().GetReason() != linksgatev1.ClosingReason_CLOSING_REASON_ACCESS_CHANGED {
		t.Errorf("the stream ended with %v after %v", err, frames)
	}
	if _, err := who.client.GetLogInfo(t.Context(), &linksgatev1.GetLogInfoRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("afterwards: %v", err)
	}
}

// TestLimitsOfACaller requires that a caller that has used up what it may is told so, and that others do not notice.
func TestLimitsOfACaller(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	billing := cfg.Access.Callers["billing"]
	billing.Limits = config.CallerLimits{Streams: 2}
	cfg.Access.Callers["billing"] = billing
	ops := cfg.Access.Callers["ops"]
	ops.Limits = config.CallerLimits{RequestsPerSecond: 5}
	cfg.Access.Callers["ops"] = ops
	g := startGateway(t, cfg)
	who, root := g.as(t, callers.billing), g.as(t, callers.root)
	first, _ := who.subscribe(t, new(linksgatev1.SubscribeRequest))
	who.subscribe(t, new(linksgatev1.SubscribeRequest))
	err := who.subscribeError(t, new(linksgatev1.SubscribeRequest))
	if status.Code(err) != codes.ResourceExhausted || reasonOf(err) != "CALLER_LIMIT" {
		t.Errorf("a third stream: %v", err)
	}
	checkRetry(t, "a third stream", err)
	root.subscribe(t, new(linksgatev1.SubscribeRequest))
	first.cancel()
	eventually(t, "there is room again", func() bool {
		s := openStream(t, who.client, new(linksgatev1.SubscribeRequest))
		_, err := s.Recv()
		return err == nil
	})
	refused, who := 0, g.as(t, callers.ops)
	for range 30 {
		if _, err := who.client.GetLogInfo(t.Context(), &linksgatev1.GetLogInfoRequest{}); err != nil {
			if status.Code(err) != codes.ResourceExhausted {
				t.Fatal(err)
			}
			refused++
		}
		root.info(t)
	}
	if refused == 0 {
		t.Error("30 requests at once were all answered")
	}
	if a := g.rest(t, http.MethodGet, "/v1/log", bearerOf(callers.ops.token), ""); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("REST: %d %v", a.status, a.header)
	}
}

// TestChangesAreAudited requires that every change is recorded with who made it, and reading is not; that the record survives a restart,
// and is for those who may administer.
func TestChangesAreAudited(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	g := startGatewayIn(t, cfg, server.Env{})
	g.request(t, http.MethodPost, smsPath, nil, strings.NewReader(markedBody))
	root := g.as(t, callers.root)
	entry := quarantined(t, root)[0].GetId()
	group := root.group(t, &linksgatev1.Group{Name: "audited"})
	quarantine := linksgatev1.NewQuarantineServiceClient(root.conn)
	if _, err := quarantine.ReleaseQuarantineEntry(t.Context(), &linksgatev1.ReleaseQuarantineEntryRequest{Id: entry, DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := quarantine.ReleaseQuarantineEntry(t.Context(), &linksgatev1.ReleaseQuarantineEntryRequest{Id: entry, Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := root.eraseError(t, false); err != nil {
		t.Fatal(err)
	}
	header := bearerOf(callers.root.token)
	if a := g.rest(t, http.MethodPost, "/v1/groups/audited:seek", header, `{"to":{"earliest":true}}`); a.status != http.StatusOK {
		t.Fatal(a)
	}
	if err := deleteGroup(t, group); err != nil {
		t.Fatal(err)
	}
	_ = deleteGroup(t, group)                                        // is not there any more
	_ = deleteGroup(t, group.on(g.as(t, callers.auditor)))           // has no right to
	if err := g.as(t, callers.ops).eraseError(t, true); err == nil { // neither has this
		t.Error("ops may erase")
	}
	g.stop(t)
	cfg = g.config
	g = startGateway(t, cfg)
	list := func(who team, request *linksgatev1.ListAuditEntriesRequest) ([]*linksgatev1.AuditEntry, error) {
		client := linksgatev1.NewAuditServiceClient(g.as(t, who).conn)
		var all []*linksgatev1.AuditEntry
		request.PageSize = 2
		for {
			page, err := client.ListAuditEntries(t.Context(), request)
			if all = append(all, page.GetEntries()...); err != nil || page.GetNextPageToken() == "" {
				return all, err
			}
			request.PageToken = page.GetNextPageToken()
		}
	}
	entries, err := list(callers.auditor, new(linksgatev1.ListAuditEntriesRequest))
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range entries {
		actions = append(actions, e.GetAction())
		if e.GetCaller() != "root" || !strings.HasPrefix(e.GetCredential(), "token ") || !strings.HasPrefix(e.GetSourceAddress(), "127.0.0.1:") ||
			e.GetOutcome() != "OK" || e.GetAt() == nil {
			t.Errorf("%v", e)
		}
	}
	want := []string{"CreateGroup", "ReleaseQuarantineEntry", "EraseSim", "SeekGroup", "DeleteGroup"}
	if !slices.Equal(actions, want) {
		t.Fatalf("recorded are %v; want %v", actions, want)
	}
	if e := entries[1]; e.GetSubject()["entry"] != entry || e.GetSubject()["force"] != "true" || e.GetDetail() != "RELEASED" {
		t.Errorf("the release: %v", e)
	}
	if text := entries[2].String(); strings.Contains(text, "89860220190000000001") {
		t.Errorf("the SIM that was erased is told: %s", text)
	}
	since := entries[3].GetAt()
	some, err := list(callers.auditor, &linksgatev1.ListAuditEntriesRequest{Since: since, Caller: "root", Action: "DeleteGroup"})
	if err != nil || len(some) != 1 || some[0].GetAction() != "DeleteGroup" {
		t.Errorf("since, by caller and action: %v, %v", some, err)
	}
	_, err = list(callers.ops, new(linksgatev1.ListAuditEntriesRequest))
	checkDenied(t, "ops", err, access.Admin)
	var page struct{ Entries []map[string]any }
	a := g.rest(t, http.MethodGet, "/v1/audit?since="+url.QueryEscape(since.AsTime().Format(time.RFC3339Nano)), bearerOf(callers.auditor.token), "")
	if err := json.Unmarshal([]byte(a.body), &page); err != nil || len(page.Entries) != 2 {
		t.Errorf("REST: %d %s", a.status, a.body)
	}
}

// TestAddressesThatOthersReachFailClosed requires that nothing is served unprotected without having been meant so.
func TestAddressesThatOthersReachFailClosed(t *testing.T) {
	t.Parallel()
	certificate, key := writeCertificate(t)
	protected := &config.TLS{CertFile: certificate, KeyFile: key}
	withCA := &config.TLS{CertFile: certificate, KeyFile: key, ClientCAFile: certificate}
	for name, tt := range map[string]struct {
		change func(*config.Config)
		want   []string // nil: served
	}{
		"everything open": {func(c *config.Config) {
			c.Listen = config.Listen{Webhook: "0.0.0.0:0", GRPC: ":0", REST: "[::]:0", Admin: "0.0.0.0:0"}
		}, []string{"listen.webhook", "listen.grpc", "listen.rest", "listen.admin", "listen.plaintext", "access.callers"}},
		"gRPC with TLS and no callers":  {func(c *config.Config) { c.Listen.GRPC, c.GRPC.TLS = "0.0.0.0:0", protected }, []string{"access.callers"}},
		"gRPC with callers and no TLS":  {func(c *config.Config) { c.Listen.GRPC, c.Access = "0.0.0.0:0", everybodyMay() }, []string{"grpc.tls"}},
		"gRPC with client certificates": {func(c *config.Config) { c.Listen.GRPC, c.GRPC.TLS = "0.0.0.0:0", withCA }, nil},
		"gRPC with both": {func(c *config.Config) {
			c.Listen.GRPC, c.GRPC.TLS, c.Access = "0.0.0.0:0", protected, everybodyMay()
		}, nil},
		"webhooks behind a proxy": {func(c *config.Config) { c.Listen.Webhook, c.Listen.Plaintext = "0.0.0.0:0", []string{"webhook"} }, nil},
		"a mistyped override":     {func(c *config.Config) { c.Listen.Plaintext = []string{"grcp"} }, []string{"listen.plaintext"}},
		"access for nobody":       {func(c *config.Config) { c.Access = new(config.Access) }, []string{"access.callers", "access.anonymous"}},
	} {
		cfg := testConfig(t)
		tt.change(&cfg)
		err := cfg.Check()
		if (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, text := range tt.want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v does not say %q", name, err, text)
			}
		}
	}
}

// TestWrongAccessIsRefused requires that each mistake in who may do what is told where it is.
func TestWrongAccessIsRefused(t *testing.T) {
	t.Parallel()
	const digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
	for text, want := range map[string]string{
		"callers: {a: {grants: {admin: true}}}":                                                                     "access.callers.a: cannot be known",
		"callers: {a: {tokens: [{sha256: abc}]}}":                                                                   "access.callers.a.tokens[0].sha256",
		"callers: {A: {tokens: [{sha256: '" + digest + "'}]}}":                                                      "access.callers.A: a caller's name",
		"callers: {anonymous: {tokens: [{sha256: '" + digest + "'}]}}":                                              "access.callers.anonymous: a caller's name",
		"callers: {a: {tokens: [{sha256: '" + digest + "'}, {sha256: '" + digest + "', name: b}]}}":                 "access.callers.a.tokens[1].sha256: is that of access.callers.a.tokens[0]",
		"callers: {a: {tokens: [{sha256: '" + digest + "', expires: soon}]}}":                                       "access.callers.a.tokens[0].expires",
		"callers: {a: {certificates: ['billing'], grants: {}}}":                                                     "access.callers.a.certificates[0]",
		"callers: {a: {certificates: ['dns:b'], grants: {read: {}}}}":                                               "access.callers.a.grants.read.accounts: must name accounts",
		"callers: {a: {certificates: ['dns:b'], grants: {read: {accounts: ['*', acme]}}}}":                          "access.callers.a.grants.read.accounts",
		"callers: {a: {certificates: ['dns:b'], grants: {read: {accounts: ['*'], kinds: [sms]}}}}":                  "access.callers.a.grants.read.kinds",
		"callers: {a: {certificates: ['dns:b'], grants: {work: ['[']}}}":                                            "access.callers.a.grants.work",
		"callers: {a: {certificates: ['dns:b'], limits: {streams: -1}}}":                                            "access.callers.a.limits",
		"callers: {a: {certificates: ['dns:b'], limits: {replay_per_second: 1KiB}}}":                                "access.callers.a.limits.replay_per_second",
		"callers: {a: {jwt: [{issuer: corp, subject: b}]}}":                                                         "access.callers.a.jwt[0].issuer",
		"issuers: {corp: {issuer: b, audience: c, jwks_url: 'http://example.com/keys'}}":                            "access.issuers.corp.jwks_url: must begin with https",
		"issuers: {corp: {issuer: b, audience: c}}":                                                                 "access.issuers.corp: exactly one",
		"issuers: {corp: {issuer: b, jwks_url: 'https://example.com'}}":                                             "access.issuers.corp.audience",
		"issuers: {corp: {issuer: b, audience: c, jwks_file: /dev/null}}":                                           "access.issuers.corp.jwks_file",
		"issuers: {corp: {issuer: b, audience: c, jwks_url: 'https://example.com', leeway: 1h}}":                    "access.issuers.corp.leeway",
		"callers: {a: {jwt: [{issuer: corp}]}}\nissuers: {corp: {issuer: b, audience: c, jwks_url: 'https://a.b'}}": "access.callers.a.jwt[0]: exactly one",
	} {
		cfg, err := readConfig(t, "access:\n  "+strings.ReplaceAll(text, "\n", "\n  ")+"\naccounts: {acme: {md5_secrets: [{env: PATH}]}}\n")
		if err == nil {
			err = cfg.Check()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}

// TestReplayOfACallerIsBounded requires that what a caller replays at once is spread over the time that its limit says, while a caller
// without one is not slowed.
func TestReplayOfACallerIsBounded(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	ops := cfg.Access.Callers["ops"]
	ops.Limits = config.CallerLimits{ReplayPerSecond: 1 << 20}
	cfg.Access.Callers["ops"] = ops
	g := startGateway(t, cfg)
	g.deliverLarge(t, 15) // some 3 MiB
	replay := func(who team) time.Duration {
		began := time.Now()
		s, _ := g.as(t, who).subscribe(t, &linksgatev1.SubscribeRequest{
			Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}},
			Until: &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true},
		})
		if _, err := s.rest(t); err != nil {
			t.Error(err)
		}
		return time.Since(began)
	}
	// The first MiB comes at once, and each further one takes a second. That needs no quick machine.
	if took := replay(callers.ops); took < time.Second {
		t.Errorf("it took %v", took)
	}
	replay(callers.root)
}

// TestCertificatesAreTakenUp requires that new certificates and a new client CA hold for new handshakes on every listener, that streams
// that are open go on, and that a pair that does not fit changes nothing.
func TestCertificatesAreTakenUp(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	replace := func() (certificate string) {
		certificate, key := writeCertificate(t)
		o.write(t, "crt", readText(t, certificate))
		o.write(t, "key", readText(t, key))
		return readText(t, certificate)
	}
	first := replace()
	const files = "{tls: {cert_file: DIR/crt, key_file: DIR/key}}\n"
	cfg := head + "grpc: " + files + "rest: " + files + "webhook: " + files + "admin: " + files + newSecrets
	g := o.start(t, cfg, never)
	trusting := func(certificate string) *tls.Config {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(certificate))
		return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	shown := func(certificate string) map[string]bool {
		t.Helper()
		ok := make(map[string]bool)
		for name, address := range map[string]net.Addr{"grpc": g.GRPC, "rest": g.REST, "webhook": g.Webhook, "admin": g.Admin} {
			conn, err := tls.Dial("tcp", address.String(), trusting(certificate))
			if err == nil {
				err = conn.Handshake()
				conn.Close()
			}
			ok[name] = err == nil
		}
		return ok
	}
	all, none := map[string]bool{"grpc": true, "rest": true, "webhook": true, "admin": true}, map[string]bool{"grpc": false, "rest": false, "webhook": false, "admin": false}
	if got := shown(first); !maps.Equal(got, all) {
		t.Fatalf("at the start: %v", got)
	}
	conn, err := grpc.NewClient(g.GRPC.String(), grpc.WithTransportCredentials(credentials.NewTLS(trusting(first))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s, _ := subscribeOn(t, linksgatev1.NewNotificationServiceClient(conn), new(linksgatev1.SubscribeRequest))
	s.untilCaughtUp(t)

	_, otherKey := writeCertificate(t)
	o.write(t, "key", readText(t, otherKey))
	if line := o.change(t, g, cfg); !strings.Contains(strings.Join(line.Problems, " "), "private key does not match") {
		t.Errorf("a key of another certificate: %+v", line)
	}
	if got := shown(first); !maps.Equal(got, all) {
		t.Errorf("after a pair that does not fit: %v", got)
	}
	second := replace()
	line := o.change(t, g, cfg)
	if len(line.Changes) != 4 || !strings.Contains(strings.Join(line.Changes, " "), "admin.tls: new certificates") {
		t.Errorf("changes: %v", line.Changes)
	}
	if got := shown(second); !maps.Equal(got, all) {
		t.Errorf("the new certificate: %v", got)
	}
	if got := shown(first); !maps.Equal(got, none) {
		t.Errorf("the former one: %v", got)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trusting(second)}, Timeout: patience}
	defer client.CloseIdleConnections()
	request, err := makeSMS(t, 1).Request(t.Context(), "https://"+g.Webhook.String()+"/linksfield/acme")
	if err != nil {
		t.Fatal(err)
	}
	if response, err := client.Do(request); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("a notification: %v, %v", response, err)
	}
	s.notifications(t, 1)
	response, err := client.Get("https://" + g.Admin.String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(metrics), `linksgate_tls_certificate_not_after_timestamp_seconds{listener="grpc"}`) {
		t.Error("the metrics do not say when the certificate ends")
	}
}

// TestClientCertificates requires that a caller is known by its certificate over gRPC and over REST, that one that is nobody's is
// anonymous, and that a token goes before it.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	certificate, key := writeCertificate(t) // is CN=gateway, and its own authority
	files := &config.TLS{CertFile: certificate, KeyFile: key, ClientCAFile: certificate, ClientCertificates: "optional"}
	cfg.GRPC.TLS, cfg.REST.TLS = files, files
	billing := cfg.Access.Callers["billing"]
	billing.Certificates = []string{"subject:CN=gateway"}
	cfg.Access.Callers["billing"] = billing
	g := startGateway(t, cfg)
	g.deliver(t, "/linksfield/acme/sms-received", makeSMS(t, 1))
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(readText(t, certificate)))
	ask := func(certificates []tls.Certificate, token string) (codes.Code, int, string) {
		shown := &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS12}
		options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(shown))}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+g.REST.String()+"/v1/quarantine", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			options = append(options, grpc.WithPerRPCCredentials(authorization{"Bearer " + token}))
			request.Header.Set("Authorization", "Bearer "+token)
		}
		conn, err := grpc.NewClient(g.GRPC.String(), options...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = linksgatev1.NewQuarantineServiceClient(conn).GetQuarantineInfo(t.Context(), &linksgatev1.GetQuarantineInfoRequest{})
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: shown}, Timeout: patience}
		defer client.CloseIdleConnections()
		response, restErr := client.Do(request)
		if restErr != nil {
			t.Fatal(restErr)
		}
		response.Body.Close()
		return status.Code(err), response.StatusCode, fmt.Sprint(err)
	}
	for name, tt := range map[string]struct {
		certificates []tls.Certificate
		token        string
		code         codes.Code
		http         int
		text         string
	}{
		"nothing":              {nil, "", codes.Unauthenticated, 401, "no credential"},
		"a certificate":        {[]tls.Certificate{pair}, "", codes.PermissionDenied, 403, "billing does not have the right to operate"},
		"and a token":          {[]tls.Certificate{pair}, callers.root.token, codes.OK, 200, ""},
		"and one that is none": {[]tls.Certificate{pair}, access.NewToken(), codes.Unauthenticated, 401, "not known"},
		"a token alone":        {nil, callers.root.token, codes.OK, 200, ""},
	} {
		if code, httpStatus, text := ask(tt.certificates, tt.token); code != tt.code || httpStatus != tt.http || !strings.Contains(text, tt.text) {
			t.Errorf("%s: %v, %d, %s; want %v, %d, %q", name, code, httpStatus, text, tt.code, tt.http, tt.text)
		}
	}
}
