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
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/group"
	"github.com/linksgate/linksgate/server/rpc"
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
	Source func() (Config, error)
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
}

// URL is one URL to give to Linksfield.
type URL struct {
	Account, Kind, Text string
	// PathToken says that the account's path token for this kind must follow, after a slash.
	PathToken bool
}

// Run serves until ctx ends, then finishes what was accepted and returns nil. It returns an error if it could not start, or if
// the log was frozen by a write error: then the process should be started again.
func Run(ctx context.Context, config Config, env Env) (err error) {
	found := examine(config)
	if found.err != nil {
		return found.err
	}
	config = found.config
	listeners, err := config.Listen.open(env.Sockets)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, listeners.close()) }()

	found.parts.log.Logger = env.Logger
	log, err := eventlog.Open(ctx, found.parts.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := log.Err(); err != nil {
		env.Logger.Warn("notifications are answered with 503 until the log can be written", "error", err)
	}
	groups, err := group.New(log, env.Logger)
	if err != nil {
		return err
	}
	defer groups.Close()

	if env.Ready != nil {
		serving, err := config.serving(ctx, listeners, log)
		if err != nil {
			return err
		}
		env.Ready(serving)
	}
	g, err := newGateway(found, log, groups, env)
	if err != nil {
		return err
	}
	return g.run(ctx, listeners)
}

// gateway is the servers over one log, and what goes on beside them.
type gateway struct {
	log          *eventlog.Log
	webhook      *httpServer
	rpc          *rpc.Server
	facade       *rest
	rest         *httpServer // of facade
	admin        *httpServer
	reloader     *reloader
	usage        *usage
	drainTimeout time.Duration
	logger       *slog.Logger
}

func newGateway(started candidate, log *eventlog.Log, groups *group.Groups, env Env) (*gateway, error) {
	config, parts := started.config, started.parts
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerLogMetrics(registry, log)
	registerGroupMetrics(registry, groups)
	front := webhook.New(webhook.Options{
		Log: log, Quarantine: log.Quarantine(), Settings: parts.settings(), MaxBody: int64(config.Webhook.MaxBody),
		MaxRequests: config.Webhook.MaxRequests, Logger: env.Logger, Metrics: registry,
	})
	reloader, usage := newReloader(started, front, env, registry), newUsage(log, front, env.Logger)
	quiet := slog.NewLogLogger(env.Logger.Handler(), slog.LevelDebug) // of net/http: what senders do wrong
	services := rpc.New(rpc.Options{
		Log: log, Reverify: front.Reverify, Groups: groups, MaxStreams: config.GRPC.MaxStreams, SendTimeout: time.Duration(config.GRPC.SendTimeout),
		MaxStreamAge: time.Duration(config.GRPC.MaxStreamAge), TLS: parts.grpcTLS, Version: env.Version,
		Logger: env.Logger, Metrics: registry,
	})
	facade, err := newREST(services, config.REST.AllowedHosts, time.Duration(config.GRPC.SendTimeout))
	if err != nil {
		return nil, err
	}
	return &gateway{
		log: log,
		webhook: newHTTPServer(&http.Server{
			Handler:           front,
			TLSConfig:         parts.webhookTLS,
			ReadHeaderTimeout: min(headerTimeout, time.Duration(config.Webhook.ReadTimeout)),
			ReadTimeout:       time.Duration(config.Webhook.ReadTimeout),
			WriteTimeout:      time.Duration(config.Webhook.ReadTimeout) + answerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          quiet,
		}),
		rpc:    services,
		facade: facade,
		rest: newHTTPServer(&http.Server{
			Handler:           countRequests(registry, facade),
			TLSConfig:         parts.restTLS,
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       restReadTime,
			WriteTimeout:      restAnswerTime,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxRESTHeader,
			HTTP2:             &http.HTTP2Config{SendPingTimeout: restPing, PingTimeout: restPing},
			ErrorLog:          quiet,
		}),
		admin: newHTTPServer(&http.Server{
			Handler:      newHosts(config.REST.AllowedHosts, false).guard(newAdmin(log, registry, reloader, usage)),
			ReadTimeout:  headerTimeout,
			WriteTimeout: answerTimeout,
			ErrorLog:     quiet,
		}),
		reloader:     reloader,
		usage:        usage,
		drainTimeout: time.Duration(config.DrainTimeout),
		logger:       env.Logger,
	}, nil
}

// run serves until ctx ends or something fails, then stops: first the intake, so that nothing is accepted that could not be
// finished, then the streams, then administration, which tells about it until the end. The caller closes the log.
func (g *gateway) run(ctx context.Context, on listeners) error {
	serving, servingCtx := errgroup.WithContext(ctx)
	serving.Go(func() error { return g.webhook.serve(on.webhook) })
	serving.Go(func() error { return g.rpc.Serve(on.grpc) })
	serving.Go(func() error { return g.rest.serve(on.rest) })
	serving.Go(func() error { return g.admin.serve(on.admin) })
	serving.Go(func() error { g.reloader.run(servingCtx); return nil })
	serving.Go(func() error { g.usage.learn(servingCtx); return nil })
	serving.Go(func() error {
		select {
		case <-servingCtx.Done():
			return nil
		case <-g.log.Frozen():
			return fmt.Errorf("start the gateway again when the cause is mended: %w", g.log.Err())
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
	_ = g.facade.close()
	_ = g.admin.stop(ctx)
}

// listeners are bound before anything else is started, so that a port in use is found first.
type listeners struct{ webhook, grpc, rest, admin net.Listener }

func (l Listen) open(handed map[string]net.Listener) (listeners, error) {
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
func (c Config) serving(ctx context.Context, on listeners, log *eventlog.Log) (Serving, error) {
	info, err := log.Info(ctx)
	if err != nil {
		return Serving{}, err
	}
	s := Serving{
		Webhook: on.webhook.Addr(), GRPC: on.grpc.Addr(), REST: on.rest.Addr(), Admin: on.admin.Addr(),
		WebhookScheme: c.Webhook.TLS.scheme(), RESTScheme: c.REST.TLS.scheme(),
		LogID: log.ID(), Log: info, Durability: log.Durability(), LogPlace: c.Log.Dir,
	}
	if c.Log.NATSURL != "" {
		s.LogPlace = "NATS"
	}
	base := strings.TrimSuffix(c.Webhook.PublicURL, "/")
	if base == "" {
		base = s.WebhookScheme + "://" + on.webhook.Addr().String()
	}
	for _, account := range sortedKeys(c.Accounts) {
		for _, kind := range kindNames() {
			s.URLs = append(s.URLs, URL{
				Account: account, Kind: kind, Text: base + webhook.PathPrefix + account + "/" + kind,
				PathToken: c.Accounts[account].Kinds[kind].PathToken != nil,
			})
		}
	}
	return s, nil
}
