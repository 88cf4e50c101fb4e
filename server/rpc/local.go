package rpc

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// localBuffer is what a connection within the process holds in each direction, and what each of its streams may hold unread:
// the least that HTTP/2 takes. It bounds what a reader that does not read costs.
const localBuffer = 64 << 10

// Connect returns a client of the server within this process. It needs no address and no certificate, goes through everything
// else that other clients go through, and works once Serve was called, until Shutdown. The caller closes it.
func (s *Server) Connect(options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///linksgate", append(options,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.local.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(localBuffer),
	)...)
}

// publicCredentials are asked of connections that come from outside this process.
type publicCredentials struct {
	credentials.TransportCredentials
	local net.Addr // of connections that come from within
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c publicCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if conn.LocalAddr() == c.local {
		return insecure.NewCredentials().ServerHandshake(conn)
	}
	return c.TransportCredentials.ServerHandshake(conn)
}

// Clone implements [credentials.TransportCredentials].
func (c publicCredentials) Clone() credentials.TransportCredentials {
	return publicCredentials{c.TransportCredentials.Clone(), c.local}
}
