package payload_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/payload"
)

// fields is the `fields` map of a payload.
type fields = map[string]string

// filled is what Fill sets, besides the payload.
type filled struct {
	iccids      []string
	partnerCode string
}

func TestFillSmsReceived(t *testing.T) {
	tests := []struct {
		name, body string
		want       *linksgatev1.SmsReceived
		filled     filled
	}{
		{"the signing example", readFile(t, "testdata/sms_signing_example.json"),
			&linksgatev1.SmsReceived{
				Iccid: "89000000000001", Imsi: "8900000000000010", PartnerCode: "P002671",
				Text: "device status: 1234", ReceivedAtText: "2022-01-19T201101",
			},
			filled{[]string{"89000000000001"}, "P002671"}},
		{"the printed example, which lacks a comma", readFile(t, "testdata/sms_printed_example.txt"),
			&linksgatev1.SmsReceived{
				Iccid: "89860220190123456789", Imsi: "4230001234567", PartnerCode: "P123456",
				MessageType:     linksgatev1.SmsMessageType_SMS_MESSAGE_TYPE_BINARY,
				MessageTypeText: "Binary", Text: "发送短信内容",
				ReceivedAt: at("2022-01-17T02:06:00Z"), ReceivedAtText: "1642385160000",
			},
			filled{[]string{"89860220190123456789"}, "P123456"}},
		{"numbers for strings", `{"sim_id":89860220190123456789,"imsi":4230001234567,"partner_code":1.0,"message_type":1,"text_message":-2e+5,"received_at":1642385160001}`,
			&linksgatev1.SmsReceived{
				Iccid: "89860220190123456789", Imsi: "4230001234567", PartnerCode: "1.0",
				MessageTypeText: "1", Text: "-2e+5",
				ReceivedAt: at("2022-01-17T02:06:00.001Z"), ReceivedAtText: "1642385160001",
			},
			filled{[]string{"89860220190123456789"}, "1.0"}},
		{"other types for strings", `{"sim_id":{"a": 1},"imsi":[ "4230001234567" ],"partner_code":null,"message_type":true,"text_message":[],"received_at":{}}`,
			&linksgatev1.SmsReceived{Fields: fields{
				"sim_id": `{"a":1}`, "imsi": `["4230001234567"]`, "partner_code": `null`, "message_type": `true`, "text_message": `[]`, "received_at": `{}`,
			}},
			filled{}},
		{"unknown members", `{"sim_id":"8986","seq":89860220190123456789,"x":"\u0000\"<","nested":{"b":[1.0, {"a":"é\n"}],"a":null},"SIM_ID":"1",""  :false}`,
			&linksgatev1.SmsReceived{Iccid: "8986", Fields: fields{
				"seq": "89860220190123456789", "x": "\x00\"<", "nested": `{"b":[1.0,{"a":"é\n"}],"a":null}`, "SIM_ID": "1", "": "false",
			}},
			filled{iccids: []string{"8986"}}},
		{"empty strings", `{"sim_id":"","imsi":"","partner_code":"","message_type":"","text_message":"","received_at":"","x":""}`,
			&linksgatev1.SmsReceived{Fields: fields{"x": ""}}, filled{}},
		{"text in any case", `{"message_type":"tEXT"}`,
			&linksgatev1.SmsReceived{
				MessageType: linksgatev1.SmsMessageType_SMS_MESSAGE_TYPE_TEXT, MessageTypeText: "tEXT",
			}, filled{}},
		{"an undocumented message type", `{"message_type":"Binary "}`,
			&linksgatev1.SmsReceived{MessageTypeText: "Binary "}, filled{}},
		{"an empty object", ` { } `, &linksgatev1.SmsReceived{}, filled{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, tt.body, &linksgatev1.Notification{
				Payload: &linksgatev1.Notification_SmsReceived{SmsReceived: tt.want},
			}, tt.filled)
		})
	}
}

