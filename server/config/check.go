package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/store/disk"
	"github.com/linksgate/linksgate/server/store/nats"
	"github.com/linksgate/linksgate/server/store/spool"
	"github.com/linksgate/linksgate/server/webhook"
)

// problems collects everything that is wrong with a configuration, so that it can be corrected in one go.
type problems struct {
	errors   []error
	warnings []string
}

// warn adds what is allowed, and hardly meant.
func (p *problems) warn(where, format string, args ...any) {
	p.warnings = append(p.warnings, where+": "+fmt.Sprintf(format, args...))
}

func (p *problems) add(where, format string, args ...any) {
	p.errors = append(p.errors, fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...)))
}

func (p *problems) check(where string, err error) {
	if err != nil {
		p.add(where, "%w", err)
	}
}

// files are the files that a configuration names, each read once: what is checked, compared and put in force are the same
// bytes.
type files map[string]readFile

type readFile struct {
	data []byte
	err  error
}

func (f files) read(path string) ([]byte, error) {
	if _, ok := f[path]; !ok {
		data, err := readRegular(path)
		f[path] = readFile{data, err}
	}
	return f[path].data, f[path].err
}

// maxFile is far more than a secret or a chain of certificates takes.
const maxFile = 1 << 20

// readRegular reads a file that is one: a pipe would be waited for, and a device has no end.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes, more than any secret or certificate", path, info.Size())
	}
	return os.ReadFile(path)
}

// Checked is a configuration as it was found at one moment, checked, with everything that it names read.
type Checked struct {
	// Config with its defaults.
	Config Config
	// Settings are what can change while the gateway runs.
	Settings webhook.Settings
	// Log is how to open the log, but for the engine and a logger. One of Disk and NATS, without a logger, says which engine; Spool is
	// what is in front of NATS.
	Log   eventlog.Options
	Disk  *disk.Options
	NATS  *nats.Options
	Spool spool.Options
	// Access is who may do what. It can change while the gateway runs.
	Access access.Policy
	// TLS of the listeners; nil where there is none. What is in it can change while the gateway runs.
	TLS ListenerTLS
	// Warnings are what is allowed, and hardly meant.
	Warnings []string

	err         error // why it cannot be used
	fingerprint fingerprint
}

// Warn logs what is allowed, and hardly meant.
func (c Checked) Warn(logger *slog.Logger) {
	for _, warning := range c.Warnings {
		logger.Warn("configuration doubtful", "warning", warning)
	}
}

// Examine checks a configuration and reads what it names. The error has a line for each problem.
func Examine(c Config) (Checked, error) {
	found := examine(c)
	return found, found.err
}

// shortestTimeout is less than what anything takes over a network: below it, a unit was mistaken.
const shortestTimeout = 10 * time.Millisecond

// Check reports everything that is wrong with the configuration, secrets and certificates included, without opening anything.
func (c Config) Check() error {
	_, err := Examine(c)
	return err
}

