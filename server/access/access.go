// Package access answers: who is calling, and may they?
//
// A [Policy] is what the operator configured: callers, how each is known, and what it may do. A [Control] holds the policy in
// force. It is asked once for each call ([Control.Authenticate]), and tells an open stream when its caller is not who it was any more
// ([Control.Watch]).
//
// # Who
//
// A caller is known by a bearer token, of which the policy has only the SHA-256; by a JWT of an issuer that the policy trusts; or
// by its client certificate. A credential that is shown and not known is refused, whatever else there is: nobody becomes anonymous
// by a mistake in a token. Whoever shows none is anonymous, and has the rights of that, by default none.
//
// # What
//
// Four rights, which [Grants] hold. To read: notifications of these accounts and kinds. To work: as a member of these groups. To
// operate: the quarantine, parked notifications and groups of these accounts, and erasure. To administer: configuration, uses of
// secrets, audit.
//
// What a caller may not read is not there for it: a filter that names nothing is narrowed to what may be read ([Grants.Narrow]),
// and one that names more is refused. A [MissingRight] says which right is missing, and nothing else.
package access

import (
	"errors"
	"fmt"
	"path"
	"slices"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// The errors of this package, beside [MissingRight]. Callers compare with [errors.Is].
var (
	// ErrNoCredential: the caller has shown nothing, and anonymous callers have no rights.
	ErrNoCredential = errors.New("no credential")
	// ErrBadCredential: what the caller has shown is not known, or not valid any more.
	ErrBadCredential = errors.New("credential refused")
	// ErrUnavailable: whether a JWT is valid cannot be told, because the keys of its issuer could not be had yet.
	ErrUnavailable = errors.New("keys of the issuer unavailable")
	// ErrTooMany: the caller has used up one of its limits.
	ErrTooMany = errors.New("limit of the caller reached")
)

// Rights, as they are called in configurations and errors.
const (
	Read    = "read"
	Work    = "work"
	Operate = "operate"
	Admin   = "admin"
)

// MissingRight is the error of what a caller may not do.
type MissingRight struct {
	// Caller who misses it.
	Caller string
	// Right is one of Read, Work, Operate, Admin.
	Right string
	// Of is what the right would have to cover, as far as the caller has named it itself.
	Of string
}

// Error implements [error].
func (m *MissingRight) Error() string {
	text := fmt.Sprintf("%s does not have the right to %s", m.Caller, verbs[m.Right])
	if m.Of != "" {
		text += " " + m.Of
	}
	return text + fmt.Sprintf(" (access.callers.*.grants.%s)", m.Right)
}

var verbs = map[string]string{Read: "read", Work: "work in", Operate: "operate", Admin: "administer this gateway"}

// Accounts are some accounts, or all.
type Accounts struct {
	All   bool
	Names []string
}

// Has reports whether an account is one of them.
func (a Accounts) Has(account string) bool { return a.All || slices.Contains(a.Names, account) }

// none reports whether there is none.
func (a Accounts) none() bool { return !a.All && len(a.Names) == 0 }

// Grants are what a caller may do. The zero value is nothing.
type Grants struct {
	// ReadAccounts and ReadKinds: notifications of these accounts that are of these kinds; no kinds: all.
	ReadAccounts Accounts
	ReadKinds    []linksgatev1.NotificationKind
	// WorkGroups are groups, by name or by a pattern with * and ?.
	WorkGroups []string
	// OperateAccounts are those whose quarantine, parked notifications and groups may be administered.
	OperateAccounts Accounts
	// Admin may see the configuration, the uses of secrets, all subscriptions and the audit log.
	Admin bool
}

// Everything is all rights.
func Everything() Grants {
	return Grants{ReadAccounts: Accounts{All: true}, WorkGroups: []string{"*"}, OperateAccounts: Accounts{All: true}, Admin: true}
}

// Equal reports whether two grants are the same.
func (g Grants) Equal(other Grants) bool {
	same := func(a, b Accounts) bool { return a.All == b.All && slices.Equal(a.Names, b.Names) }
	return same(g.ReadAccounts, other.ReadAccounts) && slices.Equal(g.ReadKinds, other.ReadKinds) &&
		slices.Equal(g.WorkGroups, other.WorkGroups) && same(g.OperateAccounts, other.OperateAccounts) && g.Admin == other.Admin
}

// none reports whether nothing is granted.
func (g Grants) none() bool {
	return g.ReadAccounts.none() && len(g.WorkGroups) == 0 && g.OperateAccounts.none() && !g.Admin
}

// MayRead returns nil, or a [MissingRight] that does not say of which account and kind the notification is.
func (c *Caller) MayRead(account string, kind linksgatev1.NotificationKind) error {
	if c.Grants.ReadAccounts.Has(account) && (len(c.Grants.ReadKinds) == 0 || slices.Contains(c.Grants.ReadKinds, kind)) {
		return nil
	}
	return c.missing(Read, "this notification")
}

// Narrow restricts a filter to what the caller may read. Where it names accounts or kinds itself, all of them must be granted.
func (c *Caller) Narrow(filter *linksgatev1.NotificationFilter) error {
	if c.Grants.ReadAccounts.none() {
		return c.missing(Read, "notifications")
	}
	for _, account := range filter.GetAccounts() {
		if !c.Grants.ReadAccounts.Has(account) {
			return c.missing(Read, fmt.Sprintf("the account %.64q", account))
		}
	}
	for _, kind := range filter.GetKinds() {
		if len(c.Grants.ReadKinds) > 0 && !slices.Contains(c.Grants.ReadKinds, kind) {
			return c.missing(Read, "the kind "+kind.String())
		}
	}
	if len(filter.GetAccounts()) == 0 && !c.Grants.ReadAccounts.All {
		filter.Accounts = slices.Clone(c.Grants.ReadAccounts.Names)
	}
	if len(filter.GetKinds()) == 0 {
		filter.Kinds = slices.Clone(c.Grants.ReadKinds)
	}
	return nil
}

// MayReadAll returns nil if the caller may read every notification that passes a filter.
func (c *Caller) MayReadAll(filter *linksgatev1.NotificationFilter) error {
	accounts := c.Grants.ReadAccounts.All || len(filter.GetAccounts()) > 0
	kinds := len(c.Grants.ReadKinds) == 0 || len(filter.GetKinds()) > 0
	for _, account := range filter.GetAccounts() {
		accounts = accounts && c.Grants.ReadAccounts.Has(account)
	}
	for _, kind := range filter.GetKinds() {
		kinds = kinds && (len(c.Grants.ReadKinds) == 0 || slices.Contains(c.Grants.ReadKinds, kind))
	}
	if accounts && kinds {
		return nil
	}
	return c.missing(Read, "everything that the group is about")
}

// MayWork returns nil if the caller may work in a group. Whether there is one of this name is not asked.
func (c *Caller) MayWork(group string) error {
	for _, pattern := range c.Grants.WorkGroups {
		if matched, err := path.Match(pattern, group); err == nil && matched {
			return nil
		}
	}
	return c.missing(Work, fmt.Sprintf("the group %.64q", group))
}

// NarrowGroup restricts the filter of a group to what the caller may both read and operate: a group that it creates has no more rights
// than it has itself.
func (c *Caller) NarrowGroup(filter *linksgatev1.NotificationFilter) error {
	own := len(filter.GetAccounts()) == 0
	accounts, err := c.NarrowOperated(filter.GetAccounts())
	if err != nil {
		return err
	}
	if own {
		accounts = slices.DeleteFunc(accounts, func(account string) bool { return !c.Grants.ReadAccounts.Has(account) })
		if len(accounts) == 0 && !c.Grants.OperateAccounts.All {
			return c.missing(Read, "any account that it operates")
		}
	}
	filter.Accounts = accounts
	return c.Narrow(filter)
}

// MayOperate returns nil if the caller may operate an account. The error does not name it.
func (c *Caller) MayOperate(account string) error {
	if c.Grants.OperateAccounts.Has(account) {
		return nil
	}
	return c.missing(Operate, "this account")
}

// MayOperateSome returns nil if there is an account that the caller may operate.
func (c *Caller) MayOperateSome() error {
	if !c.Grants.OperateAccounts.none() {
		return nil
	}
	return c.missing(Operate, "any account")
}

// MayOperateAll returns nil if the caller may operate every account.
func (c *Caller) MayOperateAll() error {
	if c.Grants.OperateAccounts.All {
		return nil
	}
	return c.missing(Operate, "all accounts")
}

// NarrowOperated restricts a list of accounts to those that the caller may operate. What the list names itself must be granted.
func (c *Caller) NarrowOperated(accounts []string) ([]string, error) {
	if err := c.MayOperateSome(); err != nil {
		return nil, err
	}
	for _, account := range accounts {
		if !c.Grants.OperateAccounts.Has(account) {
			return nil, c.missing(Operate, fmt.Sprintf("the account %.64q", account))
		}
	}
	if len(accounts) == 0 && !c.Grants.OperateAccounts.All {
		return slices.Clone(c.Grants.OperateAccounts.Names), nil
	}
	return accounts, nil
}

// MayOperateGroup returns nil if the caller may administer a group with a filter: it must be about accounts that the caller operates
// and nothing else.
func (c *Caller) MayOperateGroup(filter *linksgatev1.NotificationFilter) error {
	covered := c.Grants.OperateAccounts.All || len(filter.GetAccounts()) > 0
	for _, account := range filter.GetAccounts() {
		covered = covered && c.Grants.OperateAccounts.Has(account)
	}
	if covered {
		return nil
	}
	return c.missing(Operate, "every account that the group is about")
}

// MayAdmin returns nil if the caller may administer the gateway.
func (c *Caller) MayAdmin() error {
	if c.Grants.Admin {
		return nil
	}
	return c.missing(Admin, "")
}

func (c *Caller) missing(right, of string) error {
	return &MissingRight{Caller: c.Name, Right: right, Of: of}
}
