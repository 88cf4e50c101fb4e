package eventlog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// stoppedFile tells how the directory was left, if the log was closed in order.
const stoppedFile = "stopped.json"

// stopped is what a stop in order knows and what files cannot tell by themselves. It is true until the engine opens them.
type stopped struct {
	// InOrder says that the log was closed: the engine's indexes are of that time.
	InOrder bool `json:"in_order,omitempty"`
	// Places of groups, in the log and in what is parked; without InOrder, those that are damaged and not made anew.
	Places []groupPlace `json:"places,omitempty"`
}

// groupPlace is where a group was in a stream. What the engine keeps of that has no checksum: a byte that was flipped there would make a
// group leave out what it has not seen.
type groupPlace struct {
	// Stream and Consumer of the engine.
	Stream   string `json:"stream"`
	Consumer string `json:"consumer"`
	// Settled is a stream sequence: all up to it was settled.
	Settled uint64 `json:"settled"`
	// Sum of the engine's file, in hexadecimal; empty if the file was damaged, and the place has not been made anew.
	Sum string `json:"sum,omitempty"`
}

// statePath is the engine's file of a place.
func (p groupPlace) statePath(dir string) string {
	return filepath.Join(dir, streamsDir, p.Stream, consumersDir, p.Consumer, consumerStateFile)
}

