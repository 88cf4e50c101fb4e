package signature

import (
	"bytes"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/linksgate/linksgate/server/jsondoc"
)

// scheme is one of Linksfield's two ways to sign.
type scheme struct {
	name   string
	header string // canonical name of the header that announces the scheme
	// claims reads the headers and finds the secrets that they refer to: one
	// claim for each line of the header.
	claims func(http.Header, *jsondoc.Document, Keyring) ([]claim, error)
	// readings, the documented one first, those that are spelled last.
	readings []reading
	// raw and inHex follow a reading's name where the header has the base64 of
	// the digest's bytes, or of its hexadecimal text. One of them is the
	// documented form, and empty.
	raw, inHex string
	// size of a digest, in bytes.
	size int
	// digest appends the digest of text under secret to dst.
	digest func(dst, text []byte, secret string) []byte
	// display is text as a person may see it.
	display func(text []byte) string
}

// schemes in the order in which they are tried.
var schemes = [...]*scheme{&hmacScheme, &md5Scheme}

// Readings returns the names of all readings, by scheme.
func Readings() map[string][]string {
	names := make(map[string][]string)
	for _, s := range schemes {
		for _, r := range s.readings {
			names[s.name] = append(names[s.name], r.name)
		}
	}
	return names
}

// reading is one way to make the text to sign.
type reading struct {
	name string
	// write appends the text to dst, up to where a secret would follow.
	write func(dst []byte, m message) []byte
	// spelled: it is of the body with its strings as they are spelled, where
	// decoding changes one.
	spelled bool
}

// message is what a signature is made over.
type message struct {
	prefix string // what the headers put before the body
	doc    *jsondoc.Document
	body   []byte
	// encode, if set, gives the text in another character set than UTF-8; nil
	// if it cannot be written in it.
	encode func([]byte) []byte
}

// spelled is the message with the strings of its body as they are spelled. It
// reports false if that is no other one.
func (m message) spelled() (message, bool) {
	if bytes.IndexByte(m.body, '\\') < 0 {
		return m, false
	}
	doc, err := jsondoc.ParseSpelled(m.body)
	m.doc = doc
	return m, err == nil // what Parse takes it takes too
}

// maxLines is how many lines of one signature header are tried.
const maxLines = 2

// digest is one of a scheme, in the first bytes.
type digest [sha1.Size]byte // of the longer one

// maxSignature is how long the longest form of a digest is: base64 of hexadecimal.
const maxSignature = (2*sha1.Size + 2) / 3 * 4

// digestIn reads a digest from a header, in any of the forms in which one is
// written, and returns what that adds to the name of a reading. Nothing is
// given away by it: who can write a digest in one form can in each.
func (s *scheme) digestIn(text string) (d digest, suffix string, ok bool) {
	if len(text) > maxSignature {
		return d, "", false
	}
	var given, data [maxSignature]byte
	n := copy(given[:], text)
	if suffix, ok = s.fromHex(&d, given[:n]); ok {
		return d, "+plain" + suffix, true
	}
	loose := ""
	decoded, err := base64.StdEncoding.Decode(data[:], given[:n])
	if err != nil {
		unpadded := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
		if decoded, err = base64.RawStdEncoding.Decode(data[:], []byte(unpadded)); err != nil {
			return d, "", false
		}
		loose = "+url"
	}
	if decoded == s.size {
		copy(d[:], data[:decoded])
		return d, s.raw + loose, true
	}
	suffix, ok = s.fromHex(&d, data[:decoded])
	return d, s.inHex + suffix + loose, ok
}

// fromHex reads the hexadecimal text of a digest.
func (s *scheme) fromHex(d *digest, text []byte) (suffix string, ok bool) {
	if len(text) != hex.EncodedLen(s.size) {
		return "", false
	}
	if _, err := hex.Decode(d[:s.size], text); err != nil {
		return "", false
	}
	if bytes.ContainsFunc(text, unicode.IsUpper) {
		suffix = "+upper"
	}
	return suffix, true
}

// claim is what the headers say about the body: who signed it, and the result.
type claim struct {
	scheme    *scheme
	keyID     string
	signature string // as received
	prefix    string
	secrets   []Secret // never empty, and none has an empty value
	readings  []string // those that are tried; empty: all

	isDigest bool // there is one in the signature
	digest   digest
	suffix   string // of the reading's name
}

// trial is one comparison.
type trial struct {
	claim   *claim
	secret  *Secret
	reading string
	text    []byte // without a secret that follows it
	matched bool
}

func (t trial) verified() Verified {
	return Verified{
		Scheme:     t.claim.scheme.name,
		KeyID:      t.claim.keyID,
		SecretName: t.secret.Name,
		Reading:    t.reading + t.claim.suffix,
	}
}

