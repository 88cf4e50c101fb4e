// Package server is the gateway put together: it opens the log, serves Linksfield's webhooks, gRPC, REST and administration,
// each on a listener of its own, and stops them in the reverse order.
//
// The two sides meet only at the log: package webhook appends to it, package rpc reads from it.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/admin"
	"github.com/linksgate/linksgate/server/audit"
	"github.com/linksgate/linksgate/server/cluster"
	"github.com/linksgate/linksgate/server/config"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/group"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/rest"
	"github.com/linksgate/linksgate/server/rpc"
	"github.com/linksgate/linksgate/server/store"
	"github.com/linksgate/linksgate/server/store/disk"
	"github.com/linksgate/linksgate/server/store/nats"
	"github.com/linksgate/linksgate/server/store/spool"
	"github.com/linksgate/linksgate/server/webhook"
)

const (
	headerTimeout  = 5 * time.Second
	answerTimeout  = 30 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10
)

// Env is what Run needs beside the configuration.
type Env struct {
	// Logger of the gateway. Required.
	Logger *slog.Logger
	// Version to report.
	Version string
	// Sockets that are listened on already, by the name of the address in [Listen] that each is used instead of: webhook, grpc, rest, admin.
	Sockets map[string]net.Listener
	// Source, if set, reads the configuration again, in the same way as the one that Run is given was read. A change of the
	// accounts, of the secrets that they name or of the trusted proxies is then put in force while the gateway runs. It is not
	// called by two goroutines at once.
	Source func() (config.Config, error)
	// Reload, if set, asks to call Source now and to take what it returns at once. It must not be closed.
	Reload <-chan struct{}
	// PollInterval is how often Source is called without being asked. A change is taken when it was found twice in a row.
	// Default 2s.
	PollInterval time.Duration
	// Ready, if set, is called once, when the log is open and all addresses accept connections.
	Ready func(Serving)
}

// Serving says what a gateway serves.
type Serving struct {
	// Addresses in use, with the ports that were chosen.
	Webhook, GRPC, REST, Admin net.Addr
	// WebhookScheme and RESTScheme are http or https.
	WebhookScheme, RESTScheme string
	// URLs to give to Linksfield, by account and then kind. Path tokens are not in them.
	URLs []URL
	// Log as it was opened.
	LogID      string
	Log        eventlog.Info
	Durability eventlog.Durability
	// LogPlace is its directory or NATS cluster.
	LogPlace string
	// Guarded says that not everybody may do everything; Callers is how many are known.
	Guarded bool
	Callers int
}

// URL is one URL to give to Linksfield.
type URL struct {
	Account, Kind, Text string
	// PathToken says that the account's path token for this kind must follow, after a slash.
	PathToken bool
}

// Run serves until ctx ends, then finishes what was accepted and returns nil. It returns an error if it could not start, or if
// the log was frozen by a write error: then the process should be started again.
func Run(ctx context.Context, cfg config.Config, env Env) (err error) {
	for name, address := range cfg.Listen.ByName() { // of sockets that were handed over, the configuration does not say where they are
		if socket := env.Sockets[name]; socket != nil {
			*address = socket.Addr().String()
		}
	}
	found, err := config.Examine(cfg)
	if err != nil {
		return err
	}
	cfg = found.Config
	listeners, err := bind(cfg.Listen, env.Sockets)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, listeners.close()) }()

	opened, err := awaitLog(ctx, found, env.Logger)
	if err != nil {
		return err
	}
	log, shared := opened.log, opened.shared
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := log.Err(); err != nil {
		env.Logger.Warn("notifications are answered with 503 until the log can be written", "error", err)
	}
	groups := group.New(log, env.Logger)
	var others *cluster.Cluster
	if shared != nil {
		if others, err = cluster.Open(ctx, cluster.Options{
			Engine: shared, Conn: shared.Conn(), Prefix: shared.Prefix(), Groups: owned{groups, log.Groups()}, Logger: env.Logger,
		}); err != nil {
			return err
		}
		defer others.Close()
	}
	defer groups.Close() // before what it had can be coordinated elsewhere

	if env.Ready != nil {
		what, err := serving(ctx, cfg, listeners, log)
		if err != nil {
			return err
		}
		env.Ready(what)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, err := newGateway(ctx, found, opened, groups, others, env)
	if err != nil {
		return err
	}
	return g.run(ctx, listeners)
}

