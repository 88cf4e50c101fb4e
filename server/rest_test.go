package server_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/config"
)

var jsonBody = http.Header{"Content-Type": {"application/json"}}

// restRequest makes a request to the REST address. A body is JSON unless the header says otherwise.
func (g *gateway) restRequest(t *testing.T, method, path string, header http.Header, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+g.REST.String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header == nil && body != "" {
		header = jsonBody
	}
	r.Header = header.Clone()
	return r
}

// rest sends a request to the REST address.
func (g *gateway) rest(t *testing.T, method, path string, header http.Header, body string) answer {
	t.Helper()
	response, err := g.http.Do(g.restRequest(t, method, path, header, body))
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{response.StatusCode, response.Header, string(text)}
}

// call sends a request to the REST address and requires a 200 with a message, which it reads into one.
func call[M proto.Message](t *testing.T, g *gateway, method, path, body string, into M) M {
	t.Helper()
	a := g.rest(t, method, path, nil, body)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %s: %d %v %s; want 200 with JSON that is not kept", method, path, a.status, a.header, a.body)
	}
	fromJSON(t, a.body, into)
	return into
}

func fromJSON(t *testing.T, text string, into proto.Message) {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%s is not a %T: %v", text, into, err)
	}
}

// checkSame requires two messages to be the same.
func checkSame(t *testing.T, what string, want, got proto.Message) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("%s: - gRPC, + REST:\n%s", what, diff)
	}
}

// restError reads the google.rpc.Status that an answer is.
func restError(t *testing.T, what string, a answer) error {
	t.Helper()
	if a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: an error is answered as %q", what, a.header.Get("Content-Type"))
	}
	st := new(spb.Status)
	fromJSON(t, a.body, st)
	return status.FromProto(st).Err()
}

// TestRESTSaysWhatGRPCSays makes each of the calls that only read by both ways.
func TestRESTSaysWhatGRPCSays(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	delivered := g.deliverSMS(t, 1, 5)
	g.deliver(t, cubePath, signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, `{"sim_id":"89860220190000000001","number":89860220190000000001}`))
	for range 2 {
		g.request(t, http.MethodPost, smsPath, nil, strings.NewReader(markedBody)) // not signed
	}
	entry := quarantined(t, g)[0].GetId()

	list := func(path string, request *linksgatev1.ListNotificationsRequest) {
		t.Helper()
		want, err := g.client.ListNotifications(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, path, want, call(t, g, http.MethodGet, path, "", new(linksgatev1.ListNotificationsResponse)))
	}
	second := g.get(t, delivered[1])
	list("/v1/notifications", &linksgatev1.ListNotificationsRequest{})
	list("/v1/notifications?pageSize=2", &linksgatev1.ListNotificationsRequest{PageSize: 2})
	list("/v1/notifications?page_size=2", &linksgatev1.ListNotificationsRequest{PageSize: 2}) // the proto's name, as in a body
	list("/v1/notifications?pageToken="+second.GetToken(), &linksgatev1.ListNotificationsRequest{PageToken: second.GetToken()})
	list("/v1/notifications?start.after="+second.GetToken(), &linksgatev1.ListNotificationsRequest{
		Start: &linksgatev1.Start{Position: &linksgatev1.Start_After{After: second.GetToken()}}})
	list("/v1/notifications?start.since="+url.QueryEscape(second.GetReceivedAt().AsTime().Format("2006-01-02T15:04:05.999999999Z07:00")),
		&linksgatev1.ListNotificationsRequest{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: second.GetReceivedAt()}}})
	list("/v1/notifications?filter.kinds=NOTIFICATION_KIND_CUBE&filter.kinds=NOTIFICATION_KIND_PLAN_ORDER_STATUS&filter.accounts=acme&filter.iccids=89860220190000000001",
		&linksgatev1.ListNotificationsRequest{Filter: &linksgatev1.NotificationFilter{
			Accounts: []string{"acme"}, Iccids: []string{"89860220190000000001"},
			Kinds: []linksgatev1.NotificationKind{linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS},
		}})

	for _, id := range delivered {
		got := call(t, g, http.MethodGet, "/v1/notifications/"+id, "", new(linksgatev1.GetNotificationResponse))
		checkSame(t, id, g.get(t, id), got.GetNotification())
	}
	checkSame(t, "log", g.info(t), call(t, g, http.MethodGet, "/v1/log", "", new(linksgatev1.GetLogInfoResponse)))

	client := linksgatev1.NewQuarantineServiceClient(g.conn)
	info, err := client.GetQuarantineInfo(t.Context(), &linksgatev1.GetQuarantineInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	checkSame(t, "quarantine", info, call(t, g, http.MethodGet, "/v1/quarantine", "", new(linksgatev1.GetQuarantineInfoResponse)))
	page, err := client.ListQuarantineEntries(t.Context(), &linksgatev1.ListQuarantineEntriesRequest{
		PageSize: 1, Reasons: []linksgatev1.QuarantineReason{linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MISSING}})
	if err != nil {
		t.Fatal(err)
	}
	checkSame(t, "quarantine entries", page, call(t, g, http.MethodGet,
		"/v1/quarantine/entries?pageSize=1&reasons=QUARANTINE_REASON_SIGNATURE_MISSING", "", new(linksgatev1.ListQuarantineEntriesResponse)))
	got := call(t, g, http.MethodGet, "/v1/quarantine/entries/"+entry, "", new(linksgatev1.GetQuarantineEntryResponse))
	checkSame(t, "quarantine entry", quarantined(t, g)[0], got.GetEntry())
}

