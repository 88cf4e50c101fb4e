package server_test

import (
	"strings"
	"testing"

	"github.com/linksgate/linksgate/server/config"
)

// TestAddressesThatOthersReachFailClosed requires that nothing is served unprotected without having been meant so.
func TestAddressesThatOthersReachFailClosed(t *testing.T) {
	t.Parallel()
	certificate, key := writeCertificate(t)
	protected := &config.TLS{CertFile: certificate, KeyFile: key}
	withCA := &config.TLS{CertFile: certificate, KeyFile: key, ClientCAFile: certificate}
	for name, tt := range map[string]struct {
		change func(*config.Config)
		want   []string // nil: served
	}{
		"everything open": {func(c *config.Config) {
			c.Listen = config.Listen{Webhook: "0.0.0.0:0", GRPC: ":0", REST: "[::]:0", Admin: "0.0.0.0:0"}
		}, []string{"listen.webhook", "listen.grpc", "listen.rest", "listen.admin", "listen.plaintext", "access.callers"}},
		"gRPC with TLS and no callers":  {func(c *config.Config) { c.Listen.GRPC, c.GRPC.TLS = "0.0.0.0:0", protected }, []string{"access.callers"}},
		"gRPC with callers and no TLS":  {func(c *config.Config) { c.Listen.GRPC, c.Access = "0.0.0.0:0", everybodyMay() }, []string{"grpc.tls"}},
		"gRPC with client certificates": {func(c *config.Config) { c.Listen.GRPC, c.GRPC.TLS = "0.0.0.0:0", withCA }, nil},
		"gRPC with both": {func(c *config.Config) {
			c.Listen.GRPC, c.GRPC.TLS, c.Access = "0.0.0.0:0", protected, everybodyMay()
		}, nil},
		"webhooks behind a proxy": {func(c *config.Config) { c.Listen.Webhook, c.Listen.Plaintext = "0.0.0.0:0", []string{"webhook"} }, nil},
		"a mistyped override":     {func(c *config.Config) { c.Listen.Plaintext = []string{"grcp"} }, []string{"listen.plaintext"}},
		"access for nobody":       {func(c *config.Config) { c.Access = new(config.Access) }, []string{"access.callers", "access.anonymous"}},
	} {
		cfg := testConfig(t)
		tt.change(&cfg)
		err := cfg.Check()
		if (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, text := range tt.want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v does not say %q", name, err, text)
			}
		}
	}
}

// TestWrongAccessIsRefused requires that each mistake in who may do what is told where it is.
func TestWrongAccessIsRefused(t *testing.T) {
	t.Parallel()
	const digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
	for text, want := range map[string]string{
		"callers: {a: {grants: {admin: true}}}":                                                                     "access.callers.a: cannot be known",
		"callers: {a: {tokens: [{sha256: abc}]}}":                                                                   "access.callers.a.tokens[0].sha256",
		"callers: {A: {tokens: [{sha256: '" + digest + "'}]}}":                                                      "access.callers.A: a caller's name",
		"callers: {anonymous: {tokens: [{sha256: '" + digest + "'}]}}":                                              "access.callers.anonymous: a caller's name",
		"callers: {a: {tokens: [{sha256: '" + digest + "'}, {sha256: '" + digest + "', name: b}]}}":                 "access.callers.a.tokens[1].sha256: is that of access.callers.a.tokens[0]",
		"callers: {a: {tokens: [{sha256: '" + digest + "', expires: soon}]}}":                                       "access.callers.a.tokens[0].expires",
		"callers: {a: {certificates: ['dns:b']}, c: {certificates: ['dns:b']}}":                                     "access.callers.c.certificates[0]: is that of access.callers.a.certificates[0]",
		"callers: {a: {certificates: ['billing'], grants: {}}}":                                                     "access.callers.a.certificates[0]",
		"callers: {a: {certificates: ['dns:b'], grants: {read: {}}}}":                                               "access.callers.a.grants.read.accounts: must name accounts",
		"callers: {a: {certificates: ['dns:b'], grants: {read: {accounts: ['*', acme]}}}}":                          "access.callers.a.grants.read.accounts",
		"callers: {a: {certificates: ['dns:b'], grants: {read: {accounts: ['*'], kinds: [sms]}}}}":                  "access.callers.a.grants.read.kinds",
		"callers: {a: {certificates: ['dns:b'], grants: {work: ['[']}}}":                                            "access.callers.a.grants.work",
		"callers: {a: {certificates: ['dns:b'], limits: {streams: -1}}}":                                            "access.callers.a.limits",
		"callers: {a: {certificates: ['dns:b'], limits: {replay_per_second: 1KiB}}}":                                "access.callers.a.limits.replay_per_second",
		"callers: {a: {jwt: [{issuer: corp, subject: b}]}}":                                                         "access.callers.a.jwt[0].issuer",
		"issuers: {corp: {issuer: b, audience: c, jwks_url: 'http://example.com/keys'}}":                            "access.issuers.corp.jwks_url: must begin with https",
		"issuers: {corp: {issuer: b, audience: c}}":                                                                 "access.issuers.corp: exactly one",
		"issuers: {corp: {issuer: b, jwks_url: 'https://example.com'}}":                                             "access.issuers.corp.audience",
		"issuers: {corp: {issuer: b, audience: c, jwks_file: /dev/null}}":                                           "access.issuers.corp.jwks_file",
		"issuers: {corp: {issuer: b, audience: c, jwks_url: 'https://example.com', leeway: 1h}}":                    "access.issuers.corp.leeway",
		"callers: {a: {jwt: [{issuer: corp}]}}\nissuers: {corp: {issuer: b, audience: c, jwks_url: 'https://a.b'}}": "access.callers.a.jwt[0]: exactly one",
	} {
		cfg, err := readConfig(t, "access:\n  "+strings.ReplaceAll(text, "\n", "\n  ")+"\naccounts: {acme: {md5_secrets: [{env: PATH}]}}\n")
		if err == nil {
			err = cfg.Check()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}
