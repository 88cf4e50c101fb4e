package server_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/config"
)

// TestOnlyGoodCredentialsAreTaken shows all sorts of headers Authorization, over gRPC and REST.
func TestOnlyGoodCredentialsAreTaken(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	late := access.NewToken()
	billing := cfg.Access.Callers["billing"]
	billing.Tokens = append(billing.Tokens, config.Token{Name: "late", SHA256: access.DigestOf(late).String(), Expires: "2020-01-01"})
	cfg.Access.Callers["billing"] = billing
	g := startGateway(t, cfg)
	good := callers.root.token
	mistyped := good[:len(good)-1] + map[bool]string{true: "1", false: "0"}[strings.HasSuffix(good, "0")]
	for _, tt := range []struct {
		headers []string
		code    codes.Code
		reason  string
		text    string
	}{
		{[]string{"Bearer " + good}, codes.OK, "", ""},
		{[]string{"bearer  " + good}, codes.OK, "", ""},
		{nil, codes.Unauthenticated, "CREDENTIAL_MISSING", "bearer token"},
		{[]string{"Bearer " + good, "Bearer " + good}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "several"},
		{[]string{"Bearer " + good, "Bearer x"}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "several"},
		{[]string{"Basic " + good}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "Bearer"},
		{[]string{good}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "Bearer"},
		{[]string{"Bearer "}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "Bearer"},
		{[]string{""}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "Bearer"},
		{[]string{"Bearer " + mistyped}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "mistyped"},
		{[]string{"Bearer " + access.NewToken()}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "not known"},
		{[]string{"Bearer " + access.DigestOf(good).String()}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "not known"},
		{[]string{"Bearer " + strings.Repeat("x", 20_000)}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "bytes"},
		{[]string{"Bearer " + late}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "expired"},
		{[]string{"Bearer a.b.c"}, codes.Unauthenticated, "CREDENTIAL_REFUSED", "JWT"},
	} {
		ctx := t.Context()
		for _, header := range tt.headers {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
		}
		_, err := g.client.GetLogInfo(ctx, &linksgatev1.GetLogInfoRequest{})
		if status.Code(err) != tt.code || reasonOf(err) != tt.reason || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("gRPC, %.80q: %v; want %v, %s, %q", tt.headers, err, tt.code, tt.reason, tt.text)
		}
		a := g.rest(t, http.MethodGet, "/v1/log", http.Header{"Authorization": tt.headers}, "")
		want := map[codes.Code]int{codes.OK: http.StatusOK, codes.Unauthenticated: http.StatusUnauthorized}[tt.code]
		if a.status != want || (want == http.StatusUnauthorized) != (a.header.Get("WWW-Authenticate") != "") || !strings.Contains(a.body, tt.reason) {
			t.Errorf("REST, %.80q: %d %v %s", tt.headers, a.status, a.header, a.body)
		}
	}
	// What is not a header is not looked at, and what stands for one within the gateway is not taken from outside.
	for _, path := range []string{"/v1/log?access_token=" + good, "/v1/log?authorization=Bearer%20" + good} {
		a := g.rest(t, http.MethodGet, path, nil, "")
		if a.status != http.StatusUnauthorized && a.status != http.StatusBadRequest {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	forged := http.Header{
		"Cookie": {"authorization=Bearer " + good}, "Grpc-Metadata-Authorization": {"Bearer " + good}, "Authorization": {"Bearer \xe9"},
		"Linksgate-Passed-On": {"1"}, "Grpc-Metadata-Linksgate-Passed-On": {"1"},
	}
	if a := g.rest(t, http.MethodGet, "/v1/log", forged, ""); a.status != http.StatusUnauthorized {
		t.Errorf("forged headers: %d %s", a.status, a.body)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "linksgate-passed-on", "x", "linksgate-certificate-bin", "x", "linksgate-address", "10.0.0.1")
	if _, err := g.client.GetLogInfo(ctx, &linksgatev1.GetLogInfoRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("forged metadata: %v", err)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/config": 401, "/secrets": 401, "/callers": 401} {
		if got, _ := g.admin(t, path); got != want {
			t.Errorf("admin %s: %d; want %d", path, got, want)
		}
	}
	if text := g.logs.String(); strings.Contains(text, good) || strings.Contains(text, access.DigestOf(good).String()) {
		t.Error("a token or its digest is in the log")
	}
	_, metrics := g.admin(t, "/metrics")
	for _, line := range []string{
		`linksgate_access_refused_total{caller="unknown",reason="bad_credential"}`, `linksgate_access_refused_total{caller="anonymous",reason="no_credential"}`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// TestJWTs tries good and bad JWTs of an issuer.
func TestJWTs(t *testing.T) {
	t.Parallel()
	cfg, _ := guardedConfig(t)
	i, stranger := newIssuer(t), newIssuer(t)
	cfg.Access.Issuers = map[string]config.Issuer{"corp": {Issuer: i.URL, Audience: "linksgate", JWKSURL: i.URL, GroupsClaim: "groups"}}
	for name, identity := range map[string]config.JWTIdentity{
		"root": {Issuer: "corp", Subject: "admin"}, "billing": {Issuer: "corp", Group: "billing-team"}, "ops": {Issuer: "corp", Group: "ops-team"},
	} {
		caller := cfg.Access.Callers[name]
		caller.JWT = []config.JWTIdentity{identity}
		cfg.Access.Callers[name] = caller
	}
	g := startGateway(t, cfg)
	g.deliverOther(t, 1)
	ask := func(token string) error {
		_, err := g.client.ListNotifications(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), &linksgatev1.ListNotificationsRequest{
			Filter: &linksgatev1.NotificationFilter{Accounts: []string{"other"}},
		})
		return err
	}
	with := func(subject string, changes jwt.MapClaims) string {
		said := i.claims(subject)
		for name, value := range changes {
			if said[name] = value; value == nil {
				delete(said, name)
			}
		}
		return i.sign(t, said)
	}
	good := with("admin", nil)
	parts := strings.Split(good, ".")
	forge := func(header string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "."
	}
	publicKey := func() []byte { i.mu.Lock(); defer i.mu.Unlock(); return i.set(t) }()
	confused := jwt.NewWithClaims(jwt.SigningMethodHS256, i.claims("admin"))
	confused.Header["kid"] = "key-1"
	hmacSigned, err := confused.SignedString(publicKey)
	if err != nil {
		t.Fatal(err)
	}
	byStranger := stranger.claims("admin")
	byStranger["iss"] = i.URL
	past, future := time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
	for name, tt := range map[string]struct {
		token string
		code  codes.Code
		text  string
	}{
		"good":                        {good, codes.OK, ""},
		"again":                       {good, codes.OK, ""},
		"just expired, within leeway": {with("admin", jwt.MapClaims{"exp": time.Now().Add(-5 * time.Second).Unix()}), codes.OK, ""},
		"a group":                     {with("nobody", jwt.MapClaims{"groups": []string{"x", "billing-team"}}), codes.PermissionDenied, "billing does not have the right to read"},
		"groups of two callers":       {with("nobody", jwt.MapClaims{"groups": []string{"ops-team", "billing-team"}}), codes.Unauthenticated, "several callers"},
		"nobody":                      {with("nobody", nil), codes.Unauthenticated, "no caller"},
		"a subject that is no text":   {with("", jwt.MapClaims{"sub": []string{"admin"}}), codes.Unauthenticated, "no caller"},
		"expired":                     {with("admin", jwt.MapClaims{"exp": past}), codes.Unauthenticated, "expired"},
		"no expiry":                   {with("admin", jwt.MapClaims{"exp": nil}), codes.Unauthenticated, "does not verify"},
		"not yet":                     {with("admin", jwt.MapClaims{"nbf": future}), codes.Unauthenticated, "not valid yet"},
		"made in the future":          {with("admin", jwt.MapClaims{"iat": future}), codes.Unauthenticated, "not valid yet"},
		"another audience":            {with("admin", jwt.MapClaims{"aud": "mail"}), codes.Unauthenticated, "audience"},
		"no audience":                 {with("admin", jwt.MapClaims{"aud": nil}), codes.Unauthenticated, ""},
		"an issuer that is unknown":   {with("admin", jwt.MapClaims{"iss": "https://evil.example"}), codes.Unauthenticated, "not trusted"},
		"another's key":               {stranger.sign(t, byStranger), codes.Unauthenticated, "does not verify"},
		"alg none":                    {forge(`{"alg":"none","typ":"JWT"}`), codes.Unauthenticated, "does not verify"},
		"alg None, kid":               {forge(`{"alg":"nOnE","kid":"key-1"}`), codes.Unauthenticated, ""},
		"HMAC with the public key":    {hmacSigned, codes.Unauthenticated, "does not verify"},
		"signature cut off":           {parts[0] + "." + parts[1] + ".", codes.Unauthenticated, "does not verify"},
		"claims changed": {parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+i.URL+`","aud":"linksgate","sub":"admin","exp":9999999999}`)) +
			"." + parts[2], codes.Unauthenticated, "does not verify"},
	} {
		if err := ask(tt.token); status.Code(err) != tt.code || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v; want %v, %q", name, err, tt.code, tt.text)
		}
	}

	// A new key at the issuer is learned when it is first used, and an issuer that is down takes nothing away.
	i.rotate(t, "key-2")
	if err := ask(i.sign(t, i.claims("admin"))); err != nil {
		t.Errorf("with a new key: %v", err)
	}
	i.mu.Lock()
	i.down = true
	before := i.asked
	i.mu.Unlock()
	if err := ask(i.sign(t, i.claims("admin"))); err != nil {
		t.Errorf("while the issuer is down: %v", err)
	}
	for range 50 { // tokens with keys that nobody knows do not become requests to the issuer
		_ = ask(stranger.sign(t, byStranger))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if asked := i.asked - before; asked > 2 {
		t.Errorf("the issuer was asked %d times", asked)
	}
}

