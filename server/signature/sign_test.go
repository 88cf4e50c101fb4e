package signature_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linksgate/linksgate/server/signature"
)

func TestSignMD5(t *testing.T) {
	doc := mustParse(t, `{"b":"","a":[{"y":1,"x":"<"}]}`)
	got, err := signature.SignMD5(doc, signature.Secret{Value: "secret"})
	if want := md5Hex("x=<&y=1&b=&secret"); err != nil || got != want {
		t.Errorf("SignMD5 = %q, %v; want %q", got, err, want)
	}
	if _, err := signature.SignMD5(mustParse(t, `[]`), signature.Secret{Value: "secret"}); !errors.Is(err, signature.ErrMalformed) {
		t.Errorf("of an array: %v; want ErrMalformed", err)
	}
	if _, err := signature.SignMD5(doc, signature.Secret{Name: "blank"}); !errors.Is(err, signature.ErrUnknownKey) {
		t.Errorf("with an empty secret: %v; want ErrUnknownKey", err)
	}
}

func TestSignHMAC(t *testing.T) {
	doc := mustParse(t, `{"b": {"y":1,"x":2}, "a": 1.0}`)
	secret := signature.Secret{Value: "hmac secret"}
	got, err := signature.SignHMAC(doc, "1.0", "1683524066000", "key1", secret)
	if err != nil {
		t.Fatal(err)
	}
	want := hmacHeaders(hmacRaw(`1.0:HMAC-SHA1:1683524066000{"a":1.0,"b":{"y":1,"x":2}}`, "hmac secret"))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("SignHMAC (-want +got):\n%s", diff)
	}
	refused := []struct {
		name, body, version, timestamp, keyID string
		secret                                signature.Secret
		want                                  error
	}{
		{"no version", `{}`, "", "1", "k", secret, signature.ErrMalformed},
		{"no timestamp", `{}`, "1.0", "", "k", secret, signature.ErrMalformed},
		{"a date", `{}`, "1.0", "2023-05-08", "k", secret, signature.ErrMalformed},
		{"no key id", `{}`, "1.0", "1", "", secret, signature.ErrMalformed},
		{"a slash in the key id", `{}`, "1.0", "1", "a/b", secret, signature.ErrMalformed},
		{"a bare number", `1`, "1.0", "1", "k", secret, signature.ErrMalformed},
		{"no secret", `{}`, "1.0", "1", "k", signature.Secret{}, signature.ErrUnknownKey},
	}
	for _, tt := range refused {
		h, err := signature.SignHMAC(mustParse(t, tt.body), tt.version, tt.timestamp, tt.keyID, tt.secret)
		if h != nil || !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.name, h, err, tt.want)
		}
	}
}
