package conformance

import (
	"fmt"
	"slices"
	"testing"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	unordered = linksgatev1.GroupOrdering_GROUP_ORDERING_NONE
	bySIM     = linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM
)

func worker(g *gateway, more order) order {
	o := order{"mode": "work", "addresses": []string{g.GRPC}, "group": "work", "client_name": "worker", "heartbeat_ms": 1000}
	for key, value := range more {
		o[key] = value
	}
	return o
}

// Notifications of one SIM are handled one at a time and in order, others beside them.
func TestWorkInTheOrderOfEachSIM(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.group(bySIM, 30*time.Second)
		const sims, each = 5, 6
		for n := range each {
			for sim := range sims {
				g.sms(fmt.Sprintf("898602201900000000%d", sim), fmt.Sprintf("sleep %d", 20+n))
			}
		}
		h := c.start(t, worker(g, order{"parallel": 4}))
		h.await("end", sims*each)
		g.settled()
		h.stop()
		running, most := map[string]string{}, 0
		last := map[string]string{}
		simOf := map[string]string{}
		for _, e := range h.so("") {
			switch e.Event {
			case "begin":
				simOf[e.ID] = e.ICCID
				if other := running[e.ICCID]; other != "" {
					t.Errorf("%s began while %s of the same SIM was handled", e.ID, other)
				}
				if e.Text <= last[e.ICCID] {
					t.Errorf("%q came after %q", e.Text, last[e.ICCID])
				}
				running[e.ICCID], last[e.ICCID] = e.ID, e.Text
				most = max(most, len(running))
			case "end":
				delete(running, simOf[e.ID])
			}
		}
		if most < 2 || most > 4 {
			t.Errorf("up to %d handlers ran at once; 4 could", most)
		}
	})
}

// What a handler says is what becomes of a notification.
func TestOutcomes(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.group(unordered, 30*time.Second)
		for _, text := range []string{"plain", "fail-once", "fail", "park", "retry 300", "panic"} {
			g.sms("8986022019000000000", text)
		}
		h := c.start(t, worker(g, nil))
		eventually(t, "three are parked", func() bool { return g.status().GetParked() == 3 })
		g.settled()
		attempts := map[string]int{}
		begun := map[string]time.Time{}
		for _, e := range h.so("begin") {
			attempts[e.Text]++
			if e.Attempt != attempts[e.Text] {
				t.Errorf("%q: attempt %d, want %d", e.Text, e.Attempt, attempts[e.Text])
			}
			if e.Text == "retry 300" && e.Attempt == 2 && e.at.Sub(begun[e.Text]) < 280*time.Millisecond {
				t.Errorf("%q came again after %v", e.Text, e.at.Sub(begun[e.Text]))
			}
			begun[e.Text] = e.at
		}
		want := map[string]int{"plain": 1, "fail-once": 2, "fail": 3, "park": 1, "retry 300": 2, "panic": 3}
		for text, count := range want {
			if attempts[text] != count {
				t.Errorf("%q had %d attempts, want %d", text, attempts[text], count)
			}
		}
		parked, err := linksgatev1.NewGroupServiceClient(g.conn).ListParked(t.Context(), &linksgatev1.ListParkedRequest{GroupName: "work"})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parked.GetParked() {
			if text := p.GetNotification().GetSmsReceived().GetText(); text == "park" && p.GetDetail() != "asked to" || p.GetDetail() == "" {
				t.Errorf("%q is parked because of %q", text, p.GetDetail())
			}
		}
		h.stop()
	})
}

// When everything is down nothing is leased for a while, and no attempt is used up.
func TestEverythingIsDown(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.group(bySIM, 30*time.Second)
		g.sms("8986022019000000000", "down 1500")
		h := c.start(t, worker(g, order{"parallel": 1}))
		first := h.await("begin", 1)[0]
		eventually(t, "the group is paused", func() bool { return g.status().GetPausedUntil() != nil })
		h.await("begin", 2)
		// The harness says it again in the first attempt, which the next one still is.
		for _, e := range h.so("begin") {
			if e.Attempt != 1 {
				t.Errorf("attempt %d was counted", e.Attempt)
			}
		}
		if waited := h.so("begin")[1].at.Sub(first.at); waited < 1400*time.Millisecond {
			t.Errorf("it came again after %v", waited)
		}
		h.stop()
	})
}

