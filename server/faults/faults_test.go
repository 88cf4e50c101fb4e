package faults

import (
	"runtime"
	"strings"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// Nothing breaks but subscribers: everything that was answered with 200 is there, in order and once, for everyone.
func TestLoad(t *testing.T) {
	r := random(t)
	s := newScene(t)
	s.subscribe(&Subscriber{Name: "one by one"})
	s.subscribe(&Subscriber{Name: "in batches", MaxBatch: 512})
	vanishing := []*Subscriber{
		s.subscribe(&Subscriber{Name: "vanishing, one by one"}),
		s.subscribe(&Subscriber{Name: "vanishing, in batches", MaxBatch: 7}),
	}
	stop := s.drive(*notifications)
	s.must(s.driver.AwaitAccepted(s.ctx, 1))
	late := s.subscribe(&Subscriber{Name: "late", Latest: true})
	for _, moment := range someMoments(r, *vanishings) {
		for _, subscriber := range vanishing {
			s.vanish(subscriber, moment)
		}
	}
	s.awaitDriven(*notifications, stop)
	history := s.check()

	for _, sent := range history.Sent {
		if !sent.accepted() {
			t.Errorf("number %d was answered %d, %v: nothing was wrong with it", sent.Number, sent.Status, sent.Err)
		}
	}
	if late.Handled() == 0 {
		t.Error("the late subscriber saw nothing")
	}
}

// The process is killed under load again and again, sometimes while it is starting. Subscribers come back with their tokens.
func TestKill(t *testing.T) {
	r := random(t)
	s := newScene(t)
	s.subscribe(&Subscriber{Name: "one by one"})
	s.subscribe(&Subscriber{Name: "in batches", MaxBatch: 512})
	vanishing := s.subscribe(&Subscriber{Name: "vanishing", MaxBatch: 7})
	stop := s.drive(*notifications)
	for i, moment := range someMoments(r, *kills) {
		s.must(s.driver.AwaitAccepted(s.ctx, moment))
		s.must(s.gateway.Kill())
		if i%4 == 0 {
			s.must(s.gateway.Launch())
			time.Sleep(time.Duration(r.Int64N(int64(50 * time.Millisecond)))) // somewhere in its start, and nothing tells where
			s.must(s.gateway.Kill())
		}
		s.must(s.gateway.Start(s.ctx))
		s.vanish(vanishing, moment)
	}
	s.awaitDriven(*notifications, stop)
	s.check()
}

// The wall clock jumps under load, and the process is killed at another time than it was started. Readers see what they always see.
func TestClockJumps(t *testing.T) {
	r := random(t)
	s := newSceneWith(t, Options{OwnClock: true}, testTimeout)
	if !s.gateway.HasClock() {
		t.Skip("NOT TESTED: the clock of a process cannot be moved on this machine")
	}
	s.subscribe(&Subscriber{Name: "one by one"})
	s.subscribe(&Subscriber{Name: "in batches", MaxBatch: 512})
	stop := s.load()
	for range 3 {
		jumpClock(s, r)
		kill(s, r)
		s.awaitIntake()
	}
	stop()
	s.check()
}

// What has expired while the gateway was stopped is gone without a word of damage, and what comes then is kept.
func TestExpiredWhileStopped(t *testing.T) {
	const month, sent = 31 * 24 * time.Hour, 200
	s := newSceneWith(t, Options{OwnClock: true}, testTimeout)
	if !s.gateway.HasClock() {
		t.Skip("NOT TESTED: the clock of a process cannot be moved on this machine")
	}
	for stopped := range 2 {
		accepted := s.driver.Accepted() + sent
		s.awaitDriven(accepted, s.drive(accepted))
		if log, err := ReadLog(s.ctx, s.gateway.GRPC); err != nil || len(log.Notifications) < sent {
			t.Errorf("%d notifications are in the log, %v; %d were accepted just now", len(log.Notifications), err, sent)
		}
		if stopped == 0 {
			_, err := s.gateway.Stop()
			s.must(err)
		} else {
			s.must(s.gateway.Kill())
		}
		s.must(s.gateway.SetClock(s.ctx, time.Duration(stopped+1)*month))
		s.must(s.gateway.Start(s.ctx))
		if log, err := ReadLog(s.ctx, s.gateway.GRPC); err != nil || len(log.Notifications) != 0 {
			t.Errorf("%d notifications are in the log after a month, %v", len(log.Notifications), err)
		}
	}
	if printed := s.gateway.output.String(); strings.Contains(printed, "level=ERROR") {
		t.Errorf("the gateway printed:\n%s", printed)
	}
}

// A shutdown under load is orderly: in time, with status 0, its streams ended with an announcement, and nothing lost.
func TestTerminate(t *testing.T) {
	s := newScene(t)
	s.subscribe(&Subscriber{Name: "one by one"})
	s.subscribe(&Subscriber{Name: "in batches", MaxBatch: 512})
	stop := s.drive(2 * *notifications) // more than there is time for
	s.must(s.driver.AwaitAccepted(s.ctx, *notifications/3))
	took, err := s.gateway.Stop()
	s.must(err)
	t.Logf("the gateway took %v to stop", took)
	if took > DrainTimeout {
		t.Errorf("the gateway took %v to stop, more than its drain timeout of %v", took, DrainTimeout)
	}
	stop()
	for _, subscriber := range s.subscribers {
		s.must(Await(s.ctx, subscriber.Name+" notices the end", func() bool { return len(subscriber.Trace().Endings) > 0 }))
		first := subscriber.Trace().Endings[0]
		if first.Closing != linksgatev1.ClosingReason_CLOSING_REASON_DRAINING || first.Reason != "DRAINING" {
			t.Errorf("the stream of %s ended with %v, announced as %v", subscriber.Name, first.Err, first.Closing)
		}
	}
	s.must(s.gateway.Start(s.ctx))
	s.check()
}

// A subscriber that stops reading costs neither memory nor anyone else's time, and misses nothing. How much memory a gateway has in
// use depends on what it has just written, so it is compared with one under the same load that nobody reads from.
func TestSlowSubscriber(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the memory of a process can only be read on Linux")
	}
	const (
		allowedGrowth  = 96 << 20 // what arrives while the subscriber does not read is more than twice that
		allowedSlowing = 5        // times the time that a notification takes
	)
	var without, with measurement
	t.Run("without", func(t *testing.T) { without = measureStall(t, false) })
	t.Run("with", func(t *testing.T) { with = measureStall(t, true) })
	if grown := with.memory - without.memory; grown > allowedGrowth {
		t.Errorf("with a subscriber that did not read the gateway used %d MiB more; %d are allowed", grown>>20, allowedGrowth>>20)
	}
	if with.perNotification > allowedSlowing*without.perNotification {
		t.Errorf("with a subscriber that did not read a notification took %v, else %v", with.perNotification, without.perNotification)
	}
}

