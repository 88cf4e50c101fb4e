package rest

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Hosts are the names by which an address may be asked for.
//
// A page in a browser reaches what listens on loopback of its machine, and reads and changes everything there once the name that
// it came from is made to resolve to 127.0.0.1 (DNS rebinding): for the browser the answers are the page's own. What gives it away
// is the Host of its requests, which is that name.
type Hosts struct {
	names      []string // in the form of hostName
	everywhere bool     // else only for requests that come in on loopback
}

// NewHosts returns localhost, IP addresses and the names that are allowed, for all requests or only for those on loopback.
func NewHosts(allowed []string, everywhere bool) Hosts {
	h := Hosts{names: []string{"localhost"}, everywhere: everywhere}
	for _, name := range allowed {
		h.names = append(h.names, hostName(name))
	}
	return h
}

// hostName is a name in the form in which names are compared.
func hostName(text string) string { return strings.TrimSuffix(strings.ToLower(text), ".") }

// check refuses a request that asks for any other name. An IP address is none: nobody can make it resolve to another one. No name at
// all is fine too: a browser always sends one, and a health check in HTTP/1.0 may not.
func (h Hosts) check(r *http.Request) error {
	if !h.everywhere && !onLoopback(r) || r.Host == "" {
		return nil
	}
	asked := hostName((&url.URL{Host: r.Host}).Hostname())
	if _, err := netip.ParseAddr(asked); err == nil || slices.Contains(h.names, asked) {
		return nil
	}
	return fmt.Errorf("%.100q is not a name of this gateway: names beside localhost and IP addresses are set with rest.allowed_hosts", r.Host)
}

// onLoopback reports whether a request came in on a loopback address.
func onLoopback(r *http.Request) bool {
	address, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && address.IP.IsLoopback()
}

// Guard has a handler answer only those who ask for it by one of the names.
func (h Hosts) Guard(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.check(r); err != nil {
			http.Error(w, err.Error(), http.StatusMisdirectedRequest)
			return
		}
		handler.ServeHTTP(w, r)
	})
}
