// Package doctor reads everything in a data directory, which may be in use, and tells what is corrupt or missing.
package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/store/disk"
)

// Options configure [Check]. All fields are optional.
type Options struct {
	// Report is shown every problem when it is found.
	Report func(Problem)
	// Progress is called every now and then with how many bytes of how many were read.
	Progress func(done, total int64)
}

// Problem is something that is not as it was written.
type Problem struct {
	// Store that it is in: log, quarantine, groups or parked.
	Store string
	// File that it was seen in, below the data directory.
	File string
	// First and Last are the stream sequences concerned.
	First, Last uint64
	// After and Before are when the neighbours that can be read were written, so what is concerned was written between them; zero
	// if there is none on that side.
	After, Before time.Time
	// What is wrong.
	What string
	// Meaning for readers, and what to do.
	Meaning string
}

// Summary counts what a check has seen.
type Summary struct {
	// LogID names the log.
	LogID string
	// Batches and Notifications that could be read, and when the first and the last batch were written.
	Batches, Notifications    uint64
	FirstWritten, LastWritten time.Time
	// FirstSequence and LastSequence are the stream sequences that the log says it has.
	FirstSequence, LastSequence uint64
	// QuarantineEntries that could be read.
	QuarantineEntries uint64
	// Groups, and what they have parked, that could be read. What groups were given again counts as parked.
	Groups, Parked uint64
	// Problems that were reported.
	Problems int
}

// meanings say what a problem in a store means.
var meanings = map[string]string{
	"log":        "lost: readers are told of a gap. Everything before and behind it is read",
	"quarantine": "a refused request is lost, if it had not been released: it is listed as corrupt",
	"groups":     "a group's settings, or what it had settled: it says so when it is used, and may deliver again. Move it with group seek if need be",
	"parked":     "a parked notification is lost here: it may still be in the log",
}

// Check reads everything in the directory of a log on disk, which may be in use, and reports what is corrupt or missing. It changes
// nothing. It returns an error only if it could not check.
func Check(ctx context.Context, dir string, options Options) (Summary, error) {
	var summary Summary
	type version struct {
		revision uint64
		deleted  bool
	}
	tables := map[string]map[string]version{"quarantine": {}, "groups": {}, "parked": {}}
	report := func(p Problem) {
		p.Meaning = meanings[p.Store]
		if summary.Problems++; options.Report != nil {
			options.Report(p)
		}
	}
	stores, err := disk.Check(ctx, dir, disk.CheckOptions{
		Progress: options.Progress,
		Problem: func(p disk.Problem) {
			report(Problem{Store: p.Store, File: p.Store + "/" + p.File, First: p.First, Last: p.Last, After: p.After, Before: p.Before, What: p.What})
		},
		Entry: func(e disk.CheckedEntry) {
			if keys, ok := tables[e.Store]; ok {
				if e.Revision >= keys[e.Key].revision {
					keys[e.Key] = version{e.Revision, e.Deleted}
				}
				return
			}
			if e.Store != "log" || e.Erased {
				return
			}
			notifications, ok := eventlog.InspectBatch(e.Data)
			if !ok {
				report(Problem{Store: e.Store, First: e.Sequence, Last: e.Sequence, After: e.Time, Before: e.Time, What: "not a record batch"})
				return
			}
			if summary.Batches == 0 {
				summary.FirstWritten = e.Time
			}
			summary.LastWritten = e.Time
			summary.Batches++
			summary.Notifications += uint64(notifications)
		},
	})
	if err != nil {
		return summary, fmt.Errorf("check: %w", err)
	}
	for _, s := range stores {
		if s.Name == "log" {
			summary.LogID, summary.FirstSequence, summary.LastSequence = eventlog.NameOf(s.ID), s.Retained, s.Next-1
		}
	}
	for table, count := range map[string]*uint64{
		"quarantine": &summary.QuarantineEntries, "groups": &summary.Groups, "parked": &summary.Parked,
	} {
		for key, v := range tables[table] {
			if !v.deleted && eventlog.IsItem(table, key) {
				*count++
			}
		}
	}
	return summary, nil
}
