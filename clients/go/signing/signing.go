// Package signing makes and verifies Linksfield's signatures, for programs on either side: those that send to Linksfield, such as to the
// webhook of the eSIM QR Mall, which goes from the customer to Linksfield, and those that receive without a gateway. The gateway verifies
// by the same code. What the bodies of that webhook must hold is not documented, and nothing here says.
//
//	header, err := signing.HMAC(body, "key-1", key, time.Now())
//	request.Header = header
package signing

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/signature"
)

// The reasons for which a signature is not accepted. Errors of [Verify] wrap one of them.
var (
	ErrMissing    = signature.ErrMissing
	ErrMalformed  = signature.ErrMalformed
	ErrAlgorithm  = signature.ErrAlgorithm
	ErrUnknownKey = signature.ErrUnknownKey
	ErrMismatch   = signature.ErrMismatch
)

// Version of the notification API that HMAC writes into its headers.
const Version = "1.0"

// MD5 returns the headers of a body under the md5 scheme: base64 of the hexadecimal MD5 of its sorted members and the secret. The body is a
// JSON object, or an array of them. Errors: ErrUnknownKey for an empty secret, and what is wrong with the body.
func MD5(body []byte, secret string) (http.Header, error) {
	doc, err := jsondoc.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	sum, err := signature.SignMD5(doc, signature.Secret{Name: "secret", Value: secret})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return http.Header{"X-Lf-Md5": {sum}, "Content-Type": {"application/json"}}, nil
}

// HMAC returns the headers of a body under the hmac-sha1 scheme, sent at a time, which takes part in the signature. The key's characters are
// used as they stand. Errors: ErrUnknownKey for an empty key, ErrMalformed for a key id that is empty or has a slash, and what is wrong with
// the body.
func HMAC(body []byte, keyID, key string, at time.Time) (http.Header, error) {
	doc, err := jsondoc.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	timestamp := strconv.FormatInt(at.UnixMilli(), 10)
	header, err := signature.SignHMAC(doc, Version, timestamp, keyID, signature.Secret{Name: "key", Value: key})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	header["Content-Type"] = []string{"application/json"}
	return header, nil
}

// Keys are what may have signed.
type Keys struct {
	// Secrets of the md5 scheme, any of which is good.
	Secrets []string
	// Keys of the hmac-sha1 scheme by their ids, any of which is good.
	Keys map[string][]string
}

// Verify returns nil only if one of the keys signed exactly this body under a reading of Linksfield's rule; reading names it. Nothing in the
// md5 scheme says when: what was signed once can be sent again.
func Verify(header http.Header, body []byte, keys Keys) (reading string, err error) {
	doc, err := jsondoc.Parse(body)
	if err != nil {
		return "", fmt.Errorf("verify: %w", err)
	}
	ring := signature.Keyring{HMAC: make(map[string][]signature.Secret)}
	for i, secret := range keys.Secrets {
		ring.MD5 = append(ring.MD5, signature.Secret{Name: strconv.Itoa(i), Value: secret})
	}
	for id, values := range keys.Keys {
		for i, value := range values {
			ring.HMAC[id] = append(ring.HMAC[id], signature.Secret{Name: strconv.Itoa(i), Value: value})
		}
	}
	verified, err := signature.Verify(header, doc, body, ring)
	if err != nil {
		return "", fmt.Errorf("verify: %w", err)
	}
	return verified.Reading, nil
}
