package group

import (
	"errors"
	"time"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// read reads from a source while members have room, until the session ends.
func (s *session) read(source eventlog.Source) {
	most := fetchBytes / greatestBatch
	for s.await(s.hasRoom) {
		claims, err := s.reader.Fetch(s.ctx, source, most, fetchWait)
		if errors.Is(err, eventlog.ErrNoGroup) || errors.Is(err, eventlog.ErrGroupChanged) {
			s.groups.ending.Go(s.refresh) // which ends this
		}
		if err != nil {
			if !s.pause(err) {
				return
			}
			continue
		}
		if len(claims) == 0 {
			continue
		}
		bytes := 0
		for _, claim := range claims {
			bytes += claim.Bytes
		}
		most = atOnce(len(claims), bytes)
		s.admit(claims)
	}
}

// atOnce is how many batches to read in one go, as so many took so much memory.
func atOnce(batches, bytes int) int {
	return max(1, min(fetchBatches, fetchBytes*batches/max(bytes, 1)))
}

// await waits for a condition, which is called with mu held. It reports false when the session ended.
func (s *session) await(condition func() bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.gone == nil {
		if condition() {
			return true
		}
		s.hungry.Wait()
	}
	return false
}

// hasRoom reports whether more should be read. The caller holds mu.
func (s *session) hasRoom() bool {
	g := s.ledger
	if len(s.members) == 0 || g.full() {
		return false
	}
	room := readAhead
	for _, m := range s.members {
		room += m.room()
	}
	return len(g.ready.items) < room
}

// pause waits after an error, before the next try. It reports false when the session ended.
func (s *session) pause(err error) bool {
	ended := errors.Is(err, eventlog.ErrNoGroup) || errors.Is(err, eventlog.ErrGroupChanged)
	if !ended && s.ctx.Err() == nil {
		s.groups.logger.Warn("a group's notifications could not be read; trying again", "group", s.name, "error", err)
	}
	return s.sleep(retryPause)
}

// sleep waits. It reports false when the session ended.
func (s *session) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// reach makes sure that the next gateway, if this one dies, will know that something of these batches may be out. It reports false when
// the session ended.
func (s *session) reach(claims []*eventlog.Claim) bool {
	stream, bytes := uint64(0), 0
	for _, claim := range claims {
		bytes += claim.Bytes
		if claim.Source == eventlog.SourceLog {
			stream = max(stream, claim.Stream)
		}
	}
	more := uint64(2 * atOnce(len(claims), bytes))
	for {
		s.mu.Lock()
		lease := s.ledger.rules.lease
		s.mu.Unlock()
		err := s.reader.Reach(s.ctx, stream, more, lease)
		if err == nil {
			return true
		}
		if !s.pause(err) {
			return false
		}
	}
}

// heldUntil returns until when notifications of a batch may be out on leases that nothing is known of. The caller holds mu.
func (s *session) heldUntil(claim *eventlog.Claim) time.Time {
	switch o := s.earlier; {
	case claim.Stream <= o.Through[claim.Source]:
		return o.Until
	case claim.Source == eventlog.SourceReplay && s.seen[eventlog.SourceLog] < o.Through[eventlog.SourceLog]:
		return o.Until // what may be out of its SIM is not in hand yet
	}
	return time.Time{}
}

// knowsAll reports whether nothing is out on a lease that nothing is known of. The caller holds mu.
func (s *session) knowsAll() bool {
	if !time.Now().Before(s.earlier.Until) {
		return true
	}
	all := s.ledger.held == 0
	for source, through := range s.earlier.Through {
		all = all && s.seen[source] >= through
	}
	return all
}

// admit takes batches in hand.
func (s *session) admit(claims []*eventlog.Claim) {
	if len(claims) > 0 && !s.reach(claims) {
		return
	}
	for _, claim := range claims {
		if claim.Damaged || claim.Missed > 0 {
			missed := claim.Missed
			if claim.Damaged {
				missed++
			}
			s.groups.stats.MissedBatches.Add(missed)
			s.groups.logger.Error("a group missed record batches that expired or are damaged", "group", s.name, "batches", missed,
				"before_stream_sequence", claim.Stream)
			s.mu.Lock()
			s.ledger.missed += missed
			s.mu.Unlock()
		}
		s.admitOne(claim)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.lend(now)
	s.wakeWriter()
	s.wakeBy(now) // for leases and delays that came along
}

func (s *session) admitOne(claim *eventlog.Claim) {
	s.admitting.Lock()
	defer s.admitting.Unlock()
	var progress *storagev1.BatchProgress
	var revision uint64
	for claim.Again {
		var err error
		if progress, revision, err = s.groups.store.Progress(s.ctx, s.currentRecord(), claim.Source, claim.Stream); err == nil {
			break
		}
		if errors.Is(err, eventlog.ErrDamaged) { // it will not get better
			s.groups.logger.Error("what was done of a record batch cannot be read and will be repeated", "group", s.name, "error", err)
			break
		}
		if !s.pause(err) {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger.admit(claim, s.filter, progress, revision, s.heldUntil(claim), time.Now())
	s.seen[claim.Source] = max(s.seen[claim.Source], claim.Stream)
	for _, p := range progress.GetNotifications() {
		if p.GetSettled() && p.GetLeaseNumber() != 0 {
			s.recent.add(p.GetLeaseNumber())
		}
	}
}
