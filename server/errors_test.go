package server_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/config"
)

// detail returns the detail of a type that an error carries, or its zero value.
func detail[T any](err error) T {
	var none T
	for _, one := range status.Convert(err).Details() {
		if found, ok := one.(T); ok {
			return found
		}
	}
	return none
}

// checkError requires a code and an ErrorInfo with a reason, and returns that.
func checkError(t *testing.T, what string, err error, code codes.Code, reason string) *errdetails.ErrorInfo {
	t.Helper()
	info := detail[*errdetails.ErrorInfo](err)
	if status.Code(err) != code || info.GetReason() != reason || info.GetDomain() != "linksgate" {
		t.Errorf("%s: %v with %v; want %v for the reason %s of linksgate", what, err, info, code, reason)
	}
	return info
}

// checkRetry requires that an error says when to come back.
func checkRetry(t *testing.T, what string, err error) {
	t.Helper()
	if retry := detail[*errdetails.RetryInfo](err); retry.GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("%s: %v has no RetryInfo", what, err)
	}
}

func (g *gateway) subscribeError(t *testing.T, request *linksgatev1.SubscribeRequest) error {
	t.Helper()
	s := openStream(t, g.client, request)
	defer s.cancel()
	frames, err := s.rest(t)
	if err == nil {
		t.Errorf("the subscription %v ended with OK after %v", request, frames)
	}
	return err
}

func (g *gateway) listError(t *testing.T, request *linksgatev1.ListNotificationsRequest) error {
	t.Helper()
	page, err := g.client.ListNotifications(t.Context(), request)
	if err == nil {
		t.Errorf("the listing %v gave %d notifications", request, len(page.GetNotifications()))
	}
	return err
}

func (g *gateway) getError(t *testing.T, id string) error {
	t.Helper()
	response, err := g.client.GetNotification(t.Context(), &linksgatev1.GetNotificationRequest{Id: id})
	if err == nil {
		t.Errorf("the id %s gave %v", id, response)
	}
	return err
}

// manyTexts returns different texts.
func manyTexts(count int) []string {
	var texts []string
	for n := range count {
		texts = append(texts, fmt.Sprintf("%064d", n))
	}
	return texts
}

