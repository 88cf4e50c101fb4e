package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server"
	"github.com/linksgate/linksgate/server/config"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

// patience bounds every wait: a promise that is broken should fail a test, not hang it.
const patience = time.Minute

// The secrets of the account acme. Each can be told from everything else that a gateway might log.
const (
	md5Secret    = "Qm5-md5-secret-of-acme"
	md5OldSecret = "Qm5-md5-secret-of-acme-before"
	hmacSecret   = "Qh1-hmac-secret-of-acme"
	hmacOld      = "Qh1-hmac-secret-of-acme-before"
	hmacKeyID    = "acme-key"
	orderToken   = "order-path-token-0123456789"
	otherSecret  = "Qm5-md5-secret-of-other"
	// bodyMark stands in bodies, to be looked for where bodies must not be.
	bodyMark = "Qb7-words-of-a-subscriber"
)

// linksfield signs as Linksfield does for the account acme.
var linksfield = simulator.Sender{
	MD5:   signature.Secret{Value: md5Secret},
	KeyID: hmacKeyID,
	HMAC:  signature.Secret{Value: hmacSecret},
}

// secret writes a secret to a file, as the configuration wants it.
func secret(t *testing.T, name, value string) config.Secret {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Secret{Name: name, File: path}
}

// testConfig is a gateway on free ports with an empty log, which is not synced: a test does not survive the machine. Its
// accounts are acme, with an unsigned kind behind a path token and two behind networks, and other.
func testConfig(t *testing.T) config.Config {
	t.Helper()
	token, noSync := secret(t, "order-token", orderToken), false
	return config.Config{
		Listen: config.Listen{Webhook: "127.0.0.1:0", GRPC: "127.0.0.1:0", REST: "127.0.0.1:0", Admin: "127.0.0.1:0"},
		Log:    config.Log{Dir: t.TempDir(), Fsync: &noSync},
		Accounts: map[string]config.Account{
			"acme": {
				MD5Secrets: []config.Secret{secret(t, "md5", md5Secret), secret(t, "md5-before", md5OldSecret)},
				HMACKeys: []config.HMACKey{
					{ID: hmacKeyID, Secret: secret(t, "hmac", hmacSecret)},
					{ID: hmacKeyID, Secret: secret(t, "hmac-before", hmacOld)},
				},
				Kinds: map[string]config.Kind{
					"plan-order-status":     {Signature: "if-present", PathToken: &token},
					"marketplace-alarm":     {Signature: "none", AllowedSources: []string{"127.0.0.0/8"}},
					"mall-recharge-success": {AllowedSources: []string{"203.0.113.0/24"}},
				},
			},
			"other": {MD5Secrets: []config.Secret{secret(t, "other", otherSecret)}},
		},
	}
}

// gateway is a running gateway and its clients.
type gateway struct {
	server.Serving
	config config.Config
	http   *http.Client
	conn   *grpc.ClientConn
	client linksgatev1.NotificationServiceClient
	logs   *logBuffer

	cancel context.CancelFunc
	ended  chan error // Run's
	once   sync.Once  // around stop
}

// startGateway runs a gateway until the test ends, and requires that Run then returns nil and has logged nothing private.
func startGateway(t *testing.T, cfg config.Config) *gateway {
	t.Helper()
	return startGatewayIn(t, cfg, server.Env{})
}

