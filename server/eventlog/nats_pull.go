package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// The engine's protocol for asking a consumer for messages.
const (
	nextSubject       = "$JS.API.CONSUMER.MSG.NEXT."
	statusHeader      = "Status"
	descriptionHeader = "Description"
	pinHeader         = "Nats-Pin-Id"

	statusNoResponders = "503"
	statusConflict     = "409"
	statusTimeout      = "408"
	statusNoMessages   = "404"
	statusHeartbeat    = "100"
	statusWrongPin     = "423"
	requestsPending    = "Requests Pending"
	consumerDeleted    = "Consumer Deleted"

	ackSettled = "+ACK"
	ackKeep    = "+WPI"
	// With a delay, if of nothing: the engine keeps only what has one over a restart.
	ackGiveBackFor = "-NAK "
	ackGiveBack    = ackGiveBackFor + "0s"
)

const (
	// maxFetch bounds one request.
	maxFetch = 256
	// leastWait is the shortest time that the engine is asked to wait.
	leastWait = 50 * time.Millisecond
	// longestWait is how long one request lasts at most. One that was lost with a connection is made again after it.
	longestWait = 10 * time.Second
	// gatherTime is how long more messages are waited for, once there is one, before the engine says that these are all.
	gatherTime = 100 * time.Millisecond
	// overdue is how much later than asked the engine may say that a request is over.
	overdue = time.Second
)

var (
	errConsumerGone = errors.New("the consumer is gone")
	errWrongPin     = errors.New("another gateway is served") // never leaves this file
)

// puller asks one consumer of a group for messages. It is not done with the client library's own Fetch: that forgets what arrives after
// the caller has lost patience, and the engine would keep it from everyone for as long as a lease lasts. Here a request lives on until it is
// over, one at a time, and what arrives late is what the next call gets.
type puller struct {
	log      *Log
	engine   *engine
	subject  string // where requests go to
	pinned   bool   // the consumer serves one gateway at a time
	inbox    string
	incoming chan *nats.Msg // as large as all that can be on its way
	sub      *nats.Subscription

	// Owned by the goroutine that fetches.
	request uint64    // number of the newest request
	open    int       // what that may still bring; 0: it is over
	until   time.Time // when it is over in any case

	mu     sync.Mutex
	pin    string    // mu; what the engine calls this gateway; empty if it is not the one that is served, as far as known
	turn   uint64    // mu; counts the pins
	asked  time.Time // mu; when the engine last heard of the pin
	closed bool      // mu
}

func newPuller(g *natsGroups, stream, consumer string, pinned bool) (*puller, error) {
	conn := g.engine.conn
	p := &puller{
		log: g.log, engine: g.engine, subject: nextSubject + stream + "." + consumer, pinned: pinned, inbox: conn.NewInbox(),
		incoming: make(chan *nats.Msg, 4*maxFetch),
	}
	var err error
	p.sub, err = conn.ChanSubscribe(p.inbox+".*", p.incoming)
	return p, err
}

// pullRequest is what the engine is asked.
type pullRequest struct {
	Batch    int           `json:"batch"`
	Expires  time.Duration `json:"expires,omitempty"`
	NoWait   bool          `json:"no_wait,omitempty"` // with Expires: be over as soon as there was something
	MaxBytes int           `json:"max_bytes,omitempty"`
	Group    string        `json:"group,omitempty"`
	Pin      string        `json:"id,omitempty"`
}

// send sends a request; the engine says on the inbox with a suffix when it is over.
func (p *puller) send(suffix string, request pullRequest) error {
	if p.pinned {
		request.Group = priorityGroup
		p.mu.Lock()
		request.Pin, p.asked = p.pin, time.Now()
		p.mu.Unlock()
	}
	data, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return p.engine.conn.PublishRequest(p.subject, p.inbox+"."+suffix, data)
}

