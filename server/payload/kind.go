package payload

import (
	"slices"
	"strings"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// A kind's name is its part of the URL: the name of the enum value without
// "NOTIFICATION_KIND_", in lower case and with hyphens. Nothing changes these after start.
var (
	kinds       = enumKinds()
	nameOfKind  = namesOf(kinds)
	kindsByName = invert(nameOfKind)
)

// Kinds returns every kind that can be received, in the order of the enum. The
// caller owns the slice.
func Kinds() []linksgatev1.NotificationKind { return slices.Clone(kinds) }

// KindName returns the name of a kind as it stands in the URL: "sms-received" for
// NOTIFICATION_KIND_SMS_RECEIVED. It returns "" for what is not one of [Kinds].
func KindName(kind linksgatev1.NotificationKind) string { return nameOfKind[kind] }

// KindNames returns the names of kinds, in their order.
func KindNames(kinds []linksgatev1.NotificationKind) []string {
	names := make([]string, len(kinds))
	for i, kind := range kinds {
		names[i] = KindName(kind)
	}
	return names
}

// KindByName returns the kind that KindName gives this name, exactly. It reports
// false when there is none.
func KindByName(name string) (linksgatev1.NotificationKind, bool) {
	kind, ok := kindsByName[name]
	return kind, ok
}

func enumKinds() []linksgatev1.NotificationKind {
	values := linksgatev1.NotificationKind(0).Descriptor().Values()
	var list []linksgatev1.NotificationKind
	for i := range values.Len() {
		if kind := linksgatev1.NotificationKind(values.Get(i).Number()); kind != linksgatev1.NotificationKind_NOTIFICATION_KIND_UNSPECIFIED {
			list = append(list, kind)
		}
	}
	return list
}

func namesOf(kinds []linksgatev1.NotificationKind) map[linksgatev1.NotificationKind]string {
	names := make(map[linksgatev1.NotificationKind]string, len(kinds))
	for _, kind := range kinds {
		name := strings.TrimPrefix(kind.String(), "NOTIFICATION_KIND_")
		names[kind] = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	}
	return names
}

func invert(names map[linksgatev1.NotificationKind]string) map[string]linksgatev1.NotificationKind {
	kinds := make(map[string]linksgatev1.NotificationKind, len(names))
	for kind, name := range names {
		kinds[name] = kind
	}
	return kinds
}
