package bodyform_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/linksgate/linksgate/server/bodyform"
)

// TestPlainBodiesHaveNoOtherForm: JSON as it should be needs nothing of this.
func TestPlainBodiesHaveNoOtherForm(t *testing.T) {
	for _, body := range []string{"", "{}", `{"text":"发送短信"}`, "\x1f", "\x1f\x8b", "\x1f\x8bnot gzip"} {
		forms := bodyform.Of([]byte(body), http.Header{"Content-Type": {"text/plain; charset=gbk"}, "Content-Encoding": {"gzip"}})
		if utf8.ValidString(body) && len(forms) > 0 {
			t.Errorf("%q can be read as %v", body, forms)
		}
	}
}

// FuzzOf: whatever the body, its forms are few, bounded and UTF-8, and a character set gives back what it was given.
func FuzzOf(f *testing.F) {
	gbk, err := simplifiedchinese.GBK.NewEncoder().String(`{"text":"发送短信"}`)
	if err != nil {
		f.Fatal(err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write([]byte(gbk))
	_ = w.Close()
	for _, body := range []string{"{}", "\ufeff{}", gbk, packed.String(), "\xff\xfe{\x00}\x00", "\xfe\xff\x00{\x00}", "{\x00}\x00", "\x00{\x00}"} {
		f.Add([]byte(body), "application/json; charset=gbk", "gzip")
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType, contentEncoding string) {
		before := bytes.Clone(body)
		forms := bodyform.Of(body, http.Header{"Content-Type": {contentType}, "Content-Encoding": {contentEncoding}})
		if len(forms) > 7 {
			t.Errorf("%d forms", len(forms))
		}
		for _, form := range forms {
			if form.Name == "" || len(form.Text) > bodyform.MaxText || !utf8.Valid(form.Text) {
				t.Errorf("%q: %d bytes", form.Name, len(form.Text))
			}
			if form.Charset != nil && form.Charset.Encode(form.Text) == nil {
				t.Errorf("%s: what was decoded cannot be encoded", form.Name)
			}
		}
		if !bytes.Equal(body, before) {
			t.Error("the body was changed")
		}
	})
}
