package group

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"sync"
	"time"

	"github.com/linksgate/linksgate/server/eventlog"
)

// A lease token is, in unpadded base64url: one byte version, the body of fixed length, and an HMAC-SHA256 of both, cut to 16
// bytes, under the group's own key. It says all that is needed to settle the lease, so any gateway of the log can check it,
// also one that was started after the lease was given.
const (
	tokenVersion = 2
	tokenBody    = 1 + incarnationLen + 1 + 8 + 8 + 4 + 8 + 8
	tokenMAC     = 16
	tokenRaw     = tokenBody + tokenMAC

	incarnationLen = 8
	keyLen         = 32
)

var tokenLen = base64.RawURLEncoding.EncodedLen(tokenRaw)

// incarnation tells a group at one place of the log from others of its name, and from itself before it was moved.
type incarnation [incarnationLen]byte

// lease is what a token says.
type lease struct {
	incarnation incarnation
	source      eventlog.Source
	stream      uint64 // of the batch in its stream; of a replay not that of the notification
	sequence    uint64 // of the notification
	attempt     uint32
	number      uint64 // names the lease
	until       time.Time
}

// signer makes and checks the lease tokens of one group.
type signer struct{ hashes sync.Pool }

func newSigner(key []byte) *signer {
	return &signer{hashes: sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

func (s *signer) mac(dst, body []byte) []byte {
	h := s.hashes.Get().(hash.Hash)
	defer s.hashes.Put(h)
	h.Reset()
	h.Write(body)
	var sum [sha256.Size]byte
	return append(dst, h.Sum(sum[:0])[:tokenMAC]...)
}

// token returns the token of a lease.
func (s *signer) token(l lease) string {
	var raw [tokenRaw]byte
	b := append(raw[:0], tokenVersion)
	b = append(b, l.incarnation[:]...)
	b = append(b, byte(l.source))
	b = binary.BigEndian.AppendUint64(b, l.stream)
	b = binary.BigEndian.AppendUint64(b, l.sequence)
	b = binary.BigEndian.AppendUint32(b, l.attempt)
	b = binary.BigEndian.AppendUint64(b, l.number)
	b = binary.BigEndian.AppendUint64(b, uint64(l.until.UnixMilli()))
	return base64.RawURLEncoding.EncodeToString(s.mac(b, b))
}

// parse returns what a token says, if this group made it.
func (s *signer) parse(token string) (lease, bool) {
	var raw [tokenRaw]byte
	if len(token) != tokenLen {
		return lease{}, false
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(token)); err != nil {
		return lease{}, false
	}
	var sum [tokenMAC]byte
	if !hmac.Equal(raw[tokenBody:], s.mac(sum[:0], raw[:tokenBody])) || raw[0] != tokenVersion {
		return lease{}, false
	}
	b := raw[1:]
	l := lease{incarnation: incarnation(b[:incarnationLen]), source: eventlog.Source(b[incarnationLen])}
	b = b[incarnationLen+1:]
	l.stream = binary.BigEndian.Uint64(b)
	l.sequence = binary.BigEndian.Uint64(b[8:])
	l.attempt = binary.BigEndian.Uint32(b[16:])
	l.number = binary.BigEndian.Uint64(b[20:])
	l.until = time.UnixMilli(int64(binary.BigEndian.Uint64(b[28:])))
	return l, true
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails, as documented
	return b
}