func TestFillPlanOrderStatusChange(t *testing.T) {
	tests := []struct {
		name, body string
		want       *linksgatev1.PlanOrderStatusChange
		filled     filled
	}{
		{"the sibling platform's names", `{"assetid":"A1","imsi":"460001,460002","operation":"1012","orderid":"O1","time":"2022-01-19T20:11:01+08:00"}`,
			&linksgatev1.PlanOrderStatusChange{
				Status:     linksgatev1.PlanOrderStatus_PLAN_ORDER_STATUS_IMSI_DOWNLOADED_AGAIN,
				StatusCode: "1012", OrderId: "O1", AssetId: "A1", Imsis: []string{"460001", "460002"},
				OrderCreatedAt: at("2022-01-19T12:11:01Z"), OrderCreatedAtText: "2022-01-19T20:11:01+08:00",
			}, filled{}},
		{"numbers for strings", `{"assetid":1,"imsi":460001234567890,"operation":1000,"orderid":98765432109876543210,"time":1642385160000}`,
			&linksgatev1.PlanOrderStatusChange{
				Status:     linksgatev1.PlanOrderStatus_PLAN_ORDER_STATUS_CREATED,
				StatusCode: "1000", OrderId: "98765432109876543210", AssetId: "1", Imsis: []string{"460001234567890"},
				OrderCreatedAt: at("2022-01-17T02:06:00Z"), OrderCreatedAtText: "1642385160000",
			}, filled{}},
		{"other types for strings", `{"assetid":null,"imsi":["460001","460002"],"operation":{"code":"1000"},"orderid":false,"time":[1]}`,
			&linksgatev1.PlanOrderStatusChange{Fields: fields{
				"assetid": "null", "imsi": `["460001","460002"]`, "operation": `{"code":"1000"}`, "orderid": "false", "time": "[1]",
			}}, filled{}},
		{"stray commas and spaces", `{"imsi":" 460001,, 460002,"}`,
			&linksgatev1.PlanOrderStatusChange{
				Imsis: []string{"460001", "460002"}, Fields: fields{"imsi": " 460001,, 460002,"},
			}, filled{}},
		{"nothing but a comma", `{"imsi":","}`,
			&linksgatev1.PlanOrderStatusChange{Fields: fields{"imsi": ","}}, filled{}},
		{"an undefined code", `{"operation":"1006"}`, &linksgatev1.PlanOrderStatusChange{StatusCode: "1006"}, filled{}},
		{"zero is not a code", `{"operation":0}`, &linksgatev1.PlanOrderStatusChange{StatusCode: "0"}, filled{}},
		{"a code is exact", `{"operation":1000.0}`, &linksgatev1.PlanOrderStatusChange{StatusCode: "1000.0"}, filled{}},
		{"a SIM and a partner", `{"sim_id":"8986","partner_code":"P1"}`,
			&linksgatev1.PlanOrderStatusChange{Fields: fields{"sim_id": "8986", "partner_code": "P1"}},
			filled{[]string{"8986"}, "P1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS, tt.body, &linksgatev1.Notification{
				Payload: &linksgatev1.Notification_PlanOrderStatusChange{PlanOrderStatusChange: tt.want},
			}, tt.filled)
		})
	}
}

