package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"
)

// TokenPrefix begins every token that [NewToken] makes, so that scanners for secrets find one that has got into a repository or a
// log.
const TokenPrefix = "lgt_"

const (
	tokenAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	tokenRandom   = 43 // of 62 each: 256 bits
	tokenChecksum = 6  // of 62 each: enough for 32 bits
	tokenLength   = len(TokenPrefix) + tokenRandom + tokenChecksum
)

// NewToken makes a token up: the prefix, 256 random bits and a checksum, in letters and digits.
func NewToken() string {
	var text strings.Builder
	text.WriteString(TokenPrefix)
	for range tokenRandom {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(tokenAlphabet))))
		if err != nil {
			panic(err) // crypto/rand does not fail
		}
		text.WriteByte(tokenAlphabet[n.Int64()])
	}
	return text.String() + checksumOf(text.String())
}

// checksumOf is what follows the rest of a token.
func checksumOf(text string) string {
	sum := crc32.ChecksumIEEE([]byte(text))
	digits := make([]byte, tokenChecksum)
	for i := range digits {
		digits[tokenChecksum-1-i] = tokenAlphabet[sum%uint32(len(tokenAlphabet))]
		sum /= uint32(len(tokenAlphabet))
	}
	return string(digits)
}

// IsMistyped reports whether a text begins as a token of [NewToken] and is none: a part was lost, or a character mistaken.
func IsMistyped(token string) bool {
	if !strings.HasPrefix(token, TokenPrefix) {
		return false
	}
	return len(token) != tokenLength || checksumOf(token[:tokenLength-tokenChecksum]) != token[tokenLength-tokenChecksum:]
}

// Digest is the SHA-256 of a token.
type Digest [sha256.Size]byte

// DigestOf returns the digest of a token.
func DigestOf(token string) Digest { return sha256.Sum256([]byte(token)) }

// String is the form in which configurations write a digest: lower-case hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads a digest from hexadecimal.
func ParseDigest(text string) (Digest, error) {
	var d Digest
	data, err := hex.DecodeString(text)
	if err != nil || len(data) != len(d) {
		return d, fmt.Errorf("not a SHA-256 in hexadecimal, which has %d digits: linksgate token new makes a token and writes what belongs here", 2*len(d))
	}
	return Digest(data), nil
}
