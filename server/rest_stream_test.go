package server_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/config"
)

// subscribePath is followed by a query.
const subscribePath = "/v1/notifications:subscribe?"

// httpStream is a subscription by HTTP, in either form.
type httpStream struct {
	header http.Header
	cancel context.CancelFunc
	events bool
	reader *bufio.Reader
	last   string        // token of the last frame
	retry  time.Duration // as an event source was told last
}

// form is a form of a stream.
type form struct {
	name   string
	events bool
}

var forms = []form{{"NDJSON", false}, {"SSE", true}}

func (f form) header() http.Header {
	if f.events {
		return http.Header{"Accept": {"text/event-stream"}, "Cache-Control": {"no-cache"}}
	}
	return http.Header{}
}

// returning is the header of a reader that goes on after a token: for NDJSON, the token is to be in the query.
func (f form) returning(token string) http.Header {
	header := f.header()
	header.Set("Last-Event-ID", token)
	return header
}

// openREST sends a request for a stream and returns the answer, which is a stream if it is 200.
func (g *gateway) openREST(t *testing.T, query string, header http.Header) (answer, *httpStream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	response, err := new(http.Client).Do(g.restRequest(t, http.MethodGet, subscribePath+query, header, "").WithContext(ctx))
	if err != nil {
		t.Fatalf("subscribe with %s: %v", query, err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer{response.StatusCode, response.Header, string(text)}, nil
	}
	events := response.Header.Get("Content-Type") == "text/event-stream"
	if want := strings.Contains(header.Get("Accept"), "text/event-stream"); events != want {
		t.Errorf("accepting %v, a stream comes as %s", header, response.Header.Get("Content-Type"))
	}
	return answer{status: 200}, &httpStream{header: response.Header, cancel: cancel, events: events, reader: bufio.NewReader(response.Body)}
}

// subscribeREST opens a stream and takes its first frame, which must be Confirmed.
func (g *gateway) subscribeREST(t *testing.T, f form, query string) *httpStream {
	t.Helper()
	a, s := g.openREST(t, query, f.header())
	if s == nil {
		t.Fatalf("%s with %s: %d %s", f.name, query, a.status, a.body)
	}
	if frame := s.next(t); frame.GetConfirmed() == nil {
		t.Fatalf("%s: the first frame is %v; want Confirmed", f.name, frame)
	}
	return s
}

// take returns the next frame, or what ended the stream: io.EOF or the error that it ended with.
func (s *httpStream) take(t *testing.T) (*linksgatev1.SubscribeResponse, error) {
	t.Helper()
	data, err := s.line()
	if s.events {
		var event, id string
		event, id, data, err = s.event(t)
		defer func() {
			if id != "" && id != s.last && err == nil {
				t.Errorf("the event %s has the id %s; its token is %s", event, id, s.last)
			}
		}()
		if event == "error" {
			data = `{"error":` + data + `}`
		}
	}
	if err != nil {
		return nil, err
	}
	if text, ok := strings.CutPrefix(data, `{"error":`); ok {
		st := new(spb.Status)
		fromJSON(t, strings.TrimSuffix(text, "}"), st)
		return nil, status.FromProto(st).Err()
	}
	frame := new(linksgatev1.SubscribeResponse)
	fromJSON(t, data, frame)
	if frame.GetToken() == "" {
		t.Errorf("a frame has no token: %s", data)
	}
	s.last = frame.GetToken()
	return frame, nil
}

// line returns the next line; one that was cut off is an error.
func (s *httpStream) line() (string, error) {
	if s.events {
		return "", nil
	}
	line, err := s.reader.ReadString('\n')
	if errors.Is(err, io.EOF) && line != "" {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimSuffix(line, "\n"), err
}

// event returns the next event, as a browser reads it, but that it takes a heartbeat for one.
func (s *httpStream) event(t *testing.T) (event, id, data string, err error) {
	t.Helper()
	for {
		line, err := s.reader.ReadString('\n')
		if err != nil {
			return "", "", "", err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "\n" && event == "heartbeat":
			return event, "", fmt.Sprintf(`{"token":%q,"heartbeat":{}}`, id), nil
		case line == "\n":
			return event, id, data, nil
		case field == "":
			event = value // a comment
		case field == "event":
			event = value
		case field == "id":
			id = value
		case field == "data":
			data += value
		case field == "retry":
			if s.retry, err = time.ParseDuration(value + "ms"); err != nil {
				t.Errorf("retry: %v", err)
			}
		default:
			t.Errorf("a line that browsers do not know: %q", line)
		}
	}
}

func (s *httpStream) next(t *testing.T) *linksgatev1.SubscribeResponse {
	t.Helper()
	frame, err := s.take(t)
	if err != nil {
		t.Fatalf("the stream ended: %v", err)
	}
	return frame
}

// rest returns the frames that are left, and the error that the stream ended with, nil for an end as planned.
func (s *httpStream) rest(t *testing.T) ([]*linksgatev1.SubscribeResponse, error) {
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

// notifications returns the next count notifications, passing over frames of other kinds.
func (s *httpStream) notifications(t *testing.T, count int) []*linksgatev1.Notification {
	t.Helper()
	var all []*linksgatev1.Notification
	for len(all) < count {
		all = append(all, s.next(t).GetBatch().GetNotifications()...)
	}
	return all
}

func (s *httpStream) untilCaughtUp(t *testing.T) {
	t.Helper()
	for s.next(t).GetCaughtUp() == nil {
	}
}

// subscriptions waits until so many are open.
func (g *gateway) subscriptions(t *testing.T, count int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d subscriptions are open", count), func() bool {
		_, text := g.admin(t, "/metrics")
		return strings.Contains(text, fmt.Sprintf("linksgate_rpc_subscriptions %d\n", count))
	})
}

// TestHTTPStreamsAreFlushed requires each frame when it is there. On an idle log nothing else would push it: the heartbeat
// comes after the patience of the test.
func TestHTTPStreamsAreFlushed(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for _, f := range forms {
		s := g.subscribeREST(t, f, "heartbeatInterval=600s")
		want := map[string]string{
			"Content-Type": map[bool]string{false: "application/x-ndjson", true: "text/event-stream"}[f.events], "Cache-Control": "no-store",
			"X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff",
		}
		for name, value := range want {
			if got := s.header.Get(name); got != value {
				t.Errorf("%s: %s is %q; want %q", f.name, name, got, value)
			}
		}
		s.untilCaughtUp(t)
		for n := range uint64(3) {
			id := g.deliverSMS(t, n, 1)
			if got := ids(s.notifications(t, 1)); !slices.Equal(got, id) {
				t.Errorf("%s: %v came after %v was delivered", f.name, got, id)
			}
		}
		if f.events && s.retry <= 0 {
			t.Error("an event source is not told when to come back")
		}
		s.cancel()
	}
}

// TestHTTPStreamsAreThoseOfGRPC requires the same frames in all forms, notifications of all kinds and awkward texts in them.
func TestHTTPStreamsAreThoseOfGRPC(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	g.deliverSMS(t, 1, 3)
	for _, body := range []string{`{"text_message":"line one\nline two\r\n\u2028\u2029\u0085 data: x"}`, `{"text_message":"` + strings.Repeat("long ", 40<<10) + `"}`} {
		g.deliver(t, smsPath, signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body))
	}
	stream, confirmed := g.subscribe(t, &linksgatev1.SubscribeRequest{
		Start: earliest(), Until: untilHead(), MaxBatch: 2, Filter: &linksgatev1.NotificationFilter{Accounts: []string{"acme"}}})
	want, err := stream.rest(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range forms {
		_, s := g.openREST(t, "start.earliest=true&untilHead=true&maxBatch=2&filter.accounts=acme&clientName=a+test", f.header())
		got, err := s.rest(t)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(confirmed, got[0].GetConfirmed(), protocmp.Transform()); diff != "" {
			t.Errorf("%s: Confirmed, - gRPC, + HTTP:\n%s", f.name, diff)
		}
		if diff := cmp.Diff(want, got[1:], protocmp.Transform()); diff != "" {
			t.Errorf("%s: - gRPC, + HTTP:\n%s", f.name, diff)
		}
	}
}

// TestOneTokenResumesEverywhere takes the tokens that each way of reading gives, and goes on from each by all ways.
func TestOneTokenResumesEverywhere(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	g := startGateway(t, cfg)
	delivered := g.deliverSMS(t, 1, 4)
	tokens := make(map[string]string) // of the second notification, or of the place behind it
	s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: earliest()})
	tokens["gRPC notification"] = s.notifications(t, 2)[1].GetToken()
	tokens["gRPC frame"] = s.last
	s.cancel()
	for _, f := range forms {
		s := g.subscribeREST(t, f, "start.earliest=true")
		tokens[f.name+" notification"] = s.notifications(t, 2)[1].GetToken()
		tokens[f.name+" frame"] = s.last // with SSE, it was the event's id
		s.cancel()
	}
	page := call(t, g, http.MethodGet, "/v1/notifications?pageSize=2", "", new(linksgatev1.ListNotificationsResponse))
	tokens["next page"], tokens["end of the page"] = page.GetNextPageToken(), page.GetEndToken()
	g.stop(t)

	g = startGateway(t, cfg)
	delivered = append(delivered, g.deliverSMS(t, 5, 1)...)
	want := delivered[2:]
	for from, token := range tokens {
		check := func(by string, got []*linksgatev1.Notification) {
			t.Helper()
			if diff := cmp.Diff(want, ids(got)); diff != "" {
				t.Errorf("with the token of the %s, by %s: - wanted, + got:\n%s", from, by, diff)
			}
		}
		s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: after(token)})
		check("gRPC", s.notifications(t, len(want)))
		s.cancel()
		for _, f := range forms {
			s := g.subscribeREST(t, f, "start.after="+token)
			check(f.name, s.notifications(t, len(want)))
			s.cancel()
		}
		_, events := g.openREST(t, "start.latest=true", forms[1].returning(token)) // the id wins
		check("Last-Event-ID", events.notifications(t, len(want)))
		events.cancel()
		for _, parameter := range []string{"pageToken", "start.after"} {
			check(parameter, call(t, g, http.MethodGet, "/v1/notifications?"+parameter+"="+token, "", new(linksgatev1.ListNotificationsResponse)).GetNotifications())
		}
	}
}

