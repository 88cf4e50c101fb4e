package nats

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/tidwall/btree"

	"github.com/linksgate/linksgate/server/store"
)

const (
	// deletedHeader marks a deletion.
	deletedHeader = "Linksgate-Deleted"
	// deletedFor is how long a deletion is remembered. A gateway that was away for half of that reads the table anew.
	deletedFor = 10 * time.Minute
)

// KV is a stream with the last message of each subject. Which keys there are is known from following it; values are read from the
// cluster. It implements [store.KV].
type KV struct {
	engine  *Engine
	stream  jetstream.Stream
	subject string // of keys, with a period at its end

	end       context.CancelFunc // ends the following
	following sync.WaitGroup

	mu       sync.Mutex
	options  store.KVOptions       // mu
	keys     *btree.BTreeG[known]  // mu; by key
	bytes    int64                 // mu; of keys and values
	last     uint64                // mu; the sequence up to which keys is complete
	grown    chan struct{}         // mu; closed when last grows, and by stop
	closed   bool                  // mu
	since    time.Time             // mu; when something was heard last
	removed  uint64                // mu; by a bound
	watchers map[*watcher]struct{} // mu
}

// known is what is known of a key.
type known struct {
	key      string
	revision uint64
	time     time.Time
	size     int64
}

var _ store.KV = (*KV)(nil)

// OpenKV implements [store.Engine]. Bounds are those that the stream was created with; SetOptions changes them.
func (e *Engine) OpenKV(ctx context.Context, name string, options store.KVOptions) (store.KV, error) {
	if e.isClosing() {
		return nil, store.ErrClosed
	}
	subject, window := e.options.Prefix+".table."+name+".", keyWindow
	if options.MaxAge > 0 {
		window = min(window, options.MaxAge)
	}
	stream, err := e.openStream(ctx, jetstream.StreamConfig{
		Name: e.streamName("TABLE", name), Subjects: []string{subject + ">"}, Description: "Linksgate " + name,
		MaxAge: options.MaxAge, MaxBytes: unlimited(options.MaxBytes), MaxMsgsPerSubject: 1, Duplicates: window,
		AllowMsgTTL: true,
	})
	if err != nil {
		return nil, err
	}
	kv := &KV{
		engine: e, stream: stream, subject: subject, options: options, grown: make(chan struct{}), since: time.Now(),
		keys:     btree.NewBTreeG(func(a, b known) bool { return a.key < b.key }),
		watchers: make(map[*watcher]struct{}),
	}
	following, end := context.WithCancel(context.Background())
	kv.end = end
	kv.following.Go(func() { e.follow(following, stream, kv.resume, true, kv.take) })
	e.add(kv)
	if err := kv.sync(ctx); err != nil {
		return nil, fmt.Errorf("read table %s: %w", name, err)
	}
	return kv, nil
}

// resume returns where to follow from. After too long a time deletions may be missing: everything is read anew.
func (kv *KV) resume() uint64 {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if time.Since(kv.since) > deletedFor/2 {
		kv.keys.Clear()
		kv.bytes, kv.last = 0, 0
	}
	return kv.last
}

// take takes note of a message.
func (kv *KV) take(message jetstream.Msg, meta *jetstream.MsgMetadata) {
	size := int64(len(message.Data()))
	if text := message.Headers().Get("Nats-Msg-Size"); text != "" { // headers only
		_, _ = fmt.Sscan(text, &size)
	}
	key := strings.TrimPrefix(message.Subject(), kv.subject)
	kv.note(known{key, meta.Sequence.Stream, meta.Timestamp, size + int64(len(key))}, message.Headers().Get(deletedHeader) != "")
	kv.mu.Lock()
	defer kv.mu.Unlock()
	kv.since = time.Now()
	// Messages that were replaced since are not delivered: behind this one, nothing is missing before it.
	if meta.Sequence.Stream > kv.last {
		kv.advance(meta.Sequence.Stream)
	}
}

// note takes note of a change of a key, unless a later one is known.
func (kv *KV) note(k known, deleted bool) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	before, there := kv.keys.Get(known{key: k.key})
	if there && before.revision >= k.revision {
		return
	}
	if there {
		kv.bytes -= before.size
	}
	if deleted {
		kv.keys.Delete(known{key: k.key})
	} else {
		kv.keys.Set(k)
		kv.bytes += k.size
	}
	for w := range kv.watchers {
		w.tell(store.Change{Key: k.key, Deleted: deleted})
	}
}

// advance notes up to where the keys are complete. The caller holds mu.
func (kv *KV) advance(to uint64) {
	kv.last = to
	close(kv.grown)
	kv.grown = make(chan struct{})
}

