package linksgate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Version of this client.
const Version = "0.1.0"

const (
	maxMessage = 64 << 20 // bytes; 512 of the largest notifications fit
	pingEvery  = 30 * time.Second
	pingWait   = 10 * time.Second
	minBackOff = 100 * time.Millisecond
	maxBackOff = 10 * time.Second
)

// Client is how to reach the gateways of one log. Its methods may be called concurrently; each subscription and each worker has a
// connection of its own.
type Client struct {
	addresses []string
	logger    *slog.Logger
	dial      []grpc.DialOption

	tls                       bool
	caFile, certFile, keyFile string
	token                     func(context.Context) (string, error)
}

// Option configures a [Client].
type Option func(*Client)

// TLS connects with TLS and the system's certificate authorities.
func TLS() Option { return func(c *Client) { c.tls = true } }

// CA connects with TLS, and trusts the PEM certificates of a file instead of the system's. It is read for each new connection.
func CA(file string) Option { return func(c *Client) { c.tls, c.caFile = true, file } }

// Certificate connects with TLS and a client certificate. The files are read for each new connection.
func Certificate(certFile, keyFile string) Option {
	return func(c *Client) { c.tls, c.certFile, c.keyFile = true, certFile, keyFile }
}

// Token sends a bearer token.
func Token(token string) Option {
	return TokenSource(func(context.Context) (string, error) { return token, nil })
}

// TokenFile sends the bearer token that is in a file, which is read for each call.
func TokenFile(file string) Option {
	return TokenSource(func(context.Context) (string, error) {
		data, err := os.ReadFile(file)
		return strings.TrimSpace(string(data)), err
	})
}

// TokenSource asks for the bearer token of each call.
func TokenSource(source func(context.Context) (string, error)) Option {
	return func(c *Client) { c.token = source }
}

// Logger is told what happens between streams. Default: nothing is.
func Logger(logger *slog.Logger) Option { return func(c *Client) { c.logger = logger } }

// DialOptions are added to those of each connection: interceptors, or the statistics handler of OpenTelemetry.
func DialOptions(options ...grpc.DialOption) Option {
	return func(c *Client) { c.dial = append(c.dial, options...) }
}

// New returns a client of the gateways at some addresses, HOST:PORT each. It connects when it is used. A token over plain text is
// refused, unless all addresses are of the loopback interface.
func New(addresses []string, options ...Option) (*Client, error) {
	c := &Client{addresses: addresses, logger: slog.New(slog.DiscardHandler)}
	for _, option := range options {
		option(c)
	}
	if len(addresses) == 0 {
		return nil, errors.New("linksgate: no address")
	}
	for _, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil || port == "" {
			return nil, fmt.Errorf("linksgate: %q is not HOST:PORT", address)
		}
		if c.token != nil && !c.tls && !isLoopback(host) {
			return nil, fmt.Errorf("linksgate: a token would go to %s in plain text; use TLS", address)
		}
	}
	return c, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// connect prepares a connection to an address.
func (c *Client) connect(address string) (*grpc.ClientConn, error) {
	security := insecure.NewCredentials()
	if c.tls {
		config, err := c.tlsConfig()
		if err != nil {
			return nil, err
		}
		security = credentials.NewTLS(config)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minBackOff, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingWait}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithUserAgent("linksgate-go/" + Version),
	}
	if c.token != nil {
		options = append(options, grpc.WithPerRPCCredentials(bearer(c.token)))
	}
	return grpc.NewClient(address, append(options, c.dial...)...)
}

func (c *Client) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.caFile != "" {
		data, err := os.ReadFile(c.caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s holds no PEM certificate", c.caFile)
		}
	}
	if c.certFile != "" {
		pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// bearer sends a token with each call.
type bearer func(context.Context) (string, error)

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials]. New has looked at the addresses.
func (b bearer) RequireTransportSecurity() bool { return false }

// link is the connection of one subscription or worker: to one gateway at a time.
type link struct {
	client *Client

	mu   sync.Mutex
	conn *grpc.ClientConn // mu; nil: none
	at   int              // mu; counts the addresses that were tried
}

// get returns the connection, preparing one if there is none.
func (l *link) get() (*grpc.ClientConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		conn, err := l.client.connect(l.client.addresses[l.at%len(l.client.addresses)])
		if err != nil {
			return nil, err
		}
		l.conn = conn
	}
	return l.conn, nil
}

// next leaves the connection for a new one, to the next address. It does nothing if that was done since the connection was got.
func (l *link) next(from *grpc.ClientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != from {
		return
	}
	l.at++
	l.drop()
}

func (l *link) drop() {
	if l.conn != nil {
		_ = l.conn.Close() // nothing is written by it
		l.conn = nil
	}
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop()
}

// backOff is how long to wait before the next try after a number of failures in a row.
func backOff(failures int) time.Duration {
	return rand.N(min(minBackOff<<min(failures, 20), maxBackOff)) + time.Millisecond
}

// askedDelay is how long a gateway asks to wait, by an error.
func askedDelay(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return retry.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// sleep waits. It reports false if ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
