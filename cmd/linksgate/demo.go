package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server"
	"github.com/linksgate/linksgate/server/config"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

const demoLong = `Demo runs the whole of Linksgate on a temporary directory: a gateway with a made-up
account, a simulated Linksfield that sends one notification of every kind, signed
both ways, and a live subscriber that prints what arrives. It then forges a
notification, stops the gateway, sends again after it is back, and replays the log.

Everything is real but the sender: HTTP, signatures, fsync, gRPC.`

const (
	demoAccount = "demo"
	demoKeyID   = "demo-key"
	demoPause   = 250 * time.Millisecond
	demoPatient = 20 * time.Second // for what should take milliseconds
)

func newDemoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole thing, with a simulated Linksfield",
		Long:  demoLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := os.MkdirTemp("", "linksgate-demo-")
			if err != nil {
				return err
			}
			defer func() { _ = os.RemoveAll(dir) }()
			// Output that nobody reads any more ends the demonstration, and not the process with its directory left behind.
			brokenPipes := make(chan os.Signal, 1)
			signal.Notify(brokenPipes, syscall.SIGPIPE)
			defer signal.Stop(brokenPipes)
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			d := &demo{out: &syncWriter{w: cmd.OutOrStdout(), failed: stop}, dir: dir}
			err = d.run(ctx, keep)
			if unread, interrupted := ctx.Err() != nil, cmd.Context().Err() != nil; unread && (!interrupted || keep) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "go on sending, one a second, until interrupted")
	return cmd
}

// demo is one run of the demonstration. Its fields belong to the goroutine of run.
type demo struct {
	out    *syncWriter
	dir    string
	config config.Config
	sender simulator.Sender
	sent   uint64
}

// syncWriter lets the sender and the subscriber print at the same time.
type syncWriter struct {
	failed func() // called when something cannot be written

	mu sync.Mutex
	w  io.Writer // mu
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.w.Write(p)
	if err != nil {
		s.failed()
	}
	return n, err
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) run(ctx context.Context, keep bool) error {
	if err := d.configure(); err != nil {
		return err
	}
	d.say("# A gateway with an empty log, and a subscriber to it")
	gateway, err := d.start(ctx)
	if err != nil {
		return err
	}
	defer func() { gateway.stop() }()
	// The gateway keeps its addresses when it comes back.
	d.config.Listen = config.Listen{
		Webhook: gateway.serving.Webhook.String(), GRPC: gateway.serving.GRPC.String(), REST: gateway.serving.REST.String(),
		Admin: gateway.serving.Admin.String(),
	}
	d.say("webhooks on http://%s, gRPC on %s, REST on http://%s, %s\n",
		gateway.serving.Webhook, gateway.serving.GRPC, gateway.serving.REST, gateway.serving.Durability)
	live, err := d.subscribe(ctx, gateway.serving.GRPC.String(), "  received  ", nil)
	if err != nil {
		return err
	}
	defer live.stop()

	d.say("# Linksfield sends one notification of each kind")
	for _, kind := range payload.Kinds() {
		if err := d.deliver(ctx, kind, &d.sender, live); err != nil {
			return err
		}
	}
	d.say("\n# Somebody else sends one: refused, and not in the log")
	if err := d.deliver(ctx, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, d.sender.Forger(), nil); err != nil {
		return err
	}
	d.say("\n# The gateway stops and starts again on the same directory; the subscriber goes on where it was")
	gateway.stop()
	if gateway, err = d.start(ctx); err != nil {
		return err
	}
	if err := d.deliver(ctx, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, &d.sender, live); err != nil {
		return err
	}
	d.say("\n# A second subscriber reads the log from its beginning")
	end := &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true}
	replay, err := d.subscribe(ctx, gateway.serving.GRPC.String(), "  replayed  ", end)
	if err != nil {
		return err
	}
	if err := replay.wait(); err != nil {
		return err
	}
	if !keep {
		d.say("\nThat was all of it. linksgate demo --keep goes on, and says how to follow it from another terminal.")
		return nil
	}
	d.say("\n# Going on, one a second, until interrupted. In another terminal: linksgate tail %s --from-start", gateway.serving.GRPC)
	for n := 0; wait(ctx, time.Second) == nil; n++ {
		if err := d.deliver(ctx, payload.Kinds()[n%len(payload.Kinds())], &d.sender, live); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// configure makes up an account.
func (d *demo) configure() error {
	d.sender = simulator.Sender{
		MD5:   signature.Secret{Name: "demo-md5", Value: "a made-up notification secret"},
		KeyID: demoKeyID,
		HMAC:  signature.Secret{Name: "demo-hmac", Value: "a made-up key"},
	}
	for _, secret := range []signature.Secret{d.sender.MD5, d.sender.HMAC} {
		if err := os.WriteFile(filepath.Join(d.dir, secret.Name), []byte(secret.Value), 0o600); err != nil {
			return err
		}
	}
	secretFile := func(secret signature.Secret) config.Secret {
		return config.Secret{File: filepath.Join(d.dir, secret.Name)}
	}
	d.config = config.Config{
		Listen: config.Listen{Webhook: "127.0.0.1:0", GRPC: "127.0.0.1:0", REST: "127.0.0.1:0", Admin: "127.0.0.1:0"},
		Log:    config.Log{Dir: filepath.Join(d.dir, "data")},
		Accounts: map[string]config.Account{demoAccount: {
			MD5Secrets: []config.Secret{secretFile(d.sender.MD5)},
			HMACKeys:   []config.HMACKey{{ID: demoKeyID, Secret: secretFile(d.sender.HMAC)}},
		}},
	}
	return nil
}

// background is something that runs beside the demonstration.
type background struct {
	cancel context.CancelFunc
	ended  chan error // one error, then closed
}

func inBackground(ctx context.Context, run func(context.Context) error) *background {
	ctx, cancel := context.WithCancel(ctx)
	b := &background{cancel: cancel, ended: make(chan error, 1)}
	go func() {
		defer close(b.ended)
		b.ended <- run(ctx)
	}()
	return b
}

// wait waits for the end and returns its error.
func (b *background) wait() error { return <-b.ended }

// stop ends it and waits.
func (b *background) stop() {
	b.cancel()
	_ = b.wait()
}

type demoGateway struct {
	*background
	serving server.Serving
}

// start runs the gateway and returns when it serves.
func (d *demo) start(ctx context.Context) (*demoGateway, error) {
	ready := make(chan server.Serving, 1)
	g := &demoGateway{background: inBackground(ctx, func(ctx context.Context) error {
		return server.Run(ctx, d.config, server.Env{
			Logger:  slog.New(slog.DiscardHandler),
			Version: version(),
			Ready:   func(s server.Serving) { ready <- s },
		})
	})}
	select {
	case g.serving = <-ready:
		return g, nil
	case err := <-g.ended:
		if err == nil {
			err = ctx.Err()
		}
		return nil, err
	}
}

// subscriber prints what it receives.
type subscriber struct {
	*background
	shown chan string // ids of what was printed
}

func (d *demo) subscribe(ctx context.Context, address, prefix string, until *linksgatev1.SubscribeRequest_UntilHead) (*subscriber, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	request := &linksgatev1.SubscribeRequest{
		Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}, MaxBatch: greatestBatch, ClientName: "linksgate demo",
	}
	if until != nil {
		request.Until = until
	}
	s := &subscriber{shown: make(chan string, 1000)}
	print := printer(bufio.NewWriter(&prefixWriter{d.out, prefix}), false)
	f := follower{
		client:  linksgatev1.NewNotificationServiceClient(conn),
		request: request,
		show: func(notifications []*linksgatev1.Notification) error {
			for _, n := range notifications {
				select {
				case s.shown <- n.GetId():
				default: // nobody is waiting for so many
				}
			}
			return print(notifications)
		},
		remember: func(string) error { return nil },
		session: session{
			notice:  func(text string) { d.say("  subscriber: %s", text) },
			wait:    wait,
			silence: 3 * defaultHeartbeat,
		},
	}
	s.background = inBackground(ctx, func(ctx context.Context) error { return errors.Join(f.run(ctx), conn.Close()) })
	return s, nil
}

