package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/linksgate/linksgate/server"
	"github.com/linksgate/linksgate/server/config"
)

const serveLong = `Serve receives Linksfield's notifications over HTTP, writes them to the log, and
streams them over gRPC and REST, until it gets SIGINT or SIGTERM. It then finishes what it
has accepted; a second signal ends it at once, and still loses nothing that was
answered with 200.

The configuration is a YAML file. The smallest one:

    accounts:
      acme:
        md5_secrets:
          - file: /run/secrets/linksfield-md5
        hmac_keys:
          - id: Ou8a5lyzPjN86ikmLeFC
            env: LINKSFIELD_HMAC_KEY

A flag goes before its environment variable, and that before the file. Addresses
are on loopback unless told otherwise; others are refused unless they have TLS and
callers, or the configuration says that it is meant so.

Accounts, their secrets, the trusted proxies, callers, their rights and certificates can
change while it runs: it looks at the configuration and the files that it names every two
seconds, and at once on SIGHUP. What cannot be used changes nothing, and the reasons are logged; GET /config
at the admin address shows them too. Everything else needs a restart.

Sockets that a service manager listens on (systemd socket activation, LISTEN_FDS) are
used instead of the addresses whose names they have: webhook, grpc, rest, admin. While
the gateway is restarted, connections then wait instead of being refused.

To change a secret without losing a notification, add the new one under a name of
its own beside the old, have Linksfield change over, and take the old one out when
linksgate secrets check says so.`

const defaultConfigFile = "linksgate.yaml"

// serveFlags are the settings that are given often enough to have a flag and an environment variable.
type serveFlags struct {
	config                     string
	webhook, grpc, rest, admin string
	dataDir                    string
	logLevel, logFormat        string
	check                      bool
}

func newServeCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Receive notifications and stream them: the gateway",
		Long:  serveLong,
		Example: `  linksgate serve --config linksgate.yaml --check
  linksgate serve --config linksgate.yaml --webhook-addr 127.0.0.1:8000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	for _, flag := range []struct {
		value             *string
		name, env, def    string
		what              string
		defaultInFileOnly bool
	}{
		{&f.config, "config", "LINKSGATE_CONFIG", defaultConfigFile, "configuration `FILE`", false},
		{&f.webhook, "webhook-addr", "LINKSGATE_WEBHOOK_ADDR", "127.0.0.1:8080", "`ADDRESS` that Linksfield sends to", true},
		{&f.grpc, "grpc-addr", "LINKSGATE_GRPC_ADDR", "127.0.0.1:9090", "`ADDRESS` that services subscribe at", true},
		{&f.rest, "rest-addr", "LINKSGATE_REST_ADDR", "127.0.0.1:9092", "`ADDRESS` of the same as JSON over HTTP", true},
		{&f.admin, "admin-addr", "LINKSGATE_ADMIN_ADDR", "127.0.0.1:9091", "`ADDRESS` of /healthz, /readyz, /metrics, /config and /secrets", true},
		{&f.dataDir, "data-dir", "LINKSGATE_DATA_DIR", "linksgate-data", "`DIR` of the embedded log", true},
		{&f.logLevel, "log-level", "LINKSGATE_LOG_LEVEL", "info", "debug, info, warn or error", false},
		{&f.logFormat, "log-format", "LINKSGATE_LOG_FORMAT", "text", "text or json", false},
	} {
		initial := os.Getenv(flag.env)
		if !flag.defaultInFileOnly {
			initial = cmp.Or(initial, flag.def)
		}
		flags.StringVar(flag.value, flag.name, initial, flag.what+" ("+flag.env+")")
		if flag.defaultInFileOnly {
			flags.Lookup(flag.name).Usage += "; default " + flag.def
		}
	}
	flags.BoolVar(&f.check, "check", false, "check the configuration, secrets and certificates included, and exit")
	return cmd
}

func (f *serveFlags) run(cmd *cobra.Command) error {
	logger, err := newLogger(cmd.ErrOrStderr(), f.logLevel, f.logFormat)
	if err != nil {
		return err
	}
	cfg, err := f.readConfig()
	if err != nil {
		return err
	}
	found, err := config.Examine(cfg)
	if err != nil {
		return fmt.Errorf("the configuration %s cannot be used:\n%s", f.config, indent(err.Error()))
	}
	out := cmd.OutOrStdout()
	found.Warn(logger)
	if f.check {
		fmt.Fprintf(out, "%s is fine.\n", f.config)
		return nil
	}
	signal.Ignore(syscall.SIGPIPE) // whoever read the output may go: intake must not end with it
	sockets, err := handedOver()
	if err != nil {
		return err
	}
	reload, stop := hangups()
	defer stop()
	err = server.Run(cmd.Context(), cfg, server.Env{
		Logger:  logger,
		Version: version(),
		Sockets: sockets,
		Source:  f.readConfig,
		Reload:  reload,
		Ready:   func(s server.Serving) { printServing(out, s) },
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "Stopped: everything that was answered with 200 is in the log.")
	return nil
}

// hangups passes SIGHUP on until stop is called.
func hangups() (_ <-chan struct{}, stop func()) {
	signals, reload := make(chan os.Signal, 1), make(chan struct{}, 1)
	signal.Notify(signals, syscall.SIGHUP)
	var passing sync.WaitGroup
	passing.Go(func() {
		for range signals {
			select {
			case reload <- struct{}{}:
			default: // the reload that is about to begin will find what is there now
			}
		}
	})
	return reload, func() {
		signal.Stop(signals)
		close(signals)
		passing.Wait()
	}
}

// readConfig reads the file and puts flags and environment on top.
func (f *serveFlags) readConfig() (config.Config, error) {
	cfg, err := config.Read(f.config)
	if errors.Is(err, fs.ErrNotExist) && f.config == defaultConfigFile {
		return cfg, fmt.Errorf("there is no %s here: write one (linksgate serve --help shows the smallest) or name it with --config", f.config)
	}
	if err != nil {
		return cfg, err
	}
	for field, value := range map[*string]string{
		&cfg.Listen.Webhook: f.webhook, &cfg.Listen.GRPC: f.grpc, &cfg.Listen.REST: f.rest, &cfg.Listen.Admin: f.admin,
		&cfg.Log.Dir: f.dataDir,
	} {
		*field = cmp.Or(value, *field)
	}
	return cfg, nil
}

// newLogger returns the logger that a level and a format name.
func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("%q is not a log level: debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usagef("%q is not a log format: text or json", format)
}

// printServing tells what is served, what to give to Linksfield, and what a 200 stands for.
func printServing(w io.Writer, s server.Serving) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "Linksgate %s\n", version())
	fmt.Fprintf(table, "  webhooks\t%s on %s\n", s.WebhookScheme, s.Webhook)
	fmt.Fprintf(table, "  gRPC\t%s\n", s.GRPC)
	fmt.Fprintf(table, "  REST\t%s on %s, described at /openapi.json\n", s.RESTScheme, s.REST)
	fmt.Fprintf(table, "  admin\thttp://%s/readyz, /healthz, /metrics, /config, /secrets, /callers\n", s.Admin)
	fmt.Fprintf(table, "  access\t%s\n", accessText(s))
	fmt.Fprintf(table, "  log\t%s in %s: %s\n", s.LogID, s.LogPlace, extent(s))
	fmt.Fprintf(table, "  durability\t%s\n", s.Durability)
	fmt.Fprintf(table, "  retention\t%s\n", retention(s))
	fmt.Fprintln(table, "URLs to give to Linksfield:")
	for _, url := range s.URLs {
		text := url.Text
		if url.PathToken {
			text += "/<path token>"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\n", url.Account, url.Kind, text)
	}
	_ = table.Flush() // a closed terminal is no reason to stop
}

// accessText says who may do what.
func accessText(s server.Serving) string {
	if !s.Guarded {
		return "everybody who connects may do everything; see linksgate token --help"
	}
	return plural(int64(s.Callers), "caller")
}

func extent(s server.Serving) string {
	if s.Log.Empty() {
		return "empty"
	}
	return fmt.Sprintf("%d record batches since %s", s.Log.Batches, s.Log.FirstWritten.Local().Format(time.DateTime))
}

func retention(s server.Serving) string {
	age := "any age"
	if s.Log.MaxAge > 0 {
		age = s.Log.MaxAge.String()
		if days := s.Log.MaxAge / (24 * time.Hour); s.Log.MaxAge%(24*time.Hour) == 0 {
			age = fmt.Sprintf("%d days", days)
		}
	}
	return fmt.Sprintf("%s, %s, the oldest goes first", age, sizeText(s.Log.MaxBytes))
}

// sizeText writes a number of bytes in the greatest unit of which there is one.
func sizeText(bytes int64) string {
	unit := "B"
	size := float64(bytes)
	for _, greater := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if size < 1<<10 {
			break
		}
		size, unit = size/(1<<10), greater
	}
	return strings.TrimSuffix(strconv.FormatFloat(size, 'f', 1, 64), ".0") + " " + unit
}

func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }
