// Package rpc serves the log over gRPC.
//
// Reading is pull-driven: a subscription iterates over the log and sends each step, so a client that reads slowly slows only
// its own iteration, through HTTP/2 flow control. What the log hands out is already marshalled; frames with notifications are
// put together from those bytes, so one notification is encoded once however many clients it is sent to.
//
// Errors of the log become gRPC codes in one place, [toStatus]. Every error that leaves here has an ErrorInfo with the domain
// `linksgate` and a stable reason.
package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/audit"
	"github.com/linksgate/linksgate/server/cluster"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/group"
)

// Options configure a Server. All fields but Log have defaults.
type Options struct {
	// Log is what is served. Required.
	Log *eventlog.Log
	// Reverify, if set, makes the log's quarantine available.
	Reverify Reverify
	// Groups, if set, is made available.
	Groups *group.Groups
	// HasAccount, if set, reports whether an account is configured now.
	HasAccount func(name string) bool
	// Cluster, if set, says at which gateway a group is coordinated.
	Cluster *cluster.Cluster
	// MaxStreams is how many subscriptions may be open at once; default 10,000.
	MaxStreams int
	// SendTimeout is how long a client may not read before its stream is ended with ABORTED; default 30 s.
	SendTimeout time.Duration
	// MaxStreamAge ends subscriptions after this time with OK, for load balancing. Default: never.
	MaxStreamAge time.Duration
	// Access says who may call what. Default: everybody may do everything.
	Access *access.Control
	// Audit, if set, gets what callers change.
	Audit *audit.Trail
	// TLS, if set, is required of all clients but those of this process.
	TLS *tls.Config
	// Version of the gateway, for GetLogInfo.
	Version string
	// Logger for what clients are not told. Default: none.
	Logger *slog.Logger
	// Metrics, if set, is where the server's metrics are registered.
	Metrics prometheus.Registerer
}

// Defaults of [Options].
const (
	DefaultMaxStreams  = 10_000
	DefaultSendTimeout = 30 * time.Second
)

const (
	serverPing    = 30 * time.Second          // how often a silent connection is probed
	minClientPing = 10 * time.Second          // clients may probe this often
	callTimeout   = maxPageTime + time.Second // how long a shutdown waits for calls that are not subscriptions
	beginTimeout  = 5 * time.Second           // for a connection to begin, for which a shutdown waits
	healthPeriod  = 500 * time.Millisecond    // how often health looks at the log
)

// Server is a gRPC server over one log.
type Server struct {
	linksgatev1.UnimplementedNotificationServiceServer

	log          *eventlog.Log
	groups       *group.Groups    // nil if not served
	cluster      *cluster.Cluster // nil: all groups are coordinated here
	access       *access.Control
	audit        *audit.Trail // nil: nothing is recorded
	hasAccount   func(string) bool
	maxStreams   int
	sendTimeout  time.Duration
	maxStreamAge time.Duration
	version      string
	logger       *slog.Logger
	metrics      *metrics

	grpc     *grpc.Server
	local    *bufconn.Listener // of connections within this process
	health   *health.Server
	draining context.Context // ends when Shutdown begins
	drain    context.CancelCauseFunc
	senders  sync.WaitGroup // the goroutines of open subscriptions

	mu            sync.Mutex
	streams       int                        // mu; open streams
	subscriptions map[*subscription]struct{} // mu; those that are open
}

