package server

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// The descriptors of a process are shared between its connections and its log. Were there no bound, whoever opens connections and does
// nothing with them would leave none for the log's next file.
const (
	// ownDescriptors are kept for the log, and for what the process needs beside connections.
	ownDescriptors = 256
	// mostConnections bounds each listener where descriptors are plenty.
	mostConnections = 16_384
)

// shares are the parts of the descriptors, in percent, that the listeners may use.
var shares = struct{ webhook, grpc, rest, admin uint64 }{50, 25, 20, 5}

// connectionLimit is how many connections a listener may have that gets a share of the descriptors.
func connectionLimit(share uint64) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		limit.Cur = 1024 // the least that systems give
	}
	own := min(uint64(ownDescriptors), limit.Cur/2)
	return int(max(min((limit.Cur-own)*share/100, mostConnections), 4))
}

// bounded is a listener with a bound for its connections, and one of half of that for those of one source, so that there is room for
// others. A connection over a bound is closed at once.
type bounded struct {
	net.Listener
	most int
	// makeRoom, if not nil, closes a connection of a source (the zero value: of any) that nothing is lost by. It reports false if there
	// is none.
	makeRoom func(source netip.Addr) bool

	mu      sync.Mutex
	open    int                // mu
	sources map[netip.Addr]int // mu
}

// bound bounds the connections of a listener.
func bound(listener net.Listener, share uint64, makeRoom func(source netip.Addr) bool) net.Listener {
	return &bounded{Listener: listener, most: connectionLimit(share), makeRoom: makeRoom, sources: make(map[netip.Addr]int)}
}

// Accept implements [net.Listener].
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceOf(conn)
		err = b.admit(source)
		if err != nil && b.makeRoom != nil {
			of := source // its own, if it is that which has too many: others make no room for it
			if errors.Is(err, errFull) {
				of = netip.Addr{}
			}
			if b.makeRoom(of) {
				err = b.admit(source)
			}
		}
		if err == nil {
			return &boundedConn{Conn: conn, bounded: b, source: source}, nil
		}
		_ = conn.Close() // nothing was said on it
	}
}

var (
	errFull       = errors.New("as many connections as there may be")
	errFullSource = errors.New("as many connections as one source may have")
)

func (b *bounded) admit(source netip.Addr) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.sources[source] >= max(b.most/2, 2):
		return errFullSource
	case b.open >= b.most:
		return errFull
	}
	b.open++
	b.sources[source]++
	return nil
}

func (b *bounded) leave(source netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
	if b.sources[source]--; b.sources[source] == 0 {
		delete(b.sources, source)
	}
}

func sourceOf(conn net.Conn) netip.Addr {
	remote, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return remote.AddrPort().Addr().Unmap()
}

// boundedConn counts until it is closed.
type boundedConn struct {
	net.Conn
	bounded *bounded
	source  netip.Addr
	closed  sync.Once
}

// CloseWrite is what net/http ends a connection with on which it has answered before it had read everything.
func (c *boundedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close implements [net.Conn].
func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.closed.Do(func() { c.bounded.leave(c.source) })
	return err
}
