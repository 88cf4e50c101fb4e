package payload_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/payload"
)

// The names are in URLs that Linksfield was given: they never change.
func TestKindNames(t *testing.T) {
	var names []string
	for _, kind := range payload.Kinds() {
		name := payload.KindName(kind)
		names = append(names, name)
		if back, ok := payload.KindByName(name); !ok || back != kind {
			t.Errorf("KindByName(%q) = %v, %v; want %v", name, back, ok, kind)
		}
	}
	want := []string{
		"data-usage-alert", "sms-delivery", "sms-received", "plan-order-status", "mall-device-warning",
		"mall-recharge-success", "cube", "marketplace-alarm",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnknownKinds(t *testing.T) {
	for _, kind := range []linksgatev1.NotificationKind{0, -1, 99} {
		if name := payload.KindName(kind); name != "" {
			t.Errorf("KindName(%d) = %q", kind, name)
		}
	}
	for _, name := range []string{"", "unspecified", "kind-cube", "NOTIFICATION_KIND_CUBE", "Cube", "cube ", "sms_received"} {
		if kind, ok := payload.KindByName(name); ok {
			t.Errorf("KindByName(%q) = %v", name, kind)
		}
	}
}

// A kind that joins the enum needs a payload.
func TestFillKnowsEveryKind(t *testing.T) {
	for _, kind := range payload.Kinds() {
		n := &linksgatev1.Notification{Kind: kind}
		payload.Fill(n, mustParse(t, `{}`), payload.Names{})
		if n.Payload == nil || n.GetUnrecognized() != nil {
			t.Errorf("%v: payload %v", kind, n.Payload)
		}
	}
}

func TestKindsAreTheCallers(t *testing.T) {
	clear(payload.Kinds())
	if slices.Contains(payload.Kinds(), linksgatev1.NotificationKind_NOTIFICATION_KIND_UNSPECIFIED) {
		t.Error("a caller can change Kinds")
	}
}

func BenchmarkKindByName(b *testing.B) {
	for b.Loop() {
		payload.KindByName("plan-order-status")
	}
}
