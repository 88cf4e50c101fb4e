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
// it stands, for a sender that signs what it sends.
var hmacScheme = scheme{
	name:   SchemeHMAC,
	header: "X-Lf-Signature",
	claim:  claimHMAC,
	readings: []reading{
		{"sorted", func(dst []byte, m message) []byte {
			return m.doc.Root.AppendCompact(append(dst, m.prefix...), jsondoc.SortedTop)
		}},
		{"sorted-deep", func(dst []byte, m message) []byte {
			return m.doc.Root.AppendCompact(append(dst, m.prefix...), jsondoc.SortedAll)
		}},
		{"as-is", func(dst []byte, m message) []byte {
			return append(append(dst, m.prefix...), m.body...)
		}},
	},
	encodings: [2]encoding{{}, {suffix: "+hex", inHex: true}},
	size:      sha1.Size,
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

func claimHMAC(headers http.Header, doc *jsondoc.Document, keys Keyring) (claim, error) {
	var values [4]string
	for i, name := range [...]string{"X-Lf-Signature", "X-Lf-Notification-Version", "X-Lf-Algo", "X-Lf-Timestamp"} {
		var err error
		if values[i], err = only(headers, name); err != nil {
			return claim{}, err
		}
	}
	value, version, algorithm, timestamp := values[0], values[1], values[2], values[3]

	// The key id ends at the first slash: base64 may hold more of them.
	keyID, sum, found := strings.Cut(value, "/")
	if !found || sum == "" {
		return claim{}, fmt.Errorf("x-lf-signature is not {key id}/{signature}: %w", ErrMalformed)
	}
	if algorithm == "" {
		algorithm = defaultAlgorithm
	}
	if !strings.EqualFold(algorithm, defaultAlgorithm) {
		return claim{}, ErrAlgorithm
	}
	if err := isSignable(doc, version, timestamp, keyID); err != nil {
		return claim{}, err
	}
	return claim{
		keyID:     keyID,
		signature: []byte(sum),
		prefix:    hmacPrefix(version, algorithm, timestamp),
		secrets:   keys.HMAC[keyID],
	}, nil
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