func (c Config) withDefaults() Config {
	setDefault(&c.Listen.Webhook, "127.0.0.1:8080")
	setDefault(&c.Listen.GRPC, "127.0.0.1:9090")
	setDefault(&c.Listen.REST, "127.0.0.1:9092")
	setDefault(&c.Listen.Admin, "127.0.0.1:9091")
	setDefault(&c.DrainTimeout, Duration(20*time.Second))
	setDefault(&c.Webhook.ReadTimeout, Duration(10*time.Second))
	if c.Log.NATS == nil {
		setDefault(&c.Log.Dir, "linksgate-data")
	} else {
		setDefault(&c.Log.Spool.Dir, "linksgate-spool")
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) build(f files) (Checked, error) {
	var p problems
	b := Checked{
		Config: c, Settings: webhook.Settings{Accounts: make(map[string]*webhook.Account, len(c.Accounts))},
	}
	b.Log, b.Disk, b.NATS = c.Log.options(f, &p)
	if info, err := os.Stat(c.Log.Dir); c.Log.Dir != "" && err == nil && info.Mode()&0o002 != 0 {
		p.warn("log.dir", "%s can be changed by every user of this machine: chmod 700", c.Log.Dir)
	}
	b.Spool = spool.Options{Dir: c.Log.Spool.Dir, MaxBytes: int64(c.Log.Spool.MaxBytes), MinFree: int64(c.Log.MinFree)}
	if len(c.Accounts) == 0 {
		p.add("accounts", "none is configured, so nothing could be received")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Accounts)) {
		b.Settings.Accounts[name] = c.Accounts[name].build("accounts."+name, name, f, &p)
	}
	b.TLS = ListenerTLS{
		Webhook: c.Webhook.TLS.build("webhook.tls", f, &p), GRPC: c.GRPC.TLS.build("grpc.tls", f, &p),
		REST: c.REST.TLS.build("rest.tls", f, &p), Admin: c.Admin.TLS.build("admin.tls", f, &p),
	}
	b.Access = c.Access.build(c.Accounts, f, &p)
	c.checkReach(&p)
	for _, name := range c.REST.AllowedHosts {
		if !allowedHost.MatchString(name) {
			p.add("rest.allowed_hosts", "%q is not a host name such as gateway.example.com, without scheme and port", name)
		}
	}
	if address, err := url.Parse(c.Webhook.PublicURL); c.Webhook.PublicURL != "" &&
		(err != nil || address.Scheme != "http" && address.Scheme != "https" || address.Host == "") {
		p.add("webhook.public_url", "%q is not a URL such as https://hooks.example.com", c.Webhook.PublicURL)
	}
	b.Settings.TrustedProxies = parseNetworks("webhook.trusted_proxies", c.Webhook.TrustedProxies, &p)
	if c.Webhook.MaxBody > webhook.DefaultMaxBody {
		p.add("webhook.max_body", "at most 256KiB: a notification must fit into one message of the log")
	}
	c.Listen.check(&p)
	for _, one := range []struct {
		where   string
		timeout Duration
	}{
		{"drain_timeout", c.DrainTimeout}, {"webhook.read_timeout", c.Webhook.ReadTimeout},
		{"grpc.send_timeout", c.GRPC.SendTimeout}, {"grpc.max_stream_age", c.GRPC.MaxStreamAge},
	} {
		if one.timeout != 0 && time.Duration(one.timeout) < shortestTimeout {
			p.add(one.where, "%v is too short: at least %v", time.Duration(one.timeout), shortestTimeout)
		}
	}
	for where, n := range map[string]int{"webhook.max_requests": c.Webhook.MaxRequests, "grpc.max_streams": c.GRPC.MaxStreams} {
		if n < 0 {
			p.add(where, "must not be negative")
		}
	}
	b.Warnings = p.warnings
	if len(p.errors) == 0 {
		b.Warnings = append(b.Warnings, b.TLS.ExpiryWarnings(time.Now())...)
	}
	return b, errors.Join(p.errors...)
}

