package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// TestObserve requires that what a real gateway received is told by member and shape, masked, with the lines that would teach it; that these
// lines can be used as they are; and that hostile bodies stay bounded.
func TestObserve(t *testing.T) {
	w := newWorkplace(t)
	deliver := func(kind linksgatev1.NotificationKind, body string) {
		t.Helper()
		n, err := w.sender.MakeWithBody(kind, []byte(body))
		w.must(err)
		request, err := n.Request(w.ctx, w.gateway.Webhook)
		w.must(err)
		response, err := http.DefaultClient.Do(request)
		w.must(err)
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Fatalf("%.100s: answered %d", body, response.StatusCode)
		}
	}
	cube := linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE
	for _, body := range []string{
		`{"data":{"sims":[{"iccid":"89860220190123456789"},{"iccid":"89314404000816575667"}],"imsi":"460001234567890"},"at":"1642385160000","note":"Hello 5 发"}`,
		`{"data":{"sims":[{"iccid":"89860220190123456780"}],"imsi":"460001234567891"},"at":"1642385160001","note":"","lost":8.986e19,"partner_code":"P1"}`,
	} {
		deliver(cube, body)
	}
	var many strings.Builder
	for i := range 3000 {
		many.WriteString(`,"k` + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/26) + `":1`)
	}
	deliver(linksgatev1.NotificationKind_NOTIFICATION_KIND_DATA_USAGE_ALERT, `{"a":1`+many.String()+`}`)
	var out bytes.Buffer
	code, stderr := execute(t, &out, "observe", "--address", w.gateway.GRPC)
	if code != exitOK {
		t.Fatal(stderr)
	}
	for _, want := range []string{
		"acme cube: 2 notifications; no SIM known of 0, no JSON 0",
		"data.sims.iccid              in 2: iccid 3: 99999999999999999999  (iccid?)",
		"data.imsi                    in 2: imsi 2: 999999999999999  (imsi?)",
		"note                         in 2: empty 1, text 1: Xxxxx 9 字",
		"lost                         in 1: damaged iccid 1: 9.999x99",
		"partner_code                 in 1: text 1: X9  (documented)",
		`accounts: {acme: {kinds: {cube: {fields: {iccid: ["data.sims.iccid"], imsi: ["data.imsi"], occurred_at: ["at"]}}}}}`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String()[:min(out.Len(), 3000)])
		}
	}
	if strings.Contains(out.String(), "Hello") || strings.Contains(out.String(), "898602") {
		t.Error("what was received is shown")
	}
	if !strings.Contains(stderr, "more members than") {
		t.Errorf("thousands of members: %s", stderr)
	}
	out.Reset()
	if code, stderr := execute(t, &out, "observe", "--address", w.gateway.GRPC, "--kind", "cube", "--json"); code != exitOK ||
		strings.Count(out.String(), "\n") != 1 || !strings.Contains(out.String(), `"path":"data.imsi","count":2,"shapes":{"imsi":2}`) {
		t.Errorf("%d %s %s", code, stderr, out.String())
	}
	if code, stderr := execute(t, &out, "observe", "--address", w.gateway.GRPC, "--since", "soon"); code != exitUsage {
		t.Errorf("a bad time: %d %s", code, stderr)
	}
}
