package access

import (
	"context"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxCredential bounds a bearer token, in bytes. A JWT with many groups has some thousand.
const maxCredential = 16 << 10

// Names of callers that are not configured, for metrics and the audit log.
const (
	// Anonymous callers show no credential.
	Anonymous = "anonymous"
	// Unknown callers show one that is refused.
	Unknown = "unknown"
)

// Control is the policy in force. Its methods may be called concurrently.
type Control struct {
	logger  *slog.Logger
	refused *prometheus.CounterVec
	keys    keyStore
	policy  atomic.Pointer[compiled]

	mu      sync.Mutex
	states  map[string]*state   // mu; by the caller's name, over changes of the policy
	watches map[*watch]struct{} // mu
}

// NewControl returns a Control with a policy in force. The keys of issuers are got until ctx ends. Without metrics nothing is counted.
func NewControl(ctx context.Context, policy Policy, logger *slog.Logger, metrics prometheus.Registerer) *Control {
	c := &Control{
		logger: logger, states: make(map[string]*state), watches: make(map[*watch]struct{}),
		keys: keyStore{ctx: ctx, logger: logger, remote: make(map[string]*remoteKeys)},
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "linksgate_access_refused_total",
			Help: "Calls that were refused for who called: by caller, and by what was missing.",
		}, []string{"caller", "reason"}),
	}
	if metrics != nil {
		metrics.MustRegister(c.refused)
	}
	c.Apply(policy)
	return c
}

// compiled is a policy in the form in which it is asked.
type compiled struct {
	Policy
	anonymous *Caller
	callers   map[string]*CallerPolicy
	tokens    map[Digest]known
	states    map[string]*state  // by the caller's name
	issuers   map[string]*issuer // by the claim iss
	verified  verified
}

// known is a token of a caller.
type known struct {
	caller *CallerPolicy
	token  Token
}