// check reports addresses that could not be listened on.
func (l Listen) check(p *problems) {
	used := make(map[string]string)
	for _, one := range []struct{ where, address string }{
		{"listen.webhook", l.Webhook}, {"listen.grpc", l.GRPC}, {"listen.rest", l.REST}, {"listen.admin", l.Admin},
	} {
		_, port, err := net.SplitHostPort(one.address)
		if err != nil {
			p.add(one.where, "%q is not an address such as 127.0.0.1:8080", one.address)
			continue
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil {
			p.add(one.where, "%q is not a port from 0 to 65535", port)
		} else if other := used[one.address]; other != "" && n != 0 {
			p.add(one.where, "%s is the address of %s already", one.address, other)
		}
		used[one.address] = one.where
	}
}

// options returns how to open the log, and one of the engines.
func (c Log) options(f files, p *problems) (eventlog.Options, *disk.Options, *nats.Options) {
	o := eventlog.Options{
		MaxAge: orNever(c.MaxAge), MaxBytes: int64(c.MaxBytes), DuplicateWindow: orNever(c.DuplicateWindow),
		QuarantineBytes: int64(c.QuarantineBytes), QuarantineAge: time.Duration(c.QuarantineAge),
		ParkedBytes: int64(c.ParkedBytes), ParkedAge: time.Duration(c.ParkedAge),
	}
	p.check("log", o.Check())
	if c.NATS == nil {
		if c.Spool != (Spool{}) {
			p.add("log.spool", "is for log.nats only: a log on this machine's disk needs none")
		}
		o.IndexDir = filepath.Join(c.Dir, "index")
		return o, &disk.Options{Dir: c.Dir, NoSync: c.Fsync != nil && !*c.Fsync, MinFree: int64(c.MinFree)}, nil
	}
	if c.Dir != "" {
		p.add("log.dir", "excludes log.nats: a log is stored on this machine's disk or in a NATS cluster")
	}
	if c.Fsync != nil {
		p.add("log.fsync", "is the NATS cluster's own setting (sync_interval in nats.conf), it has no effect here")
	}
	return o, nil, c.NATS.options(f, p)
}

var natsPrefix = regexp.MustCompile(`^[A-Za-z0-9-]{1,32}$`)

func (c *NATS) options(f files, p *problems) *nats.Options {
	if c.URL == "" {
		p.add("log.nats.url", "must name the servers, such as nats://n1:4222,nats://n2:4222")
	}
	if strings.Contains(c.URL, "@") {
		p.add("log.nats.url", "must have no user and password: write them to user and password_file")
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		p.add("log.nats.replicas", "%d: from 1 to 5 are possible", c.Replicas)
	}
	if c.Prefix != "" && !natsPrefix.MatchString(c.Prefix) {
		p.add("log.nats.prefix", "%q must have 1 to 32 letters, digits and hyphens", c.Prefix)
	}
	identities := 0
	for _, one := range []struct{ where, path string }{
		{"credentials_file", c.CredentialsFile}, {"nkey_file", c.NKeyFile}, {"token_file", c.TokenFile}, {"password_file", c.PasswordFile},
		{"ca_file", c.CAFile}, {"cert_file", c.CertFile}, {"key_file", c.KeyFile},
	} {
		if one.path == "" {
			continue
		}
		if one.where != "ca_file" && one.where != "cert_file" && one.where != "key_file" {
			identities++
		}
		_, err := f.read(one.path)
		p.check("log.nats."+one.where, err)
	}
	if identities > 1 {
		p.add("log.nats", "only one of credentials_file, nkey_file, token_file and password_file can be used")
	}
	if (c.User == "") != (c.PasswordFile == "") {
		p.add("log.nats.user", "user and password_file need each other")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		p.add("log.nats.cert_file", "cert_file and key_file need each other")
	}
	return &nats.Options{
		URL: c.URL, CredentialsFile: c.CredentialsFile, NKeyFile: c.NKeyFile, TokenFile: c.TokenFile, User: c.User,
		PasswordFile: c.PasswordFile, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Prefix: c.Prefix, Domain: c.Domain,
		PlacementTags: c.PlacementTags, Replicas: c.Replicas,
	}
}

// orNever gives a duration that was left out as 0, which means the default, and one that is 0 as negative, which means never.
func orNever(d *Duration) time.Duration {
	switch {
	case d == nil:
		return 0
	case *d == 0:
		return -1
	}
	return time.Duration(*d)
}

var (
	accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	pathToken   = regexp.MustCompile(`^[A-Za-z0-9_-]{16,128}$`)
	allowedHost = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?$`)
)

func (c Account) build(where, name string, f files, p *problems) *webhook.Account {
	if !accountName.MatchString(name) {
		p.add(where, "an account's name has 1 to 63 lower-case letters, digits and hyphens")
	}
	a := &webhook.Account{
		Keys:  signature.Keyring{HMAC: make(map[string][]signature.Secret), Readings: c.Readings},
		Kinds: make(map[linksgatev1.NotificationKind]webhook.KindPolicy),
	}
	readings := slices.Concat(slices.Collect(maps.Values(signature.Readings()))...)
	for _, reading := range c.Readings {
		if !slices.Contains(readings, reading) {
			slices.Sort(readings)
			p.add(where+".readings", "no such reading as %q; the readings are %s", reading, strings.Join(readings, ", "))
		}
	}
	for i, cfg := range c.MD5Secrets {
		where := fmt.Sprintf("%s.md5_secrets[%d]", where, i)
		a.Keys.MD5 = appendSecret(a.Keys.MD5, cfg.read(where, f, p), where, p)
	}
	for i, cfg := range c.HMACKeys {
		where := fmt.Sprintf("%s.hmac_keys[%d]", where, i)
		if cfg.ID == "" || strings.Contains(cfg.ID, "/") {
			p.add(where+".id", "must be set, without a slash: what stands before the slash in x-lf-signature")
		}
		a.Keys.HMAC[cfg.ID] = appendSecret(a.Keys.HMAC[cfg.ID], cfg.read(where, f, p), where, p)
	}
	for _, kindName := range slices.Sorted(maps.Keys(c.Kinds)) {
		where := where + ".kinds." + kindName
		kind, ok := payload.KindByName(kindName)
		if !ok {
			p.add(where, "no such kind; the kinds are %s", strings.Join(payload.KindNames(payload.Kinds()), ", "))
			continue
		}
		a.Kinds[kind] = c.Kinds[kindName].build(where, f, p)
	}
	if len(c.MD5Secrets)+len(c.HMACKeys) == 0 && !slices.ContainsFunc(slices.Sorted(maps.Keys(c.Kinds)), func(kind string) bool {
		return c.Kinds[kind].Signature != "" && c.Kinds[kind].Signature != "required"
	}) {
		p.add(where, "has no md5_secrets and no hmac_keys, so every notification would be refused")
	}
	return a
}

// appendSecret appends a secret to others that may have signed the same.
func appendSecret(secrets []signature.Secret, secret signature.Secret, where string, p *problems) []signature.Secret {
	if slices.ContainsFunc(secrets, func(other signature.Secret) bool { return other.Name == secret.Name && secret.Name != "" }) {
		p.add(where+".name", "%s is another one's name already: it could not be told which of them is in use", secret.Name)
	}
	return append(secrets, secret)
}

func (c Kind) build(where string, f files, p *problems) webhook.KindPolicy {
	var policy webhook.KindPolicy
	switch c.Signature {
	case "", "required":
	case "if-present":
		policy.Signature = webhook.SignatureIfPresent
	case "none":
		policy.Signature = webhook.SignatureNone
	default:
		p.add(where+".signature", "%q is not one of required, if-present, none", c.Signature)
	}
	if c.PathToken != nil {
		policy.PathToken = c.PathToken.read(where+".path_token", f, p).Value
		if !pathToken.MatchString(policy.PathToken) {
			p.add(where+".path_token", "must have 16 to 128 letters, digits, - and _")
		}
	}
	policy.Names = c.Fields.build(where+".fields", p)
	policy.Sources = parseNetworks(where+".allowed_sources", c.AllowedSources, p)
	if policy.Signature != webhook.SignatureRequired && policy.PathToken == "" && len(policy.Sources) == 0 {
		p.add(where+".signature", "%s accepts what anyone sends: guard the URL with path_token or allowed_sources", c.Signature)
	}
	return policy
}

func (c Fields) build(where string, p *problems) payload.Names {
	read := func(name string, texts []string) (paths []payload.Path) {
		for _, text := range texts {
			path, err := payload.ParsePath(text)
			p.check(where+"."+name, err)
			paths = append(paths, path)
		}
		return paths
	}
	return payload.Names{
		ICCID: read("iccid", c.ICCID), IMSI: read("imsi", c.IMSI), PartnerCode: read("partner_code", c.PartnerCode),
		OccurredAt: read("occurred_at", c.OccurredAt),
	}
}

// parseNetworks reads networks; an address is a network of its own.
func parseNetworks(where string, texts []string, p *problems) []netip.Prefix {
	var networks []netip.Prefix
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			p.add(where, "%q is not a network such as 203.0.113.0/24", text)
			continue
		}
		if network.Addr().Is4In6() {
			p.add(where, "%q would match no address: write an IPv4 network as such", text)
		}
		networks = append(networks, network)
	}
	return networks
}

// read fetches a secret. Errors never hold it.
func (c Secret) read(where string, f files, p *problems) signature.Secret {
	secret := signature.Secret{Name: c.Name}
	switch {
	case (c.File == "") == (c.Env == ""):
		p.add(where, "exactly one of file and env must say where the secret is")
		return secret
	case c.Env != "":
		setDefault(&secret.Name, c.Env)
		secret.Value = os.Getenv(c.Env)
		if secret.Value == "" {
			p.add(where+".env", "the environment variable %s is empty or not set", c.Env)
		}
		checkSecret(where+".env", "the environment variable "+c.Env, secret.Value, p)
		return secret
	}
	setDefault(&secret.Name, c.File[strings.LastIndexByte(c.File, '/')+1:])
	text, err := f.read(c.File)
	if err != nil {
		p.add(where+".file", "%w", err)
		return secret
	}
	secret.Value = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret.Value == "" {
		p.add(where+".file", "%s is empty", c.File)
	}
	checkSecret(where+".file", c.File, secret.Value, p)
	if info, err := os.Stat(c.File); err == nil && info.Mode()&0o004 != 0 {
		p.warn(where+".file", "%s can be read by every user of this machine: chmod o-r", c.File)
	}
	return secret
}

// checkSecret refuses what cannot be what was meant: every genuine notification would be refused because of it.
func checkSecret(where, from, value string, p *problems) {
	switch {
	case strings.HasPrefix(value, "\ufeff"):
		p.add(where, "%s begins with a byte-order mark, which would be part of the secret: save it without", from)
	case !utf8.ValidString(value):
		p.add(where, "%s is not UTF-8 text", from)
	case strings.ContainsRune(value, 0):
		p.add(where, "%s holds a NUL", from)
	case strings.ContainsAny(value, "\n\r"):
		p.add(where, "%s has several lines; a secret is one", from)
	case strings.TrimSpace(value) != value:
		p.warn(where, "%s begins or ends with blanks, which are part of the secret", from)
	}
}
