package faults

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// goodHistory returns a history that breaks no rule. Numbers 1 to 6 were sent one after the other: 3 got no answer and was stored,
// 4 got none and was not, 6 was refused. One subscriber saw all of the log, one a part of it. In the log, numbers 1, 2, 3 and 5 are at
// the places 0 to 3.
func goodHistory() History {
	start := time.Now()
	var h History
	for number := uint64(1); number <= 6; number++ {
		began := start.Add(time.Duration(number) * time.Second)
		h.Sent = append(h.Sent, Sent{
			Number: number, Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, Digest: digest(number),
			Began: began, Ended: began.Add(time.Millisecond), Status: 200, ID: id(number),
		})
	}
	for number, s := range map[int]Sent{3: {Err: errors.New("reset")}, 4: {Err: errors.New("reset")}, 6: {Status: 503}} {
		at := &h.Sent[number-1]
		at.Status, at.ID, at.Err = s.Status, "", s.Err
	}
	for _, number := range []uint64{1, 2, 3, 5} {
		h.Log.Notifications = append(h.Log.Notifications, Seen{
			ID: id(number), Sequence: 10 * number, Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, Digest: digest(number), Declared: digest(number).String(),
		})
	}
	h.Subscribers = []Trace{
		{
			Name: "whole", FromStart: true, ToEnd: true, Notifications: slices.Clone(h.Log.Notifications),
			Endings: []Ending{{}, {Err: errors.New("reset")}, {Reason: "DRAINING", Err: errors.New("draining")}},
		},
		{Name: "part", Notifications: slices.Clone(h.Log.Notifications[1:3])},
	}
	return h
}

func digest(number uint64) Digest { return sha256.Sum256(fmt.Append(nil, number)) }

// id is that of the first notification in record batch number.
func id(number uint64) string { return fmt.Sprint("log-", number<<indexBits) }

// lose takes number 5 out of the log, and away from all readers.
func lose(h *History) {
	h.Log.Notifications, h.Subscribers = h.Log.Notifications[:3], nil
}

func TestCheckAcceptsGoodHistory(t *testing.T) {
	if violations := Check(goodHistory()); len(violations) > 0 {
		t.Error(Summary(violations))
	}
	if violations := Check(History{}); len(violations) > 0 {
		t.Errorf("empty history: %s", Summary(violations))
	}
}

