package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/faults/faultfs"
)

// record is what a follower did.
type record struct {
	shown   []string
	tokens  []string
	notices []string
	waits   []time.Duration
}

// follow runs a follower that does not wait. It ends with ctx, or as the request asks.
func follow(ctx context.Context, t *testing.T, g *gateway, r *linksgatev1.SubscribeRequest, shown func(*record)) (*record, error) {
	t.Helper()
	conn, err := new(tailFlags).dial(g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rec := new(record)
	f := follower{
		client:  linksgatev1.NewNotificationServiceClient(conn),
		request: r,
		session: session{
			silence: 3 * g.heartbeat,
			notice:  func(text string) { rec.notices = append(rec.notices, text) },
			wait: func(ctx context.Context, d time.Duration) error {
				rec.waits = append(rec.waits, d)
				// The connection has its own pause after it broke: long enough a
				// wait here keeps the number of attempts small.
				return wait(ctx, time.Millisecond)
			},
		},
		show: func(notifications []*linksgatev1.Notification) error {
			for _, n := range notifications {
				rec.shown = append(rec.shown, n.GetToken())
			}
			if shown != nil {
				shown(rec)
			}
			return nil
		},
		remember: func(token string) error { rec.tokens = append(rec.tokens, token); return nil },
	}
	err = f.run(ctx)
	return rec, err
}

func tokens(from, to int) []string {
	var all []string
	for i := from; i <= to; i++ {
		all = append(all, token(i))
	}
	return all
}

// Wherever and however streams break, each notification is shown once and in
// order, and the token remembered is never ahead of what was shown.
func TestNoRepeatAndNoSkip(t *testing.T) {
	ways := map[string]func(*gateway, subscribeStream, string) error{
		"unavailable":       withStatus(codes.Unavailable),
		"aborted":           withStatus(codes.Aborted),
		"cancelled":         withStatus(codes.Canceled),
		"reset by a proxy":  withStatus(codes.Internal),
		"unknown":           withStatus(codes.Unknown),
		"too many streams":  withDetails(codes.ResourceExhausted, &errdetails.ErrorInfo{Domain: "linksgate"}),
		"connection cut":    cut,
		"draining":          drain,
		"maximum age":       ageOut,
		"heartbeats missed": fallSilent,
	}
	const notifications, frames = 7, 10
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			for after := range frames {
				for _, start := range []*linksgatev1.SubscribeRequest{
					{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}},
					{Start: &linksgatev1.Start{Position: &linksgatev1.Start_After{After: token(0)}}},
				} {
					// Notifications that arrive meanwhile are after the end.
					g := startGateway(t, notifications,
						breakage{after: max(after, 1), with: way, appended: 1},
						breakage{after: 0, with: way, appended: 1},
						breakage{after: 1, with: way},
						breakage{after: after, with: way},
					)
					if name == "heartbeats missed" {
						g.heartbeat = 5 * time.Millisecond
					}
					start.Until = &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true}
					if name == "connection cut" { // may swallow the first frame, and with it the first head
						start.Until = &linksgatev1.SubscribeRequest_UntilToken{UntilToken: token(notifications)}
					}
					rec, err := follow(t.Context(), t, g, start, nil)
					if diff := cmp.Diff(tokens(1, notifications), rec.shown); err != nil || diff != "" {
						t.Fatalf("broken after %d frames: %v (-want +got):\n%s\nnotices: %q", after, err, diff, rec.notices)
					}
					if last := rec.tokens[len(rec.tokens)-1]; last != token(notifications) {
						t.Errorf("remembered last: %s", last)
					}
				}
			}
		})
	}
}

// A subscription that began at the head begins where it began, also when its
// first stream never brought a notification.
func TestLatestStaysWhereItBegan(t *testing.T) {
	g := startGateway(t, 5,
		breakage{after: 1, with: withStatus(codes.Unavailable), appended: 3},
		breakage{after: 0, with: withStatus(codes.Unavailable), appended: 1},
	)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	start := &linksgatev1.SubscribeRequest{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Latest{Latest: true}}}
	rec, err := follow(ctx, t, g, start, func(rec *record) {
		if len(rec.shown) == 4 {
			cancel()
		}
	})
	if diff := cmp.Diff(tokens(6, 9), rec.shown); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestSinceIsAskedAgainUntilConfirmed(t *testing.T) {
	g := startGateway(t, 5, breakage{after: 0, with: withStatus(codes.Unavailable)})
	f := tailFlags{startFlags: startFlags{since: time.Unix(3, 0).UTC().Format(time.RFC3339)}, until: "head", onGap: "fail", maxBatch: 1}
	request, err := f.request(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	rec, err := follow(t.Context(), t, g, request, nil)
	if diff := cmp.Diff(tokens(3, 5), rec.shown); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// An empty log has no head to end at: the end is now, not after what comes next.
func TestUntilHeadOfAnEmptyLog(t *testing.T) {
	g := startGateway(t, 0, breakage{after: 1, with: withStatus(codes.Unavailable), appended: 2})
	start := &linksgatev1.SubscribeRequest{
		Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}},
		Until: &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true},
	}
	rec, err := follow(t.Context(), t, g, start, nil)
	if err != nil || rec.shown != nil {
		t.Errorf("shown %v, %v", rec.shown, err)
	}
}

