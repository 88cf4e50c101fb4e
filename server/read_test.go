package server_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/config"
)

func TestListingAnEmptyLog(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	page, err := g.client.ListNotifications(t.Context(), &linksgatev1.ListNotificationsRequest{})
	if err != nil || len(page.GetNotifications()) != 0 || page.GetNextPageToken() != "" || page.GetEndToken() == "" {
		t.Fatalf("%v, %v; want an empty last page with an end token", page, err)
	}
	// The end token goes on where the listing ended.
	want := g.deliverSMS(t, 1, 2)
	s, _ := g.subscribe(t, &linksgatev1.SubscribeRequest{Start: after(page.GetEndToken())})
	if diff := cmp.Diff(want, ids(s.notifications(t, 2))); diff != "" {
		t.Errorf("- wanted, + streamed:\n%s", diff)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	delivered := g.deliverSMS(t, 1, 1001)
	for _, tt := range []struct {
		name    string
		request *linksgatev1.ListNotificationsRequest
		want    []string
		next    bool
	}{
		{"default size", &linksgatev1.ListNotificationsRequest{}, delivered[:100], true},
		{"size as asked", &linksgatev1.ListNotificationsRequest{PageSize: 3}, delivered[:3], true},
		{"exactly all", &linksgatev1.ListNotificationsRequest{PageSize: 101, PageToken: g.get(t, delivered[899]).GetToken()}, delivered[900:], false},
		{"more than there are", &linksgatev1.ListNotificationsRequest{PageSize: 102, PageToken: g.get(t, delivered[899]).GetToken()}, delivered[900:], false},
		{"more than a page may have", &linksgatev1.ListNotificationsRequest{PageSize: 1001}, delivered[:1000], true},
		{"a resume token as page token", &linksgatev1.ListNotificationsRequest{PageToken: g.get(t, delivered[998]).GetToken()}, delivered[999:], false},
		{"page token before start", &linksgatev1.ListNotificationsRequest{
			PageToken: g.get(t, delivered[998]).GetToken(),
			Start:     &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}}, delivered[999:], false},
		{"after", &linksgatev1.ListNotificationsRequest{
			Start: &linksgatev1.Start{Position: &linksgatev1.Start_After{After: g.get(t, delivered[1000]).GetToken()}}}, nil, false},
		{"since the future", &linksgatev1.ListNotificationsRequest{
			Start: &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: timestamppb.New(time.Now().Add(time.Hour))}}}, nil, false},
	} {
		page, err := g.client.ListNotifications(t.Context(), tt.request)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, ids(page.GetNotifications())); diff != "" || (page.GetNextPageToken() != "") != tt.next {
			t.Errorf("%s: next page token %q; - wanted, + listed:\n%s", tt.name, page.GetNextPageToken(), diff)
		}
	}
}

// TestLargePagesEndEarly lists what a client could not receive in one message.
func TestLargePagesEndEarly(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	g.deliverLarge(t, 12)
	page, err := g.client.ListNotifications(t.Context(), &linksgatev1.ListNotificationsRequest{PageSize: 1000})
	if err != nil || len(page.GetNotifications()) == 12 || page.GetNextPageToken() == "" {
		t.Fatalf("%d of 12 notifications of 480 KiB in one page, %v", len(page.GetNotifications()), err)
	}
	if all := g.list(t, &linksgatev1.ListNotificationsRequest{PageSize: 1000}); len(all) != 12 {
		t.Errorf("%d of 12 notifications in all pages", len(all))
	}
}

func TestGetIsWhatWasListed(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	g.deliverSMS(t, 1, 5)
	for _, n := range g.list(t, &linksgatev1.ListNotificationsRequest{}) {
		if diff := cmp.Diff(n, g.get(t, n.GetId()), protocmp.Transform()); diff != "" {
			t.Errorf("- listed, + by id:\n%s", diff)
		}
	}
}

