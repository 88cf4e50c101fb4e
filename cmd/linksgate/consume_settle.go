package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	// callTimeout bounds a call to settle or to extend leases.
	callTimeout = 10 * time.Second
	// settleTimeout bounds how long a member that has been told to leave tries to say what became of its leases.
	settleTimeout = 5 * time.Second
	// newlyJoined is how long after joining doubts are allowed, and doubtTime how long a doubt lasts.
	newlyJoined = 2 * time.Second
	doubtTime   = 500 * time.Millisecond
)

// settlement is what the gateway said to a call that settles leases.
type settlement struct {
	jobs    []*job
	tokens  []string // that were settled
	results []*linksgatev1.LeaseResult
	err     error
}

// extension is what the gateway said to a call that extends leases.
type extension settlement

// settle tells the gateway what became of all jobs that have been handled, unless it is being told something just now: then they wait
// together for the next time.
func (m *member) settle(background *sync.WaitGroup, now time.Time) {
	if m.settling || m.parting || len(m.finished) == 0 || now.Before(m.settleAgain) || m.givenUp(now) {
		return
	}
	n := min(len(m.finished), greatestInFlight)
	jobs := slices.Clone(m.finished[:n])
	m.finished = slices.Delete(m.finished, 0, n)
	slices.SortStableFunc(jobs, func(a, b *job) int { return int(a.outcome.decision) - int(b.outcome.decision) })
	s := settlement{jobs: jobs, tokens: tokensOf(jobs)}
	acknowledgement := &linksgatev1.AcknowledgeRequest{GroupName: m.request.GetGroupName()}
	rejection := &linksgatev1.RejectRequest{GroupName: m.request.GetGroupName()}
	for i, job := range jobs {
		if job.outcome.decision == acknowledge {
			acknowledgement.LeaseTokens = append(acknowledgement.LeaseTokens, s.tokens[i])
		} else {
			rejection.Rejections = append(rejection.Rejections, rejectionOf(job, s.tokens[i]))
		}
	}
	m.settling = true
	background.Go(func() {
		ctx, cancel := context.WithTimeout(m.calling, callTimeout)
		defer cancel()
		s.results, s.err = m.callToSettle(ctx, acknowledgement, rejection)
		m.settled <- s
	})
}

// callToSettle acknowledges and rejects what there is. It returns as many results as it has, which with an error may be fewer.
func (m *member) callToSettle(ctx context.Context, acknowledgement *linksgatev1.AcknowledgeRequest, rejection *linksgatev1.RejectRequest) ([]*linksgatev1.LeaseResult, error) {
	var results []*linksgatev1.LeaseResult
	if len(acknowledgement.GetLeaseTokens()) > 0 {
		response, err := m.client.Acknowledge(ctx, acknowledgement)
		if err != nil {
			return nil, err
		}
		results = response.GetResults()
	}
	if len(rejection.GetRejections()) > 0 {
		response, err := m.client.Reject(ctx, rejection)
		if err != nil {
			return results, err
		}
		results = append(results, response.GetResults()...)
	}
	return results, nil
}

func rejectionOf(job *job, token string) *linksgatev1.LeaseRejection {
	r := &linksgatev1.LeaseRejection{LeaseToken: token, Reason: job.outcome.reason}
	switch job.outcome.decision {
	case park:
		r.Action = &linksgatev1.LeaseRejection_Park{Park: true}
	case release:
		r.Action = &linksgatev1.LeaseRejection_Release{Release: true}
	}
	return r
}

func tokensOf(jobs []*job) []string {
	tokens := make([]string, len(jobs))
	for i, job := range jobs {
		tokens[i] = job.token
	}
	return tokens
}

