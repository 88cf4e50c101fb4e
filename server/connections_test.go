package server_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/faults"
)

// limited is the built gateway in a process that may have few descriptors.
type limited struct {
	*faults.Gateway
	webhook string // address
}

func startLimited(t *testing.T, descriptors int) limited {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the gateway")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 4000 {
		t.Skipf("this test needs 4000 descriptors of its own: %d %v", limit.Cur, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	binary, err := faults.Build(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "limited")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", descriptors, binary), 0o700); err != nil {
		t.Fatal(err)
	}
	g, err := faults.NewGateway(script, t.TempDir(), faults.Options{})
	if err == nil {
		err = g.Start(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if output := g.Close(); t.Failed() {
			t.Log(output)
		}
	})
	return limited{g, strings.TrimPrefix(g.Webhook[:strings.LastIndex(g.Webhook, "/linksfield")], "http://")}
}

// Whoever opens more connections than the process may have descriptors, and sends nothing on them, keeps neither the log from its next
// file nor a genuine sender from being answered.
func TestIdleConnectionsLeaveRoom(t *testing.T) {
	t.Parallel()
	g := startLimited(t, 1024)
	ctx := t.Context()
	idle := func(to string, count int) {
		for range count {
			conn, err := net.Dial("tcp", to)
			if err == nil {
				t.Cleanup(func() { _ = conn.Close() })
			}
		}
	}
	for _, to := range []string{g.webhook, g.GRPC, g.REST} {
		idle(to, 1100)
	}
	time.Sleep(1500 * time.Millisecond) // connections are at rest after a second
	// The body fills segments, so that the log needs files.
	body := []byte(`{"sim_id":"8986022019000000000","text_message":"` + strings.Repeat("x", 200<<10) + `"}`)
	for n := range 400 {
		notification, err := faults.FirstSecrets.Sender().MakeWithBody(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body)
		if err != nil {
			t.Fatal(err)
		}
		soon, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		request, err := notification.Request(soon, g.Webhook)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatalf("notification %d: %v", n, err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Fatalf("notification %d: %s", n, response.Status)
		}
	}
}

// Who has as many connections as one source may have gets no more at the cost of others: those are not closed to make room for it.
func TestOneSourceMakesNobodyLeave(t *testing.T) {
	t.Parallel()
	g := startLimited(t, 1024)
	other, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", g.webhook)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	time.Sleep(1500 * time.Millisecond) // from then on it may be closed to make room
	for range 600 {
		if conn, err := net.Dial("tcp", g.webhook); err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
	}
	if err := other.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection of another source: %v", err)
	}
}
