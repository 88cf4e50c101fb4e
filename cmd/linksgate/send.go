package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

const sendLong = `Send plays Linksfield: it makes up notifications, signs them with the secrets
given, and posts them to a gateway. Bodies have the documented fields where
Linksfield documents any, and say that they are made up where it does not.

URL is either that of one kind, as Linksfield would be given it:
    http://HOST/linksfield/ACCOUNT/KIND[/PATH_TOKEN]
or that of an account, to which all kinds, or those of --kind, are sent in turn:
    http://HOST/linksfield/ACCOUNT

Made-up bodies are numbered, and differ from those of other runs, which a gateway
would take for copies of them; --first makes the same ones again.

Expected is a 2xx, and 401 where the signature was made wrong on purpose. The
exit status is 1 when any other answer, or none, came back. Ctrl-C ends early
and still reports.

Kinds: %s.`

// greatestConcurrency keeps what is counted for each connection within some 300 MiB.
const greatestConcurrency = 4096

const sendExample = `  # One SMS from a SIM
  linksgate send http://localhost:8080/linksfield/acme/sms-received --secret-file md5.secret

  # Every kind in turn, 500 a second, each sent three times, one in ten forged
  linksgate send http://localhost:8080/linksfield/acme --count 10000 --rate 500 --concurrency 16 \
      --duplicates 2 --bad-signature 0.1 \
      --secret-file md5.secret --key-id k1 --key-file hmac.key

  # A body of your own
  linksgate send http://localhost:8080/linksfield/acme/cube --body event.json --key-id k1 --key-env CUBE_KEY`

// sendFlags are the flags of send as given.
type sendFlags struct {
	kinds        []string
	count        uint64
	rate         float64
	concurrency  int
	duplicates   int
	badSignature string
	unsigned     bool
	body         string
	secret, key  secretFlags
	keyID        string
	first        uint64
	ca           string
	timeout      time.Duration
	json         bool
}

func newSendCommand() *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:     "send URL",
		Short:   "Play Linksfield: send signed, made-up notifications to a gateway",
		Long:    fmt.Sprintf(sendLong, strings.Join(payload.KindNames(payload.Kinds()), ", ")),
		Example: sendExample,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("first") {
				f.first = someNumber()
			} else if f.body != "" {
				return usagef("--first and --body exclude each other")
			}
			load, err := f.load(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			return f.report(cmd, load)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.kinds, "kind", []string{"all"}, "kinds to send to an account's URL, in turn: `KIND,...` or all")
	flags.Uint64Var(&f.count, "count", 1, "`NUMBER` of notifications; 0: until Ctrl-C")
	flags.Float64Var(&f.rate, "rate", 0, "most notifications per second (`NUMBER`); 0: as fast as answers come")
	flags.IntVar(&f.concurrency, "concurrency", 1, "`NUMBER` of connections, each with one request at a time, up to "+strconv.Itoa(greatestConcurrency))
	flags.IntVar(&f.duplicates, "duplicates", 0, "send each notification again, byte for byte, this `NUMBER` of times")
	flags.StringVar(&f.badSignature, "bad-signature", "0", "how many to sign wrongly, spread evenly: a `NUMBER`, or a fraction such as 0.1")
	flags.BoolVar(&f.unsigned, "unsigned", false, "leave the signature out")
	flags.StringVar(&f.body, "body", "", "send the bytes of `FILE` (-: standard input) instead of made-up bodies")
	flags.Uint64Var(&f.first, "first", 0, "`NUMBER` of the first made-up notification: the same gives the same bodies again; default: one that no other run is likely to have")
	f.secret.register(flags, "secret", "the notification secret, for the kinds signed with md5")
	flags.StringVar(&f.keyID, "key-id", "", "`ID` of the key, for the kinds signed with hmac-sha1")
	f.key.register(flags, "key", "the key, for the kinds signed with hmac-sha1")
	flags.StringVar(&f.ca, "ca", "", "`FILE` of PEM certificates to trust instead of the system's, for an https URL")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Second, "longest wait for one answer (`DURATION`)")
	flags.BoolVar(&f.json, "json", false, "report as one line of JSON")
	return cmd
}

