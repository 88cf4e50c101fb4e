package signature_test

import (
	"bytes"
	"errors"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/signature"
)

// FuzzVerify: nothing in a request makes Verify panic or, without knowing a
// secret, succeed. Explain agrees with it.
func FuzzVerify(f *testing.F) {
	f.Add("1.0", "HMAC-SHA1", "1683524066000", "key1/AAAA", "", []byte(`{"a":{"c":1,"b":[]}}`))
	f.Add("", "", "", "", md5Hex("a"), []byte(`{"a":[{"b":""},{}],"c":null}`))
	f.Add("1", "", "0", "key1/", "x", []byte("{\"a\":1\n\"b\":2}"))
	f.Fuzz(func(t *testing.T, version, algorithm, timestamp, sum, md5Sum string, body []byte) {
		h := http.Header{}
		for name, value := range map[string]string{
			"X-Lf-Notification-Version": version,
			"X-Lf-Algo":                 algorithm,
			"X-Lf-Timestamp":            timestamp,
			"X-Lf-Signature":            sum,
			"X-Lf-Md5":                  md5Sum,
		} {
			if value != "" {
				h[name] = []string{value}
			}
		}
		doc, err := jsondoc.Parse(body)
		if err != nil {
			doc = nil
		}
		got, err := signature.Verify(h, doc, body, keyring)
		if err == nil {
			t.Fatalf("verified: %+v", got)
		}
		attempts, explained := signature.Explain(h, doc, body, keyring)
		if errorText(explained) != err.Error() {
			t.Fatalf("Explain: %v; Verify: %v", explained, err)
		}
		for _, a := range attempts {
			if a.Matched {
				t.Fatalf("Verify: %v, but %+v", err, a)
			}
		}
	})
}

var bodies = []string{
	`{"imsi":"8900000000000010","text_message":"device status: 1234","sim_id":89860220190123456789}`,
	"{ \"a\":\t{\"y\": 1.0, \"x\": [null, \"\\u00e9\\n\"]},\r\n\"b\": \"\" }",
	"{\"message_type\":\"Binary\"\n\"text_message\":\"发送短信内容\"}",
}

// FuzzFlipMD5: one bit changed in what was sent or in the secret never
// verifies. Bodies with an array of objects are left out, because the signed
// text does not hold the array's own key; everything else is in it under the
// first reading, so a flip may only do what leaves the document as it was:
// other white space, another case of a hexadecimal digit in an escape.
func FuzzFlipMD5(f *testing.F) {
	for i, body := range bodies {
		f.Add([]byte(body), "secret", uint(37*i), uint8(i))
	}
	f.Fuzz(func(t *testing.T, body []byte, value string, bit uint, part uint8) {
		doc, err := jsondoc.Parse(body)
		if err != nil || hasArrayOfObjects(doc.Root) {
			return
		}
		secret := signature.Secret{Name: "fuzz", Value: value}
		sum, err := signature.SignMD5(doc, secret)
		if err != nil {
			return
		}
		r := request{body: body, headers: http.Header{"X-Lf-Md5": {sum}}, secret: secret}
		r.check(t, bit, part)
	})
}

// FuzzFlipHMAC: the same for the other scheme, which covers every document.
func FuzzFlipHMAC(f *testing.F) {
	for i, body := range bodies {
		f.Add([]byte(body), "1.0", "1683524066000", "key1", "hmac secret", uint(53*i), uint8(i))
	}
	f.Add([]byte(`[{"b":1,"a":2}]`), "1.0", "1", "k", "s", uint(4), uint8(3))
	f.Fuzz(func(t *testing.T, body []byte, version, timestamp, keyID, value string, bit uint, part uint8) {
		doc, err := jsondoc.Parse(body)
		if err != nil {
			return
		}
		secret := signature.Secret{Name: "fuzz", Value: value}
		h, err := signature.SignHMAC(doc, version, timestamp, keyID, secret)
		if err != nil {
			return
		}
		r := request{body: body, headers: h, keyID: keyID, secret: secret}
		r.check(t, bit, part)
	})
}

func hasArrayOfObjects(root jsondoc.Value) bool {
	return slices.ContainsFunc(root.Members, func(m jsondoc.Member) bool {
		return slices.ContainsFunc(m.Value.Elements, func(v jsondoc.Value) bool { return v.Kind == jsondoc.Object })
	})
}

// request is one signed request and the secret that it was signed with.
type request struct {
	body    []byte
	headers http.Header
	keyID   string
	secret  signature.Secret
}

func (r request) verify(doc *jsondoc.Document) error {
	keys := signature.Keyring{MD5: []signature.Secret{r.secret}, HMAC: map[string][]signature.Secret{r.keyID: {r.secret}}}
	_, err := signature.Verify(r.headers, doc, r.body, keys)
	return err
}

// check verifies r as it is, and then with one bit of one of its parts flipped.
func (r request) check(t *testing.T, bit uint, part uint8) {
	t.Helper()
	doc, err := jsondoc.Parse(r.body)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.verify(doc); err != nil {
		t.Fatalf("what was signed does not verify: %v", err)
	}
	changed := doc
	names := slices.Sorted(maps.Keys(r.headers))
	switch part := int(part) % (2 + len(names)); part {
	case 0:
		r.body = flip(r.body, bit)
		if changed, err = jsondoc.Parse(r.body); err != nil || cmp.Equal(doc.Root, changed.Root) {
			return
		}
	case 1:
		r.secret.Value = string(flip([]byte(r.secret.Value), bit))
	default:
		name := names[part-2]
		r.headers[name] = []string{string(flip([]byte(r.headers.Get(name)), bit))}
	}
	if err := r.verify(changed); err == nil {
		t.Fatalf("verified after flipping bit %d of part %d: body %q, headers %q", bit, part, r.body, r.headers)
	} else if errors.Is(err, signature.ErrMissing) {
		t.Fatalf("signature not found: %v", err)
	}
}

func flip(data []byte, bit uint) []byte {
	data = bytes.Clone(data)
	bit %= uint(8 * len(data))
	data[bit/8] ^= 1 << (bit % 8)
	return data
}