func TestRequestsOutOfBoundsAreInvalid(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	g.deliverSMS(t, 1, 1)
	token := g.info(t).GetHead().GetToken()
	damaged := "B" + token[1:]
	if damaged == token {
		damaged = "C" + token[1:]
	}

	for field, filters := range map[string][]*linksgatev1.NotificationFilter{
		"filter.accounts":      {{Accounts: manyTexts(101)}, {Accounts: []string{"acme", ""}}, {Accounts: []string{strings.Repeat("a", 65)}}},
		"filter.kinds":         {{Kinds: []linksgatev1.NotificationKind{linksgatev1.NotificationKind_NOTIFICATION_KIND_UNSPECIFIED}}, {Kinds: []linksgatev1.NotificationKind{99}}, {Kinds: slices.Repeat([]linksgatev1.NotificationKind{1}, 100)}},
		"filter.iccids":        {{Iccids: manyTexts(1001)}, {Iccids: []string{""}}, {Iccids: []string{strings.Repeat("8", 65)}}},
		"filter.partner_codes": {{PartnerCodes: manyTexts(101)}, {PartnerCodes: []string{""}}, {PartnerCodes: []string{strings.Repeat("p", 257)}}},
	} {
		for _, filter := range filters {
			checkInvalid(t, "Subscribe", field, g.subscribeError(t, &linksgatev1.SubscribeRequest{Filter: filter}))
			checkInvalid(t, "ListNotifications", field, g.listError(t, &linksgatev1.ListNotificationsRequest{Filter: filter}))
		}
	}
	for field, requests := range map[string][]*linksgatev1.SubscribeRequest{
		"start.latest":   {{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Latest{}}}},
		"start.earliest": {{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{}}}},
		"start.after": {
			{Start: after("")}, {Start: after("token")}, {Start: after(damaged)}, {Start: after(token + "A")}, {Start: after(" " + token)},
			{Start: after(strings.ToUpper(token))},
		},
		"start.since": {
			{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: &timestamppb.Timestamp{Nanos: -1}}}},
			{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: &timestamppb.Timestamp{Seconds: 1 << 40}}}},
		},
		"until_head":  {{Until: &linksgatev1.SubscribeRequest_UntilHead{}}},
		"until_token": {{Until: &linksgatev1.SubscribeRequest_UntilToken{UntilToken: damaged}}},
		"heartbeat_interval": {
			{HeartbeatInterval: durationpb.New(0)},
			{HeartbeatInterval: durationpb.New(-time.Second)},
			{HeartbeatInterval: durationpb.New(time.Second - 1)},
			{HeartbeatInterval: durationpb.New(10*time.Minute + 1)},
			{HeartbeatInterval: &durationpb.Duration{Seconds: 1, Nanos: -1}},
			{HeartbeatInterval: &durationpb.Duration{Seconds: 1 << 60}},
		},
		"max_batch":   {{MaxBatch: -1}, {MaxBatch: 513}, {MaxBatch: 1<<31 - 1}},
		"on_gap":      {{OnGap: 3}, {OnGap: -1}},
		"client_name": {{ClientName: strings.Repeat("x", 101)}, {ClientName: "two\nlines"}, {ClientName: "é"}},
	} {
		for _, request := range requests {
			checkInvalid(t, "Subscribe", field, g.subscribeError(t, request))
		}
	}
	for field, requests := range map[string][]*linksgatev1.ListNotificationsRequest{
		"start.earliest": {{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{}}}},
		"start.after":    {{Start: &linksgatev1.Start{Position: &linksgatev1.Start_After{After: damaged}}}},
		"start.since":    {{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: &timestamppb.Timestamp{Nanos: -1}}}}},
		"page_size":      {{PageSize: -1}},
		"page_token":     {{PageToken: damaged}, {PageToken: "2"}},
	} {
		for _, request := range requests {
			checkInvalid(t, "ListNotifications", field, g.listError(t, request))
		}
	}
	for _, id := range []string{"", "1", g.LogID, g.LogID + "-", g.LogID + "-0", g.LogID + "-04096", g.LogID + "-4096-1", "nolog-4096"} {
		checkInvalid(t, "GetNotification", "id", g.getError(t, id))
	}
}

// checkInvalid requires that a call was refused for one field of its request.
func checkInvalid(t *testing.T, call, field string, err error) {
	t.Helper()
	checkError(t, call+" with a bad "+field, err, codes.InvalidArgument, "INVALID_ARGUMENT")
	violations := detail[*errdetails.BadRequest](err).GetFieldViolations()
	if len(violations) != 1 || violations[0].GetField() != field || violations[0].GetDescription() == "" {
		t.Errorf("%s with a bad %s: the violations are %v", call, field, violations)
	}
}

func TestBoundsThemselvesAreValid(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for _, request := range []*linksgatev1.SubscribeRequest{
		{HeartbeatInterval: durationpb.New(time.Second)},
		{HeartbeatInterval: durationpb.New(10 * time.Minute)},
		{MaxBatch: 512, ClientName: strings.Repeat("~", 100), OnGap: linksgatev1.GapPolicy_GAP_POLICY_FAIL},
		{Filter: &linksgatev1.NotificationFilter{Accounts: manyTexts(100), Iccids: manyTexts(1000), PartnerCodes: manyTexts(100)}},
		{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: timestamppb.New(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC))}}},
		{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: timestamppb.New(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))}}},
	} {
		s, _ := g.subscribe(t, request)
		s.cancel()
	}
	if _, err := g.client.ListNotifications(t.Context(), &linksgatev1.ListNotificationsRequest{PageSize: 1<<31 - 1}); err != nil {
		t.Error(err)
	}
}

