package main

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"

	"github.com/linksgate/linksgate/server/signature"
)

// TestGuesses requires that what would make a request verify is found, in combination, and said with as few changes as there can be.
// The signatures are made here, from texts written out by hand.
func TestGuesses(t *testing.T) {
	signed := func(text string) http.Header {
		sum := md5.Sum([]byte(text))
		return http.Header{"X-Lf-Md5": {base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(sum[:])))}}
	}
	cube := func(text, key string) http.Header {
		h := hmac.New(sha1.New, []byte(key))
		h.Write([]byte("1.0:HMAC-SHA1:1" + text))
		return http.Header{
			"X-Lf-Signature": {"k9/" + base64.StdEncoding.EncodeToString(h.Sum(nil))}, "X-Lf-Notification-Version": {"1.0"},
			"X-Lf-Algo": {"HMAC-SHA1"}, "X-Lf-Timestamp": {"1"},
		}
	}
	must := func(data []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	gbk := func(text string) string { return must(simplifiedchinese.GBK.NewEncoder().Bytes([]byte(text))) }
	latin := func(text string) string { return must(charmap.ISO8859_1.NewEncoder().Bytes([]byte(text))) }
	utf16 := func(text string) string {
		return must(unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().Bytes([]byte(text)))
	}
	packed := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		return b.String()
	}
	const body, chinese = `{"a":"1"}`, `{"text":"发送短信"}`
	secrets := func(values ...string) (named []signature.Secret) {
		for i, value := range values {
			named = append(named, signature.Secret{Name: "secret-" + string(rune('1'+i)), Value: value})
		}
		return named
	}
	for name, tt := range map[string]struct {
		headers http.Header
		body    string
		secrets []signature.Secret
		want    string // empty: nothing
	}{
		"another secret":                    {signed("a=1&right"), body, secrets("wrong", "right"), "signed with secret-2 (md5 members)"},
		"a final blank":                     {signed("a=1&right"), body, secrets("wrong", "right "), "signed with secret-2 if its final blank is removed (md5 members)"},
		"a first blank":                     {signed("a=1&right"), body, secrets("\tright"), "signed with secret-1 if its first blank is removed (md5 members)"},
		"quotes":                            {signed("a=1&right"), body, secrets(`"right"`), "signed with secret-1 if the quotes around it are removed (md5 members)"},
		"a byte-order mark":                 {signed("a=1&right"), body, secrets("\ufeffright"), "signed with secret-1 if the byte-order mark at its beginning is removed (md5 members)"},
		"a line break":                      {signed("a=1&right\n"), body, secrets("right"), "signed with secret-1 if a line break follows it (md5 members)"},
		"hexadecimal":                       {signed("a=1&right"), body, secrets("7269676874"), "signed with secret-1 if it is decoded from hexadecimal (md5 members)"},
		"a body in GBK":                     {signed("text=发送短信&right"), gbk(chinese), secrets("right"), "signed with secret-1 if the body is read as gb18030 (md5 members)"},
		"signed in GBK":                     {signed(gbk("text=发送短信&right")), chinese, secrets("right"), "signed with secret-1 if the signed text is written in gb18030 (md5 members)"},
		"in GBK and signed so":              {signed(gbk("text=发送短信&right")), gbk(chinese), secrets("right "), "signed with secret-1 if its final blank is removed, and the body is read as gb18030, and the signed text is written in gb18030 (md5 members)"},
		"Latin-1":                           {signed("text=é&right"), latin(`{"text":"é"}`), secrets("right"), "signed with secret-1 if the body is read as windows-1252 (md5 members)"},
		"UTF-16":                            {signed("text=发送短信&right"), utf16(chinese), secrets("right"), "signed with secret-1 if the body is read as utf-16le (md5 members)"},
		"packed":                            {signed("a=1&right"), packed(body), secrets("right"), "signed with secret-1 if the body is read as gzip (md5 members)"},
		"a byte-order mark before the body": {signed("a=1&right"), "\ufeff" + body, secrets("right"), "signed with secret-1 if the body is read as bom (md5 members)"},
		"a key":                             {cube(`{"a":"1"}`, "right"), body, secrets("right "), "signed with secret-1 if its final blank is removed (hmac-sha1 sorted)"},
		"line breaks":                       {cube("{\"b\":1,\r\n\"a\":2.0}", "right"), "{\"b\":1,\n\"a\":2.0}", secrets("right"), "signed with secret-1 if its line breaks are CR and LF (hmac-sha1 as-is)"},
		"nothing":                           {signed("a=2&right"), body, secrets("right", "wrong"), ""},
		"no JSON":                           {signed("a=1&right"), "a=1", secrets("right"), ""},
		"a bomb":                            {signed("a=1&right"), packed(strings.Repeat(" ", 32<<20)), secrets("right"), ""},
	} {
		began := time.Now()
		found, ok := guessHow(tt.headers, []byte(tt.body), tt.secrets, tt.secrets)
		if ok != (tt.want != "") || ok && found.sentence() != tt.want {
			t.Errorf("%s: %q, %v; want %q", name, found.sentence(), ok, tt.want)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
		if strings.Contains(found.sentence(), "right") {
			t.Errorf("%s: the secret is shown", name)
		}
	}
}
