package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

func TestGist(t *testing.T) {
	fields := map[string]string{"b": "two words", "a": "1", "empty": ""}
	const fieldsGist = `a=1 b="two words" empty=""`
	tests := []struct {
		n    *linksgatev1.Notification
		want string
	}{
		{&linksgatev1.Notification{}, "untyped"},
		{&linksgatev1.Notification{Payload: &linksgatev1.Notification_SmsReceived{SmsReceived: &linksgatev1.SmsReceived{
			Text: "发送短信内容 \"x\"", MessageTypeText: "Binary", Fields: fields,
		}}}, `"发送短信内容 \"x\"" type=Binary ` + fieldsGist},
		{&linksgatev1.Notification{Payload: &linksgatev1.Notification_PlanOrderStatusChange{PlanOrderStatusChange: &linksgatev1.PlanOrderStatusChange{
			Status: linksgatev1.PlanOrderStatus_PLAN_ORDER_STATUS_STARTED_OTA, StatusCode: "1007", OrderId: "o1", Imsis: []string{"1", "2"},
		}}}, "started-ota code=1007 order=o1 imsi=1,2"},
		{&linksgatev1.Notification{Payload: &linksgatev1.Notification_PlanOrderStatusChange{PlanOrderStatusChange: &linksgatev1.PlanOrderStatusChange{
			StatusCode: "1099",
		}}}, "status unknown code=1099"},
		{&linksgatev1.Notification{Payload: &linksgatev1.Notification_DeviceWarning{DeviceWarning: &linksgatev1.DeviceWarning{
			Devices: []*linksgatev1.DeviceWarningItem{
				{Iccid: "89", Warning: linksgatev1.DeviceWarningCode_DEVICE_WARNING_CODE_NO_PLAN, WarningCode: "1"},
				{Iccid: "90", WarningCode: "9"},
			},
		}}}, "89:no-plan,90:warning-9"},
		{&linksgatev1.Notification{Payload: &linksgatev1.Notification_DataUsageAlert{
			DataUsageAlert: &linksgatev1.DataUsageAlert{Fields: fields}}}, fieldsGist},
		{&linksgatev1.Notification{Payload: &linksgatev1.Notification_SmsDeliveryReport{
			SmsDeliveryReport: &linksgatev1.SmsDeliveryReport{Fields: fields}}}, fieldsGist},
		{&linksgatev1.Notification{Payload: &linksgatev1.Notification_RechargeSuccess{
			RechargeSuccess: &linksgatev1.RechargeSuccess{Fields: fields}}}, fieldsGist},
		{&linksgatev1.Notification{Payload: &linksgatev1.Notification_CubeEvent{
			CubeEvent: &linksgatev1.CubeEvent{Fields: fields}}}, fieldsGist},
		{&linksgatev1.Notification{Payload: &linksgatev1.Notification_PlatformAlarm{
			PlatformAlarm: &linksgatev1.PlatformAlarm{}}}, "-"},
		{&linksgatev1.Notification{Payload: &linksgatev1.Notification_Unrecognized{
			Unrecognized: &linksgatev1.UnrecognizedPayload{Reason: "not an object"}}}, `unrecognized "not an object"`},
	}
	for _, tt := range tests {
		if got := gist(tt.n); got != tt.want {
			t.Errorf("gist = %s; want %s", got, tt.want)
		}
	}
}

// hostile is what a SIM could send to the one who watches.
const hostile = "\x1b]0;owned\a\x9b31m\u009b2J\u202e\u2028\r\nforged line\x7f\x00\U000e0041\ufffd\xff"

func TestHostileTextDoesNotReachTheTerminal(t *testing.T) {
	n := &linksgatev1.Notification{
		Id:      hostile,
		Account: hostile,
		Iccids:  []string{hostile},
		Payload: &linksgatev1.Notification_SmsReceived{SmsReceived: &linksgatev1.SmsReceived{
			Text: hostile, MessageTypeText: hostile, Fields: map[string]string{hostile: hostile},
		}},
	}
	order := &linksgatev1.Notification{Payload: &linksgatev1.Notification_PlanOrderStatusChange{
		PlanOrderStatusChange: &linksgatev1.PlanOrderStatusChange{StatusCode: hostile, OrderId: hostile, Imsis: []string{hostile}}}}
	warning := &linksgatev1.Notification{Payload: &linksgatev1.Notification_DeviceWarning{DeviceWarning: &linksgatev1.DeviceWarning{
		Devices: []*linksgatev1.DeviceWarningItem{{Iccid: hostile, WarningCode: hostile}}}}}
	unread := &linksgatev1.Notification{Payload: &linksgatev1.Notification_Unrecognized{
		Unrecognized: &linksgatev1.UnrecognizedPayload{Reason: hostile}}}
	for _, line := range []string{textLine(n), textLine(order), textLine(warning), textLine(unread), escaped(hostile)} {
		if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q comes through at %d in %q", line[i:i+1], i, line)
		}
	}
}

func TestJSONLineEscapesAndKeepsTheText(t *testing.T) {
	n := &linksgatev1.Notification{Account: strings.ToValidUTF8(hostile, "") + " <发送> 😀"}
	line, err := jsonLine(n)
	if err != nil || !json.Valid(line) {
		t.Fatalf("%s, %v", line, err)
	}
	if i := strings.IndexFunc(string(line), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("unprintable at %d in %q", i, line)
	}
	if !strings.Contains(string(line), "<发送> 😀") {
		t.Errorf("printable text was escaped: %s", line)
	}
	var back linksgatev1.Notification
	if err := protojson.Unmarshal(line, &back); err != nil || !proto.Equal(n, &back) {
		t.Errorf("%v, %v", &back, err)
	}
}

func TestLongTextIsShortened(t *testing.T) {
	n := &linksgatev1.Notification{Payload: &linksgatev1.Notification_SmsReceived{SmsReceived: &linksgatev1.SmsReceived{
		Text: strings.Repeat("信", 10_000)}}}
	if got, want := gist(n), `"`+strings.Repeat("信", shownRunes)+`…"`; got != want {
		t.Errorf("gist = %s", got)
	}
}

func TestSizesHaveAUnitThatFits(t *testing.T) {
	for size, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1 << 10: "1 KiB", 16 << 20: "16 MiB", 3 << 29: "1.5 GiB", 10 << 30: "10 GiB", 5000 << 40: "5000 TiB",
	} {
		if got := sizeText(size); got != want {
			t.Errorf("%d: %s, want %s", size, got, want)
		}
	}
}
