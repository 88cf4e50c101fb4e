// Package cluster decides which gateway coordinates a group, when several share a log, and passes calls on to it.
//
// # Ownership
//
// A table that all gateways share has a key for each gateway, which it puts anew every second, and a key for each group that is
// coordinated by one of them, which names it. Whoever is asked about a group that nobody coordinates lets the gateway do it whose
// name comes first for that group (rendezvous hashing), so that groups are spread. It stays there until that gateway stops, or is
// silent for [silence]: then the next one that is asked takes it over, by comparing and setting the group's key.
//
// # Fencing
//
// A gateway answers for a group only while it knows that no other one can have taken it over: its own key was confirmed less than
// [confidence] ago, which is shorter than the silence that others wait for, and does not depend on anybody's wall clock. One that
// was frozen, or cut off, finds that out before it answers; and what it writes about a group's offset is refused, because the
// gateway that took over has written it since (see eventlog.Groups.Acquire).
//
// # Passing calls on
//
// Gateways reach each other through NATS, so they need no addresses of each other. A call is one message, its answer one or more; a
// stream is bounded by credits, and ends when either side is silent for [silence].
package cluster

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"google.golang.org/grpc"

	"github.com/linksgate/linksgate/server/store"
)

const (
	// beat is how often a gateway's key is put.
	beat = time.Second
	// confidence is how long after a confirmed beat a gateway may answer for its groups.
	confidence = 2 * time.Second
	// silence is after how long another gateway counts as gone.
	silence = 3 * time.Second
	// routeTime is how long a gateway looks for the one that coordinates a group.
	routeTime = 8 * time.Second

	gatewayPrefix = "gateway."
	groupPrefix   = "group."
)

// The errors of this package. Callers compare with [errors.Is].
var (
	// ErrElsewhere: another gateway coordinates the group by now. Calling again finds it.
	ErrElsewhere = errors.New("another gateway coordinates the group now")
	// ErrLost: the gateway that coordinates the group does not answer. What was asked may have been done.
	ErrLost = errors.New("the gateway that coordinates the group does not answer")
	// ErrLeave, as the cause of the end of a stream's context, tells the peer that the stream ends as planned. It is never returned.
	ErrLeave = errors.New("the stream ends as planned")
	// ErrCutOff: this gateway does not hear from the cluster.
	ErrCutOff = errors.New("this gateway does not hear from the NATS cluster")
)

// Groups is what a cluster does with the groups of its own gateway.
type Groups interface {
	// Acquire begins to coordinate a group here.
	Acquire(ctx context.Context, name string) error
	// Lose ends that: another gateway coordinates the group already.
	Lose(name string)
}

// Options configure a Cluster. All fields are required.
type Options struct {
	// Engine that is shared, and the connection to what it is stored in, with the prefix of subjects there.
	Engine store.Engine
	Conn   *nats.Conn
	Prefix string
	// Groups of this gateway.
	Groups Groups
	// Logger for changes of ownership.
	Logger *slog.Logger
}

// Cluster is this gateway among those that share a log. Its methods may be called concurrently.
type Cluster struct {
	options Options
	id      string
	kv      store.KV
	peers   *peers
	running sync.WaitGroup
	end     context.CancelFunc

	changing sync.Map // by group: *sync.Mutex, held while it is acquired or lost

	mu        sync.Mutex
	confirmed time.Time            // mu; when the last beat that was confirmed was sent
	polled    time.Time            // mu; when the others were last looked at; zero: not since that failed
	seen      map[string]*sighting // mu; by gateway
	held      map[string]uint64    // mu; groups that are coordinated here, and the revision of their keys
	owners    map[string]owner     // mu; of other groups, as last heard
	closing   bool                 // mu
}

// sighting is when a gateway's key was first seen to have a revision.
type sighting struct {
	revision uint64
	since    time.Time
}

type owner struct {
	gateway  string // "": none
	revision uint64
}

