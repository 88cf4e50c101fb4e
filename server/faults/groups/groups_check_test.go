package groups

import (
	"slices"
	"testing"
	"time"

	"github.com/linksgate/linksgate/server/faults"
)

// goodHistory returns a history that breaks no rule. The log holds a1, b1, a2, b2, a3 of the SIMs a and b, and x1 and x2 that name none.
// Member 1.1 is killed while it handles a2, which 2.1 handles 100 ms later; 1.2 takes its place. Events are 10 ms apart.
func goodHistory() History {
	at := time.Now()
	var h History
	for _, id := range []string{"a1", "b1", "x1", "x2", "a2", "b2", "a3"} {
		sim := id[:1]
		if sim == "x" {
			sim = ""
		}
		h.Log = append(h.Log, Notification{ID: id, SIM: sim})
	}
	add := func(what What, member, id string) {
		at = at.Add(10 * time.Millisecond)
		h.Events = append(h.Events, Event{what, member, id, at})
	}
	add(Began, "1.1", "a1") // 0
	add(Began, "2.1", "b1") // 1
	add(Ended, "1.1", "a1") // 2
	add(Began, "1.1", "a2") // 3
	add(Ended, "2.1", "b1") // 4
	add(Killed, "1.1", "")  // 5
	at = at.Add(90 * time.Millisecond)
	add(Began, "2.1", "a2") // 6
	add(Began, "1.2", "b2") // 7
	add(Ended, "2.1", "a2") // 8
	add(Quiet, "all", "")   // 9
	add(Ended, "1.2", "b2") // 10
	add(Began, "2.1", "x1") // 11
	add(Began, "1.2", "x2") // 12
	add(Ended, "2.1", "x1") // 13
	add(Ended, "1.2", "x2") // 14
	add(Began, "2.1", "a3") // 15
	add(Ended, "2.1", "a3") // 16
	add(Noisy, "all", "")   // 17
	return h
}

func TestCheckAcceptsGoodHistory(t *testing.T) {
	violations, report := CheckAndReport(goodHistory())
	if len(violations) > 0 {
		t.Error(faults.Summary(violations))
	}
	if report.Again != 1 || report.Slowest != 100*time.Millisecond || report.Shares["1"] != 2 || report.Shares["2"] != 2 {
		t.Errorf("report: %v", report)
	}
}

