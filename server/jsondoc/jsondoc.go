// Package jsondoc answers one question: what does this body hold, literally?
//
// A signature covers the text of a body, so a reader that rounds numbers,
// reorders members or replaces what it cannot decode reads something else than
// what was signed. This package reads a body once, into a tree that loses
// nothing a signature or a subscriber could care about: members stay in the
// order received, numbers keep their literal (1.0 stays 1.0, a 20-digit ICCID
// stays 20 digits), strings are decoded. Only the white space between tokens
// and the spelling of escapes are forgotten.
//
// The reader is strict where leniency would let two readers of one body
// disagree: repeated keys, invalid UTF-8, lone surrogates and anything after
// the document are refused. It is lenient in one place: Linksfield's own
// printed example of an MO SMS lacks a comma between two members, so a missing
// comma there is accepted, and counted in [Document.MissingCommas].
//
//	doc, err := jsondoc.Parse(body)
//	iccid, ok := doc.Root.Lookup("sim_id")
//	text := doc.Root.AppendCompact(nil, jsondoc.SortedTop)
//
// Everything here is pure. A document is safe for concurrent readers as long
// as nobody changes it.
package jsondoc

import (
	"errors"
	"slices"
	"strings"
)

// MaxDepth is how many arrays and objects may stand inside one another.
const MaxDepth = 64

// MaxValues is how many members and elements a document may hold in all. A
// value in the tree is far larger than the two bytes that it can have in a body,
// and bodies are read before anyone has shown to know a secret: this keeps the
// tree of a hostile one small. A list of devices that fills 256 KiB has half as
// many.
const MaxValues = 32768

// The reasons for which [Parse] refuses a body. The error that it returns wraps
// one of them and names the byte offset, never a part of the body.
var (
	// ErrSyntax: not JSON as RFC 8259 writes it, or text that has no single
	// reading: invalid UTF-8, a lone surrogate, a byte order mark.
	ErrSyntax = errors.New("invalid JSON")
	// ErrTrailingData: something other than white space follows the document.
	ErrTrailingData = errors.New("data after the JSON document")
	// ErrDuplicateKey: an object holds the same key twice, compared decoded.
	ErrDuplicateKey = errors.New("duplicate key")
	// ErrNesting: deeper than MaxDepth.
	ErrNesting = errors.New("nested too deeply")
	// ErrTooMany: more than MaxValues members and elements.
	ErrTooMany = errors.New("too many values")
)

// Document is one body as it was read.
type Document struct {
	Root Value
	// MissingCommas counts the commas that were missing between two members
	// of an object. Zero for a body that is valid JSON.
	MissingCommas int
}

// Kind tells what a [Value] is.
type Kind uint8

// The kinds of JSON values. The zero Value is a null.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// Value is one JSON value.
type Value struct {
	Kind Kind
	// Text is the decoded text of a String, and the literal of a Number, Bool
	// or Null, byte for byte. Empty for an Array and an Object.
	Text string
	// Members of an Object, in the order received; keys are unique.
	Members []Member
	// Elements of an Array.
	Elements []Value
}

// Member is one key of an object, decoded, and its value.
type Member struct {
	Key   string
	Value Value
}

// Lookup returns the member of v that has the given key. It reports false when
// there is none, also when v is not an object.
func (v Value) Lookup(key string) (Value, bool) {
	for i := range v.Members {
		if v.Members[i].Key == key {
			return v.Members[i].Value, true
		}
	}
	return Value{}, false
}

// SortedMembers returns pointers to the members of v in the order of their keys.
//
// Keys are ordered by their UTF-8 bytes. Linksfield's Java orders them by
// UTF-16 code units; the two differ only where a character above U+FFFF meets
// one from U+E000 to U+FFFF, which Java puts last and this function first.
func (v Value) SortedMembers() []*Member {
	sorted := make([]*Member, len(v.Members))
	for i := range v.Members {
		sorted[i] = &v.Members[i]
	}
	slices.SortFunc(sorted, func(a, b *Member) int { return strings.Compare(a.Key, b.Key) })
	return sorted
}