// What could not be shown is not remembered.
func TestFailedOutputIsNotRemembered(t *testing.T) {
	g := startGateway(t, 6)
	broken := errors.New("disk full")
	var remembered string
	conn, err := new(tailFlags).dial(g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	batches := 0
	f := follower{
		client:   linksgatev1.NewNotificationServiceClient(conn),
		request:  &linksgatev1.SubscribeRequest{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}},
		session:  session{silence: time.Minute},
		remember: func(token string) error { remembered = token; return nil },
		show: func([]*linksgatev1.Notification) error {
			if batches++; batches == 2 {
				return broken
			}
			return nil
		},
	}
	if err := f.run(t.Context()); !errors.Is(err, broken) || remembered != token(2) {
		t.Errorf("remembered %s, %v", remembered, err)
	}
}

func TestReconnectWaitsAsAsked(t *testing.T) {
	g := startGateway(t, 2, breakage{after: 2, with: drain}, breakage{after: 0, with: withStatus(codes.Unavailable)})
	start := &linksgatev1.SubscribeRequest{Until: &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true},
		Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}}
	rec, err := follow(t.Context(), t, g, start, nil)
	if err != nil || len(rec.waits) != 2 || rec.waits[0] < time.Second {
		t.Errorf("waits %v, %v", rec.waits, err)
	}
	if len(rec.notices) != 3 || !strings.HasPrefix(rec.notices[0], "the gateway is shutting down; subscribing again in 1") ||
		rec.notices[2] != "subscribed again" {
		t.Errorf("notices %q", rec.notices)
	}
}

func TestBackOff(t *testing.T) {
	for failures := range 100 {
		top := 30 * time.Second
		if failures < 7 {
			top = 250 * time.Millisecond << failures
		}
		if d := backOff(failures); d < top/2 || d > top {
			t.Errorf("after %d failures: %v; want from %v to %v", failures, d, top/2, top)
		}
	}
}

// execute runs the command line in this process. What has not ended after a minute is ended.
func execute(t *testing.T, out io.Writer, args ...string) (code int, stderr string) {
	t.Helper()
	root := newRootCommand()
	var errs bytes.Buffer
	root.SetOut(out)
	root.SetErr(&errs)
	root.SetArgs(args)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := root.ExecuteContext(ctx)
	return exitCode(err), errs.String() + errorText(err)
}

func TestTailPrints(t *testing.T) {
	g := startGateway(t, 2, breakage{after: 2, with: withStatus(codes.Unavailable)})
	var out bytes.Buffer
	code, stderr := execute(t, &out, "tail", g.address, "--from-start", "--until", "head")
	want := "1970-01-01T00:00:01.000Z  acme  sms-received  -  \"message 1\"  verification-unknown  log-1\n" +
		"1970-01-01T00:00:02.000Z  acme  sms-received  -  \"message 2\"  verification-unknown  log-2\n"
	if code != exitOK || out.String() != want {
		t.Errorf("exit %d, %s\n%s", code, stderr, out.String())
	}
	if !strings.Contains(stderr, "Unavailable: broken as planned; subscribing again in") {
		t.Errorf("stderr %q", stderr)
	}
}

