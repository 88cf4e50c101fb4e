// Package iccid answers: what names a SIM, and in which form are two names compared?
//
// An ICCID (ITU-T E.118) is digits, beginning with 89: up to 19 of them, the last a check digit after Luhn; SIMs in use, those that begin
// with 8986 among them, have 20 too, where the last one need not be one. It is stored in ten bytes, so that one of an odd length may be
// written with an F after it, and people write it in groups.
package iccid

import "strings"

// Bounds of what can be an ICCID, in characters of its normal form.
const (
	minLength = 10
	maxLength = 22
)

// Normal returns an ICCID in the form in which ICCIDs are compared: without white space, and without the F that fills the last byte. Any
// other text comes back as it is, but for white space.
func Normal(text string) string {
	normal := text
	if strings.ContainsFunc(normal, isSpace) {
		normal = strings.Join(strings.FieldsFunc(normal, isSpace), "")
	}
	if trimmed := strings.TrimRight(normal, "Ff"); len(trimmed) >= minLength && isDigits(trimmed) {
		return trimmed
	}
	return normal
}

func isSpace(r rune) bool {
	return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '\u00a0' || r == '\u3000'
}

func isDigits(text string) bool {
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return text != ""
}

// IsPossible reports whether a text in normal form can be an ICCID: 10 to 22 hexadecimal digits.
func IsPossible(normal string) bool {
	if len(normal) < minLength || len(normal) > maxLength {
		return false
	}
	return strings.Trim(normal, "0123456789abcdefABCDEF") == ""
}

// IsShaped reports whether a text in normal form looks like an ICCID and hardly like anything else: 20 digits that begin with 89, or 19
// whose check digit is right.
func IsShaped(normal string) bool {
	if !strings.HasPrefix(normal, "89") || !isDigits(normal) {
		return false
	}
	return len(normal) == 20 || len(normal) == 19 && holdsLuhn(normal)
}

// holdsLuhn reports whether the last digit is the check digit of the others (ISO/IEC 7812-1).
func holdsLuhn(digits string) bool {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// IsDamaged reports whether a text is what is left of an ICCID that a program took for a floating-point number: digits are lost.
func IsDamaged(text string) bool {
	mantissa, exponent, found := strings.Cut(strings.ToLower(text), "e")
	exponent = strings.TrimPrefix(exponent, "+")
	if !found || (exponent != "18" && exponent != "19") {
		return false
	}
	return strings.HasPrefix(mantissa, "8.9") && isDigits(mantissa[2:])
}