// TestRESTIsTheProtobufJSONForm requires the compact JSON form, as linksgate tail --json prints it, of what only JSON that is
// made with care survives: long numbers, and text that looks like markup.
func TestRESTIsTheProtobufJSONForm(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	id := g.deliver(t, smsPath, signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED,
		`{"sim_id":"89860220190000000001","text_message":"<b>&\u2028\u007f 短信 \\ \"","other":12345678901234567890}`))
	data, err := protojson.Marshal(&linksgatev1.GetNotificationResponse{Notification: g.get(t, id)})
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := json.Compact(&want, data); err != nil {
		t.Fatal(err)
	}
	if a := g.rest(t, http.MethodGet, "/v1/notifications/"+id, nil, ""); a.body != want.String() {
		t.Errorf("REST says\n%s\nand the JSON form is\n%s", a.body, want.String())
	}
}

func TestRESTQuarantineIsReleasedAndPurged(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for range 2 {
		g.request(t, http.MethodPost, smsPath, nil, strings.NewReader(markedBody)) // not signed
	}
	entries := quarantined(t, g)
	path := "/v1/quarantine/entries/" + entries[0].GetId() + ":release"
	for _, tt := range []struct {
		body string
		want linksgatev1.ReleaseOutcome
	}{
		{"{}", linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_REFUSED},
		{`{"force":true,"dryRun":true}`, linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_RELEASED},
		{`{"force":true}`, linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_RELEASED},
	} {
		if got := call(t, g, http.MethodPost, path, tt.body, new(linksgatev1.ReleaseQuarantineEntryResponse)); got.GetOutcome() != tt.want {
			t.Errorf("released with %q: %v; want %v", tt.body, got, tt.want)
		}
	}
	call(t, g, http.MethodPost, "/v1/quarantine/entries/"+entries[1].GetId()+":purge", "{}", new(linksgatev1.PurgeQuarantineEntryResponse))
	if left := quarantined(t, g); len(left) != 0 || len(g.list(t, &linksgatev1.ListNotificationsRequest{})) != 1 {
		t.Errorf("%d entries are left; want none, and one notification", len(left))
	}
}

