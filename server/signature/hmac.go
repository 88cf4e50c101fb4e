package signature

import (
	"crypto/hmac"
	"crypto/sha1"
	"fmt"
	"net/http"
	"strings"

	"github.com/linksgate/linksgate/server/jsondoc"
)

// The hmac-sha1 scheme. Linksfield's prose sorts the keys of the top level, its
// Java sample those of nested objects too: both are readings. So is the body as
// it stands, for a sender that signs what it sends, and the same without the
// white space between tokens, for one whose body was laid out on its way. The
// readings called spelled take strings as they are spelled in the body.
var hmacScheme = scheme{
	name:   SchemeHMAC,
	header: "X-Lf-Signature",
	claims: claimsHMAC,
	readings: []reading{
		{"sorted", compact(jsondoc.SortedTop), false},
		{"sorted-deep", compact(jsondoc.SortedAll), false},
		{"as-is", func(dst []byte, m message) []byte {
			return append(append(dst, m.prefix...), m.body...)
		}, false},
		{"compact", compact(jsondoc.AsReceived), false},
		{"sorted/spelled", compact(jsondoc.SortedTop | jsondoc.Spelled), true},
		{"sorted-deep/spelled", compact(jsondoc.SortedAll | jsondoc.Spelled), true},
		{"compact/spelled", compact(jsondoc.AsReceived | jsondoc.Spelled), true},
	},
	inHex: "+hex",
	size:  sha1.Size,
	digest: func(dst, text []byte, secret string) []byte {
		h := hmac.New(sha1.New, []byte(secret))
		h.Write(text)
		return h.Sum(dst)
	},
	display: func(text []byte) string { return string(text) },
}

// defaultAlgorithm is what an absent x-lf-algo stands for, and the only
// algorithm that is supported.
const defaultAlgorithm = "HMAC-SHA1"

// compact is the prefix and the body as compact JSON.
func compact(order jsondoc.Order) func([]byte, message) []byte {
	return func(dst []byte, m message) []byte { return m.doc.Root.AppendCompact(append(dst, m.prefix...), order) }
}

func claimsHMAC(headers http.Header, doc *jsondoc.Document, keys Keyring) ([]claim, error) {
	var values [3]string
	for i, name := range [...]string{"X-Lf-Notification-Version", "X-Lf-Algo", "X-Lf-Timestamp"} {
		var err error
		if values[i], err = only(headers, name); err != nil {
			return nil, err
		}
	}
	version, algorithm, timestamp := values[0], values[1], values[2]
	lines, err := linesOf(headers, "X-Lf-Signature")
	if err != nil {
		return nil, err
	}
	if algorithm == "" {
		algorithm = defaultAlgorithm
	}
	var claims []claim
	var malformed error
	for _, line := range lines {
		// The key id ends at the first slash: base64 may hold more of them.
		keyID, sum, found := strings.Cut(line, "/")
		err := isSignable(doc, version, timestamp, keyID)
		switch {
		case !found || sum == "":
			err = fmt.Errorf("x-lf-signature is not {key id}/{signature}: %w", ErrMalformed)
		case !strings.EqualFold(algorithm, defaultAlgorithm):
			err = ErrAlgorithm
		}
		if err != nil {
			malformed = err
			continue
		}
		claims = append(claims, claim{
			keyID: keyID, signature: sum, prefix: hmacPrefix(version, algorithm, timestamp), secrets: keys.HMAC[keyID],
		})
	}
	if len(claims) > 0 {
		malformed = nil
	}
	return claims, malformed
}

func hmacPrefix(version, algorithm, timestamp string) string {
	return version + ":" + algorithm + ":" + timestamp
}

// isSignable refuses what would leave open where the headers end and the body
// begins. Nothing separates the timestamp from the body in the signed text, so
// a part of one could be passed off as a part of the other, unless the
// timestamp is digits and the body begins with anything else.
func isSignable(doc *jsondoc.Document, version, timestamp, keyID string) error {
	switch {
	case keyID == "":
		return fmt.Errorf("no key id: %w", ErrMalformed)
	case version == "":
		return fmt.Errorf("no x-lf-notification-version: %w", ErrMalformed)
	case timestamp == "" || strings.Trim(timestamp, "0123456789") != "":
		return fmt.Errorf("x-lf-timestamp is not a number of milliseconds: %w", ErrMalformed)
	case doc.Root.Kind == jsondoc.Number:
		return fmt.Errorf("body is a bare number: %w", ErrMalformed)
	}
	return nil
}
