package group

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// Where a lease is settled: in the ledger, if the notification is in flight; else, because it was given before the group was coordinated
// here, in what is stored.

// action is what one token of a request asks for.
type action struct {
	kind   actionKind
	token  string
	delay  time.Duration // of actionReject; backOffRule: the group's
	park   bool          // of actionReject
	giveUp bool          // of actionReject: it does not count as an attempt
	pause  time.Duration // of actionReject, with giveUp: nothing is leased for this time
	reason string        // of actionReject
	extend time.Duration // of actionExtend; 0: the lease duration
}

type actionKind uint8

const (
	actionAcknowledge actionKind = iota
	actionReject
	actionExtend
)

// maxReason is how much of a rejection's reason is kept.
const maxReason = 1000

// Acknowledge settles leases. The results are those of the tokens, in their order. Errors: eventlog.ErrNoGroup, ErrUnavailable.
func (g *Groups) Acknowledge(ctx context.Context, request *linksgatev1.AcknowledgeRequest) ([]*linksgatev1.LeaseResult, error) {
	return g.settle(ctx, request.GetGroupName(), acknowledgements(request))
}

// Reject ends leases whose notifications could not be handled. What is to be parked is when it returns. Errors: as for
// Acknowledge.
func (g *Groups) Reject(ctx context.Context, request *linksgatev1.RejectRequest) ([]*linksgatev1.LeaseResult, error) {
	return g.settle(ctx, request.GetGroupName(), rejections(request))
}

// ExtendLeases lets leases last longer. Errors: as for Acknowledge.
func (g *Groups) ExtendLeases(ctx context.Context, request *linksgatev1.ExtendLeasesRequest) ([]*linksgatev1.LeaseResult, error) {
	return g.settle(ctx, request.GetGroupName(), extensions(request))
}

func acknowledgements(request *linksgatev1.AcknowledgeRequest) []action {
	actions := make([]action, len(request.GetLeaseTokens()))
	for i, token := range request.GetLeaseTokens() {
		actions[i] = action{kind: actionAcknowledge, token: token}
	}
	return actions
}

func rejections(request *linksgatev1.RejectRequest) []action {
	actions := make([]action, len(request.GetRejections()))
	for i, r := range request.GetRejections() {
		reason := r.GetReason()
		if len(reason) > maxReason {
			reason = strings.ToValidUTF8(reason[:maxReason], "")
		}
		actions[i] = action{
			kind: actionReject, token: r.GetLeaseToken(), park: r.GetPark(),
			giveUp: r.GetRelease() || r.GetPauseGroup() != nil, pause: r.GetPauseGroup().AsDuration(), reason: reason, delay: backOffRule,
		}
		if r.GetRetryAfter() != nil {
			actions[i].delay = r.GetRetryAfter().AsDuration()
		}
	}
	return actions
}

func extensions(request *linksgatev1.ExtendLeasesRequest) []action {
	actions := make([]action, len(request.GetLeaseTokens()))
	for i, token := range request.GetLeaseTokens() {
		actions[i] = action{kind: actionExtend, token: token, extend: request.GetDuration().AsDuration()}
	}
	return actions
}

func (g *Groups) settle(ctx context.Context, name string, actions []action) ([]*linksgatev1.LeaseResult, error) {
	for {
		s, err := g.session(ctx, name)
		if err != nil {
			return nil, err
		}
		results, err := s.settle(ctx, actions)
		if !isRenewed(err) {
			return results, err
		}
	}
}

// settle does what the actions ask for.
func (s *session) settle(ctx context.Context, actions []action) ([]*linksgatev1.LeaseResult, error) {
	results := make([]*linksgatev1.LeaseResult, len(actions))
	leases := make([]lease, len(actions))
	parking := make(map[int]chan struct{})
	touched := make(map[*batch]uint64) // by acknowledgements, and their version
	var acknowledged, stored []int
	for i, a := range actions {
		l, ok := s.signer.parse(a.token)
		leases[i] = l
		switch {
		case !ok:
			results[i] = invalid()
		case l.incarnation != s.incarnation:
			results[i] = stale("the group was moved to another place since")
		}
	}

	s.mu.Lock()
	if s.gone != nil {
		s.mu.Unlock()
		return nil, s.gone
	}
	now := time.Now()
	for i, a := range actions {
		if results[i] != nil {
			continue
		}
		l := leases[i]
		it := s.ledger.find(l)
		switch {
		case it != nil:
			results[i] = s.settleInHand(it, l, a, now)
			if it.parking && results[i].GetOutcome() == linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK {
				parking[i] = it.parkedSoon()
			}
			if a.kind == actionAcknowledge && results[i].GetOutcome() == linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK {
				it.batch.version++
				touched[it.batch] = it.batch.version
				acknowledged = append(acknowledged, i)
			}
		case a.kind == actionAcknowledge && s.recent.has(l.number):
			results[i] = ok()
		case s.ledger.isShelved(l):
			stored = append(stored, i)
		case s.gave(l), s.ledger.closed.has(batchKey{l.source, l.stream}):
			// The log does not tell whether a batch was settled while an older one is not.
			results[i] = stale("it was settled before")
		default:
			stored = append(stored, i)
		}
	}
	s.settled()
	s.wakeBy(now)
	s.settling.Add(1)
	s.mu.Unlock()

	if len(touched) > 0 {
		if err := s.persist(ctx, touched); err != nil {
			s.groups.logger.Error("acknowledgements not stored", "group", s.name, "error", err)
			for _, i := range acknowledged {
				results[i] = unavailable()
			}
		}
	}
	if len(stored) > 0 {
		s.settleStored(ctx, actions, leases, stored, results)
	}
	s.settling.Done()
	for i, parked := range parking {
		select {
		case <-parked:
			continue
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-s.ended:
		}
		select {
		case <-parked: // as the last thing that was done
		default:
			results[i] = unavailable()
		}
	}
	return results, nil
}