// owned are the groups of this gateway, as [cluster.Groups].
type owned struct {
	groups *group.Groups
	stored *eventlog.Groups
}

func (o owned) Acquire(ctx context.Context, name string) error { return o.stored.Acquire(ctx, name) }

func (o owned) Lose(name string) {
	o.groups.Abandon(name)
	o.stored.Release(name)
}

// awaitLog opens the log. A cluster that is not there yet is waited for, until ctx ends: connections to the gateway wait meanwhile.
func awaitLog(ctx context.Context, found config.Checked, logger *slog.Logger) (opened, error) {
	const every, told = time.Second, time.Minute
	var last time.Time
	for {
		opened, err := openLog(ctx, found, logger)
		if err == nil || found.NATS == nil || !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, eventlog.ErrUnavailable) {
			return opened, err
		}
		if time.Since(last) >= told {
			last = time.Now()
			logger.Warn("waiting for the NATS cluster", "error", err)
		}
		select {
		case <-ctx.Done():
			return opened, err
		case <-time.After(every):
		}
	}
}

// opened is what is stored, once it is open. Closing the log closes all of it.
type opened struct {
	log    *eventlog.Log
	trail  *audit.Trail
	shared *nats.Engine // nil: no other gateway stores there
}

// openLog opens the log, and all else that is stored, on the engine that the configuration says.
func openLog(ctx context.Context, found config.Checked, logger *slog.Logger) (o opened, err error) {
	options := found.Log
	options.Logger = logger
	if found.NATS != nil {
		options.Engine, o.shared, err = openShared(ctx, found, logger)
	} else {
		found.Disk.Logger = logger
		options.Engine, err = disk.Open(ctx, *found.Disk)
	}
	if err != nil {
		return o, fmt.Errorf("open log: %w", err)
	}
	if o.log, err = eventlog.Open(ctx, options); err != nil {
		return o, err
	}
	if o.trail, err = audit.Open(ctx, options.Engine, logger); err != nil {
		return o, errors.Join(err, o.log.Close())
	}
	return o, nil
}

// openShared connects to the cluster, with a spool in front.
func openShared(ctx context.Context, found config.Checked, logger *slog.Logger) (store.Engine, *nats.Engine, error) {
	found.NATS.Logger, found.Spool.Logger = logger, logger
	inFront, err := spool.Open(ctx, found.Spool)
	if err != nil {
		return nil, nil, err
	}
	shared, err := nats.Open(ctx, *found.NATS)
	if err != nil {
		return nil, nil, errors.Join(err, inFront.Close())
	}
	return spool.Wrap(shared, inFront), shared, nil
}

// gateway is the servers over one log, and what goes on beside them.
type gateway struct {
	log          *eventlog.Log
	local        *grpc.ClientConn // for what other gateways pass on
	webhook      *httpServer
	rpc          *rpc.Server
	facade       *rest.Facade
	rest         *httpServer // of facade
	admin        *httpServer
	certificates *certificates
	reloader     *config.Reloader
	usage        *admin.Usage
	drainTimeout time.Duration
	logger       *slog.Logger
}

// operator is the caller in audit entries about what was done with files.
const operator = "operator"

