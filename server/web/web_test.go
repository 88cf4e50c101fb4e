// Package web answers one question: does the REST facade work with what it was made for?
//
// The gateway is the binary that ships. Before it stand a real nginx with the configuration of its package, and a real browser;
// the OpenAPI document is held against what is served by schemathesis. These have to be installed, so the tests run only with
// -web, which make test-web gives.
package web

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/faults"
)

var (
	web          = flag.Bool("web", false, "run these tests, which need nginx, chromium, curl and schemathesis")
	schemathesis = flag.String("schemathesis", "schemathesis", "the schemathesis to run, `FILE`")
)

// patience bounds every wait.
const patience = 2 * time.Minute

const subscribePath = "/v1/notifications:subscribe"

var buildBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "linksgate-web")
	if err != nil {
		return "", err
	}
	return faults.Build(context.Background(), dir)
})

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if *web {
		if binary, err := buildBinary(); err == nil {
			_ = os.RemoveAll(filepath.Dir(binary))
		}
	}
	os.Exit(code)
}

// scene is a gateway that runs, until the test ends, and a Linksfield that sends to it.
type scene struct {
	*faults.Gateway
	driver *faults.Driver
	ctx    context.Context
}

func newScene(t *testing.T) *scene {
	t.Helper()
	if !*web {
		t.Skip("needs -web, nginx, chromium, curl and schemathesis: see make test-web")
	}
	t.Parallel()
	binary, err := buildBinary()
	check(t, err)
	gateway, err := faults.NewGateway(binary, t.TempDir(), faults.Options{})
	check(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		if output := gateway.Close(); t.Failed() || strings.Contains(output, "level=ERROR") {
			t.Errorf("the gateway printed at last:\n%s", output)
		}
	})
	check(t, gateway.Start(ctx))
	return &scene{gateway, &faults.Driver{
		URL: gateway.Webhook, Sender: faults.FirstSecrets.Sender(), Connections: 2, Rest: 2 * time.Millisecond,
	}, ctx}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	check(t, faults.Await(s.ctx, what, holds))
}

// send delivers until so many notifications in all are accepted.
func (s *scene) send(t *testing.T, accepted int) {
	t.Helper()
	check(t, s.driver.Run(s.ctx, accepted))
}

// ids returns what the log holds.
func (s *scene) ids(t *testing.T) []string {
	t.Helper()
	var all []string
	for token := ""; ; {
		response, err := http.Get("http://" + s.REST + "/v1/notifications?pageSize=1000&pageToken=" + token)
		check(t, err)
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		check(t, err)
		page := new(linksgatev1.ListNotificationsResponse)
		check(t, protojson.Unmarshal(body, page))
		for _, n := range page.GetNotifications() {
			all = append(all, n.GetId())
		}
		if token = page.GetNextPageToken(); token == "" {
			return all
		}
	}
}

// start runs a program, in a process group of its own, until the test ends.
func start(t *testing.T, name string, arguments ...string) {
	t.Helper()
	cmd := exec.Command(name, arguments...)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended by itself
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s printed:\n%s", name, output.String())
		}
	})
}

// nginx starts an nginx with the configuration of its package, and one server in it for each of the settings, which proxies to
// the gateway and has a page beside that. It returns their addresses.
func (s *scene) nginx(t *testing.T, settings ...string) []string {
	t.Helper()
	addresses, err := faults.FreePorts(len(settings))
	check(t, err)
	page, err := filepath.Abs("testdata")
	check(t, err)
	var servers strings.Builder
	for i, setting := range settings {
		fmt.Fprintf(&servers, "server {\n listen %s;\n root %s;\n %s\n location /v1/ { proxy_pass http://%s; }\n}\n", addresses[i], page, setting, s.REST)
	}
	text, err := os.ReadFile("/etc/nginx/nginx.conf")
	check(t, err)
	me, err := user.Current()
	check(t, err)
	dir := t.TempDir()
	// Only where it runs, what it leaves behind, and which servers it has.
	for directive, value := range map[string]string{
		`user`: me.Username, `pid`: dir + "/pid", `error_log`: dir + "/error.log", `access_log`: dir + "/access.log",
	} {
		text = regexp.MustCompile(`(?m)^(\s*`+directive+`) .*;$`).ReplaceAll(text, []byte("$1 "+value+";"))
	}
	text = regexp.MustCompile(`(?m)^\s*include .*sites-enabled.*;$`).ReplaceAllLiteral(text, []byte(servers.String()))
	path := filepath.Join(dir, "nginx.conf")
	check(t, os.WriteFile(path, text, 0o600))
	start(t, "nginx", "-c", path, "-g", "daemon off;")
	for _, address := range addresses {
		s.await(t, "nginx accepts connections", func() bool {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
	}
	return addresses
}

// report is something that a page got.
type report struct {
	Event  string `json:"event"`
	ID     string `json:"id"`     // of a notification
	Text   string `json:"text"`   // of an error that the gateway sent
	Closed bool   `json:"closed"` // the error has stopped the event source
}

// page is testdata/page.html in a browser of its own.
type page struct {
	mu      sync.Mutex
	reports []report // mu
}

// open opens the page at an address, to subscribe to a source.
func open(t *testing.T, address, source, more string) *page {
	t.Helper()
	p := new(page)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var one report
		if err := json.NewDecoder(r.Body).Decode(&one); err != nil {
			t.Errorf("a report: %v", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.reports = append(p.reports, one)
	}))
	t.Cleanup(collector.Close)
	query := url.Values{"report": {collector.URL}, "source": {source}}
	start(t, "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--remote-debugging-port=0", "--user-data-dir="+t.TempDir(),
		"http://"+address+"/page.html?"+query.Encode()+more)
	return p
}

// count returns how many of its reports are such.
func (p *page) count(such func(report) bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, one := range p.reports {
		if such(one) {
			n++
		}
	}
	return n
}

func isError(r report) bool  { return r.Event == "error" }
func isClosed(r report) bool { return r.Closed }
func isBatch(r report) bool  { return r.Event == "batch" }

// ids returns the notifications that it got.
func (p *page) ids() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, one := range p.reports {
		if isBatch(one) {
			all = append(all, one.ID)
		}
	}
	return all
}