// TestCheckFindsEachViolation breaks a good history in one way at a time. The checker must say exactly that, and how often.
func TestCheckFindsEachViolation(t *testing.T) {
	for _, test := range []struct {
		name string
		want []faults.Rule
		do   func(*History)
	}{
		{"never begun", []faults.Rule{Lost}, func(h *History) { h.remove(15, 16) }},
		{"begun and not ended", []faults.Rule{Lost}, func(h *History) { h.remove(16) }},
		{"not begun again after a death", []faults.Rule{Lost}, func(h *History) { h.remove(6, 8) }},
		{"not in the log", []faults.Rule{Unknown, Unknown}, func(h *History) { h.Log = slices.Delete(h.Log, 3, 4) }},
		{"two of one SIM with one member", []faults.Rule{Overlapping}, func(h *History) { h.swap(2, 3) }},
		{"two of one SIM with two members", []faults.Rule{Overlapping}, func(h *History) {
			h.move(7, 4) // b2 begins before b1 has ended
		}},
		{"the same one with two members", []faults.Rule{Overlapping}, func(h *History) { h.move(6, 5) }},
		{"the same one of no SIM with two members", []faults.Rule{Overlapping}, func(h *History) {
			h.insert(13, Event{What: Began, Member: "1.2", ID: "x1"}, Event{What: Ended, Member: "1.2", ID: "x1"})
			h.move(15, 14)
			h.move(15, 14)
		}},
		{"a SIM's last before its second", []faults.Rule{Disordered}, func(h *History) {
			h.Log[4], h.Log[6] = h.Log[6], h.Log[4]
		}},
		{"again in time", nil, func(h *History) { h.delay(6, RedeliveryLimit-100*time.Millisecond) }},
		{"again too late", []faults.Rule{Late}, func(h *History) { h.delay(6, RedeliveryLimit) }},
		{"handled twice", []faults.Rule{Repeated}, func(h *History) {
			h.insert(17, Event{What: Began, Member: "1.2", ID: "a3"}, Event{What: Ended, Member: "1.2", ID: "a3"})
		}},
		{"handled twice by a member that died before it can have acknowledged", nil, func(h *History) {
			h.insert(17, Event{What: Began, Member: "1.2", ID: "a1"}, Event{What: Ended, Member: "1.2", ID: "a1"})
		}},
		{"handled twice by a member that died long after", []faults.Rule{Repeated}, func(h *History) {
			h.insert(17, Event{What: Began, Member: "1.2", ID: "a1"}, Event{What: Ended, Member: "1.2", ID: "a1"})
			h.delay(3, 2*Settled)
		}},
		{"a dead member ends in a hurry", nil, func(h *History) {
			h.insert(6, Event{What: Ended, Member: "1.1", ID: "a2"})
		}},
		{"a dead member goes on while it is handled again", []faults.Rule{Overlapping}, func(h *History) {
			h.insert(7, Event{What: Ended, Member: "1.1", ID: "a2"})
		}},
		{"a dead member goes on for long", []faults.Rule{Outlived}, func(h *History) {
			h.delay(6, 2*Outliving)
			h.insert(6, Event{What: Ended, Member: "1.1", ID: "a2"})
			h.Events[6].At = h.Events[7].At
		}},
		{"a dead member begins something", []faults.Rule{Outlived, Outlived, Repeated}, func(h *History) {
			h.delay(17, 2*Outliving)
			h.insert(18, Event{What: Began, Member: "1.1", ID: "a3"}, Event{What: Ended, Member: "1.1", ID: "a3"})
		}},
		{"ended and not begun", []faults.Rule{Garbled}, func(h *History) { h.remove(15) }},
		{"even shares", nil, func(h *History) { h.Tolerance = 0.01 }},
		{"shares that differ a little", nil, func(h *History) { h.move(10, 9); h.Tolerance = 0.4 }},
		{"shares that differ much", []faults.Rule{Uneven, Uneven}, func(h *History) { h.move(10, 9); h.Tolerance = 0.3 }},
		{"shares of which one is nothing", []faults.Rule{Uneven, Uneven}, func(h *History) {
			h.Events[12].Member, h.Events[14].Member = "2.1", "2.1"
			h.move(10, 9)
			h.Tolerance = 0.3
		}},
		{"shares that nobody could look at", []faults.Rule{Uneven}, func(h *History) { h.remove(9); h.Tolerance = 0.1 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := goodHistory()
			test.do(&h)
			var got []faults.Rule
			for _, v := range Check(h) {
				got = append(got, v.Rule)
			}
			if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(test.want))) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// remove takes events out.
func (h *History) remove(places ...int) {
	for _, place := range slices.Backward(places) {
		h.Events = slices.Delete(h.Events, place, place+1)
	}
}

// swap exchanges two events, and not their times.
func (h *History) swap(i, j int) {
	h.Events[i], h.Events[j] = h.Events[j], h.Events[i]
	h.Events[i].At, h.Events[j].At = h.Events[j].At, h.Events[i].At
}

// move makes an event happen earlier.
func (h *History) move(from, to int) {
	for ; from > to; from-- {
		h.swap(from, from-1)
	}
}

// delay makes an event and all after it happen later.
func (h *History) delay(from int, by time.Duration) {
	for i := from; i < len(h.Events); i++ {
		h.Events[i].At = h.Events[i].At.Add(by)
	}
}

// insert adds events, at the time of the one that they come before.
func (h *History) insert(place int, events ...Event) {
	for i := range events {
		events[i].At = h.Events[place-1].At
	}
	h.Events = slices.Insert(h.Events, place, events...)
}
