package eventlog

import (
	"context"
	"fmt"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/dedup"
	"github.com/linksgate/linksgate/server/store"
)

// rebuildBatches is how many record batches are read at a time to know their keys, from the newest back to older ones.
const rebuildBatches = 1024

// openDuplicates makes the index of duplicates, from its files and from what they leave to be read of the log up to where the tail begins.
// The tail, which the writer and other gateways feed, keeps it current. Two copies that reach two gateways at the same moment are both
// stored.
func (l *Log) openDuplicates(ctx context.Context, info store.Info) error {
	if l.options.DuplicateWindow == 0 {
		return nil
	}
	if l.options.IndexDir == "" {
		l.duplicates = dedup.New(l.options.DuplicateWindow)
	} else {
		var err error
		l.duplicates, err = dedup.Open(l.options.IndexDir, l.store.ID(), l.options.DuplicateWindow, func(batch uint64) (uint32, bool) {
			epoch, known := l.epochs.at(batch)
			return epoch, known && batch < info.Next
		})
		if err != nil {
			return err
		}
	}
	from, err := l.store.Find(ctx, time.Now().Add(-l.options.DuplicateWindow))
	if err != nil {
		return err
	}
	until := l.tail.headInfo().position.Stream
	missing := l.duplicates.Missing(from, until)
	for len(missing) > 0 && !l.duplicates.Full() {
		newest := &missing[len(missing)-1]
		part := dedup.Range{First: max(newest.First, newest.Last-min(newest.Last, rebuildBatches-1)), Last: newest.Last}
		if err := l.learnRange(ctx, part); err != nil {
			return err
		}
		if newest.Last = part.First - 1; part.First == newest.First {
			missing = missing[:len(missing)-1]
		}
	}
	l.duplicates.Complete()
	return nil
}

// learnRange learns the keys of some record batches from the log.
func (l *Log) learnRange(ctx context.Context, r dedup.Range) error {
	for item, err := range l.store.Read(ctx, r.First) {
		if err != nil {
			return err
		}
		if item.Gap.Count == 0 {
			l.learnKeys(unpack(l.id, item.Epoch, item.Sequence, item.Time, item.Data))
		}
		if item.Sequence >= r.Last {
			break
		}
	}
	return nil
}

// learnKeys lets the index of duplicates know of a batch.
func (l *Log) learnKeys(b *batch) {
	if l.duplicates == nil {
		return
	}
	var keys []dedup.Stored
	for i := range b.records {
		r := &b.records[i]
		if key, ok := dedup.KeyOf(r.account, int32(r.kind), r.duplicateKey); ok {
			keys = append(keys, dedup.Stored{Key: key, Sequence: r.Position.Sequence()})
		}
	}
	if err := l.duplicates.Learn(b.stream, b.epoch, b.written, keys); err != nil {
		l.options.Logger.Warn("keys not written: the next start reads them from the log", "error", err)
	}
}

// keyOf returns the key of a notification; false if copies of it are not looked for.
func (l *Log) keyOf(n *linksgatev1.Notification) (dedup.Key, bool) {
	if l.duplicates == nil {
		return dedup.Key{}, false
	}
	return dedup.KeyOf([]byte(n.GetAccount()), int32(n.GetKind()), n.GetDuplicateKey())
}

// once writes what has a key, unless a copy is stored already or being written.
func (l *Log) once(ctx context.Context, key dedup.Key, write func() (Position, error)) (Position, bool, error) {
	sequence, copied, err := l.duplicates.Once(ctx, key, func() (uint64, error) {
		position, err := write()
		return position.Sequence(), err
	})
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return PositionOf(sequence), copied, err
}
