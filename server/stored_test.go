package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/config"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

// The key of Linksfield's published sample for the hmac-sha1 scheme.
const (
	vectorKeyID = "Ou8a5lyzPjN86ikmLeFC"
	vectorKey   = "3QY0I6jA6jOfeIQbOde3CG2DeOllV1zufpFR393my78h3tCn7P1IfyUIhV3cS8ks"
)

// readExample returns a body from testdata, byte for byte.
func readExample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestLinksfieldsExamples sends what Linksfield prints in its documentation, signed by its rules: these are the bytes that a
// gateway must not get wrong.
func TestLinksfieldsExamples(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Accounts["vectors"] = config.Account{
		MD5Secrets: []config.Secret{secret(t, "signing-page", "xGl64jNW4B223SSDAsddgh=n"), secret(t, "derived", "secret")},
		HMACKeys:   []config.HMACKey{{ID: vectorKeyID, Secret: secret(t, "sample", vectorKey)}},
	}
	g := startGateway(t, cfg)
	device := &linksgatev1.DeviceWarningItem{
		Iccid: "89314404000816575667", WarningCode: "1", Warning: linksgatev1.DeviceWarningCode_DEVICE_WARNING_CODE_NO_PLAN,
	}
	byMD5 := func(secret string) *linksgatev1.Verification {
		return &linksgatev1.Verification{
			Status: linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED,
			Scheme: linksgatev1.SignatureScheme_SIGNATURE_SCHEME_MD5, SecretName: secret, Reading: "members",
		}
	}
	for _, tt := range []struct {
		name, kind, body string
		header           http.Header
		want             *linksgatev1.Notification
	}{
		{
			name: "the sample of the hmac-sha1 scheme", kind: "cube", body: `{"name": "liguoli","age": 18}`,
			header: http.Header{
				"X-Lf-Notification-Version": {"1.0"}, "X-Lf-Algo": {"HMAC-SHA1"}, "X-Lf-Timestamp": {"12345648444"},
				"X-Lf-Signature": {vectorKeyID + "/pnWR3hcrEXQWV8S+RY0DMjEN9ec="},
			},
			want: &linksgatev1.Notification{
				Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE,
				Verification: &linksgatev1.Verification{
					Status: linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED,
					Scheme: linksgatev1.SignatureScheme_SIGNATURE_SCHEME_HMAC_SHA1,
					KeyId:  vectorKeyID, SecretName: "sample", Reading: "sorted",
				},
				// Its timestamp is not typed: eleven digits could be seconds.
				Payload: &linksgatev1.Notification_CubeEvent{CubeEvent: &linksgatev1.CubeEvent{
					Fields: map[string]string{"name": "liguoli", "age": "18"},
				}},
			},
		},
		{
			name: "the signing page's MO SMS", kind: "sms-received", body: readExample(t, "sms_signing_example.json"),
			header: http.Header{"X-Lf-Md5": {"MWExNWQ3YTY0YTNhNDU5YWY3N2M2NjE4YjlhMGE3NzM="}},
			want: &linksgatev1.Notification{
				Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, Verification: byMD5("signing-page"),
				Iccids: []string{"89000000000001"}, PartnerCode: "P002671",
				Payload: &linksgatev1.Notification_SmsReceived{SmsReceived: &linksgatev1.SmsReceived{
					Iccid: "89000000000001", Imsi: "8900000000000010", PartnerCode: "P002671", Text: "device status: 1234",
					ReceivedAtText: "2022-01-19T201101",
				}},
			},
		},
		{
			name: "the binary MO SMS, printed without a comma", kind: "sms-received", body: readExample(t, "sms_printed_example.txt"),
			header: http.Header{"X-Lf-Md5": {"OGM0NmQ0ODJiOGJlNjE0OWYzMzYwMmQzZGU4NDY4OGQ="}},
			want: &linksgatev1.Notification{
				Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, Verification: byMD5("derived"),
				Iccids: []string{"89860220190123456789"}, PartnerCode: "P123456",
				Payload: &linksgatev1.Notification_SmsReceived{SmsReceived: &linksgatev1.SmsReceived{
					Iccid: "89860220190123456789", Imsi: "4230001234567", PartnerCode: "P123456", Text: "发送短信内容",
					MessageType:     linksgatev1.SmsMessageType_SMS_MESSAGE_TYPE_BINARY,
					MessageTypeText: "Binary",
					ReceivedAt:      timestamppb.New(time.UnixMilli(1642385160000)), ReceivedAtText: "1642385160000",
				}},
			},
		},
		{
			name: "the Mall's device warning", kind: "mall-device-warning", body: readExample(t, "device_warning_example.json"),
			header: http.Header{"X-Lf-Md5": {"MjI3YzA5NTNiMzQ0MDBkZjhlODFlZmZlZjVjMGE2ZDU="}},
			want: &linksgatev1.Notification{
				Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING, Verification: byMD5("derived"),
				Iccids: []string{"89314404000816575667"},
				Payload: &linksgatev1.Notification_DeviceWarning{DeviceWarning: &linksgatev1.DeviceWarning{
					Devices: []*linksgatev1.DeviceWarningItem{device, device, device},
				}},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := "/linksfield/vectors/" + tt.kind
			id := g.deliver(t, path, simulator.Notification{Header: tt.header, Body: []byte(tt.body)})
			tt.want.Id, tt.want.Account = id, "vectors"
			tt.want.Raw = &linksgatev1.Notification_Body{Body: tt.body}
			tt.want.ContentDigest = digest(tt.body)
			if diff := cmp.Diff(tt.want, g.get(t, id), protocmp.Transform(),
				protocmp.IgnoreFields(&linksgatev1.Notification{}, "token", "sequence", "received_at", "headers", "duplicate_key")); diff != "" {
				t.Errorf("stored, - as it should be, + as it is:\n%s", diff)
			}
		})
	}
}

