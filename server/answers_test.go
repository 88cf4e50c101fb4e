package server_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/config"
	"github.com/linksgate/linksgate/server/simulator"
)

const (
	smsPath    = "/linksfield/acme/sms-received"
	cubePath   = "/linksfield/acme/cube"
	orderPath  = "/linksfield/acme/plan-order-status"
	markedBody = `{"sim_id":"89860220190000000001","text_message":"` + bodyMark + `"}`
)

// refusal is a request that is not to be stored.
type refusal struct {
	name   string
	method string // default POST
	path   string // default smsPath
	header http.Header
	body   string
	// chunked sends the body without saying how long it is.
	chunked bool
	reason  string // in the gateway's log
}

// checkRefusals sends requests to a gateway of their own and requires the same status for all: with a problem document that
// tells nothing private, a line in the log with the reason, and nothing stored. It returns the answers.
func checkRefusals(t *testing.T, status int, refusals []refusal) []answer {
	t.Helper()
	g := startGateway(t, testConfig(t))
	var answers []answer
	want := make(map[string]int)
	for _, tt := range refusals {
		method, path := tt.method, tt.path
		if method == "" {
			method = http.MethodPost
		}
		if path == "" {
			path = smsPath
		}
		var body io.Reader = strings.NewReader(tt.body)
		if tt.chunked {
			body = io.MultiReader(body)
		}
		a := g.request(t, method, path, tt.header, body)
		if a.status != status {
			t.Errorf("%s: %d %s; want %d", tt.name, a.status, a.body, status)
		}
		if method != http.MethodHead {
			checkProblem(t, tt.name, a)
		}
		answers = append(answers, a)
		want[tt.reason]++
	}
	for reason, count := range want {
		if got := g.logs.refusals(t)[reason]; got != count {
			t.Errorf("%d refusals were logged with the reason %s; want %d", got, reason, count)
		}
	}
	if head := g.info(t).GetHead(); head != nil {
		t.Errorf("something was stored: %v", head)
	}
	g.stop(t)
	return answers
}

// checkProblem requires a problem document of RFC 9457 that tells nothing private.
func checkProblem(t *testing.T, name string, a answer) {
	t.Helper()
	var problem struct {
		Title  string
		Status int
		Detail string
	}
	if err := json.Unmarshal([]byte(a.body), &problem); err != nil || problem.Status != a.status || problem.Detail == "" ||
		a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %q as %s is not a problem document of status %d", name, a.body, a.header.Get("Content-Type"), a.status)
	}
	for _, private := range []string{bodyMark, md5Secret, hmacSecret, orderToken} {
		if strings.Contains(a.body, private) {
			t.Errorf("%s: the answer %s holds %q", name, a.body, private)
		}
	}
}

func TestUnreadableBodiesAre400(t *testing.T) {
	t.Parallel()
	checkRefusals(t, http.StatusBadRequest, []refusal{
		{name: "empty", body: "", reason: "invalid_json"},
		{name: "not JSON", body: bodyMark, reason: "invalid_json"},
		{name: "form", body: "text_message=" + bodyMark, reason: "invalid_json"},
		{name: "incomplete document", body: markedBody[:len(markedBody)-1], reason: "invalid_json"},
		{name: "invalid UTF-8", body: `{"text_message":"` + bodyMark + "\xff\"}", reason: "invalid_json"},
		{name: "byte order mark", body: "\ufeff" + markedBody, reason: "invalid_json"},
		{name: "trailing data", body: markedBody + markedBody, reason: "invalid_json"},
		{name: "duplicate key", body: `{"text_message":"` + bodyMark + `","text_message":"b"}`, reason: "duplicate_key"},
		{name: "duplicate key when decoded", body: `{"a":"` + bodyMark + `","\u0061":"b"}`, reason: "duplicate_key"},
		{name: "absurd nesting", body: strings.Repeat("[", 100_000), reason: "nesting"},
		{name: "too many values", body: "[" + strings.Repeat("0,", 100_000) + "0]", reason: "too_many_values"},
	})
}

func TestRequestsThatAreCutOffAre400(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for _, tt := range []struct{ name, rest, reason string }{
		{"shorter than announced", "Content-Length: 1000\r\n\r\n" + markedBody, "cut_off"},
		{"without a last chunk", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(markedBody), markedBody), "cut_off"},
		{"with a broken chunk", "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + bodyMark, "unreadable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := openConn(t, g)
			conn.write(t, "POST "+smsPath+" HTTP/1.1\r\nHost: gateway\r\n"+tt.rest)
			if err := conn.Conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			a := conn.answer(t)
			if a.status != http.StatusBadRequest || g.logs.refusals(t)[tt.reason] == 0 {
				t.Errorf("%d %s; want 400 for the reason %s", a.status, a.body, tt.reason)
			}
			checkProblem(t, tt.name, a)
		})
	}
	if head := g.info(t).GetHead(); head != nil {
		t.Errorf("something was stored: %v", head)
	}
}

