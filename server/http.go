package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// httpServer is an [http.Server] that does not wait, when it stops, for connections on which no request has come yet: those of port
// scanners, of browsers that connect ahead of need, of whoever sends slowly. net/http waits for each until it is 5 s old, although it
// does not answer what comes after the stop has begun.
type httpServer struct {
	*http.Server

	mu       sync.Mutex
	waiting  map[net.Conn]struct{} // mu; the connections without a request
	stopping bool                  // mu
	listener net.Listener          // mu; nil before serve
	served   chan struct{}         // mu; closed when nothing more is accepted
}

func newHTTPServer(s *http.Server) *httpServer {
	h := &httpServer{Server: s, waiting: make(map[net.Conn]struct{})}
	s.ConnState = h.track
	s.RegisterOnShutdown(h.closeWaiting)
	return h
}

// track is told of each change of a connection's state.
func (h *httpServer) track(c net.Conn, state http.ConnState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(h.waiting, c)
	case h.stopping: // it was accepted just before
		_ = c.Close()
	default:
		h.waiting[c] = struct{}{}
	}
}

// firstRequestTime is how long a connection that was just made has to send its request when the server stops.
const firstRequestTime = 500 * time.Millisecond

// awaitFirst waits until connections that were just made have sent their requests. Once net/http shuts down it drops what it reads.
func (h *httpServer) awaitFirst() {
	const look = time.Millisecond
	for begin := time.Now(); time.Since(begin) < firstRequestTime; time.Sleep(look) {
		h.mu.Lock()
		waiting := len(h.waiting)
		h.mu.Unlock()
		if waiting == 0 {
			return
		}
	}
}

// closeWaiting closes the connections without a request. From now on what comes on them would be dropped.
func (h *httpServer) closeWaiting() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
	for c := range h.waiting {
		_ = c.Close() // net/http may have closed it just now
	}
}

// serve serves until the server is stopped.
func (h *httpServer) serve(listener net.Listener) error {
	serve := h.Serve
	if h.TLSConfig != nil {
		serve = func(l net.Listener) error { return h.ServeTLS(l, "", "") }
	}
	h.mu.Lock()
	h.listener, h.served = listener, make(chan struct{})
	h.mu.Unlock()
	defer close(h.served)
	if err := serve(listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// stop waits for requests to finish until ctx ends, then cuts them off.
func (h *httpServer) stop(ctx context.Context) error {
	h.mu.Lock()
	listener, served := h.listener, h.served
	h.mu.Unlock()
	if listener != nil {
		// What was accepted just now is known only when nothing more is accepted: net/http would take itself for idle before.
		_ = listener.Close() // it may be closed
		<-served
		h.awaitFirst()
	}
	if err := h.Shutdown(ctx); err != nil {
		return errors.Join(err, h.Close())
	}
	return nil
}
