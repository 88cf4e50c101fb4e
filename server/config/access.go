package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/payload"
)

// Access says who may do what over gRPC, over REST and at the admin address. Without it everybody may do everything, which is refused
// for addresses that other machines reach.
type Access struct {
	// Callers by name: lower-case letters, digits and hyphens.
	Callers map[string]Caller `yaml:"callers"`
	// Anonymous is what those may do who show no credential. Default: nothing.
	Anonymous *Anonymous `yaml:"anonymous"`
	// Issuers of JWTs, by a name of the operator's.
	Issuers map[string]Issuer `yaml:"issuers"`
	// ProtectMetrics makes /metrics need the right admin. Default false: a monitoring system needs no credential.
	ProtectMetrics bool `yaml:"protect_metrics"`
}

// Caller is one caller: how it is known (any of these ways), and what it may do.
type Caller struct {
	// Tokens, of which linksgate token new makes one, and the lines to put here.
	Tokens []Token `yaml:"tokens"`
	// Certificates are names in client certificates: spiffe://…, dns:…, or subject:CN=….
	Certificates []string `yaml:"certificates"`
	// JWT is what a JWT must say.
	JWT []JWTIdentity `yaml:"jwt"`
	// Grants are its rights.
	Grants Grants `yaml:"grants"`
	// Limits bound what it can use up.
	Limits CallerLimits `yaml:"limits"`
}

// Anonymous are the rights of those who show no credential.
type Anonymous struct {
	Grants Grants       `yaml:"grants"`
	Limits CallerLimits `yaml:"limits"`
}

// Token is a bearer token, of which only the digest is here.
type Token struct {
	// Name tells it from the others of its caller. Default: the first 8 digits of the digest.
	Name string `yaml:"name"`
	// SHA256 of the token, in hexadecimal.
	SHA256 string `yaml:"sha256"`
	// Expires is a date such as 2027-03-31, at whose end (UTC) the token ends, or a time in RFC 3339. Default: never.
	Expires string `yaml:"expires"`
}

// JWTIdentity is what a JWT of an issuer must say: Subject or Group.
type JWTIdentity struct {
	// Issuer is the name of one of Access.Issuers.
	Issuer string `yaml:"issuer"`
	// Subject is the value of the issuer's caller_claim.
	Subject string `yaml:"subject"`
	// Group is one of the values of the issuer's groups_claim.
	Group string `yaml:"group"`
}

// Grants are rights. What is not set is not granted.
type Grants struct {
	Read *ReadGrant `yaml:"read"`
	// Work is the groups in which it may be a member, by name or with * and ?.
	Work    []string      `yaml:"work"`
	Operate *OperateGrant `yaml:"operate"`
	// Admin may see the configuration, uses of secrets, all subscriptions and the audit log.
	Admin bool `yaml:"admin"`
}

// ReadGrant lets notifications be read.
type ReadGrant struct {
	// Accounts by name, or "*" for all. Required.
	Accounts []string `yaml:"accounts"`
	// Kinds by the name in the URL. Default: all.
	Kinds []string `yaml:"kinds"`
}

// OperateGrant lets quarantine, parked notifications and groups be administered. With all accounts, SIMs can be erased.
type OperateGrant struct {
	// Accounts by name, or "*" for all. Required.
	Accounts []string `yaml:"accounts"`
}

// CallerLimits bound what a caller may use at one gateway. 0: unlimited.
type CallerLimits struct {
	// Streams open at once.
	Streams int `yaml:"streams"`
	// RequestsPerSecond that it may begin.
	RequestsPerSecond float64 `yaml:"requests_per_second"`
	// ReplayPerSecond is how much may be sent to its subscriptions that are behind, such as 50MiB; at least 1MiB.
	ReplayPerSecond Size `yaml:"replay_per_second"`
}

