package signature_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"testing"

	"github.com/linksgate/linksgate/server/signature"
)

// vector is an entry of testdata/vectors.json: a request as Linksfield printed
// it, or as its printed rule makes it.
type vector struct {
	Name          string
	Source        string // who says so
	Headers       map[string]string
	Body          string
	MissingCommas int
	Scheme        string
	KeyID         string
	Secret        string
	Reading       string // the one that verifies
	Text          string // what the first reading signs, the secret masked
	Verifies      bool
}

func TestVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, v.check)
	}
}

func (v vector) check(t *testing.T) {
	doc, body := mustParse(t, v.Body), []byte(v.Body)
	if doc.MissingCommas != v.MissingCommas {
		t.Errorf("missing commas = %d, want %d", doc.MissingCommas, v.MissingCommas)
	}
	h := http.Header{}
	for name, value := range v.Headers {
		h.Set(name, value)
	}
	secret := signature.Secret{Name: "vector", Value: v.Secret}
	keys := signature.Keyring{MD5: []signature.Secret{secret}, HMAC: map[string][]signature.Secret{v.KeyID: {secret}}}

	got, err := signature.Verify(h, doc, body, keys)
	if v.Verifies {
		want := signature.Verified{Scheme: v.Scheme, KeyID: v.KeyID, SecretName: "vector", Reading: v.Reading}
		if err != nil || got != want {
			t.Errorf("Verify = %+v, %v; want %+v", got, err, want)
		}
	} else if !errors.Is(err, signature.ErrMismatch) {
		t.Errorf("Verify = %+v, %v; want ErrMismatch", got, err)
	}

	attempts, _ := signature.Explain(h, doc, body, keys)
	if len(attempts) == 0 || attempts[0].Text != v.Text {
		t.Errorf("Explain = %+v; want first %q", attempts, v.Text)
	}
}
