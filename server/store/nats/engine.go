// Package nats keeps logs and tables in a NATS cluster with JetStream, where several gateways share them.
//
// # What is stored
//
// A log is a stream, one message for each entry; the stream's sequence is the entry's. A table is a stream that keeps the last
// message of each subject, one subject for each key; a revision is a sequence, and a deletion is a message without a value that
// goes after a while.
//
//	<prefix>_LOG_<NAME>    <prefix>.log.<name>.<lane>
//	<prefix>_TABLE_<NAME>  <prefix>.table.<name>.<key>
//
// # Exactly once
//
// An acknowledgement that does not come leaves open whether the message was stored. So a gateway appends over lanes: subjects of
// its own, on each of which one message at a time is under way, and which is published only on condition that the last message of
// the lane is the one that was acknowledged before. However often it is sent, and however late an old copy arrives from a server
// that was frozen, it is stored once; and the last message of the lane tells whether it was. A [Ticket] is what must be remembered
// to go on with that, after a restart too. Several lanes keep several entries under way, so that distance costs no throughput.
//
// # Waiting
//
// An election, a server that is restarted or frozen, a connection that is lost: all that is waited for, and tried again until the
// caller's context ends. What a NATS cluster refuses for good, it refuses at once.
package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/linksgate/linksgate/server/store"
)

// Options say which cluster, and how to reach it.
type Options struct {
	// URL of the servers, such as nats://n1:4222,nats://n2:4222. Required.
	URL string
	// CredentialsFile and NKeyFile identify the gateway; TokenFile and PasswordFile (with User) do too. At most one of the four.
	CredentialsFile, NKeyFile, TokenFile, User, PasswordFile string
	// CAFile is trusted instead of the system's authorities. CertFile and KeyFile are a client certificate.
	CAFile, CertFile, KeyFile string
	// Prefix of all subjects, and in capitals of all streams: letters, digits and hyphens. Default linksgate.
	Prefix string
	// Domain is the JetStream domain. Default: none.
	Domain string
	// PlacementTags are those that servers must have to store anything. Default: none.
	PlacementTags []string
	// Replicas of everything, 1 to 5. Default 3.
	Replicas int
	// ConnectTimeout is how long Open waits for the cluster. Default 10s.
	ConnectTimeout time.Duration
	// Logger for what becomes of the connection. Required.
	Logger *slog.Logger
}

const (
	pingInterval = time.Second // a server that does not answer is left after maxPings
	maxPings     = 3
	// tryTimeout is how long a server has to answer a request before it is asked again.
	tryTimeout = time.Second
	// patience is how long something is tried when the caller's context has no end.
	patience = 10 * time.Second
	// overhead is what a message has beside its data at most.
	overhead = 1 << 10
	// minPayload is the least that servers must take in one message: the largest entry that the gateway writes.
	minPayload = 1_025_000
)

// Engine is a connection to a cluster. It implements [store.Engine].
type Engine struct {
	options Options
	conn    *nats.Conn
	js      jetstream.JetStream

	refused atomic.Pointer[error] // what the connection may not do, since the cluster was last away
	failing atomic.Pointer[error] // why nothing is confirmed; nil: it is

	closing   chan struct{}
	closeOnce sync.Once
	running   sync.WaitGroup
	mu        sync.Mutex
	opened    []interface{ stop() } // mu
}

var _ store.Engine = (*Engine)(nil)

