package simulator_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

var (
	sender = simulator.Sender{
		MD5:   signature.Secret{Name: "md5", Value: "secret"},
		KeyID: "key1",
		HMAC:  signature.Secret{Name: "hmac", Value: "key"},
		Now:   func() time.Time { return time.UnixMilli(1683524066000) },
	}
	keys = signature.Keyring{
		MD5:  []signature.Secret{sender.MD5},
		HMAC: map[string][]signature.Secret{"key1": {sender.HMAC}},
	}
)

func verify(t *testing.T, n simulator.Notification) (signature.Verified, error) {
	t.Helper()
	doc, err := jsondoc.Parse(n.Body)
	if err != nil {
		t.Fatalf("%s: %v", n.Body, err)
	}
	return signature.Verify(n.Header, doc, n.Body, keys)
}

func TestEveryKindIsSignedAndDistinct(t *testing.T) {
	for _, kind := range payload.Kinds() {
		seen := map[string]uint64{}
		for n := range uint64(3000) {
			made, err := sender.Make(kind, n)
			if err != nil {
				t.Fatal(err)
			}
			got, err := verify(t, made)
			if err != nil || got.Scheme != simulator.Scheme(kind) {
				t.Fatalf("%v %d: verified as %+v, %v", kind, n, got, err)
			}
			if earlier, ok := seen[string(made.Body)]; ok {
				t.Fatalf("%v: %d and %d have the body %s", kind, earlier, n, made.Body)
			}
			seen[string(made.Body)] = n
			again, err := sender.Make(kind, n)
			if err != nil || string(again.Body) != string(made.Body) {
				t.Fatalf("%v %d: %s and %s, %v", kind, n, made.Body, again.Body, err)
			}
		}
	}
}

func TestBodies(t *testing.T) {
	tests := []struct {
		kind linksgatev1.NotificationKind
		n    uint64
		want string
	}{
		{linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, 1002, `{"imsi":"423000000000002","partner_code":"P002671",` +
			`"received_at":"2026-01-01T001642","sim_id":"89860220190000000002","text_message":"device status: 1002"}`},
		{linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, 1, `{"partner_code":"P123456","sim_id":"89860220190000000001",` +
			`"imsi":"423000000000001","message_type":"Binary","text_message":"发送短信内容 1","received_at":"1767225601000"}`},
		{linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS, 3, `{"assetid":"asset-0003","imsi":"423000000000003","operation":"1003",` +
			`"orderid":"order-3","time":"1767225603000"}`},
		{linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING, 1, `{"devices":[` +
			`{"expireTime":"","warningCode":"2","deviceId":"89314404000000000001"},` +
			`{"expireTime":"","warningCode":"3","deviceId":"89860220190000000002"}]}`},
		{linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, 7, `{"note":"made up: the real body is not documented","number":"7",` +
			`"sim":"89860220190000000007","time":"1767225607000"}`},
	}
	for _, tt := range tests {
		got, err := sender.Make(tt.kind, tt.n)
		if err != nil || string(got.Body) != tt.want {
			t.Errorf("%v %d = %s, %v; want %s", tt.kind, tt.n, got.Body, err, tt.want)
		}
	}
}

func TestForger(t *testing.T) {
	for _, kind := range payload.Kinds() {
		made, err := sender.Forger().Make(kind, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify(t, made); !errors.Is(err, signature.ErrMismatch) {
			t.Errorf("%v: %v; want ErrMismatch", kind, err)
		}
	}
}

func TestUnsigned(t *testing.T) {
	unsigned := simulator.Sender{Unsigned: true}
	made, err := unsigned.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify(t, made); !errors.Is(err, signature.ErrMissing) {
		t.Errorf("%v; want ErrMissing", err)
	}
}

func TestNoSecret(t *testing.T) {
	var unarmed simulator.Sender
	if _, err := unarmed.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, 1); !errors.Is(err, signature.ErrUnknownKey) {
		t.Errorf("%v; want ErrUnknownKey", err)
	}
}

func TestMakeWithBody(t *testing.T) {
	const kind = linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED
	missingComma := []byte("{\"a\": \"1\"\n\"b\": 2}")
	made, err := sender.MakeWithBody(kind, missingComma)
	if err != nil || string(made.Body) != string(missingComma) {
		t.Fatalf("%s, %v", made.Body, err)
	}
	if _, err := verify(t, made); err != nil {
		t.Error(err)
	}
	if _, err := sender.MakeWithBody(kind, []byte("{")); !errors.Is(err, jsondoc.ErrSyntax) {
		t.Errorf("%v; want ErrSyntax", err)
	}
	unsigned := simulator.Sender{Unsigned: true}
	if made, err := unsigned.MakeWithBody(kind, []byte("{")); err != nil || string(made.Body) != "{" {
		t.Errorf("unsigned: %s, %v", made.Body, err)
	}
}

func TestRequest(t *testing.T) {
	made, err := sender.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{"http://host/linksfield/acme", "http://host/linksfield/acme/"} {
		r, err := made.Request(t.Context(), account)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != string(made.Body) {
			t.Errorf("body %s, %v", body, err)
		}
		if r.Method != http.MethodPost || r.URL.String() != "http://host/linksfield/acme/cube" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if id, _, _ := strings.Cut(r.Header.Get("x-lf-signature"), "/"); id != "key1" || r.Header.Get("x-lf-timestamp") != "1683524066000" {
			t.Errorf("headers %v", r.Header)
		}
	}
}

func BenchmarkMake(b *testing.B) {
	for _, kind := range payload.Kinds() {
		b.Run(payload.KindName(kind), func(b *testing.B) {
			b.ReportAllocs()
			for n := uint64(0); b.Loop(); n++ {
				if _, err := sender.Make(kind, n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