// conn is a connection on which the bytes of a request are written one by one.
type conn struct {
	net.Conn
	reader *bufio.Reader
}

func openConn(t *testing.T, g *gateway) conn {
	t.Helper()
	return openConnTo(t, g.Webhook.String())
}

func openConnTo(t *testing.T, address string) conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn{c, bufio.NewReader(c)}
}

func (c conn) write(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func (c conn) answer(t *testing.T) answer {
	t.Helper()
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// begin sends a request's headers and waits until the gateway asks for the body.
func (c conn) begin(t *testing.T, path string, n simulator.Notification) {
	t.Helper()
	var header strings.Builder
	if err := n.Header.Write(&header); err != nil {
		t.Fatal(err)
	}
	c.write(t, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gateway\r\nExpect: 100-continue\r\nContent-Length: %d\r\n%s\r\n",
		path, len(n.Body), header.String()))
	if a := c.answer(t); a.status != http.StatusContinue {
		t.Fatalf("%d %s; want 100", a.status, a.body)
	}
}

// with returns a copy of headers in which some are changed: name, value, name, value. An empty value removes one.
func with(header http.Header, changes ...string) http.Header {
	header = header.Clone()
	for i := 0; i < len(changes); i += 2 {
		header.Del(changes[i])
		if changes[i+1] != "" {
			header.Set(changes[i], changes[i+1])
		}
	}
	return header
}

func TestWhatNobodySignedIs401(t *testing.T) {
	t.Parallel()
	sms := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, markedBody)
	cube := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, markedBody)
	forged, err := linksfield.Forger().MakeWithBody(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, sms.Body)
	if err != nil {
		t.Fatal(err)
	}
	key, sum, _ := strings.Cut(cube.Header.Get("X-Lf-Signature"), "/")

	checkRefusals(t, http.StatusUnauthorized, []refusal{
		{name: "no signature", body: markedBody, reason: "signature_missing"},
		{name: "empty", header: http.Header{"X-Lf-Md5": {""}}, body: markedBody, reason: "signature_malformed"},
		{name: "secret of nobody", header: forged.Header, body: markedBody, reason: "signature_mismatch"},
		{name: "secret of another account", path: "/linksfield/other/sms-received", header: sms.Header, body: markedBody, reason: "signature_mismatch"},
		{name: "another body", header: sms.Header, body: strings.Replace(markedBody, "1\"", "2\"", 1), reason: "signature_mismatch"},
		{name: "no parameters", header: sms.Header, body: `["` + bodyMark + `"]`, reason: "signature_malformed"},
		{name: "account without keys", path: "/linksfield/other/cube", header: cube.Header, body: markedBody, reason: "signature_unknown_key"},
		{name: "unknown key id", path: cubePath, header: with(cube.Header, "X-Lf-Signature", "nobody/"+sum), body: markedBody, reason: "signature_unknown_key"},
		{name: "no key id", path: cubePath, header: with(cube.Header, "X-Lf-Signature", strings.ReplaceAll(sum, "/", "+")), body: markedBody, reason: "signature_malformed"},
		{name: "no signature after the key id", path: cubePath, header: with(cube.Header, "X-Lf-Signature", key+"/"), body: markedBody, reason: "signature_malformed"},
		{name: "no timestamp", path: cubePath, header: with(cube.Header, "X-Lf-Timestamp", ""), body: markedBody, reason: "signature_malformed"},
		{name: "another timestamp", path: cubePath, header: with(cube.Header, "X-Lf-Timestamp", "1"), body: markedBody, reason: "signature_mismatch"},
		{name: "no version", path: cubePath, header: with(cube.Header, "X-Lf-Notification-Version", ""), body: markedBody, reason: "signature_malformed"},
		{name: "unsupported algorithm", path: cubePath, header: with(cube.Header, "X-Lf-Algo", "HMAC-SHA256"), body: markedBody, reason: "signature_algorithm"},
		{name: "signature not base64", path: cubePath, header: with(cube.Header, "X-Lf-Signature", key+"/@@@@@@@@"), body: markedBody, reason: "signature_malformed"},
		{name: "not a digest", header: http.Header{"X-Lf-Md5": {"abc"}}, body: markedBody, reason: "signature_malformed"},
		{name: "wrong where it may be missing", path: orderPath + "/" + orderToken, header: forged.Header, body: markedBody, reason: "signature_mismatch"},
	})
}

