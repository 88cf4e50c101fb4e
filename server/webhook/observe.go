package webhook

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// metrics count requests. Labels have few values: kinds, reasons and status codes, never anything that a sender chooses.
type metrics struct {
	requests   *prometheus.CounterVec
	quarantine *prometheus.CounterVec
	duration   prometheus.Histogram
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "linksgate_webhook_requests_total",
			Help: "Requests from Linksfield, by kind, status code of the answer, and reason for it.",
		}, []string{"kind", "code", "reason"}),
		quarantine: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "linksgate_webhook_quarantined_total",
			Help: "Refused requests, by whether they were kept in quarantine.",
		}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "linksgate_webhook_stored_duration_seconds",
			Help:    "Time from the headers of a request to its 200, reading the body and the log's write included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
	if registry != nil {
		registry.MustRegister(m.requests, m.quarantine, m.duration)
	}
	return m
}

func (m *metrics) observe(kind string, a *answer, took time.Duration) {
	m.requests.WithLabelValues(kind, strconv.Itoa(a.status), a.reason).Inc()
	if a.status == http.StatusOK {
		m.duration.Observe(took.Seconds())
	}
}

// limitedLogger logs refused requests, but not every one: a hostile sender must not fill the log. What it leaves out it counts.
type limitedLogger struct {
	logger    *slog.Logger
	limiter   *rate.Limiter
	overLimit *rate.Limiter // for what was not kept either: among all that is, it would hardly show
	proxies   *rate.Limiter
	left      atomic.Int64
}

func newLimitedLogger(logger *slog.Logger) *limitedLogger {
	return &limitedLogger{logger: logger, limiter: rate.NewLimiter(5, 20), overLimit: rate.NewLimiter(1, 5), proxies: rate.NewLimiter(rate.Every(time.Hour), 1)}
}

// forwarded tells that a proxy forwards the addresses of senders and is not trusted: then all of them are one source.
func (l *limitedLogger) forwarded(s *Settings, r *http.Request) {
	if r.Header.Get("X-Forwarded-For") == "" {
		return
	}
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || contains(s.TrustedProxies, remote.Addr().Unmap()) || !l.proxies.Allow() {
		return
	}
	l.logger.Warn("proxy not trusted", "proxy", remote.Addr().Unmap(), "setting", "webhook.trusted_proxies",
		"meaning", "its X-Forwarded-For is not believed, and all that comes through it counts as one source")
}

func (l *limitedLogger) refused(rt route, a *answer) {
	limiter := l.limiter
	if a.kept == overLimit {
		limiter = l.overLimit
	}
	if !limiter.Allow() {
		l.left.Add(1)
		return
	}
	level := slog.LevelWarn
	if a.status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	attrs := []slog.Attr{
		slog.Int("status", a.status),
		slog.String("reason", a.reason),
		slog.String("account", rt.account),
		slog.String("kind", rt.kindName),
		slog.String("source", rt.source.String()),
	}
	if a.err != nil {
		attrs = append(attrs, slog.Any("error", a.err))
	}
	if rt.path != "" {
		attrs = append(attrs, slog.String("path", loggedPath(rt.path[:min(len(rt.path), maxPath)])))
	}
	if a.kept != "" {
		attrs = append(attrs, slog.String("quarantine", a.kept))
	}
	if left := l.left.Swap(0); left > 0 {
		attrs = append(attrs, slog.Int64("refusals_not_logged_before", left))
	}
	l.logger.LogAttrs(context.Background(), level, "notification refused", attrs...)
}
