package eventlog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

func digestOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func entry(n int) *linksgatev1.QuarantineEntry {
	body := fmt.Sprintf(`{"entry":%d}`, n)
	return &linksgatev1.QuarantineEntry{
		ReceivedAt: timestamppb.New(time.Unix(int64(n), 0)), Account: "acme", Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE,
		Reason: linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MISMATCH,
		Raw:    &linksgatev1.QuarantineEntry_Body{Body: body}, ContentDigest: digestOf(body),
	}
}

// released is the notification that an entry becomes.
func released(e *linksgatev1.QuarantineEntry, key string) *linksgatev1.Notification {
	return &linksgatev1.Notification{
		Account: e.GetAccount(), Kind: e.GetKind(), ReceivedAt: e.GetReceivedAt(), QuarantineId: e.GetId(), DuplicateKey: []byte(key),
		Raw: &linksgatev1.Notification_Body{Body: e.GetBody()}, ContentDigest: e.GetContentDigest(),
	}
}

func addEntries(t *testing.T, q *Quarantine, count int) {
	t.Helper()
	for n := range count {
		if err := q.Add(t.Context(), entry(n)); err != nil {
			t.Fatal(err)
		}
	}
}

func entriesAfter(t *testing.T, q *Quarantine, after string) []*linksgatev1.QuarantineEntry {
	t.Helper()
	var all []*linksgatev1.QuarantineEntry
	for e, err := range q.Read(t.Context(), after) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func TestQuarantineKeepsEntriesInOrder(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, onDisk{Dir: dir})
	const count = 522
	addEntries(t, l.Quarantine(), count)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, onDisk{Dir: dir})
	q := l.Quarantine()
	all := entriesAfter(t, q, "")
	if len(all) != count {
		t.Fatalf("read %d entries of %d", len(all), count)
	}
	for n, e := range all {
		want := entry(n)
		want.Id = e.GetId()
		got, err := q.Get(t.Context(), e.GetId())
		if diff := cmp.Diff(want, got, protocmp.Transform()); err != nil || diff != "" {
			t.Fatalf("entry %d: %v\n%s", n, err, diff)
		}
		if diff := cmp.Diff(want, e, protocmp.Transform()); diff != "" {
			t.Fatalf("entry %d:\n%s", n, diff)
		}
	}
	if rest := entriesAfter(t, q, all[9].GetId()); len(rest) != count-10 || rest[0].GetId() != all[10].GetId() {
		t.Errorf("%d entries after the tenth, want %d", len(rest), count-10)
	}
	if rest := entriesAfter(t, q, all[count-1].GetId()); len(rest) != 0 {
		t.Errorf("%d entries after the last", len(rest))
	}
	info, err := q.Info(t.Context())
	if err != nil || info.Entries != count || info.Oldest.IsZero() || info.MaxBytes != DefaultQuarantineBytes || info.MaxAge != DefaultQuarantineAge {
		t.Errorf("info %+v %v", info, err)
	}
	checkStored(t, l, 0)
}

func TestRemovedEntryIsGone(t *testing.T) {
	q := openLog(t, onDisk{NoSync: true}).Quarantine()
	addEntries(t, q, 3)
	all := entriesAfter(t, q, "")
	if err := q.Remove(t.Context(), all[1].GetId()); err != nil {
		t.Fatal(err)
	}
	if err := q.Remove(t.Context(), all[1].GetId()); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := q.Get(t.Context(), all[1].GetId()); !errors.Is(err, ErrNotFound) {
		t.Errorf("get what was removed: %v", err)
	}
	// The id of an entry is a place to go on at, whether the entry is there or not.
	if rest := entriesAfter(t, q, all[1].GetId()); len(rest) != 1 || rest[0].GetId() != all[2].GetId() {
		t.Errorf("after what was removed: %v", rest)
	}
}