// startGatewayIn runs a gateway with some settings of its environment.
func startGatewayIn(t *testing.T, cfg config.Config, env server.Env) *gateway {
	t.Helper()
	g := &gateway{config: cfg, logs: new(logBuffer), ended: make(chan error, 1)}
	ready := make(chan server.Serving, 1)
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	env.Logger = slog.New(slog.NewJSONHandler(g.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	env.Version, env.Ready = "v0-test", func(s server.Serving) { ready <- s }
	go func() { g.ended <- server.Run(ctx, cfg, env) }()
	select {
	case g.Serving = <-ready:
	case err := <-g.ended:
		t.Fatalf("the gateway did not start: %v", err)
	case <-time.After(patience):
		t.Fatal("the gateway did not start in time")
	}
	g.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: patience}
	g.conn = dial(t, g.GRPC)
	g.client = linksgatev1.NewNotificationServiceClient(g.conn)
	t.Cleanup(func() { g.stop(t) })
	return g
}

// over returns the gateway with clients on another connection.
func (g *gateway) over(conn *grpc.ClientConn) *gateway {
	return &gateway{
		Serving: g.Serving, config: g.config, http: g.http, conn: conn, client: linksgatev1.NewNotificationServiceClient(conn), logs: g.logs,
	}
}

func dial(t *testing.T, address net.Addr, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(address.String(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// narrowWindow makes a client that stops reading stop the gateway soon.
func narrowWindow() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithStaticStreamWindowSize(64 << 10), grpc.WithStaticConnWindowSize(64 << 10)}
}

// stop ends the gateway and waits for it. It may be called again.
func (g *gateway) stop(t *testing.T) {
	t.Helper()
	g.once.Do(func() {
		g.cancel()
		g.http.CloseIdleConnections()
		select {
		case err := <-g.ended:
			if err != nil {
				t.Errorf("Run returned %v; want nil after its context ended", err)
			}
		case <-time.After(patience):
			t.Error("Run did not return after its context ended")
		}
		g.logs.checkPrivate(t)
	})
}

// logBuffer keeps what a gateway logs.
type logBuffer struct {
	mu      sync.Mutex
	text    bytes.Buffer // mu
	private []string     // mu; signatures that were sent
}

// Write implements [io.Writer].
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// keepPrivate notes signatures that must not be logged.
func (l *logBuffer) keepPrivate(header http.Header) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range []string{"X-Lf-Md5", "X-Lf-Signature"} {
		for _, value := range header[name] {
			if _, sum, found := strings.Cut(value, "/"); found && name == "X-Lf-Signature" {
				value = sum
			}
			if len(value) >= 8 { // shorter ones are found in anything
				l.private = append(l.private, value)
			}
		}
	}
}

// checkPrivate fails the test if a secret, a signature or text of a body was logged.
func (l *logBuffer) checkPrivate(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.text.String()
	for _, private := range append(l.private,
		md5Secret, md5OldSecret, hmacSecret, hmacOld, orderToken, otherSecret, vectorKey, bodyMark) {
		if at := strings.Index(text, private); at >= 0 {
			t.Errorf("the log holds %q: %s", private, text[max(0, at-200):min(len(text), at+200)])
		}
	}
}

// refusals returns the reasons of the refusals that were logged, by how often.
func (l *logBuffer) refusals(t *testing.T) map[string]int {
	t.Helper()
	reasons := make(map[string]int)
	for line := range strings.Lines(l.String()) {
		var entry struct{ Msg, Reason string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("log line %s: %v", line, err)
		}
		if entry.Msg == "notification refused" {
			reasons[entry.Reason]++
		}
	}
	return reasons
}

// answer is what the gateway answered.
type answer struct {
	status int
	header http.Header
	body   string
}

// id returns the id of the notification that a 200 names.
func (a answer) id(t *testing.T) string {
	t.Helper()
	var body struct{ ID string }
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || body.ID == "" {
		t.Fatalf("the answer %s names no notification: %v", a.body, err)
	}
	return body.ID
}

// send sends one request to the webhook address.
func (g *gateway) send(ctx context.Context, method, path string, header http.Header, body io.Reader) (answer, error) {
	g.logs.keepPrivate(header)
	r, err := http.NewRequestWithContext(ctx, method, "http://"+g.Webhook.String()+path, body)
	if err != nil {
		return answer{}, err
	}
	if header != nil {
		r.Header = header
	}
	response, err := g.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(text)}, err
}