// sync waits until everything is known that was stored when it was called, and forgets what the bounds have removed.
func (kv *KV) sync(ctx context.Context) error {
	var state jetstream.StreamState
	err := kv.engine.try(ctx, func(ctx context.Context) error {
		info, err := kv.stream.Info(ctx)
		if err == nil {
			state = info.State
		}
		return err
	})
	if err != nil {
		return meaning(err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		kv.mu.Lock()
		grown, closed, complete := kv.grown, kv.closed, kv.last >= state.LastSeq || state.Msgs == 0
		if complete {
			kv.forget(state)
		}
		kv.mu.Unlock()
		switch {
		case complete:
			return nil
		case closed:
			return store.ErrClosed
		}
		// The last messages of the stream may be gone: a deletion that is over, a value that was removed by its age.
		select {
		case <-grown:
		case <-time.After(500 * time.Millisecond):
			if err := kv.passOver(ctx, state.LastSeq); err != nil {
				return err
			}
		case <-ctx.Done():
			return kv.engine.explain(ctx.Err())
		}
	}
}

// passOver looks whether the stream has anything behind what is known; if not, it is known up to a sequence.
func (kv *KV) passOver(ctx context.Context, to uint64) error {
	kv.mu.Lock()
	next := kv.last + 1
	kv.mu.Unlock()
	_, err := kv.stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(kv.subject+">"))
	if !errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil //nolint:nilerr // there is something, or it is asked again
	}
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if kv.last+1 == next && to > kv.last {
		kv.advance(to)
	}
	return nil
}

// forget forgets what is before the first message of the stream, or too old. The caller holds mu.
func (kv *KV) forget(state jetstream.StreamState) {
	oldest := time.Time{}
	if kv.options.MaxAge > 0 {
		oldest = time.Now().Add(-kv.options.MaxAge)
	}
	if kv.options.MaxAge == 0 && kv.options.MaxBytes == 0 {
		return
	}
	var gone []known
	kv.keys.Scan(func(k known) bool {
		if k.revision < state.FirstSeq || state.Msgs == 0 || k.time.Before(oldest) {
			gone = append(gone, k)
		}
		return true
	})
	for _, k := range gone {
		kv.keys.Delete(k)
		kv.bytes -= k.size
		kv.removed++
	}
}

// Get implements [store.KV].
func (kv *KV) Get(ctx context.Context, key string) (store.Value, error) {
	v, deleted, err := kv.get(ctx, key)
	if err == nil && deleted {
		err = store.ErrNotFound
	}
	return v, err
}

