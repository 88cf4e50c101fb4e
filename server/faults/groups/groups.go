// Package groups answers one question: do the members of a group share the log as they were promised, when members die?
//
// It drives the binary that ships: a gateway process on a disk, and members that are `linksgate consume` processes, each of which runs
// a shell command for every notification it is lent. Members are killed with kill -9, at random, and replaced.
//
// # One order of events
//
// A command writes a line when it begins and one when it ends, all of them into one named pipe that the test reads ([Recorder]). A line
// is written at once or not at all, and the pipe keeps the order in which they were written: that one command ended before another one
// began is seen from the order of two lines, and needs no clocks that agree. The kernel's pipe costs a command nothing to speak of, so
// it is a hundred thousand commands that are looked at and not a sample. The test puts its own line into the same pipe when a member is
// known to be dead. The times are those of reading.
//
// # One history, one checker
//
// The lines and the log make a [History], and [Check] holds it against every promise at once. It knows which members were killed: what
// a killed member had begun ends with it, and may begin again.
package groups

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/linksgate/linksgate/server/faults"
)

const (
	// RedeliveryLimit is how long it may take until a notification that a member had begun begins again after the member's death.
	RedeliveryLimit = 3 * time.Second
	// Settled is how long before its death a member must have ended a notification, so that it has surely been acknowledged.
	Settled = 2 * time.Second
	// Outliving is how long, at most, something that a member has begun is seen after its death.
	Outliving = time.Second
)

// The rules that a history can break.
const (
	// Lost: every notification of the group was handled to its end.
	Lost faults.Rule = "never handled to its end"
	// Unknown: nothing is handled that is not in the log.
	Unknown faults.Rule = "handled and not in the log"
	// Overlapping: two of one SIM are never handled at the same time.
	Overlapping faults.Rule = "two of one SIM at the same time"
	// Disordered: those of one SIM are handled in the order of the log, by when each was handled to its end first.
	Disordered faults.Rule = "SIM out of order"
	// Late: what a killed member had begun begins again in time.
	Late faults.Rule = "begun again too late"
	// Repeated: what a member has handled and had the time to acknowledge does not begin again.
	Repeated faults.Rule = "handled, and begun again"
	// Outlived: what a killed member had begun ends with it.
	Outlived faults.Rule = "goes on after its member's death"
	// Uneven: members that are there together get equal shares.
	Uneven faults.Rule = "shared unevenly"
	// Garbled: the history is one that can be.
	Garbled faults.Rule = "recorded wrongly"
)

// History is everything that is known about one run.
type History struct {
	// Log is the notifications of the group, in the order of the log.
	Log []Notification
	// Events in the order in which they happened.
	Events []Event
	// Tolerance is by how much a share may differ from an even one, as a part of it. 0: shares are not looked at.
	Tolerance float64
}

// Notification is a notification of the log.
type Notification struct{ ID, SIM string }

// Event is something that happened.
type Event struct {
	What What
	// Member is the process, by a name that no other process has: the place that it has among the members, a point, and a number.
	// A killed member and the one that replaces it have the same place.
	Member string
	// ID of the notification; empty when a member was killed.
	ID string
	// At is when it was read.
	At time.Time
}

// What is what happened.
type What string

// What can happen.
const (
	Began  What = "began"
	Ended  What = "ended"
	Killed What = "killed"
	// Quiet begins a period in which all members are at work and none is killed, and Noisy ends it.
	Quiet What = "quiet"
	Noisy What = "noisy"
)

// Check returns everything in a history that breaks a rule.
func Check(h History) []faults.Violation {
	violations, _ := CheckAndReport(h)
	return violations
}

// CheckAndReport returns also what else can be said about it.
func CheckAndReport(h History) ([]faults.Violation, Report) {
	c := checker{
		History: h,
		places:  make(map[string]int, len(h.Log)),
		killed:  make(map[string]time.Time),
		running: make(map[string]map[handling]bool),
		ghosts:  make(map[handling]int),
		begun:   make(map[string]int),
		ended:   make(map[string]Event),
		orphans: make(map[string]Event),
		last:    make(map[string]int),
		report:  Report{Shares: make(map[string]int)},
	}
	for i, n := range h.Log {
		c.places[n.ID] = i
	}
	for _, e := range h.Events {
		if e.What == Killed {
			c.killed[e.Member] = e.At
		}
	}
	for i, e := range h.Events {
		c.take(i, e)
	}
	c.conclude()
	return c.violations, c.report
}

// Report says what a run has tried.
type Report struct {
	// Again is how many notifications began again because a member was killed, and Slowest how long that took after its death.
	Again   int
	Slowest time.Duration
	// Shares is how many each place of a member handled in the quiet periods.
	Shares map[string]int
}

// String is one line.
func (r Report) String() string {
	return fmt.Sprintf("%d begun again after a death, within %v; shares %v", r.Again, r.Slowest.Round(time.Millisecond), r.Shares)
}