// settleResults takes in what the gateway said. What it does not know for sure is told again.
func (m *member) settleResults(s settlement) {
	m.settling = false
	again := false
	for i, job := range s.jobs {
		outcome := linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE
		if i < len(s.results) {
			outcome = s.results[i].GetOutcome()
		}
		switch {
		case job.next != nil && outcome == linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK && job.outcome.decision != acknowledge:
			delete(m.jobs, job.id)
			m.takeLease(job.next, time.Now()) // another attempt
			continue
		case job.next != nil && outcome != linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE: // lent to us again, as it was not known
			job.token, job.next, job.doubted = job.next.GetLeaseToken(), nil, false
			m.finished = append(m.finished, job)
			continue
		case outcome == linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE, m.doubt(job, outcome):
			m.finished = append(m.finished, job)
			again = true
			continue
		case outcome != linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK && job.outcome.decision != release:
			what := "handled"
			if job.outcome.decision != acknowledge {
				what = "refused"
			}
			m.notice(fmt.Sprintf("%s was %s too late and may come again: %s", visible(job.id), what, lostText(s.results[i])))
		}
		delete(m.jobs, job.id)
	}
	if again || s.err != nil {
		m.settleLater(s.err)
	} else {
		m.failures = 0
	}
}

// settleLater puts settling off. An error that trying again does not mend ends the member: there is nothing to settle any more, as when
// the group was deleted.
func (m *member) settleLater(err error) {
	delay := backOff(min(m.failures, 4))
	m.failures++
	if err != nil {
		st := status.Convert(err)
		info, asked := details(st)
		if !isTransient(st.Code(), info != nil) {
			m.leave(m.explain(st, info))
			m.finished = nil
			return
		}
		delay = max(delay, asked)
	}
	m.settleAgain = time.Now().Add(delay)
}

func lostText(r *linksgatev1.LeaseResult) string {
	text := enumText(r.GetOutcome().String(), "LEASE_OUTCOME_")
	if r.GetDetail() != "" {
		text += ", " + escaped(r.GetDetail())
	}
	return text
}

// extend makes leases last that are in their second half.
func (m *member) extend(background *sync.WaitGroup, now time.Time) {
	if m.extending {
		return
	}
	var jobs []*job
	for _, job := range m.jobs {
		if job.extendable() && !now.Before(job.extendAt) && len(jobs) < greatestInFlight {
			jobs = append(jobs, job)
		}
	}
	if len(jobs) == 0 {
		return
	}
	e := extension{jobs: jobs, tokens: tokensOf(jobs)}
	m.extending = true
	background.Go(func() {
		ctx, cancel := context.WithTimeout(m.calling, callTimeout)
		defer cancel()
		var response *linksgatev1.ExtendLeasesResponse
		response, e.err = m.client.ExtendLeases(ctx, &linksgatev1.ExtendLeasesRequest{GroupName: m.request.GetGroupName(), LeaseTokens: e.tokens})
		e.results = response.GetResults()
		m.extended <- e
	})
}

func (j *job) extendable() bool { return !j.lost && j.state != jobFinished }

// extendResults takes in what the gateway said.
func (m *member) extendResults(e extension) {
	m.extending = false
	now := time.Now()
	for i, job := range e.jobs {
		if m.jobs[job.id] != job || !job.extendable() || job.token != e.tokens[i] {
			continue // settled, gone, or lent anew meanwhile
		}
		outcome := linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE
		if i < len(e.results) {
			outcome = e.results[i].GetOutcome()
		}
		switch {
		case outcome == linksgatev1.LeaseOutcome_LEASE_OUTCOME_OK:
			job.extendAt = m.half(e.results[i], now)
		case outcome == linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNAVAILABLE:
			job.extendAt = now.Add(max(m.lease/16, 50*time.Millisecond))
		case m.doubt(job, outcome):
			job.extendAt = now.Add(doubtTime)
		default:
			m.lose(job, lostText(e.results[i]))
		}
	}
}

// doubt reports whether to ask the gateway again before a lease counts as over. A gateway that was restarted lends to a member, as soon
// as it has joined, what the member is working on. The word of that may come after the word that the lease before it is over.
func (m *member) doubt(job *job, outcome linksgatev1.LeaseOutcome) bool {
	if outcome != linksgatev1.LeaseOutcome_LEASE_OUTCOME_STALE || job.doubted || m.joined && time.Since(m.joinedAt) > newlyJoined {
		return false
	}
	job.doubted = true
	return true
}

// lose gives a job up that somebody else may have by now.
func (m *member) lose(job *job, why string) {
	if job.state == jobHeld {
		m.drop(job)
		return
	}
	job.lost = true
	job.kill()
	m.notice(fmt.Sprintf("%s was given up in the middle, somebody else may have it by now: %s", visible(job.id), why))
}
