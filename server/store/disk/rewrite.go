package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Rewrite implements [store.Rewriter]. Each segment that is concerned is written anew beside itself, and replaced by renaming.
func (l *Log) Rewrite(ctx context.Context, sequences []uint64, edit func(uint64, []byte) ([]byte, error)) error {
	if err := l.checkOpen(); err != nil {
		return err
	}
	for len(sequences) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		l.appending.Lock()
		s, count, err := l.concerned(sequences)
		if err == nil && s != nil && count > 0 {
			err = l.rewriteSegment(s, sequences[:count], edit)
		}
		l.appending.Unlock()
		if err != nil {
			return fmt.Errorf("rewrite: %w", err)
		}
		if s == nil {
			return nil // all that is left is behind the end
		}
		sequences = sequences[max(count, 1):]
	}
	return nil
}

// concerned returns the segment that has the first of some sequences, sealed, and how many of them it has. The caller holds appending.
func (l *Log) concerned(sequences []uint64) (*segment, int, error) {
	l.mu.Lock()
	i := l.position(sequences[0])
	if i == len(l.segments) {
		l.mu.Unlock()
		return nil, 0, nil
	}
	s := l.segments[i]
	l.mu.Unlock()
	if !s.sealed && !s.missing {
		if err := l.roll(); err != nil {
			return nil, 0, err
		}
	}
	count, _ := slices.BinarySearch(sequences, s.Last+1)
	return s, count, nil
}

// rewriteSegment replaces a sealed segment.
func (l *Log) rewriteSegment(s *segment, sequences []uint64, edit func(uint64, []byte) ([]byte, error)) error {
	if s.missing {
		return nil
	}
	source, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer source.Close()
	temporary := s.path + ".new"
	target, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	// The salt stays: until the manifest is replaced too, it describes the new file as well as the old one.
	fresh := &segment{origin: s.origin, path: s.path, content: s.content}
	err = l.copyEdited(fresh, target, &walker{file: source, salt: s.Salt, at: entriesBegin, end: s.End}, sequences, edit)
	if err == nil {
		err = l.sealFile(fresh, target)
	}
	if err := errors.Join(err, target.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, s.path); err != nil {
		return err
	}
	l.mu.Lock()
	i := slices.Index(l.segments, s)
	l.segments = slices.Clone(l.segments)
	l.segments[i] = fresh
	l.mu.Unlock()
	if err := l.writeManifest(); err != nil {
		return l.engine.fail(fmt.Errorf("write manifest: %w", err))
	}
	return nil
}

// copyEdited copies entries, with their sequences and times. What does not hold is not copied, and stays a gap.
func (l *Log) copyEdited(fresh *segment, target *os.File, w *walker, sequences []uint64, edit func(uint64, []byte) ([]byte, error)) error {
	if _, err := target.WriteAt(fresh.header(), 0); err != nil {
		return err
	}
	fresh.End = entriesBegin
	var buffer []byte
	for {
		e, err := w.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.corrupt {
			continue
		}
		payload, kind := e.payload, e.kind
		if _, concerned := slices.BinarySearch(sequences, e.sequence); concerned && kind == kindData {
			if payload, err = edit(e.sequence, payload); err != nil {
				return err
			}
			if payload == nil {
				kind = kindErased
			}
		}
		h := head{sequence: e.sequence, time: e.time, kind: kind}
		buffer = appendEntry(buffer[:0], &h, payload, fresh.Salt)
		if _, err := target.WriteAt(buffer, fresh.End); err != nil {
			return err
		}
		fresh.marks = addMark(fresh.marks, mark{h.sequence, h.time, fresh.End})
		fresh.End += int64(len(buffer))
	}
}
