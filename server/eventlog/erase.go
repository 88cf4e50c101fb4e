package eventlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/linksgate/linksgate/server/iccid"
	"github.com/linksgate/linksgate/server/store"
)

// Erased counts what an erasure concerns.
type Erased struct {
	// Notifications of the log, entries of the quarantine, and notifications that groups have parked or were given again.
	Notifications, Quarantined, Parked uint64
}

var (
	// ErrBadICCID says that a text cannot be an ICCID.
	ErrBadICCID = errors.New("not an ICCID")
)

// erasures are the SIMs that are being erased. Until a SIM's notifications are replaced in every file, they are left out wherever a record
// batch is unpacked.
type erasures struct {
	table  store.KV      // set before the log is used
	signal chan struct{} // buffered; there is something to do
	count  atomic.Int32  // of pending

	mu      sync.RWMutex
	pending map[string]uint64 // mu; by ICCID: the last record batch that is concerned
}

// apply leaves out of a batch what is being erased.
func (e *erasures) apply(b *batch) {
	if e.count.Load() == 0 || b.damaged {
		return
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	for i := range b.records {
		r := &b.records[i]
		for iccid := range r.ICCIDs() {
			if through, ok := e.pending[string(iccid)]; ok && b.stream <= through && !r.erased {
				r.erased = true
				b.erased++
			}
		}
	}
}

func (e *erasures) set(iccid string, through uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending[iccid] = max(e.pending[iccid], through)
	e.count.Store(int32(len(e.pending)))
}

// openErasures opens what is to be erased.
func (l *Log) openErasures(ctx context.Context) error {
	kv, err := l.engine.OpenKV(ctx, "erasures", store.KVOptions{})
	if err != nil {
		return err
	}
	e := &l.erasures
	e.table, e.signal, e.pending = kv, make(chan struct{}, 1), make(map[string]uint64)
	for value, err := range kv.List(ctx, "", "", false) {
		switch {
		case errors.Is(err, store.ErrCorrupt) || err == nil && len(value.Data) != 8:
			e.set(value.Key, l.tail.headInfo().position.Stream) // rather too much
		case err != nil:
			return err
		default:
			e.set(value.Key, binary.BigEndian.Uint64(value.Data))
		}
	}
	if len(e.pending) > 0 {
		e.signal <- struct{}{}
		l.tail.forget()
	}
	return nil
}

// followErasures applies what other gateways erase, until ctx ends.
func (l *Log) followErasures(ctx context.Context, changes iter.Seq2[store.Change, error]) {
	for change, err := range changes {
		if err != nil {
			return // the log is closed
		}
		if change.Deleted {
			continue
		}
		through := l.tail.headInfo().position.Stream // rather too much, if it cannot be read
		if value, err := l.erasures.table.Get(ctx, change.Key); err == nil && len(value.Data) == 8 {
			through = binary.BigEndian.Uint64(value.Data)
		}
		l.erasures.set(change.Key, through)
		l.tail.forget()
	}
}

// Erase removes every notification of a SIM that is stored by now, from the log, the quarantine and what groups have parked. When it
// returns nil they cannot be read any more, and that is durable; they are replaced in all files within minutes, also after a crash; in a log
// that gateways share, they cannot be read at any of them, and their bytes go with the retention.
// Readers are told of a gap of ErrErased. What the quarantine has is found by its bytes. With dryRun nothing is removed.
//
// What members of groups have in hand at the moment, they keep. Copies of the directory are not reached.
//
// Errors: ErrBadICCID, ErrUnavailable, ErrClosed.
func (l *Log) Erase(ctx context.Context, sim string, dryRun bool) (Erased, error) {
	var erased Erased
	sim = iccid.Normal(sim)
	if !iccid.IsPossible(sim) {
		return erased, fmt.Errorf("%w: %.40q", ErrBadICCID, sim)
	}
	through := l.tail.headInfo().position.Stream
	if err := l.findSIM(ctx, sim, through, func(_ uint64, count int) { erased.Notifications += uint64(count) }); err != nil {
		return erased, err
	}
	if !dryRun {
		if _, err := l.erasures.table.Put(ctx, sim, binary.BigEndian.AppendUint64(nil, through), store.Any); err != nil {
			return erased, l.storeError(err)
		}
		l.erasures.set(sim, through)
		l.tail.forget()
	}
	var err error
	if erased.Quarantined, err = l.eraseFrom(ctx, l.quarantine.kv, sim, entryPrefix, dryRun); err != nil {
		return erased, err
	}
	if erased.Parked, err = l.eraseFrom(ctx, l.groups.parked, sim, "", dryRun); err != nil {
		return erased, err
	}
	if !dryRun {
		select {
		case l.erasures.signal <- struct{}{}:
		default:
		}
	}
	return erased, nil
}

// eraseFrom removes the values of a table that have an ICCID in them.
func (l *Log) eraseFrom(ctx context.Context, kv store.KV, iccid, prefix string, dryRun bool) (count uint64, err error) {
	for value, err := range kv.List(ctx, prefix, "", false) {
		if errors.Is(err, store.ErrCorrupt) || err == nil && !bytes.Contains(value.Data, []byte(iccid)) {
			continue
		}
		if err == nil && !dryRun {
			err = kv.Delete(ctx, value.Key, store.Any)
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return count, l.storeError(err)
		}
		count++
	}
	return count, nil
}

// findSIM shows the record batches up to one that have notifications of a SIM, and how many.
func (l *Log) findSIM(ctx context.Context, iccid string, through uint64, found func(stream uint64, count int)) error {
	for item, err := range l.store.Read(ctx, 0) {
		if err != nil {
			return l.readError(ctx, err)
		}
		if item.Sequence > through {
			break
		}
		if item.Gap.Count > 0 || !bytes.Contains(item.Data, []byte(iccid)) {
			continue
		}
		b, count := unpack(l.id, item.Epoch, item.Sequence, item.Time, item.Data), 0
		for i := range b.records {
			if b.records[i].has(iccid) {
				count++
			}
		}
		if count > 0 {
			found(item.Sequence, count)
		}
	}
	return nil
}

// has reports whether a record is about a SIM.
func (r *Record) has(iccid string) bool {
	for one := range r.ICCIDs() {
		if string(one) == iccid {
			return true
		}
	}
	return false
}

// runErasures replaces in the files what is being erased, until ctx ends.
func (l *Log) runErasures(ctx context.Context) {
	const retry = time.Minute
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.erasures.signal:
		}
		if err := l.eraseAll(ctx); err != nil && ctx.Err() == nil {
			l.options.Logger.Error("erasure not completed", "error", err)
			time.AfterFunc(retry, func() {
				select {
				case l.erasures.signal <- struct{}{}:
				default:
				}
			})
		}
	}
}