// fetch returns up to most messages: what there is, or what arrives first; none if nothing does within wait. It returns an error
// only without messages.
func (p *puller) fetch(ctx context.Context, most int, wait time.Duration) ([]*nats.Msg, error) {
	deadline := time.Now().Add(max(wait, leastWait))
	crowded := false
	for {
		if p.open == 0 {
			request := pullRequest{Batch: min(most, maxFetch), NoWait: true, Expires: p.patience(time.Until(deadline))}
			if crowded {
				request.Batch, request.NoWait = 1, false
			}
			p.request++
			if err := p.send(strconv.FormatUint(p.request, 10), request); err != nil {
				return nil, err
			}
			p.open, p.until = request.Batch, time.Now().Add(request.Expires+overdue)
		}
		messages, over, err := p.gather(ctx, most)
		switch {
		case len(messages) > 0:
			return messages, nil
		case errors.Is(err, errWrongPin):
		case err != nil:
			return nil, err
		}
		if !time.Now().Before(deadline) {
			return nil, nil
		}
		if crowded = over == requestsPending; crowded || err == nil {
			continue
		}
		select { // for an engine that says no at once
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-p.log.writer.closing:
			return nil, ErrClosed
		case <-time.After(leastWait):
		}
	}
}

// patience is how long a request may last.
func (p *puller) patience(wait time.Duration) time.Duration {
	if p.pinned {
		return max(min(wait, pinnedWait), leastWait)
	}
	return max(min(wait, longestWait), leastWait)
}

// gather takes what arrives until the request is over, or what it has brought should not wait any longer. It returns what the engine
// said when it was over.
func (p *puller) gather(ctx context.Context, most int) (messages []*nats.Msg, over string, err error) {
	timer := time.NewTimer(time.Until(p.until))
	defer timer.Stop()
	for len(messages) < most {
		select {
		case message := <-p.incoming:
			if status := message.Header.Get(statusHeader); status != "" && len(message.Data) == 0 {
				if over, err = p.status(message, status); p.open == 0 {
					return messages, over, err
				}
				continue
			}
			p.notePin(message.Header.Get(pinHeader))
			messages = append(messages, message)
			if p.open = max(p.open-1, 0); p.open == 0 {
				return messages, "", nil
			}
			timer.Reset(gatherTime)
		case <-timer.C:
			if len(messages) == 0 {
				p.open = 0 // it was lost
			}
			return messages, "", nil
		case <-ctx.Done():
			return messages, "", context.Cause(ctx)
		case <-p.log.writer.closing:
			return messages, "", ErrClosed
		case <-p.log.frozen.done:
			return messages, "", p.log.frozen.get()
		}
	}
	return messages, "", nil
}

// status takes note of what the engine says about a request.
func (p *puller) status(message *nats.Msg, status string) (description string, err error) {
	if status == statusHeartbeat {
		return "", nil
	}
	description = message.Header.Get(descriptionHeader)
	if status == statusWrongPin {
		p.notePin("")
		err = errWrongPin
	}
	if suffix := strings.TrimPrefix(message.Subject, p.inbox+"."); suffix != strconv.FormatUint(p.request, 10) {
		return "", nil // of a request before, or of a reminder
	}
	p.open = 0
	switch {
	case status == statusNoResponders, status == statusConflict && description == consumerDeleted:
		err = errConsumerGone
	case status != statusTimeout && status != statusNoMessages && err == nil:
		p.log.options.Logger.Debug("a request for record batches ended", "status", status, "description", description)
		err = fmt.Errorf("%s %s", status, description)
		if status == statusConflict { // a change of leaders, for instance; it is asked again
			err = errWrongPin
		}
	}
	return description, err
}

// notePin takes note of the pin that came with a message; empty: it is lost.
func (p *puller) notePin(pin string) {
	if !p.pinned {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if pin != "" && pin != p.pin {
		p.turn++
	}
	p.pin = pin
}

// pinAndTurn returns the pin, empty if there is none, and how many there were.
func (p *puller) pinAndTurn() (string, uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pin, p.turn
}

// renew reminds the engine of the pin, if that may be needed: it counts requests only, and a gateway whose hands are full makes none.
func (p *puller) renew() {
	p.mu.Lock()
	need := p.pin != "" && time.Since(p.asked) > pinRenewal && !p.closed
	p.mu.Unlock()
	if need {
		// Nothing is as small as that, so nothing is delivered.
		_ = p.send("renew", pullRequest{Batch: 1, MaxBytes: 1, NoWait: true, Expires: pinRenewal})
	}
}

// close gives back what has arrived and was not fetched.
func (p *puller) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	conn := p.engine.conn
	_ = p.sub.Unsubscribe()
	// What was on its way has arrived then, and the engine knows that nobody is waiting.
	if err := conn.FlushTimeout(overdue); err != nil {
		return
	}
	for {
		select {
		case message := <-p.incoming:
			if message.Header.Get(statusHeader) == "" {
				_ = conn.Publish(message.Reply, []byte(ackGiveBack))
			}
		default:
			return
		}
	}
}
