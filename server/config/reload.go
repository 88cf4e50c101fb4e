package config

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// defaultPollInterval is how often the configuration is looked at.
const defaultPollInterval = 2 * time.Second

// Reloader puts a changed configuration in force while the gateway runs, in two steps: everything is read and checked, then
// swapped at once. What cannot be used changes nothing.
//
// It looks for changes by reading everything again and comparing fingerprints, not by watching files: that holds for editors
// that rename, for Kubernetes, which swaps a link two directories up, and for file systems that tell nobody. A change is taken
// when it was seen the same twice in a row, so that a file is not taken while it is being written.
type Reloader struct {
	options ReloadOptions
	metrics reloadMetrics

	inForce Checked               // of Run's goroutine
	tried   fingerprint           // of Run's goroutine; what was last put in force or refused
	awaited *fingerprint          // of Run's goroutine; seen once, and different from tried
	state   atomic.Pointer[State] // what to tell about it; not changed once it is stored
}

// State is what there is to tell about reloading, in the form of GET /config.
type State struct {
	LoadedAt     time.Time `json:"loaded_at"`
	NeedsRestart []string  `json:"needs_restart"`
	LastFailure  *Failure  `json:"last_failure"`
}

// Failure says why the configuration in force is not the one that was found last.
type Failure struct {
	At       time.Time `json:"at"`
	Problems []string  `json:"problems"`
}

type reloadMetrics struct {
	reloads     *prometheus.CounterVec
	lastSuccess prometheus.Gauge
}

// ReloadOptions says how to look for changes and what to do with them.
type ReloadOptions struct {
	// Source reads the configuration again, as the one that the gateway was started with was read. Nil: never.
	Source func() (Config, error)
	// Asked, if set, asks to call Source now and to apply what it returns at once. It must not be closed.
	Asked <-chan struct{}
	// Interval is how often Source is called without being asked. Default 2s.
	Interval time.Duration
	// Started is what the gateway was started with.
	Started Checked
	// Apply puts what can change in force. It is told in words what that is, and is not called by two goroutines at once.
	Apply   func(found Checked, changes []string)
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// NewReloader returns a reloader that has yet to be run.
func NewReloader(options ReloadOptions) *Reloader {
	setDefault(&options.Interval, defaultPollInterval)
	r := &Reloader{
		options: options, inForce: options.Started, tried: options.Started.fingerprint,
		metrics: reloadMetrics{
			reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "linksgate_config_reloads_total",
				Help: "Configurations that were found while running, by whether they were put in force.",
			}, []string{"outcome"}),
			lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
				Name: "linksgate_config_last_reload_success_timestamp_seconds",
				Help: "When the configuration in force was loaded, at the start or later.",
			}),
		},
	}
	for _, outcome := range []string{"success", "failure"} {
		r.metrics.reloads.WithLabelValues(outcome) // so that both are there from the start
	}
	r.metrics.lastSuccess.SetToCurrentTime()
	options.Metrics.MustRegister(r.metrics.reloads, r.metrics.lastSuccess)
	r.state.Store(&State{LoadedAt: time.Now().UTC(), NeedsRestart: []string{}})
	return r
}

// Run looks for changes until ctx ends.
func (r *Reloader) Run(ctx context.Context) {
	if r.options.Source == nil {
		return
	}
	ticker := time.NewTicker(r.options.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.options.Asked:
			r.apply(r.find())
		case <-ticker.C:
			r.look()
		}
	}
}

// look applies a change that is there for the second time.
func (r *Reloader) look() {
	found := r.find()
	switch {
	case found.fingerprint == r.tried:
		r.awaited = nil
	case r.awaited == nil || *r.awaited != found.fingerprint:
		r.awaited = &found.fingerprint
	default:
		r.apply(found)
	}
}

// apply puts a configuration in force, or tells why that cannot be done.
func (r *Reloader) apply(found Checked) {
	r.tried, r.awaited = found.fingerprint, nil
	if found.err != nil {
		r.refuse(found.err)
		return
	}
	changes := changesBetween(r.inForce, found)
	restart := found.needsRestart(r.options.Started)
	r.options.Apply(found, changes)
	r.inForce = found
	r.state.Store(&State{LoadedAt: time.Now().UTC(), NeedsRestart: restart})
	r.metrics.reloads.WithLabelValues("success").Inc()
	r.metrics.lastSuccess.SetToCurrentTime()
	r.options.Logger.Info("configuration reloaded", "changes", strings.Join(changes, "; "))
	found.Warn(r.options.Logger)
	if len(restart) > 0 {
		r.options.Logger.Warn("a part of the configuration takes effect only when the gateway is started again", "keys", strings.Join(restart, "; "))
	}
}

func (r *Reloader) refuse(err error) {
	state := *r.state.Load()
	state.LastFailure = &Failure{At: time.Now().UTC(), Problems: strings.Split(err.Error(), "\n")}
	r.state.Store(&state)
	r.metrics.reloads.WithLabelValues("failure").Inc()
	r.options.Logger.Error("the configuration cannot be used, the one before stays in force", "problems", strings.Join(state.LastFailure.Problems, "; "))
}

// State returns what there is to tell. It must not be changed.
func (r *Reloader) State() *State { return r.state.Load() }

// find reads the configuration and everything that it names, as they are now.
func (r *Reloader) find() Checked {
	found, err := r.options.Source()
	if err != nil {
		return Checked{err: err, fingerprint: fingerprintOf("unreadable", err.Error())}
	}
	return examine(found)
}