// Issuer makes JWTs that are trusted.
type Issuer struct {
	// Issuer is what its JWTs say in iss. Required.
	Issuer string `yaml:"issuer"`
	// Audience is what they must have in aud. Required: a JWT that was made for another service is not for this one.
	Audience string `yaml:"audience"`
	// JWKSURL is where its keys are; JWKSFile is a file with them. Exactly one of them.
	JWKSURL  string `yaml:"jwks_url"`
	JWKSFile string `yaml:"jwks_file"`
	// CAFile is trusted at JWKSURL instead of the system's authorities.
	CAFile string `yaml:"ca_file"`
	// Leeway is how far the clocks may differ. Default 30s, at most 5m.
	Leeway *Duration `yaml:"leeway"`
	// CallerClaim says who the caller is. Default sub.
	CallerClaim string `yaml:"caller_claim"`
	// GroupsClaim lists its groups. Default: none.
	GroupsClaim string `yaml:"groups_claim"`
}

const (
	defaultLeeway    = 30 * time.Second
	maxLeeway        = 5 * time.Minute
	minReplayRate    = 1 << 20
	maxGrantAccounts = 100 // what a filter may have
	shortDigest      = 8
)

var workPattern = regexp.MustCompile(`^[a-z0-9*?-]{1,63}$`)

// build checks who may do what. accounts are those that are configured.
func (c *Access) build(accounts map[string]Account, f files, p *problems) access.Policy {
	if c == nil {
		return access.Policy{Open: true}
	}
	policy := access.Policy{ProtectMetrics: c.ProtectMetrics}
	if c.Anonymous != nil {
		policy.Anonymous = c.Anonymous.Grants.build("access.anonymous.grants", accounts, p)
		policy.AnonymousLimits = c.Anonymous.Limits.build("access.anonymous.limits", p)
	}
	urls := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		issuer := c.Issuers[name]
		where := "access.issuers." + name
		if other := urls[issuer.Issuer]; other != "" {
			p.add(where+".issuer", "is that of %s already", other)
		}
		urls[issuer.Issuer] = name
		policy.Issuers = append(policy.Issuers, issuer.build(where, name, f, p))
	}
	used := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(c.Callers)) {
		where := "access.callers." + name
		if !accountName.MatchString(name) || name == access.Anonymous || name == access.Unknown {
			p.add(where, "a caller's name has 1 to 63 lower-case letters, digits and hyphens, and is not %s or %s", access.Anonymous, access.Unknown)
		}
		policy.Callers = append(policy.Callers, c.caller(name, where, used, accounts, p))
	}
	if len(c.Callers) == 0 && c.Anonymous == nil {
		p.add("access", "has no callers, so nobody could do anything: add some to access.callers, or say in access.anonymous.grants what everybody may do")
	}
	return policy
}

// caller checks one caller. used are the credentials of all callers, and where they are: each must be of one.
func (c *Access) caller(name, where string, used map[string]string, accounts map[string]Account, p *problems) access.CallerPolicy {
	caller := c.Callers[name]
	built := access.CallerPolicy{
		Name: name, Certificates: caller.Certificates,
		Grants: caller.Grants.build(where+".grants", accounts, p), Limits: caller.Limits.build(where+".limits", p),
	}
	names := make(map[string]bool)
	for i, token := range caller.Tokens {
		where := fmt.Sprintf("%s.tokens[%d]", where, i)
		one := token.build(where, p)
		p.once(used, where, ".sha256", one.Digest.String())
		if names[one.Name] {
			p.add(where+".name", "%q is another one's already", one.Name)
		}
		names[one.Name] = true
		built.Tokens = append(built.Tokens, one)
	}
	for i, name := range caller.Certificates {
		where := fmt.Sprintf("%s.certificates[%d]", where, i)
		if !access.IsCertificateName(name) {
			p.add(where, "%q is not spiffe://…, dns:… or subject:…", name)
		}
		p.once(used, where, "", "certificate "+name)
	}
	for i, identity := range caller.JWT {
		where := fmt.Sprintf("%s.jwt[%d]", where, i)
		issuer, known := c.Issuers[identity.Issuer]
		switch {
		case !known:
			p.add(where+".issuer", "%q is not one of access.issuers", identity.Issuer)
		case (identity.Subject == "") == (identity.Group == ""):
			p.add(where, "exactly one of subject and group must be set")
		case identity.Group != "" && issuer.GroupsClaim == "":
			p.add(where+".group", "needs access.issuers.%s.groups_claim", identity.Issuer)
		}
		p.once(used, where, "", fmt.Sprint("jwt ", identity))
		built.JWTs = append(built.JWTs, access.JWTIdentity(identity))
	}
	if len(caller.Tokens)+len(caller.Certificates)+len(caller.JWT) == 0 {
		p.add(where, "cannot be known: it has no tokens, certificates or jwt; linksgate token new %s makes a token", name)
	}
	return built
}

