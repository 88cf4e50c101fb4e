// Package config is what the operator wrote, checked whole, and applied while the gateway runs.
//
// [Read] reads the file, [Examine] checks it and reads what it names, and a [Reloader] does both again and again and applies what can
// change while the gateway runs.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Config is the gateway's configuration, as the configuration file writes it. A field that is left out has its default.
//
// Accounts, Access, Webhook.TrustedProxies and what is in the files of TLS can change while the gateway runs; see [Reloader]. The rest
// needs a restart.
type Config struct {
	Listen  Listen  `yaml:"listen"`
	Log     Log     `yaml:"log"`
	Webhook Webhook `yaml:"webhook"`
	GRPC    GRPC    `yaml:"grpc"`
	REST    REST    `yaml:"rest"`
	Admin   Admin   `yaml:"admin"`
	// Access says who may do what. Nil: everybody may do everything, on loopback.
	Access *Access `yaml:"access"`
	// DrainTimeout bounds how long a shutdown waits for requests and streams to finish. Default 20s, at least 10ms.
	DrainTimeout Duration `yaml:"drain_timeout"`
	// Accounts are the Linksfield accounts by name: lower-case letters, digits and hyphens. The name is part of the URLs
	// given to Linksfield. At least one.
	Accounts map[string]Account `yaml:"accounts"`
}

// Listen holds the addresses to listen on, host:port. Port 0 chooses a free one. All default to loopback: nothing is reachable
// from elsewhere unless it is asked for.
type Listen struct {
	// Webhook is where Linksfield sends to. Default 127.0.0.1:8080.
	Webhook string `yaml:"webhook"`
	// GRPC is where services subscribe. Default 127.0.0.1:9090.
	GRPC string `yaml:"grpc"`
	// REST is where the same is served as JSON over HTTP, and streams as NDJSON and SSE. Default 127.0.0.1:9092.
	REST string `yaml:"rest"`
	// Admin has /healthz, /readyz, /metrics, /config and /secrets. Default 127.0.0.1:9091.
	Admin string `yaml:"admin"`
	// Plaintext names those of webhook, grpc, rest and admin that other machines may reach without TLS, so that whoever is on the way
	// reads and changes what is sent: for a proxy in front that ends TLS. Default: none, which refuses such an address.
	Plaintext []string `yaml:"plaintext"`
}

// ByName returns the addresses by their names in the configuration.
func (l *Listen) ByName() map[string]*string {
	return map[string]*string{"webhook": &l.Webhook, "grpc": &l.GRPC, "rest": &l.REST, "admin": &l.Admin}
}

// Log says where the log is and how much it retains.
type Log struct {
	// Dir is the directory of a log on this machine's disk. Default linksgate-data. Excludes NATS.
	Dir string `yaml:"dir"`
	// NATS is a cluster to store the log in, which several gateways share.
	NATS *NATS `yaml:"nats"`
	// Spool is where notifications are stored while NATS does not confirm them. Only with NATS.
	Spool Spool `yaml:"spool"`
	// Fsync before each answer; only with Dir. Default true. With false, a crash of the machine loses notifications that were
	// answered with 200.
	Fsync *bool `yaml:"fsync"`
	// MaxAge of notifications, such as 30d or 12h. Default 30d; 0: unlimited.
	MaxAge *Duration `yaml:"max_age"`
	// DuplicateWindow is how long copies of a notification are recognised. Default 24h; 0 turns it off.
	DuplicateWindow *Duration `yaml:"duplicate_window"`
	// MinFree is the free space below which notifications are answered with 503. Default 512MiB.
	MinFree Size `yaml:"min_free"`
	// QuarantineBytes and QuarantineAge bound the quarantine; the oldest entries go first. Default 256MiB and 30d.
	QuarantineBytes Size     `yaml:"quarantine_bytes"`
	QuarantineAge   Duration `yaml:"quarantine_age"`
	// ParkedBytes and ParkedAge bound what all groups together have parked; the oldest goes first. Default 256MiB and 30d.
	ParkedBytes Size     `yaml:"parked_bytes"`
	ParkedAge   Duration `yaml:"parked_age"`
	// MaxBytes on disk; the oldest notifications go first. Such as 10GiB, the default. At least 16MiB.
	MaxBytes Size `yaml:"max_bytes"`
}

// Spool is a directory of this gateway's own in front of a NATS cluster.
type Spool struct {
	// Dir of the spool. Default linksgate-spool.
	Dir string `yaml:"dir"`
	// MaxBytes that it may hold; what is more is answered with 503. Default 1GiB.
	MaxBytes Size `yaml:"max_bytes"`
}