func newGateway(ctx context.Context, started config.Checked, o opened, groups *group.Groups, others *cluster.Cluster, env Env) (*gateway, error) {
	cfg, log := started.Config, o.log
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	admin.RegisterLog(registry, log)
	admin.RegisterGroups(registry, groups)
	front := webhook.New(webhook.Options{
		Log: log, Quarantine: log.Quarantine(), QuarantineBytes: started.Log.QuarantineBytes, Settings: started.Settings, MaxBody: int64(cfg.Webhook.MaxBody),
		MaxRequests: cfg.Webhook.MaxRequests, Logger: env.Logger, Metrics: registry,
	})
	control := access.NewControl(ctx, started.Access, env.Logger, registry)
	shown := newCertificates(started.TLS, registry)
	reloader := config.NewReloader(config.ReloadOptions{
		Source: env.Source, Asked: env.Reload, Interval: env.PollInterval, Started: started, Apply: func(found config.Checked, changes []string) {
			front.Configure(found.Settings)
			control.Apply(found.Access)
			shown.apply(found.TLS)
			o.trail.Record(ctx, &linksgatev1.AuditEntry{
				Caller: operator, Action: "ConfigurationChanged", Outcome: "OK", Detail: strings.Join(changes, "; "), Count: int64(len(changes)),
			})
		},
		Logger: env.Logger, Metrics: registry,
	})
	usage := admin.NewUsage(log, front, env.Logger)
	quiet := slog.NewLogLogger(env.Logger.Handler(), slog.LevelDebug) // of net/http: what senders do wrong
	services := rpc.New(rpc.Options{
		Log: log, Reverify: front.Reverify, HasAccount: front.HasAccount, Groups: groups, Cluster: others, MaxStreams: cfg.GRPC.MaxStreams, SendTimeout: time.Duration(cfg.GRPC.SendTimeout),
		MaxStreamAge: time.Duration(cfg.GRPC.MaxStreamAge), TLS: shown.of("grpc"), Access: control, Audit: o.trail, Version: env.Version,
		Logger: env.Logger, Metrics: registry,
	})
	facade, err := rest.New(services, cfg.REST.AllowedHosts, time.Duration(cfg.GRPC.SendTimeout))
	if err != nil {
		return nil, err
	}
	local, err := services.Connect()
	if err == nil && others != nil {
		err = others.Serve(local)
	}
	if err != nil {
		return nil, err
	}
	return &gateway{
		log: log, local: local,
		webhook: newHTTPServer(&http.Server{
			Handler:           front,
			TLSConfig:         shown.of("webhook"),
			ReadHeaderTimeout: min(headerTimeout, time.Duration(cfg.Webhook.ReadTimeout)),
			ReadTimeout:       time.Duration(cfg.Webhook.ReadTimeout),
			WriteTimeout:      time.Duration(cfg.Webhook.ReadTimeout) + answerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          quiet,
		}),
		rpc:    services,
		facade: facade,
		rest: newHTTPServer(&http.Server{
			Handler:           rest.CountRequests(registry, facade),
			TLSConfig:         shown.of("rest"),
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       rest.ReadTime,
			WriteTimeout:      rest.AnswerTime,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    rest.MaxHeader,
			HTTP2:             &http.HTTP2Config{SendPingTimeout: rest.Ping, PingTimeout: rest.Ping},
			ErrorLog:          quiet,
		}),
		admin: newHTTPServer(&http.Server{
			Handler:      rest.NewHosts(cfg.REST.AllowedHosts, false).Guard(admin.New(log, registry, reloader, usage, control)),
			TLSConfig:    shown.of("admin"),
			ReadTimeout:  headerTimeout,
			WriteTimeout: answerTimeout,
			ErrorLog:     quiet,
		}),
		certificates: shown,
		reloader:     reloader,
		usage:        usage,
		drainTimeout: time.Duration(cfg.DrainTimeout),
		logger:       env.Logger,
	}, nil
}

