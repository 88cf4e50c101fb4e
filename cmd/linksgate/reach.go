package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// examineTimeout bounds an examination. What does not answer in time may be a gateway that is busy.
const examineTimeout = 5 * time.Second

// greeting is how an HTTP/2 client begins: the preface and a frame of no settings.
const greeting = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// rightPort is what to look at when something else than gRPC answers.
const rightPort = "give the port of the gateway's gRPC, which is 9090 unless listen.grpc says another"

// errHungUp: a connection was ended without a word. What speaks TLS only does so to others, and so does what is about to stop.
var errHungUp = errors.New("the connection was closed without an answer")

// examine connects to an address that gRPC got no stream from, and returns an error if what is there can never give one to a client
// with these flags, whatever gRPC made of it: it tells all failures to connect by one code. The error says what to do. Nil: there
// is nothing there, or nothing that trying again could not mend.
func (c *connection) examine(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	config, err := c.tlsConfig()
	if err != nil {
		return err
	}
	if config == nil {
		return examinePlain(ctx, address)
	}
	return examineTLS(ctx, address, config)
}

// examineFailure examines an address after a call that failed. Nil if that was for another reason than the connection.
func (c *connection) examineFailure(failed *status.Status, address string) error {
	if info, _ := details(failed); failed.Code() != codes.Unavailable || info != nil {
		return nil
	}
	return c.examine(context.Background(), address)
}

func examinePlain(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil // one that is to come may be there next time
	}
	defer conn.Close()
	what, err := greet(ctx, conn)
	if errors.Is(err, errHungUp) && speaksTLS(ctx, address) {
		what, err = "TLS", nil
	}
	switch {
	case err != nil || what == "":
		return nil
	case what == "TLS":
		return fmt.Errorf("%s speaks TLS: connect with --tls, or with --ca FILE if its certificate is not signed by an authority that the system trusts", visible(address))
	}
	return fmt.Errorf("%s speaks %s, not gRPC: %s", visible(address), what, rightPort)
}

func examineTLS(ctx context.Context, address string, config *tls.Config) error {
	config.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return explainTLS(address, err)
	}
	defer conn.Close()
	what, err := greet(ctx, conn)
	switch {
	case err != nil:
		return explainTLS(address, err) // a client without a certificate is refused after the handshake
	case what != "":
		return fmt.Errorf("%s speaks %s, not gRPC: %s", visible(address), what, rightPort)
	case conn.(*tls.Conn).ConnectionState().NegotiatedProtocol != "h2":
		return fmt.Errorf("%s speaks HTTP/2, but does not say so in the TLS handshake, as gRPC needs: let the proxy there offer h2 (ALPN)", visible(address))
	}
	return nil
}

// explainTLS says what to do about a failure to connect with TLS; nil: try again.
func explainTLS(address string, err error) error {
	var noTLS tls.RecordHeaderError
	var untrusted *tls.CertificateVerificationError
	where := visible(address)
	switch {
	case errors.As(err, &noTLS):
		return fmt.Errorf("%s does not speak TLS: connect without --tls and --ca; or is it another port? If so, %s", where, rightPort)
	case errors.As(err, &untrusted):
		advice := "--ca FILE names the certificates to trust"
		var name x509.HostnameError
		var invalid x509.CertificateInvalidError
		switch {
		case errors.As(err, &name):
			advice = "connect by a name that the certificate has"
		case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
			advice = "the gateway needs a new one, or this machine's clock is wrong"
		}
		return fmt.Errorf("the certificate of %s is not trusted: %s\n  %s", where, escaped(untrusted.Err.Error()), advice)
	case alertOf(err) == "tls: no application protocol":
		return fmt.Errorf("%s speaks TLS, but not gRPC: %s", where, rightPort)
	case alertOf(err) != "":
		return fmt.Errorf("%s refuses the TLS connection: %s\n  if it asks for a client certificate (client_ca_file): --cert FILE and --key FILE show one",
			where, escaped(alertOf(err)))
	}
	return nil
}

// greet begins to speak HTTP/2, and returns what the other side speaks instead; "" if it does speak HTTP/2.
func greet(ctx context.Context, conn net.Conn) (string, error) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, greeting); err != nil {
		return "", hungUp(err)
	}
	const frameHeader = 9
	answer := make([]byte, frameHeader)
	n, err := io.ReadFull(conn, answer)
	const typeAt, settings, alert, handshake = 3, 4, 21, 22
	switch {
	case n == 0, errors.Is(err, os.ErrDeadlineExceeded):
		return "", hungUp(err)
	case n == frameHeader && answer[typeAt] == settings:
		return "", nil
	case bytes.HasPrefix(answer, []byte("HTTP/1")):
		return "HTTP/1.1", nil
	case n > 1 && (answer[0] == alert || answer[0] == handshake) && answer[1] == 3:
		return "TLS", nil
	}
	return "something else", nil
}

func hungUp(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return errHungUp
	}
	return cmp.Or(err, errHungUp)
}

// speaksTLS reports whether an address answers a TLS handshake, whoever it is: nothing is said to it.
func speaksTLS(ctx context.Context, address string) bool {
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}).DialContext(ctx, "tcp", address)
	if err == nil {
		conn.Close()
	}
	return err == nil || alertOf(err) != ""
}

// alertOf is what the other side said that ended a TLS connection; "" if that is not how it ended.
func alertOf(err error) string {
	const remote = "remote error" // by package tls, whose type of it is not exported
	if failed := new(net.OpError); errors.As(err, &failed) && failed.Op == remote {
		return failed.Err.Error()
	}
	return ""
}
