package config

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/webhook"
)

// fingerprint is equal for configurations that say the same and name files of the same content.
type fingerprint [sha256.Size]byte

// examine checks a configuration and reads what it names.
func examine(c Config) Checked {
	f := make(files)
	found, err := c.withDefaults().build(f)
	found.err = err
	text, _ := json.Marshal(found.Config) // cannot fail: it holds strings, numbers, lists and maps
	texts := []string{string(text)}
	for _, path := range slices.Sorted(maps.Keys(f)) {
		texts = append(texts, path, string(f[path].data), fmt.Sprint(f[path].err))
	}
	found.fingerprint = fingerprintOf(texts...)
	return found
}

func fingerprintOf(texts ...string) fingerprint {
	hash := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(hash, "%d:%s", len(text), text) // the length keeps one text from running into the next
	}
	return fingerprint(hash.Sum(nil))
}

// needsRestart returns the keys that differ from what the gateway was started with and cannot change while it runs.
func (c Checked) needsRestart(started Checked) []string {
	before, after := started.Config.fixed(), c.Config.fixed()
	keys := []string{}
	for _, key := range keysOfBoth(before, after) {
		if before[key] != after[key] {
			keys = append(keys, key)
		}
	}
	had, has := started.TLS.ByName(), c.TLS.ByName()
	for _, name := range slices.Sorted(maps.Keys(has)) {
		if (had[name] == nil) != (has[name] == nil) { // else what is in it is applied
			keys = append(keys, name+".tls")
		}
	}
	return keys
}

func sameTLS(a, b *tls.Config) bool {
	return slices.EqualFunc(a.Certificates[0].Certificate, b.Certificates[0].Certificate, bytes.Equal) && a.ClientCAs.Equal(b.ClientCAs) &&
		a.ClientAuth == b.ClientAuth
}

// fixed returns what cannot change while the gateway runs, as text by key: everything but what can, so that a new key is
// never passed over in silence.
func (c Config) fixed() map[string]string {
	c.Accounts, c.Access, c.Webhook.TrustedProxies = nil, nil, nil
	c.Webhook.TLS, c.GRPC.TLS, c.REST.TLS, c.Admin.TLS = nil, nil, nil, nil
	keys := make(map[string]string)
	flatten("", reflect.ValueOf(c), keys)
	return keys
}

// flatten collects what is set in a part of a configuration, by the keys of the configuration file.
func flatten(prefix string, value reflect.Value, into map[string]string) {
	isSet := !value.IsZero()
	if value.Kind() == reflect.Pointer && isSet {
		value = value.Elem()
	}
	if value.Kind() == reflect.Struct {
		for i := range value.NumField() {
			key, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("yaml"), ",")
			flatten(strings.TrimPrefix(prefix+"."+key, "."), value.Field(i), into)
		}
	} else if isSet {
		text, _ := json.Marshal(value.Interface())
		into[prefix] = string(text)
	}
}

// changesBetween says what differs between two configurations and is applied, by the names of accounts, secrets, kinds and callers.
func changesBetween(before, after Checked) []string {
	changes := append(settingsChanges(before.Settings, after.Settings), accessChanges(before.Access, after.Access)...)
	had, has := before.TLS.ByName(), after.TLS.ByName()
	for _, name := range slices.Sorted(maps.Keys(has)) {
		if had[name] != nil && has[name] != nil && !sameTLS(had[name], has[name]) {
			changes = append(changes, name+".tls: new certificates")
		}
	}
	return changes
}

// accessChanges says whose rights or credentials differ.
func accessChanges(before, after access.Policy) (changes []string) {
	byName := func(p access.Policy) map[string]access.CallerPolicy {
		callers := make(map[string]access.CallerPolicy, len(p.Callers))
		for _, caller := range p.Callers {
			callers[caller.Name] = caller
		}
		return callers
	}
	old, now := byName(before), byName(after)
	for _, name := range keysOfBoth(old, now) {
		where := "access.callers." + name
		_, was := old[name]
		_, is := now[name]
		switch {
		case !was:
			changes = append(changes, where+": added")
		case !is:
			changes = append(changes, where+": removed")
		case !old[name].Grants.Equal(now[name].Grants):
			changes = append(changes, where+": new grants")
		case !reflect.DeepEqual(old[name], now[name]):
			changes = append(changes, where+": new credentials or limits")
		}
	}
	if before.Open != after.Open || !before.Anonymous.Equal(after.Anonymous) || before.AnonymousLimits != after.AnonymousLimits {
		changes = append(changes, "access.anonymous: changed")
	}
	if !reflect.DeepEqual(before.Issuers, after.Issuers) {
		changes = append(changes, "access.issuers: changed")
	}
	if before.ProtectMetrics != after.ProtectMetrics {
		changes = append(changes, "access.protect_metrics: changed")
	}
	return changes
}

// settingsChanges says what differs of the accounts and the trusted proxies.
func settingsChanges(before, after webhook.Settings) []string {
	changes := []string{}
	for _, name := range keysOfBoth(before.Accounts, after.Accounts) {
		where, old, now := "accounts."+name, before.Accounts[name], after.Accounts[name]
		switch {
		case old == nil:
			changes, old = append(changes, where+": added"), new(webhook.Account)
		case now == nil:
			changes, now = append(changes, where+": removed"), new(webhook.Account)
		}
		changes = append(changes, accountChanges(where, old, now)...)
	}
	if !slices.Equal(before.TrustedProxies, after.TrustedProxies) {
		changes = append(changes, "webhook.trusted_proxies: changed")
	}
	return changes
}

func accountChanges(where string, before, after *webhook.Account) []string {
	changes := secretChanges(where+".md5_secrets", before.Keys.MD5, after.Keys.MD5)
	for _, id := range keysOfBoth(before.Keys.HMAC, after.Keys.HMAC) {
		changes = append(changes, secretChanges(where+".hmac_keys "+id, before.Keys.HMAC[id], after.Keys.HMAC[id])...)
	}
	if !slices.Equal(before.Keys.Readings, after.Keys.Readings) {
		changes = append(changes, where+".readings: changed")
	}
	for _, kind := range payload.Kinds() {
		if !samePolicy(before.Kinds[kind], after.Kinds[kind]) {
			changes = append(changes, where+".kinds."+payload.KindName(kind)+": changed")
		}
	}
	return changes
}

func samePolicy(a, b webhook.KindPolicy) bool {
	return a.Signature == b.Signature && a.PathToken == b.PathToken && slices.Equal(a.Sources, b.Sources) && a.Names.Equal(b.Names)
}

func secretChanges(where string, before, after []signature.Secret) []string {
	values := func(secrets []signature.Secret) map[string]string {
		byName := make(map[string]string, len(secrets))
		for _, secret := range secrets {
			byName[secret.Name] = secret.Value
		}
		return byName
	}
	old, now := values(before), values(after)
	var changes []string
	for _, name := range keysOfBoth(old, now) {
		switch {
		case old[name] == "":
			changes = append(changes, where+": added "+name)
		case now[name] == "":
			changes = append(changes, where+": removed "+name)
		case old[name] != now[name]:
			changes = append(changes, where+": new value of "+name)
		}
	}
	return changes
}

// keysOfBoth returns the keys of either map, in order.
func keysOfBoth[V any](a, b map[string]V) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b)))))
}
