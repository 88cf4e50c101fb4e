package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"

	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/config"
)

// everybodyMay lets everybody do everything, and says so.
func everybodyMay() *config.Access {
	return &config.Access{Anonymous: &config.Anonymous{Grants: allGrants()}}
}

func allGrants() config.Grants {
	all := []string{"*"}
	return config.Grants{Read: &config.ReadGrant{Accounts: all}, Work: all, Operate: &config.OperateGrant{Accounts: all}, Admin: true}
}

// team is a caller with a token.
type team struct{ name, token string }

// teams are the callers of [guardedConfig].
type teams struct{ billing, ops, root, auditor team }

// guardedConfig has two accounts and four callers. Billing reads SMS of acme and works in groups called billing-...; ops operates acme and
// reads it, and works in all groups; root may do everything; auditor administers and nothing else.
func guardedConfig(t *testing.T) (config.Config, teams) {
	t.Helper()
	cfg := testConfig(t)
	return cfg, guard(&cfg)
}

// guard adds the callers of [guardedConfig] to a configuration.
func guard(cfg *config.Config) (callers teams) {
	cfg.Access = &config.Access{Callers: make(map[string]config.Caller)}
	acme := []string{"acme"}
	for _, one := range []struct {
		name   string
		team   *team
		grants config.Grants
	}{
		{"billing", &callers.billing, config.Grants{
			Read: &config.ReadGrant{Accounts: acme, Kinds: []string{"sms-received"}}, Work: []string{"billing-*"},
		}},
		{"ops", &callers.ops, config.Grants{
			Read: &config.ReadGrant{Accounts: acme}, Work: []string{"*"}, Operate: &config.OperateGrant{Accounts: acme},
		}},
		{"root", &callers.root, allGrants()},
		{"auditor", &callers.auditor, config.Grants{Admin: true}},
	} {
		*one.team = team{one.name, access.NewToken()}
		cfg.Access.Callers[one.name] = config.Caller{
			Tokens: []config.Token{{SHA256: access.DigestOf(one.team.token).String()}}, Grants: one.grants,
		}
	}
	return callers
}

// authorization are the values of a header, in every call.
type authorization []string

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (a authorization) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": a[0]}, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (authorization) RequireTransportSecurity() bool { return false }

// as returns a gateway whose clients show a token.
func (g *gateway) as(t *testing.T, who team) *gateway {
	t.Helper()
	return g.showing(t, "Bearer "+who.token)
}

func (g *gateway) showing(t *testing.T, header string) *gateway {
	t.Helper()
	conn := dial(t, g.GRPC, grpc.WithPerRPCCredentials(authorization{header}))
	return g.over(conn)
}

// bearerOf is the header of a REST request that shows tokens.
func bearerOf(tokens ...string) http.Header {
	header := http.Header{"Content-Type": {"application/json"}}
	for _, token := range tokens {
		header.Add("Authorization", "Bearer "+token)
	}
	return header
}

// issuer makes JWTs, and serves its keys over HTTP.
type issuer struct {
	*httptest.Server
	mu    sync.Mutex
	keys  map[string]*ecdsa.PrivateKey // mu
	down  bool                         // mu
	asked int                          // mu
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{keys: make(map[string]*ecdsa.PrivateKey)}
	i.rotate(t, "key-1")
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.asked++
		if i.down {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(i.set(t))
	}))
	t.Cleanup(i.Close)
	return i
}

// rotate replaces all keys by a new one.
func (i *issuer) rotate(t testing.TB, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.keys)
	i.keys[name] = key
}

// set is the JWK Set. The caller holds mu.
func (i *issuer) set(t testing.TB) []byte {
	t.Helper()
	keys := []map[string]string{}
	for name, key := range i.keys {
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		x, y := point[1:33], point[33:]
		keys = append(keys, map[string]string{
			"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": name,
			"x": base64.RawURLEncoding.EncodeToString(x), "y": base64.RawURLEncoding.EncodeToString(y),
		})
	}
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// writeKeys writes the JWK Set to a file.
func (i *issuer) writeKeys(t *testing.T) string {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	return writeFile(t, "jwks.json", string(i.set(t)))
}

// claims are those of a JWT that is good for an hour, for somebody.
func (i *issuer) claims(subject string) jwt.MapClaims {
	return jwt.MapClaims{
		"iss": i.URL, "aud": "linksgate", "sub": subject, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
}

// sign makes a JWT with one of the keys that there are now.
func (i *issuer) sign(t testing.TB, said jwt.MapClaims) string {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	for name, key := range i.keys {
		token := jwt.NewWithClaims(jwt.SigningMethodES256, said)
		token.Header["kid"] = name
		text, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	t.Fatal("there is no key")
	return ""
}
