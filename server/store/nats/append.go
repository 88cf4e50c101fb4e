package nats

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/linksgate/linksgate/server/store"
)

const (
	// lanes is how many entries of one gateway may be under way.
	lanes = 8
	// idHeader has what tells a message from all others of its lane.
	idHeader = "Linksgate-Id"
	// keyWindow is how long the cluster recognises a key.
	keyWindow = 2 * time.Minute
)

// Ticket is what must be remembered of an entry that was not confirmed, to go on appending it so that it is stored once.
type Ticket struct {
	Subject string `json:"subject"`         // the lane
	After   uint64 `json:"after,omitempty"` // the sequence of the lane's message before it
	Ask     bool   `json:"ask,omitempty"`   // or that of its last message, whichever that is
	ID      string `json:"id"`
	Key     []byte `json:"key,omitempty"`
}

// Unconfirmed is the error of an entry that may have been stored. It wraps [store.ErrUnavailable].
type Unconfirmed struct {
	Ticket Ticket
	cause  error
}

func (u *Unconfirmed) Error() string { return u.cause.Error() }
func (u *Unconfirmed) Unwrap() error { return u.cause }

// lane is a subject of this gateway alone. One that has left something unconfirmed is not used again.
type lane struct {
	subject string
	last    uint64 // sequence of its last message
}

func (l *Log) newLane() *lane { return &lane{subject: l.subject + nuid.Next()} }

// Append implements [store.Log]; up to [lanes] callers are served at once. An error that is [*Unconfirmed] has a ticket.
func (l *Log) Append(ctx context.Context, data []byte) (store.Entry, error) {
	entry, _, err := l.append(ctx, nil, data)
	return entry, err
}

// AppendKeyed implements [store.Keyed].
func (l *Log) AppendKeyed(ctx context.Context, key, data []byte) (store.Entry, bool, error) {
	return l.append(ctx, key, data)
}

func (l *Log) append(ctx context.Context, key, data []byte) (store.Entry, bool, error) {
	if len(data) > l.engine.MaxEntry() {
		return store.Entry{}, false, store.ErrTooLarge
	}
	if l.engine.isClosing() {
		return store.Entry{}, false, store.ErrClosed
	}
	var on *lane
	select {
	case on = <-l.lanes:
	case <-l.engine.closing:
		return store.Entry{}, false, store.ErrClosed
	case <-ctx.Done():
		return store.Entry{}, false, fmt.Errorf("%w: %w", store.ErrUnavailable, context.Cause(ctx))
	}
	ticket := Ticket{Subject: on.subject, After: on.last, ID: nuid.Next(), Key: key}
	entry, copied, last, err := l.submit(ctx, ticket, data)
	var unconfirmed *Unconfirmed
	if errors.As(err, &unconfirmed) {
		on = l.newLane()
	} else {
		on.last = last
	}
	l.lanes <- on
	return entry, copied, err
}

// NewTicket returns a ticket of a lane of its own, for an entry that is to be appended later, perhaps by another process. Entries of one
// lane must be submitted one after the other, in the order of their tickets.
func (l *Log) NewTicket(lane string, key []byte) Ticket {
	return Ticket{Subject: l.subject + lane, Ask: true, ID: nuid.Next(), Key: key}
}

// Submit appends the entry of a ticket, unless it is stored already: then it returns that one. It reports whether a copy was found, by
// its key, that is another entry.
func (l *Log) Submit(ctx context.Context, ticket Ticket, data []byte) (store.Entry, bool, error) {
	entry, copied, _, err := l.submit(ctx, ticket, data)
	return entry, copied, err
}

// submit publishes until the outcome is known, or ctx ends. It returns the sequence of the lane's last message then.
func (l *Log) submit(ctx context.Context, ticket Ticket, data []byte) (entry store.Entry, copied bool, last uint64, err error) {
	message := &nats.Msg{Subject: ticket.Subject, Data: data, Header: nats.Header{idHeader: {ticket.ID}}}
	if ticket.Key != nil {
		message.Header.Set(jetstream.MsgIDHeader, hex.EncodeToString(ticket.Key))
	}
	after, tries, ask := ticket.After, 0, ticket.Ask
	err = l.engine.try(ctx, func(ctx context.Context) error {
		if ask {
			stored, err := l.stream.GetLastMsgForSubject(ctx, ticket.Subject)
			switch {
			case err == nil && stored.Header.Get(idHeader) == ticket.ID:
				entry, last = store.Entry{Sequence: stored.Sequence, Time: stored.Time}, stored.Sequence
				return nil
			case err == nil:
				after = stored.Sequence
			case !errors.Is(err, jetstream.ErrMsgNotFound):
				return err
			}
			ask = false
		}
		tries++
		written := time.Now()
		ack, err := l.engine.js.PublishMsg(ctx, message, jetstream.WithExpectLastSequencePerSubject(after), jetstream.WithRetryAttempts(0))
		switch {
		case err == nil && ack.Duplicate:
			entry, copied, last = store.Entry{Sequence: ack.Sequence, Time: written}, true, after
			if tries == 1 {
				return nil
			}
			// Perhaps it is a copy of itself.
			stored, err := l.stream.GetLastMsgForSubject(ctx, ticket.Subject)
			if err == nil && stored.Header.Get(idHeader) == ticket.ID {
				copied, last = false, stored.Sequence
			}
			return ignoreMissing(err)
		case err == nil:
			entry, last = store.Entry{Sequence: ack.Sequence, Time: written}, ack.Sequence
			return nil
		case !isWrongSequence(err):
			return err
		}
		stored, found := l.stream.GetLastMsgForSubject(ctx, ticket.Subject)
		switch {
		case errors.Is(found, jetstream.ErrMsgNotFound):
			after = 0 // what was there has expired
			return nats.ErrTimeout
		case found != nil:
			return found
		case stored.Header.Get(idHeader) == ticket.ID:
			entry, last = store.Entry{Sequence: stored.Sequence, Time: stored.Time}, stored.Sequence
			return nil
		}
		return fmt.Errorf("the lane %s has a message that is not its own: %w", ticket.Subject, err)
	})
	switch {
	case err == nil:
		if !copied {
			entry.Data = data
			l.grow(entry)
			entry.Data = nil
		}
		return entry, copied, last, nil
	case errors.Is(err, store.ErrClosed) && tries == 0:
		return store.Entry{}, false, ticket.After, err
	}
	err = meaning(err)
	if errors.Is(err, store.ErrNoSpace) || errors.Is(err, store.ErrTooLarge) {
		return store.Entry{}, false, ticket.After, err
	}
	return store.Entry{}, false, 0, &Unconfirmed{ticket, err}
}

func ignoreMissing(err error) error {
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	return err
}

// isWrongSequence reports whether a message was refused because the last one of its subject is another than expected.
func isWrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}
