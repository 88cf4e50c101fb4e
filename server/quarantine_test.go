package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/config"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

// quarantined returns all entries of a gateway's quarantine, from pages of two.
func quarantined(t *testing.T, g *gateway) []*linksgatev1.QuarantineEntry {
	t.Helper()
	client := linksgatev1.NewQuarantineServiceClient(g.conn)
	request := &linksgatev1.ListQuarantineEntriesRequest{PageSize: 2}
	var all []*linksgatev1.QuarantineEntry
	for {
		page, err := client.ListQuarantineEntries(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.GetEntries()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return all
		}
	}
}

// TestRefusedRequestsToKnownURLsAreKept checks what is in quarantine after requests of every kind of refusal.
func TestRefusedRequestsToKnownURLsAreKept(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	forged, err := linksfield.Forger().MakeWithBody(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, []byte(markedBody))
	if err != nil {
		t.Fatal(err)
	}
	cube := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, markedBody)
	broken := bodyMark + "\xff"
	for _, tt := range []struct {
		method, path string
		header       http.Header
		body         string
		reason       linksgatev1.QuarantineReason // unspecified: not kept
	}{
		{http.MethodPost, smsPath, nil, markedBody, linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MISSING},
		{http.MethodPost, smsPath, forged.Header, markedBody, linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MISMATCH},
		{http.MethodPost, smsPath, http.Header{"X-Lf-Md5": {""}}, markedBody, linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MALFORMED},
		{http.MethodPost, cubePath, with(cube.Header, "X-Lf-Algo", "MD5"), markedBody, linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MALFORMED},
		{http.MethodPost, cubePath, with(cube.Header, "X-Lf-Signature", "nobody/c3Vt"), markedBody, linksgatev1.QuarantineReason_QUARANTINE_REASON_UNKNOWN_KEY},
		{http.MethodPost, smsPath, nil, broken, linksgatev1.QuarantineReason_QUARANTINE_REASON_UNREADABLE},
		{http.MethodPost, "/linksfield/nobody/cube", nil, markedBody, 0},
		{http.MethodPost, orderPath + "/" + strings.ToUpper(orderToken), nil, markedBody, 0},
		{http.MethodGet, smsPath, nil, "", 0},
		{http.MethodPost, smsPath, nil, strings.Repeat("x", 256<<10+1), 0},
		{http.MethodPost, smsPath, makeSMS(t, 1).Header, string(makeSMS(t, 1).Body), 0},
	} {
		before := len(quarantined(t, g))
		a := g.request(t, tt.method, tt.path, tt.header, strings.NewReader(tt.body))
		entries := quarantined(t, g)[before:]
		if tt.reason == 0 {
			if len(entries) != 0 {
				t.Errorf("%s %s, answered with %d, is in quarantine: %v", tt.method, tt.path, a.status, entries)
			}
			continue
		}
		if len(entries) != 1 {
			t.Fatalf("%v: %d entries more; want one", tt.reason, len(entries))
		}
		e := entries[0]
		body := e.GetBody() + string(e.GetBinaryBody())
		if e.GetReason() != tt.reason || body != tt.body || e.GetContentDigest() != digest(tt.body) || e.GetAccount() != "acme" ||
			e.GetSourceAddress() != "127.0.0.1" || e.GetDetail() == "" {
			t.Errorf("%v is kept as %v", tt.reason, e)
		}
		for _, private := range []string{md5Secret, md5OldSecret, hmacSecret} {
			if strings.Contains(e.String(), private) {
				t.Errorf("an entry holds a secret: %v", e)
			}
		}
	}
}