func digest(body string) string {
	sum := sha256.Sum256([]byte(body))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func TestEveryKindIsReceivedAtItsURL(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	delete(cfg.Accounts["acme"].Kinds, "mall-recharge-success") // only from elsewhere
	g := startGateway(t, cfg)
	urls := 0
	for _, url := range g.URLs {
		if url.Account != "acme" {
			continue
		}
		urls++
		t.Run(url.Kind, func(t *testing.T) {
			kind := linksgatev1.NotificationKind(linksgatev1.NotificationKind_value["NOTIFICATION_KIND_"+strings.ReplaceAll(strings.ToUpper(url.Kind), "-", "_")])
			made, err := linksfield.Make(kind, 1)
			if err != nil {
				t.Fatal(err)
			}
			path := strings.TrimPrefix(url.Text, "http://"+g.Webhook.String())
			if url.PathToken {
				path += "/" + orderToken
			}
			n := g.get(t, g.deliver(t, path, made))
			if n.GetKind() != kind || n.GetAccount() != "acme" || n.GetUnrecognized() != nil || n.GetPayload() == nil {
				t.Errorf("stored as %v", n)
			}
		})
	}
	if all := len(linksgatev1.NotificationKind_name) - 1; urls != all {
		t.Errorf("%d URLs of acme; want one for each of %d kinds", urls, all)
	}
}

func TestUnsignedNotificationsOfAGuardedURL(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	unsigned := simulator.Sender{Unsigned: true}
	order, err := unsigned.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS, 3)
	if err != nil {
		t.Fatal(err)
	}
	signedOrder, err := linksfield.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS, 3)
	if err != nil {
		t.Fatal(err)
	}
	forgedAlarm, err := linksfield.Forger().Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_MARKETPLACE_ALARM, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path string
		n          simulator.Notification
		want       linksgatev1.VerificationStatus
	}{
		{"no signature, may be missing", orderPath + "/" + orderToken, order, linksgatev1.VerificationStatus_VERIFICATION_STATUS_UNSIGNED},
		{"right signature, may be missing", orderPath + "/" + orderToken, signedOrder, linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED},
		{"wrong signature, not looked at", "/linksfield/acme/marketplace-alarm", forgedAlarm, linksgatev1.VerificationStatus_VERIFICATION_STATUS_UNSIGNED},
	} {
		if v := g.get(t, g.deliver(t, tt.path, tt.n)).GetVerification(); v.GetStatus() != tt.want {
			t.Errorf("%s: %v; want %v", tt.name, v, tt.want)
		}
	}
}

func TestSecretsBeforeAndAfterAChangeAreValid(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for i, tt := range []struct {
		want   string
		sender simulator.Sender
		kind   linksgatev1.NotificationKind
		path   string
	}{
		{"md5", linksfield, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, smsPath},
		{"md5-before", simulator.Sender{MD5: signature.Secret{Value: md5OldSecret}}, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, smsPath},
		{"hmac", linksfield, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, cubePath},
		{"hmac-before", simulator.Sender{KeyID: hmacKeyID, HMAC: signature.Secret{Value: hmacOld}}, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, cubePath},
	} {
		made, err := tt.sender.Make(tt.kind, uint64(i)) // no copies
		if err != nil {
			t.Fatal(err)
		}
		if v := g.get(t, g.deliver(t, tt.path, made)).GetVerification(); v.GetSecretName() != tt.want {
			t.Errorf("verified by %v; want the secret %s", v, tt.want)
		}
	}
}

