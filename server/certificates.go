package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linksgate/linksgate/server/config"
)

// certificates are what the listeners show and ask for in TLS. They can be replaced while the listeners serve: streams that are open stay
// so, and new handshakes get the new ones.
type certificates struct {
	inForce map[string]*atomic.Pointer[tls.Config] // by the listener's name; those with TLS
	expiry  *prometheus.GaugeVec
}

func newCertificates(started config.ListenerTLS, metrics prometheus.Registerer) *certificates {
	c := &certificates{inForce: make(map[string]*atomic.Pointer[tls.Config]), expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "linksgate_tls_certificate_not_after_timestamp_seconds",
		Help: "When the certificate of a listener ends.",
	}, []string{"listener"})}
	metrics.MustRegister(c.expiry)
	for name, one := range started.ByName() {
		if one != nil {
			c.inForce[name] = new(atomic.Pointer[tls.Config])
		}
	}
	c.apply(started)
	return c
}

// warnPeriod is how often certificates that end soon are warned of.
const warnPeriod = 24 * time.Hour

// watch warns of certificates that end soon until ctx ends. What is so at the start was warned of with the configuration.
func (c *certificates) watch(ctx context.Context, logger *slog.Logger) {
	ticker := time.NewTicker(warnPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, warning := range c.current().ExpiryWarnings(now) {
				logger.Warn("certificate expires", "warning", warning)
			}
		}
	}
}

// current is what the listeners show now.
func (c *certificates) current() config.ListenerTLS {
	of := func(name string) *tls.Config {
		if c.inForce[name] == nil {
			return nil
		}
		return c.inForce[name].Load()
	}
	return config.ListenerTLS{Webhook: of("webhook"), GRPC: of("grpc"), REST: of("rest"), Admin: of("admin")}
}

// apply replaces what listeners with TLS show.
func (c *certificates) apply(found config.ListenerTLS) {
	for name, one := range found.ByName() {
		if c.inForce[name] == nil || one == nil { // TLS itself comes and goes with a restart
			continue
		}
		c.inForce[name].Store(one)
		if leaf := one.Certificates[0].Leaf; leaf != nil {
			c.expiry.WithLabelValues(name).Set(float64(leaf.NotAfter.Unix()))
		}
	}
}

// of returns the TLS of a listener, which asks for what is in force at each handshake; nil: it has none.
func (c *certificates) of(listener string) *tls.Config {
	inForce := c.inForce[listener]
	if inForce == nil {
		return nil
	}
	served := inForce.Load().Clone()
	served.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return inForce.Load(), nil }
	return served
}