// TestAnIssuerThatIsDownAtTheStart requires that the gateway starts, says that it cannot tell yet, and can once the issuer is up.
func TestAnIssuerThatIsDownAtTheStart(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	i := newIssuer(t)
	i.down = true
	cfg.Access.Issuers = map[string]config.Issuer{"corp": {Issuer: i.URL, Audience: "linksgate", JWKSURL: i.URL}}
	root := cfg.Access.Callers["root"]
	root.JWT = []config.JWTIdentity{{Issuer: "corp", Subject: "admin"}}
	cfg.Access.Callers["root"] = root
	g := startGateway(t, cfg)
	if g.as(t, callers.root).info(t).GetLogId() == "" {
		t.Error("tokens do not work")
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+i.sign(t, i.claims("admin")))
	_, err := g.client.GetLogInfo(ctx, &linksgatev1.GetLogInfoRequest{})
	if status.Code(err) != codes.Unavailable || reasonOf(err) != "ISSUER_UNAVAILABLE" {
		t.Errorf("while the issuer is down: %v", err)
	}
	checkRetry(t, "while the issuer is down", err)
	i.mu.Lock()
	i.down = false
	i.mu.Unlock()
	if _, err := g.client.GetLogInfo(ctx, &linksgatev1.GetLogInfoRequest{}); err != nil {
		t.Errorf("once it is up: %v", err)
	}
}
