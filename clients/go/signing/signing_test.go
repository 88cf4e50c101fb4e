package signing_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/linksgate/linksgate/clients/go/signing"
)

// TestLinksfieldsVectors signs what Linksfield's own sample and printed rule sign.
func TestLinksfieldsVectors(t *testing.T) {
	header, err := signing.HMAC([]byte(`{"name": "liguoli","age": 18}`), "Ou8a5lyzPjN86ikmLeFC",
		"3QY0I6jA6jOfeIQbOde3CG2DeOllV1zufpFR393my78h3tCn7P1IfyUIhV3cS8ks", time.UnixMilli(12345648444))
	if want := "Ou8a5lyzPjN86ikmLeFC/pnWR3hcrEXQWV8S+RY0DMjEN9ec="; err != nil || header.Get("x-lf-signature") != want {
		t.Errorf("%v, %v; want %s", header, err, want)
	}
	body := []byte(`{"imsi":"8900000000000010","partner_code":"P002671","received_at":"2022-01-19T201101","sim_id":"89000000000001","text_message":"device status: 1234"}`)
	header, err = signing.MD5(body, "xGl64jNW4B223SSDAsddgh=n")
	if want := "MWExNWQ3YTY0YTNhNDU5YWY3N2M2NjE4YjlhMGE3NzM="; err != nil || header.Get("x-lf-md5") != want {
		t.Errorf("%v, %v; want %s", header, err, want)
	}
	if reading, err := signing.Verify(header, body, signing.Keys{Secrets: []string{"old", "xGl64jNW4B223SSDAsddgh=n"}}); err != nil || reading != "members" {
		t.Errorf("%q, %v", reading, err)
	}
	for name, tt := range map[string]struct {
		header http.Header
		body   string
		want   error
	}{
		"another body": {header, `{}`, signing.ErrMismatch}, "no header": {nil, `{}`, signing.ErrMissing},
		"no key": {http.Header{"X-Lf-Signature": {"k/x"}, "X-Lf-Notification-Version": {"1.0"}, "X-Lf-Timestamp": {"1"}}, `{}`, signing.ErrUnknownKey},
	} {
		if _, err := signing.Verify(tt.header, []byte(tt.body), signing.Keys{Secrets: []string{"s"}}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v; want %v", name, err, tt.want)
		}
	}
	if _, err := signing.MD5([]byte(`{`), "s"); err == nil {
		t.Error("half a body was signed")
	}
	if _, err := signing.HMAC([]byte(`{}`), "a/b", "s", time.Now()); !errors.Is(err, signing.ErrMalformed) {
		t.Errorf("a key id with a slash: %v", err)
	}
	if _, err := signing.MD5([]byte(`{}`), ""); !errors.Is(err, signing.ErrUnknownKey) {
		t.Errorf("no secret: %v", err)
	}
}
