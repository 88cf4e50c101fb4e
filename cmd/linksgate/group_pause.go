package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

func newGroupPauseCommand(f *groupFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "pause GROUP",
		Short: "Lease nothing more, until linksgate group resume",
		Long: `Pause makes a group lease nothing more, also after a restart of the gateway, until
linksgate group resume. Members stay connected, and can settle what they have. The
notifications wait in the log, as long as that retains them.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.setPaused(cmd, args[0], true, "paused") },
	}
}

func newGroupResumeCommand(f *groupFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "resume GROUP",
		Short: "Lease again, after linksgate group pause",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return f.setPaused(cmd, args[0], false, "resumed") },
	}
}

func (f *groupFlags) setPaused(cmd *cobra.Command, name string, paused bool, done string) error {
	return f.call(func(client *groupClient) error {
		_, err := client.UpdateGroup(cmd.Context(), &linksgatev1.UpdateGroupRequest{
			GroupName: name, Group: &linksgatev1.Group{Paused: paused}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"paused"}},
		})
		if err != nil {
			return client.explain(fmt.Sprintf("%s group %s", cmd.Name(), visible(name)), err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "group %s %s\n", visible(name), done)
		return err
	})
}
