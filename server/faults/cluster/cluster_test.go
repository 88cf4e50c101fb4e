// Package cluster breaks a cluster of three NATS servers and three gateways, all of them processes, under load, and checks what senders
// and readers see of it.
package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

var (
	enabled = flag.Bool("cluster", false, "break a cluster of processes")
	outage  = flag.Duration("outage", 10*time.Second, "how long all of NATS is away")
	rate    = flag.Int("rate", 100, "notifications a second")
)

const (
	count  = 3 // of servers, and of gateways
	secret = "the-secret-of-the-test"
	// longestWait is what a sender has to wait at most.
	longestWait = 3 * time.Second
)

// process is a server or a gateway, which can be killed, frozen and started again.
type process struct {
	t       *testing.T
	name    string
	args    []string
	dir     string
	command *exec.Cmd
	output  *os.File
}

func (p *process) start() {
	p.t.Helper()
	p.command = exec.Command(p.args[0], p.args[1:]...)
	p.command.Dir, p.command.Stdout, p.command.Stderr = p.dir, p.output, p.output
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(s); err != nil {
		p.t.Error(p.name, err)
	}
}

func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	_ = p.command.Wait()
}

// world is the whole cluster.
type world struct {
	t        *testing.T
	servers  []*process
	gateways []*process
	webhooks []string
	rest     []string
	grpc     []string
}

func build(t *testing.T, into, pkg string) string {
	t.Helper()
	path := filepath.Join(into, filepath.Base(strings.TrimSuffix(pkg, "/v2")))
	command := exec.Command("go", "build", "-o", path, pkg)
	command.Dir = "../../.."
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return path
}

// addresses returns addresses that nobody listens on.
func addresses(t *testing.T, count int) (all []string) {
	t.Helper()
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		all = append(all, listener.Addr().String())
	}
	return all
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	bin := t.TempDir()
	nats, linksgate := build(t, bin, "github.com/nats-io/nats-server/v2"), build(t, bin, "./cmd/linksgate")
	clients, routes := addresses(t, count), addresses(t, count)
	w.webhooks, w.rest, w.grpc = addresses(t, count), addresses(t, count), addresses(t, count)
	admin := addresses(t, count)
	add := func(name string, args ...string) *process {
		dir := t.TempDir()
		output, err := os.Create(filepath.Join(dir, "output"))
		if err != nil {
			t.Fatal(err)
		}
		p := &process{t: t, name: name, args: args, dir: dir, output: output}
		t.Cleanup(func() {
			_ = p.command.Process.Kill()
			_ = p.command.Wait()
			_ = output.Close()
			if t.Failed() {
				text, _ := os.ReadFile(output.Name())
				t.Logf("%s:\n%s", name, text[max(0, len(text)-4000):])
			}
		})
		return p
	}
	for n := range count {
		p := add(fmt.Sprint("nats-", n), nats, "-c", "nats.conf")
		conf := fmt.Sprintf("server_name: n%d\nlisten: %q\nmax_payload: 2MB\njetstream { store_dir: data, sync_interval: always }\n"+
			"cluster { name: test, listen: %q, routes: [nats://%s] }\n", n, clients[n], routes[n], strings.Join(routes, ", nats://"))
		write(t, p.dir, "nats.conf", conf)
		p.start()
		w.servers = append(w.servers, p)
	}
	for n := range count {
		p := add(fmt.Sprint("gateway-", n), linksgate, "serve", "--config", "linksgate.yaml")
		write(t, p.dir, "md5.secret", secret)
		write(t, p.dir, "linksgate.yaml", fmt.Sprintf("listen: {webhook: %q, grpc: %q, rest: %q, admin: %q}\n"+
			"log: {min_free: 1MiB, spool: {dir: spool}, nats: {url: \"nats://%s\"}}\naccounts: {acme: {md5_secrets: [{file: md5.secret}]}}\n",
			w.webhooks[n], w.grpc[n], w.rest[n], admin[n], strings.Join(clients, ",nats://")))
		p.start()
		w.gateways = append(w.gateways, p)
		w.await(n)
	}
	return w
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// await waits until a gateway takes in.
func (w *world) await(n int) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", w.webhooks[n], time.Second)
		if err == nil {
			_ = conn.Close()
			if response, err := http.Get("http://" + w.rest[n] + "/v1/log"); err == nil {
				_ = response.Body.Close()
				if response.StatusCode == http.StatusOK {
					return
				}
			}
		}
		if time.Now().After(end) {
			w.t.Fatalf("gateway %d does not answer: %v", n, err)
		}
	}
}

