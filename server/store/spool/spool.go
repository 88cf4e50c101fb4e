// Package spool shelters from a NATS cluster that is away: a log on this machine's disk in front of the log in the cluster.
//
// An entry that the cluster does not confirm within a bound, or while it is known to be away, is made durable in the spool, and that
// is what its writer waits for. When the cluster is back, the entries are forwarded in their order, each with the ticket with which
// it was tried before (see package nats), so that it is stored there once, whatever happened to the first try, and whenever this
// process is killed. Until the spool is empty, what is new goes there too: nothing overtakes.
//
// What is in the spool is not in the log yet: it has no sequence, and readers do not see it. A disk that is lost loses it.
package spool

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/linksgate/linksgate/server/store"
	"github.com/linksgate/linksgate/server/store/disk"
	"github.com/linksgate/linksgate/server/store/nats"
)

// Options of a spool. The zero value of a field means its default.
type Options struct {
	// Dir is a directory of this gateway's own. Required.
	Dir string
	// MaxBytes is how much the spool may hold: what is more is refused. Default 1 GiB.
	MaxBytes int64
	// Bound is how long the cluster has to confirm an entry. Default 2s.
	Bound time.Duration
	// MinFree is the free space of the file system, in bytes, below which nothing is stored; default 512 MiB, negative: none.
	MinFree int64
	// Logger for what is spooled and forwarded. Required.
	Logger *slog.Logger
}

// Defaults of [Options].
const (
	DefaultMaxBytes = 1 << 30
	defaultBound    = 2 * time.Second
)

// Spool is the log on disk. Its methods may be called concurrently.
type Spool struct {
	options Options
	engine  *disk.Engine
	log     store.Log

	mu      sync.Mutex
	pending int           // mu; entries that are in the spool, or about to be
	since   time.Time     // mu; when the oldest of them came; zero: there is none
	next    uint64        // mu; sequence of the first that is not forwarded
	grown   chan struct{} // buffered; there is something to forward
}

// Open opens a spool, and finds what it still holds.
func Open(ctx context.Context, options Options) (*Spool, error) {
	if options.MaxBytes == 0 {
		options.MaxBytes = DefaultMaxBytes
	}
	if options.Bound == 0 {
		options.Bound = defaultBound
	}
	engine, err := disk.Open(ctx, disk.Options{Dir: options.Dir, MinFree: options.MinFree, Logger: options.Logger})
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	log, err := engine.OpenLog(ctx, "spool", store.LogOptions{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), engine.Close())
	}
	s := &Spool{options: options, engine: engine, log: log, grown: make(chan struct{}, 1)}
	info, err := log.Info(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), engine.Close())
	}
	s.next, s.pending, s.since = info.First, int(info.Next-info.First), info.FirstTime
	if s.pending > 0 {
		options.Logger.Info("spool not empty", "entries", s.pending, "since", s.since)
	}
	return s, nil
}

// Close closes the spool. What it holds is forwarded when it is opened next.
func (s *Spool) Close() error { return s.engine.Close() }

// Status describes a spool at one moment.
type Status struct {
	// Entries that wait to be forwarded, and the bytes that the spool occupies.
	Entries int
	Bytes   int64
	// Since is when the oldest of them came; zero if there is none.
	Since time.Time
}

// Status returns what the spool holds.
func (s *Spool) Status() Status {
	info, _ := s.log.Info(context.Background()) // of a log on disk: it does not fail
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{Entries: s.pending, Bytes: info.Bytes, Since: s.since}
}

// enter counts an entry in that is to be put, if there is something in the spool already or it must be.
func (s *Spool) enter(must bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == 0 && !must {
		return false
	}
	if s.pending++; s.since.IsZero() {
		s.since = time.Now()
		s.options.Logger.Warn("spooling: the NATS cluster does not confirm, notifications are stored on this machine's disk")
	}
	return true
}

// leave counts an entry out.
func (s *Spool) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending--; s.pending == 0 {
		s.options.Logger.Info("spool forwarded", "after", time.Since(s.since).Round(time.Millisecond))
		s.since = time.Time{}
	}
}

// put makes an entry durable in the spool, with what is needed to forward it. The caller has counted it in.
func (s *Spool) put(ctx context.Context, ticket nats.Ticket, data []byte) (store.Entry, error) {
	head, err := json.Marshal(ticket)
	if err == nil {
		if info, infoErr := s.log.Info(ctx); infoErr == nil && info.First < info.Next && info.Bytes > s.options.MaxBytes {
			err = fmt.Errorf("%w: the spool has reached log.spool.max_bytes", store.ErrNoSpace)
		}
	}
	var entry store.Entry
	if err == nil {
		entry, err = s.log.Append(ctx, append(append(binary.AppendUvarint(nil, uint64(len(head))), head...), data...))
	}
	if err != nil {
		s.leave()
		return store.Entry{}, err
	}
	select {
	case s.grown <- struct{}{}:
	default:
	}
	return store.Entry{Time: entry.Time}, nil
}

// lane is the lane of what was never tried before.
func (s *Spool) lane() string { return "spool-" + s.log.ID() }

// unpack splits what is stored in the spool.
func unpack(stored []byte) (ticket nats.Ticket, data []byte, err error) {
	size, n := binary.Uvarint(stored)
	if n <= 0 || size > uint64(len(stored)-n) {
		return ticket, nil, errors.New("not an entry of a spool")
	}
	err = json.Unmarshal(stored[n:n+int(size)], &ticket)
	return ticket, stored[n+int(size):], err
}

// Forward forwards what the spool holds to a log, in order, until ctx ends.
func (s *Spool) Forward(ctx context.Context, to *nats.Log) {
	const pause = 200 * time.Millisecond
	for {
		if err := s.forward(ctx, to); err != nil && ctx.Err() == nil {
			s.options.Logger.Debug("spool not forwarded yet", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.grown:
		}
	}
}

func (s *Spool) forward(ctx context.Context, to *nats.Log) error {
	s.mu.Lock()
	next := s.next
	s.mu.Unlock()
	last := make(map[string]uint64) // by lane, of this pass
	for item, err := range s.log.Read(ctx, next) {
		if err != nil {
			return err
		}
		until := item.Sequence + 1
		if item.Gap.Count > 0 {
			until = item.Gap.From + item.Gap.Count
			s.options.Logger.Error("spool corrupt: entries are lost", "count", item.Gap.Count)
		} else if err := s.one(ctx, to, item.Data, last); err != nil {
			return err
		}
		// A crash here forwards the entry once more, which its ticket makes one.
		if err := s.log.Trim(ctx, until); err != nil {
			return err
		}
		s.mu.Lock()
		count := until - s.next
		s.next = until
		s.mu.Unlock()
		for range count {
			s.leave()
		}
	}
	return nil
}

// one forwards an entry.
func (s *Spool) one(ctx context.Context, to *nats.Log, stored []byte, last map[string]uint64) error {
	ticket, data, err := unpack(stored)
	if err != nil {
		s.options.Logger.Error("spool corrupt: an entry is lost", "error", err)
		return nil
	}
	if known, ok := last[ticket.Subject]; ok && ticket.Ask {
		ticket.Ask, ticket.After = false, known
	}
	entry, copied, err := to.Submit(ctx, ticket, data)
	switch {
	case errors.Is(err, store.ErrTooLarge):
		s.options.Logger.Error("spool: an entry is too large for the cluster and lost", "bytes", len(data), "error", err)
		return nil
	case err != nil:
		return err
	}
	if !copied {
		last[ticket.Subject] = entry.Sequence
	}
	return nil
}
