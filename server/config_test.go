package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server"
	"github.com/linksgate/linksgate/server/config"
)

// writeFile writes a file of the test's own and returns its path.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readConfig(t *testing.T, text string) (config.Config, error) {
	t.Helper()
	return config.Read(writeFile(t, "linksgate.yaml", text))
}

// inlineSecret stands where the configuration names a secret's place.
const inlineSecret = "Qi9-a-secret-written-into-the-file"

func TestConfigurationsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       []string // parts of the error
	}{
		{"unknown key", "log:\n  dir: data\n  directory: data\n", []string{":3:3: log.directory: ", "directory"}},
		{"nothing", "", []string{"empty"}},
		{"second document", "drain_timeout: 1s\n---\nhttp: {}\n", []string{"one YAML document"}},
		{"unknown section", "drain_timeout: 1s\nhttp: {}\n", []string{"2:", "http"}},
		{"unknown key of an account", "accounts:\n  acme:\n    md5_secret: {file: a}\n", []string{"3:", "md5_secret"}},
		{"key twice", "log:\n  dir: a\n  dir: b\n", []string{"3:", "dir"}},
		{"wrong type", "grpc:\n  max_streams: many\n", []string{":2:16: grpc.max_streams: a whole number is wanted, not text"}},
		{"a list for keys", "log: [a]\n", []string{":1:6: log: a group of keys is wanted, not a list"}},
		{"keys for a list", "accounts:\n  acme:\n    md5_secrets: {file: a}\n", []string{":3:18: accounts.acme.md5_secrets: a list is wanted, not a group of keys"}},
		{"a number for true", "log:\n  fsync: 3\n", []string{":2:10: log.fsync: true or false is wanted, not a whole number"}},
		{"a list for text", "accounts:\n  acme:\n    md5_secrets:\n      - file: [a]\n", []string{":4:15: accounts.acme.md5_secrets[0].file: text is wanted, not a list"}},
		{"a list for a duration", "log:\n  max_age: [1d]\n", []string{":2:12: log.max_age: text is wanted, not a list"}},
		{"not YAML", "listen: {webhook: [\n", nil},
		{"duration without unit", "listen: {}\ndrain_timeout: 20\n", []string{":2:16: drain_timeout: ", "20", "duration"}},
		{"negative duration", "drain_timeout: -1s\n", []string{"duration"}},
		{"part of a day", "drain_timeout: 1.5d\n", []string{"duration"}},
		{"far too many days", "drain_timeout: 70000d\n", []string{"duration"}},
		{"size in powers of ten", "log:\n  max_bytes: 10GB\n", []string{":2:14: log.max_bytes: ", "size"}},
		{"negative size", "log:\n  max_bytes: -1\n", []string{"size"}},
		{"part of a size", "log:\n  max_bytes: 1.5GiB\n", []string{"size"}},
		{"size over all numbers", "log:\n  max_bytes: 8388608TiB\n", []string{"too large"}},
		{"a file without an end", strings.Repeat("# a comment\n", 1<<17), []string{"more than 1048576 bytes"}},
		{"secret in the file", "accounts:\n  acme:\n    md5_secrets:\n      - value: " + inlineSecret + "\n", []string{"4:", "value"}},
		{"secret in place of its place", "accounts:\n  acme:\n    md5_secrets:\n      - " + inlineSecret + "\n", []string{"4:"}},
		{"path token in the file", "accounts:\n  acme:\n    kinds:\n      cube:\n        path_token: " + inlineSecret + "\n", []string{"5:"}},
		{"secret beside a mistake", "accounts:\n  acme:\n    hmac_keys:\n      - idd: key\n        secret: " + inlineSecret + "\n", []string{":9"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readConfig(t, tt.text)
			if err == nil {
				t.Fatal("it was read")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
			if strings.Contains(err.Error(), inlineSecret) {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
	if _, err := config.Read(filepath.Join(t.TempDir(), "missing.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v; want ErrNotExist", err)
	}
}

func TestDurationsAndSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"30d": 30 * 24 * time.Hour, "12h": 12 * time.Hour, "90s": 90 * time.Second, "1h30m": 90 * time.Minute,
		"250ms": 250 * time.Millisecond, "0": 0, `"7d"`: 7 * 24 * time.Hour, "'1m'": time.Minute,
	} {
		cfg, err := readConfig(t, "log:\n  max_age: "+text+"\n")
		if err != nil || cfg.Log.MaxAge == nil || time.Duration(*cfg.Log.MaxAge) != want {
			t.Errorf("%s is read as %v, %v; want %v", text, cfg.Log.MaxAge, err, want)
		}
	}
	if cfg, err := readConfig(t, "drain_timeout: &long 20m\ngrpc: {send_timeout: *long}\n"); err != nil || time.Duration(cfg.GRPC.SendTimeout) != 20*time.Minute {
		t.Errorf("an alias is read as %v, %v", cfg.GRPC.SendTimeout, err)
	}
	for text, want := range map[string]config.Size{
		"0": 0, "1024": 1024, "5B": 5, "512KiB": 512 << 10, "16MiB": 16 << 20, "10GiB": 10 << 30, "2TiB": 2 << 40, `"1KiB"`: 1 << 10,
		"8388607TiB": 8388607 << 40,
	} {
		cfg, err := readConfig(t, "log:\n  max_bytes: "+text+"\n")
		if err != nil || cfg.Log.MaxBytes != want {
			t.Errorf("%s is read as %d, %v; want %d", text, cfg.Log.MaxBytes, err, want)
		}
	}
}

// TestDoubtfulConfigurationsWarn has what is allowed and hardly meant: blanks around a secret, a secret or a data directory that others
// can get at.
func TestDoubtfulConfigurationsWarn(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	if found, err := config.Examine(cfg); err != nil || len(found.Warnings) > 0 {
		t.Fatalf("%v %q", err, found.Warnings)
	}
	blank, open := writeFile(t, "blank", inlineSecret+" \n"), writeFile(t, "open", inlineSecret)
	acme := cfg.Accounts["acme"]
	acme.MD5Secrets = []config.Secret{{Name: "blank", File: blank}, {Name: "open", File: open}}
	cfg.Accounts["acme"] = acme
	for path, mode := range map[string]os.FileMode{open: 0o644, cfg.Log.Dir: 0o777} {
		if err := os.MkdirAll(cfg.Log.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	found, err := config.Examine(cfg)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(found.Warnings, "\n")
	for _, want := range []string{"log.dir: ", "md5_secrets[0].file: ", "blanks", "md5_secrets[1].file: ", "every user"} {
		if !strings.Contains(all, want) {
			t.Errorf("the warnings are %q; want %q", all, want)
		}
	}
	if strings.Contains(all, inlineSecret) {
		t.Errorf("a warning holds the secret: %s", all)
	}
}

// TestConfigurationsThatCannotWork changes one thing at a time in a configuration that works.
func TestConfigurationsThatCannotWork(t *testing.T) {
	t.Parallel()
	account := func(change func(*config.Account)) func(*config.Config) {
		return func(c *config.Config) {
			acme := c.Accounts["acme"]
			change(&acme)
			c.Accounts["acme"] = acme
		}
	}
	kind := func(name string, k config.Kind) func(*config.Config) {
		return account(func(a *config.Account) { a.Kinds = map[string]config.Kind{name: k} })
	}
	md5 := func(s config.Secret) func(*config.Config) {
		return account(func(a *config.Account) { a.MD5Secrets = []config.Secret{s} })
	}
	short := writeFile(t, "short", "Qp1-too-short")
	odd := writeFile(t, "odd", inlineSecret+"/with-a-slash")
	empty := writeFile(t, "empty", "\n")
	text := writeFile(t, "text", inlineSecret)
	missing := filepath.Join(t.TempDir(), "missing")
	certificate, key := writeCertificate(t)
	noSync := false
	for _, tt := range []struct {
		name   string
		change func(*config.Config)
		want   []string // parts of the error
	}{
		{"address without a port", func(c *config.Config) { c.Listen.Webhook = "8080" }, []string{"listen.webhook", "8080"}},
		{"no such port", func(c *config.Config) { c.Listen.GRPC = "127.0.0.1:99999" }, []string{"listen.grpc", "99999"}},
		{"address twice", func(c *config.Config) { c.Listen.Admin, c.Listen.GRPC = "127.0.0.1:7", "127.0.0.1:7" }, []string{"listen.admin", "listen.grpc"}},
		{"secret in a device", md5(config.Secret{File: "/dev/zero"}), []string{"md5_secrets[0].file", "regular"}},
		{"no account", func(c *config.Config) { c.Accounts = nil }, []string{"accounts"}},
		{"account's name", func(c *config.Config) { c.Accounts["Acme_1"] = c.Accounts["acme"] }, []string{"accounts.Acme_1"}},
		{"account's name too long", func(c *config.Config) { c.Accounts[strings.Repeat("a", 64)] = c.Accounts["acme"] }, []string{"63"}},
		{"account without secrets", func(c *config.Config) { c.Accounts["bare"] = config.Account{} }, []string{"accounts.bare", "md5_secrets"}},
		{"secret from nowhere", md5(config.Secret{Name: "x"}), []string{"accounts.acme.md5_secrets[0]", "file", "env"}},
		{"secret from two places", md5(config.Secret{File: short, Env: "PATH"}), []string{"accounts.acme.md5_secrets[0]", "exactly one"}},
		{"missing file", md5(config.Secret{File: missing}), []string{"accounts.acme.md5_secrets[0].file", missing}},
		{"byte-order mark", md5(config.Secret{File: writeFile(t, "bom", "\ufeff"+inlineSecret)}), []string{"md5_secrets[0].file", "byte-order mark"}},
		{"NUL", md5(config.Secret{File: writeFile(t, "nul", inlineSecret+"\x00")}), []string{"md5_secrets[0].file", "NUL"}},
		{"no UTF-8", md5(config.Secret{File: writeFile(t, "latin", inlineSecret+"\xe9")}), []string{"md5_secrets[0].file", "UTF-8"}},
		{"several lines", md5(config.Secret{File: writeFile(t, "lines", inlineSecret+"\nanother\n")}), []string{"md5_secrets[0].file", "several lines"}},
		{"empty file", md5(config.Secret{File: empty}), []string{"accounts.acme.md5_secrets[0].file", "empty"}},
		{"variable not set", md5(config.Secret{Env: "LINKSGATE_TEST_NOT_SET"}), []string{"accounts.acme.md5_secrets[0].env", "LINKSGATE_TEST_NOT_SET"}},
		{"key without id", account(func(a *config.Account) { a.HMACKeys[0].ID = "" }), []string{"accounts.acme.hmac_keys[0].id"}},
		{"key id with a slash", account(func(a *config.Account) { a.HMACKeys[1].ID = "a/b" }), []string{"accounts.acme.hmac_keys[1].id"}},
		{"unknown kind", kind("sms", config.Kind{}), []string{"accounts.acme.kinds.sms", "sms-received"}},
		{"unknown policy", kind("cube", config.Kind{Signature: "optional"}), []string{"accounts.acme.kinds.cube.signature", "optional", "if-present"}},
		{"unsigned and not guarded", kind("cube", config.Kind{Signature: "none"}), []string{"accounts.acme.kinds.cube.signature", "path_token"}},
		{"perhaps unsigned and not guarded", kind("cube", config.Kind{Signature: "if-present"}), []string{"accounts.acme.kinds.cube.signature"}},
		{"short path token", kind("cube", config.Kind{PathToken: &config.Secret{File: short}}), []string{"accounts.acme.kinds.cube.path_token", "16"}},
		{"path token with a slash", kind("cube", config.Kind{PathToken: &config.Secret{File: odd}}), []string{"accounts.acme.kinds.cube.path_token"}},
		{"path token from nowhere", kind("cube", config.Kind{PathToken: &config.Secret{}}), []string{"accounts.acme.kinds.cube.path_token"}},
		{"no network", kind("cube", config.Kind{AllowedSources: []string{"linksfield.example"}}), []string{"accounts.acme.kinds.cube.allowed_sources", "linksfield.example"}},
		{"no network of a proxy", func(c *config.Config) { c.Webhook.TrustedProxies = []string{"proxy"} }, []string{"webhook.trusted_proxies", "proxy"}},
		{"hardly a quarantine", func(c *config.Config) { c.Log.QuarantineBytes = 16<<20 - 1 }, []string{"log", "16 MiB"}},
		{"body over a record", func(c *config.Config) { c.Webhook.MaxBody = 256<<10 + 1 }, []string{"webhook.max_body", "256KiB"}},
		{"negative requests", func(c *config.Config) { c.Webhook.MaxRequests = -1 }, []string{"webhook.max_requests"}},
		{"negative streams", func(c *config.Config) { c.GRPC.MaxStreams = -1 }, []string{"grpc.max_streams"}},
		{"name with a port", func(c *config.Config) { c.REST.AllowedHosts = []string{"gateway.example:9092"} }, []string{"rest.allowed_hosts", "gateway.example:9092", "without scheme and port"}},
		{"origin for a name", func(c *config.Config) { c.REST.AllowedHosts = []string{"a", "https://gateway.example"} }, []string{"rest.allowed_hosts", "https://"}},
		{"another scheme", func(c *config.Config) { c.Webhook.PublicURL = "ftp://hooks.example.com" }, []string{"webhook.public_url", "ftp://"}},
		{"no scheme", func(c *config.Config) { c.Webhook.PublicURL = "hooks.example.com" }, []string{"webhook.public_url", "https://"}},
		{"any name", func(c *config.Config) { c.REST.AllowedHosts = []string{"*"} }, []string{"rest.allowed_hosts", "*"}},
		{"no time to read", func(c *config.Config) { c.Webhook.ReadTimeout = 1 }, []string{"webhook.read_timeout: 1ns is too short: at least 10ms"}},
		{"no time to send", func(c *config.Config) { c.GRPC.SendTimeout = config.Duration(9 * time.Millisecond) }, []string{"grpc.send_timeout: 9ms is too short"}},
		{"no time to stop", func(c *config.Config) { c.DrainTimeout = 20 }, []string{"drain_timeout: 20ns is too short"}},
		{"no time to stream", func(c *config.Config) { c.GRPC.MaxStreamAge = 3600 }, []string{"grpc.max_stream_age: 3.6µs is too short"}},
		{"two logs", func(c *config.Config) { c.Log.NATS, c.Log.Fsync = &config.NATS{URL: "nats://localhost"}, nil }, []string{"log.dir"}},
		{"another's fsync", func(c *config.Config) {
			c.Log.Dir, c.Log.NATS, c.Log.Fsync = "", &config.NATS{URL: "nats://localhost"}, &noSync
		}, []string{"log.fsync", "sync_interval"}},
		{"no cluster", func(c *config.Config) { c.Log = config.Log{NATS: &config.NATS{}} }, []string{"log.nats.url"}},
		{"a password in the URL", func(c *config.Config) { c.Log = config.Log{NATS: &config.NATS{URL: "nats://a:b@localhost"}} }, []string{"log.nats.url", "password_file"}},
		{"a user without a password", func(c *config.Config) {
			c.Log = config.Log{NATS: &config.NATS{URL: "nats://localhost", User: "gateway"}}
		}, []string{"log.nats.user"}},
		{"no credentials", func(c *config.Config) {
			c.Log = config.Log{NATS: &config.NATS{URL: "nats://localhost", CredentialsFile: "/nowhere"}}
		}, []string{"log.nats.credentials_file"}},
		{"too many replicas", func(c *config.Config) {
			c.Log = config.Log{NATS: &config.NATS{URL: "nats://localhost", Replicas: 6}}
		}, []string{"log.nats.replicas", "6"}},
		{"hardly a log", func(c *config.Config) { c.Log.MaxBytes = 16<<20 - 1 }, []string{"log", "16 MiB"}},
		{"no certificate", func(c *config.Config) { c.Webhook.TLS = &config.TLS{} }, []string{"webhook.tls"}},
		{"certificate that is none", func(c *config.Config) { c.GRPC.TLS = &config.TLS{CertFile: text, KeyFile: text} }, []string{"grpc.tls"}},
		{"missing client CA", func(c *config.Config) {
			c.GRPC.TLS = &config.TLS{CertFile: certificate, KeyFile: key, ClientCAFile: missing}
		}, []string{"grpc.tls.client_ca_file"}},
		{"client CA that is none", func(c *config.Config) {
			c.GRPC.TLS = &config.TLS{CertFile: certificate, KeyFile: key, ClientCAFile: text}
		}, []string{"grpc.tls.client_ca_file", "no certificate"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t)
			if err := cfg.Check(); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			tt.change(&cfg)
			err := cfg.Check()
			if err == nil {
				t.Fatal("Check found nothing")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
			for _, private := range []string{"Qp1-too-short", inlineSecret, md5Secret, hmacSecret, orderToken} {
				if strings.Contains(err.Error(), private) {
					t.Errorf("the error holds the secret %s: %v", private, err)
				}
			}
			if ran := server.Run(t.Context(), cfg, quietEnv(t)); ran == nil || ran.Error() != err.Error() {
				t.Errorf("Run: %v; want what Check says: %v", ran, err)
			}
		})
	}
}

// quietEnv is that of a gateway that must not start.
func quietEnv(t *testing.T) server.Env {
	return server.Env{
		Logger: slog.New(slog.DiscardHandler),
		Ready:  func(server.Serving) { t.Error("the gateway started") },
	}
}

func TestAllProblemsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	cfg, err := readConfig(t, "webhook: {max_body: 1MiB, max_requests: -1}\ngrpc: {max_streams: -1}\nlog: {max_bytes: 1MiB}\naccounts: {A: {}}\n")
	if err != nil {
		t.Fatal(err)
	}
	err = cfg.Check()
	for _, part := range []string{"webhook.max_body", "webhook.max_requests", "grpc.max_streams", "log", "accounts.A"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("nothing is said about %s: %v", part, err)
		}
	}
}

func TestRunTellsWhyItCouldNotStart(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for name, tt := range map[string]struct {
		change func(*config.Config)
		want   string
	}{
		"webhook address in use": {func(c *config.Config) { c.Listen.Webhook = g.Webhook.String() }, "listen.webhook"},
		"gRPC address in use":    {func(c *config.Config) { c.Listen.GRPC = g.GRPC.String() }, "listen.grpc"},
		"REST address in use":    {func(c *config.Config) { c.Listen.REST = g.REST.String() }, "listen.rest"},
		"admin address in use":   {func(c *config.Config) { c.Listen.Admin = g.Admin.String() }, "listen.admin"},
		"no address":             {func(c *config.Config) { c.Listen.Admin = "here" }, "listen.admin"},
		"directory in use":       {func(c *config.Config) { c.Log.Dir = g.config.Log.Dir }, "in use"},
		"directory is a file":    {func(c *config.Config) { c.Log.Dir = writeFile(t, "file", "") }, "directory"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			tt.change(&cfg)
			if err := server.Run(t.Context(), cfg, quietEnv(t)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want an error that says %q", err, tt.want)
			}
		})
	}
}

// TestRunKeepsTheClusterPassword configures NATS clusters that cannot be reached, whose URLs hold a password.
// That nothing can be written is told at once, not only when a notification could not be.
func TestRunWarnsOfADiskWithoutRoom(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := testConfig(t)
	cfg.Log.MinFree = 1 << 60
	var said bytes.Buffer
	err := server.Run(ctx, cfg, server.Env{
		Logger: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Ready:  func(server.Serving) { cancel() },
	})
	if err != nil || !strings.Contains(said.String(), "level=WARN msg=\"notifications are answered with 503 until the log can be written\"") ||
		!strings.Contains(said.String(), "MiB are reserved") {
		t.Errorf("%v, %s", err, said.String())
	}
}

func TestRunKeepsTheClusterPassword(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, url := range map[string]string{
		"nobody there": "nats://user:" + inlineSecret + "@" + closed.Addr().String(),
		"bad escape":   "nats://user:" + inlineSecret + "%zz@" + closed.Addr().String(),
		"bad password": "nats://user:" + inlineSecret + "/x@localhost",
		"bad port":     "nats://user:" + inlineSecret + "@localhost:port",
	} {
		cfg := testConfig(t)
		cfg.Log = config.Log{NATS: &config.NATS{URL: url}, Spool: config.Spool{Dir: t.TempDir()}, MinFree: 1}
		if err := server.Run(t.Context(), cfg, quietEnv(t)); err == nil || strings.Contains(err.Error(), inlineSecret) {
			t.Errorf("%s: %v; want an error without the password", name, err)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	env := quietEnv(t)
	env.Ready = func(server.Serving) { cancel() }
	if err := server.Run(ctx, testConfig(t), env); err != nil {
		t.Errorf("%v; want nil", err)
	}
}

// writeCertificate makes a certificate for 127.0.0.1 that is its own authority, and returns the files of it and of its key.
func writeCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "gateway.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		writeFile(t, "gateway.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
}

// checkSet requires that no field of a configuration was left out. It does not look into accounts.
func checkSet(t *testing.T, where string, value reflect.Value) {
	t.Helper()
	switch {
	case value.IsZero():
		t.Errorf("%s is not set", where)
	case value.Kind() == reflect.Pointer:
		checkSet(t, where, value.Elem())
	case value.Kind() == reflect.Struct:
		for i := range value.NumField() {
			checkSet(t, where+"."+value.Type().Field(i).Name, value.Field(i))
		}
	}
}

// TestEverythingSet serves a configuration file in which nothing is left out, TLS with client certificates included.
func TestEverythingSet(t *testing.T) {
	t.Parallel()
	certificate, key := writeCertificate(t)
	cfg, err := readConfig(t, strings.NewReplacer(
		"DIR", t.TempDir(), "CERTIFICATE", certificate, "KEY", key,
		"MD5", secret(t, "md5", md5Secret).File, "HMAC", secret(t, "hmac", hmacSecret).File, "TOKEN", secret(t, "token", orderToken).File,
		"JWKS", newIssuer(t).writeKeys(t),
	).Replace(readExample(t, "everything.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	// A NATS cluster excludes the directory.
	complete := cfg
	complete.Log.Spool = config.Spool{Dir: "set", MaxBytes: 1}
	complete.Log.NATS = &config.NATS{
		URL: "set", CredentialsFile: "set", NKeyFile: "set", TokenFile: "set", User: "set", PasswordFile: "set", CAFile: "set", CertFile: "set",
		KeyFile: "set", Prefix: "set", Domain: "set", PlacementTags: []string{"set"}, Replicas: 1,
	}
	checkSet(t, "", reflect.ValueOf(complete))
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, cfg)

	for _, url := range g.URLs {
		if url.Text != "https://hooks.example.com/linksfield/"+url.Account+"/"+url.Kind || url.PathToken != (url.Kind == "plan-order-status") {
			t.Errorf("%+v; want it under the public URL, a path token only for orders", url)
		}
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	withCertificate := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	without := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}

	for name, tt := range map[string]struct {
		tls *tls.Config
		ok  bool
	}{"with": {withCertificate, true}, "without": {without, false}} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: tt.tls}, Timeout: patience}
		request, err := makeSMS(t, 1).Request(t.Context(), "https://"+g.Webhook.String()+"/linksfield/acme")
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if got := err == nil && response.StatusCode == http.StatusOK; got != tt.ok {
			t.Errorf("webhook, %s a client certificate: %v, %v", name, response, err)
		}
		client.CloseIdleConnections()

		conn, err := grpc.NewClient(g.GRPC.String(), grpc.WithTransportCredentials(credentials.NewTLS(tt.tls)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = linksgatev1.NewNotificationServiceClient(conn).GetLogInfo(t.Context(), &linksgatev1.GetLogInfoRequest{})
		if want := map[bool]codes.Code{true: codes.OK, false: codes.Unavailable}[tt.ok]; status.Code(err) != want {
			t.Errorf("gRPC, %s a client certificate: %v; want %v", name, err, want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestReadingsAreChecked requires that a reading that there is not is refused, with those that there are.
func TestReadingsAreChecked(t *testing.T) {
	t.Parallel()
	cfg, err := readConfig(t, "accounts: {acme: {readings: [membres], md5_secrets: [{env: PATH}]}}\n")
	if err == nil {
		err = cfg.Check()
	}
	if err == nil || !strings.Contains(err.Error(), `accounts.acme.readings: no such reading as "membres"`) || !strings.Contains(err.Error(), "members/spelled") {
		t.Errorf("%v", err)
	}
}
