package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/config"
)

// TestCertificatesAreTakenUp requires that new certificates and a new client CA hold for new handshakes on every listener, that streams
// that are open go on, and that a pair that does not fit changes nothing.
func TestCertificatesAreTakenUp(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	replace := func() (certificate string) {
		certificate, key := writeCertificate(t)
		o.write(t, "crt", readText(t, certificate))
		o.write(t, "key", readText(t, key))
		return readText(t, certificate)
	}
	first := replace()
	const files = "{tls: {cert_file: DIR/crt, key_file: DIR/key}}\n"
	cfg := head + "grpc: " + files + "rest: " + files + "webhook: " + files + "admin: " + files + newSecrets
	g := o.start(t, cfg, never)
	trusting := func(certificate string) *tls.Config {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(certificate))
		return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	shown := func(certificate string) map[string]bool {
		t.Helper()
		ok := make(map[string]bool)
		for name, address := range map[string]net.Addr{"grpc": g.GRPC, "rest": g.REST, "webhook": g.Webhook, "admin": g.Admin} {
			conn, err := tls.Dial("tcp", address.String(), trusting(certificate))
			if err == nil {
				err = conn.Handshake()
				conn.Close()
			}
			ok[name] = err == nil
		}
		return ok
	}
	all, none := map[string]bool{"grpc": true, "rest": true, "webhook": true, "admin": true}, map[string]bool{"grpc": false, "rest": false, "webhook": false, "admin": false}
	if got := shown(first); !maps.Equal(got, all) {
		t.Fatalf("at the start: %v", got)
	}
	conn, err := grpc.NewClient(g.GRPC.String(), grpc.WithTransportCredentials(credentials.NewTLS(trusting(first))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s, _ := subscribeOn(t, linksgatev1.NewNotificationServiceClient(conn), new(linksgatev1.SubscribeRequest))
	s.untilCaughtUp(t)

	_, otherKey := writeCertificate(t)
	o.write(t, "key", readText(t, otherKey))
	if line := o.change(t, g, cfg); !strings.Contains(strings.Join(line.Problems, " "), "private key does not match") {
		t.Errorf("a key of another certificate: %+v", line)
	}
	if got := shown(first); !maps.Equal(got, all) {
		t.Errorf("after a pair that does not fit: %v", got)
	}
	second := replace()
	line := o.change(t, g, cfg)
	if len(line.Changes) != 4 || !strings.Contains(strings.Join(line.Changes, " "), "admin.tls: new certificates") {
		t.Errorf("changes: %v", line.Changes)
	}
	if got := shown(second); !maps.Equal(got, all) {
		t.Errorf("the new certificate: %v", got)
	}
	if got := shown(first); !maps.Equal(got, none) {
		t.Errorf("the former one: %v", got)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trusting(second)}, Timeout: patience}
	defer client.CloseIdleConnections()
	request, err := makeSMS(t, 1).Request(t.Context(), "https://"+g.Webhook.String()+"/linksfield/acme")
	if err != nil {
		t.Fatal(err)
	}
	if response, err := client.Do(request); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("a notification: %v, %v", response, err)
	}
	s.notifications(t, 1)
	response, err := client.Get("https://" + g.Admin.String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(metrics), `linksgate_tls_certificate_not_after_timestamp_seconds{listener="grpc"}`) {
		t.Error("the metrics do not say when the certificate ends")
	}
}

// TestClientCertificates requires that a caller is known by its certificate over gRPC and over REST, that one that is nobody's is
// anonymous, and that a token goes before it.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	cfg, callers := guardedConfig(t)
	certificate, key := writeCertificate(t) // is CN=gateway, and its own authority
	files := &config.TLS{CertFile: certificate, KeyFile: key, ClientCAFile: certificate, ClientCertificates: "optional"}
	cfg.GRPC.TLS, cfg.REST.TLS = files, files
	billing := cfg.Access.Callers["billing"]
	billing.Certificates = []string{"subject:CN=gateway"}
	cfg.Access.Callers["billing"] = billing
	g := startGateway(t, cfg)
	g.deliver(t, "/linksfield/acme/sms-received", makeSMS(t, 1))
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(readText(t, certificate)))
	ask := func(certificates []tls.Certificate, token string) (codes.Code, int, string) {
		shown := &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS12}
		options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(shown))}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+g.REST.String()+"/v1/quarantine", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			options = append(options, grpc.WithPerRPCCredentials(authorization{"Bearer " + token}))
			request.Header.Set("Authorization", "Bearer "+token)
		}
		conn, err := grpc.NewClient(g.GRPC.String(), options...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = linksgatev1.NewQuarantineServiceClient(conn).GetQuarantineInfo(t.Context(), &linksgatev1.GetQuarantineInfoRequest{})
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: shown}, Timeout: patience}
		defer client.CloseIdleConnections()
		response, restErr := client.Do(request)
		if restErr != nil {
			t.Fatal(restErr)
		}
		response.Body.Close()
		return status.Code(err), response.StatusCode, fmt.Sprint(err)
	}
	for name, tt := range map[string]struct {
		certificates []tls.Certificate
		token        string
		code         codes.Code
		http         int
		text         string
	}{
		"nothing":              {nil, "", codes.Unauthenticated, 401, "no credential"},
		"a certificate":        {[]tls.Certificate{pair}, "", codes.PermissionDenied, 403, "billing does not have the right to operate"},
		"and a token":          {[]tls.Certificate{pair}, callers.root.token, codes.OK, 200, ""},
		"and one that is none": {[]tls.Certificate{pair}, access.NewToken(), codes.Unauthenticated, 401, "not known"},
		"a token alone":        {nil, callers.root.token, codes.OK, 200, ""},
	} {
		if code, httpStatus, text := ask(tt.certificates, tt.token); code != tt.code || httpStatus != tt.http || !strings.Contains(text, tt.text) {
			t.Errorf("%s: %v, %d, %s; want %v, %d, %q", name, code, httpStatus, text, tt.code, tt.http, tt.text)
		}
	}
}
