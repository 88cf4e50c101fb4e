package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/spf13/cobra"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// greatestIDs is by ReplayParkedRequest.notification_ids and PurgeParkedRequest.notification_ids.
const greatestIDs = 1000

// parked yields what a group has parked, page by page, in the order of parking.
func (c *groupClient) parked(ctx context.Context, group string) iter.Seq2[*linksgatev1.ParkedNotification, error] {
	return func(yield func(*linksgatev1.ParkedNotification, error) bool) {
		request := &linksgatev1.ListParkedRequest{GroupName: group, PageSize: greatestPage}
		for {
			page, err := c.ListParked(ctx, request)
			if err != nil {
				yield(nil, c.explain("list what "+visible(group)+" has parked", err))
				return
			}
			for _, parked := range page.GetParked() {
				if !yield(parked, nil) {
					return
				}
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}

func newGroupParkedCommand(f *groupFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "parked GROUP",
		Short: "List what a group has parked, and why",
		Long: `Parked lists the notifications that a group has set aside, in the order of parking:
when, why, after how many attempts, and what the member said that rejected it. replay
gives them to the group again, purge deletes them; in the log they stay in any case.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(func(client *groupClient) error {
				out := bufio.NewWriter(cmd.OutOrStdout())
				show, finish := parkedTable(out)
				if asJSON {
					show, finish = func(p *linksgatev1.ParkedNotification) error { return writeMessage(out, p) }, out.Flush
				}
				none := true
				for parked, err := range client.parked(cmd.Context(), args[0]) {
					if err == nil {
						none, err = false, show(parked)
					}
					if err != nil {
						_ = finish() // what there is before it
						return err
					}
				}
				if none {
					tellNone(cmd, visible(args[0])+" has parked nothing")
				}
				return finish()
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each, complete with the notification")
	return cmd
}

func parkedTable(out *bufio.Writer) (show func(*linksgatev1.ParkedNotification) error, finish func() error) {
	table := newTable(out, "ID\tPARKED\tKIND\tICCID\tREASON\tATTEMPTS\tDETAIL")
	show = func(p *linksgatev1.ParkedNotification) error {
		n := p.GetNotification()
		return table.row("%s\t%s\t%s\t%s\t%s\t%d\t%s\n", visible(n.GetId()), timeText(p.GetParkedAt().AsTime()), kindText(n.GetKind()),
			iccidText(n.GetIccids()), parkReasonText(p.GetReason()), p.GetAttempts(), detailText(p.GetDetail()))
	}
	return show, table.finish
}

func parkReasonText(reason linksgatev1.ParkReason) string {
	if linksgatev1.ParkReason_name[int32(reason)] == "" {
		return fmt.Sprintf("reason-%d", reason) // of a newer gateway
	}
	return enumText(reason.String(), "PARK_REASON_")
}

func detailText(detail string) string {
	if detail == "" {
		return "-"
	}
	return escaped(shortened(detail, shownRunes))
}

// parkedChoice is which parked notifications a command is about.
type parkedChoice struct {
	group string
	ids   []string
	all   bool
}

// check refuses a choice that is none, or two.
func (c *parkedChoice) check() error {
	switch {
	case c.all && len(c.ids) > 0:
		return usagef("give IDs or --all, not both")
	case !c.all && len(c.ids) == 0:
		return usagef("give the IDs of notifications, which parked shows, or --all")
	}
	return nil
}

// list prints what is chosen, and returns the ids of it, and those of the choice that are not parked.
func (c *parkedChoice) list(cmd *cobra.Command, client *groupClient, print bool) (ids, notParked []string, err error) {
	out := bufio.NewWriter(cmd.OutOrStdout())
	show, finish := parkedTable(out)
	for parked, err := range client.parked(cmd.Context(), c.group) {
		if err != nil {
			return nil, nil, err
		}
		id := parked.GetNotification().GetId()
		if !c.all && !slices.Contains(c.ids, id) {
			continue
		}
		ids = append(ids, id)
		if print {
			if err := show(parked); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, id := range c.ids {
		if !slices.Contains(ids, id) {
			notParked = append(notParked, id)
		}
	}
	return ids, notParked, finish()
}

func newGroupReplayCommand(f *groupFlags) *cobra.Command {
	var c parkedChoice
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "replay GROUP {ID ... | --all}",
		Short: "Give parked notifications to the group again",
		Long: `Replay gives parked notifications to the group again, with all its attempts. They are
no longer parked then. The exit status is 1 if an ID is not parked.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.group, c.ids = args[0], unique(args[1:])
			if err := c.check(); err != nil {
				return err
			}
			return f.call(func(client *groupClient) error {
				if dryRun {
					return c.preview(cmd, client, "would be replayed")
				}
				return c.replay(cmd, client)
			})
		},
	}
	cmd.Flags().BoolVar(&c.all, "all", false, "everything that is parked")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only list what would be replayed")
	return cmd
}

// preview lists what a command would be about.
func (c *parkedChoice) preview(cmd *cobra.Command, client *groupClient, verb string) error {
	ids, notParked, err := c.list(cmd, client, true)
	if err != nil {
		return err
	}
	return (&parkedTally{int64(len(ids)), notParked}).report(cmd, verb, nil)
}

func (c *parkedChoice) replay(cmd *cobra.Command, client *groupClient) error {
	var done parkedTally
	replay := func(ids []string) error {
		response, err := client.ReplayParked(cmd.Context(), &linksgatev1.ReplayParkedRequest{GroupName: c.group, NotificationIds: ids, All: c.all})
		if err != nil {
			return client.explain("replay what "+visible(c.group)+" has parked", err)
		}
		done.add(response.GetReplayed(), response.GetNotParked())
		return nil
	}
	if c.all {
		return done.report(cmd, "replayed", replay(nil))
	}
	return done.report(cmd, "replayed", inRequests(c.ids, replay))
}

// inRequests calls do with as many ids at a time as a request may have.
func inRequests(ids []string, do func([]string) error) error {
	for some := range slices.Chunk(ids, greatestIDs) {
		if err := do(some); err != nil {
			return err
		}
	}
	return nil
}

// parkedTally counts what was done to parked notifications.
type parkedTally struct {
	done      int64
	notParked []string
}

func (t *parkedTally) add(done int64, notParked []string) {
	t.done += done
	t.notParked = append(t.notParked, notParked...)
}

// report prints what was done, also when that ended with an error.
func (t *parkedTally) report(cmd *cobra.Command, verb string, err error) error {
	for _, id := range t.notParked {
		fmt.Fprintf(cmd.OutOrStdout(), "%s  not parked\n", visible(id))
	}
	fmt.Fprintln(cmd.OutOrStdout(), parkedText(t.done)+" "+verb)
	if err == nil && len(t.notParked) > 0 {
		err = errReported
	}
	return err
}

func parkedText[N integer](n N) string { return plural(n, "notification") }

func newGroupPurgeCommand(f *groupFlags) *cobra.Command {
	var c parkedChoice
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "purge GROUP {ID ... | --all}",
		Short: "Delete parked notifications",
		Long: `Purge deletes parked notifications: the group will not see them again. They stay in
the log. With --all, exactly those that are parked when it begins; it asks first, or
is told --yes. The exit status is 1 if an ID is not parked.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.group, c.ids = args[0], unique(args[1:])
			if err := c.check(); err != nil {
				return err
			}
			if c.all && !yes && !dryRun && !canAnswer(cmd.InOrStdin()) {
				return errUnconfirmed
			}
			return f.call(func(client *groupClient) error { return c.purge(cmd, client, yes, dryRun) })
		},
	}
	cmd.Flags().BoolVar(&c.all, "all", false, "everything that is parked")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask before --all is deleted")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only list what would be deleted")
	return cmd
}

func (c *parkedChoice) purge(cmd *cobra.Command, client *groupClient, yes, dryRun bool) error {
	if dryRun {
		return c.preview(cmd, client, "would be deleted")
	}
	chosen := c.ids
	if c.all {
		// What is parked from here on has been seen by nobody: it stays.
		var err error
		if chosen, _, err = c.list(cmd, client, false); err != nil {
			return err
		}
	}
	count := parkedText(uint64(len(chosen)))
	if c.all && !yes && len(chosen) > 0 {
		if err := confirm(cmd, "Delete "+count+" for good?"); err != nil {
			return err
		}
	}
	var done parkedTally
	err := done.report(cmd, "deleted", inRequests(chosen, func(ids []string) error {
		response, err := client.PurgeParked(cmd.Context(), &linksgatev1.PurgeParkedRequest{GroupName: c.group, NotificationIds: ids})
		if err != nil {
			return client.explain("purge what "+visible(c.group)+" has parked", err)
		}
		done.add(response.GetPurged(), response.GetNotParked())
		return nil
	}))
	if c.all && errors.Is(err, errReported) {
		return nil // somebody else was faster
	}
	return err
}