// measureStall measures a gateway under load with one subscriber that stops reading, or without it. Then the subscriber reads all.
func measureStall(t *testing.T, stall bool) measurement {
	const (
		bodyBytes = 8 << 10              // more than twice that is stored, with the typed form
		before    = 32 << 20 / bodyBytes // notifications; they fill what the gateway keeps for live readers
		during    = 128 << 20 / bodyBytes
	)
	s := newScene(t)
	s.driver.BodyBytes = bodyBytes
	slow := &Subscriber{Name: "slow", MaxBatch: 512}
	if stall {
		s.subscribe(slow)
		s.must(Await(s.ctx, "the slow subscriber is live", func() bool { return slow.Trace().CaughtUp > 0 }))
	}
	stop := s.drive(before + during)
	s.must(s.driver.AwaitAccepted(s.ctx, before))
	if stall {
		s.must(slow.AwaitHandled(s.ctx, 1))
		slow.Pause()
	}
	m := s.measure(before + during)
	t.Log(m)
	stop()
	if !stall {
		s.subscribe(slow)
		s.check()
		return m
	}
	if behind := s.driver.Accepted() - slow.Handled(); behind < during/2 {
		t.Errorf("the slow subscriber was only %d behind, of %d: it did read", behind, during)
	}
	slow.Resume()
	s.check()
	if slow.Trace().FellBehind == 0 {
		t.Error("the slow subscriber was not told that it fell behind")
	}
	return m
}
