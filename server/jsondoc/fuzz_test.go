package jsondoc_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/linksgate/linksgate/server/jsondoc"
)

var seeds = []string{
	`{"imsi":"8900000000000010","partner_code":"P002671","text_message":"device status: 1234"}`,
	"{\"message_type\":\"Binary\"\n\"text_message\":\"发送短信内容\"}",
	`{"devices":[{"expireTime":"","warningCode":"1"},{}],"n":[1.0,-2e+5,null,true]}`,
	`{"a":1,"\u0061":2}`,
	`"\uD83D\ude00\b\u0000\/"`,
	`"\ud83d"`,
	"\ufeff[]",
	"[\xff]",
	"[[[[[[[[]]]]]]]] 1",
}

// FuzzParse holds Parse against encoding/json: what both accept they read
// alike, and what only one accepts is one of the differences that are promised.
func FuzzParse(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := jsondoc.Parse(body)
		valid := json.Valid(body)
		switch {
		case err == nil && doc.MissingCommas == 0:
			if !valid {
				t.Fatal("accepted, but not JSON")
			}
			if diff := cmp.Diff(decode(t, body), doc.Root); diff != "" {
				t.Fatalf("read otherwise than by encoding/json (-json +jsondoc):\n%s", diff)
			}
		case err == nil && valid:
			t.Fatalf("%d missing commas in valid JSON", doc.MissingCommas)
		case err != nil && valid:
			ambiguous := !utf8.Valid(body) || bytes.Contains(bytes.ToLower(body), []byte(`\ud`))
			if !errors.Is(err, jsondoc.ErrDuplicateKey) && !errors.Is(err, jsondoc.ErrNesting) && !errors.Is(err, jsondoc.ErrTooMany) &&
				(!errors.Is(err, jsondoc.ErrSyntax) || !ambiguous) {
				t.Fatalf("refused valid JSON: %v", err)
			}
		}
	})
}

// FuzzAppendCompact: the compact text of a document is JSON that reads as the
// same document, and is its own compact text.
func FuzzAppendCompact(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := jsondoc.Parse(body)
		if err != nil {
			return
		}
		for _, order := range []jsondoc.Order{jsondoc.AsReceived, jsondoc.SortedTop, jsondoc.SortedAll} {
			text := doc.Root.AppendCompact(nil, order)
			again, err := jsondoc.Parse(text)
			if err != nil || again.MissingCommas != 0 {
				t.Fatalf("order %d: %q does not read: %v", order, text, err)
			}
			want := jsondoc.Document{Root: sorted(doc.Root, order)}
			if diff := cmp.Diff(&want, again); diff != "" {
				t.Fatalf("order %d (-want +got):\n%s", order, diff)
			}
			if twice := again.Root.AppendCompact(nil, order); !bytes.Equal(text, twice) {
				t.Fatalf("order %d: %q, then %q", order, text, twice)
			}
		}
	})
}

// sorted returns v with its members in the given order.
func sorted(v jsondoc.Value, order jsondoc.Order) jsondoc.Value {
	if order == jsondoc.AsReceived {
		return v
	}
	inside := jsondoc.AsReceived
	if order == jsondoc.SortedAll {
		inside = order
	}
	v.Members = slices.Clone(v.Members)
	if v.Kind == jsondoc.Object {
		slices.SortFunc(v.Members, func(a, b jsondoc.Member) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	}
	for i := range v.Members {
		v.Members[i].Value = sorted(v.Members[i].Value, inside)
	}
	v.Elements = slices.Clone(v.Elements)
	for i := range v.Elements {
		v.Elements[i] = sorted(v.Elements[i], inside)
	}
	return v
}

// decode reads body with encoding/json, token by token so that the order of
// members survives.
func decode(t *testing.T, body []byte) jsondoc.Value {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	v := decodeValue(t, decoder)
	if _, err := decoder.Token(); err != io.EOF {
		t.Fatalf("after the document: %v", err)
	}
	return v
}

func decodeValue(t *testing.T, decoder *json.Decoder) jsondoc.Value {
	t.Helper()
	token, err := decoder.Token()
	if err != nil {
		t.Fatalf("encoding/json: %v", err)
	}
	switch token := token.(type) {
	case string:
		return str(token)
	case json.Number:
		return num(token.String())
	case bool:
		text := "false"
		if token {
			text = "true"
		}
		return jsondoc.Value{Kind: jsondoc.Bool, Text: text}
	case nil:
		return jsondoc.Value{Kind: jsondoc.Null, Text: "null"}
	}
	v := array()
	if token == json.Delim('{') {
		v = object()
	}
	for decoder.More() {
		if v.Kind == jsondoc.Array {
			v.Elements = append(v.Elements, decodeValue(t, decoder))
			continue
		}
		key := decodeValue(t, decoder).Text
		v.Members = append(v.Members, jsondoc.Member{Key: key, Value: decodeValue(t, decoder)})
	}
	if _, err := decoder.Token(); err != nil {
		t.Fatalf("encoding/json: %v", err)
	}
	return v
}
