package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/config"
)

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
