package server_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// secretsState is what GET /secrets answers.
type secretsState struct {
	ObservedSince time.Time `json:"observed_since"`
	Secrets       []struct {
		Account, Scheme, Name string
		KeyID                 string     `json:"key_id"`
		LastUsed              *time.Time `json:"last_used"`
	}
}

func (g *gateway) secrets(t *testing.T) secretsState {
	t.Helper()
	var state secretsState
	g.adminJSON(t, "/secrets", &state)
	return state
}

// lastUsed returns when the secrets of acme were last used, by name; the zero time for those that were not seen.
func (g *gateway) lastUsed(t *testing.T) map[string]time.Time {
	t.Helper()
	used := make(map[string]time.Time)
	for _, s := range g.secrets(t).Secrets {
		if s.Account != "acme" {
			continue
		}
		used[s.Name] = time.Time{}
		if s.LastUsed != nil {
			used[s.Name] = *s.LastUsed
		}
	}
	return used
}

func TestUsesAreSeen(t *testing.T) {
	t.Parallel()
	before := time.Now()
	g := startGateway(t, testConfig(t))
	state := g.secrets(t)
	if state.ObservedSince.Before(before) || state.ObservedSince.After(time.Now()) || len(state.Secrets) != 5 {
		t.Errorf("at the start: %+v", state)
	}
	for i, want := range [][4]string{
		{"acme", "hmac-sha1", hmacKeyID, "hmac"}, {"acme", "hmac-sha1", hmacKeyID, "hmac-before"},
		{"acme", "md5", "", "md5"}, {"acme", "md5", "", "md5-before"}, {"other", "md5", "", "other"},
	} {
		if s := state.Secrets[i]; [4]string{s.Account, s.Scheme, s.KeyID, s.Name} != want || s.LastUsed != nil {
			t.Errorf("%+v; want %v, not used", s, want)
		}
	}

	// What is refused is no use, what is signed is one of exactly the secret that signed.
	g.answers(t, linksfield.Forger())
	before = time.Now()
	n := g.get(t, g.deliverSMS(t, 1, 1)[0])
	cube, err := formerLinksfield.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, 1)
	if err != nil {
		t.Fatal(err)
	}
	g.deliver(t, cubePath, cube)
	used := g.lastUsed(t)
	if !used["md5"].Equal(n.GetReceivedAt().AsTime()) || used["hmac-before"].Before(before) || used["hmac-before"].After(time.Now()) {
		t.Errorf("%v; want md5 and hmac-before since %v", used, before)
	}
	if !used["hmac"].IsZero() || !used["md5-before"].IsZero() {
		t.Errorf("%v; hmac and md5-before were not used", used)
	}
	g.deliverSMS(t, 2, 1)
	if again := g.lastUsed(t)["md5"]; !again.After(used["md5"]) {
		t.Errorf("md5: %v after it was used again; it was %v", again, used["md5"])
	}
}

// TestUsesSurviveARestart looks for uses that are far back in the log.
func TestUsesSurviveARestart(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	g := startGateway(t, cfg)
	g.answers(t, &formerLinksfield)
	g.deliverSMS(t, 1, 600) // so many record batches
	want, first := g.lastUsed(t), g.info(t).GetFirst().GetWrittenAt().AsTime()
	g.stop(t)

	g = startGateway(t, cfg)
	eventually(t, "all of the log has been read", func() bool { return g.secrets(t).ObservedSince.Equal(first) })
	for name, at := range g.lastUsed(t) {
		if !at.Equal(want[name]) {
			t.Errorf("%s was last used at %v; it was %v before the restart", name, at, want[name])
		}
	}
	if !want["hmac"].IsZero() || want["hmac-before"].IsZero() {
		t.Errorf("%v before the restart", want)
	}

	// What was used before something that is damaged is known all the same, and that nothing else was is not claimed.
	g.stop(t)
	path := filepath.Join(cfg.Log.Dir, "log", "00000000000000000001.seg")
	block, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Index(block[len(block)/2:], []byte("text_message"))
	block[len(block)/2+body] ^= 1
	if err := os.WriteFile(path, block, 0o600); err != nil {
		t.Fatal(err)
	}
	g = startGateway(t, cfg)
	eventually(t, "all of the log has been read", func() bool { return g.lastUsed(t)["hmac-before"].Equal(want["hmac-before"]) })
	if since := g.secrets(t).ObservedSince; !since.After(first) {
		t.Errorf("observed since %v, the beginning, and something in between is damaged", since)
	}
}

// TestUsesAndReloads checks that a use belongs to a secret, not to its name.
func TestUsesAndReloads(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	g := o.start(t, head+oldSecrets, never)
	if got := g.answers(t, &formerLinksfield); got != accepted {
		t.Fatalf("%v", got)
	}
	want := g.lastUsed(t)["md5-old"]
	o.change(t, g, head+bothSecrets)
	if used := g.lastUsed(t); !used["md5-old"].Equal(want) || !used["md5-new"].IsZero() || len(used) != 4 {
		t.Errorf("%v after a secret was added beside one that stays, used at %v", used, want)
	}
	o.write(t, "md5-old", md5Secret+"-third")
	o.change(t, g, head+bothSecrets)
	if used := g.lastUsed(t); !used["md5-old"].IsZero() || used["hmac-old"].IsZero() {
		t.Errorf("%v after md5-old got another value", used)
	}
	o.change(t, g, head+newSecrets)
	o.change(t, g, head+bothSecrets)
	if used := g.lastUsed(t); !used["hmac-old"].IsZero() {
		t.Errorf("%v after hmac-old was removed and came back", used)
	}
}

// TestAReleaseIsAUseWhenItWasReceived releases a notification from quarantine long after it came.
func TestAReleaseIsAUseWhenItWasReceived(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	g := o.start(t, head+oldSecrets, never)
	sms := makeSMS(t, 1)
	if a := g.request(t, http.MethodPost, smsPath, sms.Header, bytes.NewReader(sms.Body)); a.status != http.StatusUnauthorized {
		t.Fatalf("%d with a secret that is not configured", a.status)
	}
	received := time.Now()
	o.change(t, g, head+bothSecrets)
	entries := quarantined(t, g)
	if len(entries) != 1 {
		t.Fatalf("%d entries in quarantine", len(entries))
	}
	if _, err := linksgatev1.NewQuarantineServiceClient(g.conn).ReleaseQuarantineEntry(t.Context(),
		&linksgatev1.ReleaseQuarantineEntryRequest{Id: entries[0].GetId()}); err != nil {
		t.Fatal(err)
	}
	if used := g.lastUsed(t)["md5-new"]; used.IsZero() || used.After(received) {
		t.Errorf("md5-new was last used at %v; want when the notification was received, before %v", used, received)
	}
}
