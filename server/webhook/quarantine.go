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
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
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
	// entryOverhead is added to the size of an entry for what the store needs.
	entryOverhead = 128
)

// intake is the way into the quarantine.
type intake struct {
	quarantine Quarantine
	burst      int // bytes of one source
	// total of requests that bear a well-formed signature, and of others. Behind a proxy that is not trusted everybody is one source: what
	// strangers send without a signature must not keep out what Linksfield signed with a secret that is not configured yet.
	total map[bool]limit

	mu      sync.Mutex
	sources map[sourceKey]*list.Element // mu; values of recent
	recent  *list.List                  // mu; of *sourceLimit, the most recent first
}

// sourceKey names the limits of a source: those of what bears a well-formed signature, or the others.
type sourceKey struct {
	network netip.Prefix
	bears   bool
}

// limit bounds requests and bytes.
type limit struct{ requests, bytes *rate.Limiter }

type sourceLimit struct {
	key sourceKey
	limit
}

func newIntake(quarantine Quarantine, most int64) *intake {
	if most <= 0 {
		most = eventlog.DefaultQuarantineBytes
	}
	total := func() limit {
		return limit{rate.NewLimiter(totalRequests, totalRequestBurst), rate.NewLimiter(totalBytes, int(min(totalByteBurst, most/4)))}
	}
	return &intake{
		quarantine: quarantine,
		burst:      int(min(sourceByteBurst, most/8)),
		total:      map[bool]limit{true: total(), false: total()},
		sources:    make(map[sourceKey]*list.Element),
		recent:     list.New(),
	}
}

// allowRequest reports whether limits leave room for a request of a source, and allowBytes for its entry. A request that is over one
// limit may count against the others: it makes no difference to who sends too much.
func (i *intake) allowRequest(source netip.Addr, bears bool) bool {
	return i.of(source, bears).requests.Allow() && i.total[bears].requests.Allow()
}

func (i *intake) allowBytes(source netip.Addr, bears bool, size int) bool {
	now, size := time.Now(), size+entryOverhead
	return i.of(source, bears).bytes.AllowN(now, size) && i.total[bears].bytes.AllowN(now, size)
}

// of returns the limits of a source. An IPv6 source is its /64, which is what one sender has.
func (i *intake) of(source netip.Addr, bears bool) *sourceLimit {
	bits := 32
	if source.Is6() {
		bits = 64
	}
	network, _ := source.Prefix(bits) // the zero value for an address that is not known
	key := sourceKey{network, bears}
	i.mu.Lock()
	defer i.mu.Unlock()
	if element, ok := i.sources[key]; ok {
		i.recent.MoveToFront(element)
		return element.Value.(*sourceLimit)
	}
	for len(i.sources) >= maxSources {
		oldest := i.recent.Back()
		delete(i.sources, i.recent.Remove(oldest).(*sourceLimit).key)
	}
	of := &sourceLimit{key, limit{
		rate.NewLimiter(sourceRequests, sourceRequestBurst), rate.NewLimiter(sourceBytes, i.burst),
	}}
	i.sources[key] = i.recent.PushFront(of)
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
	over := func() *answer {
		refused.kept = overLimit
		h.metrics.quarantine.WithLabelValues(refused.kept).Inc()
		return refused
	}
	bears := refused.bearsSignature(r.headers)
	if !h.intake.allowRequest(r.source, bears) {
		return over() // without having made its entry
	}
	entry := r.entry(refused)
	if !h.intake.allowBytes(r.source, bears, proto.Size(entry)) {
		return over()
	}
	if err := h.intake.quarantine.Add(ctx, entry); err != nil {
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
		Path:          headerText(r.path[:min(len(r.path), maxPath)]),
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

// maxPath bounds what is recorded of a path, in bytes.
const maxPath = 500

// maxAttempts bounds how many attempts are listed in an entry.
const maxAttempts = 100

// attempts lists what was tried in vain.
func (r receivedRequest) attempts() []*linksgatev1.SignatureAttempt {
	if r.doc == nil {
		return nil
	}
	tried, _ := signature.Explain(r.headers, r.doc, r.body, r.keys) // its error is why the request was refused
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

var errUnguarded = errors.New("it is not signed, and did not come by the URL, or from the address, that stands in for a signature")

// Reverify takes a quarantined request the way of a new one, under the settings in force now. It returns the notification to
// release, or an error that wraps ErrRefused. With force it returns one in any case but an unknown account, marked as forced if
// it does not verify. What did not come by the URL of its account and kind, or not from where that may be, must bear a good signature:
// nothing else guards it.
func (h *Handler) Reverify(e *linksgatev1.QuarantineEntry, force bool) (*linksgatev1.Notification, error) {
	if e.GetAccount() == "" || e.GetKind() == linksgatev1.NotificationKind_NOTIFICATION_KIND_UNSPECIFIED {
		return nil, fmt.Errorf("%w: its URL leads nowhere, so say as which account and kind it is to be released", ErrRefused)
	}
	rt, found := h.settings.Load().routeTo(e.GetAccount(), e.GetKind())
	if !found {
		return nil, fmt.Errorf("%w: there is no account %q", ErrRefused, e.GetAccount())
	}
	r := receivedRequest{route: rt, at: e.GetReceivedAt().AsTime(), headers: make(http.Header), body: []byte(e.GetBody())}
	if raw, ok := e.GetRaw().(*linksgatev1.QuarantineEntry_BinaryBody); ok {
		r.body = raw.BinaryBody
	}
	for _, header := range e.GetHeaders() {
		r.headers.Add(header.GetName(), header.GetValue())
	}
	n, refused := r.acceptAny()
	if refused == nil && e.GetPath() != "" && n.GetVerification().GetStatus() != linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED {
		refused = &answer{err: errUnguarded}
	}
	if refused != nil {
		if !force {
			return nil, fmt.Errorf("%w: %w", ErrRefused, refused.err)
		}
		n = r.notification(r.doc, &linksgatev1.Verification{Status: linksgatev1.VerificationStatus_VERIFICATION_STATUS_FORCED})
	}
	n.TraceContext = e.GetTraceContext()
	n.QuarantineId = e.GetId()
	n.ReleasedAt = timestamppb.Now()
	return n, nil
}
