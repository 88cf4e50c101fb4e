package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/linksgate/linksgate/server/faults/skew"
)

const (
	// DrainTimeout is the gateway's drain_timeout.
	DrainTimeout = 5 * time.Second
	// readyTimeout bounds a start, the reading of the log included.
	readyTimeout = 30 * time.Second
	// exitTimeout bounds how long a process may take to end after it should have, on a busy machine.
	exitTimeout = 10 * time.Second
	// keptOutput is how much of the gateway's output is kept: its end.
	keptOutput = 16 << 10
)

// Build builds the gateway's binary into a directory and returns its path. The go command must run inside the module.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "linksgate")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", binary, "github.com/linksgate/linksgate/cmd/linksgate")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gateway: %w\n%s", err, out)
	}
	return binary, nil
}

// Gateway is one `linksgate serve`: a data directory, a configuration and addresses that stay the same, and at most one process at a
// time. Its methods are for one goroutine.
type Gateway struct {
	// Webhook is the URL of the account that notifications are sent to.
	Webhook string
	// GRPC is the address to subscribe at.
	GRPC string
	// REST is the address of the same over HTTP.
	REST string

	binary   string
	admin    string
	settings settings
	output   *output
	process  *process      // nil if there is none
	offset   time.Duration // of the processes' clock
}

// process is one run of the binary.
type process struct {
	cmd    *exec.Cmd
	output *output
	clock  *skew.Clock   // nil if it is the machine's
	exited chan struct{} // closed when cmd has ended and its state is set
}

// NewGateway prepares a gateway in an empty directory. It is not started.
func NewGateway(binary, dir string, options Options) (*Gateway, error) {
	ports, err := FreePorts(4)
	if err != nil {
		return nil, fmt.Errorf("choose ports: %w", err)
	}
	g := &Gateway{
		Webhook:  "http://" + ports[0] + "/linksfield/" + account,
		GRPC:     ports[1],
		REST:     ports[3],
		admin:    ports[2],
		binary:   binary,
		settings: newSettings(dir, ports, options),
		output:   &output{},
	}
	return g, g.Accept(FirstSecrets)
}

// FreePorts returns loopback addresses that nobody listens on. They are below the ports that systems give to outgoing connections:
// a sender that tries to connect while the gateway is away could otherwise be given the very port that it tries, and keep it from
// the gateway.
func FreePorts(n int) ([]string, error) {
	const lowest, highest, tries = 16_000, 32_767, 100
	var addresses []string
	for range tries {
		if len(addresses) == n {
			return addresses, nil
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(highest-lowest+1)))
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			return nil, err
		}
		if !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	return nil, fmt.Errorf("%d of %d found in %d tries", len(addresses), n, tries)
}

// Start starts the process and waits until it is ready. After the process has ended, Start starts another one on the same directory
// and addresses.
func (g *Gateway) Start(ctx context.Context) error {
	if err := g.Launch(); err != nil {
		return err
	}
	return g.AwaitReady(ctx)
}

// Launch starts the process and does not wait.
func (g *Gateway) Launch() error {
	if g.process != nil {
		return errors.New("start the gateway: it is running")
	}
	p, err := g.launch()
	if errors.Is(err, skew.ErrUnsupported) {
		g.settings.OwnClock = false
		p, err = g.launch()
	}
	if err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // its state says all there is
	}()
	g.process = p
	return nil
}

func (g *Gateway) launch() (*process, error) {
	p := &process{cmd: g.command("serve", "--config", g.settings.path()), output: &output{}, exited: make(chan struct{})}
	p.cmd.Stdout = io.MultiWriter(g.output, p.output)
	p.cmd.Stderr = p.cmd.Stdout
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // signals to the tests are not for it
	if !g.settings.OwnClock {
		return p, p.cmd.Start()
	}
	var err error
	p.clock, err = skew.Start(p.cmd, g.offset)
	return p, err
}

// HasClock reports whether the process has a wall clock of its own: it was asked for, and this machine can do it.
func (g *Gateway) HasClock() bool { return g.process != nil && g.process.clock != nil }

// SetClock makes the wall clock of the process, and of those that follow it, jump to so much after the machine's. If there is a process,
// it must have a clock of its own, and it is an error if it does not answer by the new time.
func (g *Gateway) SetClock(ctx context.Context, offset time.Duration) error {
	const tolerance = 5 * time.Second
	g.offset = offset
	if g.process == nil {
		return nil
	}
	if err := g.process.clock.Set(offset); err != nil {
		return err
	}
	_, header, _, err := g.ask(ctx, "/healthz")
	if err != nil {
		return err
	}
	told, err := http.ParseTime(header.Get("Date"))
	if off := time.Until(told) - offset; err != nil || off.Abs() > tolerance {
		return fmt.Errorf("move the gateway's clock by %v: it says %s", offset, header.Get("Date"))
	}
	return nil
}