// TestReleaseAfterTheSecretWasMended loses nothing to a wrong secret: what was refused is in the log once, as if it had been
// accepted at once.
func TestReleaseAfterTheSecretWasMended(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	g := startGateway(t, cfg)
	const newSecret = "Qn5-md5-secret-that-is-not-configured"
	issued := simulator.Sender{MD5: signature.Secret{Value: newSecret}}
	sms, err := issued.MakeWithBody(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, []byte(markedBody))
	if err != nil {
		t.Fatal(err)
	}
	if a := g.request(t, http.MethodPost, smsPath, sms.Header, strings.NewReader(markedBody)); a.status != http.StatusUnauthorized {
		t.Fatalf("%d %s; want 401", a.status, a.body)
	}
	entry := quarantined(t, g)[0]
	release := func(g *gateway, id string, force, dryRun bool) (*linksgatev1.ReleaseQuarantineEntryResponse, error) {
		return linksgatev1.NewQuarantineServiceClient(g.conn).ReleaseQuarantineEntry(t.Context(),
			&linksgatev1.ReleaseQuarantineEntryRequest{Id: id, Force: force, DryRun: dryRun})
	}
	if response, err := release(g, entry.GetId(), false, false); err != nil || response.GetOutcome() != linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_REFUSED {
		t.Errorf("under the old secret: %v, %v; want it refused", response, err)
	}
	g.stop(t)

	acme := cfg.Accounts["acme"]
	acme.MD5Secrets = append(acme.MD5Secrets, secret(t, "new", newSecret))
	cfg.Accounts = map[string]config.Account{"acme": acme}
	g = startGateway(t, cfg)
	live, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{})
	if response, err := release(g, entry.GetId(), false, true); err != nil || response.GetOutcome() != linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_RELEASED ||
		response.GetNotificationId() != "" || g.info(t).GetHead() != nil {
		t.Errorf("a dry run: %v, %v, log %v; want nothing but the outcome", response, err, g.info(t))
	}
	response, err := release(g, entry.GetId(), false, false)
	if err != nil || response.GetOutcome() != linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_RELEASED {
		t.Fatalf("%v, %v; want it released", response, err)
	}
	got := g.get(t, response.GetNotificationId())
	want := &linksgatev1.Notification{
		Account: "acme", Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, ReceivedAt: entry.GetReceivedAt(), QuarantineId: entry.GetId(),
		Verification: &linksgatev1.Verification{
			Status: linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED,
			Scheme: linksgatev1.SignatureScheme_SIGNATURE_SCHEME_MD5, SecretName: "new", Reading: "members",
		},
		Headers: entry.GetHeaders(), Raw: &linksgatev1.Notification_Body{Body: markedBody}, ContentDigest: digest(markedBody),
		Iccids: []string{"89860220190000000001"},
		Payload: &linksgatev1.Notification_SmsReceived{SmsReceived: &linksgatev1.SmsReceived{
			Iccid: "89860220190000000001", Text: bodyMark}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform(),
		protocmp.IgnoreFields(&linksgatev1.Notification{}, "id", "token", "sequence", "released_at")); diff != "" {
		t.Errorf("released, - as it should be, + as it is:\n%s", diff)
	}
	if diff := cmp.Diff(got, live.notifications(t, 1)[0], protocmp.Transform()); diff != "" {
		t.Errorf("- in the log, + streamed:\n%s", diff)
	}
	_, err = release(g, entry.GetId(), false, false)
	checkError(t, "released again", err, codes.NotFound, "NOT_FOUND")
	if left := quarantined(t, g); len(left) != 0 {
		t.Errorf("still in quarantine: %v", left)
	}
}

func TestForcedReleaseAndPurge(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for range 2 {
		g.request(t, http.MethodPost, smsPath, nil, strings.NewReader("not JSON"))
	}
	client := linksgatev1.NewQuarantineServiceClient(g.conn)
	entries := quarantined(t, g)
	response, err := client.ReleaseQuarantineEntry(t.Context(), &linksgatev1.ReleaseQuarantineEntryRequest{Id: entries[0].GetId(), Force: true})
	if err != nil {
		t.Fatal(err)
	}
	n := g.get(t, response.GetNotificationId())
	if n.GetVerification().GetStatus() != linksgatev1.VerificationStatus_VERIFICATION_STATUS_FORCED || n.GetUnrecognized() == nil || n.GetBody() != "not JSON" {
		t.Errorf("forced into the log as %v", n)
	}
	purge := &linksgatev1.PurgeQuarantineEntryRequest{Id: entries[1].GetId()}
	if _, err := client.PurgeQuarantineEntry(t.Context(), purge); err != nil {
		t.Error(err)
	}
	_, err = client.PurgeQuarantineEntry(t.Context(), purge)
	checkError(t, "purged again", err, codes.NotFound, "NOT_FOUND")
	_, err = client.GetQuarantineEntry(t.Context(), &linksgatev1.GetQuarantineEntryRequest{Id: "no id"})
	checkInvalid(t, "GetQuarantineEntry", "id", err)
	_, err = client.ListQuarantineEntries(t.Context(), &linksgatev1.ListQuarantineEntriesRequest{PageToken: "no token"})
	checkInvalid(t, "ListQuarantineEntries", "page_token", err)
	if info, err := client.GetQuarantineInfo(t.Context(), &linksgatev1.GetQuarantineInfoRequest{}); err != nil || info.GetEntries() != 0 {
		t.Errorf("%v, %v; want no entry left", info, err)
	}
}

