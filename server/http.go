package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// httpServer is an [http.Server] that does not wait, when it stops, for connections on which no request has come yet: those of port
// scanners, of browsers that connect ahead of need, of whoever sends slowly. net/http waits for each until it is 5 s old, although it
// does not answer what comes after the stop has begun.
type httpServer struct {
	*http.Server

	mu       sync.Mutex
	waiting  map[net.Conn]time.Time // mu; the connections without a request, and since when
	idle     map[net.Conn]time.Time // mu; those between two requests, and since when
	stopping bool                   // mu
	listener net.Listener           // mu; nil before serve
	served   chan struct{}          // mu; closed when nothing more is accepted
}

func newHTTPServer(s *http.Server) *httpServer {
	h := &httpServer{Server: s, waiting: make(map[net.Conn]time.Time), idle: make(map[net.Conn]time.Time)}
	s.ConnState = h.track
	s.RegisterOnShutdown(h.closeWaiting)
	return h
}

// track is told of each change of a connection's state.
func (h *httpServer) track(c net.Conn, state http.ConnState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.idle, c)
	switch {
	case state == http.StateIdle:
		h.idle[c] = time.Now()
	case state != http.StateNew:
		delete(h.waiting, c)
	case h.stopping: // it was accepted just before
		_ = c.Close()
	default:
		h.waiting[c] = time.Now()
	}
}

// restTime is how long a connection must have been at rest before it may be closed to make room: a request may be on its way.
const restTime = time.Second

// makeRoom closes the connection of a source (the zero value: of any) that has been without a request for the longest time, or else the one
// that has been between two requests for the longest time. It reports false if there is none.
func (h *httpServer) makeRoom(source netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, at := range []map[net.Conn]time.Time{h.waiting, h.idle} {
		var oldest net.Conn
		for c, since := range at {
			if source.IsValid() && sourceOf(c) != source {
				continue
			}
			if oldest == nil || since.Before(at[oldest]) {
				oldest = c
			}
		}
		if oldest != nil && time.Since(at[oldest]) >= restTime {
			delete(at, oldest)
			_ = oldest.Close()
			return true
		}
	}
	return false
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