// TestRESTGroups shares a log by HTTP alone.
func TestRESTGroups(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	delivered := g.deliverSMS(t, 1, 4)
	created := call(t, g, http.MethodPost, "/v1/groups",
		`{"group":{"name":"billing","maxAttempts":3,"backOff":{"initial":"0s"}},"start":{"earliest":true}}`, new(linksgatev1.CreateGroupResponse)).GetGroup()
	if created.GetName() != "billing" || created.GetMaxAttempts() != 3 || created.GetLeaseDuration().AsDuration() == 0 {
		t.Errorf("created %v", created)
	}
	const group = "/v1/groups/billing"
	if listed := call(t, g, http.MethodGet, "/v1/groups", "", new(linksgatev1.ListGroupsResponse)); len(listed.GetGroups()) != 1 {
		t.Errorf("the list of groups is %v", listed)
	}
	// What is not in the body of a PATCH stays as it is, also beside what is.
	call(t, g, http.MethodPatch, group, `{"filter":{"kinds":["NOTIFICATION_KIND_SMS_RECEIVED"]}}`, new(linksgatev1.UpdateGroupResponse))
	call(t, g, http.MethodPatch, group+"?updateMask=lease_duration", `{"name":"billing","leaseDuration":"50s","maxAttempts":7}`, new(linksgatev1.UpdateGroupResponse))
	call(t, g, http.MethodPatch, group+"?updateMask=leaseDuration,filter", `{"leaseDuration":"60s","maxAttempts":7,"filter":{"kinds":["NOTIFICATION_KIND_SMS_RECEIVED"]}}`,
		new(linksgatev1.UpdateGroupResponse))
	got := call(t, g, http.MethodGet, group, "", new(linksgatev1.GetGroupResponse)).GetGroup()
	if got.GetMaxAttempts() != 3 || got.GetLeaseDuration().GetSeconds() != 60 || len(got.GetFilter().GetKinds()) != 1 || got.GetStatus() == nil {
		t.Errorf("after two changes the group is %v", got)
	}

	fetch := func(most int) []*linksgatev1.Lease {
		t.Helper()
		var all []*linksgatev1.Lease
		for len(all) < most {
			response := call(t, g, http.MethodPost, group+":fetch", fmt.Sprintf(`{"maxLeases":%d,"wait":"30s","clientName":"by HTTP"}`, most-len(all)),
				new(linksgatev1.FetchResponse))
			if len(response.GetLeases()) == 0 {
				t.Fatalf("%d leases of %d", len(all), most)
			}
			all = append(all, response.GetLeases()...)
		}
		return all
	}
	leases := fetch(4)
	for i, lease := range leases {
		if lease.GetNotification().GetId() != delivered[i] {
			t.Errorf("lease %d is of %s; want %s", i, lease.GetNotification().GetId(), delivered[i])
		}
	}
	check := func(what string, results []*linksgatev1.LeaseResult) {
		t.Helper()
		for _, result := range results {
			if result.GetOutcome() != linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK {
				t.Errorf("%s: %v", what, result)
			}
		}
	}
	tokens := func(leases ...*linksgatev1.Lease) string {
		var quoted []string
		for _, lease := range leases {
			quoted = append(quoted, fmt.Sprintf("%q", lease.GetLeaseToken()))
		}
		return strings.Join(quoted, ",")
	}
	check("extended", call(t, g, http.MethodPost, group+":extendLeases", `{"leaseTokens":[`+tokens(leases[0])+`]}`,
		new(linksgatev1.ExtendLeasesResponse)).GetResults())
	check("acknowledged", call(t, g, http.MethodPost, group+":acknowledge", `{"leaseTokens":[`+tokens(leases[:2]...)+`]}`,
		new(linksgatev1.AcknowledgeResponse)).GetResults())
	check("rejected", call(t, g, http.MethodPost, group+":reject", fmt.Sprintf(
		`{"rejections":[{"leaseToken":%q,"park":true,"reason":"a reason"},{"leaseToken":%q,"park":true}]}`, leases[2].GetLeaseToken(), leases[3].GetLeaseToken()),
		new(linksgatev1.RejectResponse)).GetResults())

	parked := call(t, g, http.MethodGet, group+"/parked?pageSize=10", "", new(linksgatev1.ListParkedResponse)).GetParked()
	if len(parked) != 2 || parked[0].GetNotification().GetId() != delivered[2] || parked[0].GetDetail() != "a reason" {
		t.Fatalf("parked are %v", parked)
	}
	replayed := call(t, g, http.MethodPost, group+"/parked:replay", fmt.Sprintf(`{"notificationIds":[%q,%q]}`, delivered[2], delivered[0]),
		new(linksgatev1.ReplayParkedResponse))
	if replayed.GetReplayed() != 1 || !slices.Equal(replayed.GetNotParked(), delivered[:1]) {
		t.Errorf("replayed: %v", replayed)
	}
	again := fetch(1)
	if again[0].GetNotification().GetId() != delivered[2] {
		t.Errorf("after the replay %v is leased", again)
	}
	check("acknowledged", call(t, g, http.MethodPost, group+":acknowledge", `{"leaseTokens":[`+tokens(again...)+`]}`,
		new(linksgatev1.AcknowledgeResponse)).GetResults())
	if purged := call(t, g, http.MethodPost, group+"/parked:purge", `{"all":true}`, new(linksgatev1.PurgeParkedResponse)); purged.GetPurged() != 1 {
		t.Errorf("purged: %v", purged)
	}
	call(t, g, http.MethodPost, group+":seek", `{"to":{"earliest":true}}`, new(linksgatev1.SeekGroupResponse))
	if again := fetch(1); again[0].GetNotification().GetId() != delivered[0] {
		t.Errorf("after the seek %v is leased", again)
	}
	call(t, g, http.MethodDelete, group, "", new(linksgatev1.DeleteGroupResponse))
	a := g.rest(t, http.MethodGet, group, nil, "")
	if checkError(t, "deleted", restError(t, "deleted", a), codes.NotFound, "NO_SUCH_GROUP"); a.status != http.StatusNotFound {
		t.Errorf("a deleted group is answered with %d", a.status)
	}
}

