package faults

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/payload"
	"github.com/linksgate/linksgate/server/simulator"
)

const (
	// answerTimeout is how long the driver waits for an answer: longer than the gateway may take.
	answerTimeout = 30 * time.Second
	// refusedPause is how long a connection rests after a request that was not accepted, so that a gateway that is down does not
	// make for a busy loop.
	refusedPause = 10 * time.Millisecond
)

// Driver plays Linksfield: it sends numbered notifications of all kinds, each of them once, whatever becomes of them.
type Driver struct {
	// URL of the account to send to.
	URL string
	// Sender signs. It may be replaced within Change.
	Sender *simulator.Sender
	// WrongSecret says that the gateway has been given other secrets than the sender's, by mistake. It may be set within Change.
	WrongSecret bool
	// Connections to send over at the same time.
	Connections int
	// Rest is how long each connection rests after an answer. Without it the driver sends what the gateway can take.
	Rest time.Duration
	// BodyBytes, if not 0, is about how long each body is. Else bodies are as the simulator makes them.
	BodyBytes int

	last     atomic.Uint64 // number given out last
	accepted atomic.Int64
	denied   atomic.Int64 // answered with 401

	agreement sync.RWMutex // held for reading while a notification is under way; Sender and WrongSecret

	mu   sync.Mutex
	sent []Sent // mu
}

// Accepted is how many notifications have been answered with 2xx so far.
func (d *Driver) Accepted() int { return int(d.accepted.Load()) }

// Denied is how many have been answered with 401 so far.
func (d *Driver) Denied() int { return int(d.denied.Load()) }

// Change calls do while no notification is under way, so that each is signed and received under the same agreement.
func (d *Driver) Change(do func() error) error {
	d.agreement.Lock()
	defer d.agreement.Unlock()
	return do()
}

// AwaitAccepted waits until so many have been answered with 2xx.
func (d *Driver) AwaitAccepted(ctx context.Context, n int) error {
	return Await(ctx, fmt.Sprintf("%d notifications are accepted", n), func() bool { return d.Accepted() >= n })
}

// Sent returns everything that was sent by the runs that have ended.
func (d *Driver) Sent() []Sent {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sent)
}

// Run sends until so many notifications have been accepted, or ctx ends; both let the requests under way finish. A gateway that
// refuses or is away is no reason to stop: Run goes on with new numbers.
func (d *Driver) Run(ctx context.Context, accepted int) error {
	client := &http.Client{
		Timeout: answerTimeout,
		Transport: &http.Transport{
			MaxConnsPerHost: d.Connections, MaxIdleConnsPerHost: d.Connections, DisableCompression: true,
		},
	}
	defer client.CloseIdleConnections()
	failed := make([]error, d.Connections)
	var connections sync.WaitGroup
	for i := range failed {
		connections.Go(func() { failed[i] = d.send(ctx, client, accepted) })
	}
	connections.Wait()
	return errors.Join(failed...)
}

// send is one connection's part of Run.
func (d *Driver) send(ctx context.Context, client *http.Client, accepted int) error {
	var sent []Sent
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.sent = append(d.sent, sent...)
	}()
	kinds := payload.Kinds()
	for ctx.Err() == nil && d.Accepted() < accepted {
		one, err := d.sendOne(client, kinds)
		if err != nil {
			return err
		}
		sent = append(sent, one)
		rest := refusedPause
		switch {
		case one.accepted():
			d.accepted.Add(1)
			rest = d.Rest
		case one.Status == http.StatusUnauthorized:
			d.denied.Add(1)
		}
		if rest == 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(rest):
		}
	}
	return nil
}

// sendOne makes the next notification and sends it.
func (d *Driver) sendOne(client *http.Client, kinds []linksgatev1.NotificationKind) (Sent, error) {
	d.agreement.RLock()
	defer d.agreement.RUnlock()
	number := d.last.Add(1)
	made, err := d.make(kinds[number%uint64(len(kinds))], number)
	if err != nil {
		return Sent{}, fmt.Errorf("make notification %d: %w", number, err)
	}
	one, err := deliver(client, d.URL, made)
	if err != nil {
		return Sent{}, fmt.Errorf("send notification %d: %w", number, err)
	}
	one.Number, one.WrongSecret = number, d.WrongSecret
	return one, nil
}

// make returns notification number n. A number has one kind, so no two bodies are alike.
func (d *Driver) make(kind linksgatev1.NotificationKind, n uint64) (simulator.Notification, error) {
	if d.BodyBytes == 0 {
		return d.Sender.Make(kind, n)
	}
	return d.Sender.MakeWithBody(kind, fmt.Appendf(nil, `{"number":"%d","filling":"%s"}`, n, strings.Repeat("x", d.BodyBytes)))
}

// deliver sends a notification once and returns what became of it. The error is about the request, not about sending it.
func deliver(client *http.Client, url string, n simulator.Notification) (Sent, error) {
	sent := Sent{Kind: n.Kind, Digest: sha256.Sum256(n.Body)}
	// Not cut off by anything but the client's timeout: Linksfield does not hang up either.
	r, err := n.Request(context.Background(), url)
	if err != nil {
		return sent, err
	}
	r.GetBody = nil // keeps net/http from sending it again by itself
	sent.Began = time.Now()
	answer, err := client.Do(r)
	if err == nil {
		sent.Status = answer.StatusCode
		sent.ID, err = readAnswer(answer)
	}
	sent.Ended, sent.Err = time.Now(), err
	return sent, nil
}

// readAnswer reads an answer to its end, so that its connection can be used again, and returns the id in it.
func readAnswer(answer *http.Response) (string, error) {
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return "", err
	}
	var stored struct{ ID string }
	if err := json.Unmarshal(body, &stored); err != nil {
		return "", fmt.Errorf("read the answer %q: %w", body, err)
	}
	return stored.ID, nil
}