// run serves until ctx ends or something fails, then stops: first the intake, so that nothing is accepted that could not be
// finished, then the streams, then administration, which tells about it until the end. The caller closes the log.
func (g *gateway) run(ctx context.Context, on listeners) error {
	serving, servingCtx := errgroup.WithContext(ctx)
	serving.Go(func() error { return g.webhook.serve(bound(on.webhook, shares.webhook, g.webhook.makeRoom)) })
	serving.Go(func() error { return g.rpc.Serve(bound(on.grpc, shares.grpc, nil)) })
	serving.Go(func() error { return g.rest.serve(bound(on.rest, shares.rest, g.rest.makeRoom)) })
	serving.Go(func() error { return g.admin.serve(bound(on.admin, shares.admin, g.admin.makeRoom)) })
	serving.Go(func() error { g.reloader.Run(servingCtx); return nil })
	serving.Go(func() error { g.usage.Learn(servingCtx); return nil })
	serving.Go(func() error { g.certificates.watch(servingCtx, g.logger); return nil })
	serving.Go(func() error {
		select {
		case <-servingCtx.Done():
			return nil
		case <-g.log.Frozen():
			return fmt.Errorf("start the gateway again when the cause is gone: %w", g.log.Err())
		}
	})
	<-servingCtx.Done()
	g.stop()
	return serving.Wait()
}

// stop stops the servers in the time that draining may take, counted from now.
func (g *gateway) stop() {
	g.logger.Info("draining", "timeout", g.drainTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), g.drainTimeout)
	defer cancel()
	// Streams may end while the last requests are finished: their tokens lead to what those append.
	var stopping errgroup.Group
	stopping.Go(func() error { return g.webhook.stop(ctx) })
	stopping.Go(func() error { g.rpc.Shutdown(ctx); return nil })
	stopping.Go(func() error { return g.rest.stop(ctx) }) // its streams end with those of gRPC
	if err := stopping.Wait(); err != nil {
		g.logger.Warn("requests were cut off", "error", err)
	}
	_, _ = g.local.Close(), g.facade.Close()
	_ = g.admin.stop(ctx)
}

// listeners are bound before anything else is started, so that a port in use is found first.
type listeners struct{ webhook, grpc, rest, admin net.Listener }

func bind(l config.Listen, handed map[string]net.Listener) (listeners, error) {
	var on listeners
	for _, one := range []struct {
		name, address string
		listener      *net.Listener
	}{{"webhook", l.Webhook, &on.webhook}, {"grpc", l.GRPC, &on.grpc}, {"rest", l.REST, &on.rest}, {"admin", l.Admin, &on.admin}} {
		var err error
		if *one.listener = handed[one.name]; *one.listener != nil {
			continue
		}
		if *one.listener, err = net.Listen("tcp", one.address); err != nil {
			return on, errors.Join(fmt.Errorf("listen.%s: %w", one.name, err), on.close())
		}
	}
	return on, nil
}

// close closes what is open, also what a server has closed already.
func (on listeners) close() error {
	var failed []error
	for _, listener := range []net.Listener{on.webhook, on.grpc, on.rest, on.admin} {
		if listener == nil {
			continue
		}
		if err := listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// serving describes what is about to be served.
func serving(ctx context.Context, c config.Config, on listeners, log *eventlog.Log) (Serving, error) {
	info, err := log.Info(ctx)
	if err != nil {
		return Serving{}, err
	}
	s := Serving{
		Webhook: on.webhook.Addr(), GRPC: on.grpc.Addr(), REST: on.rest.Addr(), Admin: on.admin.Addr(),
		WebhookScheme: c.Webhook.TLS.Scheme(), RESTScheme: c.REST.TLS.Scheme(),
		Guarded: c.Access != nil,
		LogID:   log.ID(), Log: info, Durability: log.Durability(), LogPlace: c.Log.Dir,
	}
	if c.Access != nil {
		s.Callers = len(c.Access.Callers)
	}
	if c.Log.NATS != nil {
		s.LogPlace = "NATS"
	}
	base := strings.TrimSuffix(c.Webhook.PublicURL, "/")
	if base == "" {
		base = s.WebhookScheme + "://" + on.webhook.Addr().String()
	}
	for _, account := range slices.Sorted(maps.Keys(c.Accounts)) {
		for _, kind := range payload.KindNames(payload.Kinds()) {
			s.URLs = append(s.URLs, URL{
				Account: account, Kind: kind, Text: base + webhook.PathPrefix + account + "/" + kind,
				PathToken: c.Accounts[account].Kinds[kind].PathToken != nil,
			})
		}
	}
	return s, nil
}
