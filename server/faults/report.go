package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// indexBits is how many bits of a sequence are the place in a record batch. Those above are the batch's stream sequence, in which doctor
// and gaps speak.
const indexBits = 12

// Range is record batches, by the stream sequences of the first and the last.
type Range struct{ First, Last uint64 }

// Report is what was said to be lost. The zero value says that nothing is.
type Report struct {
	// Damaged says that something is wrong, so that readers may be told of gaps.
	Damaged bool
	// Batches that are lost.
	Batches []Range
	// Quarantine says that entries of the quarantine are lost.
	Quarantine bool
	// Groups says that groups are lost, or what they had done.
	Groups bool
	// Parked is how many parked notifications are lost.
	Parked int
	// Text is the report as it was given.
	Text string
}

// covers reports whether the record batch of a notification is among ranges.
func covers(ranges []Range, id string) bool {
	stream := sequenceOf(id) >> indexBits
	for _, one := range ranges {
		if one.First <= stream && stream <= one.Last {
			return true
		}
	}
	return false
}

// sequenceOf returns the sequence that an id ends with.
func sequenceOf(id string) uint64 {
	sequence, _ := strconv.ParseUint(id[strings.LastIndexByte(id, '-')+1:], 10, 64) // 0, where nothing is
	return sequence
}

// missing is what a gap is about, for a reader that handled a sequence before it.
func missing(before uint64, gap *linksgatev1.Gap) Range {
	stream := before >> indexBits
	return Range{stream + 1, stream + uint64(gap.GetRecordBatches())}
}

// doctorLine is a line of the report in JSON: of a problem, or the summary.
type doctorLine struct {
	Store        string
	First        uint64  `json:"first_stream_sequence"`
	Last         uint64  `json:"last_stream_sequence"`
	RecordBlocks *uint64 `json:"record_batches"` // only in the summary
}

// examineTimeout bounds an examination. The directories of tests are small.
const examineTimeout = 20 * time.Second

// Examine has the doctor examine the data directory of a gateway.
func (g *Gateway) Examine() (Report, error) {
	cmd := g.command("doctor", "--json", g.settings.LogDir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	timeout := time.AfterFunc(examineTimeout, func() { _ = cmd.Process.Kill() })
	defer timeout.Stop()
	out, err := cmd.Output()
	var ended *exec.ExitError
	if err != nil && (!errors.As(err, &ended) || ended.ExitCode() != 1) {
		return Report{}, fmt.Errorf("doctor: %w\n%s%s", err, out, lastLines(stderr.String()))
	}
	report := Report{Damaged: err != nil, Text: string(out)}
	for text := range bytes.Lines(out) {
		var line doctorLine
		if err := json.Unmarshal(text, &line); err != nil {
			return Report{}, fmt.Errorf("read what doctor says: %w", err)
		}
		if line.RecordBlocks != nil {
			continue
		}
		report.add(line)
	}
	return report, nil
}

// add takes in a problem.
func (r *Report) add(line doctorLine) {
	switch line.Store {
	case "quarantine":
		r.Quarantine = true
	case "groups":
		r.Groups = true
	case "parked":
		r.Parked++
	default:
		r.Batches = append(r.Batches, Range{line.First, line.Last})
	}
}
