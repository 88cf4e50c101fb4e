package group

import (
	"context"
	"errors"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// runWriter writes what has to be on disk, until the session ends.
func (s *session) runWriter() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.write:
		}
		done := s.writeOut(s.ctx)
		s.shelve(s.ctx)
		if !done {
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(retryPause):
				signal(s.write)
			}
		}
	}
}

func (s *session) wakeWriter() {
	if len(s.ledger.toRecord)+len(s.ledger.toPark)+len(s.ledger.toSettle) > 0 {
		signal(s.write)
	}
}

// shelveAtOnce is how many batches are put on the shelf before the writer looks for what is more urgent.
const shelveAtOnce = 64

// shelve makes room: it stores what is known of batches that only wait, and gives them back until they are due.
func (s *session) shelve(ctx context.Context) {
	s.mu.Lock()
	record := s.record
	var chosen []*batch
	if s.gone == nil {
		chosen = s.ledger.shelf(shelveAtOnce, time.Now())
	}
	s.mu.Unlock()
	for _, b := range chosen {
		s.mu.Lock()
		open := b.open
		s.mu.Unlock()
		err := s.putProgress(ctx, record, b, false)
		now := time.Now()
		s.mu.Lock()
		if err != nil {
			s.ledger.recorded(b, now)
			s.mu.Unlock()
			s.groups.logger.Debug("a record batch could not be put on the shelf", "group", s.name, "error", err)
			continue
		}
		until, ok := s.ledger.shelve(b, open, now)
		s.mu.Unlock()
		if !ok {
			continue
		}
		if err := b.claim.GiveBackFor(ctx, until.Sub(now)); err != nil { // then it comes somewhat earlier or later
			s.groups.logger.Debug("a record batch could not be put on the shelf", "group", s.name, "error", err)
		}
	}
	if len(chosen) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hungry.Broadcast()
	s.wakeBy(time.Now()) // for what stayed in hand
	if len(chosen) == shelveAtOnce {
		signal(s.write)
	}
}

// writeOut stores what the ledger wants stored. It reports whether all of it was.
func (s *session) writeOut(ctx context.Context) bool {
	s.mu.Lock()
	record := s.record
	toRecord, toPark, toSettle := s.ledger.toRecord, s.ledger.toPark, s.ledger.toSettle
	s.ledger.toRecord, s.ledger.toPark, s.ledger.toSettle = make(map[*batch]struct{}), nil, nil
	s.mu.Unlock()
	done := true
	for b := range toRecord {
		s.storeProgress(ctx, record, b)
	}
	for _, it := range toPark {
		if !s.storeParked(ctx, it) {
			done = false
		}
	}
	for _, b := range toSettle {
		// A crash before this leaves the batch to come again, settled notifications and all.
		if err := b.claim.Settle(ctx); err != nil {
			s.groups.logger.Warn("a record batch could not be settled and will come again", "group", s.name, "error", err)
		}
	}
	return done
}

// storeProgress stores what is known of a batch before any of it is delivered again. If that fails, it is delivered all the same:
// an attempt that is forgotten when the gateway dies is better than a notification that waits for a disk.
func (s *session) storeProgress(ctx context.Context, record *linksgatev1.GroupRecord, b *batch) {
	if err := s.putProgress(ctx, record, b, true); err != nil && ctx.Err() == nil {
		s.groups.logger.Warn("an attempt could not be recorded", "group", s.name, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger.recorded(b, time.Now())
	s.lend(time.Now())
	s.wakeBy(time.Now()) // for what waits
}

// putProgress stores what is known of a batch, the coming attempts included or not. It returns nil only if that is durable.
func (s *session) putProgress(ctx context.Context, record *linksgatev1.GroupRecord, b *batch, ahead bool) error {
	var err error
	for range 3 {
		s.mu.Lock()
		progress, revision, open := b.snapshot(ahead), b.revision, b.open
		s.mu.Unlock()
		if progress == nil || open == 0 { // then it is about to be settled
			return nil
		}
		stored := uint64(0)
		if stored, err = s.groups.store.PutProgress(ctx, record, b.source, b.stream, progress, revision); err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			b.revision = stored
			return nil
		}
		if !errors.Is(err, eventlog.ErrGroupChanged) {
			return err
		}
		// Another gateway settled something of it, or an earlier try was stored without saying so.
		theirs, revision, readErr := s.groups.store.Progress(ctx, record, b.source, b.stream)
		if readErr != nil {
			return readErr
		}
		s.mu.Lock()
		b.revision = revision
		s.adopt(b, theirs, time.Now())
		s.mu.Unlock()
	}
	return err
}

// adopt takes over what another gateway has stored of a batch in hand: what was settled there was answered, and counts. The caller
// holds mu.
func (s *session) adopt(b *batch, theirs *linksgatev1.BatchProgress, now time.Time) {
	for i := range b.items {
		it := &b.items[i]
		p := progressOf(theirs, it.record.Position.Index)
		if !p.GetSettled() || it.state == stateSettled || it.parking {
			continue
		}
		s.release(it)
		if it.lease = p.GetLeaseNumber(); it.lease != 0 {
			s.recent.add(it.lease)
		}
		s.ledger.settle(it, now)
	}
	s.wakeWriter()
}

// storeParked parks a notification. It reports whether it is parked.
func (s *session) storeParked(ctx context.Context, it *item) bool {
	// What it was parked for does not change any more.
	if err := s.groups.store.Park(ctx, s.name, it.record, it.reason, it.detail, it.attempts); err != nil {
		s.groups.logger.Error("a notification could not be parked; trying again", "group", s.name, "error", err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ledger.toPark = append(s.ledger.toPark, it)
		return false
	}
	s.groups.stats.Parked.Add(1)
	s.groups.logger.Warn("a notification was parked", "group", s.name, "sequence", it.sequence(), "reason", it.reason, "attempts", it.attempts)
	s.mu.Lock()
	defer s.mu.Unlock()
	if it.parked != nil {
		close(it.parked)
	}
	s.ledger.settle(it, time.Now())
	s.settled()
	return true
}
