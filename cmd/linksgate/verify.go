package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/signature"
)

const verifyLong = `Verify tells whether Linksfield signed a request: whether the signature in the
headers belongs to exactly this body, under the secret given.

Linksfield's documentation leaves details of its signing rules open. Each way to
fill the gaps is a reading, and has a name; all of them are tried, and shown with
the text that was signed under each. *** stands in the place of the secret.

The body is read from --body, or from standard input. Its bytes count: copy them
from the raw request, not from a viewer that formats JSON.

When the signature does not hold, changes of the secret and of the body are tried in
combination, and what would make it hold is told. linksgate quarantine explain does the
same for what a gateway has refused.

The exit status is 0 when the signature holds, 1 when it does not, and 2 when there is
no answer: the question makes no sense, or a file cannot be read.`

const verifyExample = `  # md5: an SMS from a SIM
  linksgate verify --header 'x-lf-md5: OGM0NmQ0ODJiOGJlNjE0OWYzMzYwMmQzZGU4NDY4OGQ=' \
      --body sms.json --secret-file md5.secret

  # hmac-sha1: a Cube notification, its headers as raw lines
  linksgate verify --headers-file headers.txt --key-file cube.key < body.json`

// verifyFlags are the flags of verify as given.
type verifyFlags struct {
	headers     []string
	headersFile string
	body        string
	secret, key secretFlags
	keyID       string
	json        bool
}

func newVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:     "verify",
		Short:   "Tell whether Linksfield signed a request, and by which reading of its rule",
		Long:    verifyLong,
		Example: verifyExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			holds, err := f.answer(cmd.InOrStdin(), cmd.OutOrStdout())
			switch {
			case err != nil:
				return usageError{err} // exitFailure is the answer no
			case !holds:
				return errReported
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.headers, "header", nil, "a header line of the request (`LINE`); repeatable")
	flags.StringVar(&f.headersFile, "headers-file", "", "`FILE` of header lines")
	flags.StringVar(&f.body, "body", "-", "`FILE` of the exact body; -: standard input")
	f.secret.register(flags, "secret", "the notification secret, for md5")
	f.key.register(flags, "key", "the key, for hmac-sha1")
	flags.StringVar(&f.keyID, "key-id", "", "`ID` that x-lf-signature must name; any when not given")
	flags.BoolVar(&f.json, "json", false, "report as one line of JSON")
	return cmd
}

// answer prints the answer to the question that the flags ask.
func (f *verifyFlags) answer(stdin io.Reader, out io.Writer) (holds bool, err error) {
	result, err := f.verify(stdin)
	if err != nil {
		return false, err
	}
	if f.json {
		return result.Holds, printJSON(out, result)
	}
	_, err = io.WriteString(out, result.text())
	return result.Holds, err
}

// verifyResult is the report.
type verifyResult struct {
	Holds    bool            `json:"holds"`
	Scheme   string          `json:"scheme,omitempty"`
	KeyID    string          `json:"key_id,omitempty"`
	Reading  string          `json:"reading,omitempty"`
	Reason   string          `json:"reason,omitempty"` // why it does not hold
	Attempts []verifyAttempt `json:"attempts"`
	Hints    []string        `json:"hints,omitempty"`
	// Found is what would make it hold; nil if nothing was found, or it holds.
	Found *guess `json:"found,omitempty"`
}

// verifyAttempt is one reading that was tried.
type verifyAttempt struct {
	Scheme  string `json:"scheme"`
	Reading string `json:"reading"`
	Text    string `json:"text"`
	Matched bool   `json:"matched"`
}

// verify answers the question that the flags ask.
func (f *verifyFlags) verify(stdin io.Reader) (*verifyResult, error) {
	headers, err := f.readHeaders()
	if err != nil {
		return nil, err
	}
	secret, err := f.secret.read()
	if err != nil {
		return nil, err
	}
	key, err := f.key.read()
	if err != nil {
		return nil, err
	}
	if err := f.check(headers); err != nil {
		return nil, err
	}
	body, err := readInput(f.body, stdin)
	if err != nil {
		return nil, fmt.Errorf("read --body: %w", err)
	}
	q := question{headers: headers, body: body, secret: secret, key: key, keyID: f.keyID}
	return q.answer(), nil
}

