package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/webhook"
)

// defaultPollInterval is how often the configuration is looked at.
const defaultPollInterval = 2 * time.Second

// reloader puts a changed configuration in force while the gateway runs, in two steps: everything is read and checked, then
// swapped at once. What cannot be used changes nothing.
//
// It looks for changes by reading everything again and comparing fingerprints, not by watching files: that holds for editors
// that rename, for Kubernetes, which swaps a link two directories up, and for file systems that tell nobody. A change is taken
// when it was seen the same twice in a row, so that a file is not taken while it is being written.
type reloader struct {
	source   func() (Config, error)
	asked    <-chan struct{}
	interval time.Duration
	started  candidate // what the gateway was started with
	front    *webhook.Handler
	logger   *slog.Logger
	metrics  reloadMetrics

	settings webhook.Settings              // of run's goroutine; in force
	tried    fingerprint                   // of run's goroutine; what was last put in force or refused
	awaited  *fingerprint                  // of run's goroutine; seen once, and different from tried
	state    atomic.Pointer[reloadedState] // what to tell about it; not changed once it is stored
}

// reloadedState is the answer of GET /config.
type reloadedState struct {
	LoadedAt     time.Time      `json:"loaded_at"`
	NeedsRestart []string       `json:"needs_restart"`
	LastFailure  *reloadFailure `json:"last_failure"`
}

// reloadFailure is why the configuration in force is not the one that was found last.
type reloadFailure struct {
	At       time.Time `json:"at"`
	Problems []string  `json:"problems"`
}

type reloadMetrics struct {
	reloads     *prometheus.CounterVec
	lastSuccess prometheus.Gauge
}

func newReloader(started candidate, front *webhook.Handler, env Env, registry prometheus.Registerer) *reloader {
	r := &reloader{
		source: env.Source, asked: env.Reload, interval: env.PollInterval, started: started, front: front, logger: env.Logger,
		settings: started.parts.settings(), tried: started.fingerprint,
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
	setDefault(&r.interval, defaultPollInterval)
	for _, outcome := range []string{"success", "failure"} {
		r.metrics.reloads.WithLabelValues(outcome) // so that both are there from the start
	}
	r.metrics.lastSuccess.SetToCurrentTime()
	registry.MustRegister(r.metrics.reloads, r.metrics.lastSuccess)
	r.state.Store(&reloadedState{LoadedAt: time.Now().UTC(), NeedsRestart: []string{}})
	return r
}

// run looks for changes until ctx ends.
func (r *reloader) run(ctx context.Context) {
	if r.source == nil {
		return
	}
	ticker := time.NewTicker(r.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.asked:
			r.take(r.find())
		case <-ticker.C:
			r.look()
		}
	}
}

// look takes a change that is there for the second time.
func (r *reloader) look() {
	found := r.find()
	switch {
	case found.fingerprint == r.tried:
		r.awaited = nil
	case r.awaited == nil || *r.awaited != found.fingerprint:
		r.awaited = &found.fingerprint
	default:
		r.take(found)
	}
}

// take puts a configuration in force, or tells why that cannot be done.
func (r *reloader) take(found candidate) {
	r.tried, r.awaited = found.fingerprint, nil
	if found.err != nil {
		r.refuse(found.err)
		return
	}
	settings := found.parts.settings()
	changes := changesBetween(r.settings, settings)
	restart := found.needsRestart(r.started)
	r.front.Configure(settings)
	r.settings = settings
	r.state.Store(&reloadedState{LoadedAt: time.Now().UTC(), NeedsRestart: restart})
	r.metrics.reloads.WithLabelValues("success").Inc()
	r.metrics.lastSuccess.SetToCurrentTime()
	r.logger.Info("configuration reloaded", "changes", strings.Join(changes, "; "))
	if len(restart) > 0 {
		r.logger.Warn("a part of the configuration takes effect only when the gateway is started again", "keys", strings.Join(restart, "; "))
	}
}

func (r *reloader) refuse(err error) {
	state := *r.state.Load()
	state.LastFailure = &reloadFailure{At: time.Now().UTC(), Problems: strings.Split(err.Error(), "\n")}
	r.state.Store(&state)
	r.metrics.reloads.WithLabelValues("failure").Inc()
	r.logger.Error("the configuration cannot be used, the one before stays in force", "problems", strings.Join(state.LastFailure.Problems, "; "))
}

func (r *reloader) serveState(w http.ResponseWriter, _ *http.Request) { writeJSON(w, r.state.Load()) }

// find reads the configuration and everything that it names, as they are now.
func (r *reloader) find() candidate {
	config, err := r.source()
	if err != nil {
		return candidate{err: err, fingerprint: fingerprintOf("unreadable", err.Error())}
	}
	return examine(config)
}

// candidate is a configuration as it was found at one moment.
type candidate struct {
	config      Config // with its defaults
	parts       built
	err         error // why it cannot be used
	fingerprint fingerprint
}

// fingerprint is equal for configurations that say the same and name files of the same content.
type fingerprint [sha256.Size]byte

