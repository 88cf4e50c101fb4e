package signature

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// masked stands where a secret would.
const masked = "***"

// Secret is one key that Linksfield signs with.
//
// It prints as its name: fmt, slog and encoders of text or JSON never show the
// value. The exception is a Secret in an unexported field of a struct that is
// printed with fmt, which cannot call methods there: hold it by pointer, or
// keep such a struct from being printed.
type Secret struct {
	// Name is the operator's label, such as "2026-03". It is recorded with
	// what it verified and shown in diagnostics.
	Name string
	// Value is used as the characters stand: it is not decoded from hex or
	// base64. An empty one never verifies anything.
	Value string
}

// Keyring holds the secrets of one account. It must not change while in use.
type Keyring struct {
	// MD5 are the notification secrets of the md5 scheme, which names no key:
	// each is tried. Several are for a change-over.
	MD5 []Secret
	// HMAC are the values of each key id. Linksfield keeps the id when a key is
	// refreshed, so during a change-over one id has two.
	HMAC map[string][]Secret
	// Readings, if not empty, are the names of those that are tried; of a scheme of which it names none, all are.
	Readings []string
}

// String returns the name and a mask.
func (s Secret) String() string { return s.Name + ":" + masked }

// GoString returns the same as String.
func (s Secret) GoString() string { return s.String() }

// Format prints the same as String, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns the same as String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the same as String: a JSON log handler comes here for a
// Secret inside another value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// usable returns the secrets that have a value.
func usable(secrets []Secret) []Secret {
	hasNoValue := func(s Secret) bool { return s.Value == "" }
	if !slices.ContainsFunc(secrets, hasNoValue) {
		return secrets
	}
	return slices.DeleteFunc(slices.Clone(secrets), hasNoValue)
}