// check refuses a question that cannot be answered with what was given.
func (f *verifyFlags) check(headers http.Header) error {
	hasMD5, hasHMAC := headers["X-Lf-Md5"] != nil, headers["X-Lf-Signature"] != nil
	switch {
	case !hasMD5 && !hasHMAC:
		return usagef("no signature among the headers: give the line x-lf-md5, or x-lf-signature and the other x-lf- lines beside it")
	case !f.secret.given() && !f.key.given() && hasMD5:
		return usagef("signed with md5: name the notification secret with %s", f.secret.names())
	case !f.secret.given() && !f.key.given():
		return usagef("signed with hmac-sha1: name the key with %s", f.key.names())
	case !hasHMAC && !f.secret.given():
		return usagef("signed with md5, not with a key: name the notification secret with %s", f.secret.names())
	case !hasMD5 && !f.key.given():
		return usagef("signed with hmac-sha1, not with the notification secret: name the key with %s", f.key.names())
	}
	return nil
}

func (f *verifyFlags) readHeaders() (http.Header, error) {
	if len(f.headers) == 0 && f.headersFile == "" {
		return nil, usagef("give the signature's headers with --header or --headers-file")
	}
	lines := f.headers
	if f.headersFile != "" {
		data, err := readFile(f.headersFile)
		if err != nil {
			return nil, fmt.Errorf("read --headers-file: %w", err)
		}
		fromFile := strings.Split(string(data), "\n")
		if strings.HasPrefix(fromFile[0], http.MethodPost+" ") { // copied with the request line
			fromFile = fromFile[1:]
		}
		lines = append(lines, fromFile...)
	}
	headers := http.Header{}
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, value, found := strings.Cut(line, ":")
		if !found {
			return nil, usagef("%q is not a header line: a line is NAME: VALUE", line)
		}
		headers.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return headers, nil
}

// question is a request and what it may have been signed with.
type question struct {
	headers     http.Header
	body        []byte
	secret, key signature.Secret // without a value when not given
	keyID       string           // empty: the one that the headers name
}

func (q *question) keyring() signature.Keyring {
	keyID := q.keyID
	if keyID == "" {
		keyID, _, _ = strings.Cut(q.headers.Get("X-Lf-Signature"), "/")
	}
	return signature.Keyring{
		MD5:  []signature.Secret{q.secret},
		HMAC: map[string][]signature.Secret{keyID: {q.key}},
	}
}

func (q *question) answer() *verifyResult {
	doc, err := jsondoc.Parse(q.body)
	if err != nil {
		return q.search(&verifyResult{
			Reason:   "the body cannot be read: " + err.Error(),
			Attempts: []verifyAttempt{},
			Hints:    []string{"is this the whole body and nothing else? Both schemes sign JSON"},
		})
	}
	attempts, err := signature.Explain(q.headers, doc, q.body, q.keyring())
	result := &verifyResult{Holds: err == nil, Attempts: make([]verifyAttempt, len(attempts))}
	for i, a := range attempts {
		result.Attempts[i] = verifyAttempt{a.Scheme, a.Reading, a.Text, a.Matched}
		if a.Matched && result.Scheme == "" {
			result.Scheme, result.KeyID, result.Reading = a.Scheme, a.KeyID, a.Reading
		}
	}
	if err != nil {
		result.Reason = err.Error()
		result.Hints = q.hints(err)
		q.search(result)
	}
	if doc.MissingCommas > 0 {
		result.Hints = append(result.Hints, "the body lacks a comma between two members, as an example of Linksfield's does; the signature does not cover it")
	}
	return result
}

// search looks for what would make the signature hold, and adds it to a result, before all hints.
func (q *question) search(result *verifyResult) *verifyResult {
	var secrets, keys []signature.Secret
	if q.secret.Value != "" {
		secrets = append(secrets, q.secret)
	}
	if q.key.Value != "" {
		keys = append(keys, q.key)
	}
	if found, ok := guessHow(q.headers, q.body, secrets, keys); ok {
		result.Found = &found
		result.Hints = append([]string{"it would hold: " + found.sentence()}, result.Hints...)
	}
	return result
}

