package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/eventlog/eventlogtest"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
	"github.com/linksgate/linksgate/server/webhook"
)

const (
	patience = 30 * time.Second
	md5Value = "Qm5-md5-secret-of-acme"
	bodyMark = "Qb7-words-of-a-subscriber"
	smsPath  = webhook.PathPrefix + "acme/sms-received"
	smsBody  = `{"sim_id":"89860220190000000001","text_message":"` + bodyMark + `"}`
)

var sender = simulator.Sender{MD5: signature.Secret{Name: "md5", Value: md5Value}}

var accounts = map[string]*webhook.Account{"acme": {Keys: signature.Keyring{MD5: []signature.Secret{sender.MD5}}}}

// faultyLog is a log whose appends fail or wait as the test wants.
type faultyLog struct {
	append func(context.Context, *linksgatev1.Notification) error
}

func (l faultyLog) Append(ctx context.Context, n *linksgatev1.Notification) (eventlog.Position, error) {
	return eventlog.Position{Stream: 1}, l.append(ctx, n)
}

func (faultyLog) NotificationID(eventlog.Position) string { return "log-4096" }

// front is a handler behind a real server.
type front struct {
	*httptest.Server
	logs bytes.Buffer // to be read after close
}

// serve serves a handler over a log until the test ends, and requires that it has logged nothing private.
func serve(t *testing.T, options webhook.Options) *front {
	t.Helper()
	f := new(front)
	options.Accounts = accounts
	options.Logger = slog.New(slog.NewJSONHandler(&f.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f.Server = httptest.NewServer(webhook.New(options))
	t.Cleanup(func() {
		f.Close()
		for _, private := range []string{md5Value, bodyMark, sms(t).Header.Get("X-Lf-Md5")} {
			if strings.Contains(f.logs.String(), private) {
				t.Errorf("the log holds %q: %s", private, f.logs.String())
			}
		}
	})
	return f
}

func sms(t *testing.T) simulator.Notification {
	t.Helper()
	made, err := sender.MakeWithBody(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, []byte(smsBody))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

// post sends a signed MO SMS.
func (f *front) post(ctx context.Context, n simulator.Notification) answer {
	request, err := n.RequestTo(ctx, f.URL+smsPath)
	if err != nil {
		return answer{err: err}
	}
	response, err := f.Client().Do(request)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body), err}
}

// TestAnswersToWhatTheLogSays lists every error of the log that an append can have, wrapped as the log wraps them.
func TestAnswersToWhatTheLogSays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err        error
		status     int
		retryAfter string
		reason     string
	}{
		{nil, http.StatusOK, "", ""},
		{eventlog.ErrUnavailable, http.StatusServiceUnavailable, "5", "log_unavailable"},
		{eventlog.ErrNoSpace, http.StatusServiceUnavailable, "5", "no_space"},
		{eventlog.ErrFrozen, http.StatusServiceUnavailable, "5", "log_frozen"},
		{fmt.Errorf("%w: %w", eventlog.ErrFrozen, eventlog.ErrUnavailable), http.StatusServiceUnavailable, "5", "log_frozen"},
		{eventlog.ErrClosed, http.StatusServiceUnavailable, "5", "draining"},
		{eventlog.ErrTooLarge, http.StatusRequestEntityTooLarge, "", "too_large"},
		{fmt.Errorf("%w: %w", eventlog.ErrUnavailable, context.DeadlineExceeded), http.StatusServiceUnavailable, "5", "log_unavailable"},
		{errors.New("something else"), http.StatusServiceUnavailable, "5", "log_unavailable"},
	} {
		t.Run(fmt.Sprint(tt.err), func(t *testing.T) {
			f := serve(t, webhook.Options{Log: faultyLog{func(context.Context, *linksgatev1.Notification) error {
				if tt.err == nil {
					return nil
				}
				return fmt.Errorf("append: %w", tt.err)
			}}})
			a := f.post(t.Context(), sms(t))
			if a.err != nil || a.status != tt.status || a.header.Get("Retry-After") != tt.retryAfter {
				t.Errorf("%+v; want %d with Retry-After %q", a, tt.status, tt.retryAfter)
			}
			if tt.err == nil {
				return
			}
			if strings.Contains(a.body, "append") || strings.Contains(a.body, tt.err.Error()) {
				t.Errorf("the sender is told what is wrong inside: %s", a.body)
			}
			f.Close()
			var entry struct{ Level, Reason string }
			if err := json.Unmarshal(f.logs.Bytes(), &entry); err != nil || entry.Reason != tt.reason {
				t.Errorf("logged %s, %v; want one line with the reason %s", f.logs.String(), err, tt.reason)
			}
			if ours := tt.status >= 500; (entry.Level == "ERROR") != ours {
				t.Errorf("%d is logged with the level %s", tt.status, entry.Level)
			}
		})
	}
}

