// Package admin is what an operator and a monitoring system ask a gateway: health, metrics, the configuration in force, and which
// secrets are in use.
package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/config"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/group"
)

// New returns the administrative endpoints:
//
//	/healthz  200 while the process runs
//	/readyz   200 while the log can be written, else 503, with the durability in force
//	/metrics  for Prometheus
//	/config   when the configuration in force was loaded, what of the one found last needs a restart, and why it could not
//	          be put in force, if it could not
//	/secrets  the configured secrets by name, and when each last verified a notification
//
//	/callers  the credentials of callers by name, when they end, and when each was last used
//
// Nothing that is secret can be got from them. Where there are callers, /config, /secrets and /callers need the right admin, and /metrics
// does if the configuration says so.
func New(log *eventlog.Log, registry *prometheus.Registry, reloader *config.Reloader, usage *Usage, control *access.Control) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		answer := struct {
			Ready      bool   `json:"ready"`
			Durability string `json:"durability"`
			Reason     string `json:"reason,omitempty"`
			// SpoolingSince is when the gateway began to store on its own disk, because the cluster does not confirm.
			SpoolingSince *time.Time `json:"spooling_since,omitempty"`
		}{Ready: true, Durability: log.Durability().String()}
		if since := log.Spooled().Since; !since.IsZero() {
			answer.SpoolingSince = &since
		}
		status := http.StatusOK
		if err := log.Err(); err != nil {
			answer.Ready, answer.Reason = false, err.Error()
			status = http.StatusServiceUnavailable
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer)
	})
	admins := func(serve http.HandlerFunc) http.Handler { return guard(control, serve) }
	mux.Handle("GET /config", admins(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, reloader.State()) }))
	mux.Handle("GET /secrets", admins(usage.serve))
	mux.Handle("GET /callers", admins(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"credentials": control.Uses()})
	}))
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	guarded := guard(control, metrics)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if control.MetricsProtected() {
			guarded.ServeHTTP(w, r)
			return
		}
		metrics.ServeHTTP(w, r)
	})
	return mux
}

// guard serves those who may administer.
func guard(control *access.Control, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := control.Authenticate(r.Context(), access.ShownIn(r))
		if err == nil {
			if err = caller.MayAdmin(); err != nil {
				control.Refused(caller.Name, err)
			}
		}
		missing := new(access.MissingRight)
		switch {
		case err == nil:
			next.ServeHTTP(w, r)
		case errors.As(err, &missing):
			http.Error(w, err.Error(), http.StatusForbidden)
		case errors.Is(err, access.ErrUnavailable):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			w.Header().Set("WWW-Authenticate", access.Challenge)
			http.Error(w, err.Error(), http.StatusUnauthorized)
		}
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the asker may be gone
}

func counter(name, help string, value func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
}

// RegisterGroups publishes the counters of shared work.
func RegisterGroups(registry prometheus.Registerer, groups *group.Groups) {
	stats := groups.Stats()
	registry.MustRegister(
		counter("linksgate_group_leases_total", "Notifications lent to members of groups.", stats.Leased.Load),
		counter("linksgate_group_acknowledged_total", "Leases that were acknowledged.", stats.Acknowledged.Load),
		counter("linksgate_group_rejected_total", "Leases that were rejected.", stats.Rejected.Load),
		counter("linksgate_group_leases_ended_total", "Leases that passed unsettled.", stats.LeasesEnded.Load),
		counter("linksgate_group_disconnected_total", "Leases given back because their member was gone.", stats.Disconnected.Load),
		counter("linksgate_group_parked_total", "Notifications that were parked.", stats.Parked.Load),
		counter("linksgate_group_missed_batches_total", "Record batches that expired or were damaged before their group got them.",
			stats.MissedBatches.Load),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "linksgate_groups_blocked", Help: "Groups that cannot lease anything because as much as may be is in flight and waits.",
		}, func() float64 { return float64(groups.Blocked()) }),
	)
}

// RegisterLog publishes the log's counters.
func RegisterLog(registry prometheus.Registerer, log *eventlog.Log) {
	stats := log.Stats()
	registry.MustRegister(
		counter("linksgate_log_appended_notifications_total", "Notifications made durable.", stats.Notifications.Load),
		counter("linksgate_log_appended_batches_total", "Record batches made durable.", stats.Batches.Load),
		counter("linksgate_log_appended_bytes_total", "Bytes of record batches made durable.", stats.Bytes.Load),
		counter("linksgate_log_duplicates_total", "Copies that were answered and not stored again.", stats.Duplicates.Load),
		counter("linksgate_log_failed_writes_total", "Record batches that could not be written.", stats.Failures.Load),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "linksgate_log_writable", Help: "1 while the log can be written."},
			func() float64 {
				if log.Err() != nil {
					return 0
				}
				return 1
			}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "linksgate_spool_batches", Help: "Record batches on this gateway's disk that wait to be forwarded to the cluster.",
		}, func() float64 { return float64(log.Spooled().Batches) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "linksgate_spool_oldest_timestamp_seconds", Help: "When the oldest of them was stored; 0 without one.",
		}, func() float64 {
			if since := log.Spooled().Since; !since.IsZero() {
				return float64(since.Unix())
			}
			return 0
		}),
	)
}
