package faults

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/linksgate/linksgate/server/faults/faultfs"
)

// losePower cuts the power between two operations on the disk, and sometimes once more while the gateway starts. The process sees
// nothing but errors until it is killed.
func losePower(s *scene, r *rand.Rand) {
	s.cutPower(r, r.IntN(300))
	if r.IntN(2) == 0 {
		s.must(s.gateway.Launch())
		s.cutPower(r, r.IntN(30))
	}
	s.must(s.gateway.Start(s.ctx))
}

// cutPower cuts the power after so many operations, ends the process, and restores the power.
func (s *scene) cutPower(r *rand.Rand, operations int) {
	s.t.Helper()
	cut := s.disk.PowerCutAfter(operations, another(r))
	select {
	case <-cut:
	case <-time.After(2 * time.Second):
		s.disk.PowerCut(another(r))
	}
	sleep(s.ctx, upTo(r, 20*time.Millisecond))
	s.must(s.gateway.End())
	s.disk.Restore()
}

// reachReserve takes space away until the gateway's reserve is reached. It must say so, refuse, serve what it has, and go on by itself
// when there is space again.
func reachReserve(s *scene, r *rand.Rand) {
	s.disk.SetCapacity(s.disk.Used() + roundMinFree + r.Int64N(200_000))
	var overHTTP, overGRPC bool
	s.must(Await(s.ctx, "the gateway is not ready", func() bool {
		var err error
		overHTTP, overGRPC, err = s.gateway.Ready(s.ctx)
		s.must(err)
		return !overHTTP && !overGRPC
	}))
	accepted := s.driver.Accepted()
	log, err := ReadLog(s.ctx, s.gateway.GRPC)
	s.must(err)
	if len(log.Notifications) == 0 {
		s.t.Error("nothing can be read while the disk is nearly full")
	}
	sleep(s.ctx, upTo(r, 500*time.Millisecond))
	if more := s.driver.Accepted() - accepted; more > roundConnections {
		s.t.Errorf("%d notifications were accepted while the gateway said that it is not ready", more)
	}
	s.disk.SetCapacity(0)
	s.awaitIntake()
	s.must(Await(s.ctx, "the gateway is ready again", func() bool {
		overHTTP, overGRPC, err = s.gateway.Ready(s.ctx)
		s.must(err)
		return overHTTP && overGRPC
	}))
	if ended, err := s.gateway.Ended(); ended {
		s.t.Fatalf("the gateway ended when the reserve was reached: %v", err)
	}
}

// fillDisk fills the disk under a gateway that keeps almost no reserve. Sometimes the disk says that there is space and then has none, as
// one does that others write to.
func fillDisk(s *scene, r *rand.Rand) {
	s.restartWith(1)
	clear := func() {}
	if r.IntN(2) == 0 {
		clear = s.disk.Fail(faultfs.Fault{Ops: faultfs.OpWrite, Err: syscall.ENOSPC, After: r.IntN(100)})
	} else {
		s.disk.SetCapacity(s.disk.Used() + r.Int64N(300_000))
	}
	began := time.Now()
	trouble, longest := s.refusals(), 3*time.Second
	ends := s.supervise("the disk is full", func() bool { return trouble() || time.Since(began) > longest })
	most := time.Now().Add(upTo(r, time.Second))
	ends += s.supervise("the disk was full for a while", func() bool { return time.Now().After(most) })
	clear()
	s.disk.SetCapacity(0)
	ends += s.recover()
	s.t.Logf("the gateway ended %d times", ends)
	s.restartWith(roundMinFree)
}

// restartWith starts the gateway anew with another reserve.
func (s *scene) restartWith(minFree int64) {
	s.t.Helper()
	s.must(s.gateway.SetMinFree(minFree))
	_, err := s.gateway.Stop()
	s.must(err)
	s.must(s.gateway.Start(s.ctx))
}

// refusals returns a condition that holds when nothing has been accepted for a while.
func (s *scene) refusals() func() bool {
	const while = 300 * time.Millisecond
	last, since := s.driver.Accepted(), time.Now()
	return func() bool {
		if now := s.driver.Accepted(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > while
	}
}

// recover waits until the gateway accepts again, by itself or started anew, and returns how often it was.
func (s *scene) recover() (ends int) {
	s.t.Helper()
	accepted := s.driver.Accepted()
	ends = s.supervise("notifications are accepted again", func() bool { return s.driver.Accepted() >= accepted+roundConnections })
	s.must(s.gateway.AwaitReady(s.ctx))
	return ends
}

// failWrites makes some writes to files of records fail.
func failWrites(s *scene, r *rand.Rand) {
	s.failFor(r, faultfs.Fault{Ops: faultfs.OpWrite, Err: syscall.EIO, Name: "*.seg", After: r.IntN(50), Times: 1 + r.IntN(3)})
}

// failFor makes operations fail until the gateway has felt it, for a second or two at most, and waits until it has recovered.
func (s *scene) failFor(r *rand.Rand, fault faultfs.Fault) {
	s.t.Helper()
	clear := s.disk.Fail(fault)
	until := time.Now().Add(time.Second + upTo(r, time.Second))
	ends := s.supervise("operations have failed", func() bool { return time.Now().After(until) })
	clear()
	ends += s.recover()
	s.t.Logf("the gateway ended %d times", ends)
}

// testFailedSyncs makes syncs fail again and again. What a failed sync left undone, the page cache hides until the power goes: what that
// takes is a matter of package faultfs, so these faults keep apart from power loss.
func testFailedSyncs(t *testing.T, r *rand.Rand) {
	s := newRound(t, r, Options{MinFree: roundMinFree})
	s.subscribe(&Subscriber{Name: "one by one"})
	stop := s.load()
	for range 3 {
		s.must(s.driver.AwaitAccepted(s.ctx, s.driver.Accepted()+1+r.IntN(betweenFaults)))
		s.failFor(r, faultfs.Fault{Ops: faultfs.OpSync, Err: syscall.EIO, After: r.IntN(50), Times: 1 + r.IntN(3)})
		kill(s, r)
		s.awaitIntake()
	}
	stop()
	s.check()
}

// testLyingDisk proves that the loss of power is tested at all: on a disk that only says that it syncs, the checker must find that
// something is lost, or the log must not open.
func testLyingDisk(t *testing.T, r *rand.Rand) {
	const rounds = 5
	s := newRound(t, r, Options{MinFree: roundMinFree})
	s.disk.SetLying(true)
	for number := range rounds {
		stop := s.load()
		s.must(s.driver.AwaitAccepted(s.ctx, s.driver.Accepted()+betweenFaults))
		s.cutPower(r, r.IntN(100))
		stop()
		if err := s.gateway.Start(s.ctx); err != nil {
			t.Logf("the log does not open in round %d: %v", number, err)
			return
		}
		log, err := ReadLog(s.ctx, s.gateway.GRPC)
		s.must(err)
		lost := 0
		for _, v := range Check(History{Sent: s.driver.Sent(), Log: log}) {
			if v.Rule == Lost {
				lost++
			}
		}
		if lost > 0 {
			t.Logf("the checker found %d lost in round %d", lost, number)
			return
		}
	}
	t.Errorf("nothing was lost in %d rounds on a disk that lies", rounds)
}