func TestHeadersThatMatterAreKept(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	sms := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, markedBody)
	header := sms.Header.Clone()
	header["X-Lf-Delivery"] = []string{"second", "first", "second"}
	header["X-Lf-Other"] = []string{"caf\xe9"}
	header["X-Lf-Md5"] = []string{header.Get("X-Lf-Md5"), header.Get("X-Lf-Md5")}
	header["Authorization"] = []string{"not kept"}
	header["Traceparent"] = []string{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
	header["Tracestate"] = []string{"a=1", "b=2"}
	before := time.Now()
	n := g.get(t, g.deliver(t, smsPath, simulator.Notification{Header: header, Body: sms.Body}))
	sum := sms.Header.Get("X-Lf-Md5")
	want := &linksgatev1.Notification{
		Headers: []*linksgatev1.RequestHeader{
			{Name: "content-type", Value: "application/json"},
			{Name: "x-lf-delivery", Value: "second"}, {Name: "x-lf-delivery", Value: "first"}, {Name: "x-lf-delivery", Value: "second"},
			{Name: "x-lf-md5", Value: sum}, {Name: "x-lf-md5", Value: sum},
			{Name: "x-lf-other", Value: "caf\uFFFD"},
		},
		TraceContext: &linksgatev1.TraceContext{Traceparent: header.Get("Traceparent"), Tracestate: "a=1,b=2"},
	}
	got := &linksgatev1.Notification{Headers: n.GetHeaders(), TraceContext: n.GetTraceContext()}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("headers, - as they should be, + as they are:\n%s", diff)
	}
	if at := n.GetReceivedAt().AsTime(); at.Before(before) || at.After(time.Now()) {
		t.Errorf("received at %v, which is not between %v and now", at, before)
	}
}

func TestBodiesAreKeptByteForByte(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for name, body := range map[string]string{
		"white space":     " {\r\n\t\"text_message\" : \"a\" }\n\n",
		"escapes":         `{"text_message":"\u00e9\/\ud83d\ude00\u2028","b":"\u0000"}`,
		"numbers":         `{"a":1.0,"b":1E400,"c":-0,"d":12345678901234567890123}`,
		"no document":     `{}`,
		"missing comma":   `{"a":"1" "b":"2"}`,
		"not ASCII":       `{"text_message":"发送短信内容 <&> é","partner_code":null}`,
		"order of keys":   `{"z":"1","a":{"z":[],"a":{}}}`,
		"at the limit":    `{"text_message":"` + strings.Repeat("é", 128<<10-10) + `"}`,
		"documented name": `{"sim_id":{"not":"text"},"imsi":[1,"2"]}`,
	} {
		n := g.get(t, g.deliver(t, smsPath, signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body)))
		if n.GetBody() != body || n.GetContentDigest() != digest(body) {
			t.Errorf("%s: stored with the digest %s: %.100q", name, n.GetContentDigest(), n.GetBody())
		}
	}
	// The same bytes may be two events.
	same := makeSMS(t, 1)
	if first, second := g.deliver(t, smsPath, same), g.deliver(t, smsPath, same); first == second {
		t.Errorf("two deliveries of the same bytes are both %s", first)
	}
}

// TestBodiesThatGrowAreStored sends bodies whose typed form is far larger than they are. It may be left out, the body not.
func TestBodiesThatGrowAreStored(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	var members strings.Builder
	for n := 0; members.Len() < 256<<10-20; n++ {
		fmt.Fprintf(&members, `"%05d":1,`, n)
	}
	long := strings.Repeat("8", 250<<10)
	for _, tt := range []struct {
		name, path   string
		kind         linksgatev1.NotificationKind
		body         string
		unrecognized bool
	}{
		{"very many members", smsPath, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, "{" + members.String() + `"last":1}`, false},
		{"an ICCID that is kept four times", "/linksfield/acme/mall-device-warning", linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING,
			`{"devices":[1,{"deviceId":"` + long + `"}]}`, true},
	} {
		n := g.get(t, g.deliver(t, tt.path, signed(t, tt.kind, tt.body)))
		if n.GetBody() != tt.body || (n.GetUnrecognized() != nil) != tt.unrecognized {
			t.Errorf("%s: %d bytes are stored as %d, payload %.200v", tt.name, len(tt.body), len(n.GetBody()), n.GetPayload())
		}
	}
}

func TestBodiesThatCannotBeTypedAreStored(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for _, body := range []string{`[]`, `["` + bodyMark + `"]`, `"text"`, `null`, `true`} {
		n := g.get(t, g.deliver(t, cubePath, signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, body)))
		if n.GetBody() != body || n.GetUnrecognized().GetReason() == "" {
			t.Errorf("%s: stored as %v", body, n)
		}
	}
}

