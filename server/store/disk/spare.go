package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/linksgate/linksgate/server/store"
)

// spare prepares the next segment beside the traffic: a file of zeros that were written and synced.
type spare struct {
	journal *journal
	path    string
	wanted  chan struct{} // a request to prepare one
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu   sync.Mutex
	size int64 // mu; of the spare that is ready, 0: none
}

func newSpare(j *journal) *spare {
	ctx, stop := context.WithCancel(context.Background())
	s := &spare{journal: j, path: filepath.Join(j.dir, spareName), wanted: make(chan struct{}, 1), stop: stop}
	if info, err := os.Stat(s.path); err == nil {
		s.size = info.Size()
	}
	s.done.Go(func() { s.run(ctx) })
	return s
}

// want asks for a spare, and does not wait.
func (s *spare) want() {
	s.mu.Lock()
	ready := s.size > 0
	s.mu.Unlock()
	if ready {
		return
	}
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

func (s *spare) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wanted:
		}
		size := s.journal.nextSize()
		if s.journal.engine.checkSpace(size) != nil {
			continue // it is asked for again
		}
		if err := s.fill(ctx, size); err != nil && ctx.Err() == nil {
			s.journal.engine.options.Logger.Warn("spare not prepared", "store", s.journal.name, "error", err)
		}
	}
}

// nextSize is how large the next segment is to be.
func (j *journal) nextSize() int64 {
	size := int64(firstSegment)
	if j.engine.options.firstSegment > 0 {
		size = j.engine.options.firstSegment
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.segments); n > 0 {
		size = max(size, 2*j.segments[n-1].Size)
	}
	return min(size, j.max)
}

// fill writes the spare in pieces, which leaves the device to others in between.
func (s *spare) fill(ctx context.Context, size int64) error {
	const piece, pause = 1 << 20, 2 * time.Millisecond
	temporary := s.path + ".new"
	if err := s.writeZeros(temporary, size, piece, func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			return nil
		}
	}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(temporary, s.path); err != nil {
		return err
	}
	s.size = size
	return nil
}

func (s *spare) writeZeros(path string, size int64, piece int, between func() error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	block := make([]byte, min(int64(piece), size))
	for at := int64(0); at < size && err == nil; at += int64(len(block)) {
		if _, err = f.WriteAt(block[:min(int64(len(block)), size-at)], at); err == nil {
			err = s.journal.engine.sync(f)
		}
		if err == nil {
			err = between()
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// take returns a file of zeros that is to become a segment, under another name, and how large it is: the spare, or, if there is none of so many bytes,
// a small one that is made now. ErrNoSpace: there was no space for one, and nothing has changed.
func (s *spare) take(need int64) (path string, size int64, err error) {
	path = filepath.Join(s.journal.dir, beginName)
	s.mu.Lock()
	size, s.size = s.size, 0
	if size >= need {
		err = os.Rename(s.path, path)
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		return "", 0, s.journal.engine.fail(fmt.Errorf("begin segment: %w", err))
	case size >= need:
		return path, size, nil
	}
	size = max(need, min(firstSegment, s.journal.nextSize()))
	if err := s.journal.engine.checkSpace(size); err != nil {
		return "", 0, err
	}
	err = s.writeZeros(path, size, int(size), func() error { return nil })
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "", 0, fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE): // others have them; nothing has changed
		return "", 0, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	case err != nil:
		return "", 0, s.journal.engine.fail(fmt.Errorf("begin segment: %w", err))
	}
	return path, size, nil
}

func (s *spare) close() {
	s.stop()
	s.done.Wait()
}