// command is the binary, to be run apart from what is set around the tests.
func (g *Gateway) command(arguments ...string) *exec.Cmd {
	cmd := exec.Command(g.binary, arguments...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "LINKSGATE_") })
	return cmd
}

// AwaitReady waits until the gateway says that its log can be written.
func (g *Gateway) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := Await(ctx, "the gateway is ready", func() bool {
		status, _, _ := g.get(ctx, "/readyz")
		return g.process.ended() || status == http.StatusOK
	})
	if err == nil && g.process.ended() {
		err = fmt.Errorf("the gateway ended before it was ready: %v", g.process.cmd.ProcessState)
	}
	return err
}

// Kill ends the process at once, as kill -9 does. It is an error if the process had ended by itself.
func (g *Gateway) Kill() error {
	p := g.process
	g.process = nil
	switch {
	case p == nil:
		return errors.New("kill the gateway: it is not running")
	case p.ended():
		return fmt.Errorf("kill the gateway: it had ended by itself: %v", p.cmd.ProcessState)
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	return p.wait(exitTimeout)
}

// End ends the process at once, if there is one and it has not ended by itself.
func (g *Gateway) End() error {
	if g.process == nil || g.process.ended() {
		g.process = nil
		return nil
	}
	return g.Kill()
}

// Stop asks the process to end, as SIGTERM does, and returns how long that took. It is an error if it took longer than draining
// may, or if the process did not end with status 0.
func (g *Gateway) Stop() (time.Duration, error) {
	p := g.process
	g.process = nil
	if p == nil {
		return 0, errors.New("stop the gateway: it is not running")
	}
	began := time.Now()
	if err := p.signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	err := p.wait(DrainTimeout + exitTimeout)
	took := time.Since(began)
	switch {
	case err != nil:
		return took, errors.Join(fmt.Errorf("stop the gateway: %w", err), p.signal(syscall.SIGKILL), p.wait(exitTimeout))
	case !p.cmd.ProcessState.Success():
		return took, fmt.Errorf("stop the gateway: %v", p.cmd.ProcessState)
	}
	return took, nil
}

// StopTwice asks the process to end, and after a while again, which may end it at once. It is an error if it does not end.
func (g *Gateway) StopTwice(while time.Duration) error {
	p := g.process
	g.process = nil
	if p == nil {
		return errors.New("stop the gateway: it is not running")
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	time.Sleep(while)
	if !p.ended() {
		if err := p.signal(syscall.SIGTERM); err != nil && !p.ended() {
			return err
		}
	}
	if err := p.wait(exitTimeout); err != nil {
		return errors.Join(fmt.Errorf("stop the gateway twice: %w", err), p.signal(syscall.SIGKILL), p.wait(exitTimeout))
	}
	return nil
}

// Ended reports whether the process has ended by itself. It is then forgotten. An error says that it did not end as a process
// that gives up should: with exit status 1, and with the reason in what it printed.
func (g *Gateway) Ended() (bool, error) {
	p := g.process
	if p == nil || !p.ended() {
		return false, nil
	}
	g.process = nil
	printed := p.output.String()
	if p.cmd.ProcessState.ExitCode() != 1 || !strings.Contains("\n"+printed, "\nlinksgate: ") {
		return true, fmt.Errorf("the gateway ended without giving a reason: %v\n%s", p.cmd.ProcessState, printed)
	}
	return true, nil
}

// Close ends the process, if there is one, and returns the end of what all processes of this gateway have printed.
func (g *Gateway) Close() string {
	if g.process != nil {
		_ = g.Kill() // it may have ended by itself, which is for others to judge
	}
	return g.output.String()
}

// ResidentBytes is how much memory the process has in use. It needs Linux.
func (g *Gateway) ResidentBytes() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.process.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the gateway's memory: %w", err)
	}
	var kilobytes int64
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscanf(rest, "%d kB", &kilobytes); err != nil {
		return 0, fmt.Errorf("read the gateway's memory: %w", err)
	}
	return kilobytes << 10, nil
}

func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// signal sends a signal to the whole process group.
func (p *process) signal(signal syscall.Signal) error {
	// A process that has just ended by itself need not be waited for yet.
	if err := syscall.Kill(-p.cmd.Process.Pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to the gateway: %w", signal, err)
	}
	return nil
}

func (p *process) wait(timeout time.Duration) error {
	select {
	case <-p.exited:
		return nil
	case <-time.After(timeout):
		return fmt.Errorf("it was still running after %v", timeout)
	}
}

// output keeps the end of what is written to it.
type output struct {
	mu   sync.Mutex
	kept []byte // mu
}

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, p...)
	if over := len(o.kept) - keptOutput; over > 0 {
		o.kept = slices.Delete(o.kept, 0, over)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.kept)
}
