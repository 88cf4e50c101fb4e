package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

// Issuer makes JWTs that are trusted.
type Issuer struct {
	// Name of the issuer in the configuration.
	Name string
	// URL is what its JWTs say in the claim iss; Audience what they must have in aud.
	URL, Audience string
	// KeysURL is where its keys are (a JWK Set), or Keys are these. CA (PEM) is trusted at the URL instead of the system's authorities.
	KeysURL string
	Keys    []byte
	CA      []byte
	// Leeway is how far its clock may be off.
	Leeway time.Duration
	// CallerClaim names the claim that says who the caller is, GroupsClaim the one that lists its groups; empty: none.
	CallerClaim, GroupsClaim string
}

// algorithms are those that are accepted: what is signed with a key that the gateway has too could be made by anybody who has that.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

const (
	keysRefresh = 10 * time.Minute // how often keys are got again
	keysTimeout = 5 * time.Second
	maxKeys     = 1 << 20 // bytes of a JWK Set
	// unknownKeyPause is how often keys are got again because a JWT names one that is not known; twice at once.
	unknownKeyPause = 30 * time.Second
	unknownKeyWait  = 2 * time.Second // for which the call that names it waits
	maxVerified     = 4096            // JWTs that are known to be good
	verifiedTime    = time.Minute
)

// CheckKeys returns an error if a text is not a JWK Set with a key that can be used.
func CheckKeys(set []byte) error {
	keys, err := keyfunc.NewJWKSetJSON(set)
	if err != nil {
		return fmt.Errorf("not a JWK Set: %w", err)
	}
	if all, err := keys.Storage().KeyReadAll(context.Background()); err != nil || len(all) == 0 {
		return errors.New("the JWK Set has no key that can be used")
	}
	return nil
}

// issuer is one with its keys.
type issuer struct {
	Issuer
	keys   keyfunc.Keyfunc
	parser *jwt.Parser
}

// keyStore keeps the keys of issuers over changes of the policy.
type keyStore struct {
	ctx    context.Context
	logger *slog.Logger
	remote map[string]*remoteKeys // by the issuer's name and URL; of Apply, which is called by one goroutine at a time
}

type remoteKeys struct {
	keys keyfunc.Keyfunc
	stop context.CancelFunc
}

func keysName(i Issuer) string { return i.Name + " " + i.KeysURL + string(i.CA) }

// use gives up the keys of issuers that are not trusted any more.
func (s *keyStore) use(issuers []Issuer) {
	wanted := make(map[string]bool)
	for _, i := range issuers {
		wanted[keysName(i)] = true
	}
	for name, keys := range s.remote {
		if !wanted[name] {
			keys.stop()
			delete(s.remote, name)
		}
	}
}

// open returns an issuer with its keys, which may still have to be got.
func (s *keyStore) open(i Issuer) *issuer {
	opened := &issuer{Issuer: i, parser: jwt.NewParser(
		jwt.WithValidMethods(algorithms), jwt.WithIssuer(i.URL), jwt.WithAudience(i.Audience), jwt.WithLeeway(i.Leeway),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding(),
	)}
	if i.KeysURL == "" {
		opened.keys, _ = keyfunc.NewJWKSetJSON(i.Keys) // was checked with the configuration
		return opened
	}
	if s.remote[keysName(i)] == nil {
		s.remote[keysName(i)] = s.get(i)
	}
	opened.keys = s.remote[keysName(i)].keys
	return opened
}

// get begins to get the keys of an issuer, again and again.
func (s *keyStore) get(i Issuer) *remoteKeys {
	ctx, stop := context.WithCancel(s.ctx)
	failed := func(_ context.Context, err error) {
		if ctx.Err() == nil {
			s.logger.Warn("issuer keys unavailable", "issuer", i.Name, "error", err)
		}
	}
	storage, err := jwkset.NewStorageFromHTTP(i.KeysURL, jwkset.HTTPClientStorageOptions{
		Client: &http.Client{Transport: boundedTransport{i.transport()}, Timeout: keysTimeout}, Ctx: ctx, HTTPTimeout: keysTimeout,
		NoErrorReturnFirstHTTPReq: true, RefreshErrorHandler: failed, RefreshInterval: keysRefresh,
	})
	if err == nil {
		storage, err = jwkset.NewHTTPClient(jwkset.HTTPClientOptions{
			HTTPURLs: map[string]jwkset.Storage{i.KeysURL: storage}, RefreshUnknownKID: rate.NewLimiter(rate.Every(unknownKeyPause), 2),
			RateLimitWaitMax: unknownKeyWait,
		})
	}
	var keys keyfunc.Keyfunc
	if err == nil {
		keys, err = keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: storage})
	}
	if err != nil {
		failed(ctx, err)
	}
	return &remoteKeys{keys: keys, stop: stop}
}

func (i Issuer) transport() http.RoundTripper {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if len(i.CA) > 0 {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(i.CA) // was checked with the configuration
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return transport
}

// boundedTransport bounds what an answer may have.
type boundedTransport struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, maxKeys), response.Body}
	}
	return response, err
}

