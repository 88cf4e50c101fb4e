package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// partTime bounds how long it may take to tell the gateway that a member leaves.
const partTime = 2 * time.Second

// awayTime is how long a gateway that is away is waited for at least.
const awayTime = 15 * time.Second

// stopTaking begins nothing more, and gives back what was not begun.
func (m *member) stopTaking() {
	if !m.leaving {
		m.leaving = true
		if m.joined {
			m.part()
		}
	}
	m.releaseHeld()
	if !m.joined {
		m.endStream()
	}
}

// part tells the gateway that the member leaves. What is given back before it knows would come again at once.
func (m *member) part() {
	if m.parting {
		return
	}
	m.parting, m.partBy = true, time.Now().Add(partTime)
	request := &linksgatev1.LeaveRequest{GroupName: m.request.GetGroupName(), MemberId: m.memberID}
	m.calls.Go(func() {
		ctx, cancel := context.WithTimeout(m.calling, partTime)
		defer cancel()
		_, _ = m.client.Leave(ctx, request) // a gateway that is not there has no stream to lease to either
		m.parted <- struct{}{}
	})
}

// releaseHeld gives back what was not begun.
func (m *member) releaseHeld() {
	for _, job := range m.held {
		if m.jobs[job.id] == job {
			job.state, job.outcome = jobFinished, outcome{decision: release}
			m.finished = append(m.finished, job)
		}
	}
	m.held = nil
}

// leave begins nothing more. What was begun goes on.
func (m *member) leave(cause error) {
	m.stopTaking()
	if m.cause == nil { // what comes after the first is its consequence
		m.cause = cause
	}
	if cause != nil {
		m.hurry()
	}
}

// hurry leaves, in the time of grace.
func (m *member) hurry() {
	m.stopTaking()
	if !m.giveUp.IsZero() {
		return
	}
	m.deadline = time.Now().Add(m.grace)
	m.giveUp = m.deadline.Add(settleTimeout)
	if n := m.running(); n > 0 {
		m.notice(fmt.Sprintf("finishing what runs (%d), for %v at most; another signal kills it", n, m.grace))
	}
}

// killAll kills what still runs. It is settled as refused.
func (m *member) killAll(why string) {
	m.stopTaking()
	killed := 0
	for _, job := range m.jobs {
		if job.state == jobBegun {
			job.kill()
			killed++
		}
	}
	if killed > 0 {
		m.cause = errors.Join(m.cause, fmt.Errorf("%s: %s stopped in the middle, to come again", why, parkedText(uint64(killed))))
	}
	m.deadline = time.Time{}
	m.giveUp = time.Now().Add(settleTimeout)
}

func (m *member) running() int { return m.handler.slots - len(m.slots) }

func (m *member) givenUp(now time.Time) bool { return !m.giveUp.IsZero() && !now.Before(m.giveUp) }

// done reports whether there is nothing left to do, and counts what is given up.
func (m *member) done(now time.Time) bool {
	switch {
	case !m.leaving || m.running() > 0:
		return false
	case m.settling:
		return false // a call has a timeout of its own
	case m.joined && now.Before(m.partBy):
		return false // what the gateway has leased last is still on its way, to be given back
	case len(m.finished) == 0:
		return true
	case m.givenUp(now):
		m.cause = errors.Join(m.cause, m.untold())
		return true
	}
	return false
}

// untold says what the gateway does not know: all of it comes again.
func (m *member) untold() error {
	handled := 0
	for _, job := range m.finished {
		if job.outcome.decision == acknowledge {
			handled++
		}
	}
	text := parkedText(uint64(handled)) + " that had been handled"
	if rest := len(m.finished) - handled; handled == 0 {
		text = parkedText(uint64(rest)) + " that had not been handled"
	} else if rest > 0 {
		text += fmt.Sprintf(", and of %d that had not", rest)
	}
	return fmt.Errorf("the gateway could not be told of %s: they come again", text)
}

// watchTime does what is due.
func (m *member) watchTime(now time.Time) {
	if !m.deadline.IsZero() && !now.Before(m.deadline) {
		m.killAll(fmt.Sprintf("--grace of %v is over", m.grace))
	}
	switch {
	case len(m.jobs) > 0:
		m.idleSince = time.Time{}
	case m.idleSince.IsZero():
		m.idleSince = now
	}
	switch end := m.idleEnd(); {
	case end.IsZero() || now.Before(end) || m.leaving:
	case m.joined:
		m.stopTaking()
	default:
		m.leave(fmt.Errorf("--idle-exit of %v is over, and the gateway has been away for %v: is it running?", m.idleExit, now.Sub(m.idleSince).Round(time.Second)))
	}
}

// idleEnd is when the member has been idle for so long that it leaves; zero: never, as things are. A gateway that is started again is
// waited for in any case.
func (m *member) idleEnd() time.Time {
	switch {
	case m.idleExit == 0 || m.idleSince.IsZero():
		return time.Time{}
	case m.joined:
		return m.idleSince.Add(m.idleExit)
	}
	return m.idleSince.Add(max(m.idleExit, awayTime))
}

// next is when something is due if nothing happens before.
func (m *member) next(now time.Time) time.Time {
	next := now.Add(time.Hour)
	consider := func(at time.Time) {
		if at.After(now) && at.Before(next) {
			next = at
		}
	}
	consider(m.deadline)
	consider(m.giveUp)
	consider(m.settleAgain)
	consider(m.partBy)
	consider(m.idleEnd())
	if !m.extending {
		for _, job := range m.jobs {
			if job.extendable() {
				consider(job.extendAt)
			}
		}
	}
	return next
}
