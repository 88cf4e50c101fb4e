package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// stallSubscribers makes one of the subscribers stop reading for a while, and vanish, while another vanishes again and again.
func stallSubscribers(s *scene, r *rand.Rand) {
	if len(s.subscribers) < 2 {
		s.t.Fatal("two subscribers are needed")
	}
	first := r.IntN(len(s.subscribers))
	stalled, vanishing := s.subscribers[first], s.subscribers[(first+1)%len(s.subscribers)]
	stalled.Pause()
	for range 1 + r.IntN(5) {
		s.vanish(vanishing, vanishing.Handled()+1+r.IntN(50))
	}
	sleep(s.ctx, upTo(r, time.Second))
	if r.IntN(2) == 0 {
		s.must(stalled.Vanish())
	}
	stalled.Resume()
	s.vanish(stalled, stalled.Handled()+1)
}

// storm has 200 subscribers, who all vanish at once, without a word, and come back at once. Nobody misses anything.
func storm(s *scene, r *rand.Rand) {
	const crowd = 200
	ctx, leave := context.WithCancel(s.ctx)
	defer leave()
	var running sync.WaitGroup
	defer running.Wait()
	defer leave()
	subscribers := make([]*Subscriber, crowd)
	for i := range subscribers {
		one := &Subscriber{Name: fmt.Sprint("of the crowd, ", i), Address: s.gateway.GRPC, Latest: true, MaxBatch: uint32(r.IntN(64))}
		subscribers[i] = one
		running.Go(func() {
			if err := one.Run(ctx); err != nil {
				s.t.Error(err)
			}
		})
	}
	for range 1 + r.IntN(3) {
		s.awaitAll(subscribers, 1+r.IntN(100))
		for _, one := range subscribers {
			s.must(one.Vanish())
		}
	}
	s.awaitAll(subscribers, 1)
	leave()
	running.Wait()
	for _, one := range subscribers {
		s.gone = append(s.gone, one.Trace())
	}
}

// awaitAll waits until each subscriber has handled so many more.
func (s *scene) awaitAll(subscribers []*Subscriber, more int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, keepUp)
	defer cancel()
	counts := make([]int, len(subscribers))
	for i, one := range subscribers {
		counts[i] = one.Handled() + more
	}
	for i, one := range subscribers {
		s.must(one.AwaitHandled(ctx, counts[i]))
	}
}