// Open connects to the cluster. It fails when the cluster cannot be reached within ConnectTimeout, or refuses the gateway.
func Open(ctx context.Context, options Options) (*Engine, error) {
	if options.Prefix == "" {
		options.Prefix = "linksgate"
	}
	if options.Replicas == 0 {
		options.Replicas = 3
	}
	if options.ConnectTimeout == 0 {
		options.ConnectTimeout = patience
	}
	e := &Engine{options: options, closing: make(chan struct{})}
	settings, err := e.settings()
	if err != nil {
		return nil, err
	}
	if e.conn, err = connect(ctx, options, settings); err != nil {
		return nil, err
	}
	if e.conn.MaxPayload() < minPayload {
		e.conn.Close()
		return nil, fmt.Errorf("connect to NATS: its servers take messages of %d bytes at most, and a notification may have more: "+
			"set max_payload to 2MB in their configuration", e.conn.MaxPayload())
	}
	if options.Domain != "" {
		e.js, err = jetstream.NewWithDomain(e.conn, options.Domain, jetstream.WithDefaultTimeout(tryTimeout))
	} else {
		e.js, err = jetstream.New(e.conn, jetstream.WithDefaultTimeout(tryTimeout))
	}
	if err != nil {
		e.conn.Close()
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	options.Logger.Info("NATS connected", "server", e.conn.ConnectedUrlRedacted(), "cluster", e.conn.ConnectedClusterName())
	e.running.Go(e.probe)
	return e, nil
}

// settings returns the connection's settings.
func (e *Engine) settings() ([]nats.Option, error) {
	o := e.options
	settings := []nats.Option{
		nats.Name("linksgate"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(200 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.ReconnectBufSize(-1), // a publish while disconnected fails at once: nothing may seem stored that is not
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(maxPings),
		nats.Timeout(2 * time.Second), nats.FlusherTimeout(2 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if !e.isClosing() {
				o.Logger.Warn("NATS disconnected", "error", err)
			}
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			o.Logger.Info("NATS reconnected", "server", conn.ConnectedUrlRedacted())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				e.refused.Store(&err)
			}
			o.Logger.Warn("NATS refused something", "error", err)
		}),
	}
	if o.CredentialsFile != "" {
		settings = append(settings, nats.UserCredentials(o.CredentialsFile))
	}
	if o.NKeyFile != "" {
		option, err := nats.NkeyOptionFromSeed(o.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the nkey: %w", err)
		}
		settings = append(settings, option)
	}
	if o.TokenFile != "" {
		settings = append(settings, nats.TokenHandler(func() string { return secretOf(o.TokenFile, o.Logger) }))
	}
	if o.PasswordFile != "" {
		settings = append(settings, nats.UserInfoHandler(func() (string, string) { return o.User, secretOf(o.PasswordFile, o.Logger) }))
	}
	if o.CAFile != "" {
		settings = append(settings, nats.RootCAs(o.CAFile))
	}
	if o.CertFile != "" {
		settings = append(settings, nats.ClientCert(o.CertFile, o.KeyFile))
	}
	return settings, nil
}

// secretOf reads a secret at the moment that it is needed, so that it can change while the gateway runs.
func secretOf(path string, logger *slog.Logger) string {
	data, err := os.ReadFile(path)
	if err != nil {
		logger.Error("NATS secret unreadable", "error", err)
	}
	return strings.TrimRight(string(data), "\r\n")
}

// connect tries until ConnectTimeout has passed. What a server refuses for good ends it at once.
func connect(ctx context.Context, options Options, settings []nats.Option) (*nats.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, options.ConnectTimeout)
	defer cancel()
	for {
		conn, err := nats.Connect(options.URL, settings...)
		var badURL *url.Error
		switch {
		case err == nil:
			return conn, nil
		case errors.As(err, &badURL): // it quotes the URL, which may hold a password
			return nil, errors.New("connect to NATS: not a URL such as nats://host:4222")
		case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired):
			return nil, fmt.Errorf("connect to NATS: %w: check log.nats credentials", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: connect to NATS: %w", store.ErrUnavailable, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (e *Engine) isClosing() bool {
	select {
	case <-e.closing:
		return true
	default:
		return false
	}
}

// Writable implements [store.Engine]. It knows within three seconds, also while nothing is written.
func (e *Engine) Writable() error {
	if e.isClosing() {
		return store.ErrClosed
	}
	if failing := e.failing.Load(); failing != nil {
		return *failing
	}
	return nil
}

// probe finds out whether the cluster answers, as long as the engine is open.
func (e *Engine) probe() {
	const interval = time.Second
	for {
		select {
		case <-e.closing:
			return
		case <-time.After(interval):
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*interval)
		_, err := e.js.AccountInfo(ctx)
		if err == nil {
			err = e.checkLeaders(ctx)
		}
		cancel()
		switch {
		case e.isClosing():
			return
		case err != nil && e.failing.Load() == nil:
			err = e.explain(err)
			e.failing.Store(&err)
			e.options.Logger.Warn("NATS cluster away", "error", err)
		case err == nil && e.failing.Load() != nil:
			e.failing.Store(nil)
			e.refused.Store(nil)
			e.options.Logger.Info("NATS cluster back", "server", e.conn.ConnectedUrlRedacted())
		}
	}
}

// checkLeaders asks each stream that is open; only its leader answers.
func (e *Engine) checkLeaders(ctx context.Context) error {
	e.mu.Lock()
	opened := e.opened
	e.mu.Unlock()
	for _, one := range opened {
		if l, ok := one.(*Log); ok {
			if _, err := l.stream.Info(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// explain says what a failure means in words that an operator knows.
func (e *Engine) explain(err error) error {
	reason := ""
	switch {
	case e.refused.Load() != nil:
		reason = (*e.refused.Load()).Error()
	case !e.conn.IsConnected():
		reason = "no server of the NATS cluster can be reached"
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		reason = "the NATS cluster has no leader for the stream"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		reason = "the NATS cluster does not answer: it may have lost its quorum"
	default:
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %s (%w)", store.ErrUnavailable, reason, err)
}

// try calls ask again and again, while what it meets may pass, until ctx ends.
func (e *Engine) try(ctx context.Context, ask func(ctx context.Context) error) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	var last error
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 300*time.Millisecond) {
		if e.isClosing() {
			return store.ErrClosed
		}
		one, cancel := context.WithTimeout(ctx, tryTimeout)
		err := ask(one)
		cancel()
		if err == nil || !passes(err) {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
			}
			return e.explain(last)
		case <-e.closing:
			return store.ErrClosed
		case <-time.After(pause):
		}
	}
}

// passes reports whether asking again may help.
func passes(err error) bool {
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api):
		// With 503: no leader, a server that is starting or short of something for a moment. Peers may have yet to join.
		return api.ErrorCode == codeNoPeers || api.Code == 503 && api.ErrorCode != codeInsufficient && api.ErrorCode != codeStorage && api.ErrorCode != jetstream.JSErrCodeJetStreamNotEnabled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, nats.ErrTimeout),
		errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse),
		errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrStaleConnection), errors.Is(err, nats.ErrNoServers), errors.Is(err, jetstream.ErrNoHeartbeat),
		errors.Is(err, jetstream.ErrConsumerDeleted), errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrConsumerLeadershipChanged):
		return true
	}
	return false
}