// examine checks a configuration and reads what it names.
func examine(config Config) candidate {
	found := candidate{config: config.withDefaults()}
	f := make(files)
	found.parts, found.err = found.config.build(f)
	text, _ := json.Marshal(found.config) // cannot fail: it holds strings, numbers, lists and maps
	texts := []string{string(text)}
	for _, path := range sortedKeys(f) {
		texts = append(texts, path, string(f[path].data), fmt.Sprint(f[path].err))
	}
	found.fingerprint = fingerprintOf(texts...)
	return found
}

func fingerprintOf(texts ...string) fingerprint {
	hash := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(hash, "%d:%s", len(text), text) // the length keeps one text from running into the next
	}
	return fingerprint(hash.Sum(nil))
}

// needsRestart returns the keys that differ from what the gateway was started with and cannot change while it runs.
func (c candidate) needsRestart(started candidate) []string {
	before, after := started.config.fixed(), c.config.fixed()
	keys := []string{}
	for _, key := range keysOfBoth(before, after) {
		if before[key] != after[key] {
			keys = append(keys, key)
		}
	}
	for _, one := range []struct {
		key           string
		before, after *tls.Config
	}{
		{"webhook.tls", started.parts.webhookTLS, c.parts.webhookTLS}, {"grpc.tls", started.parts.grpcTLS, c.parts.grpcTLS},
		{"rest.tls", started.parts.restTLS, c.parts.restTLS},
	} {
		if one.before != nil && one.after != nil && !sameTLS(one.before, one.after) {
			keys = append(keys, one.key+" (the files' content)")
		}
	}
	return keys
}

func sameTLS(a, b *tls.Config) bool {
	return slices.EqualFunc(a.Certificates[0].Certificate, b.Certificates[0].Certificate, bytes.Equal) && a.ClientCAs.Equal(b.ClientCAs)
}

// fixed returns what cannot change while the gateway runs, as text by key: everything but what can, so that a new key is
// never passed over in silence.
func (c Config) fixed() map[string]string {
	c.Accounts, c.Webhook.TrustedProxies = nil, nil
	keys := make(map[string]string)
	flatten("", reflect.ValueOf(c), keys)
	return keys
}

// flatten collects what is set in a part of a configuration, by the keys of the configuration file.
func flatten(prefix string, value reflect.Value, into map[string]string) {
	isSet := !value.IsZero()
	if value.Kind() == reflect.Pointer && isSet {
		value = value.Elem()
	}
	if value.Kind() == reflect.Struct {
		for i := range value.NumField() {
			key, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("yaml"), ",")
			flatten(strings.TrimPrefix(prefix+"."+key, "."), value.Field(i), into)
		}
	} else if isSet {
		text, _ := json.Marshal(value.Interface())
		into[prefix] = string(text)
	}
}

// changesBetween says what differs between two settings, by the names of accounts, secrets and kinds.
func changesBetween(before, after webhook.Settings) []string {
	changes := []string{}
	for _, name := range keysOfBoth(before.Accounts, after.Accounts) {
		where, old, now := "accounts."+name, before.Accounts[name], after.Accounts[name]
		switch {
		case old == nil:
			changes, old = append(changes, where+": added"), new(webhook.Account)
		case now == nil:
			changes, now = append(changes, where+": removed"), new(webhook.Account)
		}
		changes = append(changes, accountChanges(where, old, now)...)
	}
	if !slices.Equal(before.TrustedProxies, after.TrustedProxies) {
		changes = append(changes, "webhook.trusted_proxies: changed")
	}
	return changes
}

func accountChanges(where string, before, after *webhook.Account) []string {
	changes := secretChanges(where+".md5_secrets", before.Keys.MD5, after.Keys.MD5)
	for _, id := range keysOfBoth(before.Keys.HMAC, after.Keys.HMAC) {
		changes = append(changes, secretChanges(where+".hmac_keys "+id, before.Keys.HMAC[id], after.Keys.HMAC[id])...)
	}
	for _, kind := range payload.Kinds() {
		if !samePolicy(before.Kinds[kind], after.Kinds[kind]) {
			changes = append(changes, where+".kinds."+payload.KindName(kind)+": changed")
		}
	}
	return changes
}

func samePolicy(a, b webhook.KindPolicy) bool {
	return a.Signature == b.Signature && a.PathToken == b.PathToken && slices.Equal(a.Sources, b.Sources)
}

func secretChanges(where string, before, after []signature.Secret) []string {
	values := func(secrets []signature.Secret) map[string]string {
		byName := make(map[string]string, len(secrets))
		for _, secret := range secrets {
			byName[secret.Name] = secret.Value
		}
		return byName
	}
	old, now := values(before), values(after)
	var changes []string
	for _, name := range keysOfBoth(old, now) {
		switch {
		case old[name] == "":
			changes = append(changes, where+": added "+name)
		case now[name] == "":
			changes = append(changes, where+": removed "+name)
		case old[name] != now[name]:
			changes = append(changes, where+": new value of "+name)
		}
	}
	return changes
}

// keysOfBoth returns the keys of either map, in order.
func keysOfBoth[V any](a, b map[string]V) []string {
	return slices.Compact(slices.Sorted(slices.Values(append(sortedKeys(a), sortedKeys(b)...))))
}
