package faults

import (
	"context"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"
)

// kill kills the process, and sometimes the next one while it starts.
func kill(s *scene, r *rand.Rand) {
	s.must(s.gateway.Kill())
	if r.IntN(2) == 0 {
		s.must(s.gateway.Launch())
		sleep(s.ctx, upTo(r, 100*time.Millisecond))
		s.must(s.gateway.Kill())
	}
	s.must(s.gateway.Start(s.ctx))
}

func terminate(s *scene, _ *rand.Rand) {
	_, err := s.gateway.Stop()
	s.must(err)
	s.must(s.gateway.Start(s.ctx))
}

// terminateTwice sends the second signal while the gateway waits for requests that do not come to their end.
func terminateTwice(s *scene, r *rand.Rand) {
	stop, _ := s.dribblers(10)
	s.must(s.gateway.StopTwice(upTo(r, 500*time.Millisecond)))
	stop()
	s.must(s.gateway.Start(s.ctx))
}

// jumpClock lets the wall clock jump to and fro, by less in all than the age at which notifications are deleted, and does not always
// put it right.
func jumpClock(s *scene, r *rand.Rand) {
	const furthest = 14 * 24 * time.Hour
	if !s.gateway.HasClock() {
		s.t.Log("NOT TESTED: a clock that jumps; that of a process cannot be moved on this machine")
		return
	}
	for range 1 + r.IntN(4) {
		s.must(s.gateway.SetClock(s.ctx, upTo(r, 2*furthest)-furthest))
		s.awaitIntake()
		sleep(s.ctx, upTo(r, 500*time.Millisecond))
	}
	if r.IntN(2) == 0 {
		s.must(s.gateway.SetClock(s.ctx, 0))
	}
}

// dribblers starts slow senders and waits until they are connected. The returned function ends them.
func (s *scene) dribblers(connections int) (stop func(), d *Dribblers) {
	s.t.Helper()
	target, err := url.Parse(s.gateway.Webhook)
	s.must(err)
	d = &Dribblers{Address: target.Host, Path: target.Path + "/cube", Connections: connections}
	ctx, cancel := context.WithCancel(s.ctx)
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	if err := Await(s.ctx, "the slow senders are connected", func() bool { return d.Opened() >= connections }); err != nil {
		stop()
		s.t.Fatal(err)
	}
	return stop, d
}

// dribble has a thousand slow senders for a few seconds, longer than the gateway waits for headers. The others must still get their
// answers at a rate that is not far from the usual one.
func dribble(s *scene, r *rand.Rand) {
	const (
		slow, least   = 1000, 100
		allowedShare  = 5 // of the usual rate, at least one in so many
		usual, during = time.Second, 7 * time.Second
	)
	connections := spareConnections(slow)
	if connections < least {
		s.t.Logf("NOT TESTED: slow senders; the limit of open files leaves room for %d", connections)
		return
	}
	before := s.rate(usual)
	stop, d := s.dribblers(connections)
	meanwhile := s.rate(during + upTo(r, time.Second))
	stop()
	s.t.Logf("%.0f/s before, %.0f/s with %d slow senders, which were cut off %d times", before, meanwhile, connections, d.CutOff())
	if meanwhile*allowedShare < before {
		s.t.Errorf("with %d slow senders %.0f notifications are accepted in a second, %.0f without", connections, meanwhile, before)
	}
	if d.CutOff() == 0 {
		s.t.Error("the gateway cut no slow sender off")
	}
}

// rate measures how many notifications are accepted in a second.
func (s *scene) rate(during time.Duration) float64 {
	began, first := time.Now(), s.driver.Accepted()
	sleep(s.ctx, during)
	return float64(s.driver.Accepted()-first) / time.Since(began).Seconds()
}
