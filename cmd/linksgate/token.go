package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/linksgate/linksgate/server/access"
)

const tokenLong = `Token makes access tokens for callers of a gateway.

A token is shown once, on standard output. The gateway's configuration gets its SHA-256
only, from which nobody can make the token; the lines to put there are on standard error.
A caller may have several tokens: to replace one, add the new one, have the caller change
over, and take the old one out when linksgate callers shows that it is not used any more.`

func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Make access tokens", Long: tokenLong, Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenNewCommand())
	return cmd
}

func newTokenNewCommand() *cobra.Command {
	var expires string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "new CALLER",
		Short: "Make a token for a caller, and the lines for the gateway's configuration",
		Long:  tokenLong,
		Example: `  (umask 077; linksgate token new billing > billing.token)
  linksgate tail --token-file billing.token`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if expires != "" {
				if _, err := time.Parse(time.DateOnly, expires); err != nil {
					return usagef("--expires: %q is not a date such as 2027-03-31", expires)
				}
			}
			token := access.NewToken()
			digest, name := access.DigestOf(token).String(), time.Now().UTC().Format(time.DateOnly)
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{
					"caller": args[0], "token": token, "name": name, "sha256": digest, "expires": expires,
				})
			}
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), token); err != nil {
				return err
			}
			printTokenLines(cmd.ErrOrStderr(), args[0], name, digest, expires)
			return nil
		},
	}
	cmd.Flags().StringVar(&expires, "expires", "", "`DATE` at whose end the token ends, such as 2027-03-31; default: never")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the token and its digest as one line of JSON")
	return cmd
}

// printTokenLines prints what belongs into the gateway's configuration.
func printTokenLines(w io.Writer, caller, name, digest, expires string) {
	fmt.Fprintf(w, "# The token is on standard output, and shown only now. For the gateway's configuration:\naccess:\n  callers:\n    %s:\n      tokens:\n"+
		"        - name: %q\n          sha256: %q\n", caller, name, digest)
	if expires != "" {
		fmt.Fprintf(w, "          expires: %q\n", expires)
	}
	fmt.Fprintf(w, "      grants: {}   # nothing yet: read, work, operate, admin\n")
}
