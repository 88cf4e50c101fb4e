package webhook

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/signature"
)

// Limits of what is taken into quarantine. An hour of real traffic under a wrong secret fits into the bursts; someone who
// sends garbage for hours does not push out what others sent.
const (
	sourceRequests, sourceRequestBurst = 20, 2_000 // per second and source
	sourceBytes, sourceByteBurst       = 16 << 10, 64 << 20
	totalRequests, totalRequestBurst   = 200, 5_000 // per second
	totalBytes, totalByteBurst         = 256 << 10, 128 << 20
	// maxSources bounds the memory for the sources' limits. One that comes back after so many others has its burst again.
	maxSources = 10_000
	// entryOverhead is added to a body's size for the rest of its entry.
	entryOverhead = 1 << 10
)

// intake is the way into the quarantine.
type intake struct {
	quarantine Quarantine
	total      limit

	mu      sync.Mutex
	sources map[netip.Prefix]*list.Element // mu; values of recent
	recent  *list.List                     // mu; of *sourceLimit, the most recent first
}

// limit bounds requests and bytes.
type limit struct{ requests, bytes *rate.Limiter }

type sourceLimit struct {
	network netip.Prefix
	limit
}

func newIntake(quarantine Quarantine) *intake {
	return &intake{
		quarantine: quarantine,
		total:      limit{rate.NewLimiter(totalRequests, totalRequestBurst), rate.NewLimiter(totalBytes, totalByteBurst)},
		sources:    make(map[netip.Prefix]*list.Element),
		recent:     list.New(),
	}
}

// allow reports whether limits leave room for a body of a source. A request that is over one limit may count against the
// others: it makes no difference to who sends too much.
func (i *intake) allow(source netip.Addr, size int) bool {
	now, size := time.Now(), size+entryOverhead
	of := i.of(source)
	return of.requests.AllowN(now, 1) && of.bytes.AllowN(now, size) &&
		i.total.requests.AllowN(now, 1) && i.total.bytes.AllowN(now, size)
}

// of returns the limits of a source. An IPv6 source is its /64, which is what one sender has.
func (i *intake) of(source netip.Addr) *sourceLimit {
	bits := 32
	if source.Is6() {
		bits = 64
	}
	network, _ := source.Prefix(bits) // the zero value for an address that is not known
	i.mu.Lock()
	defer i.mu.Unlock()
	if element, ok := i.sources[network]; ok {
		i.recent.MoveToFront(element)
		return element.Value.(*sourceLimit)
	}
	for len(i.sources) >= maxSources {
		oldest := i.recent.Back()
		delete(i.sources, i.recent.Remove(oldest).(*sourceLimit).network)
	}
	of := &sourceLimit{network, limit{
		rate.NewLimiter(sourceRequests, sourceRequestBurst), rate.NewLimiter(sourceBytes, sourceByteBurst),
	}}
	i.sources[network] = i.recent.PushFront(of)
	return of
}

// overLimit is what became of a refused request that the intake does not take.
const overLimit = "over_limit"

// keep puts a refused request into quarantine and returns the answer for it. The request is durable before it is answered;
// if it could not be kept, that is our fault and the answer says so. The refusal must be the request's own: what became of it is noted in it.
func (h *Handler) keep(ctx context.Context, r receivedRequest, refused *answer) *answer {
	if h.intake == nil {
		return refused
	}
	if !h.intake.allow(r.source, len(r.body)) {
		refused.kept = overLimit
		h.metrics.quarantine.WithLabelValues(refused.kept).Inc()
		return refused
	}
	if err := h.intake.quarantine.Add(ctx, r.entry(refused)); err != nil {
		h.metrics.quarantine.WithLabelValues("failed").Inc()
		return refuseStore(err)
	}
	refused.kept = "kept"
	h.metrics.quarantine.WithLabelValues(refused.kept).Inc()
	return refused
}

// entry is the request as it is kept.
func (r receivedRequest) entry(refused *answer) *linksgatev1.QuarantineEntry {
	e := &linksgatev1.QuarantineEntry{
		ReceivedAt:    timestamppb.New(r.at),
		Account:       r.account,
		Kind:          r.kind,
		Reason:        refused.quarantine,
		Detail:        refused.err.Error(),
		Headers:       recordedHeaders(r.headers),
		ContentDigest: contentDigest(r.body),
		TraceContext:  traceContext(r.headers),
		Attempts:      r.attempts(),
	}
	if r.source.IsValid() {
		e.SourceAddress = r.source.String()
	}
	if utf8.Valid(r.body) {
		e.Raw = &linksgatev1.QuarantineEntry_Body{Body: string(r.body)}
	} else {
		e.Raw = &linksgatev1.QuarantineEntry_BinaryBody{BinaryBody: bytes.Clone(r.body)}
	}
	return e
}

// maxAttempts bounds how many attempts are listed in an entry.
const maxAttempts = 100

// attempts lists what was tried in vain.
func (r receivedRequest) attempts() []*linksgatev1.SignatureAttempt {
	doc, err := jsondoc.Parse(r.body)
	if err != nil {
		return nil
	}
	tried, _ := signature.Explain(r.headers, doc, r.body, r.keys) // its error is why the request was refused
	attempts := make([]*linksgatev1.SignatureAttempt, 0, len(tried))
	for _, one := range tried[:min(len(tried), maxAttempts)] {
		attempts = append(attempts, &linksgatev1.SignatureAttempt{
			Scheme: schemes[one.Scheme], KeyId: one.KeyID, SecretName: one.SecretName, Reading: one.Reading,
		})
	}
	return attempts
}

// ErrRefused says that a quarantined request is still refused. The error that wraps it says why.
var ErrRefused = errors.New("still refused")

// Reverify takes a quarantined request the way of a new one, under the settings in force now. It returns the notification to
// release, or an error that wraps ErrRefused. With force it returns one in any case but an unknown account, marked as forced if
// it does not verify.
func (h *Handler) Reverify(e *linksgatev1.QuarantineEntry, force bool) (*linksgatev1.Notification, error) {
	rt, found := h.settings.Load().routeTo(e.GetAccount(), e.GetKind())
	if !found {
		return nil, fmt.Errorf("%w: the account %q is no longer configured", ErrRefused, e.GetAccount())
	}
	r := receivedRequest{route: rt, at: e.GetReceivedAt().AsTime(), headers: make(http.Header), body: []byte(e.GetBody())}
	if raw, ok := e.GetRaw().(*linksgatev1.QuarantineEntry_BinaryBody); ok {
		r.body = raw.BinaryBody
	}
	for _, header := range e.GetHeaders() {
		r.headers.Add(header.GetName(), header.GetValue())
	}
	n, refused := r.accept()
	if refused != nil {
		if !force {
			return nil, fmt.Errorf("%w: %w", ErrRefused, refused.err)
		}
		doc, err := jsondoc.Parse(r.body)
		if err != nil {
			doc = nil
		}
		n = r.notification(doc, &linksgatev1.Verification{Status: linksgatev1.VerificationStatus_VERIFICATION_STATUS_FORCED})
	}
	n.TraceContext = e.GetTraceContext()
	n.QuarantineId = e.GetId()
	n.ReleasedAt = timestamppb.Now()
	return n, nil
}