// load turns the flags into what is to be sent.
func (f *sendFlags) load(rawURL string, stdin io.Reader) (*load, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	targets, err := sendTargets(rawURL, f.kinds)
	if err != nil {
		return nil, err
	}
	bad, err := parseShare(f.badSignature, f.count)
	if err != nil {
		return nil, fmt.Errorf("--bad-signature: %w", err)
	}
	sender, err := f.sender(targets)
	if err != nil {
		return nil, err
	}
	client, err := f.client(rawURL)
	if err != nil {
		return nil, err
	}
	l := &load{
		targets:    targets,
		sender:     sender,
		forger:     sender.Forger(),
		count:      f.count,
		bad:        bad,
		duplicates: f.duplicates,
		workers:    f.concurrency,
		rate:       f.rate,
		client:     client,
		first:      f.first,
	}
	if f.body == "" {
		return l, nil
	}
	if l.body, err = readInput(f.body, stdin); err != nil {
		return nil, fmt.Errorf("read --body: %w", err)
	}
	if _, err := sender.MakeWithBody(targets[0].kind, l.body); err != nil {
		return nil, fmt.Errorf("%w; --unsigned sends any bytes", err)
	}
	return l, nil
}

func (f *sendFlags) check() error {
	switch {
	case f.concurrency < 1:
		return usagef("--concurrency must be at least 1")
	case f.concurrency > greatestConcurrency:
		return usagef("--concurrency must be at most %d: more connections than that say something about this machine, not about the gateway", greatestConcurrency)
	case f.duplicates < 0:
		return usagef("--duplicates must not be negative")
	case !(f.rate >= 0):
		return usagef("--rate must not be negative")
	case f.timeout <= 0:
		return usagef("--timeout must be more than 0")
	case f.unsigned && f.badSignature != "0":
		return usagef("--unsigned and --bad-signature exclude each other")
	}
	return nil
}

// sender reads the secrets that the targets need.
func (f *sendFlags) sender(targets []sendTarget) (*simulator.Sender, error) {
	if f.unsigned {
		return &simulator.Sender{Unsigned: true}, nil
	}
	needs := func(scheme string) string {
		var kinds []linksgatev1.NotificationKind
		for _, t := range targets {
			if simulator.Scheme(t.kind) == scheme {
				kinds = append(kinds, t.kind)
			}
		}
		return strings.Join(payload.KindNames(kinds), ", ")
	}
	const or = "; or choose other kinds with --kind, or send --unsigned"
	if kinds := needs(signature.SchemeMD5); kinds != "" && !f.secret.given() {
		return nil, usagef("signed with the notification secret: %s; name it with %s%s", kinds, f.secret.names(), or)
	}
	if kinds := needs(signature.SchemeHMAC); kinds != "" && (!f.key.given() || f.keyID == "") {
		return nil, usagef("signed with a key: %s; name it with --key-id and %s%s", kinds, f.key.names(), or)
	}
	if strings.Contains(f.keyID, "/") {
		return nil, usagef("--key-id must not contain a slash: in the header, the key id ends at the first one")
	}
	secret, err := f.secret.read()
	if err != nil {
		return nil, err
	}
	key, err := f.key.read()
	if err != nil {
		return nil, err
	}
	return &simulator.Sender{MD5: secret, KeyID: f.keyID, HMAC: key}, nil
}

// report sends the load and says how it was answered.
func (f *sendFlags) report(cmd *cobra.Command, l *load) error {
	stop := showProgress(cmd.ErrOrStderr(), l)
	result, err := l.run(cmd.Context())
	stop()
	if err != nil {
		return err
	}
	if f.json {
		err = printJSON(cmd.OutOrStdout(), result.summary())
	} else {
		_, err = io.WriteString(cmd.OutOrStdout(), result.text())
	}
	return errors.Join(err, result.verdict())
}

// showProgress writes a line every second when w is a terminal. The function
// that it returns ends this, and waits for it.
func showProgress(w io.Writer, l *load) (stop func()) {
	if !isTerminal(w) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				fmt.Fprint(w, "\r\x1b[K")
				return
			case <-ticker.C:
				fmt.Fprintf(w, "\r\x1b[K%s", l.progress())
			}
		}
	}()
	return func() { cancel(); <-done }
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// someNumber is a number to begin with that another run hardly comes near. The simulator's SIMs begin anew with each thousand, and
// its ICCIDs have room for twelve digits.
func someNumber() uint64 {
	const thousands = 1_000_000_000
	return rand.Uint64N(thousands) * simulator.SIMs
}

