package disk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// scrub reads everything that is sealed, and counts and logs what does not hold.
func (j *journal) scrub(ctx context.Context, pace func(context.Context, int) error) error {
	j.mu.Lock()
	segments := slices.Clone(j.segments)
	j.mu.Unlock()
	for _, s := range segments {
		j.mu.Lock()
		end, sealed := s.End, s.sealed
		j.mu.Unlock()
		if !sealed || s.missing {
			continue
		}
		f, err := os.Open(s.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return err
		}
		err = j.scrubSegment(ctx, s, &walker{file: f, salt: s.Salt, at: entriesBegin, end: end}, pace)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) scrubSegment(ctx context.Context, s *segment, w *walker, pace func(context.Context, int) error) error {
	const pacedBytes = 1 << 20
	for paced := w.at; ; {
		before := w.at
		e, err := w.next()
		if err != nil {
			return nil //nolint:nilerr // the end, or a device that cannot read it, which readers tell
		}
		if e.corrupt || e.offset > before {
			j.engine.options.Logger.Error("entry corrupt", "store", j.name, "segment", filepath.Base(s.path), "before", e.sequence+1)
		}
		if w.at-paced >= pacedBytes {
			if err := pace(ctx, int(w.at-paced)); err != nil {
				return err
			}
			paced = w.at
		}
	}
}
