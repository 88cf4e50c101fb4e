package main

import (
	"bufio"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const auditLong = `Audit lists who changed what at a gateway: releases and purges, replays, groups that were
created, changed, moved or deleted, erasures, and changes of the configuration. Entries
are kept for 400 days, and up to 16 MiB of them.

It needs the right admin.`

// auditFlags are the flags of audit as given.
type auditFlags struct {
	since, caller, action string
	asJSON                bool
	connection
}

func newAuditCommand() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use: "audit", Short: "List who changed what", Long: auditLong, Args: cobra.NoArgs, RunE: f.run,
		Example: `  linksgate audit --since 24h
  linksgate audit --caller billing --action PurgeQuarantineEntry --since 2026-11-01T00:00:00Z --json`,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "only what was done since then: a duration such as 24h, or a `TIME` in RFC 3339")
	flags.StringVar(&f.caller, "caller", "", "only what this caller did (`NAME`)")
	flags.StringVar(&f.action, "action", "", "only this, such as DeleteGroup (`ACTION`)")
	flags.BoolVar(&f.asJSON, "json", false, "print one line of JSON for each entry")
	f.register(flags)
	return cmd
}

func (f *auditFlags) run(cmd *cobra.Command, _ []string) error {
	request := &linksgatev1.ListAuditEntriesRequest{Caller: f.caller, Action: f.action, PageSize: 1000}
	if f.since != "" {
		since, err := parseSince(f.since, time.Now())
		if err != nil {
			return err
		}
		request.Since = timestamppb.New(since)
	}
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	client := linksgatev1.NewAuditServiceClient(conn)
	out := bufio.NewWriter(cmd.OutOrStdout())
	table := newTable(out, "WHEN\tCALLER\tFROM\tACTION\tWHAT\tOUTCOME")
	found := 0
	for {
		page, err := client.ListAuditEntries(cmd.Context(), request)
		if err != nil {
			st := status.Convert(err)
			if err := f.examineFailure(st, f.address); err != nil {
				return fmt.Errorf("list the audit log: %w", err)
			}
			return fmt.Errorf("list the audit log: %s: %s\n  %s", st.Code(), escaped(st.Message()), groupAdvice(st.Code(), "", f.address))
		}
		for _, entry := range page.GetEntries() {
			found++
			if f.asJSON {
				err = writeMessage(out, entry)
			} else {
				err = table.row("%s\t%s\t%s\t%s\t%s\t%s\n", moment(entry.GetAt().AsTime()), orDash(entry.GetCaller()), orDash(entry.GetSourceAddress()),
					orDash(entry.GetAction()), escaped(auditSubject(entry)), orDash(entry.GetOutcome()))
			}
			if err != nil {
				return err
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	if found == 0 {
		tellNone(cmd, "no such change is in the audit log")
	}
	if f.asJSON {
		return out.Flush()
	}
	return table.finish()
}

// auditSubject is what an entry is about, in a line.
func auditSubject(entry *linksgatev1.AuditEntry) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(entry.GetSubject())) {
		parts = append(parts, name+"="+entry.GetSubject()[name])
	}
	if entry.GetCount() != 0 {
		parts = append(parts, fmt.Sprintf("count=%d", entry.GetCount()))
	}
	if entry.GetDetail() != "" {
		parts = append(parts, entry.GetDetail())
	}
	return strings.Join(parts, " ")
}