// proxy serves the page and passes everything else on to the gateway. When that is away it cuts the connection, as the gateway
// itself would: then an event source comes back by itself.
func (s *scene) proxy(t *testing.T) string {
	t.Helper()
	gateway := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: s.REST}) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/", gateway)
	mux.Handle("/", http.FileServer(http.Dir("testdata")))
	front := httptest.NewServer(mux)
	t.Cleanup(front.Close)
	return strings.TrimPrefix(front.URL, "http://")
}

// TestEventSourcesMissNothing lets two browsers read what arrives while the gateway is killed, and stopped, and started again. One
// has nothing but an EventSource. The other one is behind nginx, which answers 502 while the gateway is away: that stops an
// EventSource, so its page begins another one with the last id.
func TestEventSourcesMissNothing(t *testing.T) {
	s := newScene(t)
	pages := map[string]*page{
		"an EventSource alone": open(t, s.proxy(t), subscribePath+"?start.earliest=true", ""),
		"behind nginx":         open(t, s.nginx(t, "")[0], subscribePath+"?start.earliest=true", "&again"),
	}
	s.send(t, 50)
	for name, p := range pages {
		s.await(t, name+": the page is there", func() bool { return p.count(isBatch) > 0 })
	}
	sending := make(chan error, 1)
	go func() { sending <- s.driver.Run(s.ctx, 1200) }()
	for round, end := range []func() error{s.Kill, func() error { _, err := s.Stop(); return err }, s.Kill} {
		check(t, s.driver.AwaitAccepted(s.ctx, 300*(round+1)))
		before := make(map[string]int)
		for name, p := range pages {
			before[name] = p.count(isError)
		}
		check(t, end())
		for name, p := range pages { // it stays away until they have noticed
			s.await(t, name+": the page has noticed", func() bool { return p.count(isError) > before[name] })
		}
		check(t, s.Start(s.ctx))
	}
	check(t, <-sending)
	want := s.ids(t)
	for name, p := range pages {
		s.await(t, name+": the page has got as many as there are", func() bool { return p.count(isBatch) >= len(want) })
		if diff := cmp.Diff(want, p.ids()); diff != "" {
			t.Errorf("%s: - in the log, + in the page:\n%s", name, diff)
		}
		t.Logf("%s: %d notifications over %d interruptions", name, len(want), p.count(isError))
	}
}

// TestEventSourcesStop requires that event sources do not come back for ever: neither from an end nor to an error.
func TestEventSourcesStop(t *testing.T) {
	s := newScene(t)
	s.send(t, 20)
	front := s.proxy(t)
	ended := open(t, front, subscribePath+"?start.earliest=true&untilHead=true", "")
	refused := open(t, front, subscribePath+"?start.after=nonsense", "")
	s.await(t, "the one with an end has stopped", func() bool { return ended.count(isClosed) == 1 })
	if diff := cmp.Diff(s.ids(t), ended.ids()); diff != "" {
		t.Errorf("- in the log, + in the page:\n%s", diff)
	}
	if n := ended.count(isError); n != 2 { // after the end, and after the 204
		t.Errorf("it has tried %d times", n)
	}
	s.await(t, "the one with a bad token has stopped", func() bool { return refused.count(isClosed) == 1 })
}

// firstLine is what curl -N shows first, and how long it took.
func firstLine(ctx context.Context, address string) (string, time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", "-sSN", "http://"+address+subscribePath)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	took := time.Since(began)
	cancel()
	_ = cmd.Wait() // it was ended
	return line, took, err
}