// load is what one sender per gateway met.
type load struct {
	mu       sync.Mutex
	accepted map[string]bool // mu; bodies
	order    [count][]string // mu; by gateway
	refused  int             // mu
	broken   int             // mu; connections, of a gateway that was killed
	longest  time.Duration   // mu
}

// send sends a notification to a gateway, and again if the connection broke, as that is what killing it does.
func (l *load) send(ctx context.Context, client *http.Client, address string, gateway int, n uint64) {
	sender := simulator.Sender{MD5: signature.Secret{Value: secret}}
	notification, err := sender.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, n)
	if err != nil {
		panic(err)
	}
	request, err := notification.Request(ctx, "http://"+address+"/linksfield/acme")
	if err != nil {
		panic(err)
	}
	began := time.Now()
	response, err := client.Do(request)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.broken++
		return
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	l.longest = max(l.longest, time.Since(began))
	if response.StatusCode != http.StatusOK {
		l.refused++
		return
	}
	l.accepted[string(notification.Body)] = true
	l.order[gateway] = append(l.order[gateway], string(notification.Body))
}

// report is what happened during one fault.
type report struct {
	what                      string
	accepted, refused, broken int
	longest                   time.Duration
}

// during runs a fault under load at the gateways that are not to be touched.
func (w *world) during(l *load, what string, gateways []int, fault func()) report {
	w.t.Helper()
	l.mu.Lock()
	accepted, refused, broken := len(l.accepted), l.refused, l.broken
	l.longest = 0
	l.mu.Unlock()
	ctx, cancel := context.WithCancel(w.t.Context())
	var sending sync.WaitGroup
	for _, g := range gateways {
		sending.Go(func() {
			client := &http.Client{Timeout: 20 * time.Second}
			ticker := time.NewTicker(time.Second * time.Duration(len(gateways)) / time.Duration(*rate))
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
					l.send(context.WithoutCancel(ctx), client, w.webhooks[g], g, next())
				}
			}
		})
	}
	time.Sleep(time.Second)
	fault()
	time.Sleep(time.Second)
	cancel()
	sending.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return report{what, len(l.accepted) - accepted, l.refused - refused, l.broken - broken, l.longest}
}

var numbers struct {
	sync.Mutex
	last uint64
}

func next() uint64 {
	numbers.Lock()
	defer numbers.Unlock()
	numbers.last++
	return numbers.last
}

// bodies returns the bodies in the log of a gateway, in order.
func (w *world) bodies(n int) (all []string) {
	w.t.Helper()
	response, err := http.Get("http://" + w.rest[n] + "/v1/notifications:subscribe?earliest=true&untilHead=true&maxBatch=512")
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	decoder := json.NewDecoder(response.Body)
	for {
		var frame struct {
			Batch struct{ Notifications []struct{ Body string } }
			Error json.RawMessage
		}
		if err := decoder.Decode(&frame); err == io.EOF {
			return all
		} else if err != nil || frame.Error != nil {
			w.t.Fatal(err, string(frame.Error))
		}
		for _, one := range frame.Batch.Notifications {
			all = append(all, one.Body)
		}
	}
}

// awaitForwarded waits until no gateway has anything in its spool.
func (w *world) awaitForwarded() {
	w.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		waiting := false
		for n := range count {
			var info struct{ Spool *json.RawMessage }
			response, err := http.Get("http://" + w.rest[n] + "/v1/log")
			if err != nil || response.StatusCode != http.StatusOK || json.NewDecoder(response.Body).Decode(&info) != nil || info.Spool != nil {
				waiting = true
			}
			if err == nil {
				_ = response.Body.Close()
			}
		}
		if !waiting {
			return
		}
		if time.Now().After(end) {
			w.t.Fatal("the spools are not empty after two minutes")
		}
	}
}

