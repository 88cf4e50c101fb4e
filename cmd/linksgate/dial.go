package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
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
	defaultAdmin   = "http://127.0.0.1:9091"
)

// connection is how to connect to a gateway: as given in flags, else in the environment, else in the client's configuration.
type connection struct {
	context string
	address string // of gRPC, HOST:PORT
	admin   string // URL; only of commands that ask the admin address
	tls     bool
	// Files.
	ca, cert, key, bearerFile string
}

// register adds the flags of a command that uses gRPC.
func (c *connection) register(flags *pflag.FlagSet) {
	flags.StringVar(&c.address, "address", "", "`HOST:PORT` of the gateway's gRPC ($"+addressEnv+"); default "+defaultAddress)
	flags.BoolVar(&c.tls, "tls", false, "connect with TLS")
	c.registerCredentials(flags)
}

// registerAdmin adds the flags of a command that asks the admin address.
func (c *connection) registerAdmin(flags *pflag.FlagSet) {
	flags.StringVar(&c.admin, "admin", "", "`URL` of the gateway's admin address ($LINKSGATE_ADMIN); default "+defaultAdmin)
	c.registerCredentials(flags)
}

func (c *connection) registerCredentials(flags *pflag.FlagSet) {
	flags.StringVar(&c.ca, "ca", "", "`FILE` of PEM certificates to trust instead of the system's; implies TLS ($LINKSGATE_CA)")
	flags.StringVar(&c.cert, "cert", "", "`FILE` of a client certificate (PEM), with --key; implies TLS ($LINKSGATE_CERT)")
	flags.StringVar(&c.key, "key", "", "`FILE` of the key of --cert ($LINKSGATE_KEY)")
	flags.StringVar(&c.bearerFile, "token-file", "", "`FILE` that holds the access token to show ($LINKSGATE_TOKEN_FILE)")
	flags.StringVar(&c.context, "context", "", "`NAME` of the settings to use from the client's configuration; see linksgate context ($LINKSGATE_CONTEXT)")
}

// complete fills in what was not given: an address given as an argument goes before a flag.
func (c *connection) complete(given ...string) error {
	chosen, err := chooseContext(cmp.Or(c.context, os.Getenv("LINKSGATE_CONTEXT")))
	if err != nil {
		return err
	}
	c.address = cmp.Or(cmp.Or(given...), c.address, os.Getenv(addressEnv), chosen.Address, defaultAddress)
	c.admin = cmp.Or(c.admin, os.Getenv("LINKSGATE_ADMIN"), chosen.Admin, defaultAdmin)
	c.ca = cmp.Or(c.ca, os.Getenv("LINKSGATE_CA"), chosen.CA)
	c.cert = cmp.Or(c.cert, os.Getenv("LINKSGATE_CERT"), chosen.Cert)
	c.key = cmp.Or(c.key, os.Getenv("LINKSGATE_KEY"), chosen.Key)
	c.bearerFile = cmp.Or(c.bearerFile, os.Getenv("LINKSGATE_TOKEN_FILE"), chosen.TokenFile)
	c.tls = c.tls || chosen.TLS || c.ca != "" || c.cert != ""
	if (c.cert == "") != (c.key == "") {
		return usagef("--cert and --key need each other: a certificate is shown with its key")
	}
	return nil
}

// tlsConfig is the TLS to connect with; nil: without. It reads the files.
func (c *connection) tlsConfig() (*tls.Config, error) {
	if !c.tls {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if c.ca != "" {
		if config.RootCAs, err = readCA(c.ca); err != nil {
			return nil, err
		}
	}
	if c.cert != "" {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, fmt.Errorf("read --cert and --key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
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

// bearer reads the access token; "" without one.
func (c *connection) bearer() (string, error) {
	if c.bearerFile == "" {
		return "", nil
	}
	data, err := readFile(c.bearerFile)
	if err != nil {
		return "", fmt.Errorf("read --token-file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", usagef("--token-file: %s is empty", c.bearerFile)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", usagef("--token-file: %s holds more than a token: one line of printable characters without blanks", c.bearerFile)
	}
	return token, nil
}

// mayShow refuses to send a token where others could read it.
func mayShow(host string) error {
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return usagef("the access token would go to %s in plain text: connect with TLS (--tls, or --ca FILE)", visible(host))
}

// dial prepares a connection to the address that was given, in an argument or otherwise; it is made when it is needed, and again whenever
// it breaks. The address is c.address then.
func (c *connection) dial(given ...string) (*grpc.ClientConn, error) {
	if err := c.complete(given...); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(c.address)
	if err != nil || port == "" {
		return nil, usagef("%q is not an address such as %s: give HOST:PORT", c.address, defaultAddress)
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
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: 10 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)),
		grpc.WithUserAgent("linksgate"),
	}
	if c.bearerFile != "" {
		if _, err := c.bearer(); err != nil {
			return nil, err
		}
		if config == nil {
			if err := mayShow(host); err != nil {
				return nil, err
			}
		}
		options = append(options, grpc.WithPerRPCCredentials(c))
	}
	conn, err := grpc.NewClient(c.address, options...)
	if err != nil {
		return nil, usagef("address %q: %w; give HOST:PORT", c.address, err)
	}
	return conn, nil
}

// GetRequestMetadata implements [credentials.PerRPCCredentials]. The file is read for each call: a token may be renewed.
func (c *connection) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := c.bearer()
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials]. dial has looked at the address.
func (c *connection) RequireTransportSecurity() bool { return false }

const (
	adminTimeout   = 10 * time.Second
	maxAdminAnswer = 16 << 20
)

// askAdmin gets a page of JSON of the gateway's admin address.
func (c *connection) askAdmin(ctx context.Context, path string, into any) error {
	if err := c.complete(); err != nil {
		return err
	}
	base, err := url.Parse(c.admin)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return usagef("%q is not a URL such as %s", c.admin, defaultAdmin)
	}
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(path).String(), nil)
	if err != nil {
		return err
	}
	token, err := c.bearer()
	if err != nil {
		return err
	}
	if token != "" {
		if base.Scheme == "http" {
			if err := mayShow(base.Hostname()); err != nil {
				return err
			}
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	config, err := c.tlsConfig()
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config}, CheckRedirect: noRedirect}).Do(request)
	if err != nil {
		return fmt.Errorf("no gateway answers at %s: %w\n"+
			"Is it running? --admin must name what listen.admin is in its configuration, and be reachable from here", c.admin, cause(err))
	}
	defer response.Body.Close()
	body := io.LimitReader(response.Body, maxAdminAnswer)
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		text, _ := io.ReadAll(body) // what there is of it says why
		return fmt.Errorf("%s refuses: %s\n  %s", request.URL, escaped(strings.TrimSpace(string(text))), credentialAdvice)
	default:
		return fmt.Errorf("%s answers with %s: is it the admin address of a gateway? --admin must name what listen.admin is in its configuration",
			request.URL, response.Status)
	}
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("%s does not answer as a gateway does: %w", request.URL, err)
	}
	return nil
}

// credentialAdvice is what to do when a gateway does not let one in.
const credentialAdvice = "show an access token with --token-file, or a certificate with --cert and --key, of a caller that has the right"

// noRedirect: whoever answers elsewhere gets no token.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// cause is what went wrong with a request, without the URL, which the caller names.
func cause(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
