package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

const (
	account = "acme"
	keyID   = "faults"
)

// Options of a gateway. The zero value of a field leaves it to the gateway.
type Options struct {
	// LogDir is the directory of the log. Default: one below the gateway's own.
	LogDir string
	// MinFree is the free space, in bytes, below which the gateway writes nothing.
	MinFree int64
	// OwnClock gives the gateway's processes a wall clock of their own, if this machine can: see [Gateway.SetClock].
	OwnClock bool
	// Access is the section of the configuration that says who may do what; empty: everybody everything.
	Access string
}

// Secrets are what Linksfield signs with, under a name that is unique for one gateway.
type Secrets string

// FirstSecrets are those that a new gateway accepts.
const FirstSecrets Secrets = "first"

func (s Secrets) md5() string  { return "the md5 secret named " + string(s) }
func (s Secrets) hmac() string { return "the hmac secret named " + string(s) }

// Sender returns a sender that signs with these secrets.
func (s Secrets) Sender() *simulator.Sender {
	return &simulator.Sender{MD5: signature.Secret{Value: s.md5()}, KeyID: keyID, HMAC: signature.Secret{Value: s.hmac()}}
}

// settings are what a gateway's configuration says.
type settings struct {
	Options
	dir       string
	addresses []string // of webhook, gRPC, administration and REST
	secrets   []Secrets
}

func newSettings(dir string, addresses []string, options Options) settings {
	if options.LogDir == "" {
		options.LogDir = filepath.Join(dir, "log")
	}
	return settings{Options: options, dir: dir, addresses: addresses}
}

func (s *settings) path() string { return filepath.Join(s.dir, "linksgate.yaml") }

func (s *settings) secretFile(scheme string, secrets Secrets) string {
	return filepath.Join(s.dir, scheme+"-"+string(secrets))
}

// text is the configuration.
func (s *settings) text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "listen: {webhook: %q, grpc: %q, admin: %q, rest: %q}\ndrain_timeout: %s\nlog:\n  dir: %q\n",
		s.addresses[0], s.addresses[1], s.addresses[2], s.addresses[3], DrainTimeout, s.LogDir)
	if s.MinFree > 0 {
		fmt.Fprintf(&text, "  min_free: %dB\n", s.MinFree)
	}
	fmt.Fprintf(&text, "accounts:\n  %s:\n    md5_secrets:\n", account)
	for _, one := range s.secrets {
		fmt.Fprintf(&text, "      - {name: %s, file: %q}\n", one, s.secretFile("md5", one))
	}
	text.WriteString("    hmac_keys:\n")
	for _, one := range s.secrets {
		fmt.Fprintf(&text, "      - {name: %s, id: %q, file: %q}\n", one, keyID, s.secretFile("hmac", one))
	}
	text.WriteString(s.Access)
	return text.String()
}

// Allow writes a configuration with another section that says who may do what. A process that runs is told by [Gateway.Reload].
func (g *Gateway) Allow(access string) error {
	g.settings.Access = access
	return g.settings.write()
}

// write puts the configuration and its files in place, each of them at once.
func (s *settings) write() error {
	for _, one := range s.secrets {
		for path, text := range map[string]string{s.secretFile("md5", one): one.md5(), s.secretFile("hmac", one): one.hmac()} {
			if err := writeWhole(path, text); err != nil {
				return err
			}
		}
	}
	return writeWhole(s.path(), s.text())
}

// writeWhole writes a file that nobody sees half written.
func writeWhole(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Accept writes a configuration that accepts what is signed with any of these secrets. A process that runs is told by [Gateway.Reload].
func (g *Gateway) Accept(secrets ...Secrets) error {
	g.settings.secrets = secrets
	if err := g.settings.write(); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// SetMinFree writes a configuration with another reserve of free space, for the next process.
func (g *Gateway) SetMinFree(bytes int64) error {
	g.settings.MinFree = bytes
	return g.Accept(g.settings.secrets...)
}

// Spoil writes a configuration that cannot be used. Accept mends it.
func (g *Gateway) Spoil() error {
	return writeWhole(g.settings.path(), g.settings.text()[:len(g.settings.text())/2]+"\n\tnonsense: [")
}

// Reload tells the process to read its configuration again, and waits until it has. It returns whether the gateway could use it.
func (g *Gateway) Reload(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, exitTimeout)
	defer cancel()
	before, err := g.reloaded(ctx)
	if err != nil {
		return false, err
	}
	if err := g.process.signal(syscall.SIGHUP); err != nil {
		return false, err
	}
	var after reloaded
	if err := Await(ctx, "the gateway has read its configuration again", func() bool {
		after, err = g.reloaded(ctx)
		return err != nil || after != before
	}); err != nil {
		return false, err
	}
	return err == nil && after.loaded != before.loaded, err
}

// reloaded tells when a configuration was put in force last, and when one was refused; empty if never.
type reloaded struct{ loaded, refused string }

func (g *Gateway) reloaded(ctx context.Context) (reloaded, error) {
	_, text, err := g.get(ctx, "/config")
	if err != nil {
		return reloaded{}, fmt.Errorf("ask for the configuration in force: %w", err)
	}
	var state struct {
		LoadedAt    string              `json:"loaded_at"`
		LastFailure struct{ At string } `json:"last_failure"`
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return reloaded{}, fmt.Errorf("ask for the configuration in force: %w", err)
	}
	return reloaded{state.LoadedAt, state.LastFailure.At}, nil
}

// Ready reports whether the gateway says, over HTTP and over gRPC, that its log can be written. The two may differ for a moment.
func (g *Gateway) Ready(ctx context.Context) (overHTTP, overGRPC bool, err error) {
	status, _, err := g.get(ctx, "/readyz")
	if err != nil {
		return false, false, err
	}
	overGRPC, err = healthy(ctx, g.GRPC)
	return status == http.StatusOK, overGRPC, err
}

// get asks an administrative endpoint.
func (g *Gateway) get(ctx context.Context, path string) (status int, body []byte, err error) {
	status, _, body, err = g.ask(ctx, path)
	return status, body, err
}

func (g *Gateway) ask(ctx context.Context, path string) (status int, header http.Header, body []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.admin+path, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	r.Close = true // the process may be another one next time
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, body, err
}

// Release releases everything from quarantine, as an operator does.
func (g *Gateway) Release() (string, error) {
	out, err := g.command("quarantine", "release", "--all", "--address", g.GRPC).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("release from quarantine: %w\n%s", err, lastLines(string(out)))
	}
	return string(out), nil
}

// lastLines returns the end of what was printed.
func lastLines(text string) string {
	const most = 2 << 10
	return text[max(0, len(text)-most):]
}

// lastLine returns the last line of what was printed.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
