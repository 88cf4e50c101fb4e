package jsondoc_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linksgate/linksgate/server/jsondoc"
)

func str(text string) jsondoc.Value { return jsondoc.Value{Kind: jsondoc.String, Text: text} }
func num(text string) jsondoc.Value { return jsondoc.Value{Kind: jsondoc.Number, Text: text} }

func object(members ...jsondoc.Member) jsondoc.Value {
	return jsondoc.Value{Kind: jsondoc.Object, Members: members}
}

func array(elements ...jsondoc.Value) jsondoc.Value {
	return jsondoc.Value{Kind: jsondoc.Array, Elements: elements}
}

func TestParse(t *testing.T) {
	tests := []struct {
		body string
		want jsondoc.Value
	}{
		{` {} `, object()},
		{"\r\n\t[ ]", array()},
		{`null`, jsondoc.Value{Kind: jsondoc.Null, Text: "null"}},
		{`[true,false]`, array(
			jsondoc.Value{Kind: jsondoc.Bool, Text: "true"},
			jsondoc.Value{Kind: jsondoc.Bool, Text: "false"})},
		{`[0,-0,1.0,1e5,1E+05,-2.50e-3,89860220190123456789]`, array(
			num("0"), num("-0"), num("1.0"), num("1e5"), num("1E+05"), num("-2.50e-3"), num("89860220190123456789"))},
		{`{"b":1,"a":{"z":[],"":""}}`, object(
			jsondoc.Member{Key: "b", Value: num("1")},
			jsondoc.Member{Key: "a", Value: object(
				jsondoc.Member{Key: "z", Value: array()},
				jsondoc.Member{Key: "", Value: str("")})})},
		{`[[1,[2]],3]`, array(array(num("1"), array(num("2"))), num("3"))},
		{`"发送短信内容"`, str("发送短信内容")},
		{`"\"\\\/\b\f\n\r\t"`, str("\"\\/\b\f\n\r\t")},
		{`"a\u00e9\u0000\uD83D\ude00b"`, str("aé\x00😀b")},
		{"\"\x7f\u2028\ufffd\"", str("\x7f\u2028\ufffd")},
	}
	for _, tt := range tests {
		doc, err := jsondoc.Parse([]byte(tt.body))
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.body, err)
			continue
		}
		if diff := cmp.Diff(&jsondoc.Document{Root: tt.want}, doc); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", tt.body, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct {
		body   string
		want   error
		offset int
	}{
		{``, jsondoc.ErrSyntax, 0},
		{`  `, jsondoc.ErrSyntax, 2},
		{"\x00", jsondoc.ErrSyntax, 0},
		{"\ufeff{}", jsondoc.ErrSyntax, 0},
		{"{\"a\":\"\xff\"}", jsondoc.ErrSyntax, 6},
		{"\"\ufffd\xed\xa0\x80\"", jsondoc.ErrSyntax, 4}, // a surrogate in CESU-8
		{`{`, jsondoc.ErrSyntax, 1},
		{`{"a"`, jsondoc.ErrSyntax, 4},
		{`{"a" 1}`, jsondoc.ErrSyntax, 5},
		{`{"a":}`, jsondoc.ErrSyntax, 5},
		{`{"a":1`, jsondoc.ErrSyntax, 6},
		{`{"a":1,}`, jsondoc.ErrSyntax, 7},
		{`{,"a":1}`, jsondoc.ErrSyntax, 1},
		{`{"a":1,,"b":2}`, jsondoc.ErrSyntax, 7},
		{`{"a":1;"b":2}`, jsondoc.ErrSyntax, 6},
		{`{a:1}`, jsondoc.ErrSyntax, 1},
		{`{'a':1}`, jsondoc.ErrSyntax, 1},
		{`[1`, jsondoc.ErrSyntax, 2},
		{`[1,]`, jsondoc.ErrSyntax, 3},
		{`["a" "b"]`, jsondoc.ErrSyntax, 5}, // the missing comma is for objects only
		{`[1}`, jsondoc.ErrSyntax, 2},
		{`[01]`, jsondoc.ErrSyntax, 2},
		{`[-]`, jsondoc.ErrSyntax, 2},
		{`[1.]`, jsondoc.ErrSyntax, 3},
		{`[.5]`, jsondoc.ErrSyntax, 1},
		{`[+5]`, jsondoc.ErrSyntax, 1},
		{`[1e]`, jsondoc.ErrSyntax, 3},
		{`[1e+]`, jsondoc.ErrSyntax, 4},
		{`1e`, jsondoc.ErrSyntax, 2},
		{`[NaN]`, jsondoc.ErrSyntax, 1},
		{`[True]`, jsondoc.ErrSyntax, 1},
		{`[nul]`, jsondoc.ErrSyntax, 1},
		{`[1/**/]`, jsondoc.ErrSyntax, 2},
		{`"a`, jsondoc.ErrSyntax, 2},
		{`"a\`, jsondoc.ErrSyntax, 2},
		{`"a\"`, jsondoc.ErrSyntax, 4},
		{"\"a\nb\"", jsondoc.ErrSyntax, 2},
		{"\"\\t\x1f\"", jsondoc.ErrSyntax, 3},
		{`"\x41"`, jsondoc.ErrSyntax, 1},
		{`"\u12G4"`, jsondoc.ErrSyntax, 1},
		{`"\u123"`, jsondoc.ErrSyntax, 1},
		{`"\uD83D"`, jsondoc.ErrSyntax, 1},
		{`"\uDE00\uD83D"`, jsondoc.ErrSyntax, 1},
		{`"\uD83Dxxxxxx"`, jsondoc.ErrSyntax, 1},
		{`"\uD83D\u0041"`, jsondoc.ErrSyntax, 1},
		{`{"\uDC00":1}`, jsondoc.ErrSyntax, 2},
		{`{}{}`, jsondoc.ErrTrailingData, 2},
		{`{} ,`, jsondoc.ErrTrailingData, 3},
		{"{}\x00", jsondoc.ErrTrailingData, 2},
		{`01`, jsondoc.ErrTrailingData, 1},
		{`{"a":1,"a":1}`, jsondoc.ErrDuplicateKey, 7},
		{`{"a":1,"\u0061":2}`, jsondoc.ErrDuplicateKey, 7},
		{`{"a":1 "a":2}`, jsondoc.ErrDuplicateKey, 7},
		{`[{"x":{"":1,"b":{},"":2}}]`, jsondoc.ErrDuplicateKey, 19},
	}
	for _, tt := range tests {
		doc, err := jsondoc.Parse([]byte(tt.body))
		if doc != nil || !errors.Is(err, tt.want) {
			t.Errorf("Parse(%q) = %v, %v; want %v", tt.body, doc, err, tt.want)
			continue
		}
		if at := fmt.Sprintf("byte %d: ", tt.offset); !strings.HasPrefix(err.Error(), at) {
			t.Errorf("Parse(%q): %q; want it at %q", tt.body, err, at)
		}
	}
}

