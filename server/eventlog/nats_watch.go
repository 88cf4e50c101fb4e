package eventlog

import (
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// Watch calls changed with the name of each group whose record was stored or deleted, by any gateway on the log, once that can be
// read; several changes of one group may be told once. It is called with "" when anything may have changed: after the connection to
// the log was interrupted. All calls come from one goroutine.
//
// stop returns when changed will not be called again; changed must not call it. Errors: ErrUnavailable, ErrClosed.
func (g *natsGroups) Watch(changed func(name string)) (stop func(), err error) {
	if err := g.log.usable(); err != nil {
		return nil, err
	}
	conn := g.engine.conn
	w := &watcher{names: make(map[string]struct{}), wake: make(chan struct{}, 1)}
	subscription, err := conn.Subscribe(changedSubject+"*", func(message *nats.Msg) {
		w.note(strings.TrimPrefix(message.Subject, changedSubject))
	})
	if err != nil {
		return nil, fmt.Errorf("watch groups: %w: %w", ErrUnavailable, err)
	}
	// Nothing that is stored after this is missed.
	if err := conn.FlushTimeout(publishTimeout); err != nil {
		_ = subscription.Unsubscribe()
		return nil, fmt.Errorf("watch groups: %w: %w", ErrUnavailable, err)
	}
	connected := conn.StatusChanged(nats.CONNECTED)
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		again := connected
		for {
			select {
			case <-done:
				return
			case _, open := <-again:
				if !open { // the log is closed
					again = nil
					continue
				}
				w.note("")
			case <-w.wake:
				for name := range w.take() {
					changed(name)
				}
			}
		}
	})
	return sync.OnceFunc(func() {
		_ = subscription.Unsubscribe()
		conn.RemoveStatusListener(connected)
		close(done)
		running.Wait()
	}), nil
}

// watcher gathers the names of changed groups until they are told.
type watcher struct {
	wake chan struct{} // buffered

	mu    sync.Mutex
	names map[string]struct{} // mu
}

func (w *watcher) note(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[name] = struct{}{}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) take() map[string]struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := w.names
	w.names = make(map[string]struct{})
	return names
}
