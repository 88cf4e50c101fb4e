package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	markFile = "mark.json"
	// reserveStep is how many sequences are reserved at once.
	reserveStep = 4096
	// reserveMargin is more than may be stored between two looks.
	reserveMargin = 64
	// fillAtOnce is how many places are filled without waiting: the client library stalls at 4000.
	fillAtOnce = 1000
	// confirmInterval is how often what was stored is confirmed while the log is written.
	confirmInterval = time.Second
)

// mark is what an embedded log remembers of itself beside the engine. The engine takes a stream whose end is damaged or gone for a
// shorter one, and would give out the same sequences again: tokens that clients hold would lead astray, and the loss would show
// nowhere. The mark tells that something is missing, and where to go on.
type mark struct {
	// LogID of the log.
	LogID string `json:"log_id"`
	// Confirmed is a stream sequence that was stored. Some more may have been, up to Reserved.
	Confirmed uint64 `json:"confirmed"`
	// Reserved is a bound: no greater stream sequence was ever given out.
	Reserved uint64 `json:"reserved"`
	// Quarantined, Grouped and Parked are sequences of the other streams that were stored. More may have been.
	Quarantined uint64 `json:"quarantined,omitempty"`
	Grouped     uint64 `json:"grouped,omitempty"`
	Parked      uint64 `json:"parked,omitempty"`
	// Lost is a bound, too: of what is not there up to this stream sequence, some was lost rather than deleted by its age or size. 0:
	// nothing was.
	Lost uint64 `json:"lost,omitempty"`
}

// confirmed returns a sequence of a stream that was stored: what follows it may be an interrupted write.
func (m mark) confirmed(stream string) uint64 {
	switch stream {
	case streamName:
		return m.Confirmed
	case quarantineStream:
		return m.Quarantined
	case groupsStream:
		return m.Grouped
	default:
		return m.Parked
	}
}

// marker keeps the mark of a directory.
type marker struct {
	dir    string
	logger *slog.Logger
	found  bool                       // there was a mark when the log was opened
	last   func(stream string) uint64 // the last sequence of another stream that is known to be stored

	mu   sync.Mutex
	mark mark // mu; as it is on disk
}

// readMark reads the mark of a directory.
func readMark(dir string) (m mark, found bool, err error) {
	data, err := os.ReadFile(filepath.Join(dir, markFile))
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, false, nil
	}
	if err == nil {
		err = unmarshalSummed(data, &m)
	}
	if err == nil {
		_, err = parseLogID(m.LogID)
	}
	if err != nil {
		return mark{}, false, fmt.Errorf("read the mark of the log: %w", err)
	}
	return m, true, nil
}

// openMarker reads the mark. One that cannot be read is written anew: it protects against what did not happen at the same time.
func openMarker(dir string, logger *slog.Logger) *marker {
	m := &marker{dir: dir, logger: logger, last: func(string) uint64 { return 0 }}
	var err error
	if m.mark, m.found, err = readMark(dir); err != nil {
		logger.Error("the mark of the log is damaged and will be written anew", "error", err)
	}
	return m
}

// save makes a mark durable, whole or not at all. The caller holds mu.
func (m *marker) save(next mark) error {
	next.Quarantined, next.Grouped, next.Parked = max(next.Quarantined, m.last(quarantineStream)), max(next.Grouped, m.last(groupsStream)), max(next.Parked, m.last(parkedStream))
	if next == m.mark {
		return nil
	}
	data, err := marshalSummed(next)
	if err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(m.dir, markFile), data); err != nil {
		return fmt.Errorf("write the mark of the log (make room, or make %s writable): %w", m.dir, err)
	}
	m.mark = next
	return nil
}

// reserve returns nil only if the sequences that follow on what is stored are reserved. Nil is a marker that does nothing.
func (m *marker) reserve(stored uint64) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if stored+reserveMargin <= m.mark.Reserved {
		return nil
	}
	next := m.mark
	next.Confirmed, next.Reserved = stored, stored+reserveStep
	return m.save(next)
}

// confirm notes what is stored.
func (m *marker) confirm(stored uint64) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.mark
	next.Confirmed, next.Reserved = stored, max(m.mark.Reserved, stored)
	return m.save(next)
}

// settle notes what is stored when nothing more will be: what was reserved beyond that was not given out.
func (m *marker) settle(stored uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.mark
	next.Confirmed, next.Reserved = stored, stored
	return m.save(next)
}

// lose notes that all up to a sequence is lost, before the log goes on behind it.
func (m *marker) lose(last uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.mark
	next.Lost = last
	return m.save(next)
}

// lost reports whether a sequence that is not retained was lost rather than deleted. Nil is a marker that does not know.
func (m *marker) lost(stream uint64) bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return stream <= m.mark.Lost
}

