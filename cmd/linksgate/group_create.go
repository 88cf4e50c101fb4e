package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// ruleFlags are the rules of a group. Those that are not given are left to the gateway.
type ruleFlags struct {
	filterFlags
	lease, backOff, backOffMax time.Duration
	maxAttempts                int32
}

func (f *ruleFlags) register(flags *pflag.FlagSet) {
	f.filterFlags.register(flags)
	flags.DurationVar(&f.lease, "lease", 0, "how long a notification is leased to a member, from 1s to 1h; default 30s (`DURATION`)")
	flags.Int32Var(&f.maxAttempts, "max-attempts", 0, "how often a notification comes before it is parked, from 1 to 100; default 10 (`NUMBER`)")
	flags.DurationVar(&f.backOff, "back-off", 0, "wait after the first attempt, doubled after each; from 0s to 1h; default 1s (`DURATION`)")
	flags.DurationVar(&f.backOffMax, "back-off-max", 0, "longest wait between attempts, up to 24h; default 5m (`DURATION`)")
}

// rules fills in the rules that were given, and returns the names of their fields.
func (f *ruleFlags) rules(group *linksgatev1.Group, flags *pflag.FlagSet) (given []string, err error) {
	anyOf := func(names ...string) bool {
		for _, name := range names {
			if flags.Changed(name) {
				return true
			}
		}
		return false
	}
	if anyOf("account", "kind", "iccid", "partner-code") {
		if group.Filter, err = f.filter(); err != nil {
			return nil, err
		}
		given = append(given, "filter")
	}
	if anyOf("lease") {
		if f.lease <= 0 {
			return nil, usagef("--lease must be from 1s to 1h")
		}
		group.LeaseDuration, given = durationpb.New(f.lease), append(given, "lease_duration")
	}
	if anyOf("max-attempts") {
		if f.maxAttempts < 1 {
			return nil, usagef("--max-attempts must be from 1 to 100")
		}
		group.MaxAttempts, given = f.maxAttempts, append(given, "max_attempts")
	}
	if anyOf("back-off", "back-off-max") {
		if group.BackOff == nil {
			group.BackOff = &linksgatev1.RetryBackOff{}
		}
		if anyOf("back-off") {
			group.BackOff.Initial = durationpb.New(f.backOff)
		}
		if anyOf("back-off-max") {
			group.BackOff.Maximum = durationpb.New(f.backOffMax)
		}
		given = append(given, "back_off")
	}
	return given, nil
}

func newGroupCreateCommand(f *groupFlags) *cobra.Command {
	var rules ruleFlags
	var start startFlags
	var ordering string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create GROUP",
		Short: "Create a group",
		Long: `Create creates a group: durable when the command ends. It starts with what is received
from now on, or where --from-start, --after or --since say.

A name is from 1 to 63 lower-case letters, digits and hyphens, beginning with a
letter. The filters say which notifications the group is about; others are passed
over. The ordering cannot be changed later, everything else can.

--ordering by-sim: the notifications of one SIM are handled one at a time, in the
order of the log. One that fails holds up those of its SIM until it was handled or
parked. Those that name no SIM are not ordered.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			group := &linksgatev1.Group{Name: args[0]}
			var err error
			if group.Ordering, err = parseOrdering(ordering); err != nil {
				return err
			}
			if _, err := rules.rules(group, cmd.Flags()); err != nil {
				return err
			}
			request, err := createRequest(group, &start, cmd.Flags(), time.Now())
			if err != nil {
				return err
			}
			return f.call(func(client *groupClient) error {
				response, err := client.CreateGroup(cmd.Context(), request)
				if err != nil {
					return client.explain("create group "+visible(args[0]), err)
				}
				return showGroup(cmd.OutOrStdout(), response.GetGroup(), asJSON)
			})
		},
	}
	flags := cmd.Flags()
	rules.register(flags)
	start.register(flags)
	flags.StringVar(&ordering, "ordering", "none", "which notifications may be leased at the same time: none (any) or by-sim (`ORDERING`)")
	flags.BoolVar(&asJSON, "json", false, "print the group as one line of JSON")
	return cmd
}

func parseOrdering(name string) (linksgatev1.GroupOrdering, error) {
	switch name {
	case "none":
		return linksgatev1.GroupOrdering_GROUP_ORDERING_NONE, nil
	case "by-sim":
		return linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM, nil
	}
	return 0, usagef("--ordering must be none or by-sim, not %q", name)
}

func createRequest(group *linksgatev1.Group, start *startFlags, flags *pflag.FlagSet, now time.Time) (*linksgatev1.CreateGroupRequest, error) {
	if err := start.check(flags); err != nil {
		return nil, err
	}
	at, err := start.start(now)
	if err != nil {
		return nil, err
	}
	request := &linksgatev1.CreateGroupRequest{Group: group, Start: at}
	if at == nil {
		request.Start = latest()
	}
	return request, nil
}

func newGroupUpdateCommand(f *groupFlags) *cobra.Command {
	var rules ruleFlags
	var noFilter, asJSON bool
	cmd := &cobra.Command{
		Use:   "update GROUP",
		Short: "Change rules of a group",
		Long: `Update changes the rules that are given, for the leases given after that. The filters
belong together: giving any of them replaces all of them. Name and ordering cannot be
changed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(func(client *groupClient) error {
				group := &linksgatev1.Group{Name: args[0]}
				if !cmd.Flags().Changed("back-off") != !cmd.Flags().Changed("back-off-max") {
					now, err := client.get(cmd.Context(), args[0]) // the other of the two stays as it is
					if err != nil {
						return err
					}
					group.BackOff = now.GetBackOff()
				}
				given, err := rules.rules(group, cmd.Flags())
				switch {
				case err != nil:
					return err
				case noFilter && group.Filter != nil:
					return usagef("--no-filter and filters exclude each other")
				case noFilter:
					given = append(given, "filter")
				case len(given) == 0:
					return usagef("nothing to change; see linksgate group update --help")
				}
				response, err := client.UpdateGroup(cmd.Context(), &linksgatev1.UpdateGroupRequest{
					GroupName: args[0], Group: group, UpdateMask: &fieldmaskpb.FieldMask{Paths: given},
				})
				if err != nil {
					return client.explain("update group "+visible(args[0]), err)
				}
				return showGroup(cmd.OutOrStdout(), response.GetGroup(), asJSON)
			})
		},
	}
	rules.register(cmd.Flags())
	cmd.Flags().BoolVar(&noFilter, "no-filter", false, "from now on all notifications")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the group as one line of JSON")
	return cmd
}