func TestParseAcceptsMissingCommaBetweenMembers(t *testing.T) {
	tests := []struct {
		body, corrected string
		missing         int
	}{
		{"{\"message_type\":\"Binary\"\n\"text_message\":\"x\"}", `{"message_type":"Binary","text_message":"x"}`, 1},
		{`{"a":1"b":[]"c":{"d":null "e":0},"f":2}`, `{"a":1,"b":[],"c":{"d":null,"e":0},"f":2}`, 3},
	}
	for _, tt := range tests {
		doc, err := jsondoc.Parse([]byte(tt.body))
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.body, err)
			continue
		}
		want := mustParse(t, tt.corrected)
		want.MissingCommas = tt.missing
		if diff := cmp.Diff(want, doc); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", tt.body, diff)
		}
	}
}

func TestParseBoundsNesting(t *testing.T) {
	nest := func(opening, closing string, depth int) []byte {
		return []byte(strings.Repeat(opening, depth) + "1" + strings.Repeat(closing, depth))
	}
	for _, brackets := range [][2]string{{"[", "]"}, {`{"a":`, "}"}} {
		if _, err := jsondoc.Parse(nest(brackets[0], brackets[1], jsondoc.MaxDepth)); err != nil {
			t.Errorf("%s at MaxDepth: %v", brackets[0], err)
		}
		for _, depth := range []int{jsondoc.MaxDepth + 1, 100_000} {
			if _, err := jsondoc.Parse(nest(brackets[0], brackets[1], depth)); !errors.Is(err, jsondoc.ErrNesting) {
				t.Errorf("%s at depth %d: %v; want ErrNesting", brackets[0], depth, err)
			}
		}
	}
	siblings := []byte("[" + strings.Repeat("[],", 1000) + "[]]")
	if _, err := jsondoc.Parse(siblings); err != nil {
		t.Errorf("siblings are not nesting: %v", err)
	}
}

