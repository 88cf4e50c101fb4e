package group

import (
	"context"
	"errors"
	"sync"
	"time"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
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
		b.claim.GiveBackFor(until.Sub(now))
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
	if len(toSettle) > 0 {
		claims := make([]*eventlog.Claim, len(toSettle))
		for i, b := range toSettle {
			claims[i] = b.claim
		}
		// What was acknowledged of them is durable already, where that is promised: see persist.
		if err := s.reader.Settle(ctx, claims); err != nil {
			s.groups.logger.Warn("record batches not settled, they will come again", "group", s.name, "error", err)
		}
	}
	return done
}

// storeProgress stores what is known of a batch before any of it is delivered again. If that fails, it is delivered all the same:
// an attempt that is forgotten when the gateway dies is better than a notification that waits for a disk.
func (s *session) storeProgress(ctx context.Context, record *storagev1.GroupRecord, b *batch) {
	b.storing.Lock()
	defer b.storing.Unlock()
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
func (s *session) putProgress(ctx context.Context, record *storagev1.GroupRecord, b *batch, ahead bool) error {
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
func (s *session) adopt(b *batch, theirs *storagev1.BatchProgress, now time.Time) {
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

// persist makes durable what was acknowledged of batches. Acknowledgements that are made at the same moment share what is written.
func (s *session) persist(ctx context.Context, touched map[*batch]uint64) error {
	ctx = context.WithoutCancel(ctx) // what is written for others too does not end with one caller
	errs := make(chan error, len(touched)+1)
	var settled []*eventlog.Claim
	var storing sync.WaitGroup
	for b, version := range touched {
		s.mu.Lock()
		open := b.open
		s.mu.Unlock()
		if open == 0 {
			settled = append(settled, b.claim)
			continue
		}
		storing.Go(func() { errs <- s.persistBatch(ctx, b, version) })
	}
	if len(settled) > 0 {
		errs <- s.reader.Settle(ctx, settled)
	}
	storing.Wait()
	close(errs)
	var failed error
	for err := range errs {
		failed = errors.Join(failed, err)
	}
	return failed
}

// persistBatch stores what is known of a batch, unless somebody else stored that version or a later one.
func (s *session) persistBatch(ctx context.Context, b *batch, version uint64) error {
	b.storing.Lock()
	defer b.storing.Unlock()
	s.mu.Lock()
	record, stored, now, open := s.record, b.stored, b.version, b.open
	s.mu.Unlock()
	if stored >= version {
		return nil
	}
	if open == 0 { // the last of it was acknowledged meanwhile
		return s.reader.Settle(ctx, []*eventlog.Claim{b.claim})
	}
	if err := s.putProgress(ctx, record, b, true); err != nil {
		return err
	}
	s.mu.Lock()
	open = b.open
	if open > 0 {
		b.stored = max(b.stored, now)
	}
	s.mu.Unlock()
	if open == 0 { // perhaps before it was stored
		return s.reader.Settle(ctx, []*eventlog.Claim{b.claim})
	}
	return nil
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
