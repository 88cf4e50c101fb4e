package access

import (
	"crypto/x509"
	"time"
)

// Policy is who may do what. It is not changed once a [Control] has it.
type Policy struct {
	// Open: nobody is asked who it is, and everybody may do everything. All else is then ignored.
	Open bool
	// Callers that are known.
	Callers []CallerPolicy
	// Anonymous are the rights, and the limits for all of them together, of those who show no credential.
	Anonymous       Grants
	AnonymousLimits Limits
	// Issuers of JWTs that are trusted.
	Issuers []Issuer
	// ProtectMetrics: metrics are for those who may administer.
	ProtectMetrics bool
}

// CallerPolicy is one caller: how it is known, and what it may do.
type CallerPolicy struct {
	// Name of the caller, unique.
	Name string
	// Tokens, any of which is good.
	Tokens []Token
	// Certificates are names in client certificates, any of which is good: see [MatchesCertificate].
	Certificates []string
	// JWTs are what a JWT must say, any of which is good.
	JWTs   []JWTIdentity
	Grants Grants
	Limits Limits
}

// Token is a bearer token, of which only the digest is known.
type Token struct {
	// Name tells it from the others of its caller.
	Name   string
	Digest Digest
	// Expires is when it is not good any more; zero: never.
	Expires time.Time
}

// JWTIdentity is what a JWT must say to be of a caller.
type JWTIdentity struct {
	// Issuer is the name of an [Issuer].
	Issuer string
	// Subject is the value of the issuer's caller claim. Or Group is one of those in its groups claim.
	Subject, Group string
}

// Limits of one caller, for all that it does at this gateway. Zero: unlimited.
type Limits struct {
	// Streams that may be open at once.
	Streams int
	// RequestsPerSecond is how many calls it may begin, on average; for a moment twice as many.
	RequestsPerSecond float64
	// ReplayBytesPerSecond is how fast a subscription that is behind the head is sent, all of the caller's together. What is live is
	// not bounded by it.
	ReplayBytesPerSecond int64
}

// Credentials are what a caller shows.
type Credentials struct {
	// Authorization are the values of the header of that name.
	Authorization []string
	// Certificate is the client certificate, verified; nil: none.
	Certificate *x509.Certificate
}

// certificatePrefixes tell by which name a certificate is known.
const (
	dnsPrefix     = "dns:"
	subjectPrefix = "subject:"
	spiffePrefix  = "spiffe://"
)

// IsCertificateName reports whether a text can match a certificate.
func IsCertificateName(text string) bool {
	for _, prefix := range []string{dnsPrefix, subjectPrefix, spiffePrefix} {
		if len(text) > len(prefix) && text[:len(prefix)] == prefix {
			return true
		}
	}
	return false
}

// MatchesCertificate reports whether a certificate has a name: a SPIFFE id (spiffe://…, its only URI), a DNS name (dns:…, one of its
// alternative names, compared as it is written) or a subject (subject:CN=…, in the form of RFC 2253).
func MatchesCertificate(name string, certificate *x509.Certificate) bool {
	switch {
	case len(name) > len(dnsPrefix) && name[:len(dnsPrefix)] == dnsPrefix:
		for _, dns := range certificate.DNSNames {
			if dns == name[len(dnsPrefix):] {
				return true
			}
		}
	case len(name) > len(subjectPrefix) && name[:len(subjectPrefix)] == subjectPrefix:
		return certificate.Subject.String() == name[len(subjectPrefix):]
	case len(certificate.URIs) == 1: // SPIFFE: a certificate with more than one is not valid
		return certificate.URIs[0].String() == name
	}
	return false
}
