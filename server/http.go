package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// httpServer is an [http.Server] that does not wait, when it stops, for connections on which no request has come yet: those of port
// scanners, of browsers that connect ahead of need, of whoever sends slowly. net/http waits for each until it is 5 s old, although it
// does not answer what comes after the stop has begun.
type httpServer struct {
	*http.Server

	mu       sync.Mutex
	waiting  map[net.Conn]struct{} // mu; the connections without a request
	stopping bool                  // mu
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
	if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// stop waits for requests to finish until ctx ends, then cuts them off.
func (h *httpServer) stop(ctx context.Context) error {
	if err := h.Shutdown(ctx); err != nil {
		return errors.Join(err, h.Close())
	}
	return nil
}
