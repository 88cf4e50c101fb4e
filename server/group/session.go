package group

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

const (
	// lookAround is how often a session looks whether it is idle, or blocked.
	lookAround = 2 * time.Second
	// idleTime is how long a session without members and leases stays.
	idleTime = 5 * time.Second
	// readAhead is how many notifications are kept ready beyond what members have room for.
	readAhead = 512
	// fetchBatches and fetchBytes bound what is read in one go.
	fetchBatches = 256
	fetchBytes   = 8 << 20
	// greatestBatch is what a record batch may take, but for one that holds a single large notification.
	greatestBatch = 512 << 10
	// fetchWait is how long the log is asked to wait for something new.
	fetchWait = 2 * time.Second
	// retryPause stands between two tries at something that did not work.
	retryPause = time.Second
	// handBackTime bounds handing back, which takes a write for each batch in hand of which something is known.
	handBackTime = 20 * time.Second
	// blockedTime is how long nothing can be leased before that is reported.
	blockedTime = 10 * time.Second
)

// session is the work on one group on this gateway.
type session struct {
	groups *Groups
	name   string

	ctx        context.Context // ends the goroutines of background
	cancel     context.CancelFunc
	background sync.WaitGroup
	settling   sync.WaitGroup // of leases whose notifications are not in hand; grows only with mu, and before gone is set
	opened     chan struct{}  // closed when openErr and what follows is set
	openErr    error          // set before opened is closed
	ended      chan struct{}  // closed when end has done its work
	endOnce    sync.Once

	reader      *eventlog.GroupReader
	incarnation incarnation
	signer      *signer
	before      uint64 // the newest lease when the session began
	earlier     eventlog.Outstanding

	// admitting is held while it is decided what is known of a batch that is not in hand: either what is stored of it is read and
	// it comes in hand, or what is stored is changed.
	admitting sync.Mutex

	mu          sync.Mutex
	record      *storagev1.GroupRecord // mu; replaced, never changed
	revision    uint64                 // mu; of record
	filter      *eventlog.Filter       // mu
	ledger      *ledger                // mu
	members     []*Member              // mu
	grants      uint64                 // mu; counts, to take turns
	recent      recent[uint64]         // mu; leases that were acknowledged
	seen        [2]uint64              // mu; by source: the newest batch that came in hand
	lastUsed    time.Time              // mu
	wakeAt      time.Time              // mu; when the clock wakes by itself
	reserveAt   time.Time              // mu; when another member is to be emptied; zero if none is
	pausedUntil time.Time              // mu; nothing is leased until then, because a member said so; zero if none did
	still       time.Time              // mu; since when nothing can be lent, because too much waits; zero if something can
	blocked     bool                   // mu; for so long that it was told
	gone        error                  // mu; why the session ended, once it has
	hungry      *sync.Cond             // on mu; there may be room to read more

	tick  chan struct{} // buffered; wakes the clock
	write chan struct{} // buffered; wakes the writer
}

