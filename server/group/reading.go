package group

import (
	"errors"
	"slices"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// readLog reads from the log until the session ends. An ordered group first gets back what other gateways, or this one in an
// earlier life, had in hand: all of that is older than what is new.
func (s *session) readLog() {
	s.mu.Lock()
	complete := s.ledger.complete
	s.mu.Unlock()
	if !complete && !s.complete() {
		return
	}
	s.read(eventlog.SourceLog)
}

// complete reads what was delivered before and not settled. It reports false when the session ended.
//
// What was given back comes at once, or nearly so, and on an embedded log what another life had too. On an external one, what a gateway
// had that is gone comes when the engine has waited for it. Until then only new batches come, one at a time and ever more slowly, and
// none once there are enough in hand: after that time, what is missing comes before what is new.
func (s *session) complete() bool {
	s.mu.Lock()
	waited := time.Now().Add(s.ledger.rules.lease + eventlog.LeaseMargin + time.Second)
	s.mu.Unlock()
	most, wait := fetchBytes/greatestBatch, leastPause
	for {
		if !s.await(func() bool { return len(s.members) > 0 }) {
			return false
		}
		if s.isFull() && !s.sleep(min(time.Until(waited), retryPause)) {
			return false
		}
		if s.isFull() && time.Now().Before(waited) {
			continue
		}
		claims, err := s.reader.Fetch(s.ctx, eventlog.SourceLog, most, retryPause/4)
		if err != nil {
			if !s.pause(err) {
				return false
			}
			continue
		}
		s.noteStandby()
		s.admit(claims)
		isNew := slices.ContainsFunc(claims, func(c *eventlog.Claim) bool { return c.Deliveries == 1 })
		switch {
		case len(claims) > 0 && !isNew, s.isStandby():
			most, wait = fetchBytes/greatestBatch, leastPause
		case s.hasAll():
			s.mu.Lock()
			s.ledger.complete = true
			s.lend(time.Now())
			s.mu.Unlock()
			return true
		case isNew:
			if !s.sleep(wait) {
				return false
			}
			most, wait = 1, min(2*wait, greatestPause)
		}
	}
}

// hasAll reports whether all that was delivered and is not settled is in hand. When it cannot tell, it reports false: what was settled
// just now may still be counted.
func (s *session) hasAll() bool {
	s.mu.Lock()
	changes := s.ledger.changes
	s.mu.Unlock()
	state, err := s.reader.State(s.ctx)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	inHand := make(map[eventlog.Source]uint64)
	for key := range s.ledger.batches {
		inHand[key.source]++
	}
	return changes == s.ledger.changes &&
		state.Unsettled <= inHand[eventlog.SourceLog] && state.UnsettledReplays <= inHand[eventlog.SourceReplay]
}

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
			s.noteStandby()
			continue
		}
		bytes := 0
		for _, claim := range claims {
			bytes += claim.Bytes
		}
		most = atOnce(len(claims), bytes)
		s.admit(claims)
		if source == eventlog.SourceLog && !s.becomeSure() {
			return
		}
	}
}

// atOnce is how many batches to read in one go, as so many took so much memory.
func atOnce(batches, bytes int) int {
	return max(1, min(fetchBatches, fetchBytes*batches/max(bytes, 1)))
}

// becomeSure waits, if need be, until no other gateway has anything in hand. It reports false when the session ended.
func (s *session) becomeSure() bool {
	s.mu.Lock()
	unsure := s.unsure
	s.mu.Unlock()
	for wait := leastPause; unsure && !s.hasAll(); wait = min(2*wait, retryPause) {
		if !s.sleep(wait) {
			return false
		}
	}
	if unsure {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unsure = false
		s.lend(time.Now())
	}
	return true
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
	if !g.complete { // only when it has all can anything be lent
		return len(s.members) > 0
	}
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

func (s *session) isFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.full()
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

// noteStandby finds out whether another gateway serves the group.
func (s *session) noteStandby() {
	standby := s.reader.Standby()
	s.mu.Lock()
	s.standby = standby
	taken := standby && s.ledger.rules.ordered && s.ledger.complete
	s.mu.Unlock()
	if taken { // what the other one has in hand is not known here
		s.endSoon(ErrTaken)
	}
}

func (s *session) isStandby() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.standby
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
	all := s.ledger.complete && s.ledger.held == 0
	for source, through := range s.earlier.Through {
		all = all && s.seen[source] >= through
	}
	return all
}

// admit takes batches in hand.
func (s *session) admit(claims []*eventlog.Claim) {
	if len(claims) > 0 && !s.reach(claims) {
		for _, claim := range claims {
			s.leaveUnread(claim)
		}
		return
	}
	for _, claim := range claims {
		if !s.sameTurn(claim) {
			// Others had the group in between, and may have something of it in hand. A new session finds out.
			s.leaveUnread(claim)
			s.endSoon(ErrTaken)
			continue
		}
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

// sameTurn reports whether this gateway has been the one that is served since the session began, as far as that matters.
func (s *session) sameTurn(claim *eventlog.Claim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ledger.rules.ordered || claim.Source != eventlog.SourceLog {
		return true
	}
	if s.turn == 0 {
		// While nothing came from the log, nobody was the one that is served, and a replay may be with anybody.
		s.turn, s.unsure = claim.Turn, s.ledger.complete
	}
	return s.turn == claim.Turn
}

func (s *session) admitOne(claim *eventlog.Claim) {
	s.admitting.Lock()
	defer s.admitting.Unlock()
	var progress *linksgatev1.BatchProgress
	var revision uint64
	for claim.Deliveries > 1 {
		var err error
		if progress, revision, err = s.groups.store.Progress(s.ctx, s.currentRecord(), claim.Source, claim.Stream); err == nil {
			break
		}
		if errors.Is(err, eventlog.ErrDamaged) { // it will not get better
			s.groups.logger.Error("what was done of a record batch cannot be read and will be repeated", "group", s.name, "error", err)
			break
		}
		if !s.pause(err) {
			s.leaveUnread(claim)
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

func (s *session) leaveUnread(claim *eventlog.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unread = append(s.unread, claim)
}
