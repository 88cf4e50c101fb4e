package webhook

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/bodyform"
	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
)

// maxHeaderText bounds each header value that is recorded.
const maxHeaderText = 4 << 10

// maxRecordedHeaders bounds how many of them are recorded: several times what Linksfield documents.
const maxRecordedHeaders = 32

// receivedRequest is a whole request to a known URL: what there is before anything is known to be true.
type receivedRequest struct {
	route
	at      time.Time
	headers http.Header
	body    []byte            // the caller's; not kept
	doc     *jsondoc.Document // of the body, once it was parsed; nil if it cannot be
}

// accept verifies and types a request. It returns either the notification or why there is none.
func (r *receivedRequest) accept() (*linksgatev1.Notification, *answer) {
	var err error
	if r.doc, err = jsondoc.Parse(r.body); err != nil {
		r.doc = nil
		return nil, refuseBody(err)
	}
	verification, err := r.verify(r.doc, r.body, nil)
	if err != nil {
		return nil, refuseSignature(err)
	}
	return r.notification(r.doc, verification), nil
}

// acceptAny is accept, also for a body that can be read in another form.
func (r *receivedRequest) acceptAny() (*linksgatev1.Notification, *answer) {
	n, refused := r.accept()
	if refused != nil && r.doc == nil && !plain(r.body) {
		if n := r.acceptOther(); n != nil {
			return n, nil
		}
	}
	return n, refused
}

// acceptOther reads a body that is no JSON as it is in other forms: packed, with a mark, in another character set. It takes one that its
// signature is right for, over that text or over the same in its character set, or that the headers say where no signature is needed; and
// returns nil if there is none. What is recorded of the body are its own bytes.
func (r *receivedRequest) acceptOther() *linksgatev1.Notification {
	for _, form := range bodyform.Of(r.body, r.headers) {
		if !form.Declared && len(r.body) > smallBody { // that is not worth what it costs
			continue
		}
		doc, err := jsondoc.Parse(form.Text)
		if err != nil {
			continue
		}
		encodes := []func([]byte) []byte{nil}
		if form.Charset != nil {
			encodes = append(encodes, form.Charset.Encode)
		}
		for _, encode := range encodes {
			verification, err := r.verify(doc, form.Text, encode)
			if err != nil || verification.GetStatus() != linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED && !form.Declared {
				continue
			}
			if verification.GetReading() != "" {
				verification.Reading += "+" + form.Name
			}
			if encode != nil {
				verification.Reading += "+text"
			}
			return r.notification(doc, verification)
		}
	}
	return nil
}

// verify applies the URL's signature policy to a text of the body, which may have been signed in another character set.
func (r receivedRequest) verify(doc *jsondoc.Document, text []byte, encode func([]byte) []byte) (*linksgatev1.Verification, error) {
	unsigned := &linksgatev1.Verification{Status: linksgatev1.VerificationStatus_VERIFICATION_STATUS_UNSIGNED}
	if r.policy.Signature == SignatureNone {
		return unsigned, nil
	}
	verified, err := signature.VerifyEncoded(r.headers, doc, text, r.keys, encode)
	if errors.Is(err, signature.ErrMissing) && r.policy.Signature == SignatureIfPresent {
		return unsigned, nil
	}
	if err != nil {
		return nil, err
	}
	r.uses.record(SecretID{r.account, verified.Scheme, verified.KeyID, verified.SecretName}, r.at)
	return &linksgatev1.Verification{
		Status:     linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED,
		Scheme:     schemes[verified.Scheme],
		KeyId:      verified.KeyID,
		SecretName: verified.SecretName,
		Reading:    verified.Reading,
	}, nil
}

var schemes = map[string]linksgatev1.SignatureScheme{
	signature.SchemeMD5:  linksgatev1.SignatureScheme_SIGNATURE_SCHEME_MD5,
	signature.SchemeHMAC: linksgatev1.SignatureScheme_SIGNATURE_SCHEME_HMAC_SHA1,
}

