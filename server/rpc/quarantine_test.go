package rpc

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/eventlog/eventlogtest"
)

// quarantineFixture is a log behind a server on a socket.
type quarantineFixture struct {
	log           *eventlog.Log
	conn          *grpc.ClientConn
	client        linksgatev1.QuarantineServiceClient
	notifications linksgatev1.NotificationServiceClient
}

// serveQuarantine serves an empty log. An entry verifies if its detail says "good", and has its partner code for a duplicate key.
func serveQuarantine(t *testing.T, reverify Reverify) *quarantineFixture {
	t.Helper()
	log := eventlogtest.Open(t, eventlog.Options{})
	server := New(Options{Log: log, Reverify: reverify})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Shutdown(t.Context())
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &quarantineFixture{log, conn, linksgatev1.NewQuarantineServiceClient(conn), linksgatev1.NewNotificationServiceClient(conn)}
}

// byDetail verifies what says that it is good.
func byDetail(e *linksgatev1.QuarantineEntry, force bool) (*linksgatev1.Notification, error) {
	verification := &linksgatev1.Verification{Status: linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED, SecretName: "today"}
	switch {
	case e.GetDetail() == "good":
	case force:
		verification = &linksgatev1.Verification{Status: linksgatev1.VerificationStatus_VERIFICATION_STATUS_FORCED}
	default:
		return nil, errors.New("still wrong")
	}
	return &linksgatev1.Notification{
		Account: e.GetAccount(), Kind: e.GetKind(), ReceivedAt: e.GetReceivedAt(), Verification: verification, QuarantineId: e.GetId(),
		DuplicateKey: []byte(e.GetSourceAddress()), Raw: &linksgatev1.Notification_Body{Body: e.GetBody()},
	}, nil
}

var start = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

// quarantined is an entry received so many seconds after start.
func quarantined(n int) *linksgatev1.QuarantineEntry {
	return &linksgatev1.QuarantineEntry{
		ReceivedAt: timestamppb.New(start.Add(time.Duration(n) * time.Second)), Account: fmt.Sprintf("account-%d", n%3),
		Kind: linksgatev1.NotificationKind(n%8 + 1), Reason: linksgatev1.QuarantineReason(n%5 + 1), Detail: "good",
		Raw: &linksgatev1.QuarantineEntry_Body{Body: fmt.Sprintf(`{"n":%d}`, n)},
	}
}

