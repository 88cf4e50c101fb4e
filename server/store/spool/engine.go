package spool

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/linksgate/linksgate/server/store"
	"github.com/linksgate/linksgate/server/store/nats"
)

// Engine is a NATS engine whose log has a spool in front. Tables have none. It implements [store.Engine].
type Engine struct {
	*nats.Engine
	spool   *Spool
	end     context.CancelFunc
	running sync.WaitGroup
	ctx     context.Context
}

var _ store.Engine = (*Engine)(nil)

// Wrap puts a spool in front of an engine. Both belong to the result.
func Wrap(engine *nats.Engine, s *Spool) *Engine {
	e := &Engine{Engine: engine, spool: s}
	e.ctx, e.end = context.WithCancel(context.Background())
	return e
}

// Spool is what is in front.
func (e *Engine) Spool() *Spool { return e.spool }

// Spooled returns how many entries wait to be forwarded, in how many bytes, and since when the oldest of them does.
func (e *Engine) Spooled() (entries int, bytes int64, since time.Time) {
	status := e.spool.Status()
	return status.Entries, status.Bytes, status.Since
}

// Writable implements [store.Engine]: what the cluster does not take is stored on this machine's disk.
func (e *Engine) Writable() error {
	if err := e.Engine.Writable(); err == nil || errors.Is(err, store.ErrClosed) {
		return err
	}
	return e.spool.engine.Writable()
}

// OpenLog implements [store.Engine].
func (e *Engine) OpenLog(ctx context.Context, name string, options store.LogOptions) (store.Log, error) {
	opened, err := e.Engine.OpenLog(ctx, name, options)
	if err != nil {
		return nil, err
	}
	remote := opened.(*nats.Log)
	e.running.Go(func() { e.spool.Forward(e.ctx, remote) })
	return &Log{Log: remote, engine: e}, nil
}

// Close implements [store.Engine].
func (e *Engine) Close() error {
	e.end()
	err := e.Engine.Close()
	e.running.Wait()
	return errors.Join(err, e.spool.Close())
}

// Log is the cluster's log, with a spool in front. An entry that went to the spool is returned without a sequence: it has none yet.
type Log struct {
	*nats.Log
	engine *Engine
}

var (
	_ store.Log   = (*Log)(nil)
	_ store.Keyed = (*Log)(nil)
)

// Append implements [store.Log].
func (l *Log) Append(ctx context.Context, data []byte) (store.Entry, error) {
	entry, _, err := l.append(ctx, nil, data)
	return entry, err
}

// AppendKeyed implements [store.Keyed].
func (l *Log) AppendKeyed(ctx context.Context, key, data []byte) (store.Entry, bool, error) {
	return l.append(ctx, key, data)
}

func (l *Log) append(ctx context.Context, key, data []byte) (store.Entry, bool, error) {
	s := l.engine.spool
	if len(data) > l.engine.MaxEntry() {
		return store.Entry{}, false, store.ErrTooLarge
	}
	away := l.engine.Engine.Writable()
	if errors.Is(away, store.ErrClosed) {
		return store.Entry{}, false, away
	}
	if s.enter(away != nil) {
		entry, err := s.put(ctx, l.NewTicket(s.lane(), key), data)
		return entry, false, err
	}
	bounded, cancel := context.WithTimeout(ctx, s.options.Bound)
	defer cancel()
	began := time.Now()
	entry, copied, err := l.try(bounded, key, data)
	if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrNoSpace) {
		return entry, copied, err
	}
	ticket := l.NewTicket(s.lane(), key)
	var unconfirmed *nats.Unconfirmed
	if errors.As(err, &unconfirmed) {
		ticket = unconfirmed.Ticket
	}
	s.enter(true)
	s.options.Logger.Debug("spooled", "after", time.Since(began), "error", err)
	entry, err = s.put(context.WithoutCancel(ctx), ticket, data)
	return entry, false, err
}

// try appends to the cluster.
func (l *Log) try(ctx context.Context, key, data []byte) (store.Entry, bool, error) {
	if key != nil {
		return l.Log.AppendKeyed(ctx, key, data)
	}
	entry, err := l.Log.Append(ctx, data)
	return entry, false, err
}
