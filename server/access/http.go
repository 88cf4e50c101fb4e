package access

import "net/http"

// Challenge is the header WWW-Authenticate of an HTTP answer to those who showed no credential that is known.
const Challenge = `Bearer realm="linksgate"`

// ShownIn returns the credentials of an HTTP request.
func ShownIn(r *http.Request) Credentials {
	shown := Credentials{Authorization: r.Header.Values("Authorization")}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		shown.Certificate = r.TLS.PeerCertificates[0]
	}
	return shown
}
