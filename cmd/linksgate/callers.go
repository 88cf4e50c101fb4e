package main

import (
	"bufio"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

const callersLong = `Callers asks a running gateway for the credentials of its callers: by which they are
known, when each ends, and when it was last used at this gateway since its start. Tokens
are shown by name only.

Where several gateways have the same callers, ask each of them.`

// credentialUse is a credential, and when it was used.
type credentialUse struct {
	Caller     string     `json:"caller"`
	Credential string     `json:"credential"`
	Expires    *time.Time `json:"expires"`
	LastUsed   *time.Time `json:"last_used"`
}

func newCallersCommand() *cobra.Command {
	var c connection
	var asJSON bool
	cmd := &cobra.Command{
		Use: "callers", Short: "List the credentials of a gateway's callers, and when each was used", Long: callersLong, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var answer struct {
				Credentials []credentialUse `json:"credentials"`
			}
			if err := c.askAdmin(cmd.Context(), "callers", &answer); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), answer)
			}
			if len(answer.Credentials) == 0 {
				tellNone(cmd, "no caller has a token, and none was seen with something else")
			}
			now := time.Now()
			table := newTable(bufio.NewWriter(cmd.OutOrStdout()), "CALLER\tCREDENTIAL\tLAST USED\tEXPIRES")
			for _, one := range answer.Credentials {
				used, expires := "-", "never"
				if one.LastUsed != nil {
					used = age(now.Sub(*one.LastUsed)) + " ago"
				}
				if one.Expires != nil {
					expires = fmt.Sprintf("in %s (%s)", age(one.Expires.Sub(now)), moment(*one.Expires))
					if !one.Expires.After(now) {
						expires = "expired " + moment(*one.Expires)
					}
				}
				if err := table.row("%s\t%s\t%s\t%s\n", visible(one.Caller), escaped(one.Credential), used, expires); err != nil {
					return err
				}
			}
			return table.finish()
		},
	}
	c.registerAdmin(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}