func newSession(g *Groups, name string) *session {
	s := &session{
		groups: g, name: name, opened: make(chan struct{}), ended: make(chan struct{}), lastUsed: time.Now(),
		before: g.numbers.Load(), tick: make(chan struct{}, 1), write: make(chan struct{}, 1),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.hungry = sync.NewCond(&s.mu)
	return s
}

// open reads the group and starts working.
func (s *session) open() {
	defer close(s.opened)
	if s.openErr = s.attach(); s.openErr != nil {
		s.gone = s.openErr
		s.cancel()
		s.groups.forget(s)
		return
	}
	s.background.Go(s.runClock)
	s.background.Go(s.runWriter)
	s.background.Go(func() { s.read(eventlog.SourceLog) })
	s.background.Go(func() { s.read(eventlog.SourceReplay) })
}

func (s *session) attach() error {
	record, revision, err := s.groups.store.Get(s.ctx, s.name)
	if err != nil {
		return err
	}
	if s.reader, err = s.groups.store.Attach(s.ctx, record); err != nil {
		return err
	}
	s.incarnation, s.signer = incarnation(record.GetGeneration()), newSigner(record.GetTokenKey())
	s.earlier = s.reader.Outstanding()
	s.seen = s.earlier.Read
	s.ledger = newLedger(rulesOf(record.GetGroup()))
	s.record, s.revision, s.filter = record, revision, eventlog.FilterOf(record.GetGroup().GetFilter())
	return nil
}

// refresh takes over changed settings. It ends the session if the group was deleted or moved.
func (s *session) refresh() {
	<-s.opened // while it is being opened, what it reads may be old
	if s.openErr != nil {
		return
	}
	record, revision, err := s.groups.store.Get(s.ctx, s.name)
	switch {
	case errors.Is(err, eventlog.ErrNoGroup):
		s.endSoon(eventlog.ErrNoGroup)
	case s.ctx.Err() != nil:
	case err != nil:
		s.groups.logger.Warn("a change of a group could not be read", "group", s.name, "error", err)
	case incarnation(record.GetGeneration()) != s.incarnation:
		s.endSoon(ErrMoved)
	default:
		// What was lent so far is bounded by the lease duration of before.
		if err := s.reader.Reach(s.ctx, 0, 0, rulesOf(record.GetGroup()).lease); err != nil {
			if s.ctx.Err() == nil {
				s.groups.logger.Warn("a change of a group does not take effect yet", "group", s.name, "error", err)
			}
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if revision <= s.revision { // another call was faster
			return
		}
		if !proto.Equal(s.record.GetGroup().GetFilter(), record.GetGroup().GetFilter()) {
			for _, m := range s.members {
				m.end(ErrRefiltered, time.Now())
			}
		}
		s.record, s.revision = record, revision
		s.filter, s.ledger.rules = eventlog.FilterOf(record.GetGroup().GetFilter()), rulesOf(record.GetGroup())
		s.lend(time.Now())
	}
}

// endSoon ends the session at once for everyone else, and beside the caller as far as it takes time.
func (s *session) endSoon(why error) {
	s.stop(why)
	s.groups.ending.Go(func() { s.end(why) })
}

// stop makes the session useless: members leave, nothing more is lent or settled.
func (s *session) stop(why error) {
	s.mu.Lock()
	if s.gone == nil {
		s.gone = why
	}
	for _, m := range s.members {
		m.signal()
	}
	s.hungry.Broadcast()
	s.mu.Unlock()
	if !handsBack(why) {
		s.groups.forget(s)
	}
	s.cancel()
}

// handsBack reports whether a session that ends for a reason hands back what it has. Until it has done so there must not be
// another one: that would get the batches without what is known of them.
func handsBack(why error) bool {
	return errors.Is(why, errIdle) || errors.Is(why, ErrDraining) || why == ErrTaken //nolint:errorlint // errLost does not
}

// drain ends the members. What they have stays theirs.
func (s *session) drain() {
	select {
	case <-s.opened:
	default:
		return // nobody has joined
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		m.signal()
	}
}

// end stops the session and hands back what it has. It returns when that is done.
func (s *session) end(why error) {
	<-s.opened
	if s.openErr != nil {
		return
	}
	s.endOnce.Do(func() {
		defer close(s.ended)
		s.stop(why)
		s.background.Wait()
		s.settling.Wait()
		if handsBack(why) {
			s.handBack()
		}
		s.reader.Close()
		s.groups.forget(s)
	})
	<-s.ended
}

// handBack stores what is known of the batches in flight, so that whoever gets them next goes on with them. It gives up with the first
// call that fails: the others would have to wait for the same.
func (s *session) handBack() {
	ctx, cancel := context.WithTimeout(context.Background(), handBackTime)
	defer cancel()
	s.writeOut(ctx)
	s.mu.Lock()
	record, stored := s.record, s.knowsAll()
	inHand := slices.Collect(maps.Values(s.ledger.batches))
	s.mu.Unlock()
	for _, b := range inHand {
		if err := s.putProgress(ctx, record, b, false); err != nil {
			s.groups.logger.Warn("what members had done could not be stored and will be repeated", "group", s.name, "error", err)
			stored = false
			break
		}
	}
	s.writeOut(ctx) // what others had settled
	if stored {
		if err := s.reader.End(ctx); err != nil {
			s.groups.logger.Warn("what is out will not be known for sure", "group", s.name, "error", err)
		}
	}
}

// runClock ends leases and makes due what waits, until the session ends.
func (s *session) runClock() {
	looks := time.NewTicker(lookAround)
	defer looks.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		case <-s.tick:
		case <-looks.C:
			if s.look() {
				s.groups.ending.Go(func() { s.end(errIdle) })
				return
			}
		}
		s.mu.Lock()
		now := time.Now()
		next := s.advance(now)
		s.mu.Unlock()
		timer.Reset(next.Sub(now))
	}
}

