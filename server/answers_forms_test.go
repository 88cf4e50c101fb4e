package server_test

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// TestBodiesInOtherForms requires that a notification whose body is in another character set, marked or packed is stored byte for byte,
// typed, and says how it was read, when its signature is right for it; and that it is quarantined otherwise.
func TestBodiesInOtherForms(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	encoded := func(e encoding.Encoding, text string) string {
		t.Helper()
		data, err := e.NewEncoder().String(text)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	packed := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		return b.String()
	}
	md5Of := func(text string) http.Header {
		sum := md5.Sum([]byte(text))
		return http.Header{"X-Lf-Md5": {base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(sum[:])))}}
	}
	const body, text = `{"sim_id":"89860220190000000001","text_message":"发送短信"}`, "sim_id=89860220190000000001&text_message=发送短信&" + md5Secret
	gbk := simplifiedchinese.GBK
	utf16 := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)
	for name, tt := range map[string]struct {
		header  http.Header
		body    string
		reading string // empty: refused
	}{
		"a byte-order mark":      {md5Of(text), "\ufeff" + body, "members+bom"},
		"GBK":                    {md5Of(text), encoded(gbk, body), "members+gb18030"},
		"GBK, signed so":         {md5Of(encoded(gbk, text)), encoded(gbk, body), "members+gb18030+text"},
		"UTF-16":                 {md5Of(text), encoded(utf16, body), "members+utf-16le"},
		"gzip":                   {md5Of(text), packed(body), "members+gzip"},
		"gzip of GBK":            {md5Of(text), packed(encoded(gbk, body)), "members+gzip+gb18030"},
		"GBK, another signature": {md5Of("x"), encoded(gbk, body), ""},
		"gzip, cut off":          {md5Of(text), packed(body)[:40], ""},
		"gzip of far too much":   {md5Of(text), packed(strings.Repeat(" ", 64<<20)), ""},
		"GBK, unsigned, by a URL that must be signed": {http.Header{"Content-Type": {"application/json; charset=gbk"}}, encoded(gbk, body), ""},
	} {
		a := g.request(t, http.MethodPost, smsPath, tt.header, strings.NewReader(tt.body))
		if (a.status == http.StatusOK) != (tt.reading != "") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
			continue
		}
		if tt.reading == "" {
			continue
		}
		n := g.get(t, a.id(t))
		raw := n.GetBody()
		if binary := n.GetBinaryBody(); binary != nil {
			raw = string(binary)
		}
		if raw != tt.body || n.GetVerification().GetReading() != tt.reading || n.GetSmsReceived().GetText() != "发送短信" ||
			!slices.Equal(n.GetIccids(), []string{"89860220190000000001"}) {
			t.Errorf("%s: %v", name, n)
		}
	}
	// By a URL that need not be signed the headers must say what it is.
	order := orderPath + "/" + orderToken
	for charset, want := range map[string]int{"gbk": http.StatusOK, "utf-8": http.StatusBadRequest} {
		header := http.Header{"Content-Type": {"application/json; charset=" + charset}}
		if a := g.request(t, http.MethodPost, order, header, strings.NewReader(encoded(gbk, body))); a.status != want {
			t.Errorf("unsigned, charset=%s: %d; want %d", charset, a.status, want)
		}
	}
	header := http.Header{"Content-Encoding": {"gzip"}}
	a := g.request(t, http.MethodPost, order, header, strings.NewReader(packed(body)))
	if a.status != http.StatusOK {
		t.Fatalf("unsigned, packed: %d", a.status)
	}
	if headers := g.get(t, a.id(t)).GetHeaders(); !slices.ContainsFunc(headers, func(h *linksgatev1.RequestHeader) bool { return h.GetName() == "content-encoding" }) {
		t.Errorf("recorded are %v", headers)
	}
	if entries := quarantined(t, g); len(entries) != 5 {
		t.Errorf("%d are in quarantine; want 5", len(entries))
	}
}