func TestTokensAndIdsOfAnotherLog(t *testing.T) {
	t.Parallel()
	g, another := startGateway(t, testConfig(t)), startGateway(t, testConfig(t))
	id := another.deliverSMS(t, 1, 1)[0]
	token := another.info(t).GetHead().GetToken()
	for call, err := range map[string]error{
		"after": g.subscribeError(t, &linksgatev1.SubscribeRequest{Start: after(token)}),
		"until_token": g.subscribeError(t, &linksgatev1.SubscribeRequest{
			Until: &linksgatev1.SubscribeRequest_UntilToken{UntilToken: token}}),
		"page_token": g.listError(t, &linksgatev1.ListNotificationsRequest{PageToken: token}),
		"id":         g.getError(t, id),
	} {
		checkError(t, call, err, codes.FailedPrecondition, "OTHER_LOG")
	}
}

func TestIdsOfNothingAreNotFound(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	stored := g.deliverSMS(t, 1, 1)[0] // the only one of the first record batch: 4096
	for _, sequence := range []string{"4097", "8192", "18446744073709551615"} {
		id := strings.TrimSuffix(stored, "4096") + sequence
		checkError(t, id, g.getError(t, id), codes.NotFound, "NOT_FOUND")
	}
}

func TestExpiredPositionsAreToldNotSkipped(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Log.MaxBytes = 16 << 20
	g := startGateway(t, cfg)
	oldest := g.deliverSMS(t, 1, 1)[0]
	expired := g.get(t, oldest).GetToken()
	g.deliverLarge(t, beyondWindow) // and beyond what the log retains
	first := g.info(t).GetFirst()

	s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: after(expired)})
	_, failed := s.rest(t)
	for call, err := range map[string]error{
		"Subscribe":         failed,
		"ListNotifications": g.listError(t, &linksgatev1.ListNotificationsRequest{PageToken: expired}),
	} {
		info := checkError(t, call, err, codes.OutOfRange, "EXPIRED")
		if available := info.GetMetadata()["first_available_token"]; available != first.GetToken() {
			t.Errorf("%s: the first available token is %q; want %q", call, available, first.GetToken())
		}
	}
	checkError(t, "GetNotification", g.getError(t, oldest), codes.OutOfRange, "EXPIRED")

	s, _ = g.subscribe(t, &linksgatev1.SubscribeRequest{Start: after(first.GetToken())})
	if n := s.notifications(t, 1)[0]; n.GetSequence() != first.GetSequence() {
		t.Errorf("after the first available token comes %d; want %d", n.GetSequence(), first.GetSequence())
	}
	s.cancel()

	s, confirmed := g.subscribe(t, &linksgatev1.SubscribeRequest{
		Start: after(expired), Until: untilHead(), OnGap: linksgatev1.GapPolicy_GAP_POLICY_CONTINUE,
	})
	if confirmed.GetOnGap() != linksgatev1.GapPolicy_GAP_POLICY_CONTINUE {
		t.Errorf("the gap policy in force is %v", confirmed.GetOnGap())
	}
	frame := s.next(t)
	if gap := frame.GetGap(); gap.GetReason() != linksgatev1.GapReason_GAP_REASON_EXPIRED || gap.GetRecordBatches() == 0 ||
		frame.GetToken() != first.GetToken() {
		t.Errorf("the gap is told as %v; want it expired, up to %s", frame, first.GetToken())
	}
	frames, err := s.rest(t)
	if got := inBatches(frames); err != nil || len(got) == 0 || got[0].GetSequence() != first.GetSequence() {
		t.Errorf("after the gap come %d notifications, %v; want the first retained one first", len(got), err)
	}
}

func TestTokensAheadOfTheHeadAreDataLoss(t *testing.T) {
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
	g.stop(t)

	restored := startGateway(t, copied)
	checkError(t, "Subscribe", restored.subscribeError(t, &linksgatev1.SubscribeRequest{Start: after(token)}), codes.DataLoss, "AHEAD_OF_HEAD")
	checkError(t, "ListNotifications", restored.listError(t, &linksgatev1.ListNotificationsRequest{PageToken: token}), codes.DataLoss, "AHEAD_OF_HEAD")
	checkError(t, "an end", restored.subscribeError(t, &linksgatev1.SubscribeRequest{
		Start: earliest(), Until: &linksgatev1.SubscribeRequest_UntilToken{UntilToken: token}}), codes.DataLoss, "AHEAD_OF_HEAD")
}