// Open joins the cluster. Calls that come from other gateways are made on the local connection that is set with [Cluster.Serve].
func Open(ctx context.Context, options Options) (*Cluster, error) {
	kv, err := options.Engine.OpenKV(ctx, "gateways", store.KVOptions{})
	if err != nil {
		return nil, fmt.Errorf("join the cluster: %w", err)
	}
	c := &Cluster{
		options: options, id: nuid.Next(), kv: kv,
		seen: make(map[string]*sighting), held: make(map[string]uint64), owners: make(map[string]owner),
	}
	c.peers = newPeers(options.Conn, options.Prefix+".gateway.", c.id, options.Logger)
	if err := c.beatOnce(ctx); err != nil {
		return nil, fmt.Errorf("join the cluster: %w", err)
	}
	if err := c.poll(ctx); err != nil {
		return nil, fmt.Errorf("join the cluster: %w", err)
	}
	running, end := context.WithCancel(context.Background())
	c.end = end
	c.running.Go(func() { c.run(running) })
	return c, nil
}

// ID names this gateway among the others, until it is closed.
func (c *Cluster) ID() string { return c.id }

// Serve answers what other gateways pass on, with calls on a connection to this gateway's own server.
func (c *Cluster) Serve(local *grpc.ClientConn) error { return c.peers.serve(local) }

// Close leaves the cluster: groups that were coordinated here can be coordinated elsewhere at once. Nothing may be under way here for
// any of them.
func (c *Cluster) Close() {
	c.mu.Lock()
	c.closing = true
	held := c.held
	c.held = make(map[string]uint64)
	c.mu.Unlock()
	c.end()
	c.running.Wait()
	c.peers.close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var deleting sync.WaitGroup
	for name, revision := range held {
		deleting.Go(func() { _ = c.kv.Delete(ctx, groupPrefix+name, revision) }) // else it is taken over after a silence
	}
	deleting.Wait()
	_ = c.kv.Delete(ctx, gatewayPrefix+c.id, store.Any)
}

// run puts this gateway's key, and looks at those of the others, until ctx ends.
func (c *Cluster) run(ctx context.Context) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		bounded, cancel := context.WithTimeout(ctx, confidence)
		err := c.beatOnce(bounded)
		if err == nil {
			err = c.poll(bounded)
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			c.options.Logger.Debug("cluster not heard", "error", err)
			c.mu.Lock()
			c.polled = time.Time{} // what was seen before says nothing about the time in between
			c.mu.Unlock()
		}
	}
}