// add puts entries into quarantine and returns them with their ids.
func (f *quarantineFixture) add(t *testing.T, entries ...*linksgatev1.QuarantineEntry) []*linksgatev1.QuarantineEntry {
	t.Helper()
	for _, e := range entries {
		if err := f.log.Quarantine().Add(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	all, _ := f.list(t, new(linksgatev1.ListQuarantineEntriesRequest))
	return all[len(all)-len(entries):]
}

// list returns everything that a request selects, and the sizes of its pages.
func (f *quarantineFixture) list(t *testing.T, request *linksgatev1.ListQuarantineEntriesRequest) (all []*linksgatev1.QuarantineEntry, pages []int) {
	t.Helper()
	for {
		page, err := f.client.ListQuarantineEntries(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		all, pages = append(all, page.GetEntries()...), append(pages, len(page.GetEntries()))
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return all, pages
		}
	}
}

func (f *quarantineFixture) release(t *testing.T, id string) *linksgatev1.ReleaseQuarantineEntryResponse {
	t.Helper()
	response, err := f.client.ReleaseQuarantineEntry(t.Context(), &linksgatev1.ReleaseQuarantineEntryRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// checkCode requires a code and its reason.
func checkCode(t *testing.T, what string, err error, code codes.Code, reason string) {
	t.Helper()
	st := status.Convert(err)
	got := ""
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == ErrorDomain {
			got = info.GetReason()
		}
	}
	if st.Code() != code || got != reason {
		t.Errorf("%s: %v with the reason %q; want %v with %q", what, st, got, code, reason)
	}
}

func TestQuarantinePages(t *testing.T) {
	f := serveQuarantine(t, byDetail)
	var entries []*linksgatev1.QuarantineEntry
	const count = 130
	for n := range count {
		entries = append(entries, quarantined(n))
	}
	added := f.add(t, entries...)
	for size, want := range map[int32][]int{0: {100, 30}, 1: slices.Repeat([]int{1}, count), 64: {64, 64, 2}, 65: {65, 65}, 130: {130}, 5000: {130}} {
		got, pages := f.list(t, &linksgatev1.ListQuarantineEntriesRequest{PageSize: size})
		if diff := cmp.Diff(want, pages); diff != "" {
			t.Errorf("pages of %d:\n%s", size, diff)
		}
		if diff := cmp.Diff(added, got, protocmp.Transform()); diff != "" {
			t.Errorf("pages of %d:\n%s", size, diff)
		}
	}
	for n, e := range added {
		want := quarantined(n)
		want.Id = e.GetId()
		if diff := cmp.Diff(want, e, protocmp.Transform()); diff != "" {
			t.Errorf("entry %d:\n%s", n, diff)
		}
	}
}

func TestQuarantinePagesEndEarlyAtTheirSize(t *testing.T) {
	f := serveQuarantine(t, byDetail)
	for n := range 12 {
		e := quarantined(n)
		e.Raw = &linksgatev1.QuarantineEntry_Body{Body: strings.Repeat("x", 500<<10)}
		if err := f.log.Quarantine().Add(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if all, pages := f.list(t, new(linksgatev1.ListQuarantineEntriesRequest)); len(all) != 12 || pages[0] != 4 {
		t.Errorf("%d entries in pages of %v", len(all), pages)
	}
}

func TestQuarantineFilters(t *testing.T) {
	f := serveQuarantine(t, byDetail)
	var entries []*linksgatev1.QuarantineEntry
	for n := range 60 {
		entries = append(entries, quarantined(n))
	}
	all := f.add(t, entries...)
	since := timestamppb.New(start.Add(30 * time.Second))
	for name, tt := range map[string]struct {
		request *linksgatev1.ListQuarantineEntriesRequest
		pass    func(*linksgatev1.QuarantineEntry) bool
	}{
		"reasons": {&linksgatev1.ListQuarantineEntriesRequest{Reasons: []linksgatev1.QuarantineReason{1, 4}},
			func(e *linksgatev1.QuarantineEntry) bool { return e.GetReason() == 1 || e.GetReason() == 4 }},
		"account": {&linksgatev1.ListQuarantineEntriesRequest{Accounts: []string{"account-2"}},
			func(e *linksgatev1.QuarantineEntry) bool { return e.GetAccount() == "account-2" }},
		"kind": {&linksgatev1.ListQuarantineEntriesRequest{Kinds: []linksgatev1.NotificationKind{linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE}},
			func(e *linksgatev1.QuarantineEntry) bool {
				return e.GetKind() == linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE
			}},
		"since": {&linksgatev1.ListQuarantineEntriesRequest{Since: since},
			func(e *linksgatev1.QuarantineEntry) bool { return !e.GetReceivedAt().AsTime().Before(since.AsTime()) }},
		"all of them": {&linksgatev1.ListQuarantineEntriesRequest{Since: since, Accounts: []string{"account-0"}, Reasons: []linksgatev1.QuarantineReason{2}},
			func(e *linksgatev1.QuarantineEntry) bool {
				return e.GetReason() == 2 && e.GetAccount() == "account-0" && !e.GetReceivedAt().AsTime().Before(since.AsTime())
			}},
		"nothing": {&linksgatev1.ListQuarantineEntriesRequest{Accounts: []string{"nobody"}},
			func(*linksgatev1.QuarantineEntry) bool { return false }},
	} {
		for _, size := range []int32{0, 1, 7} {
			var want []*linksgatev1.QuarantineEntry
			for _, e := range all {
				if tt.pass(e) {
					want = append(want, e)
				}
			}
			tt.request.PageSize = size
			got, _ := f.list(t, tt.request)
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("%s, pages of %d:\n%s", name, size, diff)
			}
		}
	}
}

func TestReleaseOutcomes(t *testing.T) {
	f := serveQuarantine(t, byDetail)
	bad, copied := quarantined(1), quarantined(2)
	bad.Detail, copied.SourceAddress = "bad", "key"
	entries := f.add(t, quarantined(0), bad, copied, quarantined(3))
	accepted, err := byDetail(copied, false)
	if err != nil {
		t.Fatal(err)
	}
	position, err := f.log.Append(t.Context(), accepted)
	if err != nil {
		t.Fatal(err)
	}

	dry, err := f.client.ReleaseQuarantineEntry(t.Context(), &linksgatev1.ReleaseQuarantineEntryRequest{Id: entries[0].GetId(), DryRun: true})
	if err != nil || dry.GetOutcome() != linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_RELEASED || dry.GetNotificationId() != "" {
		t.Errorf("dry run: %v %v", dry, err)
	}
	if all, _ := f.list(t, new(linksgatev1.ListQuarantineEntriesRequest)); len(all) != len(entries) {
		t.Errorf("a dry run left %d entries", len(all))
	}

	good := f.release(t, entries[0].GetId())
	if good.GetOutcome() != linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_RELEASED || good.GetVerification().GetSecretName() != "today" {
		t.Errorf("%v", good)
	}
	n, err := f.notifications.GetNotification(t.Context(), &linksgatev1.GetNotificationRequest{Id: good.GetNotificationId()})
	if err != nil || n.GetNotification().GetQuarantineId() != entries[0].GetId() || n.GetNotification().GetBody() != entries[0].GetBody() {
		t.Errorf("%v %v", n, err)
	}
	refused := f.release(t, entries[1].GetId())
	if refused.GetOutcome() != linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_REFUSED || refused.GetDetail() != "still wrong" || refused.GetNotificationId() != "" {
		t.Errorf("%v", refused)
	}
	duplicate := f.release(t, entries[2].GetId())
	if duplicate.GetOutcome() != linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_DUPLICATE || duplicate.GetNotificationId() != f.log.NotificationID(position) {
		t.Errorf("%v, want a duplicate of %s", duplicate, f.log.NotificationID(position))
	}
	forced, err := f.client.ReleaseQuarantineEntry(t.Context(), &linksgatev1.ReleaseQuarantineEntryRequest{Id: entries[1].GetId(), Force: true})
	if err != nil || forced.GetOutcome() != linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_RELEASED ||
		forced.GetVerification().GetStatus() != linksgatev1.VerificationStatus_VERIFICATION_STATUS_FORCED {
		t.Errorf("%v %v", forced, err)
	}
	if left, _ := f.list(t, new(linksgatev1.ListQuarantineEntriesRequest)); len(left) != 1 || left[0].GetId() != entries[3].GetId() {
		t.Errorf("left: %v", left)
	}
}

// A release that comes between another one's look at the entry and its own is told that it was released before.
func TestReleaseThatWasOvertaken(t *testing.T) {
	var f *quarantineFixture
	var first *linksgatev1.ReleaseQuarantineEntryResponse
	f = serveQuarantine(t, func(e *linksgatev1.QuarantineEntry, force bool) (*linksgatev1.Notification, error) {
		if first == nil {
			first = new(linksgatev1.ReleaseQuarantineEntryResponse)
			first = f.release(t, e.GetId())
		}
		return byDetail(e, force)
	})
	id := f.add(t, quarantined(0))[0].GetId()
	second := f.release(t, id)
	if second.GetOutcome() != linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_ALREADY_RELEASED || second.GetNotificationId() != first.GetNotificationId() {
		t.Errorf("%v, want %s", second, first.GetNotificationId())
	}
}

func TestPurgeAndInfo(t *testing.T) {
	f := serveQuarantine(t, byDetail)
	info := func() *linksgatev1.GetQuarantineInfoResponse {
		info, err := f.client.GetQuarantineInfo(t.Context(), new(linksgatev1.GetQuarantineInfoRequest))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	if got := info(); got.GetEntries() != 0 || got.GetOldestReceivedAt() != nil || got.GetMaxBytes() != eventlog.DefaultQuarantineBytes ||
		got.GetMaxAge().AsDuration() != eventlog.DefaultQuarantineAge {
		t.Errorf("of an empty quarantine: %v", got)
	}
	entries := f.add(t, quarantined(0), quarantined(1))
	if got := info(); got.GetEntries() != 2 || got.GetBytes() == 0 || got.GetOldestReceivedAt() == nil {
		t.Errorf("of two entries: %v", got)
	}
	if _, err := f.client.PurgeQuarantineEntry(t.Context(), &linksgatev1.PurgeQuarantineEntryRequest{Id: entries[0].GetId()}); err != nil {
		t.Fatal(err)
	}
	if left, _ := f.list(t, new(linksgatev1.ListQuarantineEntriesRequest)); len(left) != 1 || left[0].GetId() != entries[1].GetId() {
		t.Errorf("left: %v", left)
	}
}

// quarantineCalls are the calls that take an id.
func (f *quarantineFixture) calls(t *testing.T, id string) map[string]error {
	_, get := f.client.GetQuarantineEntry(t.Context(), &linksgatev1.GetQuarantineEntryRequest{Id: id})
	_, release := f.client.ReleaseQuarantineEntry(t.Context(), &linksgatev1.ReleaseQuarantineEntryRequest{Id: id})
	_, dry := f.client.ReleaseQuarantineEntry(t.Context(), &linksgatev1.ReleaseQuarantineEntryRequest{Id: id, DryRun: true})
	_, purge := f.client.PurgeQuarantineEntry(t.Context(), &linksgatev1.PurgeQuarantineEntryRequest{Id: id})
	return map[string]error{"get": get, "release": release, "release, dry run": dry, "purge": purge}
}

func TestQuarantineErrors(t *testing.T) {
	f, other := serveQuarantine(t, byDetail), serveQuarantine(t, byDetail)
	id := f.add(t, quarantined(0))[0].GetId()
	otherID := other.add(t, quarantined(0))[0].GetId()
	for id, want := range map[string]struct {
		code   codes.Code
		reason string
	}{
		"":        {codes.InvalidArgument, "INVALID_ARGUMENT"},
		"x":       {codes.InvalidArgument, "INVALID_ARGUMENT"},
		id + "0x": {codes.InvalidArgument, "INVALID_ARGUMENT"},
		otherID:   {codes.FailedPrecondition, "OTHER_LOG"},
		id + "00": {codes.NotFound, "NOT_FOUND"},
	} {
		for call, err := range f.calls(t, id) {
			checkCode(t, fmt.Sprintf("%s %q", call, id), err, want.code, want.reason)
		}
	}
	list := func(request *linksgatev1.ListQuarantineEntriesRequest) error {
		_, err := f.client.ListQuarantineEntries(t.Context(), request)
		return err
	}
	checkCode(t, "a page token that is none", list(&linksgatev1.ListQuarantineEntriesRequest{PageToken: "x"}), codes.InvalidArgument, "INVALID_ARGUMENT")
	checkCode(t, "a page token of another log", list(&linksgatev1.ListQuarantineEntriesRequest{PageToken: otherID}), codes.FailedPrecondition, "OTHER_LOG")
	checkCode(t, "a time that is none", list(&linksgatev1.ListQuarantineEntriesRequest{Since: &timestamppb.Timestamp{Nanos: -1}}), codes.InvalidArgument, "INVALID_ARGUMENT")
	if err := list(&linksgatev1.ListQuarantineEntriesRequest{PageToken: id}); err != nil {
		t.Errorf("a page token: %v", err)
	}
}

func TestQuarantineOfAClosedLog(t *testing.T) {
	f := serveQuarantine(t, byDetail)
	id := f.add(t, quarantined(0))[0].GetId()
	if err := f.log.Close(); err != nil {
		t.Fatal(err)
	}
	errs := f.calls(t, id)
	_, errs["list"] = f.client.ListQuarantineEntries(t.Context(), new(linksgatev1.ListQuarantineEntriesRequest))
	_, errs["info"] = f.client.GetQuarantineInfo(t.Context(), new(linksgatev1.GetQuarantineInfoRequest))
	for call, err := range errs {
		checkCode(t, call, err, codes.Unavailable, "DRAINING")
	}
}

func TestWithoutReverificationThereIsNoQuarantineService(t *testing.T) {
	f := serveQuarantine(t, nil)
	_, err := f.client.ListQuarantineEntries(t.Context(), new(linksgatev1.ListQuarantineEntriesRequest))
	checkCode(t, "list", err, codes.Unimplemented, "")
}
