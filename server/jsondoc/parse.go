package jsondoc

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// fewMembers is the size up to which comparing a key with all earlier ones of
// its object is cheaper than keeping a set.
const fewMembers = 16

// Parse reads body, which must hold exactly one JSON document and nothing else
// but white space around it. It returns a nil error only if every byte was
// understood. The document does not refer to body afterwards. Time and memory
// are linear in the length of body; the tree takes a few MiB at most.
func Parse(body []byte) (*Document, error) { return parse(parser{text: string(body)}) }

// ParseSpelled reads a body as Parse does, and leaves the escapes in keys and strings as they are: for a signature that covers the
// spelling. Keys that differ in spelling alone count as different here; Parse refuses such a body.
func ParseSpelled(body []byte) (*Document, error) {
	return parse(parser{text: string(body), spelled: true})
}

func parse(p parser) (*Document, error) {
	if !utf8.ValidString(p.text) {
		p.pos = invalidUTF8(p.text)
		return nil, p.refuse(ErrSyntax, "invalid UTF-8")
	}
	if strings.HasPrefix(p.text, "\ufeff") {
		return nil, p.refuse(ErrSyntax, "byte order mark")
	}
	root, err := p.value()
	if err != nil {
		return nil, err
	}
	if p.next(); p.pos < len(p.text) {
		return nil, p.refuse(ErrTrailingData, "")
	}
	return &Document{Root: root, MissingCommas: p.missingCommas}, nil
}

// parser walks the text once, from left to right. It recurses once for each
// array and object, which MaxDepth bounds.
type parser struct {
	text          string // the whole body; strings without escapes are slices of it
	pos           int
	depth         int
	values        int
	missingCommas int
	spelled       bool // strings are not decoded

	// Children of the arrays and objects that are still open, innermost last.
	// A container takes its own off the top when it closes, so that each
	// slice in the tree is allocated once and with its final length.
	members  []Member
	elements []Value
}

func (p *parser) refuse(reason error, detail string) error {
	if detail == "" {
		return fmt.Errorf("byte %d: %w", p.pos, reason)
	}
	return fmt.Errorf("byte %d: %w: %s", p.pos, reason, detail)
}

// next skips white space and returns the byte after it, or 0 at the end. A NUL
// in the body is mistaken for the end on purpose: neither starts a token.
func (p *parser) next() byte {
	for ; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (p *parser) value() (Value, error) {
	switch c := p.next(); {
	case c == '{':
		return p.nested((*parser).object)
	case c == '[':
		return p.nested((*parser).array)
	case c == '"':
		text, err := p.string()
		return Value{Kind: String, Text: text}, err
	case c == '-' || isDigit(c):
		return p.number()
	case c == 't':
		return p.literal(Bool, "true")
	case c == 'f':
		return p.literal(Bool, "false")
	case c == 'n':
		return p.literal(Null, "null")
	default:
		return Value{}, p.refuse(ErrSyntax, "expected a value")
	}
}

func (p *parser) nested(read func(*parser) (Value, error)) (Value, error) {
	if p.depth == MaxDepth {
		return Value{}, p.refuse(ErrNesting, "")
	}
	p.depth++
	p.pos++
	v, err := read(p)
	p.depth--
	return v, err
}

// object reads what follows the opening brace.
func (p *parser) object() (Value, error) {
	v := Value{Kind: Object}
	if p.next() == '}' {
		p.pos++
		return v, nil
	}
	first := len(p.members)
	var seen map[string]struct{} // made when the object turns out to be large
	for {
		if p.next() != '"' {
			return v, p.refuse(ErrSyntax, "expected a key")
		}
		start := p.pos
		key, err := p.string()
		if err != nil {
			return v, err
		}
		if repeated(p.members[first:], &seen, key) {
			p.pos = start
			return v, p.refuse(ErrDuplicateKey, "")
		}
		if p.next() != ':' {
			return v, p.refuse(ErrSyntax, "expected a colon")
		}
		p.pos++
		child, err := p.value()
		if err != nil {
			return v, err
		}
		p.members = append(p.members, Member{Key: key, Value: child})
		if err := p.count(); err != nil {
			return v, err
		}

		switch p.next() {
		case ',':
			p.pos++
		case '"': // the one leniency: see the package comment
			p.missingCommas++
		case '}':
			p.pos++
			v.Members = slices.Clone(p.members[first:])
			p.members = p.members[:first]
			return v, nil
		default:
			return v, p.refuse(ErrSyntax, "expected a comma or a closing brace")
		}
	}
}

// repeated tells whether key is among the earlier members. From fewMembers on
// it keeps their keys in *seen.
func repeated(earlier []Member, seen *map[string]struct{}, key string) bool {
	if len(earlier) < fewMembers {
		for i := range earlier {
			if earlier[i].Key == key {
				return true
			}
		}
		return false
	}
	if *seen == nil {
		*seen = make(map[string]struct{}, 2*fewMembers)
		for i := range earlier {
			(*seen)[earlier[i].Key] = struct{}{}
		}
	}
	_, found := (*seen)[key]
	(*seen)[key] = struct{}{}
	return found
}

// array reads what follows the opening bracket.
func (p *parser) array() (Value, error) {
	v := Value{Kind: Array}
	if p.next() == ']' {
		p.pos++
		return v, nil
	}
	first := len(p.elements)
	for {
		child, err := p.value()
		if err != nil {
			return v, err
		}
		p.elements = append(p.elements, child)
		if err := p.count(); err != nil {
			return v, err
		}

		switch p.next() {
		case ',':
			p.pos++
		case ']':
			p.pos++
			v.Elements = slices.Clone(p.elements[first:])
			p.elements = p.elements[:first]
			return v, nil
		default:
			return v, p.refuse(ErrSyntax, "expected a comma or a closing bracket")
		}
	}
}

// count takes note of one more member or element.
func (p *parser) count() error {
	if p.values++; p.values > MaxValues {
		return p.refuse(ErrTooMany, "")
	}
	return nil
}

func (p *parser) literal(kind Kind, word string) (Value, error) {
	if !strings.HasPrefix(p.text[p.pos:], word) {
		return Value{}, p.refuse(ErrSyntax, "expected a value")
	}
	p.pos += len(word)
	return Value{Kind: kind, Text: word}, nil
}

func (p *parser) number() (Value, error) {
	start := p.pos
	p.skip("-")
	if !p.skip("0") && !p.digits() {
		return Value{}, p.refuse(ErrSyntax, "expected a digit")
	}
	if p.skip(".") && !p.digits() {
		return Value{}, p.refuse(ErrSyntax, "expected a digit after the point")
	}
	if p.skip("eE") {
		p.skip("+-")
		if !p.digits() {
			return Value{}, p.refuse(ErrSyntax, "expected a digit in the exponent")
		}
	}
	return Value{Kind: Number, Text: p.text[start:p.pos]}, nil
}

// skip moves past one byte if it is one of those given.
func (p *parser) skip(oneOf string) bool {
	if p.pos == len(p.text) || strings.IndexByte(oneOf, p.text[p.pos]) < 0 {
		return false
	}
	p.pos++
	return true
}

// digits moves past a run of digits and tells whether there was one.
func (p *parser) digits() bool {
	start := p.pos
	for p.pos < len(p.text) && isDigit(p.text[p.pos]) {
		p.pos++
	}
	return p.pos > start
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// invalidUTF8 returns the offset of the first byte that is not UTF-8.
func invalidUTF8(text string) int {
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)) {
			return i
		}
	}
	return len(text)
}
