package webhook_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/webhook"
)

// TestSources looks at the address that a request is said to come from.
func TestSources(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("fd00::/8"),
	}
	for _, tt := range []struct {
		name      string
		remote    string   // of the connection
		forwarded []string // the headers
		want      string
	}{
		{"no proxy", "203.0.113.7:4000", nil, "203.0.113.7"},
		{"an untrusted peer's claim is ignored", "203.0.113.7:4000", []string{"198.51.100.1"}, "203.0.113.7"},
		{"also when it claims to be a proxy", "203.0.113.7:4000", []string{"198.51.100.1, 10.0.0.1"}, "203.0.113.7"},
		{"a proxy that says nothing", "10.0.0.1:4000", nil, "10.0.0.1"},
		{"one proxy", "10.0.0.1:4000", []string{"203.0.113.7"}, "203.0.113.7"},
		{"several proxies", "10.0.0.1:4000", []string{"203.0.113.7, 192.0.2.1, 10.9.9.9"}, "203.0.113.7"},
		{"what stands before the last untrusted hop is its own claim", "10.0.0.1:4000", []string{"198.51.100.1, 203.0.113.7, 10.9.9.9"}, "203.0.113.7"},
		{"a claim to be a proxy before an untrusted hop", "10.0.0.1:4000", []string{"10.0.0.2, 203.0.113.7"}, "203.0.113.7"},
		{"a proxy behind an untrusted one", "10.0.0.1:4000", []string{"198.51.100.1", "203.0.113.7", "10.9.9.9"}, "203.0.113.7"},
		{"several headers", "10.0.0.1:4000", []string{"203.0.113.7, 192.0.2.1", "10.9.9.9"}, "203.0.113.7"},
		{"nothing but proxies", "10.0.0.1:4000", []string{"10.0.0.3,10.0.0.2"}, "10.0.0.3"},
		{"spaces", "10.0.0.1:4000", []string{" \t203.0.113.7 , 10.0.0.2\t"}, "203.0.113.7"},
		{"IPv6", "[2001:db8::7]:4000", []string{"198.51.100.1"}, "2001:db8::7"},
		{"IPv6 behind IPv6", "[fd00::1]:4000", []string{"2001:db8::7, fd12::1"}, "2001:db8::7"},
		{"IPv6 behind IPv4", "10.0.0.1:4000", []string{"2001:db8::7"}, "2001:db8::7"},
		{"IPv4 on an IPv6 socket", "[::ffff:10.0.0.1]:4000", []string{"203.0.113.7"}, "203.0.113.7"},
		{"IPv4 written as IPv6", "10.0.0.1:4000", []string{"::ffff:203.0.113.7, ::ffff:10.0.0.2"}, "203.0.113.7"},
		{"a zone is not in a network", "[fd00::1%eth0]:4000", []string{"203.0.113.7"}, "fd00::1%eth0"},
		{"garbage", "10.0.0.1:4000", []string{"somebody"}, "10.0.0.1"},
		{"garbage after an address", "10.0.0.1:4000", []string{"203.0.113.7, somebody"}, "10.0.0.1"},
		{"garbage before an address", "10.0.0.1:4000", []string{"somebody, 203.0.113.7"}, "203.0.113.7"},
		{"garbage before a proxy", "10.0.0.1:4000", []string{"203.0.113.7, somebody, 10.0.0.2"}, "10.0.0.2"},
		{"empty", "10.0.0.1:4000", []string{""}, "10.0.0.1"},
		{"only commas", "10.0.0.1:4000", []string{",,,"}, "10.0.0.1"},
		{"a port", "10.0.0.1:4000", []string{"203.0.113.7:4000"}, "10.0.0.1"},
		{"brackets", "10.0.0.1:4000", []string{"[2001:db8::7]"}, "10.0.0.1"},
		{"no peer", "@", []string{"203.0.113.7"}, "invalid IP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logs bytes.Buffer
			handler := webhook.New(webhook.Options{
				Settings: webhook.Settings{Accounts: accounts, TrustedProxies: proxies},
				Logger:   slog.New(slog.NewJSONHandler(&logs, nil)),
			})
			request := httptest.NewRequest(http.MethodPost, "/nowhere", nil)
			request.RemoteAddr = tt.remote
			for _, value := range tt.forwarded {
				request.Header.Add("X-Forwarded-For", value)
			}
			handler.ServeHTTP(httptest.NewRecorder(), request)
			var entry struct{ Source string }
			if err := json.Unmarshal(lastLine(logs.Bytes()), &entry); err != nil || entry.Source != tt.want {
				t.Errorf("the source is %q, %v; want %q", entry.Source, err, tt.want)
			}
		})
	}
}

// TestAllowedSourcesLookAtTheRealSource sends unsigned requests to a URL that is open to one network.
func TestAllowedSourcesLookAtTheRealSource(t *testing.T) {
	t.Parallel()
	account := &webhook.Account{
		Keys: signature.Keyring{},
		Kinds: map[linksgatev1.NotificationKind]webhook.KindPolicy{linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED: {
			Signature: webhook.SignatureNone,
			Sources:   []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		}},
	}
	log, _, letGo := heldLog()
	close(letGo)
	handler := webhook.New(webhook.Options{Log: log, Settings: webhook.Settings{
		Accounts: map[string]*webhook.Account{"acme": account}, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	}})
	for _, tt := range []struct {
		remote, forwarded string
		want              int
	}{
		{"203.0.113.7:4000", "", http.StatusOK},
		{"[2001:db8::7]:4000", "", http.StatusOK},
		{"[::ffff:203.0.113.7]:4000", "", http.StatusOK},
		{"10.0.0.1:4000", "203.0.113.7", http.StatusOK},
		{"10.0.0.1:4000", "198.51.100.1, 2001:db8::7", http.StatusOK},
		{"10.0.0.1:4000", "", http.StatusNotFound},
		{"10.0.0.1:4000", "203.0.113.7, 198.51.100.1", http.StatusNotFound},
		{"198.51.100.1:4000", "203.0.113.7", http.StatusNotFound},
		{"198.51.100.1:4000", "203.0.113.7, 10.0.0.1", http.StatusNotFound},
		{"@", "203.0.113.7", http.StatusNotFound},
	} {
		request := httptest.NewRequest(http.MethodPost, smsPath, bytes.NewReader([]byte(smsBody)))
		request.RemoteAddr = tt.remote
		if tt.forwarded != "" {
			request.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		if recorder.Code != tt.want {
			t.Errorf("from %s, forwarded for %q: %d; want %d", tt.remote, tt.forwarded, recorder.Code, tt.want)
		}
	}
}

// lastLine returns the last line of a log: an untrusted proxy is told of before.
func lastLine(log []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	return lines[len(lines)-1]
}
