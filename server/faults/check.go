package faults

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Rule is one promise that a history can break.
type Rule string

// The rules. Those about subscribers hold for each by itself, over all of its streams.
const (
	// Lost: what was answered with 2xx is in the log, or reported as lost.
	Lost Rule = "answered with 2xx and not in the log"
	// Misnamed: and it is there under the id that the answer gave.
	Misnamed Rule = "answered with the id of something else"
	// Denied: nothing that is signed as it should be is answered with a 4xx. 429 asks to send it again, and denies nothing.
	Denied Rule = "good and answered with 4xx"
	// Forgotten: what was answered with 401 because the gateway had the wrong secrets is in the log, after it was released.
	Forgotten Rule = "answered with 401 and not to be released"
	// Unknown: nothing is in the log that was not sent.
	Unknown Rule = "in the log and never sent"
	// Duplicated: what was sent once is in the log once.
	Duplicated Rule = "sent once and in the log more than once"
	// Altered: what was sent is what is read, and always the same.
	Altered Rule = "altered"
	// Disordered: sequences and ids in the log are unique, and sequences increase.
	Disordered Rule = "log out of order"
	// Overtaken: what was sent after something else had been accepted is after it in the log.
	Overtaken Rule = "before something that was accepted earlier"
	// Invented: what a subscriber saw is in the log in the end.
	Invented Rule = "seen and not in the log"
	// Repeated: no subscriber sees anything twice.
	Repeated Rule = "seen twice"
	// Reordered: a subscriber sees the log in its order.
	Reordered Rule = "seen out of order"
	// Skipped: a subscriber sees everything between the first and the last that it sees; from the beginning and to the end, where
	// that is what it asked for and had the time for.
	Skipped Rule = "not seen"
	// Gapped: nobody is told that anything is missing, unless a disk was damaged.
	Gapped Rule = "told of a gap"
	// Refused: no stream ends with an error of the gateway that coming back cannot mend.
	Refused Rule = "refused"
)

// Violation is one breach of a rule.
type Violation struct {
	Rule   Rule
	Detail string
}

// String says what is broken.
func (v Violation) String() string { return string(v.Rule) + ": " + v.Detail }

// Check returns everything in a history that breaks a rule.
func Check(h History) []Violation {
	c := checker{
		History: h,
		sent:    make(map[Digest]*Sent, len(h.Sent)),
		places:  make(map[string]int, len(h.Log.Notifications)),
		stored:  make(map[Digest]int, len(h.Log.Notifications)),
	}
	for i := range h.Sent {
		c.sent[h.Sent[i].Digest] = &h.Sent[i]
	}
	c.checkLog()
	c.checkAnswers()
	c.checkOvertaking()
	for i := range h.Subscribers {
		c.checkSubscriber(&h.Subscribers[i])
	}
	return c.violations
}

// Summary lists violations by rule, with the first few of each.
func Summary(violations []Violation) string {
	const shown = 5
	var text strings.Builder
	byRule := slices.SortedStableFunc(slices.Values(violations), func(a, b Violation) int { return cmp.Compare(a.Rule, b.Rule) })
	for len(byRule) > 0 {
		n := 1
		for n < len(byRule) && byRule[n].Rule == byRule[0].Rule {
			n++
		}
		fmt.Fprintf(&text, "%s: %d\n", byRule[0].Rule, n)
		for _, v := range byRule[:min(n, shown)] {
			fmt.Fprintf(&text, "    %s\n", v.Detail)
		}
		byRule = byRule[n:]
	}
	return text.String()
}

// checker is a history, with what it takes to find one's way in it.
type checker struct {
	History
	sent       map[Digest]*Sent
	places     map[string]int // in the log, by id
	stored     map[Digest]int // the same by digest; the first if there are several
	violations []Violation
}

func (c *checker) add(rule Rule, format string, args ...any) {
	c.violations = append(c.violations, Violation{rule, fmt.Sprintf(format, args...)})
}

// checkLog checks the log in itself and against what was sent, and fills places and stored.
func (c *checker) checkLog() {
	c.checkGaps(&c.Log)
	for i, n := range c.Log.Notifications {
		if i > 0 && n.Sequence <= c.Log.Notifications[i-1].Sequence {
			c.add(Disordered, "sequence %d comes after %d", n.Sequence, c.Log.Notifications[i-1].Sequence)
		}
		if first, again := c.places[n.ID]; again {
			c.add(Disordered, "id %s is at sequence %d and at %d", n.ID, c.Log.Notifications[first].Sequence, n.Sequence)
		} else {
			c.places[n.ID] = i
		}
		if n.Declared != n.Digest.String() {
			c.add(Altered, "%s has a body with digest %v and says %s", n.ID, n.Digest, n.Declared)
		}
		sent := c.sent[n.Digest]
		first, again := c.stored[n.Digest]
		switch {
		case sent == nil:
			c.add(Unknown, "%s with digest %v", n.ID, n.Digest)
		case again:
			c.add(Duplicated, "number %d is %s and %s", sent.Number, c.Log.Notifications[first].ID, n.ID)
		case sent.Kind != n.Kind:
			c.add(Altered, "number %d was sent as %v and is %s with %v", sent.Number, sent.Kind, n.ID, n.Kind)
		}
		if !again {
			c.stored[n.Digest] = i
		}
	}
}