// once reports a credential that another caller has already. what is the key that holds it, below where.
func (p *problems) once(used map[string]string, where, what, credential string) {
	if other := used[credential]; other != "" {
		p.add(where+what, "is that of %s already", other)
	}
	used[credential] = where
}

func (c Token) build(where string, p *problems) access.Token {
	token := access.Token{Name: c.Name}
	var err error
	if token.Digest, err = access.ParseDigest(c.SHA256); err != nil {
		p.add(where+".sha256", "%w", err)
		return token
	}
	setDefault(&token.Name, token.Digest.String()[:shortDigest])
	if c.Expires == "" {
		return token
	}
	if day, err := time.Parse(time.DateOnly, c.Expires); err == nil {
		token.Expires = day.AddDate(0, 0, 1)
	} else if token.Expires, err = time.Parse(time.RFC3339, c.Expires); err != nil {
		p.add(where+".expires", "%q is not a date such as 2027-03-31, nor a time in RFC 3339", c.Expires)
		return token
	}
	switch left := time.Until(token.Expires); {
	case left <= 0:
		p.warn(where+".expires", "the token has expired")
	case left < expiryWarning:
		p.warn(where+".expires", "the token expires in %d days: add another one beside it", int(left/(24*time.Hour)))
	}
	return token
}

func (c Grants) build(where string, accounts map[string]Account, p *problems) access.Grants {
	grants := access.Grants{WorkGroups: c.Work, Admin: c.Admin}
	if c.Read != nil {
		grants.ReadAccounts = buildAccounts(where+".read.accounts", c.Read.Accounts, accounts, p)
		grants.ReadKinds = buildKinds(where+".read.kinds", c.Read.Kinds, p)
	}
	if c.Operate != nil {
		grants.OperateAccounts = buildAccounts(where+".operate.accounts", c.Operate.Accounts, accounts, p)
	}
	for _, pattern := range c.Work {
		if _, err := path.Match(pattern, ""); err != nil || !workPattern.MatchString(pattern) {
			p.add(where+".work", "%q is not the name of a group, nor a pattern of one with * and ?", pattern)
		}
	}
	return grants
}

func buildAccounts(where string, names []string, accounts map[string]Account, p *problems) access.Accounts {
	if slices.Equal(names, []string{"*"}) {
		return access.Accounts{All: true}
	}
	switch {
	case len(names) == 0:
		p.add(where, `must name accounts, or be ["*"] for all`)
	case len(names) > maxGrantAccounts:
		p.add(where, "has %d accounts, at most %d", len(names), maxGrantAccounts)
	}
	for _, name := range names {
		switch _, known := accounts[name]; {
		case name == "*":
			p.add(where, "* is all accounts, and stands alone")
		case !known: // it may have been removed, and its notifications are there still
			p.warn(where, "there is no account %q now", name)
		}
	}
	return access.Accounts{Names: names}
}

func buildKinds(where string, names []string, p *problems) (kinds []linksgatev1.NotificationKind) {
	for _, name := range names {
		kind, ok := payload.KindByName(name)
		if !ok {
			p.add(where, "no such kind as %q; the kinds are %s", name, strings.Join(payload.KindNames(payload.Kinds()), ", "))
		}
		kinds = append(kinds, kind)
	}
	return kinds
}

