package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// An address at which nobody is, and a name of which one address is dead, cost a moment.
func TestDeadAddressesArePassedOver(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.send(3)
		_, port, err := net.SplitHostPort(g.GRPC)
		if err != nil {
			t.Fatal(err)
		}
		dead, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = dead.Close()
		for _, addresses := range [][]string{{dead.Addr().String(), g.GRPC}, {"localhost:" + port}} {
			h := c.start(t, order{"mode": "subscribe", "addresses": addresses, "start": "earliest", "until_head": true})
			h.endsWith("")
			exactly(t, h.so("notification"), 3)
		}
	})
}

// A token of a log that went on after a copy of it was made means nothing to the copy.
func TestATokenOfARestoredCopy(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		original := t.TempDir()
		g := startGatewayOn(t, original)
		g.send(5)
		g.stopped()
		restored := t.TempDir()
		if err := os.CopyFS(restored, os.DirFS(original)); err != nil {
			t.Fatal(err)
		}
		g.start()
		g.send(5)
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "earliest", "until_head": true})
		h.endsWith("")
		exactly(t, h.so("notification"), 10)
		token := h.so("notification")[9].Token
		other := startGatewayOn(t, restored)
		other.send(5)
		c.start(t, order{"mode": "subscribe", "addresses": []string{other.GRPC}, "start": "after:" + token}).endsWith("DataLoss")
	})
}

// authority returns a certificate of a server on loopback, and the PEM of an authority that vouches for it alone.
func authority(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		}
	}
	issuer, leaf := template("authority of "+t.Name()), template("server of "+t.Name())
	issuer.IsCA, issuer.KeyUsage = true, x509.KeyUsageCertSign
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	issuerKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuerDER, err := x509.CreateCertificate(rand.Reader, issuer, issuer, issuerKey.Public(), issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, issuer, leafKey.Public(), issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuerDER})
}

// A server's certificate, and the file of the authority that made it, are replaced while a client runs.
func TestCertificatesAreReplaced(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		var current atomic.Pointer[tls.Certificate]
		first, firstPEM := authority(t)
		second, secondPEM := authority(t)
		current.Store(&first)
		ca := filepath.Join(t.TempDir(), "ca.pem")
		write := func(data []byte) {
			if err := os.WriteFile(ca, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(firstPEM)
		config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }}
		s := startScripted(t, config, func(_ *linksgatev1.SubscribeRequest, stream grpc.ServerStreamingServer[linksgatev1.SubscribeResponse]) error {
			if err := sayAll(stream, confirmed(), batch("1", numbered("1", "{}"))); err != nil {
				return err
			}
			time.Sleep(300 * time.Millisecond)
			return refusal(codes.Unavailable, "DRAINING", nil)
		})
		h := c.start(t, order{"mode": "subscribe", "addresses": []string{s.address}, "start": "earliest", "ca_file": ca})
		h.await("notification", 1)
		current.Store(&second)
		write(secondPEM)
		seen := len(h.so("notification"))
		h.await("notification", seen+2)
		h.stop()
		// Without the right authority nothing comes.
		current.Store(&first)
		wrong := c.start(t, order{"mode": "subscribe", "addresses": []string{s.address}, "start": "earliest", "ca_file": ca})
		time.Sleep(2 * time.Second)
		if got := wrong.so("notification"); len(got) > 0 {
			t.Error("a certificate that nobody vouches for was believed")
		}
		wrong.stop()
	})
}

// Credentials and names go with each call of a worker too, which the gateway shows.
func TestAWorkerIsKnownByItsName(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.group(unordered, 30*time.Second)
		h := c.start(t, worker(g, order{"client_name": "night shift", "parallel": 3}))
		eventually(t, "it is a member", func() bool {
			return slices.ContainsFunc(g.status().GetMembers(), func(m *linksgatev1.GroupMember) bool {
				return m.GetClientName() == "night shift" && m.GetMaxInFlight() == 6
			})
		})
		if said := h.stop(); said.Error != "" {
			t.Error(strings.TrimSpace(said.Detail))
		}
		eventually(t, "it has left", func() bool { return len(g.status().GetMembers()) == 0 })
	})
}
