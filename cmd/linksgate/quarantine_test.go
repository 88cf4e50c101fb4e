package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server"
	"github.com/linksgate/linksgate/server/config"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

const (
	wrongSecret = "not the secret"
	rightSecret = "the secret"
)

// linksfield signs with the right secret, whatever the gateway has.
var linksfield = simulator.Sender{MD5: signature.Secret{Value: rightSecret}}

// site is a gateway that can be stopped and started on its directory, with one account whose secret is in a file.
type site struct {
	config     config.Config
	secretFile string
	serving    server.Serving
	stop       func() // waits
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{secretFile: filepath.Join(dir, "secret"), stop: func() {}}
	s.config = config.Config{
		Listen: config.Listen{Webhook: "127.0.0.1:0", GRPC: "127.0.0.1:0", REST: "127.0.0.1:0", Admin: "127.0.0.1:0"},
		Log:    config.Log{Dir: filepath.Join(dir, "data")},
		Accounts: map[string]config.Account{
			"acme":  {MD5Secrets: []config.Secret{{Name: "notification-secret", File: s.secretFile}}},
			"other": {MD5Secrets: []config.Secret{{Name: "other", File: s.secretFile}}},
		},
	}
	t.Cleanup(func() { s.stop() })
	return s
}

// start stops the gateway if it runs, and starts it with a secret.
func (s *site) start(t *testing.T, secret string) {
	t.Helper()
	s.stop()
	if err := os.WriteFile(s.secretFile, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan server.Serving, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		ended <- server.Run(ctx, s.config, server.Env{
			Logger: slog.New(slog.DiscardHandler), Ready: func(serving server.Serving) { ready <- serving },
		})
	}()
	select {
	case s.serving = <-ready:
	case err := <-ended:
		t.Fatalf("the gateway did not start: %v", err)
	}
	s.stop = func() {
		s.stop = func() {}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the gateway ended with %v", err)
		}
	}
	t.Setenv(addressEnv, s.serving.GRPC.String())
}