func TestLogInfo(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	week := config.Duration(7 * 24 * time.Hour)
	cfg.Log.MaxAge, cfg.Log.MaxBytes = &week, 64<<20
	g := startGateway(t, cfg)
	want := &linksgatev1.GetLogInfoResponse{
		LogId: g.LogID, MaxAge: durationpb.New(7 * 24 * time.Hour), MaxBytes: 64 << 20,
		Durability: linksgatev1.LogDurability_LOG_DURABILITY_PROCESS, Writable: true, GatewayVersion: "v0-test",
	}
	if diff := cmp.Diff(want, g.info(t), protocmp.Transform()); diff != "" {
		t.Errorf("empty, - as it should be, + as it is:\n%s", diff)
	}

	before := time.Now()
	g.deliverSMS(t, 1, 1)
	if info := g.info(t); !info.GetFirst().GetWrittenAt().AsTime().Equal(info.GetHead().GetWrittenAt().AsTime()) {
		t.Errorf("the only notification was written at %v as the first and at %v as the head", info.GetFirst(), info.GetHead())
	}
	g.deliverSMS(t, 2, 2)
	all := g.list(t, &linksgatev1.ListNotificationsRequest{})
	info := g.info(t)
	if info.GetRecordBatches() != 3 || info.GetBytes() == 0 || info.GetFirst().GetSequence() != all[0].GetSequence() ||
		info.GetHead().GetSequence() != all[2].GetSequence() || info.GetHead().GetToken() != all[2].GetToken() {
		t.Errorf("%v does not describe %v", info, ids(all))
	}
	first, head := info.GetFirst().GetWrittenAt().AsTime(), info.GetHead().GetWrittenAt().AsTime()
	if first.Before(before) || !first.Before(head) || head.After(time.Now()) {
		t.Errorf("written from %v to %v; it is %v", first, head, time.Now())
	}
	// The first's token stands before it.
	page := g.list(t, &linksgatev1.ListNotificationsRequest{
		Start: &linksgatev1.Start{Position: &linksgatev1.Start_After{After: info.GetFirst().GetToken()}}})
	if diff := cmp.Diff(all, page, protocmp.Transform()); diff != "" {
		t.Errorf("after the first's token, - wanted, + listed:\n%s", diff)
	}
}

func TestDurabilityIsFsyncUnlessTurnedOff(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Log.Fsync = nil
	if got := startGateway(t, cfg).info(t).GetDurability(); got != linksgatev1.LogDurability_LOG_DURABILITY_FSYNC {
		t.Errorf("%v; want LOG_DURABILITY_FSYNC", got)
	}
}

func TestReflectionListsTheServices(t *testing.T) {
	t.Parallel()
	g := startGateway(t, testConfig(t))
	reflection, err := reflectionv1.NewServerReflectionClient(g.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := reflection.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	response, err := reflection.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := reflection.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var services []string
	for _, service := range response.GetListServicesResponse().GetService() {
		services = append(services, service.GetName())
	}
	for _, want := range []string{linksgatev1.NotificationService_ServiceDesc.ServiceName, healthv1.Health_ServiceDesc.ServiceName} {
		if !slices.Contains(services, want) {
			t.Errorf("the services are %v, without %s", services, want)
		}
	}
}

// TestHealthTellsOfDraining keeps health watches and a reflection stream open, as load balancers and tools do. They learn of
// the end and do not delay it.
func TestHealthTellsOfDraining(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.DrainTimeout = config.Duration(10 * time.Second)
	g := startGateway(t, cfg)
	client := healthv1.NewHealthClient(g.conn)
	var watches []healthv1.Health_WatchClient
	for _, service := range []string{"", linksgatev1.NotificationService_ServiceDesc.ServiceName} {
		request := &healthv1.HealthCheckRequest{Service: service}
		if health, err := client.Check(t.Context(), request); err != nil || health.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("service %q: %v, %v; want SERVING", service, health, err)
		}
		watch, err := client.Watch(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if health, err := watch.Recv(); err != nil || health.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("service %q: %v, %v; want SERVING", service, health, err)
		}
		watches = append(watches, watch)
	}
	if _, err := reflectionv1.NewServerReflectionClient(g.conn).ServerReflectionInfo(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	g.stop(t)
	if took := time.Since(start); took >= time.Duration(cfg.DrainTimeout) {
		t.Errorf("the shutdown took %v, waiting for streams that never end", took)
	}
	for i, watch := range watches {
		if health, err := watch.Recv(); err != nil || health.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
			t.Errorf("watch %d: %v, %v; want NOT_SERVING", i, health, err)
		}
	}
}
