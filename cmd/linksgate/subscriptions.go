package main

import (
	"bufio"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// subscriptionsFlags are the flags of subscriptions as given.
type subscriptionsFlags struct {
	asJSON bool
	connection
}

func newSubscriptionsCommand() *cobra.Command {
	var f subscriptionsFlags
	cmd := &cobra.Command{
		Use:   "subscriptions",
		Short: "List who is subscribed at a gateway, and how far behind",
		Args:  cobra.NoArgs,
		RunE:  f.run,
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.asJSON, "json", false, "print one line of JSON for each subscription")
	f.register(flags)
	return cmd
}

func (f *subscriptionsFlags) run(cmd *cobra.Command, _ []string) error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	response, err := linksgatev1.NewNotificationServiceClient(conn).ListSubscriptions(cmd.Context(), &linksgatev1.ListSubscriptionsRequest{})
	if err != nil {
		st := status.Convert(err)
		if err := f.examineFailure(st, f.address); err != nil {
			return fmt.Errorf("list the subscriptions: %w", err)
		}
		return fmt.Errorf("list the subscriptions: %s: %s\n  %s", st.Code(), escaped(st.Message()), groupAdvice(st.Code(), "", f.address))
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	if f.asJSON {
		for _, s := range response.GetSubscriptions() {
			if err := writeMessage(out, s); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	if len(response.GetSubscriptions()) == 0 {
		tellNone(cmd, "nobody is subscribed at this gateway")
	}
	now := time.Now()
	table := newTable(out, "CLIENT\tPEER\tSINCE\tLAG\tSENT\tFILTER")
	for _, s := range response.GetSubscriptions() {
		name := "-"
		if s.GetClientName() != "" {
			name = visible(s.GetClientName())
		}
		if err := table.row("%s\t%s\t%s\t%s\t%d\t%s\n", name, visible(s.GetPeer()), age(now.Sub(s.GetStartedAt().AsTime())), lagText(s.GetLag()),
			s.GetSent(), filterText(s.GetFilter())); err != nil {
			return err
		}
	}
	return table.finish()
}
