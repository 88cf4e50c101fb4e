package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ListenerTLS is the TLS of each listener; nil where there is none.
type ListenerTLS struct{ Webhook, GRPC, REST, Admin *tls.Config }

// ByName returns it by the name of the listener's address in [Listen].
func (l ListenerTLS) ByName() map[string]*tls.Config {
	return map[string]*tls.Config{"webhook": l.Webhook, "grpc": l.GRPC, "rest": l.REST, "admin": l.Admin}
}

// expiryWarning is how long before its end a certificate or token is warned of.
const expiryWarning = 14 * 24 * time.Hour

// ExpiryWarnings says which certificates end soon, or have ended.
func (l ListenerTLS) ExpiryWarnings(now time.Time) (warnings []string) {
	listeners := l.ByName()
	for _, name := range slices.Sorted(maps.Keys(listeners)) {
		if listeners[name] == nil || listeners[name].Certificates[0].Leaf == nil {
			continue
		}
		switch left := listeners[name].Certificates[0].Leaf.NotAfter.Sub(now); {
		case left <= 0:
			warnings = append(warnings, name+".tls: the certificate has expired")
		case left < expiryWarning:
			warnings = append(warnings, fmt.Sprintf("%s.tls: the certificate expires in %d days", name, int(left/(24*time.Hour))))
		}
	}
	return warnings
}

// build reads the files of a TLS configuration. A nil one is none.
func (c *TLS) build(where string, f files, p *problems) *tls.Config {
	if c == nil {
		return nil
	}
	certificate, err := c.certificate(f)
	p.check(where, err)
	cfg := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	switch {
	case c.ClientCertificates != "" && c.ClientCAFile == "":
		p.add(where+".client_certificates", "needs client_ca_file, which says by whom they are signed")
	case !slices.Contains([]string{"", "required", "optional"}, c.ClientCertificates):
		p.add(where+".client_certificates", "%q is not one of required, optional", c.ClientCertificates)
	}
	if c.ClientCAFile != "" {
		pem, err := f.read(c.ClientCAFile)
		p.check(where+".client_ca_file", err)
		cfg.ClientCAs = x509.NewCertPool()
		if err == nil && !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			p.add(where+".client_ca_file", "%s holds no certificate", c.ClientCAFile)
		}
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		if c.ClientCertificates == "optional" {
			cfg.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	return cfg
}

func (c *TLS) certificate(f files) (tls.Certificate, error) {
	certificate, err := f.read(c.CertFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := f.read(c.KeyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certificate, key)
}
