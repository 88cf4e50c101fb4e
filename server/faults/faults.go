// Package faults answers one question: does the gateway keep its promises when things break?
//
// It drives the binary that ships, as Linksfield and the services around it would: a [Gateway] is a child process on a directory of
// its own, a [Driver] sends it numbered notifications over HTTP, and a [Subscriber] reads them over gRPC and comes back after every
// interruption. Tests break something meanwhile: the process, a connection, a subscriber's patience.
//
// # One history, one checker
//
// Whatever was broken, the test ends in the same way. What was sent and answered, what each subscriber saw, and what the log holds in
// the end make a [History], and [Check] holds it against every promise at once. A test adds only what is particular to its fault, such
// as how long a shutdown may take. The rules do not know which faults there were: a promise has no exceptions.
//
// A notification is recognised by the SHA-256 of its body: no two that a driver sends have the same body, and a body that was altered
// on its way is not recognised. Each is sent once at most, because Linksfield sends most of them once.
//
// # Three sizes
//
// go test runs a few seconds of each simple fault. With -every, which make faults-short gives, every fault strikes once, in an order
// that the seed decides, on one gateway under load. With -duration, which make faults gives, faults strike at random for so long.
// Power, disks and their errors are those of package faultfs; a wall clock that jumps is that of package skew.
package faults

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// History is everything that is known about one run.
type History struct {
	// Sent is every notification that a driver sent, in any order.
	Sent []Sent
	// Log is what the log holds in the end, from its beginning.
	Log Trace
	// Subscribers is what each subscriber saw.
	Subscribers []Trace
	// Reported is what the gateway or its doctor said to be lost, in the words of an operator: this is allowed to be missing, and
	// nothing else. Empty unless a disk was damaged.
	Reported Report
}

// Sent is one notification that was sent, and what its sender learnt.
type Sent struct {
	// Number of the notification, unique in a history.
	Number uint64
	Kind   linksgatev1.NotificationKind
	Digest Digest
	// Began is before the request was sent, Ended after its answer was read or given up. Both have a monotonic reading.
	Began, Ended time.Time
	// Status is that of the answer; 0 if none came: then the notification may or may not have been stored.
	Status int
	// ID is what the answer named the notification. Only with a 2xx.
	ID string
	// Err is why there is no answer, or no whole one.
	Err error
	// WrongSecret says that the gateway had been given other secrets than its sender's, by mistake.
	WrongSecret bool
}

// accepted reports whether the gateway took the responsibility.
func (s *Sent) accepted() bool { return s.Status >= 200 && s.Status < 300 }

// Trace is what one reader of the log saw, over all of its streams, in the order in which it came.
type Trace struct {
	// Name of the reader.
	Name string
	// FromStart says that the reader asked for the log from its beginning.
	FromStart bool
	// ToEnd says that the reader was given the time to reach the end of the log.
	ToEnd bool
	// Notifications that the reader handled.
	Notifications []Seen
	// Gaps that it was told of, and what each is about.
	Gaps    []*linksgatev1.Gap
	Missing []Range
	// CaughtUp counts how often it was told that it is live, and FellBehind that it no longer is.
	CaughtUp, FellBehind int
	// Endings of its streams.
	Endings []Ending
}

// Seen is one notification as a reader got it.
type Seen struct {
	ID       string
	Sequence uint64
	Kind     linksgatev1.NotificationKind
	// Digest of the body that was received, and what the notification itself says it is.
	Digest   Digest
	Declared string
}

// Ending is how one stream ended.
type Ending struct {
	// Closing is why the gateway said it would end the stream; unspecified if it did not say.
	Closing linksgatev1.ClosingReason
	// Reason of the gateway's error; empty if the stream ended otherwise, such as with its connection.
	Reason string
	// Err is what the stream ended with; nil for OK.
	Err error
}

// Digest is the SHA-256 of a body.
type Digest [sha256.Size]byte

// String writes the digest as notifications do.
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// seen reads a notification.
func seen(n *linksgatev1.Notification) Seen {
	body := n.GetBinaryBody()
	if body == nil {
		body = []byte(n.GetBody())
	}
	return Seen{
		ID: n.GetId(), Sequence: uint64(n.GetSequence()), Kind: n.GetKind(),
		Digest: sha256.Sum256(body), Declared: n.GetContentDigest(),
	}
}

// Await waits until a condition holds. It looks every millisecond until ctx ends, and then returns an error that says what was
// waited for.
func Await(ctx context.Context, what string, holds func() bool) error {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		case <-ticker.C:
		}
	}
	return nil
}
