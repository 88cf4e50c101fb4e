package main

import (
	"bufio"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/payload"
)

func newGroupListCommand(f *groupFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the groups and how they are doing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(func(client *groupClient) error {
				out := bufio.NewWriter(cmd.OutOrStdout())
				show, finish := groupTable(out)
				if asJSON {
					show, finish = func(g *linksgatev1.Group) error { return writeMessage(out, g) }, out.Flush
				}
				none := true
				for group, err := range client.all(cmd.Context()) {
					if err == nil {
						none, err = false, show(group)
					}
					if err != nil {
						_ = finish() // what there is before it
						return err
					}
				}
				if none {
					tellNone(cmd, "there is no group; linksgate group create makes one")
				}
				return finish()
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each group")
	return cmd
}

func groupTable(out *bufio.Writer) (show func(*linksgatev1.Group) error, finish func() error) {
	table := newTable(out, "GROUP\tORDERING\tLAG\tIN FLIGHT\tRETRYING\tPARKED\tMEMBERS")
	show = func(g *linksgatev1.Group) error {
		s := g.GetStatus()
		return table.row("%s\t%s\t%s\t%d\t%d\t%d\t%d\n", visible(g.GetName()), orderingText(g.GetOrdering()), lagText(s.GetLag()),
			s.GetInFlight(), s.GetRetrying(), s.GetParked(), len(s.GetMembers()))
	}
	return show, table.finish
}

func newGroupShowCommand(f *groupFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show GROUP",
		Short: "Show a group: its rules, its lag, its members",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(func(client *groupClient) error {
				group, err := client.get(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return showGroup(cmd.OutOrStdout(), group, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

// groupText is a group for a person.
func groupText(g *linksgatev1.Group, now time.Time) string {
	var b strings.Builder
	line := func(name, text string) { fmt.Fprintf(&b, "%-13s %s\n", name, text) }
	line("group", visible(g.GetName()))
	line("filter", filterText(g.GetFilter()))
	line("ordering", orderingText(g.GetOrdering()))
	line("lease", durationText(g.GetLeaseDuration()))
	line("max attempts", fmt.Sprint(g.GetMaxAttempts()))
	line("back-off", durationText(g.GetBackOff().GetInitial())+" to "+durationText(g.GetBackOff().GetMaximum()))
	line("created", timeText(g.GetCreatedAt().AsTime()))
	if g.GetPaused() {
		line("paused", "nothing is leased until linksgate group resume "+visible(g.GetName()))
	}
	if s := g.GetStatus(); s != nil {
		line("lag", lagText(s.GetLag()))
		line("oldest", oldestText(s.GetOldestUnsettled()))
		line("in flight", fmt.Sprint(s.GetInFlight()))
		line("retrying", fmt.Sprint(s.GetRetrying()))
		if held := s.GetHeld(); held > 0 {
			line("held", fmt.Sprint(held)+", which may still be out since the gateway ended without stopping")
		}
		line("parked", fmt.Sprint(s.GetParked()))
		if missed := s.GetMissedRecordBatches(); missed > 0 {
			line("missed", batchesText(missed)+", expired or corrupt before the group got them")
		}
		if s.GetBlocked() {
			line("blocked", "all that is in flight is leased, or waits for another attempt or its SIM: settle some of it")
		}
		if until := s.GetPausedUntil(); until != nil {
			line("paused", "until "+timeText(until.AsTime())+": a member said that everything is down")
		}
		line("members", membersText(s.GetMembers(), now))
	}
	return b.String()
}

func membersText(members []*linksgatev1.GroupMember, now time.Time) string {
	if len(members) == 0 {
		return "none"
	}
	var b strings.Builder
	fmt.Fprint(&b, len(members))
	for _, m := range members {
		name := "-"
		if m.GetClientName() != "" {
			name = visible(m.GetClientName())
		}
		fmt.Fprintf(&b, "\n  %s  %d of %d in flight, joined %s ago", name, m.GetInFlight(), m.GetMaxInFlight(), age(now.Sub(m.GetJoinedAt().AsTime())))
	}
	return b.String()
}

func filterText(f *linksgatev1.NotificationFilter) string {
	var parts []string
	add := func(name string, values []string) {
		if len(values) > 0 {
			parts = append(parts, name+"="+list(values, shownPieces, shown))
		}
	}
	add("account", f.GetAccounts())
	add("kind", payload.KindNames(f.GetKinds()))
	add("iccid", f.GetIccids())
	add("partner-code", f.GetPartnerCodes())
	if len(parts) == 0 {
		return "all notifications"
	}
	return strings.Join(parts, " ")
}

func orderingText(ordering linksgatev1.GroupOrdering) string {
	return enumText(ordering.String(), "GROUP_ORDERING_")
}

func durationText(d *durationpb.Duration) string {
	text := d.AsDuration().String() // such as 1h0m0s
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// lagText is "none" when a group has settled everything.
func lagText(lag *linksgatev1.Lag) string {
	if lag.GetRecordBatches() == 0 && lag.GetTime().AsDuration() == 0 {
		return "none"
	}
	text := batchesText(lag.GetRecordBatches())
	if d := lag.GetTime().AsDuration(); d > 0 {
		text += ", " + d.Round(time.Millisecond).String()
	}
	return text
}

func batchesText[N integer](n N) string {
	if n == 1 {
		return "1 record batch"
	}
	return fmt.Sprintf("%d record batches", n)
}

func oldestText(place *linksgatev1.LogPosition) string {
	if place == nil {
		return "everything in the log is settled"
	}
	return fmt.Sprintf("sequence %d of %s (--after %s)", place.GetSequence(), timeText(place.GetWrittenAt().AsTime()), visible(place.GetToken()))
}
