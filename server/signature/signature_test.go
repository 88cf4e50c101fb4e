package signature_test

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/signature"
)

// The signatures in these tests are made here from a text written out by hand,
// not by the package under test.

func md5Hex(text string) string {
	sum := md5.Sum([]byte(text))
	return base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(sum[:])))
}

func md5Raw(text string) string {
	sum := md5.Sum([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func hmacRaw(text, secret string) string {
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

func hmacHex(text, secret string) string {
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(text))
	return base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(h.Sum(nil))))
}

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// hmacHeaders are those of a well-formed request with the given signature.
func hmacHeaders(sum string) http.Header {
	return headers(
		"x-lf-notification-version", "1.0",
		"x-lf-algo", "HMAC-SHA1",
		"x-lf-timestamp", "1683524066000",
		"x-lf-signature", "key1/"+sum)
}

var keyring = signature.Keyring{
	MD5:  []signature.Secret{{Name: "only", Value: "secret"}},
	HMAC: map[string][]signature.Secret{"key1": {{Name: "only", Value: "hmac secret"}}},
}

func verify(t *testing.T, h http.Header, body string, keys signature.Keyring) (signature.Verified, error) {
	t.Helper()
	return signature.Verify(h, mustParse(t, body), []byte(body), keys)
}

func mustParse(t testing.TB, body string) *jsondoc.Document {
	t.Helper()
	doc, err := jsondoc.Parse([]byte(body))
	if err != nil {
		t.Fatalf("Parse(%q): %v", body, err)
	}
	return doc
}

func TestReadingsMD5(t *testing.T) {
	const (
		flat   = `{"b": "x y:z", "a": "1"}`
		empty  = `{"c":"3","b":"","a":null,"z":{},"y":[]}`
		mall   = `{"t":"9","devices":[{"e":"","w":"1"},{"w":"2","e":"x"}],"a":"0"}`
		nested = `{"o":{"b":1.0,"a":[ 1e5 ]},"l":[1,{"z":"","a":2}],"n":89860220190123456789,"f":false}`
		inner  = `{"d":[{"o":{"y":1,"x":""},"l":[{"b":1,"a":2}],"n":null,"k":""}]}`
		hollow = `{"d":[{},{"e":""}],"k":"v"}`
		raw    = `{"k":["<>&\u2028\u00e9\u53d1\u007f\/",{"a\u001f":"\""}]}`
	)
	tests := []struct {
		body, reading, text string
	}{
		{flat, "members", `a=1&b=x y:z&secret`},
		{empty, "members", `a=null&b=&c=3&y=[]&z={}&secret`},
		{empty, "members/no-empty", `c=3&y=[]&z={}&secret`},
		{mall, "members", `a=0&e=&w=1&e=x&w=2&t=9&secret`},
		{mall, "members/no-empty", `a=0&w=1&e=x&w=2&t=9&secret`},
		{mall, "keyed-members", `a=0&devices=e=&w=1&e=x&w=2&t=9&secret`},
		{mall, "keyed-members/no-empty", `a=0&devices=w=1&e=x&w=2&t=9&secret`},
		{mall, "json", `a=0&devices=[{"e":"","w":"1"},{"w":"2","e":"x"}]&t=9&secret`},
		{`{"m":"",` + mall[1:], "json/no-empty", `a=0&devices=[{"e":"","w":"1"},{"w":"2","e":"x"}]&t=9&secret`},
		{nested, "members", `f=false&l=[1,{"z":"","a":2}]&n=89860220190123456789&o={"b":1.0,"a":[1e5]}&secret`},
		{inner, "members", `k=&l=[{"b":1,"a":2}]&n=null&o={"y":1,"x":""}&secret`},
		{inner, "members/no-empty", `l=[{"b":1,"a":2}]&o={"y":1,"x":""}&secret`},
		{hollow, "members", `e=&k=v&secret`},
		{hollow, "members/no-empty", `k=v&secret`},
		{hollow, "keyed-members", `d=e=&k=v&secret`},
		{hollow, "keyed-members/no-empty", `d=&k=v&secret`},
		{raw, "members", "k=[\"<>&\u2028é发\x7f/\",{\"a\\u001F\":\"\\\"\"}]&secret"},
		{`{}`, "members", `secret`},
		{`{"é":1,"a":"发","Z":3}`, "members", `Z=3&a=发&é=1&secret`},
	}
	for _, tt := range tests {
		for suffix, sum := range map[string]string{"": md5Hex(tt.text), "+raw": md5Raw(tt.text)} {
			got, err := verify(t, headers("x-lf-md5", sum), tt.body, keyring)
			want := signature.Verified{Scheme: "md5", SecretName: "only", Reading: tt.reading + suffix}
			if err != nil || got != want {
				t.Errorf("%s\nsigned over %s:\n got %+v, %v\nwant %+v", tt.body, tt.text, got, err, want)
			}
		}
	}
}

func TestReadingsHMAC(t *testing.T) {
	const (
		prefix = `1.0:HMAC-SHA1:1683524066000`
		deep   = `{"b": {"d":1.0, "c":[{"z":1e5,"y":89860220190123456789}]}, "a": ""}`
		raw    = `{"k":"<>&\u2028\u2029\u00e9\u53d1\u007f\/\u001b\n"}`
	)
	tests := []struct {
		body, reading, text string
	}{
		{`{"name": "liguoli","age": 18}`, "sorted", `{"age":18,"name":"liguoli"}`},
		{deep, "sorted", `{"a":"","b":{"d":1.0,"c":[{"z":1e5,"y":89860220190123456789}]}}`},
		{deep, "sorted-deep", `{"a":"","b":{"c":[{"y":89860220190123456789,"z":1e5}],"d":1.0}}`},
		{deep, "as-is", deep},
		{raw, "sorted", "{\"k\":\"<>&\u2028\u2029é发\x7f/\\u001B\\n\"}"},
		{raw, "as-is", raw},
		{"{\"b\":\"1\"\n\"a\":2}", "sorted", `{"a":2,"b":"1"}`}, // a comma is missing
		{"{\"b\":\"1\"\n\"a\":2}", "as-is", "{\"b\":\"1\"\n\"a\":2}"},
		{` [ {"b":1,"a":2} ] `, "sorted", `[{"b":1,"a":2}]`},
		{`[{"b":1,"a":2}]`, "sorted-deep", `[{"a":2,"b":1}]`},
		{`"text"`, "sorted", `"text"`},
		{` null`, "as-is", ` null`},
	}
	for _, tt := range tests {
		text := prefix + tt.text
		for suffix, sum := range map[string]string{"": hmacRaw(text, "hmac secret"), "+hex": hmacHex(text, "hmac secret")} {
			got, err := verify(t, hmacHeaders(sum), tt.body, keyring)
			want := signature.Verified{Scheme: "hmac-sha1", KeyID: "key1", SecretName: "only", Reading: tt.reading + suffix}
			if err != nil || got != want {
				t.Errorf("%s\nsigned over %s:\n got %+v, %v\nwant %+v", tt.body, text, got, err, want)
			}
		}
	}
}

// Spellings that documentation does not print: each is found out, and named.
func TestOtherSpellings(t *testing.T) {
	hexMD5 := func(text string) string { sum := md5.Sum([]byte(text)); return hex.EncodeToString(sum[:]) }
	rawMD5 := func(text string) []byte { sum := md5.Sum([]byte(text)); return sum[:] }
	const escaped = `{"text":"h\u00e9llo\/","n":["\u003d"]}`
	for _, tt := range []struct{ name, value, body, reading string }{
		{"hexadecimal", hexMD5("a=1&secret"), `{"a":"1"}`, "members+plain"},
		{"hexadecimal in capitals", strings.ToUpper(hexMD5("a=1&secret")), `{"a":"1"}`, "members+plain+upper"},
		{"capitals in base64", base64.StdEncoding.EncodeToString([]byte(strings.ToUpper(hexMD5("a=1&secret")))), `{"a":"1"}`, "members+upper"},
		{"no padding", strings.TrimRight(md5Hex("a=1&secret"), "="), `{"a":"1"}`, "members+url"},
		{"URL-safe", base64.URLEncoding.EncodeToString(rawMD5("n=12&secret")), `{"n":12}`, "members+raw+url"},
		{"an array", md5Hex("a=1&b=&a=2&secret"), `[{"b":"","a":"1"},{"a":"2"}]`, "members"},
		{"an array without empty members", md5Hex("a=1&a=2&secret"), `[{"b":"","a":"1"},{"a":"2"}]`, "members/no-empty"},
		{"strings as they are spelled", md5Hex(`n=["\u003d"]&text=h\u00e9llo\/&secret`), escaped, "members/spelled"},
		{"and none that is empty", md5Hex(`b=\/&secret`), `{"a":"","b":"\/"}`, "members/spelled/no-empty"},
	} {
		got, err := verify(t, headers("x-lf-md5", tt.value), tt.body, keyring)
		if err != nil || got.Reading != tt.reading {
			t.Errorf("md5, %s: %q, %v; want %q", tt.name, got.Reading, err, tt.reading)
		}
	}
	const prefix = "1.0:HMAC-SHA1:1683524066000"
	mac := func(text string) []byte {
		h := hmac.New(sha1.New, []byte("hmac secret"))
		h.Write([]byte(prefix + text))
		return h.Sum(nil)
	}
	for _, tt := range []struct{ name, value, body, reading string }{
		{"hexadecimal", hex.EncodeToString(mac(`{"a":1}`)), `{"a":1}`, "sorted+plain"},
		{"URL-safe, no padding", base64.RawURLEncoding.EncodeToString(mac(`{"a":1}`)), `{"a":1}`, "sorted+url"},
		{"laid out on its way", hmacRaw(prefix+`{"b":1,"a":{"d":1,"c":2}}`, "hmac secret"), "{\n  \"b\": 1,\n  \"a\": {\"d\": 1, \"c\": 2}\n}", "compact"},
		{"strings as they are spelled", hmacRaw(prefix+`{"n":["\u003d"],"text":"h\u00e9llo\/"}`, "hmac secret"), escaped, "sorted/spelled"},
		{"the same, sorted deep", hmacRaw(prefix+`{"a":{"x":"\/","y":1},"b":1}`, "hmac secret"), `{"b":1,"a":{"y":1,"x":"\/"}}`, "sorted-deep/spelled"},
		{"the same, laid out", hmacRaw(prefix+`{"b":1,"a":"\/"}`, "hmac secret"), `{"b": 1, "a": "\/"}`, "compact/spelled"},
	} {
		got, err := verify(t, hmacHeaders(tt.value), tt.body, keyring)
		if err != nil || got.Reading != tt.reading {
			t.Errorf("hmac-sha1, %s: %q, %v; want %q", tt.name, got.Reading, err, tt.reading)
		}
	}
	// A body that a spelling says twice is still refused: readers of it would disagree.
	if _, err := jsondoc.Parse([]byte(`{"a":1,"\u0061":2}`)); !errors.Is(err, jsondoc.ErrDuplicateKey) {
		t.Errorf("a key spelled in two ways: %v", err)
	}
}

func TestAlgorithmIsSignedAsReceived(t *testing.T) {
	tests := []struct {
		received []string
		signed   string
	}{
		{[]string{"HMAC-SHA1"}, "HMAC-SHA1"},
		{[]string{"hmac-sha1"}, "hmac-sha1"},
		{[]string{"Hmac-Sha1", "Hmac-Sha1"}, "Hmac-Sha1"},
		{nil, "HMAC-SHA1"},
	}
	for _, tt := range tests {
		h := hmacHeaders(hmacRaw("1.0:"+tt.signed+":1683524066000{}", "hmac secret"))
		h["X-Lf-Algo"] = tt.received
		if _, err := verify(t, h, `{}`, keyring); err != nil {
			t.Errorf("x-lf-algo %q, signed as %s: %v", tt.received, tt.signed, err)
		}
	}
	h := hmacHeaders(hmacRaw("1.0:HMAC-SHA1:1683524066000{}", "hmac secret"))
	h.Set("x-lf-algo", "hmac-sha1")
	if _, err := verify(t, h, `{}`, keyring); !errors.Is(err, signature.ErrMismatch) {
		t.Errorf("algorithm in other case than signed: %v; want ErrMismatch", err)
	}
}

func TestErrors(t *testing.T) {
	const body = `{"a":"1"}`
	var (
		md5Sum  = md5Hex("a=1&secret")
		hmacSum = hmacRaw(`1.0:HMAC-SHA1:1683524066000{"a":"1"}`, "hmac secret")
	)
	with := func(h http.Header, name string, values ...string) http.Header {
		h = h.Clone()
		h.Del(name)
		for _, v := range values {
			h.Add(name, v)
		}
		return h
	}
	goodMD5, goodHMAC := headers("x-lf-md5", md5Sum), hmacHeaders(hmacSum)
	tests := []struct {
		name    string
		headers http.Header
		body    string
		keys    signature.Keyring
		want    error // nil: verifies
	}{
		{"md5", goodMD5, body, keyring, nil},
		{"md5 twice the same", headers("x-lf-md5", md5Sum, "x-lf-md5", md5Sum), body, keyring, nil},
		{"hmac", goodHMAC, body, keyring, nil},

		{"no headers", nil, body, keyring, signature.ErrMissing},
		{"other headers only", with(goodHMAC, "x-lf-signature"), body, keyring, signature.ErrMissing},

		{"md5 empty", headers("x-lf-md5", ""), body, keyring, signature.ErrMalformed},
		{"md5 twice, the second one right", headers("x-lf-md5", "x", "x-lf-md5", md5Sum), body, keyring, nil},
		{"md5 twice, none right", headers("x-lf-md5", md5Hex("x"), "x-lf-md5", md5Hex("y")), body, keyring, signature.ErrMismatch},
		{"md5 three times", headers("x-lf-md5", "1", "x-lf-md5", "2", "x-lf-md5", md5Sum), body, keyring, signature.ErrMalformed},
		{"md5 of an array of texts", goodMD5, `["a=1"]`, keyring, signature.ErrMalformed},
		{"md5 of an empty array", headers("x-lf-md5", md5Hex("secret")), `[]`, keyring, signature.ErrMalformed},
		{"another md5 in hexadecimal", headers("x-lf-md5", "0123456789abcdef0123456789abcdef"), body, keyring, signature.ErrMismatch},
		{"md5 in neither", headers("x-lf-md5", "0123456789abcdef0123456789abcdeg"), body, keyring, signature.ErrMalformed},
		{"hmac twice, the second one right", with(goodHMAC, "x-lf-signature", "key2/x", "key1/"+hmacSum), body, keyring, nil},
		{"hmac twice, the first one malformed", with(goodHMAC, "x-lf-signature", "x", "key1/"+hmacSum), body, keyring, nil},
		{"md5 too short", headers("x-lf-md5", "abc"), body, keyring, signature.ErrMalformed},
		{"hmac too short", with(goodHMAC, "x-lf-signature", "key1/"+hmacSum[4:]), body, keyring, signature.ErrMalformed},
		{"hmac without a slash", with(goodHMAC, "x-lf-signature", hmacSum), body, keyring, signature.ErrMalformed},
		{"hmac without a key id", with(goodHMAC, "x-lf-signature", "/"+hmacSum), body, keyring, signature.ErrMalformed},
		{"hmac without a signature", with(goodHMAC, "x-lf-signature", "key1/"), body, keyring, signature.ErrMalformed},
		{"hmac without a version", with(goodHMAC, "x-lf-notification-version"), body, keyring, signature.ErrMalformed},
		{"hmac without a timestamp", with(goodHMAC, "x-lf-timestamp"), body, keyring, signature.ErrMalformed},
		{"hmac with a date", with(goodHMAC, "x-lf-timestamp", "2023-05-08"), body, keyring, signature.ErrMalformed},
		{"two versions", with(goodHMAC, "x-lf-notification-version", "1.0", "1.1"), body, keyring, signature.ErrMalformed},
		{"two algorithms", with(goodHMAC, "x-lf-algo", "HMAC-SHA1", "hmac-sha1"), body, keyring, signature.ErrMalformed},
		{"two timestamps", with(goodHMAC, "x-lf-timestamp", "1683524066000", "1"), body, keyring, signature.ErrMalformed},

		{"another algorithm", with(goodHMAC, "x-lf-algo", "HMAC-SHA256"), body, keyring, signature.ErrAlgorithm},

		{"no md5 secret", goodMD5, body, signature.Keyring{HMAC: keyring.HMAC}, signature.ErrUnknownKey},
		{"empty md5 secret", headers("x-lf-md5", md5Hex("a=1&")), body,
			signature.Keyring{MD5: []signature.Secret{{Name: "blank"}}}, signature.ErrUnknownKey},
		{"no hmac secret", goodHMAC, body, signature.Keyring{MD5: keyring.MD5}, signature.ErrUnknownKey},
		{"another key id", with(goodHMAC, "x-lf-signature", "key2/"+hmacSum), body, keyring, signature.ErrUnknownKey},
		{"empty hmac secret", hmacHeaders(hmacRaw(`1.0:HMAC-SHA1:1683524066000{"a":"1"}`, "")), body,
			signature.Keyring{HMAC: map[string][]signature.Secret{"key1": {{Name: "blank"}}}}, signature.ErrUnknownKey},

		{"another md5 body", goodMD5, `{"a":"2"}`, keyring, signature.ErrMismatch},
		{"another hmac body", goodHMAC, `{"a":"2"}`, keyring, signature.ErrMismatch},
		{"another md5 of the bytes", headers("x-lf-md5", md5Raw("a=2&md5 secret")), body, keyring, signature.ErrMismatch},
		{"another hmac in hexadecimal", hmacHeaders(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("0", 40)))), body, keyring, signature.ErrMismatch},
		{"another version", with(goodHMAC, "x-lf-notification-version", "1.1"), body, keyring, signature.ErrMismatch},
		{"another timestamp", with(goodHMAC, "x-lf-timestamp", "1683524066001"), body, keyring, signature.ErrMismatch},
		{"a reading that is not tried", goodMD5, body, signature.Keyring{MD5: keyring.MD5, Readings: []string{"json"}}, nil},
		{"a reading that alone is tried", headers("x-lf-md5", md5Hex("secret")), `{"a":""}`,
			signature.Keyring{MD5: keyring.MD5, Readings: []string{"members"}}, signature.ErrMismatch},
		{"readings of the other scheme alone", goodHMAC, body, signature.Keyring{HMAC: keyring.HMAC, Readings: []string{"members"}}, nil},
		{"the secret of the other scheme", headers("x-lf-md5", md5Hex("a=1&hmac secret")), body, keyring, signature.ErrMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := verify(t, tt.headers, tt.body, tt.keys)
			if !errors.Is(err, tt.want) || (err == nil) != (got != signature.Verified{}) {
				t.Errorf("Verify = %+v, %v; want %v", got, err, tt.want)
			}
			_, explained := signature.Explain(tt.headers, mustParse(t, tt.body), []byte(tt.body), tt.keys)
			if errorText(explained) != errorText(err) {
				t.Errorf("Explain: %v; Verify: %v", explained, err)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestUnreadBodyNeverVerifies(t *testing.T) {
	h := hmacHeaders(hmacRaw("1.0:HMAC-SHA1:1683524066000{", "hmac secret"))
	if _, err := signature.Verify(h, nil, []byte("{"), keyring); !errors.Is(err, signature.ErrMalformed) {
		t.Errorf("without a document: %v; want ErrMalformed", err)
	}
}

// One signed text, with the boundary between timestamp and body moved: only the
// split that the sender meant verifies.
func TestTimestampAndBodyDoNotRunTogether(t *testing.T) {
	tests := []struct {
		timestamp, body string
		want            error
	}{
		{"1683", `"\""`, nil},
		{`1683"\`, `""`, signature.ErrMalformed},
		{"1683", `5`, signature.ErrMalformed},
		{"168", `35`, signature.ErrMalformed},
	}
	for _, tt := range tests {
		h := hmacHeaders(hmacRaw("1.0:HMAC-SHA1:"+tt.timestamp+tt.body, "hmac secret"))
		h.Set("x-lf-timestamp", tt.timestamp)
		if _, err := verify(t, h, tt.body, keyring); !errors.Is(err, tt.want) {
			t.Errorf("timestamp %s, body %s: %v; want %v", tt.timestamp, tt.body, err, tt.want)
		}
	}
}

func TestBothSignatures(t *testing.T) {
	const body = `{"a":"1"}`
	goodMD5, badMD5 := md5Hex("a=1&secret"), md5Hex("a=1&other")
	goodHMAC := "key1/" + hmacRaw(`1.0:HMAC-SHA1:1683524066000{"a":"1"}`, "hmac secret")
	tests := []struct {
		name, md5, hmac string
		scheme          string
		want            []error
	}{
		{"both right", goodMD5, goodHMAC, "hmac-sha1", nil},
		{"md5 wrong", badMD5, goodHMAC, "hmac-sha1", nil},
		{"hmac wrong", goodMD5, "key1/AAAA", "md5", nil},
		{"hmac malformed", goodMD5, "AAAA", "md5", nil},
		{"hmac key unknown", goodMD5, "key2/AAAA", "md5", nil},
		{"both wrong", badMD5, "key2/AAAA", "", []error{signature.ErrMismatch, signature.ErrUnknownKey}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := hmacHeaders("")
			h.Set("x-lf-signature", tt.hmac)
			h.Set("x-lf-md5", tt.md5)
			got, err := verify(t, h, body, keyring)
			if got.Scheme != tt.scheme || (err == nil) != (tt.want == nil) {
				t.Errorf("Verify = %+v, %v; want scheme %q", got, err, tt.scheme)
			}
			for _, want := range tt.want {
				if !errors.Is(err, want) {
					t.Errorf("%v is not %v", err, want)
				}
			}
		})
	}
}

func TestRotation(t *testing.T) {
	const body = `{"a":"1"}`
	before, after := signature.Secret{Name: "before", Value: "1st"}, signature.Secret{Name: "after", Value: "2nd"}
	blank := signature.Secret{Name: "blank"}
	tests := []struct {
		configured []signature.Secret
		signedWith string
		want       string // the name of the secret, or none
	}{
		{[]signature.Secret{before}, "1st", "before"},
		{[]signature.Secret{before}, "2nd", ""},
		{[]signature.Secret{after, before}, "1st", "before"},
		{[]signature.Secret{after, before}, "2nd", "after"},
		{[]signature.Secret{blank, after}, "2nd", "after"},
		{[]signature.Secret{blank, after}, "", ""},
		{[]signature.Secret{after}, "1st", ""},
	}
	for _, tt := range tests {
		keys := signature.Keyring{MD5: tt.configured, HMAC: map[string][]signature.Secret{"key1": tt.configured}}
		for scheme, h := range map[string]http.Header{
			"md5":       headers("x-lf-md5", md5Hex("a=1&"+tt.signedWith)),
			"hmac-sha1": hmacHeaders(hmacRaw(`1.0:HMAC-SHA1:1683524066000{"a":"1"}`, tt.signedWith)),
		} {
			got, err := verify(t, h, body, keys)
			if got.SecretName != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("%s with %v, signed with %q: %+v, %v; want %q", scheme, tt.configured, tt.signedWith, got, err, tt.want)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	const body = `{"b":[{"y":"","x":1}],"a":2}`
	keys := signature.Keyring{MD5: []signature.Secret{{Name: "new", Value: "s2"}, {Name: "old", Value: "s1"}}}
	got, err := signature.Explain(headers("x-lf-md5", md5Raw("a=2&b=x=1&y=&s1")), mustParse(t, body), []byte(body), keys)
	if err != nil {
		t.Errorf("Explain: %v", err)
	}
	var want []signature.Attempt
	for _, r := range [][2]string{
		{"members", "a=2&x=1&y=&***"},
		{"members/no-empty", "a=2&x=1&***"},
		{"keyed-members", "a=2&b=x=1&y=&***"},
		{"keyed-members/no-empty", "a=2&b=x=1&***"},
		{"json", `a=2&b=[{"y":"","x":1}]&***`},
		// "json/no-empty" gives the same text as "json".
	} {
		for _, secret := range []string{"new", "old"} {
			want = append(want, signature.Attempt{
				Verified: signature.Verified{Scheme: "md5", SecretName: secret, Reading: r[0] + "+raw"},
				Text:     r[1],
				Matched:  r[0] == "keyed-members" && secret == "old",
			})
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The same is told when the header holds no digest at all.
	got, err = signature.Explain(headers("x-lf-md5", "abc"), mustParse(t, body), []byte(body), keys)
	if !errors.Is(err, signature.ErrMalformed) || len(got) != len(want) {
		t.Errorf("without a digest: %d attempts, %v; want %d", len(got), err, len(want))
	}
}

func BenchmarkVerify(b *testing.B) {
	flat := `{"partner_code":"P123456","sim_id":"89860220190123456789","imsi":"4230001234567","message_type":"Text",` +
		`"text_message":"` + strings.Repeat("device status: 1234 ", 7) + `","received_at":"1642385160000"}`
	doc := mustParse(b, flat)
	secret := keyring.MD5[0]
	sum, err := signature.SignMD5(doc, secret)
	if err != nil {
		b.Fatal(err)
	}
	hmacSigned, err := signature.SignHMAC(doc, "1.0", "1683524066000", "key1", keyring.HMAC["key1"][0])
	if err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct {
		name    string
		headers http.Header
		matches bool
	}{
		{"md5", headers("x-lf-md5", sum), true},
		{"hmac-sha1", hmacSigned, true},
		{"mismatch", headers("x-lf-md5", md5Hex("x")), false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(flat)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := signature.Verify(bench.headers, doc, []byte(flat), keyring); (err == nil) != bench.matches {
					b.Fatal(err)
				}
			}
		})
	}
}
