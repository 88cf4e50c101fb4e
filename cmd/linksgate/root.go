package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

const rootLong = `Linksgate receives the signed notifications that Linksfield sends over HTTP,
makes them durable, and streams them as typed messages over gRPC.

Secrets are never given as flags, where other users of the machine could read
them: --...-file names a file that holds one, --...-env an environment variable.

Exit status: 0 done; 1 failed; 2 called in a way that makes no sense.`

// newRootCommand builds the whole command line. It touches neither the
// environment nor the network before a command runs.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "linksgate",
		Short:         "Receive Linksfield's notifications and stream them to services",
		Long:          rootLong,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,
		Version:       builtFrom().text(),
	}
	root.SetVersionTemplate("{{.Version}}")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(
		newServeCommand(),
		newDemoCommand(),
		newSecretsCommand(), newCallersCommand(), newTokenCommand(), newAuditCommand(), newContextCommand(),
		newSendCommand(),
		newTailCommand(),
		newVerifyCommand(), newSignCommand(), newObserveCommand(),
		newQuarantineCommand(),
		newGroupCommand(), newSubscriptionsCommand(), newMCPCommand(),
		newConsumeCommand(),
		newDoctorCommand(),
		newBackupCommand(),
		newRestoreCommand(),
		newEraseCommand(),
		newVersionCommand(),
	)
	markErrors(root)
	return root
}

func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	cmd.SuggestionsMinimumDistance = 2 // typing mistakes
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		hint = fmt.Sprintf("; did you mean %s?", strings.Join(similar, " or "))
	}
	return usagef("unknown command %q%s; see %s --help", args[0], hint, cmd.CommandPath())
}
