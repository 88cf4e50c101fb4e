package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestSecretScripts runs a real gateway, and changes its configuration while it runs.
func TestSecretScripts(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close) // scripts run in parallel, after this function
	garbled := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }))
	t.Cleanup(garbled.Close)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/secrets",
		Setup: func(env *testscript.Env) error {
			env.Setenv("OTHER", other.URL)
			env.Setenv("GARBLED", garbled.URL)
			env.Setenv("TZ", "UTC")
			for _, name := range []string{"WEBHOOK", "GRPC", "REST", "ADMIN"} {
				listener, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				defer listener.Close() // all are held until all are chosen
				env.Setenv("LINKSGATE_"+name+"_ADDR", listener.Addr().String())
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"usage": usage, "await": await, "hangup": hangup},
	})
}

// await gets a URL until its document matches a pattern.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await URL pattern")
	}
	pattern := regexp.MustCompile(args[1])
	last := "no answer"
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := http.Get(args[0])
		if err != nil {
			last = err.Error()
			continue
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		ts.Check(err)
		if last = string(text); pattern.MatchString(last) {
			return
		}
	}
	ts.Fatalf("%s never matched %q: %s", args[0], args[1], last)
}

// hangup sends SIGHUP to what runs in the background.
func hangup(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: hangup")
	}
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGHUP))
	}
}

func TestVerdictsOnSecrets(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.Local)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	secret := func(keyID, name string, used *time.Time) secretReport {
		scheme := "hmac-sha1"
		if keyID == "" {
			scheme = "md5"
		}
		return secretReport{Account: "acme", Scheme: scheme, KeyID: keyID, Name: name, LastUsed: used}
	}
	for _, tt := range []struct {
		name    string
		secrets []secretReport
		want    []string // verdict and advice
	}{
		{"alone and used", []secretReport{secret("", "a", ago(time.Second))}, []string{"in_use: in use"}},
		{"alone and used long ago", []secretReport{secret("", "a", ago(100*time.Hour))}, []string{"in_use: in use"}},
		{"alone and not seen", []secretReport{secret("", "a", nil)},
			[]string{"never_used: never used as far as is known, since 2026-03-09 12:00:00"}},
		{"changed over", []secretReport{secret("", "new", ago(time.Minute)), secret("", "old", ago(3*time.Hour))},
			[]string{"in_use: in use", "replaced: not used since 2026-03-10 09:00:00: can be removed, new has taken over"}},
		{"changed over, and silent since", []secretReport{secret("", "new", ago(100*time.Hour)), secret("", "old", ago(103*time.Hour))},
			[]string{"in_use: in use", "replaced: not used since 2026-03-06 05:00:00: can be removed, new has taken over"}},
		{"changing over", []secretReport{secret("", "new", ago(time.Second)), secret("", "old", ago(time.Minute))},
			[]string{"in_use: in use", "in_use: in use, and so is new, which was used after it: keep both for now"}},
		{"one not seen", []secretReport{secret("", "a", nil), secret("", "b", ago(time.Minute))},
			[]string{"not_used: not used since 2026-03-09 12:00:00: can be removed if b, which is in use, is the newer one", "in_use: in use"}},
		{"neither seen", []secretReport{secret("", "a", nil), secret("", "b", nil)}, []string{
			"never_used: never used as far as is known, since 2026-03-09 12:00:00", "never_used: never used as far as is known, since 2026-03-09 12:00:00"}},
		{"of different kinds", []secretReport{secret("", "a", ago(time.Second)), secret("k1", "a", ago(9*time.Hour)), secret("k2", "a", nil)},
			[]string{"in_use: in use", "in_use: in use", "never_used: never used as far as is known, since 2026-03-09 12:00:00"}},
		{"a name with escapes", []secretReport{secret("", "a\x1b[31m", ago(time.Minute)), secret("", "b", nil)}, []string{"in_use: in use",
			`not_used: not used since 2026-03-09 12:00:00: can be removed if "a\x1b[31m", which is in use, is the newer one`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			report := secretsReport{ObservedSince: *ago(24 * time.Hour), Secrets: tt.secrets}
			report.judge()
			for i := range report.Secrets {
				s := &report.Secrets[i]
				if got := string(s.Verdict) + ": " + report.advice(s); got != tt.want[i] {
					t.Errorf("%q: %s\nwant %s", s.Name, got, tt.want[i])
				}
			}
		})
	}
}

func TestSecretsTable(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.Local)
	used := now.Add(-3 * time.Minute)
	report := secretsReport{ObservedSince: now.Add(-time.Hour), Secrets: []secretReport{
		{Account: "acme", Scheme: "hmac-sha1", KeyID: "k1", Name: "2026-03", LastUsed: &used},
		{Account: "acme", Scheme: "md5", Name: "md5"},
	}}
	report.judge()
	var out strings.Builder
	if err := report.print(&out, now); err != nil {
		t.Fatal(err)
	}
	const want = `ACCOUNT  SCHEME     KEY ID  NAME     LAST USED                     VERDICT
acme     hmac-sha1  k1      2026-03  3m ago (2026-03-10 11:57:00)  in use
acme     md5        -       md5      -                             never used as far as is known, since 2026-03-10 11:00:00
`
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", &out, want)
	}
}

func TestAges(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 2 * time.Hour: "2h",
		47 * time.Hour: "47h", 48 * time.Hour: "2d", 1000 * time.Hour: "41d",
	} {
		if got := age(d); got != want {
			t.Errorf("%v is written %s; want %s", d, got, want)
		}
	}
}