// NATS is a NATS cluster with JetStream.
type NATS struct {
	// URL of its servers, such as nats://n1:4222,nats://n2:4222. Required.
	URL string `yaml:"url"`
	// CredentialsFile is a file of credentials (.creds), NKeyFile one with the seed of an nkey, TokenFile one with a token,
	// PasswordFile one with the password of User. At most one of the four.
	CredentialsFile string `yaml:"credentials_file"`
	NKeyFile        string `yaml:"nkey_file"`
	TokenFile       string `yaml:"token_file"`
	User            string `yaml:"user"`
	PasswordFile    string `yaml:"password_file"`
	// CAFile is trusted instead of the system's authorities. CertFile and KeyFile are a client certificate.
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// Prefix of all subjects, and in capitals of all streams. Default linksgate.
	Prefix string `yaml:"prefix"`
	// Domain is the JetStream domain. Default: none.
	Domain string `yaml:"domain"`
	// PlacementTags are those that the servers which store anything must have. Default: none.
	PlacementTags []string `yaml:"placement_tags"`
	// Replicas of everything, 1 to 5. Default 3.
	Replicas int `yaml:"replicas"`
}

// Webhook is about the HTTP side.
type Webhook struct {
	// PublicURL is how Linksfield reaches the webhook address, such as https://hooks.example.com. Only used to print the URLs.
	PublicURL string `yaml:"public_url"`
	// MaxBody accepted. Default 256KiB, at most that.
	MaxBody Size `yaml:"max_body"`
	// MaxRequests verified and written at once; more get 429. Default 2048.
	MaxRequests int `yaml:"max_requests"`
	// ReadTimeout for a whole request, headers and body. Default 10s, at least 10ms.
	ReadTimeout Duration `yaml:"read_timeout"`
	// TrustedProxies are the networks whose X-Forwarded-For is believed, such as 10.0.0.0/8. Default: none.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// TLS of the webhook address. Default: none, for a proxy in front.
	TLS *TLS `yaml:"tls"`
}

// GRPC is about the gRPC side.
type GRPC struct {
	// MaxStreams open at once. Default 10000.
	MaxStreams int `yaml:"max_streams"`
	// SendTimeout is how long a client may not read before its stream is ended. Default 30s, at least 10ms.
	SendTimeout Duration `yaml:"send_timeout"`
	// MaxStreamAge after which a stream is ended as planned, at least 10ms. Default: never.
	MaxStreamAge Duration `yaml:"max_stream_age"`
	// TLS of the gRPC address. Default: none.
	TLS *TLS `yaml:"tls"`
}

// REST is about the REST side. Streams are counted and bounded together with those of gRPC, by GRPC.
type REST struct {
	// AllowedHosts are the host names, without port, by which the REST address may be asked for besides localhost and IP
	// addresses: those that clients use, or that a proxy in front passes on as Host. If there are any, requests for other names are
	// refused; if not, those that arrive on loopback are. Listen.Admin refuses them on loopback only. Default: none.
	AllowedHosts []string `yaml:"allowed_hosts"`
	// TLS of the REST address. Default: none, for a proxy in front.
	TLS *TLS `yaml:"tls"`
}

// Admin is about the admin address.
type Admin struct {
	// TLS of the admin address. Default: none.
	TLS *TLS `yaml:"tls"`
}

// TLS names the files of a TLS listener, in PEM. What is in them is taken up while the gateway runs.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// ClientCAFile, if set, makes client certificates required, signed by one of these.
	ClientCAFile string `yaml:"client_ca_file"`
	// ClientCertificates is required (the default with ClientCAFile), or optional: then a caller may show a token instead.
	ClientCertificates string `yaml:"client_certificates"`
}

// Scheme is that of URLs of an address with this configuration, or with none.
func (c *TLS) Scheme() string {
	if c == nil {
		return "http"
	}
	return "https"
}

// Account is one Linksfield account.
type Account struct {
	// MD5Secrets are the notification secrets of the md5 scheme, any of which may have signed.
	MD5Secrets []Secret `yaml:"md5_secrets"`
	// HMACKeys are the keys of the hmac-sha1 scheme. One id may occur several times, during a change-over.
	HMACKeys []HMACKey `yaml:"hmac_keys"`
	// Readings, if not empty, are the readings of Linksfield's signing rule that are tried, by name: see linksgate verify. Of a scheme of
	// which it names none, all are. Default: all. Once it is known which one Linksfield uses, the others need not be tried.
	Readings []string `yaml:"readings"`
	// Kinds holds what differs from the default, by the kind's name in the URL.
	Kinds map[string]Kind `yaml:"kinds"`
}