// advance brings the ledger to a time and returns when to do so again. The caller holds mu.
func (s *session) advance(now time.Time) time.Time {
	for _, it := range s.ledger.advance(now) {
		s.leaseEnded(it, now)
	}
	s.lend(now)
	s.wakeWriter()
	next := s.ledger.next()
	if !s.reserveAt.IsZero() && (next.IsZero() || s.reserveAt.Before(next)) {
		next = s.reserveAt
	}
	if s.pausedUntil.After(now) && (next.IsZero() || s.pausedUntil.Before(next)) {
		next = s.pausedUntil
	}
	if next.IsZero() {
		next = now.Add(time.Hour)
	}
	s.wakeAt = next
	return next
}

// wakeBy makes sure that the clock wakes by a time. The caller holds mu.
func (s *session) wakeBy(t time.Time) {
	if t.Before(s.wakeAt) {
		s.wakeAt = t
		signal(s.tick)
	}
}

// look reports whether the session has had nothing to do for a while; then it is stopped.
func (s *session) look() (idle bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.members) > 0 || s.ledger.leases > 0 || len(s.ledger.toPark) > 0 {
		s.lastUsed = time.Now()
	}
	if idle = time.Since(s.lastUsed) > idleTime && s.gone == nil; idle {
		s.gone = errIdle
	}
	s.ledger.dust(time.Now())
	s.noteBlocked(time.Now())
	if s.ledger.crowded() {
		signal(s.write)
	}
	return idle
}

// noteBlocked tells when nothing goes on because of what waits, although members have room. The caller holds mu.
func (s *session) noteBlocked(now time.Time) {
	g := s.ledger
	if !g.standsStill() || s.paused(now) || !slices.ContainsFunc(s.members, func(m *Member) bool { return m.room() > 0 }) {
		if s.blocked {
			s.groups.logger.Info("group unblocked", "group", s.name, "after", now.Sub(s.still))
		}
		s.still, s.blocked = time.Time{}, false
		return
	}
	if s.still.IsZero() {
		s.still = now
	}
	if s.blocked || now.Sub(s.still) < blockedTime {
		return
	}
	s.blocked = true
	waiting := g.items - g.leases - g.held - len(g.delayed.items)
	s.groups.logger.Warn("group blocked",
		"group", s.name, "batches", len(g.batches), "bytes", g.bytes, "notifications", g.items,
		"in_flight", g.leases, "for_another_attempt", len(g.delayed.items), "perhaps_out_since_before_the_start", g.held,
		"behind_others", waiting)
}

// settled goes on after notifications were settled. The caller holds mu.
func (s *session) settled() {
	now := time.Now()
	s.lastUsed = now
	s.lend(now)
	s.wakeWriter()
	s.hungry.Broadcast()
}

// isEnding reports whether the session is about to make room for another one, but has not handed back all that it has.
func (s *session) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Is(s.gone, errIdle) || errors.Is(s.gone, ErrTaken)
}

func (s *session) currentRecord() *storagev1.GroupRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record
}

// signal wakes whoever waits on a buffered channel.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
