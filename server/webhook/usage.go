package webhook

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/signature"
)

// SecretID says which configured secret is meant. Nothing in it is derived from the secret.
type SecretID struct {
	Account string
	// Scheme is signature.SchemeMD5 or signature.SchemeHMAC.
	Scheme string
	// KeyID is empty for md5, which names no key.
	KeyID string
	// Name is the operator's label.
	Name string
}

func (id SecretID) compare(other SecretID) int {
	return cmp.Or(cmp.Compare(id.Account, other.Account), cmp.Compare(id.Scheme, other.Scheme),
		cmp.Compare(id.KeyID, other.KeyID), cmp.Compare(id.Name, other.Name))
}

// Uses remembers when each secret of some [Settings] was last found to have signed a notification. It is safe for concurrent
// use, and takes no lock. Settings that replace others remember with them: a secret that stays under its name, with its
// value, is one secret to both.
type Uses struct {
	secrets map[SecretID]*secretUse
}

type secretUse struct {
	value string
	last  atomic.Int64 // Unix nanoseconds; 0: not seen
}

// SecretUse is when a secret was last used; LastUsed is zero if that has not been seen.
type SecretUse struct {
	SecretID
	LastUsed time.Time
}

// Uses returns what is remembered of the secrets in force.
func (h *Handler) Uses() *Uses {
	if settings := h.settings.Load(); settings != nil {
		return settings.uses
	}
	return &Uses{}
}

// usesOf remembers for some accounts, together with what was in force before.
func usesOf(accounts map[string]*Account, before *Uses) *Uses {
	u := &Uses{secrets: make(map[SecretID]*secretUse)}
	add := func(id SecretID, secret signature.Secret) {
		id.Name = secret.Name
		if use := before.secrets[id]; use != nil && use.value == secret.Value {
			u.secrets[id] = use
			return
		}
		u.secrets[id] = &secretUse{value: secret.Value}
	}
	for name, account := range accounts {
		for _, secret := range account.Keys.MD5 {
			add(SecretID{Account: name, Scheme: signature.SchemeMD5}, secret)
		}
		for keyID, secrets := range account.Keys.HMAC {
			for _, secret := range secrets {
				add(SecretID{Account: name, Scheme: signature.SchemeHMAC, KeyID: keyID}, secret)
			}
		}
	}
	return u
}

// record remembers a use, unless a later one is known. A secret that is not configured is passed over.
func (u *Uses) record(id SecretID, at time.Time) {
	use := u.secrets[id]
	if use == nil {
		return
	}
	for nanos := at.UnixNano(); ; {
		last := use.last.Load()
		if last >= nanos || use.last.CompareAndSwap(last, nanos) {
			return
		}
	}
}

// Learn remembers the use that a stored notification bears witness to, if it does to one.
func (u *Uses) Learn(n *linksgatev1.Notification) {
	verification := n.GetVerification()
	for scheme, number := range schemes {
		if number == verification.GetScheme() {
			u.record(SecretID{n.GetAccount(), scheme, verification.GetKeyId(), verification.GetSecretName()}, n.GetReceivedAt().AsTime())
		}
	}
}

// List returns the secrets, ordered by account, scheme, key id and name.
func (u *Uses) List() []SecretUse {
	list := make([]SecretUse, 0, len(u.secrets))
	for id, use := range u.secrets {
		one := SecretUse{SecretID: id}
		if last := use.last.Load(); last != 0 {
			one.LastUsed = time.Unix(0, last).UTC()
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b SecretUse) int { return a.compare(b.SecretID) })
	return list
}
