package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/linksgate/linksgate/server/simulator"
)

// load is what send has to send. Its workers share nothing but two counters, and
// each keeps its own tally.
type load struct {
	targets    []sendTarget // in turn
	sender     *simulator.Sender
	forger     *simulator.Sender // of the same notifications, with wrong signatures
	body       []byte            // of every notification; nil: made up
	first      uint64            // number of the first made-up body
	count      uint64            // of notifications; 0: until the context ends
	bad        share             // of the notifications are signed wrongly
	duplicates int               // of each notification, after the first
	workers    int
	rate       float64 // notifications per second; 0: unlimited
	client     *http.Client

	started    atomic.Uint64 // notifications taken by a worker
	unexpected atomic.Uint64 // answers so far that were not as expected
}

// run sends until everything is sent or ctx ends. Requests that are under way
// then are still waited for, each for its own timeout, so that the report
// is true. The error is of a notification that could not be made.
func (l *load) run(ctx context.Context) (*sendResult, error) {
	limiter := rate.NewLimiter(rate.Inf, 1)
	if l.rate > 0 {
		limiter.SetLimit(rate.Limit(l.rate))
	}
	begin := time.Now()
	tallies := make([]tally, l.workers)
	group, ctx := errgroup.WithContext(ctx)
	for i := range tallies {
		group.Go(func() error { return l.work(ctx, limiter, &tallies[i]) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	result := &sendResult{planned: l.count, duration: time.Since(begin)}
	for i := range tallies {
		result.add(&tallies[i])
	}
	return result, nil
}

// work sends one notification after another.
func (l *load) work(ctx context.Context, limiter *rate.Limiter, t *tally) error {
	for {
		// The wait comes first: a number taken is a number sent.
		if limiter.Wait(ctx) != nil {
			return nil
		}
		i := l.started.Add(1) - 1
		if l.count > 0 && i >= l.count {
			return nil
		}
		target := l.targets[i%uint64(len(l.targets))]
		bad := l.bad.holds(i)
		n, err := l.make(target, i, bad)
		if err != nil {
			return err
		}
		t.notifications++
		for range 1 + l.duplicates {
			if ctx.Err() != nil {
				return nil
			}
			if !t.send(context.WithoutCancel(ctx), l.client, n, target.url, bad) {
				l.unexpected.Add(1)
			}
		}
	}
}

func (l *load) make(target sendTarget, i uint64, bad bool) (simulator.Notification, error) {
	sender := l.sender
	if bad {
		sender = l.forger
	}
	if l.body != nil {
		return sender.MakeWithBody(target.kind, l.body)
	}
	return sender.Make(target.kind, l.first+i)
}

func (l *load) progress() string {
	started := l.started.Load()
	of := ""
	if l.count > 0 {
		started = min(started, l.count)
		of = fmt.Sprintf(" of %d", l.count)
	}
	return fmt.Sprintf("%d%s sent, %d answers not as expected", started, of, l.unexpected.Load())
}

// answer is a kind of answer that is counted.
type answer struct {
	status int  // 0: none, but an error
	bad    bool // the signature was made wrong on purpose
}

func (a answer) expected() bool {
	if a.bad {
		return a.status == http.StatusUnauthorized
	}
	return a.status/100 == 2
}

// tally is what a worker saw. Only its worker touches it until the worker has ended.
type tally struct {
	notifications uint64
	answers       map[answer]uint64
	firstError    error // of those counted under status 0
	latencies     histogram
}

// send makes one request and reports whether the answer was as expected.
func (t *tally) send(ctx context.Context, client *http.Client, n simulator.Notification, url string, bad bool) bool {
	begin := time.Now()
	status, err := post(ctx, client, n, url)
	if err != nil {
		if t.firstError == nil {
			t.firstError = err
		}
	} else {
		t.latencies.record(time.Since(begin))
	}
	a := answer{status, bad}
	t.count(a, 1)
	return a.expected()
}

func (t *tally) count(a answer, n uint64) {
	if t.answers == nil {
		t.answers = make(map[answer]uint64)
	}
	t.answers[a] += n
}

// post returns the status of the answer, once all of the answer has come: only
// then can the connection be used again.
func post(ctx context.Context, client *http.Client, n simulator.Notification, url string) (int, error) {
	request, err := n.RequestTo(ctx, url)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	const enough = 64 << 10
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, enough)); err != nil {
		return 0, err
	}
	return response.StatusCode, nil
}

// sendResult is the sum of the tallies.
type sendResult struct {
	tally
	planned  uint64 // notifications; 0: no number
	duration time.Duration
}

func (r *sendResult) add(t *tally) {
	r.notifications += t.notifications
	for a, n := range t.answers {
		r.count(a, n)
	}
	if r.firstError == nil {
		r.firstError = t.firstError
	}
	r.latencies.merge(&t.latencies)
}

// sendSummary is the report as data.
type sendSummary struct {
	Notifications   uint64            `json:"notifications"`
	Requests        uint64            `json:"requests"`
	Answers         map[string]uint64 `json:"answers"` // by status code
	TransportErrors uint64            `json:"transport_errors"`
	FirstError      string            `json:"first_error,omitempty"`
	Unexpected      uint64            `json:"unexpected"`
	Complete        bool              `json:"complete"` // false: ended before all were sent
	Seconds         float64           `json:"seconds"`
	Rate            float64           `json:"requests_per_second"`
	Latency         sendLatency       `json:"latency_ms"`
}

type sendLatency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (r *sendResult) summary() sendSummary {
	s := sendSummary{
		Notifications: r.notifications,
		Answers:       map[string]uint64{},
		Complete:      r.complete(),
		Seconds:       r.duration.Seconds(),
		Latency: sendLatency{
			P50: milliseconds(r.latencies.quantile(0.50)),
			P90: milliseconds(r.latencies.quantile(0.90)),
			P99: milliseconds(r.latencies.quantile(0.99)),
			Max: milliseconds(r.latencies.max),
		},
	}
	for a, n := range r.answers {
		s.Requests += n
		if a.status == 0 {
			s.TransportErrors += n
		} else {
			s.Answers[strconv.Itoa(a.status)] += n
		}
		if !a.expected() {
			s.Unexpected += n
		}
	}
	if r.firstError != nil {
		s.FirstError = r.firstError.Error()
	}
	if s.Seconds > 0 {
		s.Rate = float64(s.Requests) / s.Seconds
	}
	return s
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// text is the report for a person.
func (r *sendResult) text() string {
	s := r.summary()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %s in %v (%.0f/s)\n", plural(s.Notifications, "notification"), plural(s.Requests, "request"),
		r.duration.Round(time.Millisecond), s.Rate)
	for _, status := range slices.Sorted(maps.Keys(s.Answers)) {
		code, _ := strconv.Atoi(status)
		fmt.Fprintf(&b, "  %s %-22s %8d%s\n", status, http.StatusText(code), s.Answers[status], r.notAsExpected(code))
	}
	if s.TransportErrors > 0 {
		fmt.Fprintf(&b, "  no answer %26d  first: %s\n", s.TransportErrors, escaped(s.FirstError))
	}
	if r.latencies.count > 0 {
		fmt.Fprintf(&b, "latency p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms\n",
			s.Latency.P50, s.Latency.P90, s.Latency.P99, s.Latency.Max)
	}
	return b.String()
}

func (r *sendResult) notAsExpected(status int) string {
	good, bad := answer{status, false}, answer{status, true}
	switch accepted, forged := r.answers[good], r.answers[bad]; {
	case !good.expected() && accepted > 0:
		return fmt.Sprintf("  %d not as expected", accepted)
	case !bad.expected() && forged > 0:
		return fmt.Sprintf("  %d not as expected: their signature was wrong", forged)
	}
	return ""
}

func (r *sendResult) complete() bool { return r.planned == 0 || r.notifications == r.planned }

// verdict is nil when everything was sent and answered as expected. Otherwise it
// says what to look at.
func (r *sendResult) verdict() error {
	s := r.summary()
	switch {
	case s.Unexpected > 0:
		return fmt.Errorf("%d of %s not answered as expected%s", s.Unexpected, plural(s.Requests, "request"), r.advice())
	case !s.Complete:
		return fmt.Errorf("ended early: %d of %s sent", r.notifications, plural(r.planned, "notification"))
	}
	return nil
}

// advice is about each answer that was not as expected.
func (r *sendResult) advice() string {
	var all []string
	for _, a := range slices.SortedFunc(maps.Keys(r.answers), func(a, b answer) int { return a.status - b.status }) {
		text := ""
		switch {
		case a.expected():
			continue
		case a.status == 0 && errors.As(r.firstError, new(*tls.CertificateVerificationError)):
			text = "no answer: the certificate is not trusted; --ca FILE names the certificates to trust"
		case a.status == 0:
			text = "no answer: is the gateway running at this address?"
		case a.bad:
			text = fmt.Sprintf("%d for a wrong signature: 401 was expected", a.status)
		case a.status == http.StatusBadRequest:
			text = "400: the gateway cannot read the body"
		case a.status == http.StatusUnauthorized:
			text = "401: does the account have this secret, and accept this kind unsigned if it was sent so?"
		case a.status == http.StatusNotFound:
			text = "404: check account, kind and path token in the URL"
		case a.status == http.StatusTooManyRequests:
			text = "429: too much at once; lower --concurrency or --rate"
		case a.status == http.StatusServiceUnavailable:
			text = "503: the gateway cannot store now; its log says why"
		}
		if text != "" {
			all = append(all, "\n  "+text)
		}
	}
	return strings.Join(all, "")
}

func plural[N integer](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
