// Package signature answers one question: did Linksfield sign exactly these
// bytes, and by which reading of its rule?
//
// Linksfield signs in two ways, told apart by the headers of the request:
//
//   - "md5" (header x-lf-md5): the members of the body, sorted by key, are
//     written as key=value and joined with "&"; the secret follows after a last
//     "&". The header is the base64 of the MD5 of that text.
//   - "hmac-sha1" (headers x-lf-signature and three more): version, algorithm
//     and timestamp from the headers, followed by the body as compact JSON with
//     sorted keys, under HMAC-SHA1. The header names the key that was used.
//
// The documentation leaves details of both open: whether an empty value takes
// part, for instance, or how deep the keys are sorted. Each way of filling the
// gaps is a reading, and has a name. A signature is tried under every reading
// of a short, fixed list, the documented one first, and the name of the one
// that matched is told, so that it can be recorded. See md5.go and hmac.go for
// the lists. Nor does it matter in which form a digest is written: base64, also
// without padding or with the URL's alphabet, of the bytes or of their
// hexadecimal text, or that text itself; what is not the documented form is
// added to the reading's name. Of two lines of a signature header either may be
// the right one.
//
// What an md5 signature covers is the signed text, and Linksfield's rule lets
// different bodies share one: nothing separates a "&" in a value from the one
// between members, 1 and "1" are written alike, and some readings leave out the
// key of an array or a member without a value, and an array of objects is
// written as one object would be. Neither a timestamp nor a nonce is in it. An hmac-sha1 signature covers the headers named above and the whole
// body, save for white space, the order of members and, but for the readings called
// spelled, the spelling of escapes.
//
// [Verify] is for the gateway. [Explain] goes the same way and keeps what it
// saw, for a person who has to find out why a signature does not match.
// [SignMD5] and [SignHMAC] are the sender's side, for simulation and tests.
//
// Everything here is pure and safe for concurrent use.
package signature

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/linksgate/linksgate/server/jsondoc"
)

// The reasons for which a signature is not accepted. Errors wrap one of them
// (two, when a request that bears two signatures fails both) and name neither
// a secret nor a part of the request.
var (
	// ErrMissing: the request bears no signature.
	ErrMissing = errors.New("no signature")
	// ErrMalformed: the headers, or a body of this kind, cannot belong to a
	// signature of the scheme that they announce.
	ErrMalformed = errors.New("malformed signature")
	// ErrAlgorithm: x-lf-algo asks for something other than HMAC-SHA1.
	ErrAlgorithm = errors.New("signature algorithm not supported")
	// ErrUnknownKey: no secret is configured for the scheme, or for the key
	// that the signature names.
	ErrUnknownKey = errors.New("no secret for this signature")
	// ErrMismatch: no configured secret gives this signature under any reading.
	ErrMismatch = errors.New("signature does not match")
)

// The values of [Verified.Scheme].
const (
	SchemeMD5  = "md5"
	SchemeHMAC = "hmac-sha1"
)

// Verified says how a signature was found to be right.
type Verified struct {
	// Scheme is SchemeMD5 or SchemeHMAC.
	Scheme string
	// KeyID is the key that the signature names; empty for md5, which names none.
	KeyID string
	// SecretName is the operator's label of the secret that matched.
	SecretName string
	// Reading names the reading of Linksfield's rule that matched.
	Reading string
}

// Verify returns a nil error only if one of the configured secrets signed this
// body under one of the named readings. A request that bears both signatures is
// accepted when either is right; hmac-sha1 is tried first.
//
// headers are as net/http delivers them, with canonical keys. doc must be what
// [jsondoc.Parse] read from body. The time taken depends on the secrets and
// readings tried, not on how much of a signature was right.
func Verify(headers http.Header, doc *jsondoc.Document, body []byte, keys Keyring) (Verified, error) {
	return VerifyEncoded(headers, doc, body, keys, nil)
}

// VerifyEncoded is Verify for a sender that signs the text in another character
// set than UTF-8, into which encode brings it; nil is what cannot be written in
// it. It is for finding out what a sender does.
func VerifyEncoded(headers http.Header, doc *jsondoc.Document, body []byte, keys Keyring, encode func([]byte) []byte) (Verified, error) {
	var failed error
	for t, err := range trials(headers, doc, body, keys, encode) {
		if err != nil {
			failed = also(failed, err)
		} else if t.matched {
			return t.verified(), nil
		}
	}
	return Verified{}, failed
}

// Attempt is one secret tried under one reading.
type Attempt struct {
	Verified
	// Text is what the signature would have been made over. Where the secret is
	// a part of it, *** stands in its place.
	Text string
	// Matched tells whether the signature is the one received. Only then do
	// the other fields say how it was made.
	Matched bool
}

// Explain tries everything that [Verify] could try, in the same order but
// without ending at the first match, and returns what it tried. The error is
// the one that Verify returns. The attempts hold the body: they are for the
// operator's eyes, not for a log.
func Explain(headers http.Header, doc *jsondoc.Document, body []byte, keys Keyring) ([]Attempt, error) {
	var attempts []Attempt
	var failed error
	matched := false
	for t, err := range trials(headers, doc, body, keys, nil) {
		if err != nil {
			failed = also(failed, err)
			continue
		}
		matched = matched || t.matched
		attempts = append(attempts, Attempt{
			Verified: t.verified(),
			Text:     t.claim.scheme.display(t.text),
			Matched:  t.matched,
		})
	}
	if matched {
		return attempts, nil
	}
	return attempts, failed
}

func also(earlier, err error) error {
	if earlier == nil {
		return err
	}
	return fmt.Errorf("%w; %w", earlier, err)
}
