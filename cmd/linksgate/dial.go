package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	addressEnv     = "LINKSGATE_ADDRESS"
	defaultAddress = "localhost:9090"
)

// gatewayAddress is the first of these that is not empty: what was given, the environment's, the default.
func gatewayAddress(given ...string) string {
	return cmp.Or(cmp.Or(given...), os.Getenv(addressEnv), defaultAddress)
}

// connection is how to connect to a gateway, as given in flags.
type connection struct {
	tls bool
	ca  string
}

func (c *connection) register(flags *pflag.FlagSet) {
	flags.BoolVar(&c.tls, "tls", false, "connect with TLS")
	flags.StringVar(&c.ca, "ca", "", "`FILE` of PEM certificates to trust instead of the system's; implies --tls")
}

// tlsConfig is the TLS to connect with; nil: without.
func (c *connection) tlsConfig() (*tls.Config, error) {
	if !c.tls && c.ca == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if c.ca != "" {
		config.RootCAs, err = readCA(c.ca)
	}
	return config, err
}

// readCA reads what --ca names.
func readCA(name string) (*x509.CertPool, error) {
	pem, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("read --ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usagef("--ca: %s holds no PEM certificate", name)
	}
	return pool, nil
}

// dial prepares a connection; it is made when it is needed, and again whenever it
// breaks.
func (c *connection) dial(address string) (*grpc.ClientConn, error) {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return nil, usagef("%q is not an address such as %s: give HOST:PORT", address, defaultAddress)
	}
	creds := insecure.NewCredentials()
	config, err := c.tlsConfig()
	switch {
	case err != nil:
		return nil, err
	case config != nil:
		creds = credentials.NewTLS(config)
	}
	// How long to wait between streams is the follower's decision, so the
	// connection itself is never long in coming back.
	reconnect := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: 10 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithUserAgent("linksgate"),
	)
	if err != nil {
		return nil, usagef("address %q: %w; give HOST:PORT", address, err)
	}
	return conn, nil
}
