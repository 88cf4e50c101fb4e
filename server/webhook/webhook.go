// Package webhook takes Linksfield's HTTP requests and answers each according to what became of it.
//
// A request walks one way: find the account and kind in the URL, read the body, verify the signature, type the body, append
// to the log, answer. What cannot be read or verified goes to the quarantine instead, from which [Handler.Reverify] takes it
// the same way again. Linksfield sends most notifications once, so the answer is a promise:
//
//	200  the notification, or a copy of it, is durable in the log
//	400  the body is not one JSON document; it is kept in quarantine
//	401  no signature, or no configured secret made it; it is kept in quarantine
//	404  no such account or kind, or the path token or source address is wrong; what bears a header of Linksfield is kept in quarantine
//	405  not POST
//	408  the body did not arrive in time
//	413  the body is over the limit
//	429  too many requests at once
//	503  the log cannot be written now, or was closed because the gateway is shutting down
//
// A 4xx says that sending the same request again cannot help, except 408 and 429; a fault of the gateway is never a 4xx. A request
// that is not answered with 200 may still have been stored, when the answer was lost or the log's was late; the reverse does
// not happen.
//
// Bodies, secrets and signatures are never logged.
package webhook

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
)

// PathPrefix is what every URL given to Linksfield begins with: PathPrefix + account + "/" + kind.
const PathPrefix = "/linksfield/"

// Log is where notifications are made durable: an [eventlog.Log].
type Log interface {
	// Append returns nil only if the notification is durable.
	Append(context.Context, *linksgatev1.Notification) (eventlog.Position, error)
	// NotificationID returns the id of what was appended.
	NotificationID(eventlog.Position) string
}

// Quarantine is where refused requests are kept: an [eventlog.Quarantine].
type Quarantine interface {
	// Add returns nil only if the entry is durable.
	Add(context.Context, *linksgatev1.QuarantineEntry) error
}

// SignaturePolicy says whether a kind must be signed.
type SignaturePolicy int

const (
	// SignatureRequired accepts only what a configured secret signed. The default.
	SignatureRequired SignaturePolicy = iota
	// SignatureIfPresent accepts requests without a signature; one that is there must be right.
	SignatureIfPresent
	// SignatureNone does not look at signatures.
	SignatureNone
)

// Account is one Linksfield account.
type Account struct {
	// Keys are the secrets that Linksfield signs with.
	Keys signature.Keyring
	// Kinds holds what differs from the default for some kinds.
	Kinds map[linksgatev1.NotificationKind]KindPolicy
}

// KindPolicy guards one URL. The zero value: signature required, no path token, any source.
type KindPolicy struct {
	Signature SignaturePolicy
	// PathToken, if not empty, must be the last part of the URL.
	PathToken string
	// Sources, if not empty, are the networks that requests must come from.
	Sources []netip.Prefix
	// Names are where its bodies have what Linksfield does not document.
	Names payload.Names
}

// Settings are what can change while the handler runs. They must not be changed while in use.
type Settings struct {
	// Accounts by name.
	Accounts map[string]*Account
	// TrustedProxies are the networks whose X-Forwarded-For is believed. A request's source is the last address in it that is
	// not of a trusted proxy; without one, the address of the connection.
	TrustedProxies []netip.Prefix

	uses *Uses // set by Configure
}

// Options configure a Handler. All fields but Log have defaults.
type Options struct {
	// Log is where notifications go. Required.
	Log Log
	// Quarantine, if set, is where requests go that fail verification or reading.
	Quarantine Quarantine
	// QuarantineBytes is what the quarantine may hold; default as that of the log. In a burst one source gets at most an eighth of it and
	// all together a quarter, and as much again for what bears a well-formed signature.
	QuarantineBytes int64
	// Settings to begin with.
	Settings
	// MaxBody is the largest body accepted, in bytes; default 256 KiB, and at most that: a record must fit into a message of
	// the log.
	MaxBody int64
	// MaxRequests is how many requests may be verified and written at once; more are answered with 429. Default 2048.
	// Requests whose body is still on its way do not count: slow senders must not shut out others.
	MaxRequests int
	// Logger for refused requests. Default: none.
	Logger *slog.Logger
	// Metrics, if set, is where the handler's metrics are registered.
	Metrics prometheus.Registerer
}

// Defaults and limits of [Options].
const (
	DefaultMaxBody     = 256 << 10
	DefaultMaxRequests = 2048
	// appendTimeout bounds how long a request waits for the log.
	appendTimeout = 15 * time.Second
)