func TestQuarantineIDsAreChecked(t *testing.T) {
	q, other := openLog(t, onDisk{NoSync: true}).Quarantine(), openLog(t, onDisk{NoSync: true}).Quarantine()
	addEntries(t, q, 1)
	addEntries(t, other, 1)
	id := entriesAfter(t, other, "")[0].GetId()
	for id, want := range map[string]error{
		id: ErrOtherLog, "x": ErrBadID, strings.Replace(q.id(1), "-q", "-", 1): ErrBadID, q.id(1) + "x": ErrBadID,
		q.id(0): ErrBadID, strings.Replace(q.id(1), "-q1", "-q01", 1): ErrBadID, q.id(1000): ErrNotFound,
	} {
		_, getErr := q.Get(t.Context(), id)
		removeErr := q.Remove(t.Context(), id)
		if !errors.Is(getErr, want) || !errors.Is(removeErr, want) {
			t.Errorf("%q: get %v, remove %v; want %v", id, getErr, removeErr, want)
		}
		if errors.Is(want, ErrNotFound) {
			continue
		}
		if _, err := q.Release(t.Context(), id, notification(1)); !errors.Is(err, want) {
			t.Errorf("%q: release %v; want %v", id, err, want)
		}
		for _, err := range q.Read(t.Context(), id) {
			if !errors.Is(err, want) {
				t.Errorf("%q: read %v; want %v", id, err, want)
			}
		}
	}
	if _, err := q.Get(t.Context(), ""); !errors.Is(err, ErrBadID) {
		t.Errorf("no id: %v", err)
	}
}

// checkReleasedOnce requires that the log holds the notification of an entry once, and the quarantine no longer holds the entry.
func checkReleasedOnce(t *testing.T, l *Log, e *linksgatev1.QuarantineEntry, position Position) {
	t.Helper()
	found := 0
	for _, n := range readTo(t, l, Cursor{Stream: 1}, nil) {
		if n.GetQuarantineId() != e.GetId() {
			continue
		}
		found++
		if uint64(n.GetSequence()) != position.Sequence() || n.GetBody() != e.GetBody() {
			t.Errorf("released at %d with %s, want %d with %s", n.GetSequence(), n.GetBody(), position.Sequence(), e.GetBody())
		}
	}
	if found != 1 {
		t.Errorf("%s is in the log %d times", e.GetId(), found)
	}
	if _, err := l.Quarantine().Get(t.Context(), e.GetId()); !errors.Is(err, ErrNotFound) {
		t.Errorf("after its release: %v", err)
	}
}

func TestReleaseMovesAnEntryIntoTheLog(t *testing.T) {
	for _, key := range []string{"", "key"} {
		t.Run("key "+key, func(t *testing.T) {
			l := openLog(t, onDisk{})
			q := l.Quarantine()
			appendAll(t, l, 0, 3, 1)
			addEntries(t, q, 2)
			e := entriesAfter(t, q, "")[0]
			got, err := q.Release(t.Context(), e.GetId(), released(e, key))
			if err != nil || got.Before || got.Copy || got.Position.Stream == 0 {
				t.Fatalf("%+v %v", got, err)
			}
			checkReleasedOnce(t, l, e, got.Position)
			if left := entriesAfter(t, q, ""); len(left) != 1 {
				t.Errorf("%d entries are left, want 1", len(left))
			}
		})
	}
}

func TestConcurrentReleasesOfOneEntryAreOne(t *testing.T) {
	for _, key := range []string{"", "key"} {
		t.Run("key "+key, func(t *testing.T) {
			l := openLog(t, onDisk{})
			q := l.Quarantine()
			addEntries(t, q, 1)
			e := entriesAfter(t, q, "")[0]
			const releases = 20
			results := make([]Released, releases)
			var group sync.WaitGroup
			for i := range results {
				group.Go(func() {
					var err error
					if results[i], err = q.Release(context.Background(), e.GetId(), released(e, key)); err != nil {
						t.Errorf("release: %v", err)
					}
				})
			}
			group.Wait()
			first := 0
			for _, result := range results {
				if !result.Before && !result.Copy {
					first++
				}
				if result.Position != results[0].Position {
					t.Errorf("released at %v and at %v", result.Position, results[0].Position)
				}
			}
			if first != 1 {
				t.Errorf("%d releases were the first one", first)
			}
			checkReleasedOnce(t, l, e, results[0].Position)
		})
	}
}