// Error codes of JetStream that the client library does not name.
const (
	codeInsufficient jetstream.ErrorCode = 10023
	codeStorage      jetstream.ErrorCode = 10047
	codeNoPeers      jetstream.ErrorCode = 10005
)

// meaning gives an error the meaning that it has in package store.
func meaning(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil, errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		return err
	case errors.Is(err, nats.ErrConnectionClosed):
		return store.ErrClosed
	case errors.As(err, &api) && (api.ErrorCode == codeInsufficient || api.ErrorCode == codeStorage):
		return fmt.Errorf("%w: the NATS servers have no room: %w", store.ErrNoSpace, err)
	case errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamNotFound:
		return fmt.Errorf("%w: the stream was deleted: %w", store.ErrUnavailable, err)
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", store.ErrTooLarge, err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// MaxEntry implements [store.Engine].
func (e *Engine) MaxEntry() int { return min(store.MaxEntry, int(e.conn.MaxPayload())-overhead) }

// Durability implements [store.Engine].
func (e *Engine) Durability() string {
	return fmt.Sprintf("acknowledged by a quorum of %d replicas in the NATS cluster", e.options.Replicas)
}

// Shared implements [store.Engine].
func (e *Engine) Shared() bool { return true }

// Failed implements [store.Engine]: nothing that happens to a cluster is final here.
func (e *Engine) Failed() <-chan struct{} { return nil }

// Err implements [store.Engine].
func (e *Engine) Err() error { return nil }

// Conn is the connection, for what gateways tell each other.
func (e *Engine) Conn() *nats.Conn { return e.conn }

// Prefix is that of all subjects.
func (e *Engine) Prefix() string { return e.options.Prefix }

// Close implements [store.Engine].
func (e *Engine) Close() error {
	e.closeOnce.Do(func() {
		close(e.closing)
		e.mu.Lock()
		opened := e.opened
		e.mu.Unlock()
		for _, one := range opened {
			one.stop()
		}
		e.running.Wait()
		e.conn.Close()
	})
	return nil
}

func (e *Engine) add(one interface{ stop() }) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.opened = append(e.opened, one)
}

