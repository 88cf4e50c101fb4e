package payload

import (
	"slices"
	"strings"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// A kind's name is its part of the URL: the name of the enum value without
// "KIND_", in lower case and with hyphens. Nothing changes these after start.
var (
	kinds       = enumKinds()
	nameOfKind  = namesOf(kinds)
	kindsByName = invert(nameOfKind)
)

// Kinds returns every kind that can be received, in the order of the enum. The
// caller owns the slice.
func Kinds() []linksgatev1.Kind { return slices.Clone(kinds) }

// KindName returns the name of a kind as it stands in the URL: "sms-received" for
// KIND_SMS_RECEIVED. It returns "" for what is not one of [Kinds].
func KindName(kind linksgatev1.Kind) string { return nameOfKind[kind] }

// KindNames returns the names of kinds, in their order.
func KindNames(kinds []linksgatev1.Kind) []string {
	names := make([]string, len(kinds))
	for i, kind := range kinds {
		names[i] = KindName(kind)
	}
	return names
}

// KindByName returns the kind that KindName gives this name, exactly. It reports
// false when there is none.
func KindByName(name string) (linksgatev1.Kind, bool) {
	kind, ok := kindsByName[name]
	return kind, ok
}

func enumKinds() []linksgatev1.Kind {
	values := linksgatev1.Kind(0).Descriptor().Values()
	var list []linksgatev1.Kind
	for i := range values.Len() {
		if kind := linksgatev1.Kind(values.Get(i).Number()); kind != linksgatev1.Kind_KIND_UNSPECIFIED {
			list = append(list, kind)
		}
	}
	return list
}

func namesOf(kinds []linksgatev1.Kind) map[linksgatev1.Kind]string {
	names := make(map[linksgatev1.Kind]string, len(kinds))
	for _, kind := range kinds {
		name := strings.TrimPrefix(kind.String(), "KIND_")
		names[kind] = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	}
	return names
}

func invert(names map[linksgatev1.Kind]string) map[string]linksgatev1.Kind {
	kinds := make(map[string]linksgatev1.Kind, len(names))
	for kind, name := range names {
		kinds[name] = kind
	}
	return kinds
}
