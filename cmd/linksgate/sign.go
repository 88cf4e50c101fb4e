package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/linksgate/linksgate/clients/go/signing"
)

const signLong = `Sign signs a body as Linksfield's rule says, and prints the headers that belong to it:
by md5 with a notification secret, or by hmac-sha1 with a key and its id. With --to it
sends the request and prints the answer.

So it is the other side of verify, and sends to Linksfield too: the webhook of the eSIM QR
Mall goes from the customer to Linksfield. What its body must hold is not documented; sign
signs any.`

const (
	signTimeout   = 30 * time.Second
	maxSignAnswer = 64 << 10
)

// signFlags are the flags of sign as given.
type signFlags struct {
	body        string
	secret, key secretFlags
	keyID       string
	at          string
	to          string
	curl        bool
	asJSON      bool
}

// signedJSON is a signed request, as JSON.
type signedJSON struct {
	Headers map[string]string `json:"headers"`
	Status  int               `json:"status,omitempty"`
	Answer  string            `json:"answer,omitempty"`
}

func newSignCommand() *cobra.Command {
	var f signFlags
	cmd := &cobra.Command{
		Use: "sign", Short: "Sign a body as Linksfield does, and send it", Long: signLong, Args: cobra.NoArgs,
		Example: `  linksgate sign --body event.json --secret-file md5.secret
  linksgate sign --body event.json --key-id k1 --key-file cube.key --to https://api.example.com/webhook`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.body, "body", "-", "`FILE` of the body; -: standard input")
	f.secret.register(flags, "secret", "the notification secret, for md5")
	f.key.register(flags, "key", "the key, for hmac-sha1")
	flags.StringVar(&f.keyID, "key-id", "", "`ID` of the key")
	flags.StringVar(&f.at, "at", "", "`TIME` of sending in RFC 3339, for hmac-sha1; default: now")
	flags.StringVar(&f.to, "to", "", "send it to this `URL`; the exit status is 1 unless the answer is a 2xx")
	flags.BoolVar(&f.curl, "curl", false, "print the headers as arguments of curl")
	flags.BoolVar(&f.asJSON, "json", false, "print one line of JSON")
	return cmd
}

// sign returns the body and its headers.
func (f *signFlags) sign(stdin io.Reader) ([]byte, http.Header, error) {
	switch {
	case f.secret.given() == f.key.given():
		return nil, nil, usagef("give either %s, for md5, or %s with --key-id, for hmac-sha1", f.secret.names(), f.key.names())
	case f.key.given() && f.keyID == "":
		return nil, nil, usagef("--key-id is missing: the signature names the key")
	case f.secret.given() && (f.keyID != "" || f.at != ""):
		return nil, nil, usagef("--key-id and --at are for hmac-sha1: md5 signs neither")
	}
	at := time.Now()
	if f.at != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, f.at); err != nil {
			return nil, nil, usagef("--at: %q is not a time such as 2026-03-01T08:00:00Z", f.at)
		}
	}
	body, err := readInput(f.body, stdin)
	if err != nil {
		return nil, nil, fmt.Errorf("read --body: %w", err)
	}
	var header http.Header
	if f.key.given() {
		key, keyErr := f.key.read()
		if keyErr != nil {
			return nil, nil, keyErr
		}
		header, err = signing.HMAC(body, f.keyID, key.Value, at)
	} else {
		secret, secretErr := f.secret.read()
		if secretErr != nil {
			return nil, nil, secretErr
		}
		header, err = signing.MD5(body, secret.Value)
	}
	return body, header, err
}

func (f *signFlags) run(cmd *cobra.Command) error {
	body, header, err := f.sign(cmd.InOrStdin())
	if err != nil {
		return err
	}
	lines := make([]string, 0, len(header))
	result := signedJSON{Headers: make(map[string]string)}
	for name := range header {
		lines = append(lines, strings.ToLower(name)+": "+header.Get(name))
		result.Headers[strings.ToLower(name)] = header.Get(name)
	}
	slices.Sort(lines)
	out := cmd.OutOrStdout()
	if f.to != "" {
		if result.Status, result.Answer, err = postSigned(cmd.Context(), f.to, header, body); err != nil {
			return err
		}
	}
	switch {
	case f.asJSON:
		err = printJSON(out, result)
	case f.curl:
		for i, line := range lines {
			lines[i] = "-H '" + line + "'" // no value of them has a quote
		}
		_, err = fmt.Fprintln(out, strings.Join(lines, " "))
	default:
		_, err = fmt.Fprintln(out, strings.Join(lines, "\n"))
		if f.to != "" && err == nil {
			_, err = fmt.Fprintf(out, "answered %d %s\n%s\n", result.Status, http.StatusText(result.Status), escaped(result.Answer))
		}
	}
	if err == nil && f.to != "" && result.Status/100 != 2 {
		return errReported
	}
	return err
}

// postSigned sends a signed body, and returns the status of the answer and what it says.
func postSigned(ctx context.Context, to string, header http.Header, body []byte) (int, string, error) {
	address, err := url.Parse(to)
	if err != nil || address.Host == "" || address.Scheme != "http" && address.Scheme != "https" {
		return 0, "", usagef("--to: %q is not a URL such as https://api.example.com/webhook", to)
	}
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header = header
	response, err := (&http.Client{CheckRedirect: noRedirect}).Do(request)
	if err != nil {
		return 0, "", fmt.Errorf("send to %s: %w", visible(to), cause(err))
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxSignAnswer))
	return response.StatusCode, strings.TrimSpace(string(answer)), err
}