// TestRESTErrors requires that everything that goes wrong is told as a google.rpc.Status with an ErrorInfo.
func TestRESTErrors(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	g.deliverSMS(t, 1, 1)
	other := startGateway(t, testConfig(t))
	foreign := other.info(t).GetLogId() + "-4096"
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	accept := func(types string) http.Header { return http.Header{"Accept": {types}} }
	for _, tt := range []struct {
		name, method, path string
		header             http.Header
		body               string
		status             int
		reason, text       string
	}{
		{"no path", "GET", "/", nil, "", 404, "NO_SUCH_PATH", "/openapi.json"},
		{"no such path", "GET", "/v1/notification", nil, "", 404, "NO_SUCH_PATH", ""},
		{"a path below", "GET", "/v1/log/", nil, "", 404, "NO_SUCH_PATH", ""},
		{"no such verb", "POST", "/v1/groups/a:fetches", nil, "{}", 404, "NO_SUCH_PATH", ""},
		{"wrong method of a verb", "GET", "/v1/groups/a:fetch", nil, "", 405, "METHOD_NOT_ALLOWED", "POST, OPTIONS are"},
		{"wrong method", "POST", "/v1/log", nil, "", 405, "METHOD_NOT_ALLOWED", "GET, HEAD, OPTIONS"},
		{"wrong method of a stream", "POST", "/v1/notifications:subscribe", nil, "{}", 405, "METHOD_NOT_ALLOWED", "GET"},
		{"a method in a header", "POST", "/v1/log", http.Header{"X-Http-Method-Override": {"GET"}}, "", 405, "METHOD_NOT_ALLOWED", ""},
		{"a form for a GET", "POST", "/v1/notifications", form, "pageSize=1", 405, "METHOD_NOT_ALLOWED", ""},
		{"unknown method", "BREW", "/v1/log", nil, "", 405, "METHOD_NOT_ALLOWED", ""},
		{"not JSON wanted", "GET", "/v1/log", accept("text/html"), "", 406, "NOT_ACCEPTABLE", "application/json"},
		{"no JSON wanted", "GET", "/v1/log", accept("application/json;q=0, */*"), "", 406, "NOT_ACCEPTABLE", ""},
		{"no stream wanted", "GET", "/v1/notifications:subscribe", accept("application/json"), "", 406, "NOT_ACCEPTABLE", "text/event-stream"},
		{"a form", "POST", "/v1/groups", form, `{"group":{"name":"a"}}`, 415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type: application/json"},
		{"no type", "POST", "/v1/groups", http.Header{}, `{"group":{"name":"a"}}`, 415, "UNSUPPORTED_MEDIA_TYPE", ""},
		{"no body", "POST", "/v1/groups", jsonBody, "", 400, "INVALID_ARGUMENT", "{}"},
		{"a body for a GET", "GET", "/v1/log", jsonBody, `{}`, 400, "INVALID_ARGUMENT", "body"},
		{"too large", "POST", "/v1/groups", nil, `"` + strings.Repeat("x", 4<<20) + `"`, 413, "TOO_LARGE", "4194304"},
		{"not JSON", "POST", "/v1/groups", nil, `{"group":`, 400, "INVALID_ARGUMENT", ""},
		{"two documents", "POST", "/v1/groups", nil, `{"group":{"name":"a"}}{}`, 400, "INVALID_ARGUMENT", "after"},
		{"unknown member", "POST", "/v1/groups", nil, `{"group":{"name":"a","lease":"5s"}}`, 400, "INVALID_ARGUMENT", "lease"},
		{"member twice", "POST", "/v1/groups", nil, `{"group":{"name":"a","name":"b"}}`, 400, "INVALID_ARGUMENT", "name"},
		{"wrong type", "POST", "/v1/groups", nil, `{"group":{"name":5}}`, 400, "INVALID_ARGUMENT", ""},
		{"text that is not UTF-8", "POST", "/v1/groups", nil, "{\"group\":{\"name\":\"\xff\"}}", 400, "INVALID_ARGUMENT", ""},
		{"a query beside a body", "POST", "/v1/groups/a:fetch?maxLeases=1", nil, `{}`, 400, "INVALID_ARGUMENT", "maxLeases"},
		{"unknown parameter", "GET", "/v1/notifications?filter.kind=NOTIFICATION_KIND_CUBE", nil, "", 400, "INVALID_ARGUMENT", "filter.kind"},
		{"unknown parameter of a stream", "GET", "/v1/notifications:subscribe?form=latest", nil, "", 400, "INVALID_ARGUMENT", "form"},
		{"a parameter of the path", "GET", "/v1/notifications/" + g.LogID + "-4096?id=1", nil, "", 400, "INVALID_ARGUMENT", "id"},
		{"a member of the body of a PATCH", "PATCH", "/v1/groups/a?group.max_attempts=5", nil, `{}`, 400, "INVALID_ARGUMENT", "group.max_attempts"},
		{"another group in the body of a PATCH", "PATCH", "/v1/groups/a", nil, `{"name":"b","maxAttempts":3}`, 400, "INVALID_ARGUMENT", `it is "b", and group_name "a"`},
		{"another group in the body", "POST", "/v1/groups/a:seek", nil, `{"groupName":"b","to":{"earliest":true}}`, 400, "INVALID_ARGUMENT", `"a" in the path and "b" in the body`},
		{"another group to purge", "POST", "/v1/groups/a/parked:purge", nil, `{"gro\u0075pName":"b","all":true}`, 400, "INVALID_ARGUMENT", `"a" in the path and "b" in the body`},
		{"another entry in the body", "POST", "/v1/quarantine/entries/a-q1:purge", nil, `{"id":"a-q2"}`, 400, "INVALID_ARGUMENT", `"a-q1" in the path and "a-q2" in the body`},
		{"a parameter of nothing", "GET", "/v1/log?verbose", nil, "", 400, "INVALID_ARGUMENT", "verbose"},
		{"not a kind", "GET", "/v1/notifications?filter.kinds=SMS", nil, "", 400, "INVALID_ARGUMENT", "SMS"},
		{"not a number", "GET", "/v1/notifications?pageSize=-1", nil, "", 400, "INVALID_ARGUMENT", "page_size"},
		{"twice", "GET", "/v1/notifications?pageSize=1&pageSize=2", nil, "", 400, "INVALID_ARGUMENT", "page_size"},
		{"two starts", "GET", "/v1/notifications:subscribe?start.latest=true&start.earliest=true", nil, "", 400, "INVALID_ARGUMENT", "position"},
		{"a start that is none", "GET", "/v1/notifications:subscribe?start.latest=false", nil, "", 400, "INVALID_ARGUMENT", "latest"},
		{"not a duration", "GET", "/v1/notifications:subscribe?heartbeatInterval=5", nil, "", 400, "INVALID_ARGUMENT", "heartbeat_interval"},
		{"out of bounds", "GET", "/v1/notifications:subscribe?heartbeatInterval=1ms", nil, "", 400, "INVALID_ARGUMENT", "heartbeat_interval"},
		{"a path that is not UTF-8", "GET", "/v1/notifications/%ff", nil, "", 400, "INVALID_ARGUMENT", "UTF-8"},
		{"a query that is not UTF-8", "GET", "/v1/notifications?filter.iccids=%ff", nil, "", 400, "INVALID_ARGUMENT", "UTF-8"},
		{"a query that is none", "GET", "/v1/notifications?a=%zz", nil, "", 400, "INVALID_ARGUMENT", "query"},
		{"a query with semicolons", "GET", "/v1/notifications?pageSize=1;pageToken=a", nil, "", 400, "INVALID_ARGUMENT", "query"},
		{"not an id", "GET", "/v1/notifications/a", nil, "", 400, "INVALID_ARGUMENT", "id"},
		{"no such notification", "GET", "/v1/notifications/" + g.LogID + "-8192", nil, "", 404, "NOT_FOUND", ""},
		{"of another log", "GET", "/v1/notifications/" + foreign, nil, "", 400, "OTHER_LOG", ""},
		{"a number for an enum", "POST", "/v1/quarantine/entries/" + g.LogID + "-q1:release", nil, `{"asKind":0}`, 400, "INVALID_ARGUMENT", ""},
		{"a number for an enum in a group", "PATCH", "/v1/groups/a", nil, `{"ordering":1}`, 400, "INVALID_ARGUMENT", ""},
		{"a number for an enum deep down", "POST", "/v1/groups", nil, `{"group":{"name":"a","filter":{"kinds":[3]}}}`, 400, "INVALID_ARGUMENT", ""},
		{"no such group", "GET", "/v1/groups/nobody", nil, "", 404, "NO_SUCH_GROUP", ""},
		{"no such entry", "POST", "/v1/quarantine/entries/" + g.LogID + "-q1:purge", nil, "{}", 404, "NOT_FOUND", ""},
	} {
		a := g.rest(t, tt.method, tt.path, tt.header, tt.body)
		err := restError(t, tt.name, a)
		info := checkError(t, tt.name, err, status.Code(err), tt.reason)
		if a.status != tt.status || info == nil || !strings.Contains(status.Convert(err).Message(), tt.text) {
			t.Errorf("%s: %d %s; want %d with %q", tt.name, a.status, a.body, tt.status, tt.text)
		}
		if allowed := a.header.Get("Allow"); (allowed != "") != (tt.status == http.StatusMethodNotAllowed) {
			t.Errorf("%s: allowed are %q", tt.name, allowed)
		}
	}
}

// TestRESTBodiesThatBreakOff requires an answer to a body that HTTP itself cannot read.
func TestRESTBodiesThatBreakOff(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	c := openConnTo(t, g.REST.String())
	c.write(t, "POST /v1/groups HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\n")
	a := c.answer(t)
	if checkError(t, "a bad chunk", restError(t, "a bad chunk", a), codes.InvalidArgument, "INVALID_ARGUMENT"); a.status != http.StatusBadRequest {
		t.Errorf("a bad chunk is answered with %d", a.status)
	}
}

// TestRESTPassesOverOtherHeaders requires that headers that mean something to gRPC, and to grpc-gateway, mean nothing here.
func TestRESTPassesOverOtherHeaders(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for name, value := range map[string]string{
		"Grpc-Timeout": "1n", "Grpc-Metadata-A-Bin": "*", "Te": "trailers", "Authorization": "Bearer x", "Content-Type": "?",
	} {
		a := g.rest(t, http.MethodGet, "/v1/log", http.Header{name: {value}}, "")
		if a.status != http.StatusOK || a.header.Get("Content-Length") == "" {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
}

func TestRESTHeadAndOptions(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for path, want := range map[string]string{
		"/v1/log":                     "GET, HEAD, OPTIONS",
		"/v1/groups/a":                "DELETE, GET, PATCH, HEAD, OPTIONS",
		"/v1/groups/a:fetch":          "POST, OPTIONS",
		"/v1/groups/a/parked:replay":  "POST, OPTIONS",
		"/v1/notifications:subscribe": "GET, HEAD, OPTIONS",
		"/openapi.json":               "GET, HEAD, OPTIONS",
	} {
		if a := g.rest(t, http.MethodOptions, path, nil, ""); a.status != http.StatusNoContent || a.header.Get("Allow") != want {
			t.Errorf("OPTIONS %s: %d %v; want %s", path, a.status, a.header, want)
		}
	}
	for path, want := range map[string]struct {
		status      int
		contentType string
	}{
		"/v1/log":                     {200, "application/json"},
		"/v1/notifications:subscribe": {200, "application/x-ndjson"}, // and it ends
		"/v1/notifications:subscribe?start.earliest=": {400, "application/json"},
		"/v1/notifications/" + g.LogID + "-4096000":   {404, "application/json"},
		"/openapi.json": {200, "application/json"},
	} {
		a := g.rest(t, http.MethodHead, path, nil, "")
		if a.status != want.status || a.header.Get("Content-Type") != want.contentType || a.body != "" {
			t.Errorf("HEAD %s: %d %v %q; want %v", path, a.status, a.header, a.body, want)
		}
	}
	if a := g.rest(t, http.MethodOptions, "/v1/nothing", nil, ""); a.status != http.StatusNotFound {
		t.Errorf("OPTIONS of nothing: %d", a.status)
	}
}

// TestRESTRefusesPagesOfOthers requires that a page of another origin, in a browser that reaches the address, changes nothing.
func TestRESTRefusesPagesOfOthers(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for name, tt := range map[string]struct {
		header http.Header
		status int // 404: it is looked for
	}{
		"no browser":     {http.Header{}, http.StatusNotFound},
		"same origin":    {http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"https://gateway"}}, http.StatusNotFound},
		"another origin": {http.Header{"Sec-Fetch-Site": {"cross-site"}}, http.StatusForbidden},
		"an old browser": {http.Header{"Origin": {"https://elsewhere"}}, http.StatusForbidden},
	} {
		tt.header.Set("Content-Type", "application/json")
		a := g.rest(t, http.MethodPost, "/v1/quarantine/entries/"+g.LogID+"-q1:purge", tt.header, "{}")
		if a.status != tt.status {
			t.Errorf("%s: %d %s; want %d", name, a.status, a.body, tt.status)
		}
		if tt.status == http.StatusForbidden {
			checkError(t, name, restError(t, name, a), codes.PermissionDenied, "CROSS_ORIGIN")
		}
	}
}

// TestPagesUnderOtherNamesAreRefused requires that a page whose name was made to resolve to the gateway's address gets nothing, on
// loopback always and elsewhere when the names of the gateway are configured, and that those who may ask get what they did before.
func TestPagesUnderOtherNamesAreRefused(t *testing.T) {
	t.Parallel()
	loopback := startGateway(t, testConfig(t))
	cfg := testConfig(t)
	cfg.REST.AllowedHosts = []string{"Gateway.example.", "linksgate_upstream"}
	named := startGateway(t, cfg)

	cfg = testConfig(t)
	cfg.Listen.REST, cfg.Listen.Admin = "0.0.0.0:0", "0.0.0.0:0"
	cfg.Listen.Plaintext, cfg.Access = []string{"rest", "admin"}, everybodyMay()
	open := startGateway(t, cfg)
	cfg.Log.Dir, cfg.REST.AllowedHosts = t.TempDir(), named.config.REST.AllowedHosts
	openNamed := startGateway(t, cfg)
	other := otherAddress(t)
	elsewhere := func(address net.Addr) string {
		return net.JoinHostPort(other, strconv.Itoa(address.(*net.TCPAddr).Port))
	}

	ask := func(address, request string) answer {
		c := openConnTo(t, address)
		c.write(t, request)
		return c.answer(t)
	}
	askFor := func(host, address, path string) answer {
		return ask(address, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	}
	always := []string{
		"localhost", "localhost:9092", "LocalHost.:80", "127.0.0.1", "127.0.0.1:9092", "[::1]:9092", "[fe80::1%25eth0]", "192.0.2.7:1", "127.0.0.1.",
	}
	never := []string{
		"page.example", "page.example:9092", "127.0.0.1.page.example", "localhost.page.example", "page.localhost", "gateway.example.page.example",
		":9092",
	}
	ours := []string{"gateway.example", "GATEWAY.EXAMPLE.:443", "linksgate_upstream"}
	for name, tt := range map[string]struct {
		rest, admin string // addresses
		allows      []string
		refuses     []string // by REST
		admits      bool     // also by administration
	}{
		"loopback":                  {loopback.REST.String(), loopback.Admin.String(), always, slices.Concat(never, ours), false},
		"loopback, names":           {named.REST.String(), named.Admin.String(), slices.Concat(always, ours), never, false},
		"all addresses, loopback":   {fmt.Sprintf("127.0.0.1:%d", open.REST.(*net.TCPAddr).Port), "", always, slices.Concat(never, ours), false},
		"all addresses, from other": {elsewhere(open.REST), elsewhere(open.Admin), slices.Concat(always, ours, never[:5]), nil, true},
		"names, from other":         {elsewhere(openNamed.REST), elsewhere(openNamed.Admin), slices.Concat(always, ours), never, true},
	} {
		if other == "" && strings.HasSuffix(name, "from other") {
			t.Logf("%s: this machine has no IPv4 address but loopback", name)
			continue
		}
		for _, host := range tt.allows {
			if a := askFor(host, tt.rest, "/v1/log"); a.status != http.StatusOK {
				t.Errorf("%s: asking for %s is answered with %d %s", name, host, a.status, a.body)
			}
		}
		for _, host := range tt.refuses {
			a := askFor(host, tt.rest, "/v1/log")
			err := restError(t, name, a)
			checkError(t, name, err, codes.PermissionDenied, "HOST_NOT_ALLOWED")
			if a.status != http.StatusMisdirectedRequest || !strings.Contains(a.body, "rest.allowed_hosts") {
				t.Errorf("%s: asking for %s is answered with %d %s", name, host, a.status, a.body)
			}
		}
		if tt.admin == "" {
			continue
		}
		for _, path := range []string{"/healthz", "/secrets"} {
			for _, host := range tt.allows {
				if a := askFor(host, tt.admin, path); a.status != http.StatusOK {
					t.Errorf("%s: asking administration for %s is answered with %d %s", name, host, a.status, a.body)
				}
			}
			for _, host := range tt.refuses {
				a := askFor(host, tt.admin, path)
				if tt.admits != (a.status == http.StatusOK) || !tt.admits && !strings.Contains(a.body, "rest.allowed_hosts") {
					t.Errorf("%s: asking administration for %s is answered with %d %s", name, host, a.status, a.body)
				}
			}
		}
	}

	if a := ask(loopback.Admin.String(), "GET /healthz HTTP/1.0\r\n\r\n"); a.status != http.StatusOK {
		t.Errorf("a health check in HTTP/1.0 is answered with %d %s", a.status, a.body)
	}
	if a := ask(loopback.REST.String(), "GET http://page.example/v1/log HTTP/1.1\r\nHost: localhost\r\n\r\n"); a.status != http.StatusMisdirectedRequest {
		t.Errorf("another name in the request line is answered with %d %s", a.status, a.body)
	}
	_, metrics := loopback.admin(t, "/metrics")
	if want := fmt.Sprintf(`linksgate_rest_requests_total{code="421",method="get"} %d`, len(never)+len(ours)+1); !strings.Contains(metrics, want) {
		t.Errorf("the metrics do not say %s", want)
	}
}

// otherAddress returns an IPv4 address of this machine that is not loopback, or "".
func otherAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.To4() != nil && !network.IP.IsLoopback() {
			return network.IP.String()
		}
	}
	return ""
}