// request sends one request to the webhook address and requires an answer.
func (g *gateway) request(t *testing.T, method, path string, header http.Header, body io.Reader) answer {
	t.Helper()
	a, err := g.send(t.Context(), method, path, header, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// deliver sends a notification and requires that it is answered with 200. It returns its id.
func (g *gateway) deliver(t *testing.T, path string, n simulator.Notification) string {
	t.Helper()
	a := g.request(t, http.MethodPost, path, n.Header, bytes.NewReader(n.Body))
	if a.status != http.StatusOK {
		t.Fatalf("%s: %d %s", path, a.status, a.body)
	}
	return a.id(t)
}

// deliverSMS sends count numbered MO SMS, one after the other, and returns their ids.
func (g *gateway) deliverSMS(t *testing.T, first, count uint64) []string {
	t.Helper()
	var ids []string
	for n := first; n < first+count; n++ {
		ids = append(ids, g.deliver(t, "/linksfield/acme/sms-received", makeSMS(t, n)))
	}
	return ids
}

// deliverAtOnce sends what it gets from a channel over several connections, until that is closed.
func (g *gateway) deliverAtOnce(t *testing.T, senders int, path string, notifications <-chan simulator.Notification) {
	t.Helper()
	var group sync.WaitGroup
	for range senders {
		group.Go(func() {
			for n := range notifications {
				if a, err := g.send(t.Context(), http.MethodPost, path, n.Header, bytes.NewReader(n.Body)); err != nil || a.status != http.StatusOK {
					t.Errorf("%d %s, %v", a.status, a.body, err)
				}
			}
		})
	}
	group.Wait()
}

// beyondWindow is how many large notifications are more than the gateway keeps in memory: 32 MiB.
const beyondWindow = 80

// deliverLarge sends count MO SMS with a text of 240 KiB, each of which takes twice that in the log.
func (g *gateway) deliverLarge(t *testing.T, count int) {
	t.Helper()
	body := `{"sim_id":"89860220190000000001","text_message":"` + strings.Repeat("x", 240<<10) + `"}`
	large := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body)
	for range count {
		g.deliver(t, "/linksfield/acme/sms-received", large)
	}
}

func makeSMS(t *testing.T, n uint64) simulator.Notification {
	t.Helper()
	made, err := linksfield.Make(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, n)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// signed returns a notification of acme with a certain body.
func signed(t *testing.T, kind linksgatev1.NotificationKind, body string) simulator.Notification {
	t.Helper()
	made, err := linksfield.MakeWithBody(kind, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// get returns a notification by its id.
func (g *gateway) get(t *testing.T, id string) *linksgatev1.Notification {
	t.Helper()
	response, err := g.client.GetNotification(t.Context(), &linksgatev1.GetNotificationRequest{Id: id})
	if err != nil {
		t.Fatalf("get %s: %v", id, err)
	}
	return response.GetNotification()
}

// info describes the log.
func (g *gateway) info(t *testing.T) *linksgatev1.GetLogInfoResponse {
	t.Helper()
	info, err := g.client.GetLogInfo(t.Context(), &linksgatev1.GetLogInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// list returns all pages of a listing.
func (g *gateway) list(t *testing.T, request *linksgatev1.ListNotificationsRequest) []*linksgatev1.Notification {
	t.Helper()
	var all []*linksgatev1.Notification
	for {
		page, err := g.client.ListNotifications(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if page.GetEndToken() == "" {
			t.Error("a page has no end token")
		}
		all = append(all, page.GetNotifications()...)
		if page.GetNextPageToken() == "" {
			return all
		}
		request.PageToken = page.GetNextPageToken()
	}
}

// admin gets a page of the administration address.
func (g *gateway) admin(t *testing.T, path string) (int, string) {
	t.Helper()
	response, err := g.http.Get("http://" + g.Admin.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// eventually asks again until something has happened that nobody tells about.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(patience)
	for !happened() {
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// stream is a subscription whose every frame is checked for its token.
type stream struct {
	linksgatev1.NotificationService_SubscribeClient
	cancel context.CancelFunc
	last   string // token of the last frame
}

// subscribe opens a subscription and takes its first frame, which must be Confirmed.
func (g *gateway) subscribe(t *testing.T, request *linksgatev1.SubscribeRequest) (*stream, *linksgatev1.SubscriptionConfirmed) {
	t.Helper()
	return subscribeOn(t, g.client, request)
}

func subscribeOn(t *testing.T, client linksgatev1.NotificationServiceClient, request *linksgatev1.SubscribeRequest) (*stream, *linksgatev1.SubscriptionConfirmed) {
	t.Helper()
	s := openStream(t, client, request)
	frame := s.next(t)
	if frame.GetConfirmed() == nil {
		t.Fatalf("the first frame is %v; want Confirmed", frame)
	}
	return s, frame.GetConfirmed()
}

func openStream(t *testing.T, client linksgatev1.NotificationServiceClient, request *linksgatev1.SubscribeRequest) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	opened, err := client.Subscribe(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	return &stream{NotificationService_SubscribeClient: opened, cancel: cancel}
}

// take returns the next frame, or the error that ended the stream.
func (s *stream) take(t *testing.T) (*linksgatev1.SubscribeResponse, error) {
	t.Helper()
	frame, err := s.Recv()
	if err == nil {
		if frame.GetToken() == "" {
			t.Errorf("a frame has no token: %v", frame)
		}
		s.last = frame.GetToken()
	}
	return frame, err
}

// next returns the next frame.
func (s *stream) next(t *testing.T) *linksgatev1.SubscribeResponse {
	t.Helper()
	frame, err := s.take(t)
	if err != nil {
		t.Fatalf("the stream ended: %v", err)
	}
	return frame
}

// notifications returns the next count notifications, passing over frames of other kinds.
func (s *stream) notifications(t *testing.T, count int) []*linksgatev1.Notification {
	t.Helper()
	var all []*linksgatev1.Notification
	for len(all) < count {
		all = append(all, s.next(t).GetBatch().GetNotifications()...)
	}
	return all
}

// untilCaughtUp takes frames up to and including CaughtUp.
func (s *stream) untilCaughtUp(t *testing.T) []*linksgatev1.SubscribeResponse {
	t.Helper()
	var frames []*linksgatev1.SubscribeResponse
	for {
		frames = append(frames, s.next(t))
		if frames[len(frames)-1].GetCaughtUp() != nil {
			return frames
		}
	}
}

// rest returns the frames that are left and the error that ended the stream, nil for OK.
func (s *stream) rest(t *testing.T) ([]*linksgatev1.SubscribeResponse, error) {
	t.Helper()
	var frames []*linksgatev1.SubscribeResponse
	for {
		frame, err := s.take(t)
		switch {
		case errors.Is(err, io.EOF):
			return frames, nil
		case err != nil:
			return frames, err
		}
		frames = append(frames, frame)
	}
}

// inBatches returns the notifications in some frames.
func inBatches(frames []*linksgatev1.SubscribeResponse) []*linksgatev1.Notification {
	var all []*linksgatev1.Notification
	for _, frame := range frames {
		all = append(all, frame.GetBatch().GetNotifications()...)
	}
	return all
}

func earliest() *linksgatev1.Start {
	return &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}
}

func after(token string) *linksgatev1.Start {
	return &linksgatev1.Start{Position: &linksgatev1.Start_After{After: token}}
}

func untilHead() *linksgatev1.SubscribeRequest_UntilHead {
	return &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true}
}

// ids returns the ids of notifications.
func ids(notifications []*linksgatev1.Notification) []string {
	var all []string
	for _, n := range notifications {
		all = append(all, n.GetId())
	}
	return all
}
