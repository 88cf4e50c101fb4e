package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/config"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

func TestConfirmedComesAtOnceOnAnEmptyLog(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for name, request := range map[string]*linksgatev1.SubscribeRequest{
		"default":  {},
		"latest":   {Start: &linksgatev1.Start{Position: &linksgatev1.Start_Latest{Latest: true}}},
		"earliest": {Start: earliest()},
		"since":    {Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: timestamppb.Now()}}},
	} {
		s, got := g.subscribe(t, request)
		want := &linksgatev1.SubscriptionConfirmed{
			LogId: g.LogID, HeartbeatInterval: durationpb.New(10 * time.Second), MaxBatch: 1,
			OnGap: linksgatev1.GapPolicy_GAP_POLICY_FAIL, Lag: &linksgatev1.Lag{Time: new(durationpb.Duration)},
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: Confirmed, - as it should be, + as it is:\n%s", name, diff)
		}
		if frame := s.next(t); frame.GetCaughtUp() == nil || frame.GetCaughtUp().GetHead() != nil {
			t.Errorf("%s: the second frame is %v; want CaughtUp without a head", name, frame)
		}
		s.cancel()
	}
}

func TestConfirmedSaysWhatIsInForce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	g.deliverSMS(t, 1, 3)
	info := g.info(t)
	_, got := g.subscribe(t, &linksgatev1.SubscribeRequest{
		Start: earliest(), HeartbeatInterval: durationpb.New(time.Minute), MaxBatch: 7,
		OnGap: linksgatev1.GapPolicy_GAP_POLICY_CONTINUE,
	})
	want := &linksgatev1.SubscriptionConfirmed{
		LogId: g.LogID, First: info.GetFirst(), Head: info.GetHead(), HeartbeatInterval: durationpb.New(time.Minute), MaxBatch: 7,
		OnGap: linksgatev1.GapPolicy_GAP_POLICY_CONTINUE,
		Lag: &linksgatev1.Lag{RecordBatches: 3, Time: durationpb.New(
			info.GetHead().GetWrittenAt().AsTime().Sub(info.GetFirst().GetWrittenAt().AsTime()))},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("Confirmed, - as it should be, + as it is:\n%s", diff)
	}
}

func TestUntilHeadEndsWithOK(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	for _, count := range []uint64{0, 3} {
		want := g.deliverSMS(t, 1, count)
		s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: earliest(), Until: untilHead()})
		frames, err := s.rest(t)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, ids(inBatches(frames))); diff != "" {
			t.Errorf("- delivered, + streamed:\n%s", diff)
		}
		closing := frames[len(frames)-1].GetClosing()
		if closing.GetReason() != linksgatev1.ClosingReason_CLOSING_REASON_COMPLETED || closing.GetReconnectAfter() != nil {
			t.Errorf("the last frame is %v; want Closing because it is complete", frames[len(frames)-1])
		}
	}
}

func TestUntilTokenIsInclusive(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	want := g.deliverSMS(t, 1, 5)
	token := g.get(t, want[2]).GetToken()
	s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{
		Start: earliest(), Until: &linksgatev1.SubscribeRequest_UntilToken{UntilToken: token}})
	frames, err := s.rest(t)
	if diff := cmp.Diff(want[:3], ids(inBatches(frames))); diff != "" || err != nil {
		t.Errorf("%v; - wanted, + streamed:\n%s", err, diff)
	}
}

func TestLatestSeesOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	g.deliverSMS(t, 1, 3)
	for name, request := range map[string]*linksgatev1.SubscribeRequest{
		"default": {},
		"latest":  {Start: &linksgatev1.Start{Position: &linksgatev1.Start_Latest{Latest: true}}},
		"since":   {Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: timestamppb.New(time.Now().Add(time.Hour))}}},
	} {
		s, _ := g.subscribe(t, request)
		want := g.deliverSMS(t, 10, 2)
		if diff := cmp.Diff(want, ids(s.notifications(t, 2))); diff != "" {
			t.Errorf("%s: - delivered since, + streamed:\n%s", name, diff)
		}
		s.cancel()
	}
}

