package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/faults"
)

var gatewayBinary = sync.OnceValues(func() (string, error) { return faults.Build(context.Background(), binaries) })

// gateway is a real gateway, and Linksfield's side of it.
type gateway struct {
	*faults.Gateway
	t    *testing.T
	conn *grpc.ClientConn
	sent int
}

func startGateway(t *testing.T) *gateway {
	t.Helper()
	return startGatewayOn(t, t.TempDir())
}

// startGatewayOn starts a gateway on a log that there may be.
func startGatewayOn(t *testing.T, logDir string) *gateway {
	t.Helper()
	return startGatewayFor(t, faults.Options{LogDir: logDir})
}

// startGatewayFor starts a gateway.
func startGatewayFor(t *testing.T, options faults.Options) *gateway {
	t.Helper()
	binary, err := gatewayBinary()
	if err != nil {
		t.Fatal(err)
	}
	g, err := faults.NewGateway(binary, t.TempDir(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if output := g.Close(); t.Failed() {
			t.Logf("the gateway said:\n%s", output)
		}
	})
	started := &gateway{Gateway: g, t: t}
	started.start()
	started.conn, err = grpc.NewClient(g.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = started.conn.Close() })
	return started
}

func (g *gateway) start() {
	g.t.Helper()
	if err := g.Start(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// killed and stopped end the gateway's process, without and with a word to its clients.
func (g *gateway) killed() {
	g.t.Helper()
	if err := g.Kill(); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) stopped() {
	g.t.Helper()
	if _, err := g.Stop(); err != nil {
		g.t.Fatal(err)
	}
}

// sms sends an SMS of a SIM.
func (g *gateway) sms(iccid, text string) {
	g.t.Helper()
	g.sent++
	body, err := json.Marshal(map[string]any{"sim_id": iccid, "text_message": text, "number": g.sent})
	if err != nil {
		g.t.Fatal(err)
	}
	kind := linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED
	n, err := faults.FirstSecrets.Sender().MakeWithBody(kind, body)
	if err != nil {
		g.t.Fatal(err)
	}
	request, err := n.Request(g.t.Context(), g.Webhook)
	if err != nil {
		g.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if answer, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		g.t.Fatalf("%s: %s", response.Status, answer)
	}
}

// send sends so many SMS, numbered by their texts.
func (g *gateway) send(count int) {
	g.t.Helper()
	for range count {
		g.sms("8986022019000000000", fmt.Sprint(g.sent))
	}
}

// group creates a group that starts with the oldest notification.
func (g *gateway) group(ordering linksgatev1.GroupOrdering, lease time.Duration) {
	g.t.Helper()
	_, err := linksgatev1.NewGroupServiceClient(g.conn).CreateGroup(g.t.Context(), &linksgatev1.CreateGroupRequest{
		Group: &linksgatev1.Group{
			Name: "work", Ordering: ordering, LeaseDuration: durationpb.New(lease), MaxAttempts: 3,
			BackOff: &linksgatev1.RetryBackOff{Initial: durationpb.New(100 * time.Millisecond)},
		},
		Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}},
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) status() *linksgatev1.GroupStatus {
	g.t.Helper()
	response, err := linksgatev1.NewGroupServiceClient(g.conn).GetGroup(g.t.Context(), &linksgatev1.GetGroupRequest{GroupName: "work"},
		grpc.WaitForReady(true))
	if err != nil {
		g.t.Fatal(err)
	}
	return response.GetGroup().GetStatus()
}

// settled waits until the group has settled everything.
func (g *gateway) settled() {
	g.t.Helper()
	eventually(g.t, "everything is settled", func() bool { return g.status().GetOldestUnsettled() == nil })
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// proxy stands between a client and a gateway.
type proxy struct {
	address string
	target  string
	frozen  atomic.Bool
	limit   atomic.Int64 // bytes from the gateway after which to cut; 0: none

	mu    sync.Mutex
	conns map[net.Conn]struct{} // mu
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String(), target: target, conns: make(map[net.Conn]struct{})}
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

func (p *proxy) serve(near net.Conn) {
	far, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = near.Close()
		return
	}
	p.mu.Lock()
	p.conns[near], p.conns[far] = struct{}{}, struct{}{}
	p.mu.Unlock()
	go p.copy(far, near, false)
	p.copy(near, far, true)
}

// copy passes bytes on, until either side ends.
func (p *proxy) copy(to, from net.Conn, fromGateway bool) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
	}()
	buffer := make([]byte, 4<<10)
	for {
		n, err := from.Read(buffer)
		for p.frozen.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil || fromGateway && p.limit.Load() > 0 && p.limit.Add(int64(-n)) <= 0 {
			p.limit.Store(0)
			return
		}
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
		delete(p.conns, conn)
	}
}
