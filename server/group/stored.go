package group

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// settleStored does what the actions, all of one kind, ask for with notifications that are not in flight here.
func (s *session) settleStored(ctx context.Context, actions []action, leases []lease, which []int, results []*linksgatev1.LeaseResult) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)() // the next session must not wait for it
	state := sync.OnceValues(func() (eventlog.GroupState, error) { return s.reader.State(ctx) })
	for _, i := range which {
		results[i] = s.settleOne(ctx, actions[i], leases[i], state)
	}
}

// settleOne does what an action asks for in what is stored, for whoever gets it next.
func (s *session) settleOne(ctx context.Context, a action, l lease, current func() (eventlog.GroupState, error)) *linksgatev1.LeaseResult {
	s.admitting.Lock()
	defer s.admitting.Unlock()
	now := time.Now()
	s.mu.Lock()
	if it := s.ledger.find(l); it != nil { // it came in the meantime
		defer s.mu.Unlock()
		result := s.settleInHand(it, l, a, now)
		s.settled()
		return result
	}
	record, rules := s.record, s.ledger.rules
	held := s.heldUntil(&eventlog.Claim{Source: l.source, Stream: l.stream}).After(now)
	s.mu.Unlock()
	state, err := current()
	if err != nil {
		return unavailable()
	}
	if l.source == eventlog.SourceLog && l.stream < state.Oldest.Stream || l.source == eventlog.SourceReplay && state.UnsettledReplays == 0 {
		return stale("it was settled before")
	}
	for range 3 {
		progress, revision, err := s.groups.store.Progress(ctx, record, l.source, l.stream)
		if err != nil {
			return unavailable()
		}
		if progress == nil {
			progress = new(storagev1.BatchProgress)
		}
		result := s.change(ctx, progress, a, l, held, rules, now)
		if result.GetOutcome() != linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK {
			return result
		}
		_, err = s.groups.store.PutProgress(ctx, record, l.source, l.stream, progress, revision)
		switch {
		case err == nil:
			s.mu.Lock()
			s.pauseFor(a.pause, now)
			s.mu.Unlock()
			return result
		case !errors.Is(err, eventlog.ErrGroupChanged):
			return unavailable()
		}
	}
	return unavailable()
}

// change applies an action to what is stored, which may be older than the newest lease if the notification is held.
func (s *session) change(
	ctx context.Context, progress *storagev1.BatchProgress, a action, l lease, held bool, rules rules, now time.Time,
) *linksgatev1.LeaseResult {
	position := eventlog.PositionOf(l.sequence)
	at, found := findProgress(progress.GetNotifications(), position.Index)
	if !found {
		progress.Notifications = slices.Insert(progress.GetNotifications(), at, &storagev1.NotificationProgress{Index: uint32(position.Index)})
	}
	p := progress.GetNotifications()[at]
	own := p.GetLeaseNumber() == l.number
	until := l.until
	if extended := asTime(p.GetLeasedUntil()); own && extended.After(until) {
		until = extended
	}
	switch {
	case !until.After(now) && !held:
		return stale("the lease ended at " + until.UTC().Format(time.RFC3339Nano))
	case p.GetSettled() && own && a.kind == actionAcknowledge:
		return ok()
	case p.GetSettled():
		return stale("it was settled otherwise")
	case !own && !held && p.GetLeaseNumber() != 0 && p.GetAttempts() >= l.attempt, p.GetAttempts() > l.attempt && (!own || held):
		return stale("it was leased again")
	case own && p.GetNotBefore() != nil && !p.GetSuspect() && a.kind != actionReject: // the member did not vanish, nor let the lease end
		return stale("it was rejected")
	}
	switch {
	case a.kind == actionExtend:
		l.until = now.Add(rules.extension(a.extend))
		progress.Notifications[at] = &storagev1.NotificationProgress{
			Index: p.GetIndex(), Attempts: l.attempt, Suspect: p.GetSuspect(), LeaseNumber: l.number, LeasedUntil: timestamppb.New(l.until),
		}
		return &linksgatev1.LeaseResult{Outcome: linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK, ExpiresAt: timestamppb.New(l.until)}
	case a.kind == actionReject && a.giveUp:
		progress.Notifications[at] = &storagev1.NotificationProgress{Index: p.GetIndex(), Attempts: l.attempt - 1, Suspect: p.GetSuspect()}
		return ok()
	case a.kind == actionReject && !a.park && l.attempt < rules.maxAttempts:
		delay := a.delay
		if delay == backOffRule {
			delay = rules.delay(l.attempt)
		}
		progress.Notifications[at] = &storagev1.NotificationProgress{
			Index: p.GetIndex(), Attempts: l.attempt + 1, LeaseNumber: l.number, NotBefore: timestamppb.New(now.Add(delay)),
		}
		return ok()
	case a.kind == actionReject:
		reason := linksgatev1.ParkReason_PARK_REASON_REJECTED
		if a.park {
			reason = linksgatev1.ParkReason_PARK_REASON_REQUESTED
		}
		record, err := s.recordOf(ctx, l)
		if err == nil {
			err = s.groups.store.Park(ctx, s.name, record, reason, a.reason, l.attempt)
		}
		switch {
		case errors.Is(err, eventlog.ErrExpired), errors.Is(err, eventlog.ErrNotFound), errors.Is(err, eventlog.ErrDamaged):
			return stale("the notification is gone: " + err.Error())
		case err != nil:
			return unavailable()
		}
		s.groups.stats.Parked.Add(1)
		progress.Notifications[at] = &storagev1.NotificationProgress{Index: p.GetIndex(), Settled: true}
		return ok()
	}
	progress.Notifications[at] = &storagev1.NotificationProgress{Index: p.GetIndex(), Settled: true, LeaseNumber: l.number}
	return ok()
}

// recordOf returns the notification that a lease is of.
func (s *session) recordOf(ctx context.Context, l lease) (*eventlog.Record, error) {
	position := eventlog.PositionOf(l.sequence)
	if l.source == eventlog.SourceReplay { // the log may not have it any more
		return s.groups.store.Replayed(ctx, s.name, position)
	}
	return s.groups.log.Get(ctx, position)
}