// send sends a notification and requires a status.
func (s *site) send(t *testing.T, account string, kind linksgatev1.NotificationKind, body string, status int) {
	t.Helper()
	n, err := linksfield.MakeWithBody(kind, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	request, err := n.Request(t.Context(), "http://"+s.serving.Webhook.String()+"/linksfield/"+account)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != status {
		t.Fatalf("%s was answered with %d, want %d", body, response.StatusCode, status)
	}
}

// runs runs linksgate, requires an exit status, and returns what it printed.
func runs(t *testing.T, code int, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if got, stderr := execute(t, &out, args...); got != code {
		t.Fatalf("linksgate %s: exit status %d, want %d\n%s\n%s", strings.Join(args, " "), got, code, out.String(), stderr)
	}
	return out.String()
}

// inLog returns the notifications of the log, in order.
func inLog(t *testing.T) []*linksgatev1.Notification {
	t.Helper()
	var all []*linksgatev1.Notification
	for line := range strings.Lines(runs(t, exitOK, "tail", "--from-start", "--until", "head", "--json")) {
		n := new(linksgatev1.Notification)
		if err := protojson.Unmarshal([]byte(line), n); err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// inQuarantine returns the entries, in order.
func inQuarantine(t *testing.T, filter ...string) []*linksgatev1.QuarantineEntry {
	t.Helper()
	var all []*linksgatev1.QuarantineEntry
	for line := range strings.Lines(runs(t, exitOK, append([]string{"quarantine", "list", "--json"}, filter...)...)) {
		e := new(linksgatev1.QuarantineEntry)
		if err := protojson.Unmarshal([]byte(line), e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func body(n int) string { return fmt.Sprintf(`{"sim_id":"8944%015d","n":%d}`, n, n) }

// The promise of the quarantine: with a wrong secret nothing is lost.
func TestNotificationsRefusedForAWrongSecretAreReleased(t *testing.T) {
	s := newSite(t)
	s.start(t, wrongSecret)
	const count = 100
	began := time.Now()
	for n := range count {
		kind := []linksgatev1.NotificationKind{
			linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_DELIVERY, linksgatev1.NotificationKind_NOTIFICATION_KIND_DATA_USAGE_ALERT,
		}[n%3]
		s.send(t, "acme", kind, body(n), http.StatusUnauthorized)
	}
	sent := time.Now()
	entries := inQuarantine(t)
	if len(entries) != count || len(inLog(t)) != 0 {
		t.Fatalf("%d entries in quarantine and %d notifications in the log", len(entries), len(inLog(t)))
	}
	if out := runs(t, exitFailure, "quarantine", "release", "--all"); !strings.HasSuffix(out, "\n0 released, 100 not verified, still in quarantine\n") {
		t.Errorf("released under the wrong secret:\n%s", out)
	}

	s.start(t, rightSecret)
	dry := runs(t, exitOK, "quarantine", "release", "--all", "--dry-run")
	if strings.Count(dry, "would be released: verified md5 secret=notification-secret reading=") != count || !strings.HasSuffix(dry, "\n100 would be released\n") {
		t.Errorf("dry run:\n%s", dry)
	}
	if len(inQuarantine(t)) != count || len(inLog(t)) != 0 {
		t.Error("the dry run changed something")
	}
	if out := runs(t, exitOK, "quarantine", "release", "--all"); !strings.HasSuffix(out, "\n100 released\n") {
		t.Errorf("release:\n%s", out)
	}
	checkReleased(t, entries, began, sent)
	for range 2 {
		if out := runs(t, exitOK, "quarantine", "release", "--all"); out != "0 released\n" {
			t.Errorf("second release:\n%s", out)
		}
		checkReleased(t, entries, began, sent)
		s.start(t, rightSecret) // and so it is after a restart
	}
}

// checkReleased requires that the log holds what was in the entries, each once, in order, verified, and with its times.
func checkReleased(t *testing.T, entries []*linksgatev1.QuarantineEntry, began, sent time.Time) {
	t.Helper()
	notifications := inLog(t)
	if len(notifications) != len(entries) {
		t.Fatalf("%d notifications in the log, want %d", len(notifications), len(entries))
	}
	for i, n := range notifications {
		e := entries[i]
		received := n.GetReceivedAt().AsTime()
		switch {
		case n.GetBody() != body(i), n.GetBody() != e.GetBody(), n.GetContentDigest() != e.GetContentDigest():
			t.Fatalf("notification %d is %s, want %s", i, n.GetBody(), body(i))
		case n.GetQuarantineId() != e.GetId(), n.GetKind() != e.GetKind():
			t.Errorf("notification %d: %v", i, n)
		case n.GetVerification().GetStatus() != linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED,
			n.GetVerification().GetSecretName() != "notification-secret":
			t.Errorf("notification %d is %v", i, n.GetVerification())
		case !received.Equal(e.GetReceivedAt().AsTime()), received.Before(began), received.After(sent):
			t.Errorf("notification %d was received at %v, want %v", i, received, e.GetReceivedAt().AsTime())
		case n.GetReleasedAt() == nil, n.GetReleasedAt().AsTime().Before(sent):
			t.Errorf("notification %d was released at %v, after %v", i, n.GetReleasedAt(), sent)
		}
	}
	if left := inQuarantine(t); len(left) != 0 {
		t.Errorf("%d entries are left", len(left))
	}
}

func TestQuarantineListShowsWhatTheFiltersSelect(t *testing.T) {
	s := newSite(t)
	s.start(t, wrongSecret)
	s.send(t, "acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body(0), http.StatusUnauthorized)
	s.send(t, "other", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_DELIVERY, body(1), http.StatusUnauthorized)
	s.sendUnsigned(t, "acme", "sms-received", "{\x1b[31m\xff\n\u202e", http.StatusBadRequest)
	all := inQuarantine(t)
	if len(all) != 3 {
		t.Fatalf("%d entries", len(all))
	}
	table := runs(t, exitOK, "quarantine", "list")
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 4 || strings.Join(strings.Fields(lines[0]), " ") != "ID RECEIVED ACCOUNT KIND REASON SOURCE SIZE" {
		t.Errorf("list:\n%s", table)
	}
	if got := strings.Fields(lines[2]); got[0] != all[1].GetId() || got[2] != "other" || got[3] != "sms-delivery" ||
		got[4] != "signature-mismatch" || got[5] != "127.0.0.1" || got[6] != fmt.Sprint(len(body(1))) {
		t.Errorf("list:\n%s", table)
	}
	for _, tt := range []struct {
		filter []string
		want   []int
	}{
		{[]string{"--reason", "signature-mismatch"}, []int{0, 1}},
		{[]string{"--reason", "unreadable"}, []int{2}},
		{[]string{"--reason", "unreadable,signature-mismatch"}, []int{0, 1, 2}},
		{[]string{"--reason", "unreadable", "--reason", "unknown-key"}, []int{2}},
		{[]string{"--account", "other"}, []int{1}},
		{[]string{"--account", "acme", "--account", "other", "--kind", "sms-received"}, []int{0, 2}},
		{[]string{"--since", "1h"}, []int{0, 1, 2}},
		{[]string{"--since", time.Now().Add(time.Hour).Format(time.RFC3339)}, nil},
	} {
		var want []string
		for _, i := range tt.want {
			want = append(want, all[i].GetId())
		}
		var got []string
		for _, e := range inQuarantine(t, tt.filter...) {
			got = append(got, e.GetId())
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v: %v, want %v", tt.filter, got, want)
		}
	}

	shown := runs(t, exitOK, "quarantine", "show", all[2].GetId())
	for _, want := range []string{
		"id        " + all[2].GetId() + "\n", "account   acme\n", "kind      sms-received\n", "reason    unreadable: ", "source    127.0.0.1\n",
		"  x-lf-note: \u00e9\\u202e\n", "tried in vain\n  nothing\n", "body, 11 bytes\n  {\\x1b[31m\\xff\n  \\u202e\n",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("show lacks %q:\n%s", want, shown)
		}
	}
	for _, hostile := range []string{"\x1b", "\xff", "\u202e"} {
		if strings.Contains(shown+table, hostile) {
			t.Errorf("%q came through:\n%s", hostile, shown)
		}
	}
	if shown := runs(t, exitOK, "quarantine", "show", all[0].GetId()); !strings.Contains(shown, "\n  md5 secret=notification-secret reading=") ||
		!strings.Contains(shown, "\n  x-lf-md5: ") || !strings.Contains(shown, "  "+body(0)+"\n") {
		t.Errorf("show:\n%s", shown)
	}
	e := new(linksgatev1.QuarantineEntry)
	if err := protojson.Unmarshal([]byte(runs(t, exitOK, "quarantine", "show", "--json", all[2].GetId())), e); err != nil ||
		string(e.GetBinaryBody()) != "{\x1b[31m\xff\n\u202e" {
		t.Errorf("show --json: %v %v", e, err)
	}
}

// sendUnsigned sends any bytes, with a header that is hostile too.
func (s *site) sendUnsigned(t *testing.T, account, kind, body string, status int) {
	t.Helper()
	url := "http://" + s.serving.Webhook.String() + "/linksfield/" + account + "/" + kind
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Lf-Note", "\u00e9\u202e")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != status {
		t.Fatalf("%q was answered with %d, want %d", body, response.StatusCode, status)
	}
}

func TestReleaseByIDIsInOrderOfArrival(t *testing.T) {
	s := newSite(t)
	s.start(t, wrongSecret)
	for n := range 4 {
		s.send(t, "acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body(n), http.StatusUnauthorized)
	}
	s.start(t, rightSecret)
	s.sendUnsigned(t, "acme", "sms-received", "garbage", http.StatusBadRequest)
	entries := inQuarantine(t)
	id := func(i int) string { return entries[i].GetId() }

	out := runs(t, exitFailure, "quarantine", "release", id(4), id(3), id(1), id(1), id(0))
	if !strings.HasSuffix(out, "\n3 released, 1 not verified, still in quarantine\n") {
		t.Errorf("release:\n%s", out)
	}
	var order []string
	for _, n := range inLog(t) {
		order = append(order, n.GetBody())
	}
	if want := []string{body(0), body(1), body(3)}; fmt.Sprint(order) != fmt.Sprint(want) {
		t.Errorf("the log holds %v, want %v", order, want)
	}
	// One that is not there is told, and keeps the others from nothing.
	otherLog, elsewhere := "6w7v28hpc8bfm-q1", "x"
	missing := []string{
		id(0) + "  not in quarantine: it was released, purged, or is no longer retained\n",
		elsewhere + "  not the id of a quarantine entry: list shows the ids\n", otherLog + "  not in quarantine: ",
	}
	for _, tt := range []struct{ command, last string }{
		{"release --dry-run", "\n1 would be released, 3 not in quarantine\n"},
		{"purge --dry-run", "\n1 entry would be deleted, 3 not in quarantine\n"},
		{"release", "\n1 released, 3 not in quarantine\n"},
		{"purge", "\n0 entries deleted, 4 not in quarantine\n"},
	} {
		args := append([]string{"quarantine"}, strings.Fields(tt.command)...)
		out := runs(t, exitFailure, append(args, id(0), elsewhere, otherLog, id(0), id(2), id(2))...)
		for _, want := range missing {
			if strings.Count(out, want) != 1 {
				t.Errorf("%s: lacks %q:\n%s", tt.command, want, out)
			}
		}
		if !strings.HasSuffix(out, tt.last) {
			t.Errorf("%s: want %q:\n%s", tt.command, tt.last, out)
		}
	}
	if _, stderr := execute(t, io.Discard, "quarantine", "show", "x"); stderr != "get x: not the id of a quarantine entry: list shows the ids" {
		t.Errorf("show: %s", stderr)
	}
	forced := runs(t, exitOK, "quarantine", "release", "--force", id(4), id(4))
	if !strings.Contains(forced, ": forced, it does not verify\n") || !strings.HasSuffix(forced, "\n1 released\n") {
		t.Errorf("forced:\n%s", forced)
	}
	if status := inLog(t)[4].GetVerification().GetStatus(); status != linksgatev1.VerificationStatus_VERIFICATION_STATUS_FORCED {
		t.Errorf("the status is %v", status)
	}
}

func TestPurge(t *testing.T) {
	s := newSite(t)
	s.start(t, wrongSecret)
	for n := range 3 {
		s.send(t, "acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body(n), http.StatusUnauthorized)
		s.send(t, "other", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body(n), http.StatusUnauthorized)
	}
	entries := inQuarantine(t)
	if out := runs(t, exitOK, "quarantine", "purge", "--all", "--account", "other", "--dry-run"); !strings.HasSuffix(out, "\n3 entries would be deleted\n") {
		t.Errorf("dry run:\n%s", out)
	}
	if code, stderr := execute(t, io.Discard, "quarantine", "purge", "--all"); code != exitUsage || stderr != "Delete 6 entries for good? Type yes: \n--all deletes for good: "+
		"see with --dry-run what, then confirm with --yes" {
		t.Errorf("nobody answers: exit status %d, %q", code, stderr)
	}
	if left := inQuarantine(t); len(left) != len(entries) {
		t.Fatalf("%d entries are left", len(left))
	}
	if out := runs(t, exitOK, "quarantine", "purge", "--all", "--account", "other", "--yes"); out != "3 entries deleted\n" {
		t.Errorf("purge:\n%s", out)
	}
	if out := runs(t, exitOK, "quarantine", "purge", entries[0].GetId()); out != "1 entry deleted\n" {
		t.Errorf("purge:\n%s", out)
	}
	runs(t, exitFailure, "quarantine", "purge", entries[0].GetId())
	left := inQuarantine(t)
	if len(left) != 2 || left[0].GetId() != entries[2].GetId() || left[1].GetId() != entries[4].GetId() {
		t.Errorf("left: %v", left)
	}
	if out := runs(t, exitOK, "quarantine", "purge", "--all", "--yes", "--reason", "unreadable"); out != "0 entries deleted\n" {
		t.Errorf("purge of nothing:\n%s", out)
	}
}

func TestEmptyListsSaySo(t *testing.T) {
	s := newSite(t)
	s.start(t, rightSecret)
	for _, tt := range []struct{ command, want string }{
		{"quarantine list", "the quarantine is empty"},
		{"quarantine list --kind cube", "the filters select no entry"},
		{"group list", "there is no group; linksgate group create makes one"},
		{"group parked g", "g has parked nothing"},
	} {
		if tt.command == "group parked g" {
			runs(t, exitOK, "group", "create", "g")
		}
		for _, flags := range [][]string{nil, {"--json"}} {
			var out bytes.Buffer
			code, stderr := execute(t, &out, append(strings.Fields(tt.command), flags...)...)
			if code != exitOK || out.String() != "" || !strings.HasPrefix(stderr, "linksgate: "+tt.want) {
				t.Errorf("%s %v: exit status %d, %q, %q", tt.command, flags, code, out.String(), stderr)
			}
		}
	}
}

func TestEntriesThatVanishAreNoFailure(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct{ command, want string }{
		{"release", "2 released, 1 not in quarantine\n"},
		{"purge --yes", "2 entries deleted, 1 not in quarantine\n"},
	} {
		s.start(t, wrongSecret)
		for n := range 3 {
			s.send(t, "acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body(n), http.StatusUnauthorized)
		}
		s.start(t, rightSecret)
		conn, err := new(connection).dial(s.serving.GRPC.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		address := serveProxy(t, &overtaken{behind: linksgatev1.NewQuarantineServiceClient(conn)})
		args := append([]string{"quarantine"}, strings.Fields(tt.command)...)
		if out := runs(t, exitOK, append(args, "--all", "--address", address)...); !strings.HasSuffix(out, tt.want) {
			t.Errorf("%s:\n%s", tt.command, out)
		}
	}
}

// overtaken is a gateway's quarantine on which somebody else purges the first entry right after it was listed.
type overtaken struct {
	linksgatev1.UnimplementedQuarantineServiceServer
	behind linksgatev1.QuarantineServiceClient
}

func (o *overtaken) ListQuarantineEntries(ctx context.Context, r *linksgatev1.ListQuarantineEntriesRequest) (*linksgatev1.ListQuarantineEntriesResponse, error) {
	page, err := o.behind.ListQuarantineEntries(ctx, r)
	if err == nil && len(page.GetEntries()) > 0 {
		_, err = o.behind.PurgeQuarantineEntry(ctx, &linksgatev1.PurgeQuarantineEntryRequest{Id: page.GetEntries()[0].GetId()})
	}
	return page, err
}

func (o *overtaken) ReleaseQuarantineEntry(ctx context.Context, r *linksgatev1.ReleaseQuarantineEntryRequest) (*linksgatev1.ReleaseQuarantineEntryResponse, error) {
	return o.behind.ReleaseQuarantineEntry(ctx, r)
}

func (o *overtaken) PurgeQuarantineEntry(ctx context.Context, r *linksgatev1.PurgeQuarantineEntryRequest) (*linksgatev1.PurgeQuarantineEntryResponse, error) {
	return o.behind.PurgeQuarantineEntry(ctx, r)
}

func serveProxy(t *testing.T, service linksgatev1.QuarantineServiceServer) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := grpc.NewServer()
	linksgatev1.RegisterQuarantineServiceServer(proxy, service)
	served := make(chan struct{})
	go func() { defer close(served); _ = proxy.Serve(listener) }()
	t.Cleanup(func() { proxy.Stop(); <-served })
	return listener.Addr().String()
}

func TestReasonNames(t *testing.T) {
	want := "signature-missing signature-malformed unknown-key signature-mismatch unreadable no-such-url source-not-allowed"
	if got := strings.Join(reasonNames(), " "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, name := range reasonNames() {
		if reason, ok := reasonByName(name); !ok || reasonName(reason) != name {
			t.Errorf("%s is %v", name, reason)
		}
	}
	if _, ok := reasonByName("unspecified"); ok {
		t.Error("unspecified is a reason")
	}
	if got := reasonName(99); got != "reason-99" {
		t.Error(got)
	}
}