// Under every fault of NATS no notification is refused, none waits longer than three seconds, and in the end each is in the log once, in
// the order of its gateway, the same at every gateway.
func TestTheClusterRefusesNothing(t *testing.T) {
	if !*enabled {
		t.Skip("run with -cluster, as make faults-cluster does")
	}
	w := start(t)
	l := &load{accepted: make(map[string]bool)}
	all := []int{0, 1, 2}
	var reports []report
	fault := func(what string, gateways []int, fault func()) {
		reports = append(reports, w.during(l, what, gateways, fault))
	}
	fault("nothing", all, func() {})
	for _, s := range w.servers {
		fault(s.name+" killed, and started again", all, func() { s.kill(); time.Sleep(4 * time.Second); s.start(); time.Sleep(3 * time.Second) })
		fault(s.name+" frozen for 8 s", all, func() {
			s.signal(syscall.SIGSTOP)
			time.Sleep(8 * time.Second)
			s.signal(syscall.SIGCONT)
			time.Sleep(time.Second)
		})
	}
	fault("two of three killed for 10 s", all, func() {
		w.servers[0].kill()
		w.servers[1].kill()
		time.Sleep(10 * time.Second)
		w.servers[0].start()
		w.servers[1].start()
		time.Sleep(3 * time.Second)
	})
	fault(fmt.Sprintf("all of NATS away for %v", *outage), all, func() {
		for _, s := range w.servers {
			s.kill()
		}
		time.Sleep(*outage)
		for _, s := range w.servers {
			s.start()
		}
		time.Sleep(5 * time.Second)
	})
	w.awaitForwarded()
	fault("gateway-0 killed while NATS is away, load on the others", []int{1, 2}, func() {
		for _, s := range w.servers {
			s.signal(syscall.SIGSTOP)
		}
		time.Sleep(4 * time.Second)
		w.gateways[0].kill()
		for _, s := range w.servers {
			s.signal(syscall.SIGCONT)
		}
		time.Sleep(2 * time.Second)
		w.gateways[0].start()
		w.await(0)
	})
	w.awaitForwarded()

	table := new(bytes.Buffer)
	columns := tabwriter.NewWriter(table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, "\nfault\taccepted\trefused\tbroken off\tlongest wait")
	for _, r := range reports {
		fmt.Fprintf(columns, "%s\t%d\t%d\t%d\t%v\n", r.what, r.accepted, r.refused, r.broken, r.longest.Round(time.Millisecond))
		if r.refused+r.broken > 0 || r.longest > longestWait {
			t.Errorf("%s: %d refused, %d broken off, longest wait %v", r.what, r.refused, r.broken, r.longest)
		}
	}
	_ = columns.Flush()
	t.Log(table)
	w.checkLog(l)
}

// checkLog compares what was accepted with the log.
func (w *world) checkLog(l *load) {
	w.t.Helper()
	first := w.bodies(0)
	at := make(map[string]int, len(first))
	repeated, lost, moved := 0, 0, 0
	for n, body := range first {
		if _, before := at[body]; before {
			repeated++
		}
		at[body] = n
	}
	for body := range l.accepted {
		if _, there := at[body]; !there {
			lost++
		}
	}
	for _, order := range l.order {
		for n := 1; n < len(order); n++ {
			if at[order[n]] < at[order[n-1]] {
				moved++
			}
		}
	}
	w.t.Logf("%d accepted, %d in the log: %d lost, %d repeated, %d out of order", len(l.accepted), len(first), lost, repeated, moved)
	if lost+repeated+moved > 0 {
		w.t.Error("the log is not what was accepted")
	}
	for n := 1; n < count; n++ {
		if other := w.bodies(n); strings.Join(other, "\n") != strings.Join(first, "\n") {
			w.t.Errorf("gateway %d has %d notifications, gateway 0 %d, or in another order", n, len(other), len(first))
		}
	}
}