func TestFillDeviceWarning(t *testing.T) {
	noPlan := &linksgatev1.DeviceWarningItem{
		Iccid: "89314404000816575667", WarningCode: "1",
		Warning: linksgatev1.DeviceWarningCode_DEVICE_WARNING_CODE_NO_PLAN,
	}
	tests := []struct {
		name, body string
		want       *linksgatev1.DeviceWarning
		filled     filled
	}{
		{"the printed example", readFile(t, "testdata/device_warning_example.json"),
			&linksgatev1.DeviceWarning{Devices: []*linksgatev1.DeviceWarningItem{noPlan, noPlan, noPlan}},
			filled{iccids: []string{"89314404000816575667"}}},
		{"several SIMs", `{"devices":[{"deviceId":"b"},{"deviceId":"a"},{"deviceId":""},{"deviceId":"b"}],"sim_id":"a","partner_code":"P1"}`,
			&linksgatev1.DeviceWarning{
				Devices: []*linksgatev1.DeviceWarningItem{{Iccid: "b"}, {Iccid: "a"}, {}, {Iccid: "b"}},
				Fields:  fields{"sim_id": "a", "partner_code": "P1"},
			},
			filled{[]string{"a", "b"}, "P1"}},
		{"numbers, codes, times", `{"devices":[{"deviceId":89314404000816575667,"warningCode":4,"expireTime":1642385160000},{"warningCode":"5","expireTime":"2022-01-19 20:11:01"}]}`,
			&linksgatev1.DeviceWarning{Devices: []*linksgatev1.DeviceWarningItem{
				{
					Iccid: "89314404000816575667", WarningCode: "4",
					Warning:   linksgatev1.DeviceWarningCode_DEVICE_WARNING_CODE_TRIAL_DATA_USED_UP,
					ExpiresAt: at("2022-01-17T02:06:00Z"), ExpiresAtText: "1642385160000",
				},
				{WarningCode: "5", ExpiresAtText: "2022-01-19 20:11:01"},
			}},
			filled{iccids: []string{"89314404000816575667"}}},
		{"other types and unknown members in an item", `{"devices":[{"deviceId":["1"],"warningCode":null,"expireTime":{},"sim_id":"2","n":[ 1 ]},{}]}`,
			&linksgatev1.DeviceWarning{Devices: []*linksgatev1.DeviceWarningItem{
				{Fields: fields{"deviceId": `["1"]`, "warningCode": "null", "expireTime": "{}", "sim_id": "2", "n": "[1]"}},
				{},
			}}, filled{}},
		{"not only objects", `{"devices":[{"deviceId":"1"},null,"2"]}`,
			&linksgatev1.DeviceWarning{
				Devices: []*linksgatev1.DeviceWarningItem{{Iccid: "1"}},
				Fields:  fields{"devices": `[{"deviceId":"1"},null,"2"]`},
			},
			filled{iccids: []string{"1"}}},
		{"one object", `{"devices":{"deviceId":"1"}}`,
			&linksgatev1.DeviceWarning{Fields: fields{"devices": `{"deviceId":"1"}`}}, filled{}},
		{"text", `{"devices":"[]"}`, &linksgatev1.DeviceWarning{Fields: fields{"devices": "[]"}}, filled{}},
		{"none", `{"devices":[],"week":3}`, &linksgatev1.DeviceWarning{Fields: fields{"week": "3"}}, filled{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING, tt.body, &linksgatev1.Notification{
				Payload: &linksgatev1.Notification_DeviceWarning{DeviceWarning: tt.want},
			}, tt.filled)
		})
	}
}

// The kinds whose body Linksfield does not publish keep every member.
func TestFillUnpublishedBodies(t *testing.T) {
	const body = `{"sim_id":89860220190123456789,"partner_code":"P1","time":"1642385160000","operation":1000,"usage":{"mb": 1.50},"ok":true,"devices":[{"deviceId":"1"}]}`
	all := fields{
		"sim_id": "89860220190123456789", "partner_code": "P1", "time": "1642385160000", "operation": "1000",
		"usage": `{"mb":1.50}`, "ok": "true", "devices": `[{"deviceId":"1"}]`,
	}
	tests := map[linksgatev1.NotificationKind]*linksgatev1.Notification{
		linksgatev1.NotificationKind_NOTIFICATION_KIND_DATA_USAGE_ALERT: {Payload: &linksgatev1.Notification_DataUsageAlert{
			DataUsageAlert: &linksgatev1.DataUsageAlert{Fields: all}}},
		linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_DELIVERY: {Payload: &linksgatev1.Notification_SmsDeliveryReport{
			SmsDeliveryReport: &linksgatev1.SmsDeliveryReport{Fields: all}}},
		linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_RECHARGE_SUCCESS: {Payload: &linksgatev1.Notification_RechargeSuccess{
			RechargeSuccess: &linksgatev1.RechargeSuccess{Fields: all}}},
		linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE: {Payload: &linksgatev1.Notification_CubeEvent{
			CubeEvent: &linksgatev1.CubeEvent{Fields: all}}},
		linksgatev1.NotificationKind_NOTIFICATION_KIND_MARKETPLACE_ALARM: {Payload: &linksgatev1.Notification_PlatformAlarm{
			PlatformAlarm: &linksgatev1.PlatformAlarm{Fields: all}}},
	}
	for kind, want := range tests {
		t.Run(payload.KindName(kind), func(t *testing.T) {
			check(t, kind, body, want, filled{[]string{"89860220190123456789"}, "P1"})
		})
	}
}

