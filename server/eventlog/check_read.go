package eventlog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// readCopy reads the records of the streams.
func (c *checker) readCopy(ctx context.Context, engine *engine, id logID, streams []*checkedStream) error {
	for _, s := range streams {
		var stream jetstream.Stream
		var err error
		if s.settings {
			stream, err = engine.js.Stream(ctx, s.name)
		} else {
			// The engine takes up the records that it finds in the place of a new stream.
			stream, err = engine.js.CreateStream(ctx, jetstream.StreamConfig{
				Name: s.name, Subjects: s.subjects, Storage: jetstream.FileStorage, MaxBytes: -1,
			})
		}
		if err != nil {
			c.report(Problem{Stream: s.name, Index: -1, What: fmt.Sprintf("the engine cannot open it: %v", err), Meaning: "a gateway does not start"})
			continue
		}
		r := &recordReader{checker: c, stream: stream, name: s.name, lost: s.lost, told: s.flaws, gone: s.gone}
		run := r.run
		switch s.name {
		case streamName:
			r.look = func(message *jetstream.RawStreamMsg) string { return c.lookAtBatch(id, message) }
		case quarantineStream:
			r.look, r.removable = c.lookAtEntry, true
		case groupsStream:
			r.look, run = c.lookAtGroup, r.runSparse
		case parkedStream:
			r.look, run = c.lookAtParked, r.runSparse
		}
		if err := run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// recordReader reads one stream from its first to its last sequence.
type recordReader struct {
	checker   *checker
	stream    jetstream.Stream
	name      string
	removable bool // single messages are removed in the normal course of things
	lost      string
	told      []flaw                               // were reported
	gone      []goneBlock                          // so were these
	look      func(*jetstream.RawStreamMsg) string // says what is wrong with a message as a whole

	missing []Problem // since the message that was read last
	last    time.Time // when that was written
}

func (r *recordReader) run(ctx context.Context) error {
	info, err := r.stream.Info(ctx, jetstream.WithDeletedDetails(true))
	if err != nil {
		return fmt.Errorf("read the state of %s: %w", r.name, err)
	}
	state := info.State
	removed := make(map[uint64]bool)
	if r.removable {
		for _, sequence := range state.Deleted {
			removed[sequence] = true
		}
	}
	if r.name == streamName {
		r.checker.summary.FirstSequence, r.checker.summary.LastSequence = state.FirstSeq, state.LastSeq
	}
	if state.Msgs == 0 {
		return nil
	}
	for sequence := state.FirstSeq; sequence <= state.LastSeq; sequence++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.checker.progress("reading "+r.name, sequence-state.FirstSeq, state.LastSeq-state.FirstSeq+1)
		message, err := r.stream.GetMsg(ctx, sequence)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound) && removed[sequence]:
			continue
		case errors.Is(err, jetstream.ErrMsgNotFound):
			r.miss(sequence, "missing, or not matching its checksum")
			continue
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			r.miss(sequence, fmt.Sprintf("not readable: %v", err))
			continue
		}
		if wrong := r.look(message); wrong != "" {
			r.miss(sequence, wrong)
			continue
		}
		r.flush(message.Time)
		r.last = message.Time
	}
	r.flush(time.Time{})
	return nil
}

// runSparse reads a stream in which there is less than what was removed. What is missing cannot be told from that.
func (r *recordReader) runSparse(ctx context.Context) error {
	info, err := r.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("read the state of %s: %w", r.name, err)
	}
	state := info.State
	for sequence := state.FirstSeq; state.Msgs > 0 && sequence <= state.LastSeq; sequence++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.checker.progress("reading "+r.name, sequence-state.FirstSeq, state.LastSeq-state.FirstSeq+1)
		message, err := r.stream.GetMsg(ctx, sequence, jetstream.WithGetMsgSubject(allSubjects)) // the first one from there on
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			r.flush(time.Time{})
			return nil
		case err != nil && ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			r.miss(sequence, fmt.Sprintf("not readable: %v", err))
			continue
		}
		sequence = message.Sequence
		if wrong := r.look(message); wrong != "" {
			r.miss(sequence, wrong)
			continue
		}
		r.flush(message.Time)
		r.last = message.Time
	}
	r.flush(time.Time{})
	return nil
}

// miss notes a message that readers do not get. Those beside each other, of one cause, are one problem.
func (r *recordReader) miss(sequence uint64, what string) {
	if slices.ContainsFunc(r.told, func(f flaw) bool { return f.first <= sequence && sequence <= f.last }) ||
		slices.ContainsFunc(r.gone, func(b goneBlock) bool { return b.first <= sequence && sequence <= b.last }) {
		return
	}
	if n := len(r.missing); n > 0 && r.missing[n-1].What == what && r.missing[n-1].Last == sequence-1 {
		r.missing[n-1].Last = sequence
		return
	}
	r.missing = append(r.missing, Problem{Stream: r.name, First: sequence, Last: sequence, Index: -1, After: r.last, What: what, Meaning: r.lost})
}

