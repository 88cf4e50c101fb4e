package eventlog

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Gateways on one external log can ask each other things. Nothing of that is stored.
const (
	// peerSubject, with a gateway's replica number and a method, is where one gateway is asked; peersSubject, with a method, is where
	// all are.
	peerSubject  = "linksgate.peer."
	peersSubject = "linksgate.peers."
	// askTimeout is how long one gateway has to answer.
	askTimeout = 2 * time.Second
	// maxAnswers is how many requests of others are answered at once.
	maxAnswers = 64
)

// newReplica returns a number that no other gateway has.
func newReplica() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails, as documented
	return binary.BigEndian.Uint64(b[:]) | 1
}

// Replica names this gateway among those on the log, for as long as the log is open. It is 0 when the log is embedded, and random else.
func (g *natsGroups) Replica() uint64 { return g.replica }

func replicaName(replica uint64) string { return strconv.FormatUint(replica, 16) }

// Answer answers what other gateways ask this one, with what handler makes of it; nil is no answer. The handler is called from
// several goroutines at once, and ctx ends when stop is called, which returns when no call is running any more. With an embedded log
// there is nobody to ask. Errors: ErrUnavailable, ErrClosed.
func (g *natsGroups) Answer(handler func(ctx context.Context, method string, request []byte) []byte) (stop func(), err error) {
	if err := g.log.usable(); err != nil {
		return nil, err
	}
	conn := g.engine.conn
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	slots := make(chan struct{}, maxAnswers)
	requests := make(chan *nats.Msg, 4*maxAnswers) // what is more goes unanswered
	running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case slots <- struct{}{}:
			}
			select {
			case <-ctx.Done():
				return
			case request := <-requests:
				running.Go(func() {
					defer func() { <-slots }()
					method := request.Subject[strings.LastIndexByte(request.Subject, '.')+1:]
					if answer := handler(ctx, method, request.Data); answer != nil {
						_ = request.Respond(answer)
					}
				})
			}
		}
	})
	var subscriptions []*nats.Subscription
	stop = sync.OnceFunc(func() {
		for _, s := range subscriptions {
			_ = s.Unsubscribe()
		}
		_ = conn.FlushTimeout(askTimeout) // from now on others are told that nobody answers
		cancel()
		running.Wait()
	})
	for _, subject := range []string{peerSubject + replicaName(g.replica) + ".*", peersSubject + "*"} {
		s, err := conn.ChanSubscribe(subject, requests)
		if err != nil {
			stop()
			return nil, fmt.Errorf("answer other gateways: %w: %w", ErrUnavailable, err)
		}
		subscriptions = append(subscriptions, s)
	}
	if err := conn.FlushTimeout(publishTimeout); err != nil {
		stop()
		return nil, fmt.Errorf("answer other gateways: %w: %w", ErrUnavailable, err)
	}
	return stop, nil
}

// Ask asks one other gateway and returns its answer. The method must be one word of letters, digits and hyphens. Errors: ErrNoPeer
// if the gateway is gone, is this one, or the log is embedded; ErrUnavailable if it does not answer; ErrClosed.
func (g *natsGroups) Ask(ctx context.Context, replica uint64, method string, request []byte) ([]byte, error) {
	if err := g.log.usable(); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := g.engine.conn.RequestWithContext(bounded, peerSubject+replicaName(replica)+"."+method, request)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, ErrNoPeer
	case err != nil:
		return nil, g.fail(ctx, "ask another gateway", err)
	}
	return answer.Data, nil
}

// AskAll asks all other gateways and returns the answers that come within a time, in no order. It returns at once if there are no
// others, as far as the connection can tell. The method must be as for Ask.
func (g *natsGroups) AskAll(ctx context.Context, method string, request []byte, wait time.Duration) [][]byte {
	if g.log.usable() != nil {
		return nil
	}
	conn := g.engine.conn
	answers := make(chan *nats.Msg, 1024)
	inbox := conn.NewInbox()
	subscription, err := conn.ChanSubscribe(inbox, answers)
	if err != nil {
		return nil
	}
	defer func() { _ = subscription.Unsubscribe() }()
	if err := conn.PublishRequest(peersSubject+method, inbox, request); err != nil {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var all [][]byte
	for {
		select {
		case answer := <-answers:
			if answer.Header.Get(statusHeader) != "" { // nobody is there
				return all
			}
			all = append(all, answer.Data)
		case <-timer.C:
			return all
		case <-ctx.Done():
			return all
		case <-g.log.writer.closing:
			return all
		}
	}
}