func TestSinceStartsWithTheFirstWrittenThen(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	var delivered []string
	var written []time.Time
	for n := range uint64(3) {
		delivered = append(delivered, g.deliverSMS(t, n, 1)...)
		written = append(written, g.info(t).GetHead().GetWrittenAt().AsTime())
	}
	for _, tt := range []struct {
		since time.Time
		want  []string
	}{
		{time.Unix(0, 0), delivered},
		{written[0], delivered},
		{written[0].Add(1), delivered[1:]},
		{written[1], delivered[1:]},
		{written[2], delivered[2:]},
		{written[2].Add(1), nil},
	} {
		since := timestamppb.New(tt.since)
		s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{
			Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: since}}, Until: untilHead()})
		frames, err := s.rest(t)
		if diff := cmp.Diff(tt.want, ids(inBatches(frames))); diff != "" || err != nil {
			t.Errorf("Subscribe since %v: %v; - wanted, + streamed:\n%s", tt.since, err, diff)
		}
		listed := g.list(t, &linksgatev1.ListNotificationsRequest{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: since}}})
		if diff := cmp.Diff(tt.want, ids(listed)); diff != "" {
			t.Errorf("ListNotifications since %v: - wanted, + listed:\n%s", tt.since, diff)
		}
	}

	// The time that a live stream tells of the head leads to the head, too.
	live, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{})
	head := live.untilCaughtUp(t)[0].GetCaughtUp().GetHead()
	s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: head.GetWrittenAt()}}, Until: untilHead()})
	frames, err := s.rest(t)
	if diff := cmp.Diff(delivered[2:], ids(inBatches(frames))); diff != "" || err != nil {
		t.Errorf("since the head of CaughtUp: %v; - wanted, + streamed:\n%s", err, diff)
	}
}

// deliverMixed sends notifications of two accounts, three kinds and several SIMs, and returns what the log holds of them.
func deliverMixed(t *testing.T, g *gateway) []*linksgatev1.Notification {
	t.Helper()
	another := simulator.Sender{MD5: signature.Secret{Value: otherSecret}}
	var all []*linksgatev1.Notification
	for n := range uint64(6) {
		for _, one := range []struct {
			account string
			sender  simulator.Sender
			kind    linksgatev1.NotificationKind
		}{
			{"acme", linksfield, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED},
			{"acme", linksfield, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE},
			{"acme", linksfield, linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING},
			{"other", another, linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED},
		} {
			made, err := one.sender.Make(one.kind, n)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, g.get(t, g.deliver(t, "/linksfield/"+one.account+"/"+payload.KindName(one.kind), made)))
		}
	}
	return all
}

// filters are of each type and of several together, with what they pass, in words of their own.
var filters = map[string]struct {
	filter *linksgatev1.NotificationFilter
	pass   func(*linksgatev1.Notification) bool
}{
	"nothing asked": {&linksgatev1.NotificationFilter{}, func(*linksgatev1.Notification) bool { return true }},
	"account": {&linksgatev1.NotificationFilter{Accounts: []string{"other", "nobody"}},
		func(n *linksgatev1.Notification) bool { return n.GetAccount() == "other" }},
	"kinds": {&linksgatev1.NotificationFilter{Kinds: []linksgatev1.NotificationKind{linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING}},
		func(n *linksgatev1.Notification) bool {
			return n.GetKind() != linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED
		}},
	"ICCIDs": {&linksgatev1.NotificationFilter{Iccids: []string{simulator.ICCID(2), simulator.ICCID(4)}},
		func(n *linksgatev1.Notification) bool {
			return slices.Contains(n.GetIccids(), simulator.ICCID(2)) || slices.Contains(n.GetIccids(), simulator.ICCID(4))
		}},
	"partner code": {&linksgatev1.NotificationFilter{PartnerCodes: []string{"P123456"}},
		func(n *linksgatev1.Notification) bool { return n.GetPartnerCode() == "P123456" }},
	"all together": {
		&linksgatev1.NotificationFilter{
			Accounts: []string{"acme"}, Kinds: []linksgatev1.NotificationKind{linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED},
			Iccids: []string{simulator.ICCID(1), simulator.ICCID(2)}, PartnerCodes: []string{"P123456"},
		},
		func(n *linksgatev1.Notification) bool {
			return n.GetAccount() == "acme" && n.GetSmsReceived() != nil && n.GetPartnerCode() == "P123456" &&
				slices.Contains(n.GetIccids(), simulator.ICCID(1))
		}},
}

func TestFiltersLiveAndInReplay(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	live := make(map[string]*stream)
	for name, tt := range filters {
		live[name], _ = g.subscribe(t, &linksgatev1.SubscribeRequest{Filter: tt.filter, MaxBatch: 512})
		live[name].untilCaughtUp(t)
	}
	// Twice, so that what should not come would come before the last of what should.
	all := append(deliverMixed(t, g), deliverMixed(t, g)...)
	for name, tt := range filters {
		t.Run(name, func(t *testing.T) {
			want := slices.DeleteFunc(slices.Clone(all), func(n *linksgatev1.Notification) bool { return !tt.pass(n) })
			if len(want) == 0 || len(want) == len(all) && name != "nothing asked" {
				t.Fatalf("%d of %d notifications pass: nothing is tested", len(want), len(all))
			}
			if diff := cmp.Diff(want, live[name].notifications(t, len(want)), protocmp.Transform()); diff != "" {
				t.Errorf("live, - wanted, + streamed:\n%s", diff)
			}
			replay, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Filter: tt.filter, Start: earliest(), Until: untilHead()})
			frames, err := replay.rest(t)
			if diff := cmp.Diff(want, inBatches(frames), protocmp.Transform()); diff != "" || err != nil {
				t.Errorf("in replay, %v, - wanted, + streamed:\n%s", err, diff)
			}
			listed := g.list(t, &linksgatev1.ListNotificationsRequest{Filter: tt.filter, PageSize: 2})
			if diff := cmp.Diff(want, listed, protocmp.Transform()); diff != "" {
				t.Errorf("- wanted, + listed:\n%s", diff)
			}
		})
	}
}

