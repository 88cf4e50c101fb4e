package payload_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/iccid"
	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/payload"
)

// FuzzFill: Fill is total, its result can be stored and served, and nothing of
// the body is lost.
func FuzzFill(f *testing.F) {
	bodies := []string{
		readFile(f, "testdata/sms_signing_example.json"),
		readFile(f, "testdata/sms_printed_example.txt"),
		readFile(f, "testdata/device_warning_example.json"),
		`{"assetid":1,"imsi":" 460001,,460002","operation":1000,"orderid":null,"time":"2022-01-19T20:11:01+08:00"}`,
		`{"devices":[{"deviceId":89314404000816575667,"warningCode":null,"x":[1]},3,{}],"sim_id":"1"}`,
		`{"sim_id":{},"received_at":"9999-12-31T23:59:59-23:59","message_type":"tEXT"}`,
		`[1]`,
	}
	for _, body := range bodies {
		for kind := range int32(len(linksgatev1.NotificationKind_name) + 1) {
			f.Add(kind, "1683524066000", []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, kind int32, sent string, body []byte) {
		doc, err := jsondoc.Parse(body)
		if err != nil {
			doc = nil
		}
		n := &linksgatev1.Notification{Kind: linksgatev1.NotificationKind(kind), Headers: []*linksgatev1.RequestHeader{
			{Name: "x-lf-timestamp", Value: strings.ToValidUTF8(sent, "\ufffd")},
		}}
		payload.Fill(n, doc, payload.Names{})
		checkServable(t, n)

		isObject := doc != nil && doc.Root.Kind == jsondoc.Object
		if u := n.GetUnrecognized(); u != nil {
			if isObject && payload.KindName(n.Kind) != "" || u.Reason == "" {
				t.Fatalf("Unrecognized: %q", u.Reason)
			}
			return
		}
		if !isObject {
			t.Fatal("typed, though not an object")
		}
		checkLossless(t, payloadOf(n), doc.Root.Members)
		checkIndex(t, n, doc.Root)
	})
}

// checkServable: a payload is set, and the notification can be encoded both ways.
func checkServable(t *testing.T, n *linksgatev1.Notification) {
	t.Helper()
	if n.Payload == nil {
		t.Fatal("no payload")
	}
	binary, err := proto.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	again := &linksgatev1.Notification{}
	if err := proto.Unmarshal(binary, again); err != nil || !proto.Equal(n, again) {
		t.Fatalf("reads back otherwise (%v): %v, then %v", err, n, again)
	}
	if _, err := protojson.Marshal(n); err != nil {
		t.Fatal(err)
	}
}

// payloadOf returns the message in the oneof payload.
func payloadOf(n *linksgatev1.Notification) protoreflect.Message {
	m := n.ProtoReflect()
	return m.Get(m.WhichOneof(m.Descriptor().Oneofs().ByName("payload"))).Message()
}

// checkLossless: each member is whole in `fields`, under its key, or has its
// text in a typed field; and `fields` holds nothing else.
func checkLossless(t *testing.T, m protoreflect.Message, members []jsondoc.Member) {
	t.Helper()
	kept := m.Get(m.Descriptor().Fields().ByName("fields")).Map()
	found, typed := 0, typedTexts(m)
	for _, member := range members {
		if text := kept.Get(protoreflect.ValueOfString(member.Key).MapKey()); text.IsValid() {
			found++
			if want := fieldText(member.Value); text.String() != want {
				t.Fatalf("fields[%q] is %q, want %q", member.Key, text, want)
			}
			continue
		}
		switch member.Value.Kind {
		case jsondoc.String, jsondoc.Number:
			if !typed[member.Value.Text] {
				t.Fatalf("%q is nowhere in %v", member.Key, m)
			}
		case jsondoc.Array:
			checkItemsLossless(t, m, member.Value.Elements)
		default:
			t.Fatalf("%q is typed, but is %v", member.Key, member.Value)
		}
	}
	if kept.Len() != found {
		t.Fatalf("fields holds more than the body: %v", kept)
	}
}

// checkItemsLossless: an array can only be typed as `devices`, item by item.
func checkItemsLossless(t *testing.T, m protoreflect.Message, elements []jsondoc.Value) {
	t.Helper()
	devices := m.Descriptor().Fields().ByName("devices")
	if devices == nil || m.Get(devices).List().Len() != len(elements) {
		t.Fatalf("an array of %d elements is nowhere in %v", len(elements), m)
	}
	for i, element := range elements {
		if element.Kind != jsondoc.Object {
			t.Fatalf("element %d is typed, but is %v", i, element)
		}
		checkLossless(t, m.Get(devices).List().Get(i).Message(), element.Members)
	}
}

// typedTexts returns the values of m's own string fields, and of its lists of
// strings written with commas. The empty text is always among them: it reads
// like a missing member.
func typedTexts(m protoreflect.Message) map[string]bool {
	texts := map[string]bool{"": true}
	for field, value := range m.Range {
		switch {
		case field.Kind() != protoreflect.StringKind || field.IsMap():
		case field.IsList():
			var parts []string
			for i := range value.List().Len() {
				parts = append(parts, value.List().Get(i).String())
			}
			texts[strings.Join(parts, ",")] = true
		default:
			texts[value.String()] = true
		}
	}
	return texts
}

func fieldText(v jsondoc.Value) string {
	if v.Kind == jsondoc.String {
		return v.Text
	}
	return string(v.AppendCompact(nil, jsondoc.AsReceived))
}

// checkIndex: the SIMs and the partner of a body are found whatever its kind,
// no SIM twice, and none that the body does not name.
func checkIndex(t *testing.T, n *linksgatev1.Notification, body jsondoc.Value) {
	t.Helper()
	want := map[string]bool{}
	add := func(v jsondoc.Value, key string) {
		id, _ := v.Lookup(key)
		if id.Kind == jsondoc.String || id.Kind == jsondoc.Number {
			if !iccid.IsDamaged(id.Text) {
				want[iccid.Normal(id.Text)] = true
			}
		}
	}
	add(body, "sim_id")
	if devices, _ := body.Lookup("devices"); n.GetDeviceWarning() != nil {
		for _, device := range devices.Elements {
			add(device, "deviceId")
		}
	}
	delete(want, "")
	if len(n.FoundIccids) > 0 {
		if len(want) > 0 || !slices.Equal(n.FoundIccids, n.Iccids) {
			t.Fatalf("ICCIDs %q were found beside %v", n.FoundIccids, want)
		}
		for _, found := range n.FoundIccids {
			if !iccid.IsShaped(found) {
				t.Fatalf("%q is taken for an ICCID", found)
			}
		}
		return
	}
	if len(n.Iccids) != len(want) {
		t.Fatalf("ICCIDs %q, want %v", n.Iccids, want)
	}
	for _, sim := range n.Iccids {
		if !want[sim] {
			t.Fatalf("ICCIDs %q, want %v", n.Iccids, want)
		}
	}
	partner, _ := body.Lookup("partner_code")
	scalar := partner.Kind == jsondoc.String || partner.Kind == jsondoc.Number
	if scalar && n.PartnerCode != partner.Text || !scalar && n.PartnerCode != "" {
		t.Fatalf("partner code %q, want that of %v", n.PartnerCode, partner)
	}
}
