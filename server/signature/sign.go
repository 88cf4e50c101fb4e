package signature

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"github.com/linksgate/linksgate/server/jsondoc"
)

// SignMD5 returns the value of the header x-lf-md5 for doc, under the
// documented reading. The body that is sent may be written in any way that
// reads as doc. The error is ErrMalformed when doc is neither an object nor an
// array of objects, and ErrUnknownKey when the secret is empty.
func SignMD5(doc *jsondoc.Document, secret Secret) (string, error) {
	if err := hasParameters(doc); err != nil {
		return "", err
	}
	return md5Scheme.sign(message{doc: doc}, secret)
}

// SignHMAC returns the headers of the hmac-sha1 scheme for doc, under the
// documented reading. timestamp is in Unix milliseconds, written in decimal.
// The body that is sent may be written in any way that reads as doc. The error
// is ErrMalformed for values that could not be verified, and ErrUnknownKey when
// the secret is empty.
func SignHMAC(doc *jsondoc.Document, version, timestamp, keyID string, secret Secret) (http.Header, error) {
	if err := isSignable(doc, version, timestamp, keyID); err != nil {
		return nil, err
	}
	if strings.Contains(keyID, "/") {
		return nil, fmt.Errorf("key id with a slash: %w", ErrMalformed)
	}
	prefix := hmacPrefix(version, defaultAlgorithm, timestamp)
	sum, err := hmacScheme.sign(message{prefix: prefix, doc: doc}, secret)
	if err != nil {
		return nil, err
	}
	return http.Header{
		"X-Lf-Notification-Version": {version},
		"X-Lf-Algo":                 {defaultAlgorithm},
		"X-Lf-Timestamp":            {timestamp},
		"X-Lf-Signature":            {keyID + "/" + sum},
	}, nil
}

// sign makes the signature that a trial of the first reading compares with, in
// the documented form.
func (s *scheme) sign(m message, secret Secret) (string, error) {
	if secret.Value == "" {
		return "", ErrUnknownKey
	}
	text := s.readings[0].write(nil, m)
	digest := s.digest(nil, text, secret.Value)
	if s.inHex == "" {
		digest = []byte(hex.EncodeToString(digest))
	}
	return base64.StdEncoding.EncodeToString(digest), nil
}