// Apply puts a policy in force, and has open streams asked about again.
func (c *Control) Apply(policy Policy) {
	next := &compiled{
		Policy: policy, callers: make(map[string]*CallerPolicy), tokens: make(map[Digest]known), states: make(map[string]*state),
		issuers: make(map[string]*issuer), verified: verified{callers: make(map[Digest]remembered)},
	}
	if policy.Open {
		next.Anonymous = Everything()
	}
	for i := range policy.Callers {
		caller := &next.Callers[i]
		next.callers[caller.Name] = caller
		for _, token := range caller.Tokens {
			next.tokens[token.Digest] = known{caller, token}
		}
	}
	c.keys.use(policy.Issuers)
	for _, i := range policy.Issuers {
		next.issuers[i.URL] = c.keys.open(i)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next.anonymous = &Caller{
		Name: Anonymous, How: Anonymous, Grants: next.Anonymous, state: c.stateOf(Anonymous, policy.AnonymousLimits), policy: next,
	}
	for i := range policy.Callers {
		next.states[policy.Callers[i].Name] = c.stateOf(policy.Callers[i].Name, policy.Callers[i].Limits)
	}
	for name := range c.states {
		if _, stays := next.callers[name]; !stays && name != Anonymous {
			delete(c.states, name)
		}
	}
	c.policy.Store(next)
	go checkAll(slices.Collect(maps.Keys(c.watches)))
}

// stateOf returns what is known of a caller at this gateway, with its limits in force. The caller holds mu.
func (c *Control) stateOf(name string, limits Limits) *state {
	s := c.states[name]
	if s == nil {
		s = newState()
		c.states[name] = s
	}
	s.limit(limits)
	return s
}

// MetricsProtected reports whether metrics are for those who may administer.
func (c *Control) MetricsProtected() bool {
	p := c.policy.Load()
	return !p.Open && p.ProtectMetrics
}

// Caller is who makes a call. It is not changed.
type Caller struct {
	// Name of the caller in the configuration, or Anonymous.
	Name string
	// How it is known, for the audit log: a token and its name, a JWT and its issuer, a certificate.
	How    string
	Grants Grants
	// Expires is when the credential is not good any more; zero: never.
	Expires time.Time

	state  *state
	policy *compiled // by which it is known
}

// Trusted is who another gateway of the same log is, which has asked about its caller itself.
func Trusted() *Caller {
	return &Caller{Name: "gateway", How: "gateway", Grants: Everything(), state: newState()}
}

// same reports whether a caller that was asked about again is who it was, with the same rights.
func (c *Caller) same(other *Caller) bool {
	return c.Name == other.Name && c.Grants.Equal(other.Grants) && c.Expires.Equal(other.Expires)
}

// Authenticate returns who shows these credentials. Errors: ErrNoCredential, ErrBadCredential, ErrUnavailable, ErrTooMany.
// Only what a caller may be told is in their texts.
func (c *Control) Authenticate(ctx context.Context, shown Credentials) (*Caller, error) {
	caller, err := c.identify(ctx, shown)
	if err != nil {
		name := Unknown
		if len(shown.Authorization) == 0 {
			name = Anonymous
		}
		c.Refused(name, err)
	}
	return caller, err
}

func (c *Control) identify(ctx context.Context, shown Credentials) (*Caller, error) {
	p := c.policy.Load()
	if p.Open {
		return p.anonymous, nil
	}
	if len(shown.Authorization) > 0 {
		token, err := bearer(shown.Authorization)
		if err != nil {
			return nil, err
		}
		if looksLikeJWT(token) {
			return p.byJWT(ctx, token)
		}
		return p.byToken(token)
	}
	if shown.Certificate != nil {
		for i := range p.Callers {
			caller := &p.Callers[i]
			if slices.ContainsFunc(caller.Certificates, func(name string) bool { return MatchesCertificate(name, shown.Certificate) }) {
				return p.caller(caller, "certificate", shown.Certificate.NotAfter), nil
			}
		}
	}
	if p.Anonymous.none() {
		return nil, fmt.Errorf("%w: show a bearer token in the header Authorization, or a client certificate that is known here", ErrNoCredential)
	}
	return p.anonymous, nil
}

// bearer returns the token of a header Authorization.
func bearer(values []string) (string, error) {
	if len(values) > 1 {
		return "", fmt.Errorf("%w: there are several headers Authorization", ErrBadCredential)
	}
	scheme, token, found := strings.Cut(values[0], " ")
	token = strings.TrimLeft(token, " ")
	if !found || !strings.EqualFold(scheme, "bearer") || token == "" {
		return "", fmt.Errorf("%w: the header Authorization must be Bearer and a token", ErrBadCredential)
	}
	if len(token) > maxCredential {
		return "", fmt.Errorf("%w: the token has more than %d bytes", ErrBadCredential, maxCredential)
	}
	return token, nil
}

// byToken finds the caller of a token. The digests are found by a hash and compared in constant time: what time tells is about
// digests, from which no token follows.
func (p *compiled) byToken(token string) (*Caller, error) {
	digest := DigestOf(token)
	found, ok := p.tokens[digest]
	if ok && subtle.ConstantTimeCompare(digest[:], found.token.Digest[:]) == 1 {
		if expires := found.token.Expires; !expires.IsZero() && !time.Now().Before(expires) {
			return nil, fmt.Errorf("%w: the token expired on %s", ErrBadCredential, expires.UTC().Format(time.RFC3339))
		}
		return p.caller(found.caller, "token "+found.token.Name, found.token.Expires), nil
	}
	if IsMistyped(token) {
		return nil, fmt.Errorf("%w: a part of the token is missing or mistyped", ErrBadCredential)
	}
	return nil, fmt.Errorf("%w: the token is not known here", ErrBadCredential)
}

// byJWT finds the caller of a JWT.
func (p *compiled) byJWT(ctx context.Context, token string) (*Caller, error) {
	digest := DigestOf(token)
	if caller := p.verified.find(digest); caller != nil {
		caller.state.used(caller.How)
		return caller, nil
	}
	said, i, err := p.verify(ctx, token)
	if err != nil {
		return nil, err
	}
	policy, err := p.callerOf(said, i)
	if err != nil {
		return nil, err
	}
	caller := p.caller(policy, "jwt "+i.Name, said.expires.Add(i.Leeway))
	p.verified.add(digest, caller)
	return caller, nil
}

// caller returns a caller that is known in a way.
func (p *compiled) caller(policy *CallerPolicy, how string, expires time.Time) *Caller {
	s := p.states[policy.Name]
	s.used(how)
	return &Caller{Name: policy.Name, How: how, Grants: policy.Grants, Expires: expires, state: s, policy: p}
}

// Refused counts a call that was refused, and logs it: how often, per caller, is bounded by the logger's level, Debug.
func (c *Control) Refused(caller string, err error) {
	reason := reasonOf(err)
	c.refused.WithLabelValues(caller, reason).Inc()
	c.logger.Debug("call refused", "caller", caller, "reason", reason)
}

// Use is a credential that is configured, and when it was last used at this gateway.
type Use struct {
	Caller string `json:"caller"`
	// Credential is how the caller is known by it.
	Credential string `json:"credential"`
	// Expires is nil if it does not.
	Expires *time.Time `json:"expires"`
	// LastUsed is nil if it was not, since the gateway was started.
	LastUsed *time.Time `json:"last_used"`
}

// Uses lists the tokens of all callers, and the other ways by which they were known since the gateway was started.
func (c *Control) Uses() []Use {
	uses := []Use{}
	p := c.policy.Load()
	for _, caller := range p.Callers {
		last := p.states[caller.Name].uses()
		for _, token := range caller.Tokens {
			how := "token " + token.Name
			use := Use{Caller: caller.Name, Credential: how, LastUsed: last[how]}
			if !token.Expires.IsZero() {
				use.Expires = &token.Expires
			}
			delete(last, how)
			uses = append(uses, use)
		}
		for how, at := range last {
			uses = append(uses, Use{Caller: caller.Name, Credential: how, LastUsed: at})
		}
	}
	slices.SortFunc(uses, func(a, b Use) int { return strings.Compare(a.Caller+"\x00"+a.Credential, b.Caller+"\x00"+b.Credential) })
	return uses
}
