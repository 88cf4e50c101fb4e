package jsondoc

import (
	"unicode/utf16"
	"unicode/utf8"
)

// string reads a string literal, from its opening quote, and decodes it.
func (p *parser) string() (string, error) {
	start := p.pos + 1
	for p.pos = start; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; {
		case c == '"':
			p.pos++
			return p.text[start : p.pos-1], nil
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			return "", p.refuse(ErrSyntax, "control character in a string")
		}
	}
	return "", p.refuse(ErrSyntax, "unterminated string")
}

// escaped goes on where string met its first backslash.
func (p *parser) escaped(start int) (string, error) {
	decoded := append(make([]byte, 0, p.pos-start+32), p.text[start:p.pos]...)
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == '"':
			p.pos++
			if p.spelled {
				return p.text[start : p.pos-1], nil
			}
			return string(decoded), nil
		case c == '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			decoded = utf8.AppendRune(decoded, r)
		case c < ' ':
			return "", p.refuse(ErrSyntax, "control character in a string")
		default:
			decoded = append(decoded, c)
			p.pos++
		}
	}
	return "", p.refuse(ErrSyntax, "unterminated string")
}

// escape reads one escape, from its backslash: two of them when they are the
// halves of a surrogate pair. After an error pos is at the start of the escape
// that was refused.
func (p *parser) escape() (rune, error) {
	if len(p.text) < p.pos+2 {
		return 0, p.refuse(ErrSyntax, "unterminated string")
	}
	if c := p.text[p.pos+1]; c != 'u' {
		r, ok := shortEscape(c)
		if !ok {
			return 0, p.refuse(ErrSyntax, "unknown escape")
		}
		p.pos += 2
		return r, nil
	}
	r, ok := hexEscape(p.text[p.pos:])
	if !ok {
		return 0, p.refuse(ErrSyntax, "expected four hexadecimal digits")
	}
	if !utf16.IsSurrogate(r) {
		p.pos += 6
		return r, nil
	}
	// A lone half has no UTF-8: decoders put U+FFFD in its place, which would
	// make different bodies read the same.
	low, _ := hexEscape(p.text[p.pos+6:])
	pair := utf16.DecodeRune(r, low)
	if pair == utf8.RuneError {
		return 0, p.refuse(ErrSyntax, "lone surrogate")
	}
	p.pos += 12
	return pair, nil
}

func shortEscape(c byte) (rune, bool) {
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	}
	return 0, false
}

// hexEscape reads the \uXXXX at the start of text.
func hexEscape(text string) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range []byte(text[2:6]) {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