// TestHTTPHeartbeats requires a sign of life when there is nothing to say, and that it carries a reader whose filter matches
// nothing on.
func TestHTTPHeartbeats(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for _, f := range forms {
		s := g.subscribeREST(t, f, "heartbeatInterval=1s&filter.kinds=NOTIFICATION_KIND_CUBE")
		s.untilCaughtUp(t)
		before := s.last
		passed := g.get(t, g.deliverSMS(t, 1, 1)[0]).GetToken()
		for s.last == before {
			if frame := s.next(t); frame.GetHeartbeat() == nil {
				t.Errorf("%s: %v came instead of a heartbeat", f.name, frame)
			}
		}
		if s.last != passed {
			t.Errorf("%s: the heartbeat's token is %s; the notification that was passed over has %s", f.name, s.last, passed)
		}
		s.cancel()
	}
}

// TestEventSourcesStopAtTheEnd requires that an event source, which comes back for ever unless it is told not to, is told so
// when nothing is left up to its end, and not before.
func TestEventSourcesStopAtTheEnd(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	sse := forms[1]
	delivered := g.deliverSMS(t, 1, 3)
	end := g.get(t, delivered[1]).GetToken()
	for query, want := range map[string][]string{"untilHead=true": delivered, "untilToken=" + end: delivered[:2]} {
		s := g.subscribeREST(t, sse, "start.earliest=true&"+query)
		frames, err := s.rest(t)
		if diff := cmp.Diff(want, ids(inBatches(frames))); diff != "" || err != nil {
			t.Errorf("%s: %v, - wanted, + streamed:\n%s", query, err, diff)
		}
		if a, _ := g.openREST(t, "start.earliest=true&"+query, sse.returning(s.last)); a.status != http.StatusNoContent || a.body != "" {
			t.Errorf("%s: an event source that comes back is answered with %d %s; want 204", query, a.status, a.body)
		}
		// One that was cut off before the end gets the rest.
		first := g.get(t, delivered[0]).GetToken()
		_, s = g.openREST(t, "start.earliest=true&"+query, sse.returning(first))
		if frames, err = s.rest(t); err != nil || !slices.Equal(ids(inBatches(frames)), want[1:]) {
			t.Errorf("%s: one that was cut off gets %v, %v", query, frames, err)
		}
	}
	for _, query := range []string{"untilHead=true", "untilToken=" + end} {
		a, _ := g.openREST(t, query+"&filter.kinds=NOTIFICATION_KIND_CUBE", sse.returning(g.get(t, delivered[0]).GetToken()))
		if a.status != http.StatusNoContent {
			t.Errorf("%s: nothing matches up to the end, and the answer is %d", query, a.status)
		}
	}
}