// TestCheckFindsEachViolation breaks a good history in one way at a time. The checker must say exactly that, and how often.
func TestCheckFindsEachViolation(t *testing.T) {
	inLog := func(h *History, place int) *Seen { return &h.Log.Notifications[place] }
	sawAll := func(h *History) *[]Seen { return &h.Subscribers[0].Notifications }
	for _, test := range []struct {
		name string
		want []Rule
		do   func(*History)
	}{
		{"answered and not stored", []Rule{Lost}, func(h *History) { h.Sent[3].Status, h.Sent[3].ID = 200, id(4) }},
		{"answered 202 and not stored", []Rule{Lost}, func(h *History) { h.Sent[5].Status = 202 }},
		{"answer broke off, not stored", []Rule{Lost}, func(h *History) { h.Sent[3].Status = 200 }},
		{"answered with another id", []Rule{Misnamed}, func(h *History) { h.Sent[1].ID = id(3) }},
		{"answered without an id", []Rule{Misnamed}, func(h *History) { h.Sent[1].ID = "" }},
		{"signed as it should be and answered 401", []Rule{Denied}, func(h *History) { h.Sent[5].Status = 401 }},
		{"signed as it should be and answered 404", []Rule{Denied}, func(h *History) { h.Sent[5].Status = 404 }},
		{"asked to come again", nil, func(h *History) { h.Sent[5].Status = 429 }},
		{"not released", []Rule{Forgotten}, func(h *History) { h.Sent[5].Status, h.Sent[5].WrongSecret = 401, true }},
		{"released", nil, func(h *History) {
			h.Sent[4].Status, h.Sent[4].ID, h.Sent[4].WrongSecret = 401, "", true
		}},
		{"lost and reported", nil, func(h *History) { lose(h); h.Reported = Report{Damaged: true, Batches: []Range{{4, 6}}} }},
		{"lost, and something else reported", []Rule{Lost}, func(h *History) {
			lose(h)
			h.Reported = Report{Damaged: true, Batches: []Range{{4, 4}, {6, 9}}}
		}},
		{"lost, and told to the reader of the log", nil, func(h *History) {
			lose(h)
			h.Log.Gaps, h.Log.Missing, h.Reported.Damaged = []*linksgatev1.Gap{{RecordBatches: 1}}, []Range{{5, 5}}, true
		}},
		{"never sent", []Rule{Unknown}, func(h *History) { h.Sent = slices.Delete(h.Sent, 2, 3) }},
		{"stored twice", []Rule{Duplicated}, func(h *History) {
			again := *inLog(h, 3)
			again.ID, again.Sequence = id(7), 70
			h.Log.Notifications = append(h.Log.Notifications, again)
			*sawAll(h) = append(*sawAll(h), again)
		}},
		{"stored under another kind", []Rule{Altered}, func(h *History) {
			inLog(h, 3).Kind = linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED
			(*sawAll(h))[3].Kind = linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED
		}},
		{"stored with a wrong digest", []Rule{Altered}, func(h *History) {
			inLog(h, 3).Declared = digest(1).String()
			(*sawAll(h))[3].Declared = digest(1).String()
		}},
		{"seen with another body", []Rule{Altered}, func(h *History) { (*sawAll(h))[3].Digest = digest(9) }},
		{"seen with another sequence", []Rule{Altered}, func(h *History) { (*sawAll(h))[3].Sequence++ }},
		{"sequence given twice", []Rule{Disordered}, func(h *History) {
			inLog(h, 3).Sequence = inLog(h, 2).Sequence
			(*sawAll(h))[3].Sequence = inLog(h, 2).Sequence
		}},
		{"sequence falls", []Rule{Disordered}, func(h *History) {
			inLog(h, 3).Sequence = 1
			(*sawAll(h))[3].Sequence = 1
		}},
		{"id given twice", []Rule{Disordered, Misnamed, Altered, Repeated, Skipped}, func(h *History) {
			inLog(h, 3).ID = inLog(h, 2).ID
			(*sawAll(h))[3].ID = inLog(h, 2).ID
		}},
		{"later before earlier", []Rule{Overtaken, Overtaken}, func(h *History) {
			// Number 5 was answered before 1 and 2 were sent, and while 3 was under way.
			first := h.Sent[0].Began
			h.Sent[4].Began, h.Sent[4].Ended = first.Add(-time.Minute), first.Add(-time.Second)
			h.Sent[2].Began = first.Add(-time.Minute)
		}},
		{"seen and not stored", []Rule{Invented}, func(h *History) {
			*sawAll(h) = append(*sawAll(h), Seen{ID: id(4), Sequence: 40, Digest: digest(4)})
		}},
		{"seen and lost later", []Rule{Invented}, func(h *History) {
			h.Log.Notifications = h.Log.Notifications[:3]
			h.Sent[4].Status = 0
		}},
		{"seen twice", []Rule{Repeated}, func(h *History) { *sawAll(h) = append(*sawAll(h), (*sawAll(h))[3]) }},
		{"seen again after a reconnection", []Rule{Repeated, Repeated}, func(h *History) {
			*sawAll(h) = slices.Insert(*sawAll(h), 3, (*sawAll(h))[1:3]...)
		}},
		{"seen out of order", []Rule{Reordered}, func(h *History) {
			n := *sawAll(h)
			n[1], n[2] = n[2], n[1]
		}},
		{"one in the middle not seen", []Rule{Skipped}, func(h *History) { *sawAll(h) = slices.Delete(*sawAll(h), 2, 3) }},
		{"the first not seen", []Rule{Skipped}, func(h *History) { *sawAll(h) = (*sawAll(h))[1:] }},
		{"the last not seen", []Rule{Skipped, Skipped}, func(h *History) { *sawAll(h) = (*sawAll(h))[:2] }},
		{"the last not seen by one who saw a part", []Rule{Skipped}, func(h *History) { h.Subscribers[1].ToEnd = true }},
		{"nothing seen", []Rule{Skipped, Skipped, Skipped, Skipped}, func(h *History) { *sawAll(h) = nil }},
		{"gap told to a subscriber", []Rule{Gapped}, func(h *History) { h.Subscribers[1].Gaps = []*linksgatev1.Gap{{RecordBatches: 1}} }},
		{"gap in the log", []Rule{Gapped}, func(h *History) { h.Log.Gaps = []*linksgatev1.Gap{{RecordBatches: 1}} }},
		{"token refused", []Rule{Refused}, func(h *History) {
			h.Subscribers[1].Endings = []Ending{{Reason: "AHEAD_OF_HEAD", Err: errors.New("ahead")}}
		}},
		{"two at once", []Rule{Lost, Gapped}, func(h *History) {
			h.Sent[5].Status = 200
			h.Subscribers[1].Gaps = []*linksgatev1.Gap{{RecordBatches: 1}}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := goodHistory()
			test.do(&h)
			var got []Rule
			for _, v := range Check(h) {
				got = append(got, v.Rule)
			}
			if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(test.want))) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestSummary(t *testing.T) {
	var violations []Violation
	for i := range 7 {
		violations = append(violations, Violation{Skipped, fmt.Sprint("detail ", i)}, Violation{Lost, fmt.Sprint("other ", i)})
	}
	text := Summary(violations)
	if strings.Count(text, "detail ") != 5 || !strings.Contains(text, "not seen: 7\n    detail 0") || Summary(nil) != "" {
		t.Errorf("got %s", text)
	}
}
