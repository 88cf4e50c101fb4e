package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const eraseLong = `Erase removes every notification of a SIM that the gateway has stored: from the log, the
quarantine and what groups have parked. When it ends, none can be read any more; within
minutes they are replaced in every file of the data directory. Subscribers that read past
them are told of a gap with the reason GAP_REASON_ERASED. What comes later is stored.

It does not reach backups and other copies of the data directory: erase them, or restore
and erase again. Nor does it reach what subscribers have received.

It asks first, or is told --yes.`

// erasedJSON is what was erased, as JSON.
type erasedJSON struct {
	Notifications     int64 `json:"notifications"`
	QuarantineEntries int64 `json:"quarantine_entries"`
	Parked            int64 `json:"parked"`
	DryRun            bool  `json:"dry_run"`
}

// eraseFlags are the flags of erase as given.
type eraseFlags struct {
	connection
	iccid               string
	dryRun, yes, asJSON bool
}

func newEraseCommand() *cobra.Command {
	var f eraseFlags
	cmd := &cobra.Command{
		Use:   "erase --iccid ICCID",
		Short: "Remove everything that is stored about a SIM",
		Long:  eraseLong,
		Example: `  linksgate erase --iccid 89860220190000000001 --dry-run
  linksgate erase --iccid 89860220190000000001`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.iccid, "iccid", "", "`ICCID` of the SIM, as it is in the notifications")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only count what would be removed")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	flags.BoolVar(&f.asJSON, "json", false, "tell the counts as JSON")
	f.register(flags)
	return cmd
}

func (f *eraseFlags) run(cmd *cobra.Command) error {
	if f.iccid == "" {
		return usagef("--iccid is missing: which SIM is to be erased?")
	}
	if !f.dryRun && !f.yes {
		if !canAnswer(cmd.InOrStdin()) {
			return errUnconfirmed
		}
		if err := confirm(cmd, "Remove everything about "+visible(f.iccid)+" for good?"); err != nil {
			return err
		}
	}
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	erased, err := linksgatev1.NewErasureServiceClient(conn).EraseSim(cmd.Context(), &linksgatev1.EraseSimRequest{Iccid: f.iccid, DryRun: f.dryRun})
	if err != nil {
		return f.explain(err, f.address)
	}
	if f.asJSON {
		return printJSON(cmd.OutOrStdout(), erasedJSON{erased.GetNotifications(), erased.GetQuarantineEntries(), erased.GetParked(), f.dryRun})
	}
	would := ""
	if f.dryRun {
		would = "would be "
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s, %s and %d parked %serased\n",
		plural(erased.GetNotifications(), "notification"), "quarantine "+entriesText(int(erased.GetQuarantineEntries())), erased.GetParked(), would)
	return err
}

// explain turns the error of a call into one that says what to do.
func (f *eraseFlags) explain(err error, address string) error {
	st := status.Convert(err)
	if err := f.examineFailure(st, address); err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	advice := "call again: what was erased stays erased"
	switch st.Code() {
	case codes.InvalidArgument:
		advice = "give the digits of the ICCID, as tail shows them"
	case codes.Unimplemented:
		advice = "this gateway's log cannot be erased from"
	case codes.Unauthenticated, codes.PermissionDenied:
		advice = credentialAdvice
	}
	return fmt.Errorf("erase: %s: %s\n  %s", st.Code(), escaped(st.Message()), advice)
}