// sum returns the checksum of the engine's file of a place; empty if there is none.
func (p groupPlace) sum(dir string) (string, error) {
	data, err := os.ReadFile(p.statePath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// readStopped returns what a directory tells of its stop; nothing if it does not, as after a crash, or cannot be understood.
func readStopped(dir string) stopped {
	var found stopped
	if data, err := os.ReadFile(filepath.Join(dir, stoppedFile)); err != nil || unmarshalSummed(data, &found) != nil {
		return stopped{}
	}
	return found
}

// damagedPlaces returns those of the known places whose file is not as it was, and those of which nothing is known and that cannot be.
func damagedPlaces(dir string, known []groupPlace) (damaged []groupPlace, err error) {
	for _, p := range known {
		sum, err := p.sum(dir)
		if err != nil {
			return nil, err
		}
		if sum != p.Sum || p.Sum == "" {
			damaged = append(damaged, p)
		}
	}
	for _, stream := range []string{streamName, parkedStream} {
		entries, err := os.ReadDir(filepath.Join(dir, streamsDir, stream, consumersDir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			p := groupPlace{Stream: stream, Consumer: entry.Name()}
			data, err := os.ReadFile(p.statePath(dir))
			isKnown := slices.ContainsFunc(known, func(k groupPlace) bool { return k.Stream == stream && k.Consumer == p.Consumer })
			if err == nil && !isKnown && !canBePlace(data) {
				damaged = append(damaged, p)
			}
		}
	}
	return damaged, nil
}

// canBePlace reports whether what the engine keeps of a consumer has the form that it should have: the engine would make room for whatever
// number it finds there. Two bytes (a mark and a version) come first, then varints: for what was settled and for what was delivered one of
// the consumer's own count and a stream sequence, then messages that are out, and those that were delivered again.
func canBePlace(data []byte) bool {
	const mark, version = 22, 2
	if len(data) == 0 {
		return true // nothing was delivered yet
	}
	if len(data) < 2 || data[0] != mark || data[1] != version {
		return false
	}
	r := indexReader{data: data[2:]}
	r.skip(4)
	if out := r.next(); out > 0 {
		r.skip(1) // a time
		r.skip(int(3 * min(out, uint64(len(data)))))
	}
	r.skip(int(2 * min(r.next(), uint64(len(data)))))
	return r.err == nil && len(r.data) == 0
}

// settlePlaces looks at the places before the engine does. It removes those that are damaged, and returns them: they are made anew
// where they were, as far as all was settled. Until then the directory tells of them, and of nothing else any more: it would not be true.
func settlePlaces(dir string, known []groupPlace, logger *slog.Logger) ([]groupPlace, error) {
	damaged, err := damagedPlaces(dir, known)
	if err != nil {
		return nil, err
	}
	for i := range damaged {
		p := &damaged[i]
		logger.Error("a group's place in the log is damaged: it is made anew, and what had been settled behind that is repeated",
			"stream", p.Stream, "consumer", p.Consumer, "settled_through", p.Settled)
		p.Sum = ""
	}
	if err := writeStopped(dir, stopped{Places: damaged}); err != nil {
		return nil, err
	}
	for _, p := range damaged {
		consumer := filepath.Dir(p.statePath(dir))
		if err := os.RemoveAll(consumer); err != nil {
			return nil, err
		}
		if err := syncDir(filepath.Dir(consumer)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return damaged, nil
}

// writeStopped makes a directory tell of a stop, durably; of nothing, if there is nothing to tell.
func writeStopped(dir string, s stopped) error {
	path := filepath.Join(dir, stoppedFile)
	if len(s.Places) == 0 && !s.InOrder {
		if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		return syncDir(dir)
	}
	data, err := marshalSummed(s)
	if err != nil {
		return err
	}
	return writeWhole(path, data)
}

// places returns where the groups are.
func (g *Groups) places(ctx context.Context) (places []groupPlace, err error) {
	for _, source := range sources {
		stream := g.stream(source)
		lister := stream.ListConsumers(ctx)
		for info := range lister.Info() {
			if info.Config.Durable != "" {
				places = append(places, groupPlace{Stream: info.Stream, Consumer: info.Name, Settled: info.AckFloor.Stream})
			}
		}
		if err := lister.Err(); err != nil {
			return nil, fmt.Errorf("look for the places of groups: %w", err)
		}
	}
	return places, nil
}

// noteStop notes a stop in order, once the engine is closed and has written its files.
func noteStop(dir string, places []groupPlace) error {
	for i := range places {
		var err error
		if places[i].Sum, err = places[i].sum(dir); err != nil {
			return err
		}
	}
	places = slices.DeleteFunc(places, func(p groupPlace) bool { return p.Sum == "" }) // nothing was delivered yet
	return writeStopped(dir, stopped{InOrder: true, Places: places})
}

// marshalSummed returns a value as JSON, and a checksum in a second line.
func marshalSummed(value any) ([]byte, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	return fmt.Appendf(data, "\n%x\n", sum), nil
}

var errSum = errors.New("does not match its checksum")

// unmarshalSummed reads what marshalSummed returned. What earlier versions wrote has no checksum.
func unmarshalSummed(data []byte, value any) error {
	text, sum, found := bytes.Cut(data, []byte("\n"))
	if want := sha256.Sum256(text); found && string(bytes.TrimSpace(sum)) != hex.EncodeToString(want[:]) {
		return errSum
	}
	return json.Unmarshal(text, value)
}

// resume makes a consumer that has lost its place begin where that was, as far as it is known.
func (e *engine) resume(stream string, config *jetstream.ConsumerConfig) {
	i := slices.IndexFunc(e.lostPlaces, func(p groupPlace) bool { return p.Stream == stream && p.Consumer == config.Durable })
	if i >= 0 && e.lostPlaces[i].Settled >= config.OptStartSeq {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, e.lostPlaces[i].Settled+1
	}
}

// remakePlaces makes the places anew that were lost. Until then the directory tells of them.
func (g *Groups) remakePlaces(ctx context.Context) error {
	lost := g.log.engine.lostPlaces
	if len(lost) == 0 {
		return nil
	}
	records, err := g.List(ctx)
	if err != nil {
		return err
	}
	for _, record := range records {
		if !slices.ContainsFunc(lost, func(p groupPlace) bool { return p.Consumer == consumerName(record) }) {
			continue
		}
		for _, source := range sources {
			if _, err := g.ensure(ctx, record, source); err != nil {
				return err
			}
		}
	}
	return writeStopped(g.log.engine.dir, stopped{})
}