// TestEventSourcesStopForGood requires an answer that stops an event source when coming back is of no use, although the error
// is found only after Confirmed; and one that keeps it when the error passes.
func TestEventSourcesStopForGood(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Log.MaxBytes = 16 << 20
	g := startGateway(t, cfg)
	sse := forms[1]
	expired := g.get(t, g.deliverSMS(t, 1, 1)[0]).GetToken()
	g.deliverLarge(t, beyondWindow) // and beyond what the log retains

	for _, f := range forms {
		eventually(t, f.name+" says what is available first, while the log trims nothing", func() bool {
			before := g.info(t).GetFirst().GetToken()
			s := g.subscribeREST(t, f, "start.after="+expired)
			_, err := s.rest(t)
			info := checkError(t, f.name, err, codes.OutOfRange, "EXPIRED")
			return before == g.info(t).GetFirst().GetToken() && info.GetMetadata()["first_available_token"] == before
		})
	}
	a, _ := g.openREST(t, "", sse.returning(expired))
	if checkError(t, "coming back", restError(t, "coming back", a), codes.OutOfRange, "EXPIRED"); a.status != http.StatusBadRequest {
		t.Errorf("an event source with an expired token is answered with %d", a.status)
	}
	_, s := g.openREST(t, "onGap=GAP_POLICY_CONTINUE", sse.returning(expired))
	if s.next(t).GetConfirmed() == nil || s.next(t).GetGap() == nil {
		t.Error("a gap that the subscription is to go on after is not told")
	}
	s.cancel()
	for name, token := range map[string]string{"damaged": expired[:len(expired)-1] + "*", "not a token": "5"} {
		a, _ := g.openREST(t, "", sse.returning(token))
		checkError(t, name, restError(t, name, a), codes.InvalidArgument, "INVALID_ARGUMENT")
	}
	if a, _ := g.openREST(t, "", sse.returning("\xff")); a.status != http.StatusBadRequest {
		t.Errorf("an id that is not UTF-8 is answered with %d %s", a.status, a.body)
	}
}

