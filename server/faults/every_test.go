package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/linksgate/linksgate/server/faults/faultfs"
)

const (
	// roundConnections and roundRest make a load of at most some hundred notifications a second: a round is about what breaks, and
	// what it does not use of the machine is there for the faults.
	roundConnections = 16
	roundRest        = 20 * time.Millisecond
	// roundTimeout bounds a round.
	roundTimeout = 4 * time.Minute
	// roundMinFree is the gateway's reserve of free space.
	roundMinFree = 16 << 20
	// betweenFaults is how many notifications are accepted, at most, between two faults.
	betweenFaults = 300
)

// fault is something that breaks under load, and is mended: strike returns when the gateway is ready again.
type fault struct {
	name   string
	strike func(*scene, *rand.Rand)
}

// mixed are the faults that can strike one gateway in any order: none excuses any loss.
var mixed = []fault{
	{"kill", kill},
	{"terminate", terminate},
	{"terminate twice", terminateTwice},
	{"power loss", losePower},
	{"reserve reached", reachReserve},
	{"disk full", fillDisk},
	{"write errors", failWrites},
	{"subscribers stall and vanish", stallSubscribers},
	{"reconnect storm", storm},
	{"slow senders", dribble},
	{"reload", reload},
	{"rotate secrets", rotate},
	{"clock jumps", jumpClock},
	{"wrong secrets", mistakeSecrets},
	{"wrong secrets, released in pieces", releaseInPieces},
}

// apart are the faults that need a gateway of their own.
var apart = []struct {
	name string
	test func(*testing.T, *rand.Rand)
}{
	{"sync errors", testFailedSyncs},
	{"flipped bytes", testFlippedBytes},
	{"lying disk", testLyingDisk},
}

// Every fault strikes once.
func TestEveryFault(t *testing.T) {
	if !*every {
		t.Skip("make faults-short runs it")
	}
	r := random(t)
	t.Run("mixed", func(t *testing.T) {
		order := slices.Clone(mixed)
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		round(t, r, order)
	})
	for _, one := range apart {
		t.Run(one.name, func(t *testing.T) { one.test(t, r) })
	}
}

// Faults strike at random until the time is over. Each round has a seed of its own, with which it can be had as the first.
func TestFaults(t *testing.T) {
	if *duration == 0 {
		t.Skip("make faults runs it")
	}
	for number, end := uint64(0), time.Now().Add(*duration); time.Now().Before(end) && !t.Failed(); number++ {
		t.Run(fmt.Sprintf("seed=%d", *seed+number), func(t *testing.T) {
			r := rand.New(rand.NewPCG(*seed+number, 0))
			if r.IntN(3) == 0 {
				one := apart[r.IntN(len(apart))]
				t.Run(one.name, func(t *testing.T) { one.test(t, r) })
				return
			}
			faults := make([]fault, 5+r.IntN(10))
			for i := range faults {
				faults[i] = mixed[r.IntN(len(mixed))]
			}
			round(t, r, faults)
		})
	}
}

// round lets faults strike one gateway, one after the other, under load and with subscribers, and checks everything at the end.
func round(t *testing.T, r *rand.Rand, faults []fault) {
	s := newRound(t, r, Options{MinFree: roundMinFree})
	s.subscribe(&Subscriber{Name: "one by one"})
	s.subscribe(&Subscriber{Name: "in batches", MaxBatch: 512})
	stop := s.load()
	for _, f := range faults {
		s.must(s.driver.AwaitAccepted(s.ctx, s.driver.Accepted()+1+r.IntN(betweenFaults)))
		began, accepted := time.Now(), s.driver.Accepted()
		f.strike(s, r)
		s.awaitIntake()
		t.Logf("%-34s %6.2fs, %d accepted meanwhile", f.name, time.Since(began).Seconds(), s.driver.Accepted()-accepted)
		if t.Failed() {
			break // what comes now would only hide it
		}
	}
	stop()
	s.release()
	s.check()
}

// newRound starts a gateway on a disk that can break.
func newRound(t *testing.T, r *rand.Rand, options Options) *scene {
	t.Helper()
	disk := faultfs.Start(t, faultfs.Options{Seed: r.Uint64()})
	options.LogDir, options.OwnClock = disk.Dir()+"/log", true
	s := newSceneWith(t, options, roundTimeout)
	s.disk = disk
	s.driver.Connections, s.driver.Rest = roundConnections, roundRest
	return s
}

// load starts a driver that goes on until it is stopped.
func (s *scene) load() (stop func()) {
	const forEver = 1 << 40
	return s.drive(forEver)
}

// awaitIntake waits until some more notifications are accepted.
func (s *scene) awaitIntake() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, readyTimeout)
	defer cancel()
	s.must(s.driver.AwaitAccepted(ctx, s.driver.Accepted()+roundConnections))
}

// supervise starts the gateway again whenever it ends by itself, as a service manager does, until a condition holds. It returns how
// often it did.
func (s *scene) supervise(what string, holds func() bool) (starts int) {
	s.t.Helper()
	const pause = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(s.ctx, readyTimeout)
	defer cancel()
	var failed error
	err := Await(ctx, what, func() bool {
		ended, err := s.gateway.Ended()
		if failed = err; failed == nil && ended {
			sleep(ctx, pause)
			starts++
			failed = s.gateway.Launch()
		}
		return failed != nil || holds()
	})
	s.must(failed)
	s.must(err)
	return starts
}

// another returns a source of randomness for somebody who uses it at the same time.
func another(r *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(r.Uint64(), r.Uint64())) }

// upTo returns a random time.
func upTo(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most)))
}
