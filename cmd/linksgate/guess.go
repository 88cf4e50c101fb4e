package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/linksgate/linksgate/server/bodyform"
	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/signature"
)

// A request that does not verify may have been signed with a secret that is kept with a blank too many, over a body that was changed on
// its way, or in another character set. What there is of that is tried in combination, to tell a person what would make it match.

// guess is what would make a signature match.
type guess struct {
	// Secret is the name of the secret.
	Secret string `json:"secret"`
	// SecretChange, BodyChange and Charset are what must be done to the secret and to the body, and the character set of the signed text;
	// empty: nothing, UTF-8.
	SecretChange string `json:"secret_change,omitempty"`
	BodyChange   string `json:"body_change,omitempty"`
	Charset      string `json:"charset,omitempty"`
	// Scheme and Reading are those under which it matches then.
	Scheme  string `json:"scheme"`
	Reading string `json:"reading"`
}

// sentence says what would make it match.
func (g guess) sentence() string {
	text := "signed with " + visible(g.Secret)
	var conditions []string
	if g.SecretChange != "" {
		conditions = append(conditions, g.SecretChange)
	}
	if g.BodyChange != "" {
		conditions = append(conditions, g.BodyChange)
	}
	if g.Charset != "" {
		conditions = append(conditions, "the signed text is written in "+g.Charset)
	}
	if len(conditions) > 0 {
		text += " if " + strings.Join(conditions, ", and ")
	}
	return text + " (" + g.Scheme + " " + g.Reading + ")"
}

// changed is something that was changed, and how, in words.
type changed[T any] struct {
	how   string
	value T
}

// secretChanges are forms in which a secret may be meant.
func secretChanges(value string) []changed[string] {
	forms := []changed[string]{{"", value}}
	add := func(how, form string) {
		for _, other := range forms {
			if other.value == form {
				return
			}
		}
		if form != "" {
			forms = append(forms, changed[string]{how, form})
		}
	}
	const blanks = " \t\r\n\u00a0"
	trimmed := strings.Trim(value, blanks)
	switch {
	case strings.TrimRight(value, blanks) == trimmed && len(value) == len(trimmed)+1:
		add("its final blank is removed", trimmed)
	case strings.TrimLeft(value, blanks) == trimmed && len(value) == len(trimmed)+1:
		add("its first blank is removed", trimmed)
	default:
		add("the white space around it is removed", trimmed)
	}
	add("the byte-order mark at its beginning is removed", strings.TrimPrefix(value, "\ufeff"))
	if unquoted := strings.Trim(trimmed, `"'`+"`"); len(unquoted) < len(trimmed) {
		add("the quotes around it are removed", strings.Trim(unquoted, blanks))
	}
	add("a line break follows it", trimmed+"\n")
	if data, err := hex.DecodeString(trimmed); err == nil {
		add("it is decoded from hexadecimal", string(data))
	}
	if data, err := base64.StdEncoding.DecodeString(trimmed); err == nil {
		add("it is decoded from base64", string(data))
	}
	return forms
}

// bodyChanges are forms in which a body may have been signed.
func bodyChanges(body []byte, headers http.Header) []changed[[]byte] {
	forms := []changed[[]byte]{{"", body}}
	add := func(how string, form []byte) {
		if !bytes.Equal(form, body) {
			forms = append(forms, changed[[]byte]{how, form})
		}
	}
	for _, form := range bodyform.Of(body, headers) {
		add("the body is read as "+form.Name, form.Text)
	}
	if bytes.Contains(body, []byte("\r\n")) {
		add("its line breaks are LF alone", bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")))
	} else {
		add("its line breaks are CR and LF", bytes.ReplaceAll(body, []byte("\n"), []byte("\r\n")))
	}
	add("the white space around the body is removed", bytes.TrimSpace(body))
	add("a line break follows the body", append(bytes.Clone(body), '\n'))
	return forms
}

// textCharsets are those in which the signed text may have been written.
func textCharsets(body []byte) []changed[func([]byte) []byte] {
	charsets := []changed[func([]byte) []byte]{{"", nil}}
	if bytes.IndexFunc(body, func(r rune) bool { return r > '~' }) < 0 && !bytes.Contains(body, []byte(`\u`)) {
		return charsets
	}
	for _, charset := range bodyform.ASCIICompatible() {
		charsets = append(charsets, changed[func([]byte) []byte]{charset.Name, charset.Encode})
	}
	return charsets
}

// guessHow tries all combinations, those with the fewest changes first. It reports false if none matches.
func guessHow(headers http.Header, body []byte, secrets, keys []signature.Secret) (guess, bool) {
	keyIDs := make(map[string]bool) // whichever the request names
	for _, line := range headers["X-Lf-Signature"] {
		keyID, _, _ := strings.Cut(line, "/")
		keyIDs[keyID] = true
	}
	var best guess
	fewest := -1
	for _, form := range bodyChanges(body, headers) {
		doc, err := jsondoc.Parse(form.value)
		if err != nil {
			continue
		}
		for _, charset := range textCharsets(form.value) {
			for _, one := range secretTrials(secrets, keys, keyIDs) {
				changes := 0
				for _, how := range []string{form.how, charset.how, one.how} {
					if how != "" {
						changes++
					}
				}
				if fewest >= 0 && changes >= fewest {
					continue
				}
				verified, err := signature.VerifyEncoded(headers, doc, form.value, one.value, charset.value)
				if err == nil {
					fewest = changes
					best = guess{verified.SecretName, one.how, form.how, charset.how, verified.Scheme, verified.Reading}
				}
			}
		}
	}
	return best, fewest >= 0
}

// secretTrials are keyrings of one secret each, in one of its forms.
func secretTrials(secrets, keys []signature.Secret, keyIDs map[string]bool) (trials []changed[signature.Keyring]) {
	for _, secret := range secrets {
		for _, form := range secretChanges(secret.Value) {
			trials = append(trials, changed[signature.Keyring]{form.how, signature.Keyring{
				MD5: []signature.Secret{{Name: secret.Name, Value: form.value}},
			}})
		}
	}
	for _, key := range keys {
		for _, form := range secretChanges(key.Value) {
			ring := signature.Keyring{HMAC: make(map[string][]signature.Secret)}
			for keyID := range keyIDs {
				ring.HMAC[keyID] = []signature.Secret{{Name: key.Name, Value: form.value}}
			}
			trials = append(trials, changed[signature.Keyring]{form.how, ring})
		}
	}
	return trials
}