func TestTailAsksForWhatTheFlagsSay(t *testing.T) {
	g := startGateway(t, 2)
	t.Setenv(addressEnv, g.address)
	code, stderr := execute(t, io.Discard, "tail", "--after", "t1", "--until", "t2", "--on-gap", "continue", "--max-batch", "7",
		"--account", "a", "--account", "b", "--kind", "cube,sms-received", "--iccid", "89", "--partner-code", "P1")
	if code != exitOK {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	r := g.requests[0]
	if r.GetStart().GetAfter() != "t1" || r.GetUntilToken() != "t2" || r.GetMaxBatch() != 7 || r.GetOnGap() != linksgatev1.GapPolicy_GAP_POLICY_CONTINUE {
		t.Errorf("request %v", r)
	}
	got := fmt.Sprint(r.GetFilter().GetAccounts(), r.GetFilter().GetKinds(), r.GetFilter().GetIccids(), r.GetFilter().GetPartnerCodes())
	if got != "[a b] [NOTIFICATION_KIND_CUBE NOTIFICATION_KIND_SMS_RECEIVED] [89] [P1]" {
		t.Errorf("filter %v", got)
	}
}

func TestTailRemembersAcrossRuns(t *testing.T) {
	g := startGateway(t, 3)
	file := filepath.Join(t.TempDir(), "token")
	run := func() string {
		var out bytes.Buffer
		if code, stderr := execute(t, &out, "tail", g.address, "--json", "--from-start", "--until", "head", "--checkpoint", file); code != exitOK {
			t.Fatalf("exit %d, %s", code, stderr)
		}
		return out.String()
	}
	if out := run(); strings.Count(out, "\n") != 3 || !strings.HasPrefix(out, `{"id":"log-1","token":"t1",`) {
		t.Errorf("first run:\n%s", out)
	}
	if out := run(); out != "" {
		t.Errorf("second run:\n%s", out)
	}
	g.append(2)
	if out := run(); strings.Count(out, "\n") != 2 || !strings.HasPrefix(out, `{"id":"log-4"`) {
		t.Errorf("third run:\n%s", out)
	}
	if data, err := os.ReadFile(file); string(data) != "t5\n" {
		t.Errorf("token file holds %q, %v", data, err)
	}
	if left, err := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A token that was written is there after a loss of power: the one before it would print again what was printed.
func TestTokenSurvivesAPowerCut(t *testing.T) {
	disk := faultfs.Start(t, faultfs.Options{Metadata: faultfs.Unordered})
	for seed := range uint64(20) {
		path := filepath.Join(disk.Dir(), fmt.Sprint("token-", seed))
		file := checkpointFile{path: path}
		for _, token := range []string{"t1", "t2"} {
			if err := file.write(token); err != nil {
				t.Fatal(err)
			}
		}
		disk.PowerCut(rand.New(rand.NewPCG(seed, 0)))
		disk.Restore()
		after := checkpointFile{path: path}
		if token, err := after.read(); token != "t2" || err != nil {
			t.Errorf("seed %d: the token is %q, %v", seed, token, err)
		}
	}
}

func TestEmptyTokenFileIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stderr := execute(t, io.Discard, "tail", "--checkpoint", file); code != exitFailure || !strings.Contains(stderr, "is empty; remove it") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestTailErrorsSayWhatToDo(t *testing.T) {
	info := func(metadata map[string]string) *errdetails.ErrorInfo {
		return &errdetails.ErrorInfo{Domain: "linksgate", Metadata: metadata}
	}
	tests := []struct {
		code codes.Code
		info *errdetails.ErrorInfo
		want []string
	}{
		{codes.OutOfRange, info(map[string]string{"first_available_token": "t40"}), []string{"--on-gap continue", "--after t40", "--from-start"}},
		{codes.OutOfRange, info(nil), []string{"--on-gap continue", "--from-start"}},
		{codes.DataLoss, info(nil), []string{"--on-gap continue", "--from-start"}},
		{codes.FailedPrecondition, info(nil), []string{"another log"}},
		{codes.InvalidArgument, info(nil), []string{"check the flags"}},
		{codes.Internal, info(nil), []string{"gateway's log"}},
		{codes.Unimplemented, info(nil), []string{"is this address a Linksgate?"}},
	}
	for _, tt := range tests {
		g := startGateway(t, 1, breakage{after: 1, with: withDetails(tt.code, tt.info)})
		code, stderr := execute(t, io.Discard, "tail", g.address)
		for _, want := range append(tt.want, "broken as planned") {
			if code != exitFailure || !strings.Contains(stderr, want) {
				t.Errorf("%v: exit %d, %q; want %q", tt.code, code, stderr, want)
			}
		}
	}
}

// closedPipe is an output whose reader has gone.
type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
}

func TestTailEndsQuietlyWhenNobodyReads(t *testing.T) {
	g := startGateway(t, 1)
	if code, stderr := execute(t, closedPipe{}, "tail", g.address, "--from-start"); code != exitOK || stderr != "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