// TestCopiesAreStoredOnce sends each notification twice, with a restart in between: copies where Linksfield documents that it
// repeats, events of their own where it does not.
func TestCopiesAreStoredOnce(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	const alertPath = "/linksfield/acme/data-usage-alert"
	withDelivery := makeSMS(t, 1)
	withDelivery.Header = with(withDelivery.Header, "X-Lf-Delivery", "d-1")
	alertOf := func(body string) simulator.Notification {
		return signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_DATA_USAGE_ALERT, body)
	}
	delivered := func(n simulator.Notification, delivery string) simulator.Notification {
		n.Header = with(n.Header, "X-Lf-Delivery", delivery)
		return n
	}
	cube := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, markedBody)
	sent := []struct {
		name, path    string
		first, second simulator.Notification
		copies        bool
	}{
		{"usage alert", alertPath, alertOf(markedBody), alertOf(markedBody), true},
		{"usage alert that is spelled otherwise", alertPath, alertOf(`{"a":"1","b":{"c":2,"d":[3]}}`), alertOf(`{ "b": {"d":[3], "c":2}, "a": "1" }`), true},
		{"usage alert with another value", alertPath, alertOf(`{"a":"2"}`), alertOf(`{"a":2}`), false},
		{"usage alert with its delivery", alertPath, delivered(alertOf(`{"a":"3"}`), "d-1"), delivered(alertOf(`{"a":"3"}`), "d-1"), true},
		{"usage alert with another delivery", alertPath, delivered(alertOf(`{"a":"4"}`), "d-1"), delivered(alertOf(`{"a":"4"}`), "d-2"), false},
		{"Cube", cubePath, cube, cube, true},
		{"SMS with a delivery", smsPath, withDelivery, withDelivery, false},
		{"SMS", smsPath, makeSMS(t, 2), makeSMS(t, 2), false},
	}
	g := startGateway(t, cfg)
	first := make(map[string]string)
	for _, one := range sent {
		first[one.name] = g.deliver(t, one.path, one.first)
	}
	g.stop(t)
	g = startGateway(t, cfg)
	want := len(sent)
	for _, one := range sent {
		if id := g.deliver(t, one.path, one.second); (id == first[one.name]) != one.copies {
			t.Errorf("%s is %s and then %s; copies: %v", one.name, first[one.name], id, one.copies)
		}
		if !one.copies {
			want++
		}
	}
	if all := g.list(t, &linksgatev1.ListNotificationsRequest{}); len(all) != want {
		t.Errorf("the log holds %d notifications; want %d", len(all), want)
	}
}