func TestURLsThatNobodyWasGivenAre404(t *testing.T) {
	t.Parallel()
	sms := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, markedBody)
	recharge := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_RECHARGE_SUCCESS, markedBody)
	var refusals []refusal
	for name, path := range map[string]string{
		"root":                      "/",
		"nothing":                   "/linksfield/",
		"unknown account":           "/linksfield/nobody/sms-received",
		"account in capitals":       "/linksfield/ACME/sms-received",
		"no kind":                   "/linksfield/acme",
		"unknown kind":              "/linksfield/acme/sms",
		"kind in the enum's words":  "/linksfield/acme/NOTIFICATION_KIND_SMS_RECEIVED",
		"token where there is none": smsPath + "/" + orderToken,
		"missing path token":        orderPath,
		"empty path token":          orderPath + "/",
		"wrong path token":          orderPath + "/" + strings.Replace(orderToken, "9", "8", 1),
		"beginning of path token":   orderPath + "/" + orderToken[:16],
		"more after path token":     orderPath + "/" + orderToken + "/more",
	} {
		refusals = append(refusals, refusal{name: name, path: path, header: sms.Header, body: markedBody, reason: "no_such_url"})
	}
	refusals = append(refusals,
		refusal{name: "source not allowed", path: "/linksfield/acme/mall-recharge-success", header: recharge.Header, body: markedBody, reason: "source_not_allowed"},
		refusal{name: "source that it says itself", path: "/linksfield/acme/mall-recharge-success",
			header: with(recharge.Header, "X-Forwarded-For", "203.0.113.9"), body: markedBody, reason: "source_not_allowed"},
		refusal{name: "unknown account, not POST", method: http.MethodGet, path: "/linksfield/nobody/sms-received", reason: "no_such_url"},
	)
	answers := checkRefusals(t, http.StatusNotFound, refusals)
	for i, a := range answers {
		if a.body != answers[0].body {
			t.Errorf("%s: the answer %s tells it from %s: %s", refusals[i].name, a.body, refusals[0].name, answers[0].body)
		}
	}
}

func TestSourcesBehindTrustedProxies(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Webhook.TrustedProxies = []string{"127.0.0.0/8", "198.51.100.7"}
	g := startGateway(t, cfg)
	recharge := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_RECHARGE_SUCCESS, markedBody)
	for forwarded, want := range map[string]int{
		"203.0.113.9":                         http.StatusOK,
		"192.0.2.1, 203.0.113.9":              http.StatusOK,
		"203.0.113.9, 198.51.100.7":           http.StatusOK,
		"203.0.113.9, 198.51.100.7,127.0.0.2": http.StatusOK,
		"203.0.113.9, 192.0.2.1":              http.StatusNotFound,
		"203.0.113.9, unknown":                http.StatusNotFound,
		"":                                    http.StatusNotFound,
	} {
		header := with(recharge.Header, "X-Forwarded-For", forwarded)
		a := g.request(t, http.MethodPost, "/linksfield/acme/mall-recharge-success", header, strings.NewReader(markedBody))
		if a.status != want {
			t.Errorf("X-Forwarded-For: %s: %d %s; want %d", forwarded, a.status, a.body, want)
		}
	}
}

func TestOnlyPostIsAllowed(t *testing.T) {
	t.Parallel()
	var refusals []refusal
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
		refusals = append(refusals, refusal{name: method, method: method, reason: "not_post"})
	}
	for i, a := range checkRefusals(t, http.StatusMethodNotAllowed, refusals) {
		if allow := a.header.Get("Allow"); allow != http.MethodPost {
			t.Errorf("%s: Allow: %q; want POST", refusals[i].name, allow)
		}
	}
}

func TestBodiesOverTheLimitAre413(t *testing.T) {
	t.Parallel()
	tooLarge := strings.Replace(markedBody, "}", strings.Repeat(" ", 256<<10+1-len(markedBody))+"}", 1)
	header := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, tooLarge).Header
	checkRefusals(t, http.StatusRequestEntityTooLarge, []refusal{
		{name: "announced", header: header, body: tooLarge, reason: "too_large"},
		{name: "chunked", header: header, body: tooLarge, chunked: true, reason: "too_large"},
	})

	cfg := testConfig(t)
	cfg.Webhook.MaxBody = config.Size(len(markedBody))
	g := startGateway(t, cfg)
	g.deliver(t, smsPath, signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, markedBody))
	over := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, markedBody+" ")
	if a := g.request(t, http.MethodPost, smsPath, over.Header, strings.NewReader(markedBody+" ")); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a byte over the configured limit: %d %s; want 413", a.status, a.body)
	}
}