// notification records what was received. doc is nil if the body could not be read.
func (r receivedRequest) notification(doc *jsondoc.Document, verification *linksgatev1.Verification) *linksgatev1.Notification {
	n := &linksgatev1.Notification{
		Account:       r.account,
		Kind:          r.kind,
		ReceivedAt:    timestamppb.New(r.at),
		Verification:  verification,
		Headers:       recordedHeaders(r.headers),
		ContentDigest: contentDigest(r.body),
		DuplicateKey:  duplicateKey(r.kind, r.headers, doc, r.body),
		TraceContext:  traceContext(r.headers),
	}
	if utf8.Valid(r.body) {
		n.Raw = &linksgatev1.Notification_Body{Body: string(r.body)}
	} else {
		n.Raw = &linksgatev1.Notification_BinaryBody{BinaryBody: bytes.Clone(r.body)}
	}
	payload.Fill(n, doc, r.policy.Names)
	return n
}

// duplicateKey is equal for requests that are copies of one notification, and empty where Linksfield documents no copies: two
// identical order status bodies may be two events, and nobody knows that what `x-lf-delivery` says is unique. A repetition is better
// than a loss.
//
// Copies are known of two kinds: data usage alerts are repeated until they are accepted, and results of asynchronous Cube calls are
// resent. There the content takes part by what it says, not by how it is spelled: a copy may have other white space and another order of
// members. `x-lf-delivery`, every line of it, tells deliveries apart. Of Cube without one the signed timestamp does: whether a resend has
// a new one is not documented.
func duplicateKey(kind linksgatev1.NotificationKind, headers http.Header, doc *jsondoc.Document, body []byte) []byte {
	hash := sha256.New()
	part := func(name string, values ...string) {
		for _, value := range values {
			hash.Write([]byte(name + ":" + value + "\x00")) // which is not in a header value
		}
	}
	deliveries := headers.Values("X-Lf-Delivery")
	switch kind {
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_DATA_USAGE_ALERT:
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE:
		if len(deliveries) == 0 {
			part("timestamp", headers.Get("X-Lf-Timestamp"))
		}
	default:
		return nil
	}
	part("delivery", deliveries...)
	if doc != nil {
		body = doc.Root.AppendCompact(nil, jsondoc.SortedAll)
	}
	hash.Write(body)
	return hash.Sum(nil)[:16]
}

func contentDigest(body []byte) string {
	digest := sha256.Sum256(body)
	return "sha256:" + hex.EncodeToString(digest[:])
}

func traceContext(headers http.Header) *linksgatev1.TraceContext {
	parent := headers.Get("Traceparent")
	if parent == "" {
		return nil
	}
	return &linksgatev1.TraceContext{
		Traceparent: headerText(parent), Tracestate: headerText(strings.Join(headers.Values("Tracestate"), ",")),
	}
}

// recordedHeaders picks the headers that matter, by name; the values of a repeated one stay in order.
func recordedHeaders(headers http.Header) []*linksgatev1.RequestHeader {
	recorded := make([]*linksgatev1.RequestHeader, 0, 5)
	for name, values := range headers {
		if !strings.HasPrefix(name, "X-Lf-") && name != "Content-Type" && name != "Content-Encoding" {
			continue
		}
		name = strings.ToLower(name)
		for _, value := range values {
			recorded = append(recorded, &linksgatev1.RequestHeader{Name: headerText(name), Value: headerText(value)})
		}
	}
	slices.SortStableFunc(recorded, func(a, b *linksgatev1.RequestHeader) int { return strings.Compare(a.Name, b.Name) })
	return recorded[:min(len(recorded), maxRecordedHeaders)]
}

// headerText makes a header value fit for a protobuf string.
func headerText(value string) string {
	value = strings.ToValidUTF8(value[:min(len(value), maxHeaderText)], "\uFFFD") // which can make it longer
	return strings.ToValidUTF8(value[:min(len(value), maxHeaderText)], "")
}