// flush reports what was missed, now that it is known what follows.
func (r *recordReader) flush(before time.Time) {
	for _, missing := range r.missing {
		missing.Before = before
		r.checker.report(missing)
	}
	r.missing = nil
}

// lookAtBatch checks a record batch and what is in it.
func (c *checker) lookAtBatch(id logID, message *jetstream.RawStreamMsg) string {
	b := unpack(id, message.Sequence, message.Time, message.Data)
	if b.damaged {
		return "not a record batch"
	}
	c.summary.Batches++
	if c.summary.FirstWritten.IsZero() {
		c.summary.FirstWritten = message.Time
	}
	c.summary.LastWritten = message.Time
	for i := range b.records {
		if wrong := checkRecord(id, &b.records[i]); wrong != "" {
			c.report(Problem{Stream: streamName, First: message.Sequence, Last: message.Sequence, Index: i,
				After: message.Time, Before: message.Time, What: wrong, Meaning: "readers get it as it is"})
			continue
		}
		c.summary.Notifications++
	}
	return ""
}

// checkRecord says what is wrong with a notification.
func checkRecord(id logID, r *Record) string {
	n, err := r.Notification()
	if err != nil {
		return err.Error()
	}
	if wrong := checkDigest(n.GetContentDigest(), n.GetBody(), n.GetBodyBytes()); wrong != "" {
		return wrong
	}
	if id == (logID{}) {
		return "" // there is nothing to compare with
	}
	l := &Log{id: id}
	position, err := l.ParseNotificationID(n.GetId())
	switch {
	case err != nil:
		return fmt.Sprintf("its id is not one of this log: %v", err)
	case position != r.Position || n.GetSequence() != r.Position.Sequence():
		return fmt.Sprintf("its id names the sequence %d, and it stands at %d", position.Sequence(), r.Position.Sequence())
	}
	next, err := l.ParseToken(n.GetToken())
	switch {
	case err != nil:
		return fmt.Sprintf("its token is not one of this log: %v", err)
	case next != r.Next:
		return "its token does not lead to what follows it"
	}
	return ""
}

// lookAtEntry checks a quarantine entry.
func (c *checker) lookAtEntry(message *jetstream.RawStreamMsg) string {
	entry := new(linksgatev1.QuarantineEntry)
	if err := proto.Unmarshal(message.Data, entry); err != nil {
		return fmt.Sprintf("not a quarantine entry: %v", err)
	}
	if wrong := checkDigest(entry.GetContentDigest(), entry.GetBody(), entry.GetBodyBytes()); wrong != "" {
		return wrong
	}
	c.summary.QuarantineEntries++
	return ""
}

// lookAtGroup checks the record of a group, or progress.
func (c *checker) lookAtGroup(message *jetstream.RawStreamMsg) string {
	name, isRecord := strings.CutSuffix(strings.TrimPrefix(message.Subject, groupsSubject), recordSuffix)
	switch {
	case !isRecord:
		if err := proto.Unmarshal(message.Data, new(linksgatev1.BatchProgress)); err != nil {
			return fmt.Sprintf("not progress of a group: %v", err)
		}
	case len(message.Data) > 0: // else it was deleted
		record, err := parseRecord(name, message.Data)
		if err != nil {
			return err.Error()
		}
		c.summary.Groups++
		c.lookForPlaces(record)
	}
	return ""
}

// lookForPlaces reports a group that has lost its place in the log.
func (c *checker) lookForPlaces(record *linksgatev1.GroupRecord) {
	for stream, meaning := range map[string]string{
		streamName:   "the group begins again at its start: it repeats what it had done, but for what is stored of that",
		parkedStream: "the group gets again what it was given again and had not settled",
	} {
		if slices.ContainsFunc(c.places, func(p groupPlace) bool { return p.Stream == stream && p.Consumer == consumerName(record) }) {
			continue
		}
		dir := filepath.Join(streamsDir, stream, consumersDir, consumerName(record))
		if _, err := os.Stat(filepath.Join(c.dir, dir, settingsFile)); errors.Is(err, fs.ErrNotExist) {
			c.report(Problem{Stream: stream, File: dir, Index: -1,
				What: fmt.Sprintf("the place of group %s is missing", record.GetGroup().GetName()), Meaning: meaning})
		}
	}
}

// lookAtParked checks a parked notification.
func (c *checker) lookAtParked(message *jetstream.RawStreamMsg) string {
	p, err := parseParked(storedMessage{subject: message.Subject, data: message.Data})
	if err != nil {
		return err.Error()
	}
	n := p.record.GetNotification()
	if wrong := checkDigest(n.GetContentDigest(), n.GetBody(), n.GetBodyBytes()); wrong != "" {
		return wrong
	}
	c.summary.Parked++
	return ""
}

// checkDigest compares a body, of which one form is empty, with its digest.
func checkDigest(digest, text string, binary []byte) string {
	sum := sha256.Sum256(append([]byte(text), binary...))
	if digest != "sha256:"+hex.EncodeToString(sum[:]) {
		return "its body does not match its content digest"
	}
	return ""
}