func (c CallerLimits) build(where string, p *problems) access.Limits {
	if c.Streams < 0 || c.RequestsPerSecond < 0 {
		p.add(where, "must not be negative")
	}
	if c.ReplayPerSecond != 0 && c.ReplayPerSecond < minReplayRate {
		p.add(where+".replay_per_second", "must be at least 1MiB: a record batch must pass within a heartbeat")
	}
	return access.Limits{Streams: c.Streams, RequestsPerSecond: c.RequestsPerSecond, ReplayBytesPerSecond: int64(c.ReplayPerSecond)}
}

func (c Issuer) build(where, name string, f files, p *problems) access.Issuer {
	built := access.Issuer{
		Name: name, URL: c.Issuer, Audience: c.Audience, KeysURL: c.JWKSURL, Leeway: defaultLeeway, CallerClaim: c.CallerClaim, GroupsClaim: c.GroupsClaim,
	}
	setDefault(&built.CallerClaim, "sub")
	if c.Leeway != nil {
		built.Leeway = time.Duration(*c.Leeway)
	}
	if built.Leeway > maxLeeway {
		p.add(where+".leeway", "%v is more than %v: mend the clock", built.Leeway, maxLeeway)
	}
	if c.Issuer == "" {
		p.add(where+".issuer", "must be what its JWTs say in iss")
	}
	if c.Audience == "" {
		p.add(where+".audience", "must be what its JWTs have in aud: one that was made for another service is not for this one")
	}
	if c.CAFile != "" {
		var err error
		built.CA, err = f.read(c.CAFile)
		p.check(where+".ca_file", err)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(built.CA) {
			p.add(where+".ca_file", "%s holds no certificate", c.CAFile)
		}
	}
	switch {
	case (c.JWKSURL == "") == (c.JWKSFile == ""):
		p.add(where, "exactly one of jwks_url and jwks_file must say where its keys are")
	case c.JWKSURL != "":
		p.check(where+".jwks_url", checkKeysURL(c.JWKSURL))
	default:
		var err error
		if built.Keys, err = f.read(c.JWKSFile); err == nil {
			err = access.CheckKeys(built.Keys)
		}
		p.check(where+".jwks_file", err)
	}
	return built
}

// checkKeysURL refuses a URL from which keys could not be trusted.
func checkKeysURL(text string) error {
	address, err := url.Parse(text)
	switch {
	case err != nil || address.Host == "":
		return fmt.Errorf("%q is not a URL such as https://login.example.com/keys", text)
	case address.Scheme == "https", address.Scheme == "http" && isLoopback(address.Hostname()):
		return nil
	}
	return errors.New("must begin with https: whoever is on the way could give keys of its own")
}

// isLoopback reports whether only this machine reaches a host.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkReach refuses addresses that other machines reach while nothing protects them. What is meant so is said so, in the configuration.
func (c Config) checkReach(p *problems) {
	for _, name := range c.Listen.Plaintext {
		if !slices.Contains([]string{"webhook", "grpc", "rest", "admin"}, name) {
			p.add("listen.plaintext", "%q is not one of webhook, grpc, rest, admin", name)
		}
	}
	for _, one := range []struct {
		name, address string
		tls           *TLS
		callers       bool // it has some
	}{
		{"webhook", c.Listen.Webhook, c.Webhook.TLS, false}, {"grpc", c.Listen.GRPC, c.GRPC.TLS, true},
		{"rest", c.Listen.REST, c.REST.TLS, true}, {"admin", c.Listen.Admin, c.Admin.TLS, true},
	} {
		host, _, err := net.SplitHostPort(one.address)
		if err != nil || isLoopback(host) {
			continue
		}
		if one.tls == nil && !slices.Contains(c.Listen.Plaintext, one.name) {
			p.add("listen."+one.name, "%s can be reached from other machines without TLS, so that whoever is on the way reads and changes what is sent: "+
				"set %s.tls, or add %[2]s to listen.plaintext if a proxy in front ends TLS", one.address, one.name)
		}
		if one.callers && c.Access == nil && (one.tls == nil || one.tls.ClientCAFile == "") {
			p.add("listen."+one.name, "%s can be reached from other machines, and whoever reaches it may read every account, release, purge and erase: "+
				"set access.callers, or %s.tls.client_ca_file, or say in access.anonymous.grants what everybody may do", one.address, one.name)
		}
	}
}
