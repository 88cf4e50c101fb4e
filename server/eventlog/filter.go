package eventlog

import (
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/iccid"
)

// Filter selects notifications. A nil Filter passes everything. A notification passes if it matches every list that is not
// empty, and matches a list if it matches one of its entries. A Filter must not be changed while in use.
type Filter struct {
	Accounts     map[string]bool
	Kinds        map[linksgatev1.NotificationKind]bool
	ICCIDs       map[string]bool
	PartnerCodes map[string]bool
}

// FilterOf returns the filter that a message describes; nil if it passes everything.
func FilterOf(f *linksgatev1.NotificationFilter) *Filter {
	filter := &Filter{
		Accounts: setOf(f.GetAccounts()), Kinds: setOf(f.GetKinds()), ICCIDs: setOf(normal(f.GetIccids())), PartnerCodes: setOf(f.GetPartnerCodes()),
	}
	if len(filter.Accounts)+len(filter.Kinds)+len(filter.ICCIDs)+len(filter.PartnerCodes) == 0 {
		return nil
	}
	return filter
}

// normal returns ICCIDs in the form in which notifications have them.
func normal(iccids []string) []string {
	normal := make([]string, len(iccids))
	for i, text := range iccids {
		normal[i] = iccid.Normal(text)
	}
	return normal
}

func setOf[T comparable](values []T) map[T]bool {
	set := make(map[T]bool, len(values))
	for _, value := range values {
		set[value] = true
	}
	return set
}

// Match reports whether the filter passes a record.
func (f *Filter) Match(r *Record) bool {
	switch {
	case f == nil:
		return true
	case len(f.Kinds) > 0 && !f.Kinds[r.kind],
		len(f.Accounts) > 0 && !f.Accounts[string(r.account)],
		len(f.PartnerCodes) > 0 && !f.PartnerCodes[string(r.partnerCode)]:
		return false
	case len(f.ICCIDs) == 0:
		return true
	}
	for iccid := range r.ICCIDs() {
		if f.ICCIDs[string(iccid)] {
			return true
		}
	}
	return false
}

// An interest is one value of one field that a waiting reader wants to be woken for.
type interest struct {
	field interestField
	value string
}

type interestField uint8

const (
	interestAny interestField = iota
	interestICCID
	interestPartnerCode
	interestAccount
	interestKind
)

// interests returns a set of interests of which every record that passes the filter has at least one: those of the one
// list that is likely to be hit least often.
func (f *Filter) interests() []interest {
	switch {
	case f == nil:
	case len(f.ICCIDs) > 0:
		return interestsIn(interestICCID, f.ICCIDs)
	case len(f.PartnerCodes) > 0:
		return interestsIn(interestPartnerCode, f.PartnerCodes)
	case len(f.Accounts) > 0:
		return interestsIn(interestAccount, f.Accounts)
	case len(f.Kinds) > 0:
		kinds := make([]interest, 0, len(f.Kinds))
		for kind := range f.Kinds {
			kinds = append(kinds, interest{interestKind, kindName(kind)})
		}
		return kinds
	}
	return []interest{{field: interestAny}}
}

func interestsIn(field interestField, values map[string]bool) []interest {
	all := make([]interest, 0, len(values))
	for value := range values {
		all = append(all, interest{field, value})
	}
	return all
}