// Secret says where a secret is. Exactly one of File and Env; never the secret itself.
type Secret struct {
	// Name is recorded with what the secret verified, and tells it from the others of its account and key id. Default: the
	// name of the variable or the base name of the file. A new value is best given a new name: under an old one, what the
	// former value verified before the gateway was last started cannot be told from what the new one did.
	Name string `yaml:"name"`
	// File holds the secret. One line break at its end is not part of it.
	File string `yaml:"file"`
	// Env is the environment variable that holds the secret. Unlike a file it cannot change while the gateway runs.
	Env string `yaml:"env"`
}

// HMACKey is one value of a key.
type HMACKey struct {
	// ID is Linksfield's id of the key.
	ID     string `yaml:"id"`
	Secret `yaml:",inline"`
}

// Kind guards one URL.
type Kind struct {
	// Signature is required (the default), if-present or none. What is not required must be guarded by PathToken or
	// AllowedSources.
	Signature string `yaml:"signature"`
	// PathToken is a secret that the URL must end with: letters, digits, - and _, at least 16.
	PathToken *Secret `yaml:"path_token"`
	// AllowedSources are the networks that may connect, such as 203.0.113.0/24.
	AllowedSources []string `yaml:"allowed_sources"`
	// Fields are where the bodies of this kind have what Linksfield does not document.
	Fields Fields `yaml:"fields"`
}

// Fields are paths to members of a body, such as data.simId: the key at each level. Arrays on the way are gone through.
type Fields struct {
	// ICCID and IMSI: all that is under any of these names.
	ICCID []string `yaml:"iccid"`
	IMSI  []string `yaml:"imsi"`
	// PartnerCode and OccurredAt: the first of these names that there is. A time is in Unix milliseconds or RFC 3339.
	PartnerCode []string `yaml:"partner_code"`
	OccurredAt  []string `yaml:"occurred_at"`
}

// Duration is a time.Duration that is written like 90s, 12h or 30d.
type Duration time.Duration

// UnmarshalYAML implements yaml.InterfaceUnmarshaler.
func (d *Duration) UnmarshalYAML(unmarshal func(any) error) error {
	return unmarshalText(unmarshal, func(text string) error {
		if days, ok := strings.CutSuffix(text, "d"); ok {
			n, err := strconv.ParseUint(days, 10, 16)
			if err != nil {
				return fmt.Errorf("%q is not a duration such as 30d", text)
			}
			*d = Duration(time.Duration(n) * 24 * time.Hour)
			return nil
		}
		parsed, err := time.ParseDuration(text)
		if err != nil || parsed < 0 {
			return fmt.Errorf("%q is not a duration such as 90s, 12h or 30d", text)
		}
		*d = Duration(parsed)
		return nil
	})
}

// Size is a number of bytes that is written like 512KiB or 10GiB.
type Size int64

var sizePattern = regexp.MustCompile(`^([0-9]{1,12})(B|KiB|MiB|GiB|TiB)?$`)

// UnmarshalYAML implements yaml.InterfaceUnmarshaler.
func (z *Size) UnmarshalYAML(unmarshal func(any) error) error {
	return unmarshalText(unmarshal, func(text string) error {
		parts := sizePattern.FindStringSubmatch(text)
		if parts == nil {
			return fmt.Errorf("%q is not a size such as 512KiB or 10GiB", text)
		}
		n, err := strconv.ParseInt(parts[1], 10, 64)
		shift := map[string]int{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[parts[2]]
		if err != nil || n > math.MaxInt64>>shift {
			return fmt.Errorf("%q is too large", text)
		}
		*z = Size(n << shift)
		return nil
	})
}

// Read reads a configuration file. What is not as it should be, such as a key that is not known or occurs twice, is an error
// that names the line and the key. The error does not show the line: a secret may stand in it by mistake.
func Read(path string) (Config, error) {
	var cfg Config
	file, err := os.Open(path)
	if err != nil {
		return cfg, fmt.Errorf("read the configuration: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return cfg, fmt.Errorf("read the configuration: %w", err)
	case len(text) > maxFile:
		return cfg, fmt.Errorf("read the configuration: %s has more than %d bytes", path, maxFile)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	switch err := decoder.Decode(&cfg); {
	case errors.Is(err, io.EOF):
		return cfg, fmt.Errorf("read the configuration: %s is empty", path)
	case err != nil:
		return cfg, fmt.Errorf("read the configuration: %s%s", path, locate(text, err))
	}
	if err := decoder.Decode(new(Config)); !errors.Is(err, io.EOF) {
		return cfg, fmt.Errorf("read the configuration: %s: only one YAML document is read, what follows --- is not", path)
	}
	return cfg, nil
}
