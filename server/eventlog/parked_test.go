package eventlog

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// records returns the notifications of a log from its beginning, as they are read.
func records(t *testing.T, l *Log, count int) []*Record {
	t.Helper()
	var all []*Record
	for stream := uint64(1); len(all) < count; stream++ {
		for index := 0; ; index++ {
			record, err := l.Get(t.Context(), Position{Stream: stream, Index: index})
			if errors.Is(err, ErrNotFound) && index > 0 {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, record)
		}
	}
	return all
}

func mustPark(t *testing.T, l *Log, group string, record *Record) {
	t.Helper()
	if err := l.Groups().Park(t.Context(), group, record, linksgatev1.ParkReason_PARK_REASON_REJECTED, "why", 3); err != nil {
		t.Fatal(err)
	}
}

func parkedAfter(t *testing.T, l *Log, group, after string) []ParkedEntry {
	t.Helper()
	var all []ParkedEntry
	for e, err := range l.Groups().Parked(t.Context(), group, after) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func parkedSequences(t *testing.T, l *Log, group string) []uint64 {
	t.Helper()
	var all []uint64
	for _, e := range parkedAfter(t, l, group, "") {
		all = append(all, uint64(e.Parked.GetNotification().GetSequence()))
	}
	return all
}

func notificationOf(t *testing.T, record *Record) *linksgatev1.Notification {
	t.Helper()
	n, err := record.Notification()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParkedNotificationsAreKept(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, onDisk{Dir: dir})
	fiveInOne(t, l) // the token of the fifth does not follow from its position alone
	all := records(t, l, 6)
	mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	order := []int{4, 0, 5, 2}
	for _, i := range order {
		mustPark(t, l, "a", all[i])
		mustPark(t, l, "other", all[i])
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, onDisk{Dir: dir})
	got := parkedAfter(t, l, "a", "")
	if len(got) != len(order) {
		t.Fatalf("%d entries, want %d", len(got), len(order))
	}
	for i, e := range got {
		if diff := cmp.Diff(notificationOf(t, all[order[i]]), e.Parked.GetNotification(), protocmp.Transform()); diff != "" {
			t.Errorf("- want, + got:\n%s", diff)
		}
		if e.Parked.GetReason() != linksgatev1.ParkReason_PARK_REASON_REJECTED || e.Parked.GetDetail() != "why" || e.Parked.GetAttempts() != 3 ||
			!e.Parked.GetParkedAt().IsValid() {
			t.Errorf("entry %v", e.Parked)
		}
		if rest := parkedAfter(t, l, "a", e.Cursor); len(rest) != len(got)-i-1 || len(rest) > 0 && rest[0].Cursor != got[i+1].Cursor {
			t.Errorf("%d entries after entry %d", len(rest), i)
		}
	}
	state, err := l.Groups().State(t.Context(), groupRecord("a", Cursor{Stream: 1}))
	if err != nil || state.Parked != uint64(len(order)) {
		t.Errorf("%d parked (%v), want %d", state.Parked, err, len(order))
	}
}

func TestParkedOnceHoweverOftenItIsParked(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	mustAppend(t, l, notification(1))
	mustAppend(t, l, notification(2))
	all := records(t, l, 2)
	mustPark(t, l, "a", all[0])
	mustPark(t, l, "a", all[1])
	mustPark(t, l, "a", all[0])
	if got, want := parkedSequences(t, l, "a"), []uint64{all[1].Position.Sequence(), all[0].Position.Sequence()}; !slices.Equal(got, want) {
		t.Errorf("parked %v, want %v", got, want)
	}
}

func TestParkedCursorsAndIDsAreChecked(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	mustAppend(t, l, notification(1))
	one := records(t, l, 1)[0]
	mustPark(t, l, "a", one)
	cursor := parkedAfter(t, l, "a", "")[0].Cursor
	other := openLog(t, onDisk{NoSync: true})
	for bad, want := range map[string]error{
		"x": ErrBadToken, cursor[:len(cursor)-1]: ErrBadToken, "A" + cursor: ErrBadToken, "B" + cursor[1:]: ErrBadToken,
		l.Token(Cursor{Stream: 1}):                              ErrBadToken,
		string(other.id.appendSealed(nil, parkedVersion, 0, 1)): ErrOtherLog,
	} {
		for _, err := range l.Groups().Parked(t.Context(), "a", bad) {
			if !errors.Is(err, want) {
				t.Errorf("cursor %q: %v, want %v", bad, err, want)
			}
		}
	}
	if _, err := l.ParseToken(cursor); !errors.Is(err, ErrBadToken) {
		t.Errorf("the cursor as a resume token: %v", err)
	}
	for bad, want := range map[string]error{
		"x": ErrBadID, other.NotificationID(one.Position): ErrOtherLog,
		l.NotificationID(Position{Stream: 2}): ErrNotFound, l.NotificationID(Position{Stream: 1, Index: 1}): ErrNotFound,
	} {
		if err := l.Groups().Replay(t.Context(), "a", bad); !errors.Is(err, want) {
			t.Errorf("replay %q: %v, want %v", bad, err, want)
		}
		if err := l.Groups().Purge(t.Context(), "a", bad); !errors.Is(err, want) {
			t.Errorf("purge %q: %v, want %v", bad, err, want)
		}
	}
	if err := l.Groups().Purge(t.Context(), "b", l.NotificationID(one.Position)); !errors.Is(err, ErrNotFound) {
		t.Errorf("purge what another group has parked: %v", err)
	}
	if err := l.Groups().Purge(t.Context(), "a", l.NotificationID(one.Position)); err != nil {
		t.Error(err)
	}
	if got := parkedSequences(t, l, "a"); len(got) != 0 {
		t.Errorf("parked %v", got)
	}
}

func TestReplayedNotificationComesAgainAsItWas(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	fiveInOne(t, l)
	all := records(t, l, 6)
	record := mustCreate(t, l, groupRecord("a", Cursor{Stream: 3}))
	other := mustCreate(t, l, groupRecord("other", Cursor{Stream: 3}))
	r := attach(t, l, record)
	for _, i := range []int{4, 1} {
		mustPark(t, l, "a", all[i])
		mustPark(t, l, "other", all[i])
		if err := l.Groups().Replay(t.Context(), "a", l.NotificationID(all[i].Position)); err != nil {
			t.Fatal(err)
		}
	}
	claims := fetch(t, r, SourceReplay, 2)
	for n, i := range []int{4, 1} {
		c := claims[n]
		if len(c.Records) != 1 || c.Source != SourceReplay || c.Again || c.Damaged || c.Bytes == 0 {
			t.Fatalf("claim %+v", c)
		}
		if diff := cmp.Diff(notificationOf(t, all[i]), notificationOf(t, c.Records[0]), protocmp.Transform()); diff != "" {
			t.Errorf("- want, + got:\n%s", diff)
		}
		if c.Records[0].Position != all[i].Position || c.Records[0].Next != all[i].Next || string(c.Records[0].Message()) != string(all[i].Message()) {
			t.Errorf("record %+v, want %+v", c.Records[0], all[i])
		}
		if filter := (&Filter{Accounts: map[string]bool{notificationOf(t, all[i]).GetAccount(): true}}); !filter.Match(c.Records[0]) {
			t.Error("a filter does not find its account")
		}
	}
	awaitState(t, l, record, func(s GroupState) bool { return s.UnsettledReplays == 2 && s.Parked == 0 })
	settle(t, claims...)
	awaitState(t, l, record, func(s GroupState) bool { return s.UnsettledReplays == 0 })
	awaitState(t, l, other, func(s GroupState) bool { return s.UnsettledReplays == 0 && s.Parked == 2 })
}

// However a replay is repeated and interrupted, a notification is parked, or to be replayed, or both for the moment, never neither.
func TestConcurrentReplaysOfOneAreOne(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	mustAppend(t, l, notification(1))
	one := records(t, l, 1)[0]
	r := attach(t, l, mustCreate(t, l, groupRecord("a", Cursor{Stream: 2})))
	mustPark(t, l, "a", one)
	results := make(chan error)
	for range 8 {
		go func() { results <- l.Groups().Replay(t.Context(), "a", l.NotificationID(one.Position)) }()
	}
	for range 8 {
		if err := <-results; err != nil && !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	}
	settle(t, fetch(t, r, SourceReplay, 1)...)
	fetchNone(t, r, SourceReplay)
	if got := parkedSequences(t, l, "a"); len(got) != 0 {
		t.Errorf("parked %v", got)
	}
}

func TestWhatIsParkedIsBounded(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true, ParkedBytes: MinMaxBytes})
	const count = 40
	for n := range count {
		one := notification(n)
		one.Raw = &linksgatev1.Notification_Body{Body: strings.Repeat("x", 900<<10)}
		mustAppend(t, l, one)
	}
	all := records(t, l, count)
	for _, record := range all {
		mustPark(t, l, "a", record)
	}
	got := parkedSequences(t, l, "a")
	if len(got) == 0 || len(got) == count || got[len(got)-1] != all[count-1].Position.Sequence() {
		t.Errorf("%d of %d are parked, up to %d", len(got), count, got[len(got)-1])
	}
}

// The largest notification that the log takes can be parked and replayed.
func TestLargestNotificationIsParked(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	one := notification(1)
	one.Raw = &linksgatev1.Notification_Body{}
	room := MaxRecordBytes - proto.Size(one) - 8
	one.Raw = &linksgatev1.Notification_Body{Body: strings.Repeat("x", room)}
	mustAppend(t, l, one)
	largest := records(t, l, 1)[0]
	r := attach(t, l, mustCreate(t, l, groupRecord(strings.Repeat("a", 63), Cursor{Stream: 2})))
	group := r.record.GetGroup().GetName()
	if err := l.Groups().Park(t.Context(), group, largest, linksgatev1.ParkReason_PARK_REASON_REQUESTED, strings.Repeat("y", 1000), 100); err != nil {
		t.Fatal(err)
	}
	if err := l.Groups().Replay(t.Context(), group, l.NotificationID(largest.Position)); err != nil {
		t.Fatal(err)
	}
	if got := len(notificationOf(t, fetch(t, r, SourceReplay, 1)[0].Records[0]).GetBody()); got != room {
		t.Errorf("%d bytes, want %d", got, room)
	}
}
