// Package bodyform answers: as what other text can a body be read?
//
// JSON is UTF-8 without a byte-order mark, and a body that is that needs nothing of this package. Linksfield documents no character set,
// and a proxy may compress: a body can be packed with gzip, begin with a mark, or be in UTF-16, GB 18030 (of which GBK and GB 2312 are
// parts) or Windows-1252 (of which Latin-1 is one). Which of them it is, its headers may say; where they do not, any text that it can be
// read as is one, and what tells them apart is what the reader knows besides: that it is JSON, and that its signature holds.
package bodyform

import (
	"bytes"
	"compress/gzip"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
)

// MaxText bounds the text of a form, in bytes: what is larger is none.
const MaxText = 1 << 20

// Form is one other way to read a body.
type Form struct {
	// Name says how: gzip, bom, or the name of a character set; several are joined with a plus.
	Name string
	// Text in UTF-8.
	Text []byte
	// Charset is the character set, if it is another one than UTF-8.
	Charset *Charset
	// Declared: the headers say so.
	Declared bool
}

// Charset is a character set.
type Charset struct {
	Name     string
	encoding encoding.Encoding
	labels   []string // in Content-Type, in lower case
}

// Encode writes text in the character set; nil if it cannot be.
func (c *Charset) Encode(text []byte) []byte {
	encoded, err := c.encoding.NewEncoder().Bytes(text)
	if err != nil {
		return nil
	}
	return encoded
}

// The character sets, those that say most of a body first.
var (
	utf16LE = &Charset{"utf-16le", unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), []string{"utf-16le", "utf-16"}}
	utf16BE = &Charset{"utf-16be", unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), []string{"utf-16be"}}
	gb18030 = &Charset{"gb18030", simplifiedchinese.GB18030, []string{"gb18030", "gbk", "gb2312", "cp936", "x-gbk"}}
	latin1  = &Charset{"windows-1252", charmap.Windows1252, []string{"windows-1252", "iso-8859-1", "latin1", "us-ascii"}}
)

// ASCIICompatible are the character sets in which ASCII is ASCII, so that a text in one can be followed by a secret in any.
func ASCIICompatible() []*Charset { return []*Charset{gb18030, latin1} }

// Of returns the forms of a body beside UTF-8 as it is, the likeliest first. There are at most seven.
func Of(body []byte, headers http.Header) []Form {
	forms := charsets(body, headers, "", false)
	if text, ok := unpack(body); ok {
		declared := strings.EqualFold(strings.TrimSpace(headers.Get("Content-Encoding")), "gzip")
		forms = append(forms, charsets(text, headers, "gzip", declared)...)
	}
	return forms
}

// charsets returns the forms of a body that was unpacked already, in a way that has a name.
func charsets(body []byte, headers http.Header, name string, declared bool) (forms []Form) {
	add := func(how string, text []byte, charset *Charset, declared bool) {
		if len(text) == 0 || len(text) > MaxText || !utf8.Valid(text) {
			return
		}
		forms = append(forms, Form{strings.Trim(name+"+"+how, "+"), text, charset, declared})
	}
	if text, marked := bytes.CutPrefix(body, []byte("\ufeff")); marked {
		add("bom", text, nil, true)
		return forms
	}
	if utf8.Valid(body) && bytes.IndexByte(body, 0) < 0 {
		if name != "" {
			add("", body, nil, declared)
		}
		return forms
	}
	switch {
	case bytes.HasPrefix(body, []byte("\xff\xfe")):
		add(utf16LE.Name, decode(utf16LE, body[2:]), utf16LE, true)
		return forms
	case bytes.HasPrefix(body, []byte("\xfe\xff")):
		add(utf16BE.Name, decode(utf16BE, body[2:]), utf16BE, true)
		return forms
	}
	said := label(headers)
	for _, charset := range []*Charset{utf16LE, utf16BE, gb18030, latin1} {
		wide := charset == utf16LE || charset == utf16BE
		if wide != (bytes.IndexByte(body, 0) >= 0) { // JSON has no NUL, and in UTF-16 every other byte of it is one
			continue
		}
		matches := false
		for _, one := range charset.labels {
			matches = matches || one == said
		}
		add(charset.Name, decode(charset, body), charset, matches)
	}
	return forms
}

// label is the character set that the headers say, in lower case.
func label(headers http.Header) string {
	_, parameters, err := mime.ParseMediaType(headers.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return strings.ToLower(parameters["charset"])
}

// decode returns a text, or nil if the body is none in the character set.
func decode(charset *Charset, body []byte) []byte {
	text, err := charset.encoding.NewDecoder().Bytes(body)
	if err != nil || bytes.ContainsRune(text, utf8.RuneError) {
		return nil
	}
	return text
}

// unpack reads a body that is packed with gzip.
func unpack(body []byte) ([]byte, bool) {
	if !bytes.HasPrefix(body, []byte("\x1f\x8b")) {
		return nil, false
	}
	reader, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, false
	}
	text, err := io.ReadAll(io.LimitReader(reader, MaxText+1))
	return text, err == nil && len(text) <= MaxText
}