// beatOnce puts this gateway's key. After a silence it first finds out what was taken over meanwhile.
func (c *Cluster) beatOnce(ctx context.Context) error {
	sent := time.Now()
	if _, err := c.kv.Put(ctx, gatewayPrefix+c.id, nil, store.Any); err != nil {
		return err
	}
	c.mu.Lock()
	silent := !c.confirmed.IsZero() && sent.Sub(c.confirmed) > confidence
	if !silent {
		c.confirmed = sent
	}
	c.mu.Unlock()
	if !silent {
		return nil
	}
	if err := c.poll(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.confirmed = sent
	return nil
}

// poll looks at the keys of all gateways and groups.
func (c *Cluster) poll(ctx context.Context) error {
	groups := make(map[string]uint64)
	gateways := make(map[string]uint64)
	for value, err := range c.kv.List(ctx, "", "", true) {
		if err != nil {
			return err
		}
		if name, ok := strings.CutPrefix(value.Key, groupPrefix); ok {
			groups[name] = value.Revision
		} else if id, ok := strings.CutPrefix(value.Key, gatewayPrefix); ok {
			gateways[id] = value.Revision
		}
	}
	now := time.Now()
	var lost, dead []string
	c.mu.Lock()
	for id, revision := range gateways {
		s := c.seen[id]
		if s == nil || s.revision != revision || c.polled.IsZero() {
			c.seen[id] = &sighting{revision, now}
		} else if now.Sub(s.since) > time.Minute {
			dead = append(dead, id)
		}
	}
	for id := range c.seen {
		if _, there := gateways[id]; !there {
			delete(c.seen, id)
		}
	}
	for name, known := range c.owners {
		if groups[name] != known.revision {
			delete(c.owners, name)
		}
	}
	for name, revision := range c.held {
		if groups[name] != revision {
			lost = append(lost, name)
			delete(c.held, name)
		}
	}
	c.polled = now
	c.mu.Unlock()
	for _, name := range lost {
		c.options.Logger.Warn("group taken over by another gateway", "group", name)
		c.running.Go(func() {
			defer c.lock(name)()
			c.options.Groups.Lose(name)
		})
	}
	for _, id := range dead { // its groups are taken over when somebody asks for them
		_ = c.kv.Delete(ctx, gatewayPrefix+id, gateways[id])
	}
	return nil
}

// confident reports whether no other gateway can have taken over what is held here. The caller holds mu.
func (c *Cluster) confident() bool { return time.Since(c.confirmed) < confidence }

// gone reports whether a gateway has been silent for so long that what it has may be taken over. The caller holds mu.
func (c *Cluster) gone(id string) bool {
	s := c.seen[id]
	return s == nil || !c.polled.IsZero() && c.polled.Sub(s.since) > silence
}

// Route is where a call about a group is answered.
type Route struct {
	// Peer is the gateway; "": this one.
	Peer string

	cluster *Cluster
	group   string
}

// Done returns nil if this gateway coordinates the group still, so that what was done may be answered. Errors: ErrElsewhere, ErrCutOff.
func (r Route) Done() error {
	if r.Peer != "" {
		return nil
	}
	r.cluster.mu.Lock()
	defer r.cluster.mu.Unlock()
	if _, held := r.cluster.held[r.group]; !held {
		return ErrElsewhere
	}
	if !r.cluster.confident() {
		return ErrCutOff
	}
	return nil
}

// Find returns where a call about a group is answered, and makes this gateway the place if need be. A call that was passed on by
// another gateway is not passed on again. Errors: ErrElsewhere, ErrCutOff,
// those of [Groups].
func (c *Cluster) Find(ctx context.Context, group string, passedOn bool) (Route, error) {
	ctx, cancel := context.WithTimeout(ctx, routeTime)
	defer cancel()
	for {
		route, found, err := c.find(ctx, group, passedOn)
		switch {
		case errors.Is(err, store.ErrUnavailable):
			return route, fmt.Errorf("%w: %w", ErrCutOff, err)
		case errors.Is(err, store.ErrClosed):
			return route, ErrElsewhere // soon
		case err != nil || found:
			return route, err
		}
		select {
		case <-ctx.Done():
			return Route{}, ErrElsewhere
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *Cluster) find(ctx context.Context, group string, passedOn bool) (Route, bool, error) {
	here := Route{cluster: c, group: group}
	c.mu.Lock()
	_, held := c.held[group]
	known, heard := c.owners[group]
	confident, closing := c.confident(), c.closing
	c.mu.Unlock()
	switch {
	case closing:
		return here, false, store.ErrClosed
	case held && !confident:
		return here, false, ErrCutOff
	case held:
		return here, true, nil
	}
	if !heard {
		value, err := c.kv.Get(ctx, groupPrefix+group)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return here, false, err
		}
		known = owner{string(value.Data), value.Revision}
	}
	c.mu.Lock()
	if known.gateway != "" && known.gateway != c.id && c.gone(known.gateway) && c.polled.IsZero() {
		c.mu.Unlock()
		return here, false, nil // it is not known whether it is gone
	}
	mine := known.gateway == c.id
	gone := known.gateway != "" && !mine && c.gone(known.gateway)
	target := known.gateway
	if known.gateway == "" {
		target = c.preferred(group)
	}
	if !gone && known.gateway != "" && !mine {
		c.owners[group] = known
	}
	c.mu.Unlock()
	switch {
	case mine, gone, known.gateway == "" && (passedOn || target == c.id):
		return c.acquire(ctx, group, known)
	case passedOn:
		return here, false, ErrElsewhere
	}
	here.Peer = target
	return here, true, nil
}

// preferred returns the gateway that comes first for a group. The caller holds mu.
func (c *Cluster) preferred(group string) string {
	best, most := c.id, uint64(0)
	for id := range c.seen {
		if c.gone(id) {
			continue
		}
		hash := fnv.New64a()
		_, _ = hash.Write([]byte(id + "/" + group))
		if sum := hash.Sum64(); sum >= most {
			best, most = id, sum
		}
	}
	return best
}

// acquire makes this gateway the one that coordinates a group, unless another one does by now.
func (c *Cluster) acquire(ctx context.Context, group string, before owner) (Route, bool, error) {
	here := Route{cluster: c, group: group}
	defer c.lock(group)()
	c.mu.Lock()
	_, held := c.held[group]
	confident := c.confident()
	c.mu.Unlock()
	switch {
	case held:
		return here, true, nil
	case !confident:
		return here, false, ErrCutOff
	}
	revision, err := c.kv.Put(ctx, groupPrefix+group, []byte(c.id), before.revision)
	if errors.Is(err, store.ErrConflict) {
		c.Forget(group)
		return here, false, nil
	}
	if err != nil {
		return here, false, err
	}
	if err := c.options.Groups.Acquire(ctx, group); err != nil {
		return here, false, err // the next one who asks goes on: the key names this gateway
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[group] = revision
	delete(c.owners, group)
	if before.gateway != "" && before.gateway != c.id {
		c.options.Logger.Warn("group taken over from a gateway that is gone", "group", group)
	}
	return here, true, nil
}

// lock waits until nobody else acquires or loses a group, and returns what lets others.
func (c *Cluster) lock(group string) func() {
	lock, _ := c.changing.LoadOrStore(group, new(sync.Mutex))
	lock.(*sync.Mutex).Lock()
	return lock.(*sync.Mutex).Unlock
}

// Owner returns the other gateway that coordinates a group; "" if there is none, or it is gone.
func (c *Cluster) Owner(ctx context.Context, group string) string {
	c.mu.Lock()
	_, held := c.held[group]
	known, heard := c.owners[group]
	c.mu.Unlock()
	if held {
		return ""
	}
	if !heard {
		value, err := c.kv.Get(ctx, groupPrefix+group)
		if err != nil {
			return ""
		}
		known.gateway = string(value.Data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known.gateway == c.id || c.gone(known.gateway) {
		return ""
	}
	return known.gateway
}

// Leaving returns a channel that is closed when a stream that was passed on is to end as planned. The call is named by [PassedOn].
func (c *Cluster) Leaving(call string) <-chan struct{} { return c.peers.leavingOf(call) }

// Forget makes the next call about a group ask who coordinates it.
func (c *Cluster) Forget(group string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.owners, group)
}

// Gateways returns how many gateways are heard, this one included.
func (c *Cluster) Gateways() (count int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.seen {
		if !c.gone(id) {
			count++
		}
	}
	return count
}

// Call passes a call on to a peer, and returns its answer: a marshalled message, or a gRPC status. Errors: ErrElsewhere if it was not
// made, ErrLost if that is not known.
func (c *Cluster) Call(ctx context.Context, peer, method string, request []byte) (answer []byte, err error) {
	err = c.peers.call(ctx, peer, method, request, false, func(data []byte) error {
		answer = data
		return nil
	})
	return answer, err
}

// Stream passes on a call whose answer is a stream, and gives each message to send. Where ctx ends because of [ErrLeave], the peer
// ends the stream as planned: see [Cluster.Leaving]. Errors: those of send, and as for Call.
func (c *Cluster) Stream(ctx context.Context, peer, method string, request []byte, send func([]byte) error) error {
	return c.peers.call(ctx, peer, method, request, true, send)
}