func TestHeadersOverTheLimitAre431(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	sms := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, markedBody)
	header := with(sms.Header, "X-Lf-Delivery", strings.Repeat("d", 64<<10))
	a := g.request(t, http.MethodPost, smsPath, header, strings.NewReader(markedBody))
	if a.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d %s; want 431", a.status, a.body)
	}
	g.deliver(t, smsPath, sms)
}

func TestSlowBodyIs408(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Webhook.ReadTimeout = config.Duration(300 * time.Millisecond)
	g := startGateway(t, cfg)
	slow := openConn(t, g)
	slow.begin(t, smsPath, signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, markedBody))
	slow.write(t, markedBody[:10])
	a := slow.answer(t)
	if a.status != http.StatusRequestTimeout || g.logs.refusals(t)["slow"] != 1 {
		t.Errorf("%d %s; want 408 for the reason slow", a.status, a.body)
	}
	checkProblem(t, "slow", a)
	if head := g.info(t).GetHead(); head != nil {
		t.Errorf("something was stored: %v", head)
	}
}

func TestRequestsInFlightAreFinishedByAShutdown(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	g := startGateway(t, cfg)
	sms := signed(t, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, markedBody)
	inFlight := openConn(t, g)
	inFlight.begin(t, smsPath, sms)
	g.cancel()
	eventually(t, "the gateway drains", func() bool { return strings.Contains(g.logs.String(), "draining") })
	inFlight.write(t, markedBody)
	a := inFlight.answer(t)
	if a.status != http.StatusOK {
		t.Fatalf("%d %s; want 200", a.status, a.body)
	}
	g.stop(t)

	again := startGateway(t, cfg)
	if n := again.get(t, a.id(t)); n.GetBody() != markedBody {
		t.Errorf("stored %s; want %s", n.GetBody(), markedBody)
	}
}

// TestConnectionsWithoutARequestDoNotDelayAShutdown opens connections on which nothing is sent, or not a whole request.
func TestConnectionsWithoutARequestDoNotDelayAShutdown(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text      string
		addresses func(*gateway) []net.Addr
		limit     time.Duration
	}{
		"silent":      {"", func(g *gateway) []net.Addr { return []net.Addr{g.Webhook, g.REST, g.Admin} }, 4 * time.Second},
		"begun":       {"POST / HTTP/1.1\r\n", func(g *gateway) []net.Addr { return []net.Addr{g.Webhook, g.REST, g.Admin} }, 4 * time.Second},
		"silent gRPC": {"", func(g *gateway) []net.Addr { return []net.Addr{g.GRPC} }, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, testConfig(t))
			var open []conn
			for _, address := range tt.addresses(g) {
				c := openConnTo(t, address.String())
				c.write(t, tt.text)
				open = append(open, c)
			}
			// What is connected later is accepted later.
			g.deliverSMS(t, 1, 1)
			g.admin(t, "/healthz")
			g.rest(t, http.MethodGet, "/v1/log", nil, "")
			g.info(t)

			start := time.Now()
			g.stop(t)
			if took := time.Since(start); took > tt.limit {
				t.Errorf("the shutdown took %v", took)
			}
			for _, c := range open {
				if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("a connection is still open")
				}
			}
		})
	}
}

func TestAdministration(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	g.deliverSMS(t, 1, 1)
	g.request(t, http.MethodPost, smsPath, nil, strings.NewReader(markedBody))
	for path, want := range map[string][]string{
		"/healthz": {"ok"},
		"/readyz":  {`"ready":true`, `"durability":"no fsync`},
		"/metrics": {
			`linksgate_webhook_requests_total{code="200",kind="sms-received",reason="stored"} 1`,
			`linksgate_webhook_requests_total{code="401",kind="sms-received",reason="signature_missing"} 1`,
			"linksgate_log_appended_notifications_total 1",
			"linksgate_log_writable 1",
		},
	} {
		status, text := g.admin(t, path)
		for _, part := range want {
			if status != http.StatusOK || !strings.Contains(text, part) {
				t.Errorf("%s: %d without %s: %s", path, status, part, text)
			}
		}
	}
}