// run confirms what is stored, as long as the log is open.
func (m *marker) run(ctx context.Context, stored func() uint64) {
	ticker := time.NewTicker(confirmInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := m.confirm(stored()); err != nil {
				m.logger.Warn("what is stored could not be confirmed", "error", err)
			}
		}
	}
}

// openStream opens the log's stream, and mends what the mark says is missing: the log keeps its id, and goes on after every sequence
// that may have been given out. Readers find the missing ones as a gap.
func (m *marker) openStream(ctx context.Context, e *engine, config jetstream.StreamConfig) (jetstream.Stream, logID, error) {
	if m.found {
		config.Metadata = map[string]string{logIDKey: m.mark.LogID}
		if err := m.restoreSettings(ctx, e, &config); err != nil {
			return nil, logID{}, err
		}
	}
	stream, id, err := openWithID(ctx, e.js, config)
	if err != nil {
		return nil, logID{}, err
	}
	if m.found && id.String() == m.mark.LogID {
		if stream, err = m.restoreEnd(ctx, e, stream); err != nil {
			return nil, logID{}, err
		}
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return nil, logID{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := mark{LogID: id.String(), Confirmed: info.State.LastSeq, Reserved: info.State.LastSeq + reserveStep}
	if id.String() == m.mark.LogID {
		next.Lost = m.mark.Lost
	}
	// What the engine has is what there is: the others are not restored.
	for stream, at := range map[string]*uint64{quarantineStream: &next.Quarantined, groupsStream: &next.Grouped, parkedStream: &next.Parked} {
		switch other, err := e.js.Stream(ctx, stream); {
		case err == nil:
			*at = other.CachedInfo().State.LastSeq
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return nil, logID{}, err
		}
	}
	return stream, id, m.save(next)
}

// restoreSettings makes room for new settings of a stream that the engine does not find. Where there are records, it takes them up;
// where there are none, the new stream begins after all that was.
func (m *marker) restoreSettings(ctx context.Context, e *engine, config *jetstream.StreamConfig) error {
	_, err := e.js.Stream(ctx, streamName)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	m.logger.Error("the settings of the log are missing or damaged: they are made anew, the log keeps its id", "log_id", m.mark.LogID)
	dir := filepath.Join(m.dir, streamsDir, streamName)
	for _, name := range []string{settingsFile, settingsSumFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the damaged settings of the log: %w", err)
		}
	}
	blocks, err := blocksOf(m.dir, streamName)
	if err != nil || len(blocks) > 0 {
		return err
	}
	if m.mark.Confirmed > 0 {
		m.logger.Error("all of the log is gone: it goes on behind what it had given out, and readers are told of damage",
			"confirmed", m.mark.Confirmed, "going_on_after", m.mark.Reserved)
	}
	config.FirstSeq = m.mark.Reserved + 1
	return m.lose(m.mark.Reserved)
}

// restoreEnd makes a stream that has lost its end go on after every sequence that may have been given out.
func (m *marker) restoreEnd(ctx context.Context, e *engine, stream jetstream.Stream) (jetstream.Stream, error) {
	info, err := stream.Info(ctx)
	if err != nil {
		return nil, err
	}
	last := info.State.LastSeq
	if last >= m.mark.Confirmed && !e.cut {
		return stream, nil
	}
	m.logger.Error("the log has lost its end: record batches are missing; readers will be told of a gap",
		"last_stream_sequence", last, "confirmed", m.mark.Confirmed, "going_on_after", m.mark.Reserved)
	if info.State.Msgs == 0 {
		config := info.Config
		config.FirstSeq = m.mark.Reserved + 1
		if err := m.lose(m.mark.Reserved); err != nil {
			return nil, err
		}
		if err := e.js.DeleteStream(ctx, streamName); err != nil {
			return nil, fmt.Errorf("remove the empty log: %w", err)
		}
		return e.js.CreateStream(ctx, config)
	}
	// A crash in the middle must not leave a log that seems to have its end.
	if err := m.confirm(m.mark.Reserved); err != nil {
		return nil, err
	}
	// An empty message is no record batch: it is read as damaged.
	for last < m.mark.Reserved {
		for range min(m.mark.Reserved-last, fillAtOnce) {
			if _, err := e.js.PublishMsgAsync(&nats.Msg{Subject: subject}); err != nil {
				return nil, fmt.Errorf("fill the place of the missing end: %w", err)
			}
			last++
		}
		select {
		case <-e.js.PublishAsyncComplete():
		case <-ctx.Done():
			return nil, fmt.Errorf("fill the place of the missing end: %w", context.Cause(ctx))
		}
	}
	if info, err = stream.Info(ctx); err == nil && info.State.LastSeq < m.mark.Reserved {
		err = fmt.Errorf("fill the place of the missing end: reached only %d of %d", info.State.LastSeq, m.mark.Reserved)
	}
	return stream, err
}
