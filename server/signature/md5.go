package signature

import (
	"crypto/md5"
	"fmt"
	"net/http"

	"github.com/linksgate/linksgate/server/jsondoc"
)

// The md5 scheme. Linksfield documents the order of the members, the secret at
// the end, and for an array of objects (the older Mall push) that the members
// of each object are sorted and the objects joined in their order. Its printed
// example shows base64 of the hexadecimal digest, and values that are not
// URL-encoded. Not documented: whether the key of such an array is written,
// whether members without a value are, and how anything but a string is.
//
// In every reading, numbers and booleans are written as they came, a null as
// null; a nested object, an array nested in one, and an array that holds
// anything but objects as compact JSON in the order received.
var md5Scheme = scheme{
	name:   SchemeMD5,
	header: "X-Lf-Md5",
	claims: claimsMD5,
	readings: []reading{
		{"members", parameters{arrays: arrayAsMembers}.write, false},
		{"members/no-empty", parameters{arrays: arrayAsMembers, omitEmpty: true}.write, false},
		{"keyed-members", parameters{arrays: arrayAsKeyedMembers}.write, false},
		{"keyed-members/no-empty", parameters{arrays: arrayAsKeyedMembers, omitEmpty: true}.write, false},
		{"json", parameters{arrays: arrayAsJSON}.write, false},
		{"json/no-empty", parameters{arrays: arrayAsJSON, omitEmpty: true}.write, false},
		{"members/spelled", parameters{arrays: arrayAsMembers, spelled: true}.write, true},
		{"members/spelled/no-empty", parameters{arrays: arrayAsMembers, spelled: true, omitEmpty: true}.write, true},
	},
	raw:  "+raw",
	size: md5.Size,
	digest: func(dst, text []byte, secret string) []byte {
		h := md5.New()
		h.Write(text)
		h.Write([]byte(secret))
		return h.Sum(dst)
	},
	display: func(text []byte) string { return string(text) + masked },
}

func claimsMD5(headers http.Header, doc *jsondoc.Document, keys Keyring) ([]claim, error) {
	if err := hasParameters(doc); err != nil {
		return nil, err
	}
	lines, err := linesOf(headers, "X-Lf-Md5")
	if err != nil {
		return nil, err
	}
	claims := make([]claim, len(lines))
	for i, line := range lines {
		claims[i] = claim{signature: line, secrets: keys.MD5}
	}
	return claims, nil
}

// hasParameters refuses what the rule has no reading for.
func hasParameters(doc *jsondoc.Document) error {
	if doc.Root.Kind != jsondoc.Object && !isArrayOfObjects(doc.Root) {
		return fmt.Errorf("body is not an object, nor an array of them: %w", ErrMalformed)
	}
	return nil
}

// arrayRule says how an array of objects is written at the top level.
type arrayRule uint8

const (
	arrayAsMembers      arrayRule = iota // k1=v1&k2=v2&k1=v11&k2=v22
	arrayAsKeyedMembers                  // key=k1=v1&k2=v2&k1=v11&k2=v22
	arrayAsJSON                          // key=[{"k2":"v2","k1":"v1"},…]
)

// parameters is one reading of the md5 rule.
type parameters struct {
	arrays arrayRule
	// omitEmpty leaves out members whose value is "" or null. An empty array
	// or object has a text, and stays.
	omitEmpty bool
	// spelled: the body has its strings as they are spelled.
	spelled bool
}

// write appends each parameter, followed by "&". A body that is an array of
// objects is read as the rule reads one that is a member.
func (p parameters) write(dst []byte, m message) []byte {
	for i := range m.doc.Root.Elements {
		for _, inner := range m.doc.Root.Elements[i].SortedMembers() {
			dst = p.writeMember(dst, inner)
		}
	}
	for _, member := range m.doc.Root.SortedMembers() {
		if p.arrays == arrayAsJSON || !isArrayOfObjects(member.Value) {
			dst = p.writeMember(dst, member)
			continue
		}
		if p.arrays == arrayAsKeyedMembers {
			dst = append(append(dst, member.Key...), '=')
		}
		before := len(dst)
		for i := range member.Value.Elements {
			for _, inner := range member.Value.Elements[i].SortedMembers() {
				dst = p.writeMember(dst, inner)
			}
		}
		if p.arrays == arrayAsKeyedMembers && len(dst) == before {
			dst = append(dst, '&') // ends "key=", which nothing followed
		}
	}
	return dst
}

func (p parameters) writeMember(dst []byte, m *jsondoc.Member) []byte {
	if p.omitEmpty && isEmpty(&m.Value) {
		return dst
	}
	dst = append(append(dst, m.Key...), '=')
	if m.Value.Kind == jsondoc.String {
		dst = append(dst, m.Value.Text...)
	} else {
		order := jsondoc.AsReceived
		if p.spelled {
			order |= jsondoc.Spelled
		}
		dst = m.Value.AppendCompact(dst, order)
	}
	return append(dst, '&')
}

func isEmpty(v *jsondoc.Value) bool {
	return v.Kind == jsondoc.Null || v.Kind == jsondoc.String && v.Text == ""
}

// isArrayOfObjects is false for an empty array: the rule has nothing to join.
func isArrayOfObjects(v jsondoc.Value) bool {
	for i := range v.Elements {
		if v.Elements[i].Kind != jsondoc.Object {
			return false
		}
	}
	return len(v.Elements) > 0
}
