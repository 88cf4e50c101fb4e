package main

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const groupLong = `A group shares the log among its members: each notification is handled by one of
them. A member is lent a notification for a time, the lease, and acknowledges it when
it has handled it. What a member rejects, or does not settle before the lease ends,
or had when it went away, comes again, to any member, after a back-off. What has come
--max-attempts times is set aside: it is parked, with the reason, until somebody
replays or purges it, and holds nothing else up.

A group keeps its place in the log, over restarts of members and of the gateway.
Delivery is at least once: a member must expect to see a notification again.

With --ordering by-sim the notifications of one SIM are handled one at a time and in
the order of the log, whatever the number of members; other SIMs go on meanwhile.

Members are programs that call the WorkerService, or linksgate consume.`

const groupExample = `  # Share the SMS that come from now on; one SIM's never at the same time
  linksgate group create sms --kind sms-received --ordering by-sim
  linksgate consume sms --exec ./handle-sms

  # How is it doing?
  linksgate group show sms

  # What failed, and again after the fix
  linksgate group parked sms
  linksgate group replay sms --all

  # Everything since yesterday again
  linksgate group seek sms --since 24h`

// groupFlags are the flags that all the commands of group share.
type groupFlags struct {
	connection
}

func newGroupCommand() *cobra.Command {
	var f groupFlags
	cmd := &cobra.Command{
		Use:     "group",
		Short:   "Share the log among the members of a group",
		Long:    groupLong,
		Example: groupExample,
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	f.register(flags)
	cmd.AddCommand(newGroupCreateCommand(&f), newGroupListCommand(&f), newGroupShowCommand(&f), newGroupUpdateCommand(&f),
		newGroupSeekCommand(&f), newGroupPauseCommand(&f), newGroupResumeCommand(&f), newGroupDeleteCommand(&f), newGroupParkedCommand(&f), newGroupReplayCommand(&f), newGroupPurgeCommand(&f))
	return cmd
}

// call calls run with a client of the gateway.
func (f *groupFlags) call(run func(*groupClient) error) error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return run(&groupClient{linksgatev1.NewGroupServiceClient(conn), &f.connection})
}

// groupClient asks a gateway about its groups.
type groupClient struct {
	linksgatev1.GroupServiceClient
	*connection
}

func (c *groupClient) get(ctx context.Context, name string) (*linksgatev1.Group, error) {
	response, err := c.GetGroup(ctx, &linksgatev1.GetGroupRequest{GroupName: name})
	if err != nil {
		return nil, c.explain("get group "+visible(name), err)
	}
	return response.GetGroup(), nil
}

// all yields the groups by name, page by page.
func (c *groupClient) all(ctx context.Context) iter.Seq2[*linksgatev1.Group, error] {
	return func(yield func(*linksgatev1.Group, error) bool) {
		request := &linksgatev1.ListGroupsRequest{PageSize: greatestPage}
		for {
			page, err := c.ListGroups(ctx, request)
			if err != nil {
				yield(nil, c.explain("list the groups", err))
				return
			}
			for _, group := range page.GetGroups() {
				if !yield(group, nil) {
					return
				}
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}

// explain turns the error of a call into one that says what to do.
func (c *groupClient) explain(what string, err error) error {
	st := status.Convert(err)
	info, _ := details(st)
	if err := c.examineFailure(st, c.address); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %s: %s\n  %s", what, st.Code(), escaped(st.Message()), groupAdvice(st.Code(), info.GetMetadata()["first_available_token"], c.address))
}

// groupAdvice is what can be done about an error of the GroupService.
func groupAdvice(code codes.Code, firstAvailable, address string) string {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded:
		return "is the gateway running at " + visible(address) + "? Nothing is lost by trying again"
	case codes.NotFound:
		return "linksgate group list shows the groups, linksgate group create makes one"
	case codes.AlreadyExists:
		return "linksgate group update changes a group, linksgate group seek moves it"
	case codes.Aborted:
		return "somebody else changed it at the same time: look at it with show, then try again"
	case codes.OutOfRange:
		advice := "notifications after this place have expired: --from-start starts with the oldest that is retained"
		if firstAvailable != "" {
			advice += ", as does --after " + visible(firstAvailable)
		}
		return advice
	case codes.DataLoss:
		return "the log lost its end: start with --from-start or --since"
	case codes.FailedPrecondition:
		return "the token belongs to another log: is " + visible(address) + " the right address?"
	case codes.InvalidArgument:
		return "check the name and the flags; linksgate group list shows the groups"
	case codes.ResourceExhausted:
		return "the gateway has as many as it takes"
	case codes.Unimplemented, codes.Unknown:
		return "is " + visible(address) + " the gRPC address of a Linksgate that has groups?"
	case codes.Canceled:
		return "interrupted: what was done stays done"
	case codes.Unauthenticated, codes.PermissionDenied:
		return credentialAdvice
	}
	return "the gateway's log says more"
}

func newGroupDeleteCommand(f *groupFlags) *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "delete GROUP",
		Short: "Delete a group, its place in the log and what it has parked",
		Long: `Delete deletes a group, its place in the log and what it has parked, for good. Its
members are sent away. The notifications stay in the log. It asks first, or is told
--yes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes && !dryRun && !canAnswer(cmd.InOrStdin()) {
				return errDeleteUnconfirmed
			}
			return f.call(func(client *groupClient) error { return deleteGroup(cmd, client, args[0], yes, dryRun) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

var errDeleteUnconfirmed = usagef("delete is for good: see with --dry-run what, then confirm with --yes")

func deleteGroup(cmd *cobra.Command, client *groupClient, name string, yes, dryRun bool) error {
	group, err := client.get(cmd.Context(), name)
	if err != nil {
		return err
	}
	s := group.GetStatus()
	text := fmt.Sprintf("group %s with %d parked and %s", visible(name), s.GetParked(), plural(uint64(len(s.GetMembers())), "member"))
	if dryRun {
		fmt.Fprintln(cmd.OutOrStdout(), text+" would be deleted")
		return nil
	}
	if !yes {
		if err := confirm(cmd, "Delete "+text+" for good?"); errors.Is(err, errUnconfirmed) {
			return errDeleteUnconfirmed
		} else if err != nil {
			return err
		}
	}
	if _, err := client.DeleteGroup(cmd.Context(), &linksgatev1.DeleteGroupRequest{GroupName: name}); err != nil {
		return client.explain("delete group "+visible(name), err)
	}
	fmt.Fprintln(cmd.OutOrStdout(), text+" deleted")
	return nil
}