func TestWhatWasAnsweredIsThereAfterARestart(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Log.Fsync = nil // as shipped
	g := startGateway(t, cfg)
	delivered := g.deliverSMS(t, 1, 20)
	want := g.list(t, &linksgatev1.ListNotificationsRequest{})
	id := g.LogID
	g.stop(t)

	again := startGateway(t, cfg)
	if again.LogID != id {
		t.Errorf("the log is %s after a restart; it was %s", again.LogID, id)
	}
	got := again.list(t, &linksgatev1.ListNotificationsRequest{})
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("- before, + after a restart:\n%s", diff)
	}
	if diff := cmp.Diff(delivered, ids(got)); diff != "" {
		t.Errorf("- answered, + stored:\n%s", diff)
	}
}

// TestAnswersAreJSON checks the answer to what was stored: its id, as the log has it.
func TestAnswersAreJSON(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	sms := makeSMS(t, 1)
	a := g.request(t, http.MethodPost, smsPath, sms.Header, bytes.NewReader(sms.Body))
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || !json.Valid([]byte(a.body)) {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	all := g.list(t, &linksgatev1.ListNotificationsRequest{})
	if len(all) != 1 || !proto.Equal(all[0], g.get(t, a.id(t))) {
		t.Errorf("%s was answered; the log has %v", a.body, all)
	}
}

// TestTheOperatorTeachesWhereASIMIs requires that filters and ordered groups know a SIM by the member that the operator has named, and by
// the shape of its ICCID where none is named; and that ICCIDs are compared without white space and filling.
func TestTheOperatorTeachesWhereASIMIs(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	alert := linksgatev1.NotificationKind_NOTIFICATION_KIND_DATA_USAGE_ALERT
	cfg.Accounts["acme"].Kinds["data-usage-alert"] = config.Kind{Fields: config.Fields{ICCID: []string{"card.id"}, PartnerCode: []string{"owner"}}}
	g := startGateway(t, cfg)
	send := func(kind linksgatev1.NotificationKind, path, body string) string {
		t.Helper()
		return g.deliver(t, "/linksfield/acme/"+path, signed(t, kind, body))
	}
	taught := send(alert, "data-usage-alert", `{"card":{"id":"8944 1100 6801 2345 679F"},"owner":"P1"}`)
	again := send(alert, "data-usage-alert", `{"card":{"id":8944110068012345679},"n":2}`)
	cube := linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE
	found := send(cube, "cube", `{"event":{"sim":"89860220190123456789"}}`)
	send(cube, "cube", `{"event":{"sim":8.986e19}}`)
	for name, tt := range map[string]struct {
		filter *linksgatev1.NotificationFilter
		want   []string
	}{
		"taught":                  {&linksgatev1.NotificationFilter{Iccids: []string{"8944110068012345679"}}, []string{taught, again}},
		"as it is written on SIM": {&linksgatev1.NotificationFilter{Iccids: []string{"8944 1100 6801 2345 679 F"}}, []string{taught, again}},
		"found":                   {&linksgatev1.NotificationFilter{Iccids: []string{"89860220190123456789"}}, []string{found}},
		"its partner":             {&linksgatev1.NotificationFilter{PartnerCodes: []string{"P1"}}, []string{taught}},
	} {
		var got []string
		for _, n := range g.list(t, &linksgatev1.ListNotificationsRequest{Filter: tt.filter}) {
			got = append(got, n.GetId())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v; want %v", name, got, tt.want)
		}
	}
	if n := g.get(t, found); !slices.Equal(n.GetFoundIccids(), []string{"89860220190123456789"}) {
		t.Errorf("found, and not marked so: %v", n)
	}
	r := g.group(t, &linksgatev1.Group{Ordering: linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM, Filter: &linksgatev1.NotificationFilter{
		Kinds: []linksgatev1.NotificationKind{alert},
	}})
	first := r.fetch(t, 1)
	if got := leased(first); !slices.Equal(got, []string{taught}) {
		t.Errorf("leased: %v", got)
	}
	response, err := r.Fetch(t.Context(), &linksgatev1.FetchRequest{GroupName: r.name, Wait: durationpb.New(3e8)})
	if err != nil || len(response.GetLeases()) > 0 {
		t.Errorf("two of one SIM are out: %v, %v", response, err)
	}
	r.acknowledge(t, tokens(first)...)
	if got := leased(r.fetch(t, 1)); !slices.Equal(got, []string{again}) {
		t.Errorf("leased next: %v", got)
	}
	cfg = testConfig(t)
	cfg.Accounts["acme"].Kinds["cube"] = config.Kind{Fields: config.Fields{IMSI: []string{"a..b"}}}
	if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), "accounts.acme.kinds.cube.fields.imsi") {
		t.Errorf("a bad path: %v", err)
	}
}