// looksLikeJWT reports whether a token has the three parts of a JWT.
func looksLikeJWT(token string) bool { return strings.Count(token, ".") == 2 }

// claims are what a verified JWT says.
type claims struct {
	caller  string
	groups  []string
	expires time.Time
}

// verify checks a JWT, and returns what it says and by whom it is. What its text says of an error is true of a JWT whose signature holds.
func (p *compiled) verify(ctx context.Context, token string) (claims, *issuer, error) {
	unverified := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, unverified); err != nil {
		return claims{}, nil, fmt.Errorf("%w: the token is not a JWT, nor known here", ErrBadCredential)
	}
	name, _ := unverified.GetIssuer()
	i := p.issuers[name]
	if i == nil {
		return claims{}, nil, fmt.Errorf("%w: the issuer of the JWT is not trusted here", ErrBadCredential)
	}
	if i.keys == nil {
		return claims{}, nil, fmt.Errorf("%w: %s", ErrUnavailable, i.Name)
	}
	parsed := jwt.MapClaims{}
	_, err := i.parser.ParseWithClaims(token, parsed, i.keys.KeyfuncCtx(ctx))
	switch {
	case err == nil:
	case errors.Is(err, jwt.ErrTokenUnverifiable) && i.hasNoKeys(ctx):
		return claims{}, nil, fmt.Errorf("%w: %s", ErrUnavailable, i.Name)
	case errors.Is(err, jwt.ErrTokenExpired):
		return claims{}, nil, fmt.Errorf("%w: the JWT has expired", ErrBadCredential)
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return claims{}, nil, fmt.Errorf("%w: the JWT is not valid yet: do the clocks agree?", ErrBadCredential)
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return claims{}, nil, fmt.Errorf("%w: the JWT is for another audience", ErrBadCredential)
	default:
		return claims{}, nil, fmt.Errorf("%w: the JWT does not verify", ErrBadCredential)
	}
	said := claims{}
	said.caller, _ = parsed[i.CallerClaim].(string)
	if i.GroupsClaim != "" {
		said.groups = textsOf(parsed[i.GroupsClaim])
	}
	if expires, err := parsed.GetExpirationTime(); err == nil && expires != nil {
		said.expires = expires.Time
	}
	return said, i, nil
}

// hasNoKeys reports whether the keys of an issuer could not be had yet.
func (i *issuer) hasNoKeys(ctx context.Context) bool {
	keys, err := i.keys.Storage().KeyReadAll(ctx)
	return err == nil && len(keys) == 0
}

// textsOf returns the texts of a claim that is one, or a list of them.
func textsOf(claim any) []string {
	switch value := claim.(type) {
	case string:
		return []string{value}
	case []any:
		var texts []string
		for _, one := range value {
			if text, ok := one.(string); ok {
				texts = append(texts, text)
			}
		}
		return texts
	}
	return nil
}

// callerOf returns the caller of a JWT: by its subject, or else by one of its groups. When its groups are those of several callers,
// none is chosen.
func (p *compiled) callerOf(said claims, i *issuer) (*CallerPolicy, error) {
	var byGroup []*CallerPolicy
	for n := range p.Callers {
		caller := &p.Callers[n]
		matches := false
		for _, identity := range caller.JWTs {
			switch {
			case identity.Issuer != i.Name:
			case identity.Subject != "" && identity.Subject == said.caller:
				return caller, nil
			case identity.Group != "":
				for _, group := range said.groups {
					matches = matches || group == identity.Group
				}
			}
		}
		if matches {
			byGroup = append(byGroup, caller)
		}
	}
	switch len(byGroup) {
	case 0:
		return nil, fmt.Errorf("%w: the JWT is good, but no caller is configured for it", ErrBadCredential)
	case 1:
		return byGroup[0], nil
	}
	return nil, fmt.Errorf("%w: the JWT is good, but its groups are those of several callers (%s, %s): configure one by its subject",
		ErrBadCredential, byGroup[0].Name, byGroup[1].Name)
}

// verified remembers for a while JWTs that are good, so that not every call has to check a signature.
type verified struct {
	mu      sync.Mutex
	callers map[Digest]remembered // mu
}

// remembered is the caller of a JWT, until the JWT must be verified again: its key may be gone by then.
type remembered struct {
	caller *Caller
	until  time.Time
}

func (v *verified) find(digest Digest) *Caller {
	v.mu.Lock()
	defer v.mu.Unlock()
	found, ok := v.callers[digest]
	if ok && !time.Now().Before(found.until) {
		delete(v.callers, digest)
		return nil
	}
	return found.caller
}

func (v *verified) add(digest Digest, caller *Caller) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.callers) >= maxVerified {
		clear(v.callers)
	}
	until := time.Now().Add(verifiedTime)
	if caller.Expires.Before(until) {
		until = caller.Expires
	}
	v.callers[digest] = remembered{caller, until}
}