func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.GRPC.MaxStreams = 1
	g := startGateway(t, cfg)
	s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{})
	err := g.subscribeError(t, &linksgatev1.SubscribeRequest{})
	checkError(t, "one more", err, codes.ResourceExhausted, "TOO_MANY_STREAMS")
	checkRetry(t, "one more", err)
	if quota := detail[*errdetails.QuotaFailure](err).GetViolations(); len(quota) != 1 {
		t.Errorf("the quota failure is %v", quota)
	}
	s.cancel()
	eventually(t, "a place is free again", func() bool {
		another := openStream(t, g.client, &linksgatev1.SubscribeRequest{})
		defer another.cancel()
		_, err := another.Recv()
		return err == nil
	})
}

func TestClientsThatDoNotReadAreAborted(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.GRPC.SendTimeout = config.Duration(500 * time.Millisecond)
	g := startGateway(t, cfg)
	g.deliverLarge(t, 10)
	want := ids(g.list(t, &linksgatev1.ListNotificationsRequest{}))

	narrow := linksgatev1.NewNotificationServiceClient(dial(t, g.GRPC, narrowWindow()...))
	s, _ := subscribeOn(t, narrow, &linksgatev1.SubscribeRequest{Start: earliest()})
	eventually(t, "the gateway gives the client up", func() bool {
		_, text := g.admin(t, "/metrics")
		return strings.Contains(text, `linksgate_rpc_calls_total{code="Aborted"`)
	})
	frames, err := s.rest(t)
	info := checkError(t, "not reading", err, codes.Aborted, "CLIENT_NOT_READING")
	if last := info.GetMetadata()["last_token"]; last != s.last {
		t.Errorf("the last token is %s; the last frame that arrived has %s", last, s.last)
	}

	again, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: after(s.last), Until: untilHead()})
	more, err := again.rest(t)
	if got := append(ids(inBatches(frames)), ids(inBatches(more))...); err != nil || !slices.Equal(got, want) {
		t.Errorf("both streams gave %d notifications of %d, %v", len(got), len(want), err)
	}
}

func TestDrainingEndsStreamsWithUnavailable(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	g := startGateway(t, cfg)
	idle, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{})
	idle.untilCaughtUp(t)
	reading, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: earliest()})
	delivered := g.deliverSMS(t, 1, 3)
	g.stop(t)
	for name, s := range map[string]*stream{"idle": idle, "reading": reading} {
		frames, err := s.rest(t)
		checkError(t, name, err, codes.Unavailable, "DRAINING")
		checkRetry(t, name, err)
		if len(frames) == 0 {
			t.Errorf("%s: no frame before the end", name)
			continue
		}
		closing := frames[len(frames)-1].GetClosing()
		if closing.GetReason() != linksgatev1.ClosingReason_CLOSING_REASON_DRAINING || closing.GetReconnectAfter().AsDuration() <= 0 {
			t.Errorf("%s: the last frame is %v; want Closing because of draining", name, frames[len(frames)-1])
		}
		// The token leads to everything that was not sent.
		got := ids(inBatches(frames))
		again := startGateway(t, cfg)
		rest, _ := again.subscribe(t, &linksgatev1.SubscribeRequest{Start: after(s.last), Until: untilHead()})
		more, err := rest.rest(t)
		if got = append(got, ids(inBatches(more))...); err != nil || !slices.Equal(got, delivered) {
			t.Errorf("%s: both streams gave %v, %v; want %v", name, got, err, delivered)
		}
		again.stop(t)
	}
}

func TestErrorsOfTheCallersContext(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{})
	s.cancel()
	for {
		if _, err := s.Recv(); errors.Is(err, io.EOF) {
			t.Fatal("a cancelled stream ended with OK")
		} else if err != nil {
			if status.Code(err) != codes.Canceled {
				t.Errorf("%v; want CANCELLED", err)
			}
			break
		}
	}
	eventually(t, "the gateway has seen it", func() bool {
		_, text := g.admin(t, "/metrics")
		return strings.Contains(text, "linksgate_rpc_subscriptions 0")
	})
	if strings.Contains(g.logs.String(), "a call failed") {
		t.Errorf("a client that goes away was logged as a failure: %s", g.logs.String())
	}
}
