package faults

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/linksgate/linksgate/server/payload"
)

// sockets are what a service manager listens on for the gateway.
type sockets struct {
	names []string
	files []*os.File
}

func newSockets(g *Gateway) (*sockets, error) {
	s := &sockets{names: []string{"webhook", "grpc", "admin", "rest"}}
	for _, address := range g.settings.addresses {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		file, err := listener.(*net.TCPListener).File()
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, file)
		if err := listener.Close(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// start starts a process that is handed the sockets, as systemd starts it: LISTEN_PID is its own.
func (s *sockets) start(g *Gateway) (*exec.Cmd, error) {
	serve := g.command("serve", "--config", g.settings.path())
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, serve.Args...)...)
	cmd.Env = append(slices.Clone(serve.Env), fmt.Sprintf("LISTEN_FDS=%d", len(s.files)), "LISTEN_FDNAMES="+strings.Join(s.names, ":"))
	cmd.ExtraFiles = s.files
	cmd.Stdout, cmd.Stderr = g.output, g.output
	return cmd, cmd.Start()
}

// restarts is what senders met while the gateway was started again and again.
type restarts struct {
	sent, accepted, refused, broken, other int
	longest                                time.Duration // until an answer with 200
	last                                   error         // of what was broken off
}

// restartUnderLoad starts the gateway again and again while so many notifications a second are sent, each over a connection of its own.
func restartUnderLoad(t testing.TB, times, perSecond int, kill func(n int) bool) restarts {
	t.Helper()
	path, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewGateway(path, t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSockets(g)
	if err != nil {
		t.Fatal(err)
	}
	process, err := s.start(g)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	var mu sync.Mutex
	var r restarts
	senders.Go(func() { sendEvenly(ctx, t, g, perSecond, &senders, &mu, &r) })
	for n := range times {
		time.Sleep(time.Second)
		signal := syscall.SIGTERM
		if kill(n) {
			signal = syscall.SIGKILL
		}
		if err := process.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = process.Wait() // killed, or in order: what senders meet tells
		if process, err = s.start(g); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	stop()
	senders.Wait()
	_ = process.Process.Kill()
	_ = process.Wait()
	if r.accepted == 0 {
		t.Fatalf("nothing was accepted: %s", g.output)
	}
	return r
}

// sendEvenly sends so many notifications a second until ctx ends.
func sendEvenly(ctx context.Context, t testing.TB, g *Gateway, perSecond int, senders *sync.WaitGroup, mu *sync.Mutex, r *restarts) {
	client := &http.Client{Timeout: answerTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	driver := &Driver{URL: g.Webhook, Sender: FirstSecrets.Sender()}
	kinds := payload.Kinds()
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		senders.Go(func() {
			one, err := driver.sendOne(client, kinds)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			r.sent++
			switch {
			case one.accepted():
				r.accepted++
				r.longest = max(r.longest, one.Ended.Sub(one.Began))
			case one.Err != nil && strings.Contains(one.Err.Error(), "refused"):
				r.refused++
			case one.Err != nil:
				r.broken++ // its connection ended with the process
				r.last = one.Err
			default:
				r.other++
			}
		})
	}
}

// A restart in order refuses nobody and breaks nothing off: who connects meanwhile waits in the kernel for the next process.
func TestSocketsAreHandedOver(t *testing.T) {
	r := restartUnderLoad(t, 2, 200, func(int) bool { return false })
	if r.refused+r.broken+r.other > 0 || r.accepted != r.sent {
		t.Errorf("%+v: %v", r, r.last)
	}
}

// BenchmarkRestart restarts the gateway ten times under 500 notifications a second, half of the times with kill -9.
func BenchmarkRestart(b *testing.B) {
	for b.Loop() {
		r := restartUnderLoad(b, 10, 500, func(n int) bool { return n%2 == 1 })
		b.ReportMetric(float64(r.sent), "sent")
		b.ReportMetric(float64(r.refused), "refused")
		b.ReportMetric(float64(r.other), "answered-otherwise")
		b.ReportMetric(float64(r.broken), "broken-off-by-kill-9")
		b.ReportMetric(r.longest.Seconds(), "s/longest-wait")
	}
}