// TestWhatGoesToAWrongURLIsKept requires that what Linksfield sends to a URL that leads nowhere is answered with 404 and kept, and can be
// released once it is known what was meant; and that what cannot be of Linksfield is not kept.
func TestWhatGoesToAWrongURLIsKept(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	client := linksgatev1.NewQuarantineServiceClient(g.conn)
	sms := linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED
	wrong := []string{
		"/linksfield/acne/sms-received", "/linksfield/acme/sms-received2", "/linksfield/acme", "/hooks/linksfield/acme/sms-received",
		"/linksfield/acme/linksfield/acme/sms-received", "/", orderPath + "/" + strings.ToUpper(orderToken), "/linksfield/acme/mall-recharge-success",
	}
	sent := make(map[string]string)
	for n, path := range wrong {
		made := makeSMS(t, uint64(n))
		if a := g.request(t, http.MethodPost, path, made.Header, strings.NewReader(string(made.Body))); a.status != http.StatusNotFound {
			t.Errorf("%s: %d; want 404", path, a.status)
		}
		sent[path] = string(made.Body)
	}
	for _, tt := range []struct {
		method string
		header http.Header
	}{{http.MethodPost, nil}, {http.MethodPost, http.Header{"X-Lfx": {"1"}}}, {http.MethodGet, http.Header{"X-Lf-Md5": {"1"}}}} {
		g.request(t, tt.method, "/linksfield/nobody/cube", tt.header, strings.NewReader(markedBody))
	}
	// A slash too many leads where it should.
	for n, path := range []string{"//linksfield/acme/sms-received", "/linksfield//acme//sms-received", "/linksfield/acme/sms-received/"} {
		made := makeSMS(t, uint64(100+n))
		if a := g.request(t, http.MethodPost, path, made.Header, strings.NewReader(string(made.Body))); a.status != http.StatusOK {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	entries := quarantined(t, g)
	if len(entries) != len(wrong) {
		t.Fatalf("%d entries, want %d", len(entries), len(wrong))
	}
	for i, entry := range entries {
		path := wrong[i]
		reason := linksgatev1.QuarantineReason_QUARANTINE_REASON_NO_SUCH_URL
		if path == "/linksfield/acme/mall-recharge-success" {
			reason = linksgatev1.QuarantineReason_QUARANTINE_REASON_SOURCE_NOT_ALLOWED
		}
		if entry.GetPath() != path || entry.GetBody() != sent[path] || entry.GetReason() != reason {
			t.Errorf("%s: %v", path, entry)
		}
		if i < 3 && entry.GetAccount() != []string{"", "acme", "acme"}[i] {
			t.Errorf("%s: the account is %q", path, entry.GetAccount())
		}
	}
	if strings.Contains(g.logs.String(), strings.ToUpper(orderToken)) {
		t.Error("a path token is in the log")
	}
	if !strings.Contains(g.logs.String(), `"path":"/linksfield/acne/sms-received"`) {
		t.Error("the path is not in the log")
	}

	release := func(request *linksgatev1.ReleaseQuarantineEntryRequest) (*linksgatev1.ReleaseQuarantineEntryResponse, error) {
		return client.ReleaseQuarantineEntry(t.Context(), request)
	}
	refused := linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_REFUSED
	if got, err := release(&linksgatev1.ReleaseQuarantineEntryRequest{Id: entries[0].GetId()}); err != nil || got.GetOutcome() != refused {
		t.Errorf("released as nothing: %v, %v", got, err)
	}
	if _, err := release(&linksgatev1.ReleaseQuarantineEntryRequest{Id: entries[0].GetId(), AsAccount: "acme"}); reasonOf(err) != "INVALID_ARGUMENT" {
		t.Errorf("half of what is meant: %v", err)
	}
	if got, err := release(&linksgatev1.ReleaseQuarantineEntryRequest{Id: entries[0].GetId(), AsAccount: "other", AsKind: sms}); err != nil || got.GetOutcome() != refused {
		t.Errorf("as an account that did not sign it: %v, %v", got, err)
	}
	got, err := release(&linksgatev1.ReleaseQuarantineEntryRequest{Id: entries[0].GetId(), AsAccount: "acme", AsKind: sms})
	if err != nil || got.GetOutcome() != linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_RELEASED {
		t.Fatalf("as what was meant: %v, %v", got, err)
	}
	if n := g.get(t, got.GetNotificationId()); n.GetAccount() != "acme" || n.GetKind() != sms || n.GetBody() != sent[wrong[0]] ||
		n.GetVerification().GetStatus() != linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED {
		t.Errorf("released: %v", n)
	}
	// What the account takes unsigned by a guarded URL is not taken unsigned from elsewhere.
	g.request(t, http.MethodPost, orderPath+"/wrong", http.Header{"X-Lf-Delivery": {"1"}}, strings.NewReader(markedBody))
	entries = quarantined(t, g)
	unsigned := entries[len(entries)-1].GetId()
	if got, err := release(&linksgatev1.ReleaseQuarantineEntryRequest{Id: unsigned}); err != nil || got.GetOutcome() != refused {
		t.Errorf("unsigned, by a wrong token: %v, %v", got, err)
	}
	forced, err := release(&linksgatev1.ReleaseQuarantineEntryRequest{Id: unsigned, Force: true})
	if err != nil || forced.GetVerification().GetStatus() != linksgatev1.VerificationStatus_VERIFICATION_STATUS_FORCED {
		t.Errorf("forced: %v, %v", forced, err)
	}
	if _, err := release(&linksgatev1.ReleaseQuarantineEntryRequest{Id: entries[len(entries)-2].GetId(), AsAccount: "acme", AsKind: sms}); reasonOf(err) != "INVALID_ARGUMENT" {
		t.Errorf("as something else, although its URL was right: %v", err)
	}
}