// checker goes through a history.
type checker struct {
	History
	places  map[string]int               // in the log, by id
	killed  map[string]time.Time         // by member: when it will be
	running map[string]map[handling]bool // by SIM; what names none is SIM ""
	ghosts  map[handling]int             // the number of the kill that should have ended it
	begun   map[string]int               // by SIM: the number of the latest beginning
	ended   map[string]Event             // by id: the first end
	orphans map[string]Event             // by id: the kill of a member that had begun it
	last    map[string]int               // by SIM: the place of what was handled to its end for the first time last
	quiet   bool
	report  Report

	violations []faults.Violation
}

func (c *checker) add(rule faults.Rule, format string, args ...any) {
	c.violations = append(c.violations, faults.Violation{Rule: rule, Detail: fmt.Sprintf(format, args...)})
}

// handling is a notification with a member, which handles it once at a time.
type handling struct{ member, id string }

func (c *checker) take(number int, e Event) {
	switch e.What {
	case Quiet, Noisy:
		c.quiet = e.What == Quiet
		return
	case Killed:
		c.kill(number, e)
		return
	}
	place, there := c.places[e.ID]
	if !there {
		c.add(Unknown, "%s by %s", e.ID, e.Member)
		return
	}
	sim := c.Log[place].SIM
	if died, dead := c.killed[e.Member]; dead && e.At.Sub(died) > Outliving {
		c.add(Outlived, "%s of %s %s %v after", e.ID, e.Member, e.What, e.At.Sub(died))
	}
	seat, _, _ := strings.Cut(e.Member, ".")
	c.report.Shares[seat] += 0 // also if it gets nothing
	if e.What == Began {
		c.begun[sim] = number
		c.begin(e, sim)
	} else {
		c.end(e, sim, place)
	}
}

func (c *checker) begin(e Event, sim string) {
	for other := range c.running[sim] {
		if sim != "" || other.id == e.ID {
			c.add(Overlapping, "SIM %s: %s began with %s while %s went on with %s", sim, e.ID, e.Member, other.id, other.member)
		}
	}
	if c.running[sim] == nil {
		c.running[sim] = make(map[handling]bool)
	}
	c.running[sim][handling{e.Member, e.ID}] = true
	if orphan, ok := c.orphans[e.ID]; ok {
		delete(c.orphans, e.ID)
		c.report.Again++
		c.report.Slowest = max(c.report.Slowest, e.At.Sub(orphan.At))
		if after := e.At.Sub(orphan.At); after > RedeliveryLimit {
			c.add(Late, "%s began again %v after the death of %s", e.ID, after, orphan.Member)
		}
	}
	if first, ok := c.ended[e.ID]; ok {
		died, dead := c.killed[first.Member]
		if !dead || died.Sub(first.At) > Settled {
			c.add(Repeated, "%s, ended by %s, begun again by %s %v after that", e.ID, first.Member, e.Member, e.At.Sub(first.At))
		}
	}
}

func (c *checker) end(e Event, sim string, place int) {
	h := handling{e.Member, e.ID}
	killed, ghost := c.ghosts[h]
	switch {
	case ghost && sim != "" && c.begun[sim] > killed:
		c.add(Overlapping, "SIM %s: %s went on after the death of %s while another one began", sim, e.ID, e.Member)
	case !ghost && !c.running[sim][h]:
		c.add(Garbled, "%s ended by %s, which had not begun it", e.ID, e.Member)
	}
	delete(c.running[sim], h)
	if c.quiet {
		place, _, _ := strings.Cut(e.Member, ".")
		c.report.Shares[place]++
	}
	if _, again := c.ended[e.ID]; again {
		return
	}
	c.ended[e.ID] = e
	if sim == "" {
		return
	}
	if before, ok := c.last[sim]; ok && place < before {
		c.add(Disordered, "SIM %s: %s was handled after %s, which is after it in the log", sim, e.ID, c.Log[before].ID)
	}
	c.last[sim] = max(c.last[sim], place)
}

// kill ends what a member had begun. It will begin again, unless it had ended before.
func (c *checker) kill(number int, e Event) {
	for _, handlings := range c.running {
		for h := range handlings {
			if h.member != e.Member {
				continue
			}
			delete(handlings, h)
			c.ghosts[h] = number
			if _, ended := c.ended[h.id]; !ended {
				c.orphans[h.id] = e
			}
		}
	}
}

func (c *checker) conclude() {
	for _, n := range c.Log {
		if _, ok := c.ended[n.ID]; !ok {
			c.add(Lost, "%s of SIM %s", n.ID, n.SIM)
		}
	}
	if c.Tolerance == 0 {
		return
	}
	total := 0
	for _, n := range c.report.Shares {
		total += n
	}
	even := float64(total) / float64(max(len(c.report.Shares), 1))
	if total == 0 {
		c.add(Uneven, "nothing was handled in a quiet period")
	}
	for _, member := range slices.SortedFunc(maps.Keys(c.report.Shares), cmp.Compare) {
		if off := float64(c.report.Shares[member])/even - 1; off > c.Tolerance || -off > c.Tolerance {
			c.add(Uneven, "place %s handled %d of %d, %+.1f %% off an even share of %.0f", member, c.report.Shares[member], total, 100*off, even)
		}
	}
}
