package main

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/simulator"
)

func TestShareIsSpreadEvenly(t *testing.T) {
	tests := []struct {
		text  string
		count uint64
		want  []uint64 // which of the first ten
	}{
		{"0", 10, nil},
		{"0.0", 0, nil},
		{"1", 10, []uint64{9}},
		{"3", 10, []uint64{3, 6, 9}},
		{"10", 10, []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"0.2", 0, []uint64{4, 9}},
		{"1.0", 0, []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
	}
	for _, tt := range tests {
		s, err := parseShare(tt.text, tt.count)
		var got []uint64
		for i := range uint64(10) {
			if s.holds(i) {
				got = append(got, i)
			}
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s of %d: %v, %v; want %v", tt.text, tt.count, got, err, tt.want)
		}
	}
}

func TestHistogram(t *testing.T) {
	var h, half histogram
	if h.quantile(0.5) != 0 {
		t.Errorf("median of nothing: %v", h.quantile(0.5))
	}
	for i := range 1000 {
		part := &h
		if i%2 == 0 {
			part = &half
		}
		part.record(time.Duration(i+1) * time.Millisecond)
	}
	h.merge(&half)
	for q, want := range map[float64]time.Duration{
		0.5: 500 * time.Millisecond, 0.9: 900 * time.Millisecond, 0.99: 990 * time.Millisecond, 1: time.Second,
	} {
		if got := h.quantile(q); got < want || got > want+want>>fineBits {
			t.Errorf("quantile %v = %v; want %v", q, got, want)
		}
	}
	if h.max != time.Second || h.count != 1000 {
		t.Errorf("max %v of %d", h.max, h.count)
	}
}

func TestEveryDurationHasABucket(t *testing.T) {
	for shift := range 63 {
		for _, v := range []uint64{1<<shift - 1, 1 << shift, 1<<shift + 1, 1<<63 - 1} {
			i := bucket(v)
			if i >= len(histogram{}.buckets) || bucketEnd(i) < v || (i > 0 && bucketEnd(i-1) >= v) {
				t.Fatalf("%d: bucket %d, which ends at %d", v, i, bucketEnd(i))
			}
		}
	}
}

// An end that comes early lets what is under way finish, and is reported.
func TestSendEndsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		w.WriteHeader(http.StatusOK)
	}))
	defer server.Close()
	const kind = linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS
	sender := &simulator.Sender{Unsigned: true}
	l := load{
		targets: []sendTarget{{kind, server.URL}},
		sender:  sender,
		forger:  sender,
		count:   100,
		bad:     share{total: 1},
		workers: 1,
		client:  newSendClient(1, time.Minute, nil),
	}
	result, err := l.run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := result.summary()
	if s.Requests != 1 || s.Answers["200"] != 1 || s.TransportErrors != 0 || s.Complete {
		t.Errorf("%+v", s)
	}
	if err := result.verdict(); err == nil || err.Error() != "ended early: 1 of 100 notifications sent" {
		t.Errorf("verdict: %v", err)
	}
}

// A notification and its duplicates are the same bytes.
func TestDuplicatesAreIdentical(t *testing.T) {
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("X-Lf-Signature")+r.Header.Get("X-Lf-Timestamp"))
	}))
	defer server.Close()
	sender := &simulator.Sender{KeyID: "k1"}
	sender.HMAC.Value = "key"
	l := load{
		targets:    []sendTarget{{linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, server.URL}},
		sender:     sender,
		forger:     sender.Forger(),
		count:      2,
		bad:        share{total: 1},
		duplicates: 2,
		workers:    1,
		client:     newSendClient(1, time.Minute, nil),
	}
	if _, err := l.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 6 || seen[0] != seen[1] || seen[1] != seen[2] || seen[2] == seen[3] {
		t.Errorf("received %q", seen)
	}
}

// A gateway takes the same body for a copy: runs have bodies of their own, unless they are asked for the same.
func TestRunsOfSendHaveBodiesOfTheirOwn(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got[string(body)]++
	}))
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	send := func(code int, flags ...string) string {
		args := append([]string{"send", server.URL + "/linksfield/acme/data-usage-alert", "--unsigned", "--count", "3"}, flags...)
		got, stderr := execute(t, io.Discard, args...)
		if got != code {
			t.Errorf("%v: exit status %d, %s", flags, got, stderr)
		}
		return stderr
	}
	send(exitOK, "--ca", ca)
	send(exitOK, "--ca", ca)
	if len(got) != 6 {
		t.Errorf("two runs sent %v", got)
	}
	clear(got)
	send(exitOK, "--ca", ca, "--first", "7")
	send(exitOK, "--ca", ca, "--first", "7")
	if len(got) != 3 {
		t.Errorf("two runs of the same sent %v", got)
	}
	if stderr := send(exitFailure); !strings.Contains(stderr, "--ca FILE names the certificates to trust") {
		t.Errorf("not trusted: %s", stderr)
	}
}