// faultyQuarantine is a quarantine that takes nothing.
type faultyQuarantine struct{ err error }

func (q faultyQuarantine) Add(context.Context, *linksgatev1.QuarantineEntry) error { return q.err }

// TestWhatCannotBeKeptIsNotRefused injects faults of the quarantine: what is wrong with a request is final for its sender only
// if the request is kept.
func TestWhatCannotBeKeptIsNotRefused(t *testing.T) {
	t.Parallel()
	log := faultyLog{func(context.Context, *linksgatev1.Notification) error { return nil }}
	for _, tt := range []struct {
		err    error
		status int
	}{
		{nil, http.StatusUnauthorized},
		{eventlog.ErrUnavailable, http.StatusServiceUnavailable},
		{eventlog.ErrNoSpace, http.StatusServiceUnavailable},
		{eventlog.ErrClosed, http.StatusServiceUnavailable},
	} {
		f := serve(t, webhook.Options{Log: log, Quarantine: faultyQuarantine{tt.err}})
		a := f.post(t.Context(), simulator.Notification{Body: []byte(smsBody)})
		if a.status != tt.status || (a.header.Get("Retry-After") != "") != (tt.err != nil) {
			t.Errorf("quarantine says %v: %+v; want %d", tt.err, a, tt.status)
		}
	}
}

// countingQuarantine counts what it takes.
type countingQuarantine struct{ taken atomic.Int64 }

func (q *countingQuarantine) Add(context.Context, *linksgatev1.QuarantineEntry) error {
	q.taken.Add(1)
	return nil
}

// TestAFloodIsAnsweredAndNotKept sends more that is refused than the quarantine takes of one source: each is answered, the rest is not
// kept, and the log says so.
func TestAFloodIsAnsweredAndNotKept(t *testing.T) {
	t.Parallel()
	const senders, each, burst, perSecond = 8, 500, 2_000, 20
	log := faultyLog{func(context.Context, *linksgatev1.Notification) error { return nil }}
	quarantine := new(countingQuarantine)
	f := serve(t, webhook.Options{Log: log, Quarantine: quarantine})
	began := time.Now()
	var flood sync.WaitGroup
	for range senders {
		flood.Go(func() {
			for range each {
				if a := f.post(t.Context(), simulator.Notification{Body: []byte(smsBody)}); a.status != http.StatusUnauthorized {
					t.Errorf("%+v; want 401", a)
					return
				}
			}
		})
	}
	flood.Wait()
	most := burst + perSecond*int64(time.Since(began)/time.Second+1)
	if taken := quarantine.taken.Load(); taken < burst || taken > most {
		t.Errorf("%d were kept, want from %d to %d", taken, burst, most)
	}
	f.Close()
	for _, outcome := range []string{"kept", "over_limit"} {
		if !strings.Contains(f.logs.String(), `"quarantine":"`+outcome+`"`) {
			t.Errorf("the log does not say %s: %s", outcome, f.logs.String())
		}
	}
}

func TestAClosedLogIs503(t *testing.T) {
	t.Parallel()
	log := eventlogtest.Open(t, eventlog.Options{})
	f := serve(t, webhook.Options{Log: log})
	if a := f.post(t.Context(), sms(t)); a.status != http.StatusOK {
		t.Fatalf("%+v; want 200 while the log is open", a)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if a := f.post(t.Context(), sms(t)); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("%+v; want 503 with Retry-After", a)
	}
}

// heldLog is a log whose appends wait until they are let go.
func heldLog() (log faultyLog, started chan context.Context, letGo chan struct{}) {
	started, letGo = make(chan context.Context, 8), make(chan struct{})
	return faultyLog{func(ctx context.Context, _ *linksgatev1.Notification) error {
		started <- ctx
		<-letGo
		return nil
	}}, started, letGo
}

func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func TestTooManyRequestsAtOnceAre429(t *testing.T) {
	t.Parallel()
	log, started, letGo := heldLog()
	f := serve(t, webhook.Options{Log: log, MaxRequests: 1})
	first := make(chan answer, 1)
	go func() { first <- f.post(t.Context(), sms(t)) }()
	receive(t, started, "the first append")

	a := f.post(t.Context(), sms(t))
	if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") != "1" || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%+v; want 429 with Retry-After", a)
	}
	close(letGo)
	if a := receive(t, first, "the first answer"); a.status != http.StatusOK {
		t.Errorf("the first: %+v; want 200", a)
	}
	if a := f.post(t.Context(), sms(t)); a.status != http.StatusOK {
		t.Errorf("afterwards: %+v; want 200", a)
	}
}

