package faults

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// reload has the gateway read its configuration again and again, one that cannot be used among them.
func reload(s *scene, r *rand.Rand) {
	for range 2 + r.IntN(4) {
		spoilt := r.IntN(2) == 0
		if spoilt {
			s.must(s.gateway.Spoil())
		}
		s.reload(!spoilt)
		s.must(s.gateway.Accept(s.gateway.settings.secrets...))
		sleep(s.ctx, upTo(r, 300*time.Millisecond))
	}
	s.reload(true)
}

// reload has the gateway read its configuration, which it must be able to use or not.
func (s *scene) reload(usable bool) {
	s.t.Helper()
	used, err := s.gateway.Reload(s.ctx)
	s.must(err)
	if used != usable {
		s.t.Errorf("the configuration was put in force: %v; it can be used: %v", used, usable)
	}
}

// rotate changes the secrets as the manual says: the new ones beside the old, then Linksfield changes over, then the old ones go. What
// is in quarantine bears signatures of the old ones, and is released before.
func rotate(s *scene, r *rand.Rand) {
	s.release()
	for range 1 + r.IntN(3) {
		old, next := s.gateway.settings.secrets[0], s.newSecrets("rotated")
		s.accept(old, next)
		sleep(s.ctx, upTo(r, 300*time.Millisecond))
		s.must(s.driver.Change(func() error { s.driver.Sender = next.Sender(); return nil }))
		sleep(s.ctx, upTo(r, 300*time.Millisecond))
		s.accept(next)
	}
}

// accept puts secrets in force.
func (s *scene) accept(secrets ...Secrets) {
	s.t.Helper()
	s.must(s.gateway.Accept(secrets...))
	s.reload(true)
}

// newSecrets returns secrets that have never been used.
func (s *scene) newSecrets(what string) Secrets {
	s.generation++
	return Secrets(fmt.Sprintf("%s-%d", what, s.generation))
}

// mistakeSecrets gives the gateway wrong secrets for a while. What it refuses then is released at once, or at the end of the round, after
// whatever else happens.
func mistakeSecrets(s *scene, r *rand.Rand) {
	s.mistake(r)
	if r.IntN(2) == 0 {
		s.release()
	}
}

// releaseInPieces kills the gateway while it releases.
func releaseInPieces(s *scene, r *rand.Rand) {
	s.mistake(r)
	for range 1 + r.IntN(3) {
		released := make(chan struct{})
		s.running.Go(func() {
			defer close(released)
			_, _ = s.gateway.Release() // it fails when the gateway goes
		})
		sleep(s.ctx, upTo(r, 300*time.Millisecond))
		s.must(s.gateway.Kill())
		<-released
		s.must(s.gateway.Start(s.ctx))
	}
	s.release()
}

// mistake gives the gateway wrong secrets until it has refused some notifications, far fewer than it would no longer keep.
func (s *scene) mistake(r *rand.Rand) {
	s.t.Helper()
	right := s.gateway.settings.secrets[0]
	change := func(secrets Secrets, wrong bool) {
		s.must(s.driver.Change(func() error {
			s.accept(secrets)
			s.driver.WrongSecret = wrong
			return nil
		}))
	}
	change(s.newSecrets("wrong"), true)
	denied := s.driver.Denied() + 1 + r.IntN(200)
	s.must(Await(s.ctx, "some notifications are refused", func() bool { return s.driver.Denied() >= denied }))
	change(right, false)
}

// release releases everything from quarantine.
func (s *scene) release() {
	s.t.Helper()
	out, err := s.gateway.Release()
	s.must(err)
	s.t.Logf("release: %s", lastLine(out))
}
