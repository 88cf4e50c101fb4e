package rpc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/eventlog/eventlogtest"
	"github.com/linksgate/linksgate/server/group"
)

func TestFieldNumbersAreTheDescriptors(t *testing.T) {
	fields := new(linksgatev1.SubscribeResponse).ProtoReflect().Descriptor().Fields()
	for name, number := range map[protoreflect.Name]protoreflect.FieldNumber{"token": fieldToken, "batch": fieldBatch} {
		if got := fields.ByName(name).Number(); got != number {
			t.Errorf("SubscribeResponse.%s has the number %d; the codec writes %d", name, got, number)
		}
	}
}

// TestBatchFramesAreMessages compares frames that are put together by hand with what they stand for, from any run of records
// and from records that are not neighbours.
func TestBatchFramesAreMessages(t *testing.T) {
	records := storedRecords(t, 20)
	for name, chosen := range map[string][]*eventlog.Record{
		"one": records[:1], "last": records[19:], "all": records, "a run": records[3:9],
		"not neighbours": {records[0], records[2], records[3], records[19]}, "not in order": {records[5], records[4]},
	} {
		want := &linksgatev1.SubscribeResponse{Token: "token of " + name, Frame: &linksgatev1.SubscribeResponse_Batch{Batch: new(linksgatev1.NotificationBatch)}}
		for _, record := range chosen {
			n, err := record.Notification()
			if err != nil {
				t.Fatal(err)
			}
			want.GetBatch().Notifications = append(want.GetBatch().Notifications, n)
		}
		codec := newCodec()
		for how, message := range map[string]any{"by hand": newBatchFrame(want.GetToken(), chosen), "as a message": want} {
			data, err := codec.Marshal(message)
			if err != nil {
				t.Fatal(err)
			}
			got := new(linksgatev1.SubscribeResponse)
			if err := codec.Unmarshal(data, got); err != nil {
				t.Fatalf("%s, %s: %v", name, how, err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("%s, - as it should be, + %s:\n%s", name, how, diff)
			}
		}
	}
}

// TestLeasesFramesAreMessages compares a frame with leases that is put together by hand with what it stands for.
func TestLeasesFramesAreMessages(t *testing.T) {
	var leases []group.Lease
	want := &linksgatev1.LeaseBatch{}
	for i, record := range storedRecords(t, 3) {
		until := time.Unix(1_700_000_000+int64(i), int64(i)*123).UTC()
		leases = append(leases, group.Lease{Token: strings.Repeat("t", 100) + fmt.Sprint(i), Attempt: uint32(i + 1), Until: until, Record: record})
		n, err := record.Notification()
		if err != nil {
			t.Fatal(err)
		}
		want.Leases = append(want.Leases, &linksgatev1.Lease{
			LeaseToken: leases[i].Token, Attempt: int32(leases[i].Attempt), ExpiresAt: timestamppb.New(until), Notification: n,
		})
	}
	codec := newCodec()
	data, err := codec.Marshal(newLeasesFrame(leases))
	if err != nil {
		t.Fatal(err)
	}
	got := new(linksgatev1.ConsumeResponse)
	if err := codec.Unmarshal(data, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.GetLeases(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// storedRecords returns records of a real log.
func storedRecords(t *testing.T, count int) []*eventlog.Record {
	t.Helper()
	log := eventlogtest.Open(t, eventlog.Options{})
	appended := make(chan error, count)
	for n := range count {
		go func() {
			_, err := log.Append(t.Context(), &linksgatev1.Notification{
				Account: "acme", Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, Raw: &linksgatev1.Notification_Body{Body: fmt.Sprintf(`{"n":%d}`, n)}})
			appended <- err
		}()
	}
	for range count {
		if err := <-appended; err != nil {
			t.Fatal(err)
		}
	}
	info, err := log.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var records []*eventlog.Record
	for step, err := range log.Read(t.Context(), info.First, eventlog.ReadOptions{Until: info.Next, Pulse: 1e9}) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, step.Records...)
	}
	if len(records) != count {
		t.Fatalf("read %d records of %d", len(records), count)
	}
	return records
}