// get returns the last message of a key, which may be a deletion.
func (kv *KV) get(ctx context.Context, key string) (v store.Value, deleted bool, err error) {
	if err := checkKey(key); err != nil {
		return v, false, err
	}
	var message *jetstream.RawStreamMsg
	err = kv.engine.try(ctx, func(ctx context.Context) (err error) {
		message, err = kv.stream.GetLastMsgForSubject(ctx, kv.subject+key)
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return v, false, store.ErrNotFound
	case err != nil:
		return v, false, meaning(err)
	}
	v = store.Value{Key: key, Data: message.Data, Revision: message.Sequence, Time: message.Time}
	if v.Data == nil {
		v.Data = []byte{}
	}
	return v, message.Header.Get(deletedHeader) != "", nil
}

// Put implements [store.KV].
func (kv *KV) Put(ctx context.Context, key string, data []byte, revision uint64) (uint64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	if len(data) > min(store.MaxValue, kv.engine.MaxEntry()) {
		return 0, store.ErrTooLarge
	}
	stored, err := kv.publish(ctx, key, data, revision, nil)
	if !errors.Is(err, store.ErrConflict) || revision != store.Absent {
		return stored, err
	}
	// What is there may be a deletion.
	before, deleted, found := kv.get(ctx, key)
	switch {
	case errors.Is(found, store.ErrNotFound):
		return kv.publish(ctx, key, data, store.Absent, nil)
	case found != nil:
		return 0, found
	case !deleted:
		return 0, err
	}
	return kv.publish(ctx, key, data, before.Revision, nil)
}

// Delete implements [store.KV].
func (kv *KV) Delete(ctx context.Context, key string, revision uint64) error {
	for {
		before, deleted, err := kv.get(ctx, key)
		switch {
		case err != nil:
			return err
		case deleted:
			return store.ErrNotFound
		case revision != store.Any && before.Revision != revision:
			return store.ErrConflict
		}
		_, err = kv.publish(ctx, key, nil, before.Revision, nats.Header{
			deletedHeader: {"1"}, "Nats-TTL": {deletedFor.String()},
		})
		if !errors.Is(err, store.ErrConflict) || revision != store.Any {
			return err
		}
	}
}

// publish stores the message of a key, once, if the last one is the expected one.
func (kv *KV) publish(ctx context.Context, key string, data []byte, revision uint64, header nats.Header) (uint64, error) {
	if kv.engine.isClosing() {
		return 0, store.ErrClosed
	}
	if header == nil {
		header = make(nats.Header)
	}
	id := nuid.Next()
	header.Set(idHeader, id)
	header.Set(jetstream.MsgIDHeader, id)
	message := &nats.Msg{Subject: kv.subject + key, Data: data, Header: header}
	options := []jetstream.PublishOpt{jetstream.WithRetryAttempts(0)}
	if revision != store.Any {
		options = append(options, jetstream.WithExpectLastSequencePerSubject(revision))
	}
	var stored uint64
	tries := 0
	err := kv.engine.try(ctx, func(ctx context.Context) error {
		tries++
		ack, err := kv.engine.js.PublishMsg(ctx, message, options...)
		if err == nil {
			stored = ack.Sequence
			return nil
		}
		if !isWrongSequence(err) || tries == 1 {
			return err
		}
		last, found := kv.stream.GetLastMsgForSubject(ctx, message.Subject) // perhaps an earlier try was stored
		if found == nil && last.Header.Get(idHeader) == id {
			stored = last.Sequence
			return nil
		}
		if found != nil && !errors.Is(found, jetstream.ErrMsgNotFound) {
			return found
		}
		return err
	})
	switch {
	case isWrongSequence(err):
		return 0, store.ErrConflict
	case err != nil:
		return 0, meaning(err)
	}
	kv.note(known{key, stored, time.Now(), int64(len(data) + len(key))}, header.Get(deletedHeader) != "")
	return stored, nil
}

// List implements [store.KV].
func (kv *KV) List(ctx context.Context, prefix, after string, keysOnly bool) iter.Seq2[store.Value, error] {
	return func(yield func(store.Value, error) bool) {
		if err := kv.sync(ctx); err != nil {
			yield(store.Value{}, err)
			return
		}
		var keys []known
		kv.mu.Lock()
		kv.keys.Ascend(known{key: max(prefix, after)}, func(k known) bool {
			if k.key > after || after == "" {
				if !strings.HasPrefix(k.key, prefix) {
					return k.key < prefix
				}
				keys = append(keys, k)
			}
			return true
		})
		kv.mu.Unlock()
		for _, k := range keys {
			v := store.Value{Key: k.key, Revision: k.revision, Time: k.time}
			if !keysOnly {
				var err error
				v, err = kv.Get(ctx, k.key)
				switch {
				case errors.Is(err, store.ErrNotFound):
					continue
				case err != nil:
					yield(store.Value{}, err)
					return
				}
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// watcher gathers changes until they are taken.
type watcher struct {
	prefix string
	wake   chan struct{} // buffered

	mu      sync.Mutex
	changes []store.Change // mu
}

func (w *watcher) tell(c store.Change) {
	if !strings.HasPrefix(c.Key, w.prefix) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes = append(slices.DeleteFunc(w.changes, func(other store.Change) bool { return other.Key == c.Key }), c)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Watch implements [store.KV].
func (kv *KV) Watch(ctx context.Context, prefix string) (iter.Seq2[store.Change, error], error) {
	w := &watcher{prefix: prefix, wake: make(chan struct{}, 1)}
	if err := kv.sync(ctx); err != nil {
		return nil, err
	}
	kv.mu.Lock()
	kv.watchers[w] = struct{}{}
	kv.mu.Unlock()
	return func(yield func(store.Change, error) bool) {
		defer func() {
			kv.mu.Lock()
			defer kv.mu.Unlock()
			delete(kv.watchers, w)
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-kv.engine.closing:
				yield(store.Change{}, store.ErrClosed)
				return
			case <-w.wake:
			}
			w.mu.Lock()
			changes := w.changes
			w.changes = nil
			w.mu.Unlock()
			for _, c := range changes {
				if !yield(c, nil) {
					return
				}
			}
		}
	}, nil
}

// Info implements [store.KV].
func (kv *KV) Info(ctx context.Context) (store.KVInfo, error) {
	if err := kv.sync(ctx); err != nil {
		return store.KVInfo{}, err
	}
	kv.mu.Lock()
	info := store.KVInfo{Keys: kv.keys.Len(), Bytes: kv.bytes, Removed: kv.removed}
	kv.keys.Scan(func(k known) bool {
		if info.Oldest.IsZero() || k.time.Before(info.Oldest) {
			info.Oldest = k.time
		}
		return true
	})
	kv.mu.Unlock()
	err := kv.engine.try(ctx, func(ctx context.Context) error {
		state, err := kv.stream.Info(ctx)
		if err == nil {
			info.Disk = int64(state.State.Bytes)
		}
		return err
	})
	return info, meaning(err)
}

// SetOptions implements [store.KV], for all gateways.
func (kv *KV) SetOptions(options store.KVOptions) error {
	if err := kv.engine.update(kv.stream, options.MaxAge, options.MaxBytes); err != nil {
		return err
	}
	kv.mu.Lock()
	defer kv.mu.Unlock()
	kv.options = options
	return nil
}

func (kv *KV) stop() {
	kv.end()
	kv.following.Wait()
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if !kv.closed {
		kv.closed = true
		close(kv.grown)
	}
}

// checkKey reports why a key cannot be one; see [store.KV].
func checkKey(key string) error {
	switch {
	case len(key) > store.MaxKey:
		return store.ErrTooLarge
	case key == "", key[0] == '.', key[len(key)-1] == '.', strings.Contains(key, ".."):
		return fmt.Errorf("%q is not a key", key)
	}
	if i := strings.IndexFunc(key, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_=./", c)
	}); i >= 0 {
		return fmt.Errorf("%q is not a key", key)
	}
	return nil
}