// Handler is the HTTP front. It is safe for concurrent use.
type Handler struct {
	log      Log
	intake   *intake // of the quarantine; nil without one
	settings atomic.Pointer[Settings]
	maxBody  int64
	slots    chan struct{} // one taken by each request being verified and written
	logger   *limitedLogger
	metrics  *metrics
	bodies   sync.Pool     // *bytes.Buffer
	small    *budget       // of bodies that are small, as they say
	large    *budget       // of all others
	turns    chan struct{} // one taken by each large body being parsed and verified
}

// New returns a Handler.
func New(options Options) *Handler {
	if options.MaxBody == 0 {
		options.MaxBody = DefaultMaxBody
	}
	if options.MaxRequests == 0 {
		options.MaxRequests = DefaultMaxRequests
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{
		log:     options.Log,
		maxBody: min(options.MaxBody, DefaultMaxBody),
		slots:   make(chan struct{}, options.MaxRequests),
		logger:  newLimitedLogger(options.Logger),
		metrics: newMetrics(options.Metrics),
		bodies:  sync.Pool{New: func() any { return new(bytes.Buffer) }},
		small:   &budget{most: smallBodiesBudget},
		large:   &budget{most: largeBodiesBudget},
		turns:   make(chan struct{}, largeAtOnce()),
	}
	if options.Quarantine != nil {
		h.intake = newIntake(options.Quarantine, options.QuarantineBytes)
	}
	h.Configure(options.Settings)
	return h
}

// Configure puts new settings in force, all at once: each request is handled under the old ones or under the new ones.
// It must not be called twice at once.
func (h *Handler) Configure(settings Settings) {
	settings.uses = usesOf(settings.Accounts, h.Uses())
	h.settings.Store(&settings)
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	settings := h.settings.Load()
	rt, answer := settings.route(r)
	h.logger.forwarded(settings, r)
	if answer == nil || h.intake != nil && answer.isMisdirected() && bearsHeader(r) {
		answer = h.receive(w, r, rt, answer)
	}
	answer.write(w)
	h.metrics.observe(rt.kindName, answer, time.Since(start))
	if answer.status != http.StatusOK {
		h.logger.refused(rt, answer)
	}
}

// route is what a URL says, and whether the request may use it.
type route struct {
	account  string
	kind     linksgatev1.NotificationKind
	kindName string // empty when unknown
	keys     signature.Keyring
	policy   KindPolicy
	uses     *Uses
	source   netip.Addr
	path     string // of a URL that leads nowhere, or not from there
}

// route finds the account and kind in the URL, and checks that the request may use it.
func (s *Settings) route(r *http.Request) (route, *answer) {
	source := s.source(r)
	asked := r.URL.Path
	for strings.Contains(asked, "//") { // a base URL that was joined with one slash too many
		asked = strings.ReplaceAll(asked, "//", "/")
	}
	path, ok := strings.CutPrefix(asked, PathPrefix)
	accountName, rest, _ := strings.Cut(path, "/")
	kindName, token, _ := strings.Cut(rest, "/")
	kind, known := payload.KindByName(kindName)
	rt, found := s.routeTo(accountName, kind)
	rt.source = source
	switch {
	case !ok || !known || !found:
		nowhere := route{source: source, path: r.URL.Path}
		if ok && s.Accounts[accountName] != nil {
			nowhere.account = accountName
		}
		return nowhere, answerNoURL
	case subtle.ConstantTimeCompare([]byte(token), []byte(rt.policy.PathToken)) != 1:
		rt.path = r.URL.Path
		return rt, answerNoURL
	case !rt.policy.allows(source):
		rt.path = r.URL.Path
		return rt, answerNotAllowed
	case r.Method != http.MethodPost:
		return rt, answerNotPost
	}
	return rt, nil
}

// routeTo returns the route of an account and kind.
func (s *Settings) routeTo(accountName string, kind linksgatev1.NotificationKind) (route, bool) {
	account := s.Accounts[accountName]
	if account == nil {
		return route{}, false
	}
	return route{
		account: accountName, kind: kind, kindName: payload.KindName(kind), keys: account.Keys, policy: account.Kinds[kind],
		uses: s.uses,
	}, true
}

// source returns the address that a request comes from.
func (s *Settings) source(r *http.Request) netip.Addr {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	source := remote.Addr().Unmap()
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for contains(s.TrustedProxies, source) && len(forwarded) > 0 {
		next, err := netip.ParseAddr(strings.TrimSpace(forwarded[len(forwarded)-1]))
		if err != nil {
			break // the proxy says nothing that can be read: it is the source
		}
		source, forwarded = next.Unmap(), forwarded[:len(forwarded)-1]
	}
	return source
}

// allows reports whether a request may come from an address.
func (p KindPolicy) allows(source netip.Addr) bool {
	return len(p.Sources) == 0 || contains(p.Sources, source)
}

func contains(networks []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(networks, func(network netip.Prefix) bool { return network.Contains(address) })
}

// bearsHeader reports whether a request can be one of Linksfield that went to a wrong URL.
func bearsHeader(r *http.Request) bool {
	if r.Method != http.MethodPost {
		return false
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Lf-") {
			return true
		}
	}
	return false
}

