package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/linksgate/linksgate/server/doctor"
)

const doctorLong = `Doctor reads everything in a gateway's data directory: every record batch, every
notification, every quarantine entry, and what groups have stored and parked. It
tells what is damaged or missing, where, between which times it was written, what
that means for readers, and what to do.

It changes nothing in DIR, and a gateway may have DIR open meanwhile. Nothing has
to be repaired: a gateway passes over what is damaged and tells readers of a gap.
If a disk damages files, replace it and restore a backup of before.

The exit status is 0 when nothing is wrong, 1 when something is, and 2 when DIR
could not be checked.`

// doctorFlags are the flags of doctor as given.
type doctorFlags struct {
	json bool
}

func newDoctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor DIR",
		Short: "Check a gateway's data directory",
		Long:  doctorLong,
		Example: `  linksgate doctor /var/lib/linksgate
  linksgate doctor --json /var/lib/linksgate`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "report as lines of JSON: one for each problem, then a summary")
	return cmd
}

func (f *doctorFlags) run(cmd *cobra.Command, dir string) error {
	out, progress := cmd.OutOrStdout(), newTicker(cmd.ErrOrStderr())
	var printErr error
	options := doctor.Options{
		Report: func(p doctor.Problem) {
			if f.json {
				printErr = printJSON(out, jsonProblem(p))
			} else {
				_, printErr = io.WriteString(out, problemText(p))
			}
		},
		Progress: func(done, total int64) { progress.tell("reading: %d%%", 100*done/max(total, 1)) },
	}
	summary, err := doctor.Check(cmd.Context(), dir, options)
	if err != nil {
		return usageError{err} // nothing is known about the log: not the same as a problem
	}
	if printErr == nil {
		if f.json {
			printErr = printJSON(out, jsonSummary(summary))
		} else {
			_, printErr = io.WriteString(out, summaryText(summary))
		}
	}
	if printErr == nil && summary.Problems > 0 {
		return errReported
	}
	return printErr
}

// problemText is a problem for a person.
func problemText(p doctor.Problem) string {
	var b strings.Builder
	b.WriteString(p.Store)
	if p.First == p.Last {
		fmt.Fprintf(&b, ", %s %d", unitText(p.Store), p.First)
	} else {
		fmt.Fprintf(&b, ", %s %d to %d (%d)", unitText(p.Store), p.First, p.Last, p.Last-p.First+1)
	}
	if p.File != "" {
		fmt.Fprintf(&b, ", %s", escaped(p.File))
	}
	fmt.Fprintf(&b, ": %s\n", escaped(p.What))
	if when := periodText(p); when != "" {
		fmt.Fprintf(&b, "  written  %s\n", when)
	}
	fmt.Fprintf(&b, "  meaning  %s\n", p.Meaning)
	return b.String()
}

func unitText(store string) string {
	if store == "log" {
		return "record batch"
	}
	return "entry"
}

// periodText is when what a problem is about was written.
func periodText(p doctor.Problem) string {
	switch after, before := timeText(p.After), timeText(p.Before); {
	case p.After.IsZero() && p.Before.IsZero():
		return ""
	case p.After.Equal(p.Before):
		return after
	case p.After.IsZero():
		return "before " + before
	case p.Before.IsZero():
		return "after " + after
	default:
		return "between " + after + " and " + before
	}
}

func summaryText(s doctor.Summary) string {
	var b strings.Builder
	if s.LogID != "" {
		fmt.Fprintf(&b, "log         %s\n", s.LogID)
	}
	fmt.Fprintf(&b, "read        %s in %d record batches", plural(s.Notifications, "notification"), s.Batches)
	if s.Batches > 0 {
		fmt.Fprintf(&b, ", %d to %d, written %s to %s", s.FirstSequence, s.LastSequence, timeText(s.FirstWritten), timeText(s.LastWritten))
	}
	fmt.Fprintf(&b, "\nquarantine  %s\n", entriesText(int(s.QuarantineEntries)))
	fmt.Fprintf(&b, "groups      %d, with %s parked or to be replayed\n", s.Groups, plural(s.Parked, "notification"))
	if s.Problems == 0 {
		b.WriteString("no problem was found\n")
	} else {
		fmt.Fprintf(&b, "%s found\n", plural(uint64(s.Problems), "problem"))
	}
	return b.String()
}

// The JSON forms. What is not known is left out.

type problemJSON struct {
	Store   string     `json:"store"`
	File    string     `json:"file,omitempty"`
	First   uint64     `json:"first_stream_sequence"`
	Last    uint64     `json:"last_stream_sequence"`
	After   *time.Time `json:"written_after,omitempty"`
	Before  *time.Time `json:"written_before,omitempty"`
	Problem string     `json:"problem"`
	Meaning string     `json:"meaning"`
}

func jsonProblem(p doctor.Problem) problemJSON {
	return problemJSON{Store: p.Store, File: p.File, First: p.First, Last: p.Last, Problem: p.What, Meaning: p.Meaning,
		After: knownTime(p.After), Before: knownTime(p.Before)}
}

type summaryJSON struct {
	LogID             string     `json:"log_id,omitempty"`
	Batches           uint64     `json:"record_batches"`
	Notifications     uint64     `json:"notifications"`
	FirstSequence     uint64     `json:"first_stream_sequence"`
	LastSequence      uint64     `json:"last_stream_sequence"`
	FirstWritten      *time.Time `json:"first_written,omitempty"`
	LastWritten       *time.Time `json:"last_written,omitempty"`
	QuarantineEntries uint64     `json:"quarantine_entries"`
	Groups            uint64     `json:"groups"`
	Parked            uint64     `json:"parked"`
	Problems          int        `json:"problems"`
}

func jsonSummary(s doctor.Summary) summaryJSON {
	return summaryJSON{s.LogID, s.Batches, s.Notifications, s.FirstSequence, s.LastSequence, knownTime(s.FirstWritten),
		knownTime(s.LastWritten), s.QuarantineEntries, s.Groups, s.Parked, s.Problems}
}

func knownTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