// prefixWriter puts a prefix before every line. It is given whole lines.
type prefixWriter struct {
	w      io.Writer
	prefix string
}

func (p *prefixWriter) Write(text []byte) (int, error) {
	lines := strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
	_, err := io.WriteString(p.w, p.prefix+strings.Join(lines, p.prefix)+"\n")
	return len(text), err
}

// deliver sends a notification and, if there is a subscriber, waits until it has shown it.
func (d *demo) deliver(ctx context.Context, kind linksgatev1.NotificationKind, sender *simulator.Sender, live *subscriber) error {
	d.sent++
	n, err := sender.Make(kind, d.sent)
	if err != nil {
		return err
	}
	request, err := n.Request(ctx, "http://"+d.config.Listen.Webhook+"/linksfield/"+demoAccount)
	if err != nil {
		return err
	}
	answer, err := d.post(request, simulator.Scheme(kind))
	if err != nil {
		return err
	}
	if live == nil {
		return nil
	}
	timeout := time.After(demoPatient)
	for {
		select {
		case id := <-live.shown:
			if strings.Contains(answer, id) {
				return wait(ctx, demoPause)
			}
		case <-timeout:
			return fmt.Errorf("the subscriber did not receive the notification within %v", demoPatient)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// post sends a request, prints what became of it, and returns the answer's body.
func (d *demo) post(request *http.Request, scheme string) (string, error) {
	// The subscriber has the notification before the answer is here. Cause goes before effect all the same.
	d.out.mu.Lock()
	defer d.out.mu.Unlock()
	start := time.Now()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(d.out.w, "POST %-45s %-9s -> %d in %.1f ms\n", request.URL.Path, scheme, response.StatusCode,
		float64(time.Since(start).Microseconds())/1000)
	return string(answer), err
}