// New returns a Server that is not serving yet.
func New(options Options) *Server {
	if options.MaxStreams == 0 {
		options.MaxStreams = DefaultMaxStreams
	}
	if options.SendTimeout == 0 {
		options.SendTimeout = DefaultSendTimeout
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Access == nil {
		options.Access = access.NewControl(context.Background(), access.Policy{Open: true}, options.Logger, nil)
	}
	s := &Server{
		log:          options.Log,
		groups:       options.Groups,
		cluster:      options.Cluster,
		access:       options.Access,
		audit:        options.Audit,
		hasAccount:   options.HasAccount,
		maxStreams:   options.MaxStreams,
		sendTimeout:  options.SendTimeout,
		maxStreamAge: options.MaxStreamAge,
		version:      options.Version,
		logger:       options.Logger,
		metrics:      newMetrics(options.Metrics),
		local:        bufconn.Listen(localBuffer),
		health:       health.NewServer(),

		subscriptions: make(map[*subscription]struct{}),
	}
	s.draining, s.drain = context.WithCancelCause(context.Background())
	serverOptions := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.ConnectionTimeout(beginTimeout),
		grpc.ChainUnaryInterceptor(s.unaryErrors, s.authorizeUnary, s.routeUnary),
		grpc.ChainStreamInterceptor(s.streamErrors, s.authorizeStream, s.routeStream),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverPing, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minClientPing, PermitWithoutStream: true}),
	}
	if options.TLS != nil {
		serverOptions = append(serverOptions, grpc.Creds(publicCredentials{credentials.NewTLS(options.TLS), s.local.Addr()}))
	}
	s.grpc = grpc.NewServer(serverOptions...)
	linksgatev1.RegisterNotificationServiceServer(s.grpc, s)
	if options.Reverify != nil {
		linksgatev1.RegisterQuarantineServiceServer(s.grpc, &quarantineServer{
			quarantine: s.log.Quarantine(), log: s.log, reverify: options.Reverify,
		})
		linksgatev1.RegisterErasureServiceServer(s.grpc, &erasureServer{server: s, log: s.log})
	}
	if options.Groups != nil {
		linksgatev1.RegisterWorkerServiceServer(s.grpc, &workerServer{server: s, groups: options.Groups})
		linksgatev1.RegisterGroupServiceServer(s.grpc, &groupServer{server: s, groups: options.Groups, parked: s.log.Groups()})
	}
	if options.Audit != nil {
		linksgatev1.RegisterAuditServiceServer(s.grpc, &auditServer{trail: options.Audit})
	}
	healthv1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.reportHealth()
	return s
}

// Serve answers on a listener, and within this process, until Shutdown, and then returns nil.
func (s *Server) Serve(listener net.Listener) error {
	ctx, cancel := context.WithCancel(s.draining)
	var watching sync.WaitGroup
	watching.Go(func() { s.watchHealth(ctx) })
	watching.Go(func() { _ = s.grpc.Serve(s.local) }) // fails only when it is closed
	defer watching.Wait()
	defer func() { _ = s.local.Close() }()
	defer cancel()
	if err := s.grpc.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Shutdown ends all subscriptions with Closing and UNAVAILABLE, waits until ctx ends for them and for the calls under way,
// then cuts off what is left. It returns when no call is left.
func (s *Server) Shutdown(ctx context.Context) {
	s.health.Shutdown()
	s.drain(errDraining)
	if s.groups != nil {
		s.groups.Drain()
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.grpc.GracefulStop()
	}()
	subscribed := make(chan struct{})
	go func() {
		defer close(subscribed)
		s.senders.Wait()
	}()
	select {
	case <-subscribed:
	case <-ctx.Done():
	}
	// Health watches and reflection are streams that nobody ends. Other calls are short.
	calls := time.NewTimer(callTimeout)
	defer calls.Stop()
	select {
	case <-finished:
	case <-ctx.Done():
	case <-calls.C:
	}
	s.grpc.Stop()
	<-finished
	<-subscribed
}

// watchHealth keeps the health service true until ctx ends.
func (s *Server) watchHealth(ctx context.Context) {
	ticker := time.NewTicker(healthPeriod)
	defer ticker.Stop()
	for {
		s.reportHealth()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.log.Frozen():
			s.reportHealth()
			return
		}
	}
}

// reportHealth says whether the log can be written. A gateway that cannot write still serves what it has, but what
// depends on it should know.
func (s *Server) reportHealth() {
	state := healthv1.HealthCheckResponse_SERVING
	if s.log.Err() != nil {
		state = healthv1.HealthCheckResponse_NOT_SERVING
	}
	s.health.SetServingStatus("", state)
	s.health.SetServingStatus(linksgatev1.NotificationService_ServiceDesc.ServiceName, state)
}

// admit counts a stream in, here and for its caller. The returned function counts it out.
func (s *Server) admit(ctx context.Context) (func(), error) {
	caller := sessionOf(ctx).caller
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Err() != nil {
		return nil, errDraining
	}
	if s.streams >= s.maxStreams {
		return nil, errTooManyStreams
	}
	release, err := caller.Stream()
	if err != nil {
		s.access.Refused(caller.Name, err)
		return nil, err
	}
	s.streams++
	s.metrics.streams.Set(float64(s.streams))
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		release()
		s.streams--
		s.metrics.streams.Set(float64(s.streams))
	}, nil
}

// metrics count what is served.
type metrics struct {
	streams prometheus.Gauge
	sent    prometheus.Counter
	ended   *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "linksgate_rpc_subscriptions", Help: "Open subscriptions."}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "linksgate_rpc_notifications_sent_total", Help: "Notifications sent to subscriptions."}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "linksgate_rpc_calls_total", Help: "Calls that ended, by method and gRPC code."}, []string{"method", "code"}),
	}
	if registry != nil {
		registry.MustRegister(m.streams, m.sent, m.ended)
	}
	return m
}