// hints says what to look at when err is why the signature does not hold.
func (q *question) hints(err error) []string {
	switch {
	case errors.Is(err, signature.ErrUnknownKey):
		keyID, _, _ := strings.Cut(q.headers.Get("X-Lf-Signature"), "/")
		return []string{fmt.Sprintf("x-lf-signature names the key %q, and --key-id is %q", keyID, q.keyID)}
	case errors.Is(err, signature.ErrAlgorithm):
		return []string{"x-lf-algo names an algorithm that Linksfield has announced but not documented"}
	case !errors.Is(err, signature.ErrMismatch):
		return nil
	}
	var hints []string
	if value := q.headers.Get("X-Lf-Md5"); value != "" && q.secret.Value != "" {
		hints = append(hints, "x-lf-md5 "+describeDigest(value, 16),
			"is it the notification secret, which Linksfield staff issue? The secret for calling Linksfield's API is another one")
	}
	if _, sum, _ := strings.Cut(q.headers.Get("X-Lf-Signature"), "/"); sum != "" && q.key.Value != "" {
		hints = append(hints, "x-lf-signature "+describeDigest(sum, 20),
			"is it the key of this key id, and its present value? Refreshing a key keeps its id",
			"the key's characters are used as they stand: they are not decoded from hexadecimal")
	}
	return append(hints,
		"are these the exact bytes of the body? A proxy or a viewer may have changed them",
		"is the secret complete, and without white space around it? One newline at the end of the file is ignored")
}

// describeDigest says what a signature looks like, of a digest of size bytes.
func describeDigest(value string, size int) string {
	if raw, err := hex.DecodeString(value); err == nil && len(raw) == size {
		return fmt.Sprintf("is well formed: %d hexadecimal characters, although base64 is documented", 2*size)
	}
	raw, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return "is not base64: was it cut off or changed on the way?"
	}
	switch digest, err := hex.DecodeString(string(raw)); {
	case len(raw) == size:
		return fmt.Sprintf("is well formed: base64 of %d raw bytes", size)
	case err == nil && len(digest) == size && strings.ToLower(string(raw)) == string(raw):
		return fmt.Sprintf("is well formed: base64 of %d hexadecimal characters", 2*size)
	case err == nil && len(digest) == size:
		return fmt.Sprintf("is base64 of %d hexadecimal characters in upper case: lower case is documented", 2*size)
	}
	return fmt.Sprintf("is base64 of %d bytes: %d, or their %d hexadecimal characters, were expected", len(raw), size, 2*size)
}

// text is the report for a person.
func (r *verifyResult) text() string {
	var b strings.Builder
	if r.Holds {
		b.WriteString("the signature holds\n")
		fmt.Fprintf(&b, "  scheme   %s\n", r.Scheme)
		if r.KeyID != "" {
			fmt.Fprintf(&b, "  key id   %s\n", escaped(r.KeyID))
		}
		fmt.Fprintf(&b, "  reading  %s\n", r.Reading)
	} else {
		fmt.Fprintf(&b, "the signature does not hold\n  reason   %s\n", escaped(r.Reason))
	}
	if len(r.Attempts) > 0 {
		b.WriteString("tried, with the text that was signed\n")
	}
	for i, a := range r.Attempts {
		matched := ""
		if a.Matched {
			matched = "  <- matched"
		}
		fmt.Fprintf(&b, "  %s %s%s\n", a.Scheme, a.Reading, matched)
		if i+1 == len(r.Attempts) || r.Attempts[i+1].Text != a.Text {
			fmt.Fprintf(&b, "      %s\n", escaped(a.Text))
		}
	}
	if len(r.Hints) > 0 {
		b.WriteString("hints\n")
	}
	for _, hint := range r.Hints {
		fmt.Fprintf(&b, "  %s\n", hint)
	}
	return b.String()
}
