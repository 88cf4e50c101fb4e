package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// state is what a gateway knows of a caller, over changes of the policy.
type state struct {
	mu         sync.Mutex
	requests   *rate.Limiter        // mu
	replay     *rate.Limiter        // mu
	maxStreams int                  // mu; 0: unlimited
	streams    int                  // mu
	lastUsed   map[string]time.Time // mu; by how the caller was known
}

func newState() *state {
	return &state{requests: rate.NewLimiter(rate.Inf, 0), replay: rate.NewLimiter(rate.Inf, 0), lastUsed: make(map[string]time.Time)}
}

// limit puts limits in force.
func (s *state) limit(l Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxStreams = l.Streams
	s.requests = limited(s.requests, l.RequestsPerSecond, max(int(2*l.RequestsPerSecond), 1))
	s.replay = limited(s.replay, float64(l.ReplayBytesPerSecond), int(max(l.ReplayBytesPerSecond, 1)))
}

// limited returns a limiter of a rate, the same one if it has that rate: what has been used up is not forgotten.
func limited(limiter *rate.Limiter, perSecond float64, burst int) *rate.Limiter {
	limit := rate.Inf
	if perSecond > 0 {
		limit = rate.Limit(perSecond)
	}
	if limiter.Limit() == limit && limiter.Burst() == burst {
		return limiter
	}
	return rate.NewLimiter(limit, burst)
}

// used notes that the caller was known in a way just now.
func (s *state) used(how string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastUsed[how] = time.Now()
}

func (s *state) uses() map[string]*time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	uses := make(map[string]*time.Time, len(s.lastUsed))
	for how, at := range s.lastUsed {
		at := at.UTC()
		uses[how] = &at
	}
	return uses
}

// limitError is a limit that a caller has reached.
type limitError struct {
	caller, limit string
	retry         time.Duration
}

func (e *limitError) Error() string {
	return fmt.Sprintf("%s has reached its limit of %s (access.callers.*.limits)", e.caller, e.limit)
}
func (e *limitError) Unwrap() error { return ErrTooMany }

// RetryDelay says after which time a call that failed for a limit of the caller may be made again, and which limit that was.
func RetryDelay(err error) (delay time.Duration, limit string) {
	if reached := new(limitError); errors.As(err, &reached) {
		return reached.retry, reached.limit
	}
	return time.Second, ""
}

// Request counts a call in. Errors: ErrTooMany.
func (c *Caller) Request() error {
	c.state.mu.Lock()
	limiter := c.state.requests
	c.state.mu.Unlock()
	if limiter.Allow() {
		return nil
	}
	return &limitError{caller: c.Name, limit: "requests_per_second", retry: time.Second}
}

// Stream counts a stream in. The function that it returns counts it out. Errors: ErrTooMany.
func (c *Caller) Stream() (func(), error) {
	s := c.state
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.maxStreams > 0 && s.streams >= s.maxStreams {
		return nil, &limitError{caller: c.Name, limit: "streams", retry: 5 * time.Second}
	}
	s.streams++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.streams--
	}, nil
}

// Replay waits until bytes may be sent to a subscription of the caller that is behind. It returns when ctx ends too.
func (c *Caller) Replay(ctx context.Context, bytes int) {
	c.state.mu.Lock()
	limiter := c.state.replay
	c.state.mu.Unlock()
	for bytes > 0 && limiter.Limit() != rate.Inf {
		n := min(bytes, limiter.Burst())
		if limiter.WaitN(ctx, n) != nil && ctx.Err() != nil {
			return
		}
		bytes -= n
	}
}

func reasonOf(err error) string {
	missing := new(MissingRight)
	switch {
	case errors.As(err, &missing):
		return "missing_right_" + missing.Right
	case errors.Is(err, ErrNoCredential):
		return "no_credential"
	case errors.Is(err, ErrTooMany):
		return "limit"
	case errors.Is(err, ErrUnavailable):
		return "issuer_unavailable"
	}
	return "bad_credential"
}