// TestHeartbeatsComeByTheWallClock subscribes to nothing while notifications for others arrive all the time.
func TestHeartbeatsComeByTheWallClock(t *testing.T) {
	t.Parallel()
	const interval = time.Second
	g := startGateway(t, testConfig(t))
	s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{
		Filter: &linksgatev1.NotificationFilter{Iccids: []string{"of nobody"}}, HeartbeatInterval: durationpb.New(interval)})
	s.untilCaughtUp(t)
	last := time.Now()

	enough, traffic, ended := make(chan struct{}), make(chan simulator.Notification), make(chan struct{})
	go func() {
		defer close(ended)
		g.deliverAtOnce(t, 2, smsPath, traffic)
	}()
	sms := makeSMS(t, 1)
	go func() {
		defer close(traffic)
		for {
			select {
			case <-enough:
				return
			case traffic <- sms:
			}
		}
	}()
	defer func() { close(enough); <-ended }()

	var previous *linksgatev1.SubscribeResponse
	for range 3 {
		frame := s.next(t)
		beat := frame.GetHeartbeat()
		if beat == nil {
			t.Fatalf("%v; want a heartbeat", frame)
		}
		const slack = 500 * time.Millisecond // of a busy machine
		if silence := time.Since(last); silence > interval+slack {
			t.Errorf("silence for %v; the interval is %v", silence, interval)
		}
		last = time.Now()
		if at := beat.GetNow().AsTime(); last.Sub(at).Abs() > slack {
			t.Errorf("the gateway's clock says %v at %v", at, last)
		}
		if beat.GetHead().GetSequence() <= previous.GetHeartbeat().GetHead().GetSequence() || frame.GetToken() == previous.GetToken() {
			t.Errorf("the heartbeat %v tells of no progress since %v", frame, previous)
		}
		if beat.GetLag() == nil {
			t.Error("a heartbeat has no lag")
		}
		previous = frame
	}
}

func TestHeartbeatsOnASilentLog(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{HeartbeatInterval: durationpb.New(time.Second)})
	s.untilCaughtUp(t)
	if frame := s.next(t); frame.GetHeartbeat() == nil || frame.GetHeartbeat().GetHead() != nil {
		t.Errorf("%v; want a heartbeat without a head", frame)
	}
}

// TestSlowReaderFallsBehindAndLosesNothing stops reading while more arrives than the gateway keeps in memory.
func TestSlowReaderFallsBehindAndLosesNothing(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	narrow := linksgatev1.NewNotificationServiceClient(dial(t, g.GRPC, narrowWindow()...))
	s, _ := subscribeOn(t, narrow, &linksgatev1.SubscribeRequest{MaxBatch: 512})
	s.untilCaughtUp(t)
	g.deliverLarge(t, beyondWindow)
	last := g.deliverSMS(t, 1, 1)[0]

	frames := s.untilCaughtUp(t)
	fell := slices.IndexFunc(frames, func(frame *linksgatev1.SubscribeResponse) bool { return frame.GetFellBehind() != nil })
	if fell < 0 || frames[fell].GetFellBehind().GetLag().GetRecordBatches() == 0 {
		t.Errorf("no frame says that the reader fell behind, and how far")
	}
	got := ids(inBatches(frames))
	want := ids(g.list(t, &linksgatev1.ListNotificationsRequest{PageSize: 1000}))
	if diff := cmp.Diff(want, got); diff != "" || len(got) != beyondWindow+1 || got[beyondWindow] != last {
		t.Errorf("- in the log, + streamed:\n%s", diff)
	}
	// It is live again.
	if more := g.deliverSMS(t, 2, 1); more[0] != s.notifications(t, 1)[0].GetId() {
		t.Error("what was delivered next did not come next")
	}
}

