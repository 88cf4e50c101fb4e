package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
)

func TestMain(m *testing.M) {
	if os.Getenv(contextsEnv) == "" {
		os.Setenv(contextsEnv, "/nonexistent/contexts.yaml") // those of whoever runs the tests are theirs
	}
	testscript.Main(m, map[string]func(){"linksgate": main})
}

// TestScripts runs the real command line. Scripts find an HTTP server at
// $SERVER that answers as a gateway would.
func TestScripts(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(receive))
	t.Cleanup(server.Close) // scripts run in parallel, after this function
	closed := httptest.NewServer(nil)
	closed.Close()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("SERVER", server.URL)
			env.Setenv("NOBODY", closed.URL)
			for _, name := range []string{"GRPC", "REST", "ADMIN", "WEBHOOK"} { // of gateways that scripts start
				listener, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				env.Setenv(name, listener.Addr().String())
				if err := listener.Close(); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"usage": usage},
	})
}

// usage runs linksgate with the words of its first argument, and checks that it
// refuses them with exit status 2 and a text that matches the second.
func usage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: usage 'arguments' pattern")
	}
	err := ts.Exec("linksgate", strings.Fields(args[0])...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitUsage {
		ts.Fatalf("linksgate %s: %v; want exit status %d", args[0], err, exitUsage)
	}
	if stderr := ts.ReadFile("stderr"); !regexp.MustCompile(args[1]).MatchString(stderr) {
		ts.Fatalf("linksgate %s: %q does not match %q", args[0], stderr, args[1])
	}
	if stdout := ts.ReadFile("stdout"); stdout != "" {
		ts.Fatalf("linksgate %s: printed %q", args[0], stdout)
	}
}

// scriptKeys are the secrets that the scripts sign with.
var scriptKeys = signature.Keyring{
	MD5:  []signature.Secret{{Name: "md5", Value: "secret"}},
	HMAC: map[string][]signature.Secret{"k1": {{Name: "hmac", Value: "key"}}},
}

// receive verifies what it is sent. Three accounts are special: "busy" refuses,
// "open" takes unsigned notifications, "gullible" takes everything.
func receive(w http.ResponseWriter, r *http.Request) {
	account, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/linksfield/"), "/")
	kind, pathToken, _ := strings.Cut(rest, "/")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if _, ok := payload.KindByName(kind); !ok || (pathToken != "" && pathToken != "right") {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	doc, err := jsondoc.Parse(body)
	if err == nil {
		_, err = signature.Verify(r.Header, doc, body, scriptKeys)
	}
	switch {
	case account == "busy":
		w.WriteHeader(http.StatusServiceUnavailable)
	case account == "gullible", account == "open" && r.Header["X-Lf-Md5"] == nil:
	case err != nil:
		w.WriteHeader(http.StatusUnauthorized)
	}
}