// openStream opens a stream, or creates it. The settings of one that exists stay, but for those that only say how it is worked with.
func (e *Engine) openStream(ctx context.Context, want jetstream.StreamConfig) (stream jetstream.Stream, err error) {
	want.Storage, want.Retention, want.Discard = jetstream.FileStorage, jetstream.LimitsPolicy, jetstream.DiscardOld
	want.Replicas = e.options.Replicas
	if len(e.options.PlacementTags) > 0 {
		want.Placement = &jetstream.Placement{Tags: e.options.PlacementTags}
	}
	err = e.try(ctx, func(ctx context.Context) (err error) {
		stream, err = e.js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			stream, err = e.js.CreateStream(ctx, want)
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another gateway was faster
				stream, err = e.js.Stream(ctx, want.Name)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", want.Name, meaning(err))
	}
	// One gateway's file does not change what all share.
	if have := stream.CachedInfo().Config; have.MaxAge != want.MaxAge || have.MaxBytes != want.MaxBytes || have.Replicas != want.Replicas {
		e.options.Logger.Warn("stream has other settings than this configuration, which has no effect on it", "stream", want.Name,
			"max_age", have.MaxAge, "max_bytes", have.MaxBytes, "replicas", have.Replicas,
			"configured_max_age", want.MaxAge, "configured_max_bytes", want.MaxBytes, "configured_replicas", want.Replicas)
	}
	return stream, nil
}

// follow delivers the messages of a stream after a sequence, in order, until the engine is closed; an interruption is waited for.
func (e *Engine) follow(ctx context.Context, stream jetstream.Stream, after func() uint64, headersOnly bool, deliver func(jetstream.Msg, *jetstream.MsgMetadata)) {
	for ctx.Err() == nil {
		err := e.followOnce(ctx, stream, after(), headersOnly, deliver)
		if ctx.Err() == nil {
			e.options.Logger.Debug("following a stream was interrupted", "stream", stream.CachedInfo().Config.Name, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
}

func (e *Engine) followOnce(ctx context.Context, stream jetstream.Stream, after uint64, headersOnly bool, deliver func(jetstream.Msg, *jetstream.MsgMetadata)) error {
	creating, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	consumer, err := stream.OrderedConsumer(creating, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1, HeadersOnly: headersOnly, MaxResetAttempts: 1,
		InactiveThreshold: 30 * time.Second,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(512), jetstream.PullExpiry(4*time.Second), jetstream.PullHeartbeat(time.Second))
	if err != nil {
		return err
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	for {
		message, err := messages.Next()
		if err != nil {
			return err
		}
		meta, err := message.Metadata()
		if err != nil {
			return err
		}
		deliver(message, meta)
	}
}