func TestTokensAheadOfTheHeadStopEventSources(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	g := startGateway(t, cfg)
	g.deliverSMS(t, 1, 1)
	g.stop(t)
	copied := cfg
	copied.Log.Dir = t.TempDir()
	if err := os.CopyFS(copied.Log.Dir, os.DirFS(cfg.Log.Dir)); err != nil {
		t.Fatal(err)
	}
	g = startGateway(t, cfg)
	g.deliverSMS(t, 2, 2)
	token := g.info(t).GetHead().GetToken()
	a, _ := startGateway(t, copied).openREST(t, "", forms[1].returning(token))
	if checkError(t, "ahead", restError(t, "ahead", a), codes.DataLoss, "AHEAD_OF_HEAD"); a.status != http.StatusInternalServerError {
		t.Errorf("a token ahead of the head is answered with %d", a.status)
	}
}

// TestTooManyHTTPStreams requires that all ways of subscribing share one bound, and that an event source that is turned away
// when it comes back is not lost for ever.
func TestTooManyHTTPStreams(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.GRPC.MaxStreams = 1
	g := startGateway(t, cfg)
	s := g.subscribeREST(t, forms[0], "")
	checkError(t, "gRPC", g.subscribeError(t, &linksgatev1.SubscribeRequest{}), codes.ResourceExhausted, "TOO_MANY_STREAMS")
	for _, f := range forms {
		a, _ := g.openREST(t, "", f.header())
		checkError(t, f.name, restError(t, f.name, a), codes.ResourceExhausted, "TOO_MANY_STREAMS")
		if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") != "5" {
			t.Errorf("%s: %d %v; want 429 with Retry-After", f.name, a.status, a.header)
		}
	}
	_, back := g.openREST(t, "", forms[1].returning(s.last))
	if back == nil {
		t.Fatal("an event source that comes back is turned away for good")
	}
	_, err := back.rest(t)
	checkError(t, "coming back", err, codes.ResourceExhausted, "TOO_MANY_STREAMS")
	if back.retry != 5*time.Second {
		t.Errorf("it is told to come back in %v; want 5s", back.retry)
	}
	s.cancel()
	g.subscriptions(t, 0)
	g.subscribeREST(t, forms[1], "")
}