// TestNothingIsAnsweredBeforeItIsDurable holds the append and sees that no byte of an answer comes.
func TestNothingIsAnsweredBeforeItIsDurable(t *testing.T) {
	t.Parallel()
	log, started, letGo := heldLog()
	f := serve(t, webhook.Options{Log: log})
	answered := make(chan answer, 1)
	go func() { answered <- f.post(t.Context(), sms(t)) }()
	receive(t, started, "the append")
	select {
	case a := <-answered:
		t.Errorf("%+v before the append had returned", a)
	case <-time.After(100 * time.Millisecond):
	}
	close(letGo)
	if a := receive(t, answered, "the answer"); a.status != http.StatusOK || a.body != "{\"id\":\"log-4096\"}\n" {
		t.Errorf("%+v; want 200 with the id", a)
	}
}

// TestSlowSendersShutNobodyOut leaves a body half sent at a front that takes one request at a time.
func TestSlowSendersShutNobodyOut(t *testing.T) {
	t.Parallel()
	f := serve(t, webhook.Options{MaxRequests: 1, Log: faultyLog{func(context.Context, *linksgatev1.Notification) error { return nil }}})
	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: front\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n", smsPath)
	asked := make([]byte, len("HTTP/1.1 100 Continue"))
	if _, err := io.ReadFull(conn, asked); err != nil || string(asked) != "HTTP/1.1 100 Continue" {
		t.Fatalf("%q, %v; want to be asked for the body", asked, err)
	}
	if a := f.post(t.Context(), sms(t)); a.status != http.StatusOK {
		t.Errorf("%+v; want 200", a)
	}
}

// TestASenderThatHungUpIsStored cancels a request while the log writes: what reached the gateway will not be sent again.
func TestASenderThatHungUpIsStored(t *testing.T) {
	t.Parallel()
	log, started, letGo := heldLog()
	options := webhook.Options{Log: log}
	options.Accounts = accounts
	handler := webhook.New(options)
	hungUp := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		context.AfterFunc(r.Context(), func() { close(hungUp) })
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	f := &front{Server: server}
	ctx, cancel := context.WithCancel(t.Context())
	var posting sync.WaitGroup
	posting.Go(func() { f.post(ctx, sms(t)) })
	appending := receive(t, started, "the append")
	cancel()
	receive(t, hungUp, "the server to see it")
	if err := appending.Err(); err != nil {
		t.Errorf("the append was given up: %v", err)
	}
	if _, ok := appending.Deadline(); !ok {
		t.Error("the append may take for ever")
	}
	close(letGo)
	posting.Wait()
}

// TestTheTypedFormGivesWayToTheBody injects a log that takes a notification only without its typed form.
func TestTheTypedFormGivesWayToTheBody(t *testing.T) {
	t.Parallel()
	var tried []*linksgatev1.Notification
	f := serve(t, webhook.Options{Log: faultyLog{func(_ context.Context, n *linksgatev1.Notification) error {
		tried = append(tried, proto.CloneOf(n))
		if n.GetUnrecognized() == nil {
			return eventlog.ErrTooLarge
		}
		return nil
	}}})
	if a := f.post(t.Context(), sms(t)); a.status != http.StatusOK || len(tried) != 2 {
		t.Fatalf("%+v after %d appends; want 200 after 2", a, len(tried))
	}
	if tried[0].GetSmsReceived().GetText() != bodyMark || tried[1].GetUnrecognized().GetReason() == "" {
		t.Errorf("tried %v, then %v", tried[0].GetPayload(), tried[1].GetPayload())
	}
	if diff := cmp.Diff(tried[0], tried[1], protocmp.Transform(),
		protocmp.IgnoreOneofs(&linksgatev1.Notification{}, "payload"),
		protocmp.IgnoreFields(&linksgatev1.Notification{}, "iccids", "partner_code")); diff != "" {
		t.Errorf("more than the typed form was given up:\n%s", diff)
	}
}

// TestRefusalsDoNotFillTheLog sends many requests that are refused: some are logged, and how many are not.
func TestRefusalsDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	f := serve(t, webhook.Options{Log: faultyLog{func(context.Context, *linksgatev1.Notification) error { return nil }}})
	const count = 500
	for range count {
		if a := f.post(t.Context(), simulator.Notification{Body: []byte(smsBody)}); a.status != http.StatusUnauthorized {
			t.Fatalf("%+v; want 401", a)
		}
	}
	f.Close()
	if lines := bytes.Count(f.logs.Bytes(), []byte("\n")); lines == 0 || lines > count/2 {
		t.Errorf("%d lines for %d refusals", lines, count)
	}
}
