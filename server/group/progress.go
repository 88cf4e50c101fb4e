package group

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
)

// What a group knows of a record batch beyond "not settled yet" lives in the memory of the gateway that has it in hand. It is
// stored
//   - before a notification is delivered again, with the coming attempt counted, so that attempts are not forgotten when a
//     gateway dies, and one that keeps failing is parked in the end;
//   - when a gateway hands its batches back: what is settled stays settled, and leases that are out stay good;
//   - when a lease is settled that a gateway gave which is gone.
//
// What was acknowledged and is not stored when a gateway dies comes again; of an ordered group when it can not be out any more. What may
// be the gateway has stored before it lent it, for whole record batches: see eventlog.GroupReader.Reach.

// progressOf returns what is stored of one notification of a batch; nil if nothing is.
func progressOf(progress *storagev1.BatchProgress, index int) *storagev1.NotificationProgress {
	all := progress.GetNotifications()
	at, found := findProgress(all, index)
	if !found {
		return nil
	}
	return all[at]
}

func findProgress(all []*storagev1.NotificationProgress, index int) (int, bool) {
	return slices.BinarySearchFunc(all, index, func(p *storagev1.NotificationProgress, index int) int {
		return cmp.Compare(int(p.GetIndex()), index)
	})
}

// restore takes over what is stored of a notification. It reports whether it is out on a lease.
func (it *item) restore(p *storagev1.NotificationProgress, now time.Time) (out bool) {
	if p == nil {
		return false
	}
	it.attempts, it.suspect, it.lease = p.GetAttempts(), p.GetSuspect(), p.GetLeaseNumber()
	it.until, it.due = asTime(p.GetLeasedUntil()), asTime(p.GetNotBefore())
	return it.lease != 0 && it.until.After(now)
}

// uncount leaves a notification that is not out one attempt: the last one that was counted may not have been made.
func (it *item) uncount(r rules) { it.attempts = min(it.attempts, max(r.maxAttempts, 1)-1) }

// hold takes a notification for leased until a time, by whomever. What is stored may be older than its newest lease: that it is out on
// one is good to know, that it is not says nothing.
func (it *item) hold(until time.Time, out bool) {
	it.held = true
	if !out {
		it.lease, it.until = 0, time.Time{}
	}
	if until.After(it.until) {
		it.until = until
	}
}

// snapshot returns what there is to store of a batch; nil if there is nothing. ahead counts the coming attempt of what waits to
// be delivered again. Without it the session has ended, and a member that does not know of its lease will not be told any more.
func (b *batch) snapshot(ahead bool) *storagev1.BatchProgress {
	progress := new(storagev1.BatchProgress)
	for i := range b.items {
		it := &b.items[i]
		p := &storagev1.NotificationProgress{Index: uint32(it.record.Position.Index)}
		attempts, out := it.attempts, it.state == stateLeased
		switch {
		case out && it.held && it.lease == 0: // nothing is known that was not before
			out = false
		case out && !ahead && !it.known():
			attempts, out = attempts-1, false
		}
		switch {
		case it.state == stateSettled:
			p.Settled = true
			if !it.parking { // acknowledging what was acknowledged is fine
				p.LeaseNumber = it.lease
			}
		case attempts == 0:
			continue
		default:
			p.Attempts, p.Suspect, p.LeaseNumber = attempts, it.suspect, it.lease
			if out {
				p.LeasedUntil = timestamppb.New(it.until)
				break
			}
			p.NotBefore = timestamppb.New(it.due)
			if ahead && !it.held {
				p.Attempts++
			}
		}
		progress.Notifications = append(progress.Notifications, p)
	}
	if len(progress.Notifications) == 0 {
		return nil
	}
	return progress
}

func asTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