// gave reports whether a lease was given by this session. Then its batch is in hand, or on the shelf, or everything in it is settled.
func (s *session) gave(l lease) bool {
	return l.number-s.before-1 < s.groups.numbers.Load()-s.before
}

// parkedSoon returns a channel that is closed when the notification is parked.
func (it *item) parkedSoon() chan struct{} {
	if it.parked == nil {
		it.parked = make(chan struct{})
	}
	return it.parked
}

// settleInHand does what an action asks for with a notification that is in hand. The caller holds mu.
func (s *session) settleInHand(it *item, l lease, a action, now time.Time) *linksgatev1.LeaseResult {
	own := it.lease == l.number
	until := l.until
	if own || it.held {
		until = it.until // it may have been extended
	}
	switch {
	case it.state == stateSettled && own && a.kind == actionAcknowledge && !it.parking:
		return ok()
	case it.state == stateSettled || it.parking:
		return stale("it was settled otherwise")
	case it.state == stateLeased && it.held && l.attempt < it.attempts, it.state == stateLeased && !it.held && !own:
		return stale("it was leased again")
	case it.state != stateLeased && !own && (it.lease != 0 || l.attempt < it.attempts):
		return stale("it was leased again")
	case !until.After(now):
		return stale("the lease ended at " + until.UTC().Format(time.RFC3339Nano))
	case it.state != stateLeased && own && it.reason == linksgatev1.ParkReason_PARK_REASON_REJECTED && a.kind != actionReject:
		return stale("it was rejected")
	case it.state != stateLeased && a.giveUp:
		return ok() // it was given back already
	case it.state != stateLeased && (a.kind == actionExtend || own && it.attempts < l.attempt):
		return stale("it was given back")
	}
	s.ledger.note(it, l)
	if it.member != nil {
		it.member.lapsed = false
	}
	switch a.kind {
	case actionAcknowledge:
		s.release(it)
		s.recent.add(l.number)
		s.ledger.settle(it, now)
		s.groups.stats.Acknowledged.Add(1)
	case actionReject:
		if a.giveUp {
			s.release(it)
			s.ledger.takeBack(it, now)
			s.pauseFor(a.pause, now)
			break
		}
		reason := linksgatev1.ParkReason_PARK_REASON_REJECTED
		if a.park {
			reason = linksgatev1.ParkReason_PARK_REASON_REQUESTED
		}
		s.release(it)
		s.ledger.fail(it, reason, a.reason, a.delay, now)
		s.groups.stats.Rejected.Add(1)
	case actionExtend:
		return s.extend(it, a, now)
	}
	return ok()
}

func (s *session) extend(it *item, a action, now time.Time) *linksgatev1.LeaseResult {
	s.ledger.extend(it, now.Add(s.ledger.rules.extension(a.extend)))
	return &linksgatev1.LeaseResult{Outcome: linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK, ExpiresAt: timestamppb.New(it.until)}
}

// pauseFor has nothing leased for a time. The caller holds mu.
func (s *session) pauseFor(d time.Duration, now time.Time) {
	if until := now.Add(d); d > 0 && until.After(s.pausedUntil) {
		s.pausedUntil = until
		s.wakeBy(until)
		s.groups.logger.Warn("group paused", "group", s.name, "for", d)
	}
}

func ok() *linksgatev1.LeaseResult {
	return &linksgatev1.LeaseResult{Outcome: linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK}
}

func stale(detail string) *linksgatev1.LeaseResult {
	return &linksgatev1.LeaseResult{Outcome: linksgatev1.LeaseOutcome_LEASE_OUTCOME_STALE, Detail: detail}
}

func invalid() *linksgatev1.LeaseResult {
	return &linksgatev1.LeaseResult{Outcome: linksgatev1.LeaseOutcome_LEASE_OUTCOME_INVALID, Detail: "not a lease token of this group"}
}

func unavailable() *linksgatev1.LeaseResult {
	return &linksgatev1.LeaseResult{
		Outcome: linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE, Detail: "it could not be stored; call again",
	}
}

// recent remembers what came of late: leases that were acknowledged, so that acknowledging one again is fine although everything
// around it is settled, and batches that were closed.
type recent[T comparable] struct{ newer, older map[T]struct{} }

const recentPart = 16_384

func (r *recent[T]) add(one T) {
	if r.newer == nil || len(r.newer) >= recentPart {
		r.older, r.newer = r.newer, make(map[T]struct{})
	}
	r.newer[one] = struct{}{}
}

func (r *recent[T]) has(one T) bool {
	_, newer := r.newer[one]
	_, older := r.older[one]
	return newer || older
}
