// Package conformance holds each client to what ../README.md promises: see README.md.
package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var languages = flag.String("languages", "go", "harnesses to drive, separated by commas: go, python, typescript, java, rust; or all")

// patience bounds everything that is waited for, on a busy machine.
const patience = 30 * time.Second

// command says how to build and how to run a harness, in the directory clients/.
type command struct{ build, run []string }

// commands are of the harnesses; BIN stands for a directory of the test's own.
var commands = map[string]command{
	"go":         {[]string{"go", "build", "-buildvcs=false", "-o", "BIN/go", "./go/conformance"}, []string{"BIN/go"}},
	"python":     {[]string{"python/conformance/build.sh", "BIN/python"}, []string{"BIN/python/bin/python", "python/conformance/harness.py"}},
	"typescript": {[]string{"typescript/conformance/build.sh"}, []string{"node", "typescript/dist/conformance/harness.js"}},
	"java":       {[]string{"java/conformance/build.sh"}, []string{"java/conformance/run.sh"}},
	"rust":       {[]string{"rust/conformance/build.sh", "BIN/rust"}, []string{"BIN/rust"}},
}

// each runs a scenario for each language.
func each(t *testing.T, scenario func(t *testing.T, c client)) {
	t.Parallel()
	for _, language := range chosen() {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			scenario(t, client{language, built(t, language)})
		})
	}
}

func chosen() []string {
	if *languages == "all" {
		return slices.Sorted(maps.Keys(commands))
	}
	return strings.Split(*languages, ",")
}

var (
	binaries string // of this run
	building sync.Mutex
	builds   = map[string][]string{} // building; how to run what is built
)

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if binaries, err = os.MkdirTemp("", "linksgate-conformance-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(binaries)
	os.Exit(code)
}

// built builds a harness once, and returns how to run it.
func built(t testing.TB, language string) []string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	if run, ok := builds[language]; ok {
		return run
	}
	commands, ok := commands[language]
	if !ok {
		t.Fatalf("there is no harness for %q", language)
	}
	expand := func(words []string) []string {
		expanded := slices.Clone(words)
		for i := range expanded {
			expanded[i] = strings.ReplaceAll(expanded[i], "BIN", binaries)
		}
		return expanded
	}
	build := expand(commands.build)
	cmd := exec.Command(build[0], build[1:]...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the harness of %s: %v\n%s", language, err, out)
	}
	builds[language] = expand(commands.run)
	return builds[language]
}

// client starts harnesses of one language.
type client struct {
	language string
	run      []string
}

// order is the first line that a harness gets.
type order map[string]any

// event is a line that a harness wrote.
type event struct {
	Event          string
	ID             string
	Sequence       int64
	Token          string
	Text           string
	BodyBytes      int `json:"body_bytes"`
	Reason         string
	Attempt        int
	ICCID          string
	Outcome        string
	Error          string
	Detail         string
	FirstAvailable string `json:"first_available_token"`
	Count          int
	Seconds        float64
	at             time.Time
}

// harness is one run of a harness.
type harness struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer
	exited chan struct{}

	mu     sync.Mutex
	events []event       // mu
	more   chan struct{} // mu; closed when there are more
	over   bool          // mu
}

// start runs a harness with an order.
func (c client) start(t testing.TB, o order) *harness {
	t.Helper()
	words := c.run
	h := &harness{t: t, exited: make(chan struct{}), more: make(chan struct{})}
	h.cmd = exec.Command(words[0], words[1:]...)
	h.cmd.Dir = ".."
	if filepath.IsAbs(words[0]) || !strings.Contains(words[0], "/") {
		h.cmd.Path = words[0]
		if path, err := exec.LookPath(words[0]); err == nil {
			h.cmd.Path = path
		}
	}
	h.cmd.Stderr = &h.stderr
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.stdin = stdin
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go h.read(stdout)
	t.Cleanup(func() {
		h.kill()
		if t.Failed() {
			t.Logf("the harness's standard error:\n%s", h.stderr.String())
		}
	})
	line, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *harness) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = event{Event: "unreadable", Detail: lines.Text()}
		}
		e.at = time.Now()
		h.mu.Lock()
		h.events = append(h.events, e)
		close(h.more)
		h.more = make(chan struct{})
		h.mu.Unlock()
	}
	_ = h.cmd.Wait() // its state says all there is
	h.mu.Lock()
	h.over = true
	close(h.more)
	h.mu.Unlock()
	close(h.exited)
}

// so returns the events so far of a name; all without one.
func (h *harness) so(name string) []event {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name == "" {
		return slices.Clone(h.events)
	}
	return slices.DeleteFunc(slices.Clone(h.events), func(e event) bool { return e.Event != name })
}

// await waits until a harness has written so many events of a name, and returns them.
func (h *harness) await(name string, count int) []event {
	h.t.Helper()
	deadline := time.After(patience)
	for {
		h.mu.Lock()
		more, over := h.more, h.over
		h.mu.Unlock()
		found := h.so(name)
		if len(found) >= count {
			return found
		}
		if over {
			h.t.Fatalf("the harness ended after %d of %d %q; it said %v", len(found), count, name, tail(h.so("")))
		}
		select {
		case <-more:
		case <-deadline:
			h.t.Fatalf("%d of %d %q came; the harness said %v", len(found), count, name, tail(h.so("")))
		}
	}
}

func tail(events []event) []event { return events[max(0, len(events)-8):] }

// stopped waits for the end, and returns how it was.
func (h *harness) stopped() event {
	h.t.Helper()
	said := h.await("stopped", 1)[0]
	h.awaitExit()
	if code := h.cmd.ProcessState.ExitCode(); code != 0 {
		h.t.Errorf("the harness exited with %d", code)
	}
	return said
}

func (h *harness) awaitExit() {
	h.t.Helper()
	select {
	case <-h.exited:
	case <-time.After(patience):
		h.t.Fatal("the harness does not end")
	}
}

// stop has the harness stop gracefully, and returns how it ended.
func (h *harness) stop() event {
	h.t.Helper()
	if _, err := io.WriteString(h.stdin, `{"command":"stop"}`+"\n"); err != nil {
		h.t.Fatal(err)
	}
	return h.stopped()
}

// kill ends the harness as kill -9 does.
func (h *harness) kill() {
	_ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL)
	<-h.exited
}

// endsWith requires the end of a harness to be an error, or none.
func (h *harness) endsWith(want string) event {
	h.t.Helper()
	said := h.stopped()
	if said.Error != want {
		h.t.Errorf("it ended with %q (%s), want %q", said.Error, said.Detail, want)
	}
	return said
}