func TestFillCubeSentAt(t *testing.T) {
	const name = "x-lf-timestamp"
	tests := []struct {
		name    string
		headers []*linksgatev1.RequestHeader
		want    *timestamppb.Timestamp
	}{
		{"milliseconds", []*linksgatev1.RequestHeader{{Name: "x-lf-algo", Value: "1"}, {Name: name, Value: "1683524066000"}}, at("2023-05-08T05:34:26Z")},
		{"none", []*linksgatev1.RequestHeader{nil, {Name: "x-lf-algo", Value: "1683524066000"}}, nil},
		{"eleven digits", []*linksgatev1.RequestHeader{{Name: name, Value: "12345648444"}}, nil},
		{"a date", []*linksgatev1.RequestHeader{{Name: name, Value: "2023-05-08T05:34:26Z"}}, nil},
		{"two", []*linksgatev1.RequestHeader{{Name: name, Value: "1683524066000"}, {Name: name, Value: "1683524066001"}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := &linksgatev1.Notification{Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, Headers: tt.headers}
			payload.Fill(n, mustParse(t, `{}`), payload.Names{})
			want := &linksgatev1.CubeEvent{SentAt: tt.want}
			if diff := cmp.Diff(want, n.GetCubeEvent(), protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFillReadsTimesWithoutGuessing(t *testing.T) {
	tests := []struct {
		text string
		want *timestamppb.Timestamp
	}{
		{"1642385160000", at("2022-01-17T02:06:00Z")},
		{"9999999999999", at("2286-11-20T17:46:39.999Z")},
		{"0000000000000", at("1970-01-01T00:00:00Z")},
		{"1642385160", nil},
		{"16423851600000", nil},
		{"+164238516000", nil},
		{"-164238516000", nil},
		{"1.64238516e12", nil},
		{"1_642_385_160", nil},
		{"１６４２３", nil},
		{" 1642385160000", nil},
		{"2022-01-19T20:11:01Z", at("2022-01-19T20:11:01Z")},
		{"2022-01-19T20:11:01.25-05:30", at("2022-01-20T01:41:01.25Z")},
		{"2022-01-19T201101", nil},
		{"2022-01-19T20:11:01", nil},
		{"2022-01-19 20:11:01Z", nil},
		{"2022-01-19T20:11:01 CST", nil},
		{"2022-01-19T20:11:01,5Z", nil},
		{"2022-01-19T20:11:01+0800", nil},
		{"2022-01-19T20:11:01+24:00", nil},
		{"2022-01-19T20:11:01+08:60", nil},
		{"2022-01-19T9:11:01.5+08:00", nil},
		{"2022-01-19T20:11:01Z\n", nil},
		{"2022-01-19T20:11:01.123456789123Z", at("2022-01-19T20:11:01.123456789Z")},
		{"2022-02-30T20:11:01Z", nil},
		{"0001-01-01T00:00:00Z", at("0001-01-01T00:00:00Z")},
		{"0001-01-01T00:00:00+00:01", nil}, // before the first that protobuf can hold
		{"9999-12-31T23:59:59-00:01", nil}, // after the last
		{"", nil},
	}
	for _, tt := range tests {
		n := &linksgatev1.Notification{Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED}
		payload.Fill(n, mustParse(t, fmt.Sprintf(`{"received_at":%q}`, tt.text)), payload.Names{})
		want := &linksgatev1.SmsReceived{ReceivedAt: tt.want, ReceivedAtText: tt.text}
		if diff := cmp.Diff(want, n.GetSmsReceived(), protocmp.Transform()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.text, diff)
		}
	}
}

// Every documented code has a value, under the number that is the code.
func TestFillCodes(t *testing.T) {
	for code, name := range linksgatev1.PlanOrderStatus_name {
		n := &linksgatev1.Notification{Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS}
		payload.Fill(n, mustParse(t, fmt.Sprintf(`{"operation":"%d"}`, code)), payload.Names{})
		if got := n.GetPlanOrderStatusChange().GetStatus().String(); got != name {
			t.Errorf("operation %d is %s, want %s", code, got, name)
		}
	}
	for code, name := range linksgatev1.DeviceWarningCode_name {
		n := &linksgatev1.Notification{Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING}
		payload.Fill(n, mustParse(t, fmt.Sprintf(`{"devices":[{"warningCode":"%d"}]}`, code)), payload.Names{})
		if got := n.GetDeviceWarning().GetDevices()[0].GetWarning().String(); got != name {
			t.Errorf("warningCode %d is %s, want %s", code, got, name)
		}
	}
}

func TestFillUnrecognized(t *testing.T) {
	const sms = linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED
	tests := []struct {
		name   string
		kind   linksgatev1.NotificationKind
		body   string // "" is a body that is not JSON
		reason string
		filled filled
	}{
		{"not JSON", sms, ``, "The body is not JSON.", filled{}},
		{"array", sms, `[{"sim_id":"1"}]`, "The body is a JSON array, not a JSON object.", filled{}},
		{"string", sms, `"sim_id"`, "The body is a JSON string, not a JSON object.", filled{}},
		{"number", sms, `1`, "The body is a JSON number, not a JSON object.", filled{}},
		{"boolean", sms, `true`, "The body is a JSON boolean, not a JSON object.", filled{}},
		{"null", sms, `null`, "The body is a JSON null, not a JSON object.", filled{}},
		{"unknown kind", 99, `{"sim_id":"1","partner_code":"P1"}`, "This gateway knows no notification of kind 99.",
			filled{[]string{"1"}, "P1"}},
		{"no kind", 0, `{}`, "This gateway knows no notification of kind 0.", filled{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, tt.kind, tt.body, &linksgatev1.Notification{
				Payload: &linksgatev1.Notification_Unrecognized{Unrecognized: &linksgatev1.UnrecognizedPayload{Reason: tt.reason}},
			}, tt.filled)
		})
	}
}

func TestFillManySIMs(t *testing.T) {
	var body strings.Builder
	const count = 8_000
	body.WriteString(`{"devices":[{}`)
	for i := range count {
		fmt.Fprintf(&body, `,{"deviceId":%d},{"deviceId":"%d"}`, i, i)
	}
	body.WriteString(`]}`)
	n := &linksgatev1.Notification{Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING}
	payload.Fill(n, mustParse(t, body.String()), payload.Names{})
	if len(n.Iccids) != count || n.Iccids[0] != "0" || n.Iccids[count-1] != fmt.Sprint(count-1) {
		t.Errorf("%d ICCIDs, want the %d distinct ones in order", len(n.Iccids), count)
	}
}

// check fills a notification of this kind, which an earlier Fill left dirty, and
// compares all of it with want, to which it adds kind and index.
func check(t *testing.T, kind linksgatev1.NotificationKind, body string, want *linksgatev1.Notification, index filled) {
	t.Helper()
	var doc *jsondoc.Document
	if body != "" {
		doc = mustParse(t, body)
	}
	got := &linksgatev1.Notification{
		Kind: kind, Account: "acme", Iccids: []string{"stale"}, PartnerCode: "stale",
		Payload: &linksgatev1.Notification_PlatformAlarm{},
	}
	payload.Fill(got, doc, payload.Names{})
	want.Kind, want.Account, want.Iccids, want.PartnerCode = kind, "acme", index.iccids, index.partnerCode
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func at(rfc3339 string) *timestamppb.Timestamp {
	t, err := time.Parse(time.RFC3339, rfc3339)
	if err != nil {
		panic(err)
	}
	return timestamppb.New(t)
}

func mustParse(tb testing.TB, body string) *jsondoc.Document {
	tb.Helper()
	doc, err := jsondoc.Parse([]byte(body))
	if err != nil {
		tb.Fatalf("Parse(%.200q): %v", body, err)
	}
	return doc
}

func readFile(tb testing.TB, name string) string {
	tb.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

func BenchmarkFill(b *testing.B) {
	long := strings.Repeat("x", 120)
	sms := `{"partner_code":"P123456","sim_id":"89860220190123456789","imsi":"4230001234567","message_type":"Binary","text_message":"` + long + `","received_at":"1642385160000"}`
	order := `{"assetid":"A123456789","imsi":"460001234567890,460001234567891","operation":"1003","orderid":"` + long + `","time":"2022-01-19T20:11:01+08:00","partner_code":"P123456"}`
	open := `{"sim_id":"89860220190123456789","partner_code":"P123456","event":"` + long + `","usage":1048576,"limit":2097152,"plan":{"id":"1","name":"a"},"ok":true}`
	for _, bench := range []struct {
		kind linksgatev1.NotificationKind
		body string
	}{
		{linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, sms},
		{linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS, order},
		{linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING, readFile(b, "testdata/device_warning_example.json")},
		{linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, open},
	} {
		b.Run(payload.KindName(bench.kind), func(b *testing.B) {
			doc := mustParse(b, bench.body)
			n := &linksgatev1.Notification{
				Kind: bench.kind, Headers: []*linksgatev1.RequestHeader{{Name: "x-lf-timestamp", Value: "1683524066000"}},
			}
			b.SetBytes(int64(len(bench.body)))
			b.ReportAllocs()
			for b.Loop() {
				payload.Fill(n, doc, payload.Names{})
			}
		})
	}
}