// TestDrainingClosesHTTPStreams requires Closing and then the reason as the end of every stream, and a token that leads on.
func TestDrainingClosesHTTPStreams(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	g := startGateway(t, cfg)
	streams := make(map[string]*httpStream)
	for _, f := range forms {
		s := g.subscribeREST(t, f, "heartbeatInterval=600s")
		s.untilCaughtUp(t)
		streams[f.name] = s
	}
	delivered := g.deliverSMS(t, 1, 2)
	g.stop(t)
	again := startGateway(t, cfg)
	for name, s := range streams {
		frames, err := s.rest(t)
		checkError(t, name, err, codes.Unavailable, "DRAINING")
		if len(frames) == 0 {
			t.Fatalf("%s: no frame before the end", name)
		}
		closing := frames[len(frames)-1].GetClosing()
		if closing.GetReason() != linksgatev1.ClosingReason_CLOSING_REASON_DRAINING || closing.GetReconnectAfter().AsDuration() <= 0 {
			t.Errorf("%s: the last frame is %v; want Closing because of draining", name, frames[len(frames)-1])
		}
		if want := closing.GetReconnectAfter().AsDuration().Truncate(time.Millisecond); s.events && s.retry != want {
			t.Errorf("an event source is told to come back in %v; want %v, as it was announced", s.retry, want)
		}
		got := ids(inBatches(frames))
		more := call(t, again, http.MethodGet, "/v1/notifications?start.after="+s.last, "", new(linksgatev1.ListNotificationsResponse))
		if got = append(got, ids(more.GetNotifications())...); !slices.Equal(got, delivered) {
			t.Errorf("%s: %v before and after the end; want %v", name, got, delivered)
		}
	}
}

func TestMaxStreamAgeEndsHTTPStreams(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.GRPC.MaxStreamAge = config.Duration(50 * time.Millisecond)
	g := startGateway(t, cfg)
	for _, f := range forms {
		frames, err := g.subscribeREST(t, f, "").rest(t)
		if err != nil || len(frames) == 0 || frames[len(frames)-1].GetClosing().GetReason() != linksgatev1.ClosingReason_CLOSING_REASON_MAX_AGE {
			t.Errorf("%s: %v, %v; want Closing because of age as the last frame", f.name, frames, err)
		}
	}
}

// TestHTTPClientsThatLeave requires that a stream whose client is gone is no longer one, with nothing to send that would show it.
func TestHTTPClientsThatLeave(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for _, f := range forms {
		for range 5 {
			g.subscribeREST(t, f, "heartbeatInterval=600s").cancel()
		}
		g.subscriptions(t, 0)
	}
	if strings.Contains(g.logs.String(), "failed") {
		t.Errorf("a client that leaves was logged as a failure: %s", g.logs.String())
	}
}

// TestHTTPClientsThatDoNotRead requires that a client that has stopped reading is cut off after the send timeout, so that
// it can tell, and others do not wait for it.
func TestHTTPClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.GRPC.SendTimeout = config.Duration(300 * time.Millisecond)
	g := startGateway(t, cfg)
	g.deliverLarge(t, 40)
	for _, f := range forms {
		conn, err := net.Dial("tcp", g.REST.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var request bytes.Buffer
		if err := g.restRequest(t, http.MethodGet, subscribePath+"start.earliest=true", f.header(), "").Write(&request); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(request.Bytes()); err != nil {
			t.Fatal(err)
		}
		// It has begun, and nobody reads.
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		s := g.subscribeREST(t, f, "start.earliest=true&maxBatch=512")
		if got := len(s.notifications(t, 40)); got != 40 {
			t.Errorf("%s: another client got %d notifications", f.name, got)
		}
		s.cancel()
		g.subscriptions(t, 0)
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(conn)
		if bytes.HasSuffix(rest, []byte("0\r\n\r\n")) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the stream of one that does not read ends as if it were complete, or not at all: %v", f.name, err)
		}
	}
}