// A lease lasts as long as its handler.
func TestLeasesAreExtended(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.group(unordered, time.Second)
		for range 3 { // the third waits for its turn
			g.sms("8986022019000000000", "sleep 2500")
		}
		h := c.start(t, worker(g, order{"parallel": 2}))
		h.await("end", 3)
		g.settled()
		h.stop()
		for _, e := range h.so("") {
			if e.Event == "begin" && e.Attempt != 1 || e.Event == "end" && e.Outcome != "ok" {
				t.Errorf("%s: attempt %d, outcome %q", e.Event, e.Attempt, e.Outcome)
			}
		}
		if begun := len(h.so("begin")); begun != 3 {
			t.Errorf("%d handlers began for 3 notifications", begun)
		}
	})
}

// A handler whose lease is over is told so, and what it says counts for nothing.
func TestALostLeaseCancelsItsHandler(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.group(unordered, 2*time.Second)
		g.sms("8986022019000000000", "sleep 20000")
		h := c.start(t, worker(g, nil))
		h.await("begin", 1)
		if _, err := linksgatev1.NewGroupServiceClient(g.conn).SeekGroup(t.Context(), &linksgatev1.SeekGroupRequest{
			GroupName: "work", To: &linksgatev1.Start{Position: &linksgatev1.Start_Latest{Latest: true}},
		}); err != nil {
			t.Fatal(err)
		}
		if e := h.await("end", 1)[0]; e.Outcome != "cancelled" {
			t.Errorf("the handler ended with %q", e.Outcome)
		}
		g.sms("8986022019000000000", "plain")
		h.await("end", 2)
		g.settled()
		h.stop()
	})
}

// A worker that is killed costs the others only its leases.
func TestAKilledWorkersWorkIsDoneByOthers(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.group(unordered, 30*time.Second)
		for range 30 {
			g.sms("8986022019000000000", "sleep 50")
		}
		first, second := c.start(t, worker(g, order{"parallel": 2})), c.start(t, worker(g, order{"parallel": 2}))
		first.await("begin", 4)
		first.kill()
		g.settled()
		second.stop()
		handled := map[string]bool{}
		for _, e := range slices.Concat(first.so("end"), second.so("end")) {
			handled[e.ID] = true
		}
		if len(handled) != 30 {
			t.Errorf("%d of 30 were handled", len(handled))
		}
	})
}

// A gateway that is killed and started again under a worker: handlers go on, nothing is handled twice at the same time, and everything is
// settled.
func TestTheGatewayIsRestartedUnderAWorker(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.group(bySIM, 2*time.Second)
		for n := range 12 {
			g.sms(fmt.Sprintf("898602201900000000%d", n%4), "sleep 700")
		}
		h := c.start(t, worker(g, order{"parallel": 4}))
		for n := range 2 {
			h.await("begin", 3+4*n)
			g.killed()
			g.start()
		}
		g.settled()
		h.stop()
		running, done := map[string]bool{}, map[string]bool{}
		for _, e := range h.so("") {
			switch e.Event {
			case "begin":
				if running[e.ID] {
					t.Errorf("%s was begun twice at the same time", e.ID)
				}
				running[e.ID] = true
			case "end":
				delete(running, e.ID)
				done[e.ID] = done[e.ID] || e.Outcome == "ok"
			}
		}
		if len(done) != 12 {
			t.Errorf("%d of 12 were handled", len(done))
		}
	})
}

// A worker that stops begins nothing more, finishes what runs, and gives back the rest, which costs no attempt.
func TestAStoppedWorkerFinishes(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		g.group(unordered, 30*time.Second)
		for range 6 {
			g.sms("8986022019000000000", "sleep 1000")
		}
		first := c.start(t, worker(g, order{"parallel": 2}))
		first.await("begin", 2)
		if said := first.stop(); said.Error != "" {
			t.Errorf("it ended with %q: %s", said.Error, said.Detail)
		}
		ended := first.so("end")
		if len(ended) != 2 || ended[0].Outcome != "ok" || ended[1].Outcome != "ok" {
			t.Errorf("ended: %v", ended)
		}
		began := time.Now()
		second := c.start(t, worker(g, order{"parallel": 4}))
		for _, e := range second.await("begin", 4) {
			if e.Attempt != 1 {
				t.Errorf("what was given back is attempt %d", e.Attempt)
			}
		}
		if waited := time.Since(began); waited > 10*time.Second {
			t.Errorf("what was given back came after %v", waited)
		}
		g.settled()
		second.stop()
		if again := len(second.so("begin")); again != 4 {
			t.Errorf("%d of the 4 that were left were handled", again)
		}
	})
}

func TestAGroupThatIsNotThere(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		g := startGateway(t)
		c.start(t, worker(g, nil)).endsWith("NotFound")
	})
}