// A crash between the two steps of a release leaves the notification in the log and the entry in quarantine.
func TestReleaseAfterACrashInARelease(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, onDisk{Dir: dir})
	addEntries(t, l.Quarantine(), 3)
	e := entriesAfter(t, l.Quarantine(), "")[1]
	data, err := marshal(released(e, ""))
	if err != nil {
		t.Fatal(err)
	}
	number, err := l.quarantine.parseID(e.GetId())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.quarantine.note(t.Context(), number); err != nil {
		t.Fatal(err)
	}
	position, err := l.writer.append(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	l = openLog(t, onDisk{Dir: dir})
	if got := len(entriesAfter(t, l.Quarantine(), "")); got != 3 {
		t.Fatalf("%d entries after the crash, want 3", got)
	}
	got, err := l.Quarantine().Release(t.Context(), e.GetId(), released(e, ""))
	if want := (Released{Position: position, Before: true}); err != nil || got != want {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
	checkReleasedOnce(t, l, e, position)
	checkStored(t, l, 1)
}

func TestReleaseOfWhatWasAcceptedMeanwhileIsACopy(t *testing.T) {
	l := openLog(t, onDisk{})
	q := l.Quarantine()
	addEntries(t, q, 1)
	e := entriesAfter(t, q, "")[0]
	accepted := released(e, "key")
	accepted.QuarantineId = ""
	position := mustAppend(t, l, accepted)
	got, err := q.Release(t.Context(), e.GetId(), released(e, "key"))
	if want := (Released{Position: position, Copy: true}); err != nil || got != want {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
	checkStored(t, l, 1)
	if left := entriesAfter(t, q, ""); len(left) != 0 {
		t.Errorf("%d entries are left", len(left))
	}
	// And the other way round: what was released keeps its copies out.
	if got := mustAppend(t, l, accepted); got != position {
		t.Errorf("a copy of what was released got %v, want %v", got, position)
	}
}

func TestQuarantineIsBounded(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true, QuarantineBytes: MinMaxBytes})
	q := l.Quarantine()
	const count, size = 200, 200 << 10 // 40 MiB
	for n := range count {
		e := entry(n)
		e.Raw = &linksgatev1.QuarantineEntry_Body{Body: strings.Repeat("x", size)}
		if err := q.Add(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	all := entriesAfter(t, q, "")
	if len(all) == 0 || len(all) > MinMaxBytes/size || len(all) < MinMaxBytes/size/2 {
		t.Fatalf("%d entries are left", len(all))
	}
	for i, e := range all {
		if want := int64(count - len(all) + i); e.GetReceivedAt().GetSeconds() != want {
			t.Fatalf("entry %d is number %d, want %d: the oldest go first", i, e.GetReceivedAt().GetSeconds(), want)
		}
	}
	if _, err := q.Get(t.Context(), q.id(1)); !errors.Is(err, ErrNotFound) {
		t.Errorf("the oldest: %v", err)
	}
	info, err := q.Info(t.Context())
	if err != nil || info.Bytes > MinMaxBytes {
		t.Errorf("info %+v %v", info, err)
	}
}

func TestTooLargeIsNotQuarantined(t *testing.T) {
	q := openLog(t, onDisk{NoSync: true}).Quarantine()
	e := entry(1)
	e.Raw = &linksgatev1.QuarantineEntry_Body{Body: strings.Repeat("x", MaxRecordBytes)}
	if err := q.Add(t.Context(), e); !errors.Is(err, ErrTooLarge) {
		t.Errorf("add: %v", err)
	}
}

// While one reads page by page and releases what is read, nothing is left out.
func TestReleasingWhileReadingLeavesNothingOut(t *testing.T) {
	l := openLog(t, onDisk{NoSync: true})
	q := l.Quarantine()
	const count = 100
	addEntries(t, q, count)
	var seen []string
	for last := ""; ; {
		page := 0
		for e, err := range q.Read(t.Context(), last) {
			if err != nil {
				t.Fatal(err)
			}
			if _, err := q.Release(t.Context(), e.GetId(), released(e, "")); err != nil {
				t.Fatal(err)
			}
			seen, last = append(seen, e.GetBody()), e.GetId()
			if page++; page == 7 {
				break
			}
		}
		if page == 0 {
			break
		}
	}
	if len(seen) != count {
		t.Errorf("%d entries were read, want %d", len(seen), count)
	}
	for i, n := range readTo(t, l, Cursor{Stream: 1}, nil) {
		if n.GetBody() != entry(i).GetBody() {
			t.Errorf("notification %d is %s", i, n.GetBody())
		}
	}
}

// A release whose caller goes away is made to its end, and readers hear of it.
func TestACancelledReleaseIsSeen(t *testing.T) {
	l := openLog(t, onDisk{})
	addEntries(t, l.Quarantine(), 20)
	for n, e := range entriesAfter(t, l.Quarantine(), "") {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n*50)*time.Microsecond)
		_, err := l.Quarantine().Release(ctx, e.GetId(), notification(n))
		cancel()
		if err != nil {
			t.Errorf("release %d: %v", n, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if info, err := l.Info(ctx); err != nil || info.Batches != 20 {
		t.Errorf("%d record batches in the log, %v", info.Batches, err)
	}
}