// TestOpenAPIDescribesEveryCall compares the document that is served with the services.
func TestOpenAPIDescribesEveryCall(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	a := g.rest(t, http.MethodGet, "/openapi.json", nil, "")
	var document struct {
		Paths map[string]map[string]struct {
			OperationID string
			Produces    []string
		}
	}
	if err := json.Unmarshal([]byte(a.body), &document); err != nil {
		t.Fatal(err)
	}
	described := make(map[string]bool)
	for _, methods := range document.Paths {
		for _, operation := range methods {
			described[operation.OperationID] = true
		}
	}
	want := make(map[string]bool)
	for _, service := range []grpc.ServiceDesc{
		linksgatev1.NotificationService_ServiceDesc, linksgatev1.GroupService_ServiceDesc, linksgatev1.QuarantineService_ServiceDesc,
		linksgatev1.ErasureService_ServiceDesc, linksgatev1.WorkerService_ServiceDesc, linksgatev1.AuditService_ServiceDesc,
	} {
		name := service.ServiceName[strings.LastIndexByte(service.ServiceName, '.')+1:]
		for _, method := range service.Methods {
			want[name+"_"+method.MethodName] = true
		}
	}
	want["NotificationService_Subscribe"] = true
	delete(want, "WorkerService_Leave") // only Consume, which is not served over REST, has members to leave
	if forms := document.Paths["/v1/notifications:subscribe"]["get"].Produces; !slices.Equal(forms, []string{
		"application/x-ndjson", "text/event-stream", "application/json", // the last one for errors
	}) {
		t.Errorf("a subscription is described as %v", forms)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(described))); diff != "" {
		t.Errorf("- calls, + described:\n%s", diff)
	}
}