// checkAnswers checks what was answered against the log.
func (c *checker) checkAnswers() {
	for i := range c.Sent {
		s := &c.Sent[i]
		place, there := c.stored[s.Digest]
		switch {
		case s.accepted() && !there:
			if !covers(c.Reported.Batches, s.ID) && !covers(c.Log.Missing, s.ID) {
				c.add(Lost, "number %d, answered %d with id %q", s.Number, s.Status, s.ID)
			}
		case s.accepted():
			c.checkName(s, c.Log.Notifications[place].ID)
		case s.Status == http.StatusUnauthorized && s.WrongSecret:
			if !there && !c.Reported.Quarantine {
				c.add(Forgotten, "number %d", s.Number)
			}
		case s.Status >= 400 && s.Status < 500 && s.Status != http.StatusTooManyRequests:
			c.add(Denied, "number %d, answered %d", s.Number, s.Status)
		}
	}
}

// checkName compares the id in an answer with the one in the log.
func (c *checker) checkName(s *Sent, id string) {
	switch {
	case s.ID == id:
	case s.ID == "" && s.Err != nil: // the answer broke off after its status, which is promise enough
	default:
		c.add(Misnamed, "number %d was answered with id %q and is %s", s.Number, s.ID, id)
	}
}

// checkOvertaking checks that the log's order agrees with time: what began after something else had been answered follows it.
func (c *checker) checkOvertaking() {
	var began, ended []*Sent
	for i := range c.Sent {
		s := &c.Sent[i]
		if _, there := c.stored[s.Digest]; !there {
			continue
		}
		began = append(began, s)
		if s.accepted() {
			ended = append(ended, s)
		}
	}
	byTime := func(at func(*Sent) time.Time) func(a, b *Sent) int {
		return func(a, b *Sent) int { return at(a).Compare(at(b)) }
	}
	slices.SortFunc(began, byTime(func(s *Sent) time.Time { return s.Began }))
	slices.SortFunc(ended, byTime(func(s *Sent) time.Time { return s.Ended }))
	var latest *Sent // the one that is last in the log, of those that were answered before
	for _, s := range began {
		for len(ended) > 0 && ended[0].Ended.Before(s.Began) {
			if latest == nil || c.stored[ended[0].Digest] > c.stored[latest.Digest] {
				latest = ended[0]
			}
			ended = ended[1:]
		}
		if latest != nil && c.stored[s.Digest] < c.stored[latest.Digest] {
			c.add(Overtaken, "number %d is before number %d, which was answered %v before it was sent",
				s.Number, latest.Number, s.Began.Sub(latest.Ended))
		}
	}
}

// checkSubscriber checks what a subscriber saw against the log.
func (c *checker) checkSubscriber(t *Trace) {
	c.checkGaps(t)
	c.checkEndings(t)
	seen := make([]bool, len(c.Log.Notifications))
	first, last := len(seen), -1
	previous := -1
	for _, n := range t.Notifications {
		place, there := c.places[n.ID]
		if !there {
			c.add(Invented, "%s saw %s with digest %v", t.Name, n.ID, n.Digest)
			continue
		}
		if n != c.Log.Notifications[place] {
			c.add(Altered, "%s saw %+v, the log has %+v", t.Name, n, c.Log.Notifications[place])
		}
		switch {
		case seen[place]:
			c.add(Repeated, "%s saw %s again", t.Name, n.ID)
		case place < previous:
			c.add(Reordered, "%s saw %s after %s", t.Name, n.ID, c.Log.Notifications[previous].ID)
		}
		seen[place] = true
		previous = max(previous, place)
		first, last = min(first, place), max(last, place)
	}
	if t.FromStart {
		first = 0
	}
	if t.ToEnd {
		last = len(seen) - 1
	}
	for place := first; place <= last; place++ {
		if !seen[place] {
			c.add(Skipped, "%s did not see %s", t.Name, c.Log.Notifications[place].ID)
		}
	}
}

func (c *checker) checkGaps(t *Trace) {
	if c.Reported.Damaged {
		return
	}
	for _, gap := range t.Gaps {
		c.add(Gapped, "%s: %v, %d record batches", t.Name, gap.GetReason(), gap.GetRecordBatches())
	}
}

// checkEndings allows the errors after which a subscriber is to come back with its token.
func (c *checker) checkEndings(t *Trace) {
	for _, ending := range t.Endings {
		switch ending.Reason {
		case "", "DRAINING", "LOG_UNAVAILABLE", "LOG_FROZEN", "CLIENT_NOT_READING":
		default:
			c.add(Refused, "%s: %v", t.Name, ending.Err)
		}
	}
}
