// Package simulator answers one question: what would Linksfield send?
//
// It plays the sender, for tests, benchmarks and trials on a gateway that
// Linksfield does not know yet. A [Sender] holds the secrets that both sides
// share and makes notifications: a body, and the headers that sign it under the
// scheme that Linksfield documents for the kind.
//
//	sender := simulator.Sender{MD5: secret}
//	n, err := sender.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, 17)
//	request, err := n.Request(ctx, "http://localhost:8080/linksfield/acme")
//
// Bodies are made up, and numbered: the same kind and number give the same
// bytes, and two numbers never do. They have the documented fields where
// Linksfield documents any. Where it does not, the body is a flat object that
// says that it is made up; its fields stand for nothing that Linksfield sends.
//
// Everything here is pure, apart from the clock that dates hmac-sha1
// signatures. A Sender is safe for concurrent use as long as nobody changes it.
package simulator

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
)

// Sender is Linksfield as one account of a gateway sees it.
type Sender struct {
	// MD5 signs the kinds of the md5 scheme. It is not needed for others.
	MD5 signature.Secret
	// KeyID and HMAC sign the kinds of the hmac-sha1 scheme. They are not
	// needed for others. A key id has no slash.
	KeyID string
	HMAC  signature.Secret
	// Unsigned leaves the signature out, and the secrets unused.
	Unsigned bool
	// Now dates hmac-sha1 signatures; nil: time.Now.
	Now func() time.Time
}

// Notification is one request that Linksfield could make.
type Notification struct {
	Kind linksgatev1.NotificationKind
	// Header is the content type and the signature, with canonical keys.
	Header http.Header
	// Body is sent as it is.
	Body []byte
}

// Scheme returns the signature scheme of a kind, [signature.SchemeMD5] or
// [signature.SchemeHMAC], as Linksfield documents it. That of marketplace alarms
// is not documented: they are signed with hmac-sha1 here.
func Scheme(kind linksgatev1.NotificationKind) string {
	switch kind {
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE,
		linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_RECHARGE_SUCCESS,
		linksgatev1.NotificationKind_NOTIFICATION_KIND_MARKETPLACE_ALARM:
		return signature.SchemeHMAC
	default:
		return signature.SchemeMD5
	}
}

// Make returns the n-th notification of a kind. The error is about the secret
// that the kind's scheme needs.
func (s *Sender) Make(kind linksgatev1.NotificationKind, n uint64) (Notification, error) {
	doc := document(kind, n)
	return s.signed(kind, &doc, doc.Root.AppendCompact(make([]byte, 0, 256), jsondoc.AsReceived))
}

// MakeWithBody returns a notification that has the given body, which it keeps.
// To be signed a body must be JSON, with the one exception that
// [jsondoc.Parse] makes; an unsigned one may be anything.
func (s *Sender) MakeWithBody(kind linksgatev1.NotificationKind, body []byte) (Notification, error) {
	if s.Unsigned {
		return s.signed(kind, nil, body)
	}
	doc, err := jsondoc.Parse(body)
	if err != nil {
		return Notification{}, fmt.Errorf("sign body: %w", err)
	}
	return s.signed(kind, doc, body)
}

func (s *Sender) signed(kind linksgatev1.NotificationKind, doc *jsondoc.Document, body []byte) (Notification, error) {
	header, err := s.sign(kind, doc)
	if err != nil {
		return Notification{}, fmt.Errorf("sign %s: %w", payload.KindName(kind), err)
	}
	header["Content-Type"] = []string{"application/json"}
	return Notification{Kind: kind, Header: header, Body: body}, nil
}

func (s *Sender) sign(kind linksgatev1.NotificationKind, doc *jsondoc.Document) (http.Header, error) {
	switch {
	case s.Unsigned:
		return make(http.Header, 1), nil
	case Scheme(kind) == signature.SchemeHMAC:
		now := time.Now
		if s.Now != nil {
			now = s.Now
		}
		return signature.SignHMAC(doc, "1.0", strconv.FormatInt(now().UnixMilli(), 10), s.KeyID, s.HMAC)
	default:
		sum, err := signature.SignMD5(doc, s.MD5)
		if err != nil {
			return nil, err
		}
		return http.Header{"X-Lf-Md5": {sum}}, nil
	}
}

// Forger returns a sender that claims to be s but does not know its secrets:
// its signatures are well formed and wrong.
func (s *Sender) Forger() *Sender {
	forger := *s
	forger.MD5.Value = "not " + s.MD5.Value
	forger.HMAC.Value = "not " + s.HMAC.Value
	return &forger
}

// Request returns the request that delivers n to an account's URL, such as
// http://localhost:8080/linksfield/acme. It can be called any number of times:
// Linksfield's repetitions of a notification are byte-identical as far as we know.
func (n Notification) Request(ctx context.Context, accountURL string) (*http.Request, error) {
	return n.RequestTo(ctx, strings.TrimSuffix(accountURL, "/")+"/"+payload.KindName(n.Kind))
}

// RequestTo returns the request that delivers n to exactly this URL.
func (n Notification) RequestTo(ctx context.Context, url string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(n.Body))
	if err != nil {
		return nil, err
	}
	r.Header = n.Header
	return r, nil
}