// TestRESTBehindTLS requires that REST works over TLS, in both versions of HTTP, beside a gRPC address that asks for client
// certificates, which REST then does not need, and which gRPC clients still do.
func TestRESTBehindTLS(t *testing.T) {
	t.Parallel()
	certificate, key := writeCertificate(t)
	cfg := testConfig(t)
	cfg.REST.TLS = &config.TLS{CertFile: certificate, KeyFile: key}
	cfg.GRPC.TLS = &config.TLS{CertFile: certificate, KeyFile: key, ClientCAFile: certificate}
	g := startGateway(t, cfg)
	text, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	for _, version := range []int{1, 2} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: version == 2}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport, Timeout: patience}
		for _, path := range []string{"/v1/log", "/v1/notifications:subscribe?untilHead=true"} {
			response, err := client.Get("https://" + g.REST.String() + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK || response.ProtoMajor != version || !strings.Contains(string(body), g.LogID) {
				t.Errorf("%s over HTTP/%d: %s, %v, %s", path, version, response.Status, err, body)
			}
		}
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	for want, certificates := range map[codes.Code][]tls.Certificate{codes.OK: {pair}, codes.Unavailable: nil} {
		cfg := &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS12}
		conn, err := grpc.NewClient(g.GRPC.String(), grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = linksgatev1.NewNotificationServiceClient(conn).GetLogInfo(t.Context(), &linksgatev1.GetLogInfoRequest{})
		if status.Code(err) != want {
			t.Errorf("gRPC with %d client certificates: %v; want %v", len(certificates), err, want)
		}
	}
}