// receive takes a request from its body to the log, or to the quarantine: there one that is refused already, whatever it says.
func (h *Handler) receive(w http.ResponseWriter, r *http.Request, rt route, already *answer) *answer {
	buffer := h.bodies.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Cap() <= keptBuffer { // large ones are rare, and would stay
			h.bodies.Put(buffer)
		}
	}()
	buffer.Reset()
	body := &budgetReader{budget: h.large}
	if r.ContentLength >= 0 && r.ContentLength <= smallBody {
		body.budget = h.small
	}
	defer func() { body.budget.giveBack(body.taken) }()
	if answer := h.readBody(w, r, body, buffer); answer != nil {
		return answer
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		return answerBusy
	}
	// The request's end does not end the writing: a sender that hung up will not send again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), appendTimeout)
	defer cancel()
	received := receivedRequest{route: rt, at: time.Now(), headers: r.Header, body: buffer.Bytes()}
	if already != nil {
		return h.keep(ctx, received, already.misdirected(rt.path))
	}
	n, refused := h.accept(ctx, &received)
	switch {
	case refused == answerBusy:
		return refused
	case refused != nil:
		return h.keep(ctx, received, refused)
	}
	return h.store(ctx, n)
}

// accept verifies and types a request. What costs more than others waits for its turn: a large one, and one that may have to be unpacked
// or decoded.
func (h *Handler) accept(ctx context.Context, received *receivedRequest) (*linksgatev1.Notification, *answer) {
	if len(received.body) > smallBody {
		return h.inTurn(ctx, received.acceptAny)
	}
	n, refused := received.accept()
	if refused != nil && received.doc == nil && !plain(received.body) {
		return h.inTurn(ctx, received.acceptAny)
	}
	return n, refused
}

// plain reports whether a body is UTF-8 without a mark: then there is no other form of it.
func plain(body []byte) bool {
	return utf8.Valid(body) && !bytes.HasPrefix(body, []byte("\ufeff")) && bytes.IndexByte(body, 0) < 0
}

// inTurn accepts a request when there are not too many others that cost as much.
func (h *Handler) inTurn(ctx context.Context, accept func() (*linksgatev1.Notification, *answer)) (*linksgatev1.Notification, *answer) {
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
		return accept()
	case <-ctx.Done():
		return nil, answerBusy
	}
}

// readBody reads the exact bytes of the body.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, body *budgetReader, buffer *bytes.Buffer) *answer {
	if r.ContentLength > h.maxBody {
		w.Header().Set("Connection", "close") // rather than reading what nobody wants
		return answerTooLarge
	}
	body.Reader = http.MaxBytesReader(w, r.Body, h.maxBody)
	_, err := buffer.ReadFrom(body)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return answerTooLarge
	case errors.Is(err, errNoBudget):
		w.Header().Set("Connection", "close")
		return answerBusy
	case errors.Is(err, os.ErrDeadlineExceeded):
		return answerSlow
	case errors.Is(err, io.ErrUnexpectedEOF):
		return answerCutOff
	}
	return answerUnreadable
}

// store appends a notification to the log.
func (h *Handler) store(ctx context.Context, n *linksgatev1.Notification) *answer {
	position, err := h.log.Append(ctx, n)
	if errors.Is(err, eventlog.ErrTooLarge) {
		// Typed and raw together can outgrow the log's limit. The raw body is what must not be lost.
		payload.ClearIndex(n)
		n.Payload = &linksgatev1.Notification_Unrecognized{Unrecognized: &linksgatev1.UnrecognizedPayload{
			Reason: "the typed form would exceed the log's record size; see the body",
		}}
		position, err = h.log.Append(ctx, n)
	}
	if err != nil {
		return refuseStore(err)
	}
	return stored(h.log.NotificationID(position))
}

// HasAccount reports whether an account is configured now.
func (h *Handler) HasAccount(name string) bool {
	_, ok := h.settings.Load().Accounts[name]
	return ok
}
