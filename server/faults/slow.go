package faults

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// dribblePause is how long a slow sender waits between two bytes.
const dribblePause = time.Second

// Dribblers are senders that send one byte a second. Half of them never come to the end of their headers, half not to the
// end of their body. One that the gateway cuts off comes back.
type Dribblers struct {
	// Address of the gateway's webhooks, and the path to send to.
	Address, Path string
	// Connections open at once.
	Connections int

	opened atomic.Int64
	cutOff atomic.Int64
}

// Opened is how many connections have been opened so far.
func (d *Dribblers) Opened() int { return int(d.opened.Load()) }

// CutOff is how often the gateway has had enough of one.
func (d *Dribblers) CutOff() int { return int(d.cutOff.Load()) }

// Run sends until ctx ends, and then resets its connections.
func (d *Dribblers) Run(ctx context.Context) {
	var senders sync.WaitGroup
	for i := range d.Connections {
		senders.Go(func() {
			for ctx.Err() == nil {
				d.dribble(ctx, i%2 == 0)
				sleep(ctx, dribblePause)
			}
		})
	}
	senders.Wait()
}

// dribble is one connection, until the gateway has had enough of it.
func (d *Dribblers) dribble(ctx context.Context, headers bool) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", d.Address)
	if err != nil {
		return
	}
	defer func() {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}()
	d.opened.Add(1)
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n", d.Path, d.Address)
	rest := "X-Filling: " + strings.Repeat("x", 1000)
	if !headers {
		request, rest = request+"\r\n", strings.Repeat(" ", 1000)
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return
	}
	for _, b := range []byte(rest) {
		if ctx.Err() != nil {
			return
		}
		if _, err := conn.Write([]byte{b}); err != nil {
			d.cutOff.Add(1)
			return
		}
		sleep(ctx, dribblePause)
	}
}

// sleep waits, but not longer than ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// spareConnections returns how many connections, up to a number, this process and a gateway can each have beside what else they do.
func spareConnections(most int) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return min(most, int(limit.Cur/4))
}