// eraseAll completes every erasure. A crash anywhere leaves the table to say what is still to be done.
func (l *Log) eraseAll(ctx context.Context) error {
	l.erasures.mu.RLock()
	pending := make(map[string]uint64, len(l.erasures.pending))
	for iccid, through := range l.erasures.pending {
		pending[iccid] = through
	}
	l.erasures.mu.RUnlock()
	rewriter, ok := l.store.(store.Rewriter)
	if !ok || len(pending) == 0 {
		return nil
	}
	for iccid, through := range pending {
		var streams []uint64
		if err := l.findSIM(ctx, iccid, through, func(stream uint64, _ int) { streams = append(streams, stream) }); err != nil {
			return err
		}
		if err := rewriter.Rewrite(ctx, streams, func(stream uint64, data []byte) ([]byte, error) {
			return withoutSIM(unpack(l.id, 0, stream, time.Time{}, data), data, iccid), nil
		}); err != nil {
			return err
		}
	}
	for _, kv := range []store.KV{l.quarantine.kv, l.groups.parked} {
		if compactor, ok := kv.(store.Compactor); ok {
			if err := compactor.Compact(ctx); err != nil {
				return err
			}
		}
	}
	return l.completeErasures(ctx, pending)
}

// completeErasures forgets erasures that are complete, and what has named their SIMs.
func (l *Log) completeErasures(ctx context.Context, done map[string]uint64) error {
	for iccid, through := range done {
		l.erasures.mu.Lock()
		if l.erasures.pending[iccid] == through {
			delete(l.erasures.pending, iccid)
			l.erasures.count.Store(int32(len(l.erasures.pending)))
		}
		_, again := l.erasures.pending[iccid]
		l.erasures.mu.Unlock()
		if again {
			continue
		}
		if err := l.erasures.table.Delete(ctx, iccid, store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if compactor, ok := l.erasures.table.(store.Compactor); ok {
		return compactor.Compact(ctx)
	}
	return nil
}

// withoutSIM returns a stored record batch with an empty element for each notification of a SIM: the others keep their positions.
func withoutSIM(b *batch, data []byte, iccid string) []byte {
	if b.damaged {
		return data
	}
	left := make([]byte, 0, len(data))
	for i := range b.records {
		_, _, n := protowire.ConsumeTag(data)
		stored, m := protowire.ConsumeBytes(data[n:])
		data = data[n+m:]
		if b.records[i].has(iccid) {
			stored = nil
		}
		left = appendFramed(left, stored)
	}
	return left
}

// forget empties the window: readers unpack anew.
func (t *tail) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.window, t.bytes = nil, 0
}
