package payload

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linksgate/linksgate/server/jsondoc"
)

// typed offers the members that have a text to take, and returns all members
// that it did not take, as keep writes them.
func typed(members []jsondoc.Member, take func(key, text string) bool) map[string]string {
	var fields map[string]string
	for i := range members {
		m := &members[i]
		if text, ok := scalar(m.Value); !ok || !take(m.Key, text) {
			fields = keep(fields, m)
		}
	}
	return fields
}

// allFields returns all members, as keep writes them.
func allFields(members []jsondoc.Member) map[string]string {
	if len(members) == 0 {
		return nil
	}
	fields := make(map[string]string, len(members))
	for i := range members {
		fields = keep(fields, &members[i])
	}
	return fields
}

// keep adds a member to fields, which it makes if needed: a string as it is,
// anything else as its compact JSON text.
func keep(fields map[string]string, m *jsondoc.Member) map[string]string {
	if fields == nil {
		fields = make(map[string]string)
	}
	text, ok := scalar(m.Value)
	if !ok {
		text = string(m.Value.AppendCompact(nil, jsondoc.AsReceived))
	}
	fields[m.Key] = text
	return fields
}

// scalar returns the text of a string, or the literal of a number. It reports
// false for anything else.
func scalar(v jsondoc.Value) (text string, ok bool) {
	if v.Kind != jsondoc.String && v.Kind != jsondoc.Number {
		return "", false
	}
	return v.Text, true
}

// commaSeparated splits text at commas, trims each part and drops empty ones.
func commaSeparated(text string) []string {
	var parts []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// rfc3339 is the shape of a time that has its zone. [time.Parse] alone lets more
// through: a comma before the fraction, an hour of one digit, a zone of 24 hours.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// timestamp reads Unix milliseconds or RFC 3339. It returns nil for anything
// else, and for a time that protobuf cannot hold: then there is only the text.
func timestamp(text string) *timestamppb.Timestamp {
	if ts := unixMilli(text); ts != nil {
		return ts
	}
	if !rfc3339.MatchString(text) {
		return nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil
	}
	if ts := timestamppb.New(t); ts.IsValid() {
		return ts
	}
	return nil
}

// unixMilli reads exactly 13 digits as Unix milliseconds: the years 1970 to 2286.
// Fewer or more could as well be seconds or microseconds.
func unixMilli(text string) *timestamppb.Timestamp {
	if len(text) != len("1642385160000") {
		return nil
	}
	ms, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return nil
	}
	return timestamppb.New(time.UnixMilli(int64(ms)))
}

// describe names a kind of JSON value for a person.
func describe(kind jsondoc.Kind) string {
	switch kind {
	case jsondoc.Null:
		return "a JSON null"
	case jsondoc.Bool:
		return "a JSON boolean"
	case jsondoc.Number:
		return "a JSON number"
	case jsondoc.String:
		return "a JSON string"
	case jsondoc.Array:
		return "a JSON array"
	default:
		return "some other JSON value"
	}
}