func (f *sendFlags) client(rawURL string) (*http.Client, error) {
	var trusted *x509.CertPool
	if f.ca != "" {
		if !strings.HasPrefix(strings.ToLower(rawURL), "https:") {
			return nil, usagef("--ca is for an https URL, and %s is none", rawURL)
		}
		var err error
		if trusted, err = readCA(f.ca); err != nil {
			return nil, err
		}
	}
	return newSendClient(f.concurrency, f.timeout, trusted), nil
}

// newSendClient keeps one connection for each worker, and takes a redirect for
// what it is: an answer that Linksfield would hardly follow.
// The certificates to trust may be nil: the system's.
func newSendClient(workers int, timeout time.Duration, trusted *x509.CertPool) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trusted}
	transport.MaxIdleConns = workers
	transport.MaxIdleConnsPerHost = workers
	transport.MaxConnsPerHost = workers
	return &http.Client{
		Transport:     transport,
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// sendTarget is one URL and the kind that is received there.
type sendTarget struct {
	kind linksgatev1.NotificationKind
	url  string
}

// sendTargets reads the URL argument. Anything may stand before /linksfield/,
// for a gateway behind a proxy.
func sendTargets(rawURL string, kindFlag []string) ([]sendTarget, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, usagef("%q is not a URL; give one such as http://localhost:8080/linksfield/acme", rawURL)
	}
	_, rest, found := strings.Cut(u.Path, "/linksfield/")
	parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	if !found || parts[0] == "" || len(parts) > 3 {
		return nil, usagef("the path of %s is not /linksfield/ACCOUNT or /linksfield/ACCOUNT/KIND[/PATH_TOKEN]", rawURL)
	}
	everyKind := slices.Equal(kindFlag, []string{"all"})
	if len(parts) > 1 {
		kind, ok := payload.KindByName(parts[1])
		if !ok {
			return nil, usagef("%q in the URL is not a kind; kinds are %s", parts[1], strings.Join(payload.KindNames(payload.Kinds()), ", "))
		}
		if !everyKind {
			return nil, usagef("the URL names the kind %s: leave --kind out, or the kind in the URL", parts[1])
		}
		return []sendTarget{{kind, rawURL}}, nil
	}
	kinds := payload.Kinds()
	if !everyKind {
		if kinds, err = parseKinds(kindFlag); err != nil {
			return nil, err
		}
	}
	targets := make([]sendTarget, len(kinds))
	for i, kind := range kinds {
		targets[i] = sendTarget{kind, u.JoinPath(payload.KindName(kind)).String()}
	}
	return targets, nil
}

// parseKinds reads the value of a --kind flag.
func parseKinds(names []string) ([]linksgatev1.NotificationKind, error) {
	kinds := make([]linksgatev1.NotificationKind, len(names))
	for i, name := range names {
		kind, ok := payload.KindByName(name)
		if !ok {
			return nil, usagef("--kind: %q is not a kind; kinds are %s", name, strings.Join(payload.KindNames(payload.Kinds()), ", "))
		}
		kinds[i] = kind
	}
	return kinds, nil
}

// share is a part of a sequence, spread evenly over it: hits of every total.
type share struct{ hits, total float64 }

// parseShare reads a whole number of count, or a fraction written with a point.
func parseShare(text string, count uint64) (share, error) {
	if strings.Contains(text, ".") {
		fraction, err := strconv.ParseFloat(text, 64)
		if err != nil || !(fraction >= 0 && fraction <= 1) {
			return share{}, usagef("%q is not a fraction from 0.0 to 1.0", text)
		}
		return share{hits: fraction, total: 1}, nil
	}
	hits, err := strconv.ParseUint(text, 10, 64)
	switch {
	case err != nil:
		return share{}, usagef("%q is neither a number nor a fraction such as 0.1", text)
	case hits == 0:
		return share{total: 1}, nil
	case count == 0:
		return share{}, usagef("a number needs a --count; give a fraction such as 0.1")
	case hits > count:
		return share{}, usagef("%d is more than the --count of %d", hits, count)
	}
	return share{hits: float64(hits), total: float64(count)}, nil
}

// holds reports whether the i-th element, from 0, belongs to the share.
func (s share) holds(i uint64) bool {
	upTo := func(i uint64) uint64 { return uint64(float64(i) * s.hits / s.total) }
	return upTo(i+1) > upTo(i)
}