func TestParseBoundsValues(t *testing.T) {
	list := func(n int) string { return "[0" + strings.Repeat(",0", n-1) + "]" }
	tests := []struct {
		name, body string
		want       error
	}{
		{"elements", list(jsondoc.MaxValues), nil},
		{"elements, one too many", list(jsondoc.MaxValues + 1), jsondoc.ErrTooMany},
		{"members", string(objectOf(jsondoc.MaxValues/2, -1)), nil}, // each holds another
		{"members, one too many", string(objectOf(jsondoc.MaxValues/2+1, -1)), jsondoc.ErrTooMany},
		{"members and elements", `{"a":` + list(jsondoc.MaxValues-1) + `}`, nil},
		{"members and elements, one too many", `{"a":` + list(jsondoc.MaxValues) + `}`, jsondoc.ErrTooMany},
	}
	for _, tt := range tests {
		if _, err := jsondoc.Parse([]byte(tt.body)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v; want %v", tt.name, err, tt.want)
		}
	}
}

// Sizes around the point where comparing keys gives way to a set of them.
func TestParseFindsDuplicatesInLargeObjects(t *testing.T) {
	for _, size := range []int{2, 15, 16, 17, 18, 100} {
		for repeat := range size {
			if _, err := jsondoc.Parse(objectOf(size, -1)); err != nil {
				t.Fatalf("size %d: %v", size, err)
			}
			if _, err := jsondoc.Parse(objectOf(size, repeat)); !errors.Is(err, jsondoc.ErrDuplicateKey) {
				t.Errorf("size %d, key %d again: %v; want ErrDuplicateKey", size, repeat, err)
			}
		}
	}
}

// objectOf writes an object of size members, and one more with the key of the
// member at repeat unless that is negative.
func objectOf(size, repeat int) []byte {
	body := []byte{'{'}
	for i := range size {
		body = fmt.Appendf(body, `"k%d":{"k0":%d},`, i, i)
	}
	if repeat >= 0 {
		body = fmt.Appendf(body, `"k%d":0,`, repeat)
	}
	body[len(body)-1] = '}'
	return body
}

func TestParseDoesNotReferToBody(t *testing.T) {
	body := []byte(`{"imsi":"4230001234567"}`)
	doc, err := jsondoc.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	clear(body)
	if got, _ := doc.Root.Lookup("imsi"); got.Text != "4230001234567" {
		t.Errorf("imsi = %q after the body was overwritten", got.Text)
	}
}

func TestLookup(t *testing.T) {
	root := mustParse(t, `{"a":null,"b":[1]}`).Root
	if got, ok := root.Lookup("b"); !ok || got.Kind != jsondoc.Array {
		t.Errorf("b = %v, %v", got, ok)
	}
	if got, ok := root.Lookup("a"); !ok || got.Kind != jsondoc.Null {
		t.Errorf("a = %v, %v", got, ok)
	}
	if got, ok := root.Lookup("c"); ok {
		t.Errorf("c = %v, though there is none", got)
	}
	if _, ok := num("1").Lookup(""); ok {
		t.Error("a number has members")
	}
}

func mustParse(t *testing.T, body string) *jsondoc.Document {
	t.Helper()
	doc, err := jsondoc.Parse([]byte(body))
	if err != nil {
		t.Fatalf("Parse(%q): %v", body, err)
	}
	return doc
}

func BenchmarkParse(b *testing.B) {
	flat := []byte(`{"imsi":"8900000000000010","partner_code":"P002671","received_at":"2022-01-19T201101","sim_id":"89000000000001","text_message":"device status: 1234"}`)
	large := objectOf(10_000, -1)
	for _, bench := range []struct {
		name string
		body []byte
	}{{"flat", flat}, {"large", large}} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := jsondoc.Parse(bench.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
