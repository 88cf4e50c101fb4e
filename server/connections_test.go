package server_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/faults"
)

// Whoever opens more connections than the process may have descriptors, and sends nothing on them, keeps neither the log from its next
// file nor a genuine sender from being answered.
func TestIdleConnectionsLeaveRoom(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the gateway")
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	binary, err := faults.Build(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	limited := filepath.Join(dir, "limited")
	if err := os.WriteFile(limited, []byte("#!/bin/sh\nulimit -n 1024\nexec "+binary+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("sh"); err != nil {
		t.Fatal(err)
	}
	g, err := faults.NewGateway(limited, t.TempDir(), faults.Options{})
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
	address := strings.TrimPrefix(g.Webhook[:strings.LastIndex(g.Webhook, "/linksfield")], "http://")
	idle := func(to string, count int) {
		for range count {
			conn, err := net.Dial("tcp", to)
			if err == nil {
				t.Cleanup(func() { _ = conn.Close() })
			}
		}
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 4000 {
		t.Skipf("this test needs 4000 descriptors of its own: %d %v", limit.Cur, err)
	}
	for _, to := range []string{address, g.GRPC, g.REST} {
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