// trials is the only way through this package's rules: it yields each
// comparison that the headers call for, and after those of each scheme the error
// that holds unless one of them matched. Work is done as it is asked for, so a body that matches
// under the first reading costs one text and one digest.
func trials(headers http.Header, doc *jsondoc.Document, body []byte, keys Keyring, encode func([]byte) []byte) iter.Seq2[trial, error] {
	return func(yield func(trial, error) bool) {
		signed := false
		for _, s := range schemes {
			if len(headers[s.header]) == 0 {
				continue
			}
			signed = true
			claims, err := s.open(headers, doc, keys)
			if err != nil {
				if !yield(trial{}, fmt.Errorf("%s: %w", s.name, err)) {
					return
				}
				continue
			}
			for i := range claims {
				c := &claims[i]
				err := c.err()
				if err == nil || errors.Is(err, ErrMalformed) { // Explain tells what it should have been
					for t := range c.trials(message{c.prefix, doc, body, encode}) {
						if !yield(t, nil) {
							return
						}
					}
				}
				if err == nil {
					err = ErrMismatch
				}
				if !yield(trial{}, fmt.Errorf("%s: %w", s.name, err)) {
					return
				}
			}
		}
		if !signed {
			yield(trial{}, ErrMissing)
		}
	}
}

// open reads the claims of scheme s from the headers.
func (s *scheme) open(headers http.Header, doc *jsondoc.Document, keys Keyring) ([]claim, error) {
	if doc == nil {
		return nil, fmt.Errorf("body not read: %w", ErrMalformed)
	}
	claims, err := s.claims(headers, doc, keys)
	if err != nil {
		return nil, err
	}
	for i := range claims {
		c := &claims[i]
		// With an empty secret anyone could sign: it counts as not configured.
		c.scheme, c.secrets, c.readings = s, usable(c.secrets), s.among(keys.Readings)
		c.digest, c.suffix, c.isDigest = s.digestIn(c.signature)
	}
	return claims, nil
}

// among returns those of some readings that are of scheme s.
func (s *scheme) among(names []string) (own []string) {
	if len(names) == 0 {
		return nil
	}
	for _, r := range s.readings {
		if slices.Contains(names, r.name) {
			own = append(own, r.name)
		}
	}
	return own
}

// err is why no trial can match; nil: one may.
func (c *claim) err() error {
	switch {
	case len(c.secrets) == 0:
		return ErrUnknownKey
	case !c.isDigest:
		return fmt.Errorf("not a digest, in base64 or hexadecimal: %w", ErrMalformed)
	}
	return nil
}

// trials yields each reading under each secret. A reading that gives the text
// of an earlier one is passed over.
func (c *claim) trials(m message) iter.Seq[trial] {
	return func(yield func(trial) bool) {
		size := len(m.prefix) + len(m.body)
		texts := make([][]byte, 0, len(c.scheme.readings))
		sum := make([]byte, 0, sha1.Size)
		spelled := false // m is
		for _, r := range c.scheme.readings {
			if len(c.readings) > 0 && !slices.Contains(c.readings, r.name) {
				continue
			}
			if r.spelled && !spelled { // these are the last ones
				if m, spelled = m.spelled(); !spelled {
					return
				}
			}
			text := r.write(make([]byte, 0, size), m)
			if m.encode != nil {
				text = m.encode(text)
			}
			if text == nil || contains(texts, text) {
				continue
			}
			texts = append(texts, text)
			for i := range c.secrets {
				sum = c.scheme.digest(sum[:0], text, c.secrets[i].Value)
				matched := c.isDigest && subtle.ConstantTimeCompare(sum, c.digest[:c.scheme.size]) == 1
				if !yield(trial{c, &c.secrets[i], r.name, text, matched}) {
					return
				}
			}
		}
	}
}

func contains(texts [][]byte, text []byte) bool {
	for _, t := range texts {
		if bytes.Equal(t, text) {
			return true
		}
	}
	return false
}

// linesOf returns the different values of a signature header: any of them may
// be the one that verifies.
func linesOf(headers http.Header, name string) ([]string, error) {
	lines := headers[name]
	if len(lines) > 1 {
		lines = slices.Compact(slices.Sorted(slices.Values(lines)))
	}
	if slices.Contains(lines, "") {
		return nil, fmt.Errorf("%s is empty: %w", strings.ToLower(name), ErrMalformed)
	}
	if len(lines) > maxLines {
		return nil, fmt.Errorf("%d different lines %s, at most %d: %w", len(lines), strings.ToLower(name), maxLines, ErrMalformed)
	}
	return lines, nil
}

// only returns the value of a header that must not have two: proxies and
// servers disagree about which of them counts. It returns "" when there is none.
func only(headers http.Header, name string) (string, error) {
	values := headers[name]
	if len(values) == 0 {
		return "", nil
	}
	for _, v := range values[1:] {
		if v != values[0] {
			return "", fmt.Errorf("%s differs from itself: %w", name, ErrMalformed)
		}
	}
	return values[0], nil
}