func newGroupSeekCommand(f *groupFlags) *cobra.Command {
	var start startFlags
	var latest, dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "seek GROUP {--latest | --from-start | --after TOKEN | --since TIME}",
		Short: "Move a group to another position in the log",
		Long: `Seek moves a group to another position in the log. Going back, what is after it
comes again; going forward, what is before it is left out. What is parked stays
parked. It says where the group was, and how to go back there.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := seekRequest(args[0], latest, &start, cmd.Flags(), time.Now())
			if err != nil {
				return err
			}
			return f.call(func(client *groupClient) error {
				group, err := client.get(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.ErrOrStderr(), placeText(group))
				if dryRun {
					return nil
				}
				response, err := client.SeekGroup(cmd.Context(), request)
				if err != nil {
					return client.explain("seek group "+visible(args[0]), err)
				}
				return showGroup(cmd.OutOrStdout(), response.GetGroup(), asJSON)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&latest, "latest", false, "go to the head of the log: on with what is received from now on")
	start.register(flags)
	flags.BoolVar(&dryRun, "dry-run", false, "only say where the group is")
	flags.BoolVar(&asJSON, "json", false, "print the group as one line of JSON")
	return cmd
}

func seekRequest(name string, toHead bool, start *startFlags, flags *pflag.FlagSet, now time.Time) (*linksgatev1.SeekGroupRequest, error) {
	if err := start.check(flags); err != nil {
		return nil, err
	}
	at, err := start.start(now)
	switch {
	case err != nil:
		return nil, err
	case toHead && at != nil:
		return nil, usagef("--latest, --after, --since and --from-start exclude each other")
	case toHead:
		at = latest()
	case at == nil:
		return nil, usagef("say where to: --latest, --from-start, --after or --since")
	}
	request := &linksgatev1.SeekGroupRequest{GroupName: name, To: at}
	return request, nil
}

// placeText says where a group is, and how it gets there again.
func placeText(group *linksgatev1.Group) string {
	name := visible(group.GetName())
	place := group.GetStatus().GetOldestUnsettled()
	if place == nil {
		return "linksgate: " + name + " had settled everything; linksgate group seek " + name + " --latest goes there"
	}
	return fmt.Sprintf("linksgate: %s was at %s; linksgate group seek %s --after %s goes back", name, oldestText(place), name, visible(place.GetToken()))
}

func showGroup(w io.Writer, group *linksgatev1.Group, asJSON bool) error {
	if asJSON {
		return writeMessage(w, group)
	}
	_, err := io.WriteString(w, groupText(group, time.Now()))
	return err
}
