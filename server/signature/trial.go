package signature

import (
	"bytes"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"iter"
	"net/http"

	"github.com/linksgate/linksgate/server/jsondoc"
)

// scheme is one of Linksfield's two ways to sign.
type scheme struct {
	name   string
	header string // canonical name of the header that announces the scheme
	// claim reads the headers and finds the secrets that they refer to.
	claim func(http.Header, *jsondoc.Document, Keyring) (claim, error)
	// readings, the documented one first.
	readings []reading
	// encodings of the digest, the documented one first.
	encodings [2]encoding
	// size of a digest, in bytes.
	size int
	// digest appends the digest of text under secret to dst.
	digest func(dst, text []byte, secret string) []byte
	// display is text as a person may see it.
	display func(text []byte) string
}

// schemes in the order in which they are tried.
var schemes = [...]*scheme{&hmacScheme, &md5Scheme}

// reading is one way to make the text to sign.
type reading struct {
	name string
	// write appends the text to dst, up to where a secret would follow.
	write func(dst []byte, m message) []byte
}

// message is what a signature is made over.
type message struct {
	prefix string // what the headers put before the body
	doc    *jsondoc.Document
	body   []byte
}

// encoding is one way to write a digest into a header.
type encoding struct {
	suffix string // follows the reading's name; empty for the documented encoding
	inHex  bool   // base64 of the lower-case hexadecimal text, not of the bytes
}

func (e encoding) write(dst, digest []byte) []byte {
	if !e.inHex {
		return base64.StdEncoding.AppendEncode(dst, digest)
	}
	var text [2 * sha1.Size]byte // the longer digest of the two
	n := hex.Encode(text[:], digest)
	return base64.StdEncoding.AppendEncode(dst, text[:n])
}

// claim is what the headers say about the body: who signed it, and the result.
type claim struct {
	scheme    *scheme
	keyID     string
	signature []byte // as received, in base64
	prefix    string
	secrets   []Secret // never empty, and none has an empty value
}

// trial is one comparison.
type trial struct {
	claim    *claim
	secret   *Secret
	reading  string
	encoding encoding
	text     []byte // without a secret that follows it
	matched  bool
}

func (t trial) verified() Verified {
	return Verified{
		Scheme:     t.claim.scheme.name,
		KeyID:      t.claim.keyID,
		SecretName: t.secret.Name,
		Reading:    t.reading + t.encoding.suffix,
	}
}

// trials is the only way through this package's rules: it yields each
// comparison that the headers call for, and after those of each scheme the error
// that holds unless one of them matched. Work is done as it is asked for, so a body that matches
// under the first reading costs one text and one digest.
func trials(headers http.Header, doc *jsondoc.Document, body []byte, keys Keyring) iter.Seq2[trial, error] {
	return func(yield func(trial, error) bool) {
		signed := false
		for _, s := range schemes {
			if len(headers[s.header]) == 0 {
				continue
			}
			signed = true
			c, err := s.open(headers, doc, keys)
			if err == nil {
				for t := range c.trials(message{c.prefix, doc, body}) {
					if !yield(t, nil) {
						return
					}
				}
				err = c.unmatched()
			}
			if !yield(trial{}, fmt.Errorf("%s: %w", s.name, err)) {
				return
			}
		}
		if !signed {
			yield(trial{}, ErrMissing)
		}
	}
}

// open reads the claim of scheme s from the headers.
func (s *scheme) open(headers http.Header, doc *jsondoc.Document, keys Keyring) (claim, error) {
	if doc == nil {
		return claim{}, fmt.Errorf("body not read: %w", ErrMalformed)
	}
	c, err := s.claim(headers, doc, keys)
	if err != nil {
		return claim{}, err
	}
	// With an empty secret anyone could sign: it counts as not configured.
	c.secrets = usable(c.secrets)
	if len(c.secrets) == 0 {
		return claim{}, ErrUnknownKey
	}
	c.scheme = s
	return c, nil
}

// unmatched is the error of a signature that no trial gave. What cannot be a
// digest is tried all the same: Explain tells what it should have been.
func (c *claim) unmatched() error {
	digest, err := base64.StdEncoding.DecodeString(string(c.signature))
	if err != nil || len(digest) != c.scheme.size && len(digest) != hex.EncodedLen(c.scheme.size) {
		return fmt.Errorf("not the base64 of a digest: %w", ErrMalformed)
	}
	return ErrMismatch
}

// trials yields each reading under each secret and encoding. A reading that
// gives the text of an earlier one is passed over.
func (c *claim) trials(m message) iter.Seq[trial] {
	return func(yield func(trial) bool) {
		size := len(m.prefix) + len(m.body)
		texts := make([][]byte, 0, len(c.scheme.readings))
		digest := make([]byte, 0, sha1.Size)
		expected := make([]byte, 0, base64.StdEncoding.EncodedLen(hex.EncodedLen(sha1.Size)))
		for _, r := range c.scheme.readings {
			text := r.write(make([]byte, 0, size), m)
			if contains(texts, text) {
				continue
			}
			texts = append(texts, text)
			for i := range c.secrets {
				digest = c.scheme.digest(digest[:0], text, c.secrets[i].Value)
				for _, e := range c.scheme.encodings {
					expected = e.write(expected[:0], digest)
					matched := subtle.ConstantTimeCompare(expected, c.signature) == 1
					if !yield(trial{c, &c.secrets[i], r.name, e, text, matched}) {
						return
					}
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