// TestBatchesAreWhatTheLogHolds compares frames that are put together by hand with messages that are not.
func TestBatchesAreWhatTheLogHolds(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Log.Fsync = nil // a slower log gathers more into one batch
	g := startGateway(t, cfg)
	const count = 400
	notifications := make(chan simulator.Notification, count)
	for n := range uint64(count) {
		notifications <- makeSMS(t, n)
	}
	close(notifications)
	g.deliverAtOnce(t, 32, smsPath, notifications)
	want := g.list(t, &linksgatev1.ListNotificationsRequest{PageSize: 1000})
	if len(want) != count {
		t.Fatalf("the log holds %d notifications; want %d", len(want), count)
	}

	for _, most := range []int32{0, 1, 2, 3, 512} {
		s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: earliest(), Until: untilHead(), MaxBatch: most})
		frames, err := s.rest(t)
		if err != nil {
			t.Fatal(err)
		}
		largest := 0
		for _, frame := range frames {
			batch := frame.GetBatch().GetNotifications()
			largest = max(largest, len(batch))
			if len(batch) > 0 && frame.GetToken() != batch[len(batch)-1].GetToken() {
				t.Errorf("a frame has the token %s; its last notification has %s", frame.GetToken(), batch[len(batch)-1].GetToken())
			}
		}
		if limit := max(1, int(most)); largest > limit || largest < min(limit, 2) {
			t.Errorf("max_batch %d: the largest batch has %d", most, largest)
		}
		if diff := cmp.Diff(want, inBatches(frames), protocmp.Transform()); diff != "" {
			t.Errorf("max_batch %d: - listed, + streamed:\n%s", most, diff)
		}
	}

	for _, size := range []int32{1, 7, 399, 400} {
		if diff := cmp.Diff(want, g.list(t, &linksgatev1.ListNotificationsRequest{PageSize: size}), protocmp.Transform()); diff != "" {
			t.Errorf("- one page, + pages of %d:\n%s", size, diff)
		}
	}
	for i, n := range want {
		page, err := g.client.ListNotifications(t.Context(), &linksgatev1.ListNotificationsRequest{
			Start: &linksgatev1.Start{Position: &linksgatev1.Start_After{After: n.GetToken()}}, PageSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[i+1:min(i+2, count)], page.GetNotifications(), protocmp.Transform()); diff != "" && i+1 < count {
			t.Errorf("after the token of %d: - wanted, + listed:\n%s", i, diff)
		}
	}
}

func TestTokensAreExclusiveAndSurviveARestart(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	g := startGateway(t, cfg)
	want := g.deliverSMS(t, 1, 4)
	token := g.get(t, want[1]).GetToken()
	read := func(g *gateway) []string {
		s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: after(token), Until: untilHead()})
		frames, err := s.rest(t)
		if err != nil {
			t.Fatal(err)
		}
		return ids(inBatches(frames))
	}
	if diff := cmp.Diff(want[2:], read(g)); diff != "" {
		t.Errorf("- wanted, + streamed:\n%s", diff)
	}
	g.stop(t)
	if diff := cmp.Diff(want[2:], read(startGateway(t, cfg))); diff != "" {
		t.Errorf("after a restart, - wanted, + streamed:\n%s", diff)
	}
}

// TestEveryFramesTokenResumes cuts a stream after each frame in turn.
func TestEveryFramesTokenResumes(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	want := g.deliverSMS(t, 1, 4)
	filter := &linksgatev1.NotificationFilter{Iccids: []string{simulator.ICCID(2), simulator.ICCID(4)}}
	want = []string{want[1], want[3]}
	for cut := 1; ; cut++ {
		s := openStream(t, g.client, &linksgatev1.SubscribeRequest{Start: earliest(), Until: untilHead(), Filter: filter})
		var frames []*linksgatev1.SubscribeResponse
		ended := false
		for range cut {
			frame, err := s.take(t)
			if ended = err != nil; ended {
				break
			}
			frames = append(frames, frame)
		}
		s.cancel()
		if ended {
			break
		}
		again, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: after(s.last), Until: untilHead(), Filter: filter})
		more, err := again.rest(t)
		if got := append(ids(inBatches(frames)), ids(inBatches(more))...); err != nil || !slices.Equal(got, want) {
			t.Errorf("cut after %d frames: %v, %v; want %v", cut, got, err, want)
		}
	}
}

func TestMaxStreamAgeEndsWithOK(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.GRPC.MaxStreamAge = config.Duration(200 * time.Millisecond)
	g := startGateway(t, cfg)
	delivered := g.deliverSMS(t, 1, 2)
	s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: earliest()})
	frames, err := s.rest(t)
	if err != nil {
		t.Fatal(err)
	}
	closing := frames[len(frames)-1].GetClosing()
	if closing.GetReason() != linksgatev1.ClosingReason_CLOSING_REASON_MAX_AGE || closing.GetReconnectAfter().AsDuration() <= 0 {
		t.Errorf("the last frame is %v; want Closing because of its age", frames[len(frames)-1])
	}
	if diff := cmp.Diff(delivered, ids(inBatches(frames))); diff != "" {
		t.Errorf("- delivered, + streamed:\n%s", diff)
	}
	if strings.Contains(g.logs.String(), "a call failed") {
		t.Error("a planned ending was logged as a failure")
	}
}