// TestFirstFrameAtOnce requires that curl -N shows the first frame of an idle log within 100 ms, starting curl included, also
// behind nginx as it comes. The machine may be busy, so it is the best of several that counts; one that is held back in a
// buffer never comes.
func TestFirstFrameAtOnce(t *testing.T) {
	s := newScene(t)
	for name, address := range map[string]string{"direct": s.REST, "nginx": s.nginx(t, "")[0]} {
		var times []time.Duration
		for range 20 {
			line, took, err := firstLine(s.ctx, address)
			check(t, err)
			if !strings.Contains(line, `"confirmed":`) {
				t.Fatalf("%s: the first frame is %s", name, line)
			}
			times = append(times, took)
		}
		slices.Sort(times)
		t.Logf("%s: best %v, median %v, worst %v", name, times[0], times[len(times)/2], times[len(times)-1])
		if times[0] > 100*time.Millisecond {
			t.Errorf("%s: the first frame takes %v at best", name, times[0])
		}
	}
}

// TestHeartbeatsKeepProxiesWaiting requires that a stream of an idle log lives on behind a proxy that gives up after 15 s of
// silence.
func TestHeartbeatsKeepProxiesWaiting(t *testing.T) {
	s := newScene(t)
	address := s.nginx(t, "proxy_read_timeout 15s;")[0]
	var readers sync.WaitGroup
	for accept, mark := range map[string]string{"application/x-ndjson": `"heartbeat":`, "text/event-stream": ": heartbeat"} {
		readers.Go(func() {
			request, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://"+address+subscribePath, nil)
			if err != nil {
				t.Error(err)
				return
			}
			request.Header.Set("Accept", accept)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			lines := bufio.NewScanner(response.Body)
			heartbeats := 0
			for heartbeats < 3 && lines.Scan() { // the third comes after more than 15 s
				if strings.Contains(lines.Text(), mark) {
					heartbeats++
				}
			}
			if heartbeats < 3 {
				t.Errorf("%s: the stream ended after %d heartbeats: %v", accept, heartbeats, lines.Err())
			}
		})
	}
	readers.Wait()
}

// TestNamesBehindNginx requires that nginx as it comes, which asks the gateway for its address, needs no setting whatever name nginx
// itself is asked for, and that one that passes that name on is refused for a name that the gateway does not know.
func TestNamesBehindNginx(t *testing.T) {
	s := newScene(t)
	addresses := s.nginx(t, "", "proxy_set_header Host $http_host;")
	for _, tt := range []struct {
		address, host string
		status        int
	}{
		{addresses[0], "", http.StatusOK},
		{addresses[0], "gateway.example", http.StatusOK},
		{addresses[1], "", http.StatusOK},
		{addresses[1], "gateway.example", http.StatusMisdirectedRequest},
	} {
		request, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://"+tt.address+"/v1/log", nil)
		check(t, err)
		request.Host = tt.host
		response, err := http.DefaultClient.Do(request)
		check(t, err)
		response.Body.Close()
		if response.StatusCode != tt.status {
			t.Errorf("asking %s for %q: %s; want %d", tt.address, tt.host, response.Status, tt.status)
		}
	}
}

// TestOpenAPI has schemathesis make requests from the document, good ones and bad ones, and compare the answers with it.
func TestOpenAPI(t *testing.T) {
	s := newScene(t)
	s.send(t, 100)
	// Something for every call to find.
	wrong := &faults.Driver{URL: s.Webhook, Sender: faults.Secrets("wrong").Sender(), Connections: 1}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var sending sync.WaitGroup
	sending.Go(func() { _ = wrong.Run(ctx, 1) })
	s.await(t, "something is in quarantine", func() bool { return wrong.Denied() >= 20 })
	cancel()
	sending.Wait()
	response, err := http.Post("http://"+s.REST+"/v1/groups", "application/json", strings.NewReader(`{"group":{"name":"billing"},"start":{"earliest":true}}`))
	check(t, err)
	response.Body.Close()

	testdata, err := filepath.Abs("testdata")
	check(t, err)
	cmd := exec.CommandContext(s.ctx, *schemathesis, "--config-file", testdata+"/schemathesis.toml", "run", "http://"+s.REST+"/openapi.json",
		"--checks", "all", "--exclude-checks", "positive_data_acceptance", // bounds, and what excludes what, the protos say in words
		"--max-examples", "30", "--seed", "1", "--continue-on-failure", "--request-timeout", "60", "--warnings", "off")
	cmd.Env, cmd.Dir = append(os.Environ(), "SCHEMATHESIS_HOOKS="+testdata+"/hooks.py"), t.TempDir() // it leaves things behind
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("schemathesis: %v\n%s", err, output)
	}
	t.Logf("%s", output)
}
