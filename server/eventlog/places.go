package eventlog

import (
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

// placesFile tells of the groups' places, as they were when the gateway was stopped.
const placesFile = "places.json"

// groupPlace is where a group is in a stream, as it was when the gateway was stopped. What the engine keeps of that has no checksum: a byte
// that was flipped there would make a group leave out what it has not seen.
type groupPlace struct {
	// Stream and Consumer of the engine.
	Stream, Consumer string
	// Settled is a stream sequence: all up to it was settled.
	Settled uint64
	// Sum of the engine's file, in hexadecimal; empty if the file was damaged, and the place has not been made anew.
	Sum string `json:",omitempty"`
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

// readPlaces returns the places of which a directory tells; none if it does not, as after a crash, or cannot be understood.
func readPlaces(dir string) []groupPlace {
	data, err := os.ReadFile(filepath.Join(dir, placesFile))
	if err != nil {
		return nil
	}
	var places []groupPlace
	if json.Unmarshal(data, &places) != nil {
		return nil
	}
	return places
}

// damagedPlaces returns those places whose file is not as it was.
func damagedPlaces(dir string) (damaged []groupPlace, err error) {
	for _, p := range readPlaces(dir) {
		sum, err := p.sum(dir)
		if err != nil {
			return nil, err
		}
		if sum != p.Sum || p.Sum == "" {
			damaged = append(damaged, p)
		}
	}
	return damaged, nil
}

// settlePlaces looks at the places before the engine does. It removes those that are damaged, and returns them: they are made anew
// where they were, as far as all was settled. From here on the file tells of these alone, for it would not be true of the others any more.
func settlePlaces(dir string, logger *slog.Logger) ([]groupPlace, error) {
	damaged, err := damagedPlaces(dir)
	if err != nil {
		return nil, err
	}
	for i := range damaged {
		p := &damaged[i]
		logger.Error("a group's place in the log is damaged: it is made anew, and what had been settled out of turn is repeated",
			"stream", p.Stream, "consumer", p.Consumer, "settled_through", p.Settled)
		p.Sum = ""
	}
	if err := writePlaces(dir, damaged); err != nil {
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

// writePlaces makes a directory tell of places, durably.
func writePlaces(dir string, places []groupPlace) error {
	path := filepath.Join(dir, placesFile)
	if len(places) == 0 {
		if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		return syncDir(dir)
	}
	data, err := json.Marshal(places)
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

// savePlaces stores where groups are, once the engine is closed and has written its files.
func savePlaces(dir string, places []groupPlace) error {
	for i := range places {
		var err error
		if places[i].Sum, err = places[i].sum(dir); err != nil {
			return err
		}
	}
	return writePlaces(dir, slices.DeleteFunc(places, func(p groupPlace) bool { return p.Sum == "" }))
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
	return writePlaces(g.log.engine.dir, nil)
}
