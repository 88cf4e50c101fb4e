package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

const secretsCheckLong = `Check asks a running gateway which of its configured secrets verify notifications,
and says of each whether it is in use. Secrets are shown by name only.

A secret counts as in use when it verified the last notification of its account and
scheme (for hmac-sha1: of its key id), or one within the hour before that. One that
was in use before, and is no more while another is, can be removed.

A gateway knows what it verified itself, and from the log of the last 24 hours what
was verified before its start. Where several gateways share a log, ask each of them.

The exit status is 0 whatever is found, and 1 when the gateway cannot be asked.`

// overlap is how long two secrets of a kind count as in use together.
const overlap = time.Hour

func newSecretsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secrets",
		Short: "Tell which configured secrets are in use",
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSecretsCheckCommand())
	return cmd
}

func newSecretsCheckCommand() *cobra.Command {
	var c connection
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Tell which configured secrets are in use, and which can be removed",
		Long:  secretsCheckLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report := new(secretsReport)
			if err := c.askAdmin(cmd.Context(), "secrets", report); err != nil {
				return err
			}
			report.judge()
			if asJSON {
				return printJSON(cmd.OutOrStdout(), report)
			}
			return report.print(cmd.OutOrStdout(), time.Now())
		},
	}
	flags := cmd.Flags()
	c.registerAdmin(flags)
	flags.BoolVar(&asJSON, "json", false, "report as one line of JSON")
	return cmd
}

// secretsReport is what a gateway answers, with a verdict on each secret.
type secretsReport struct {
	ObservedSince time.Time      `json:"observed_since"`
	Secrets       []secretReport `json:"secrets"`
}

type secretReport struct {
	Account  string     `json:"account"`
	Scheme   string     `json:"scheme"`
	KeyID    string     `json:"key_id"`
	Name     string     `json:"name"`
	LastUsed *time.Time `json:"last_used"`
	Verdict  verdict    `json:"verdict"`
	// InUse is the secret of the same kind that was used last, if that is another one.
	InUse string `json:"in_use,omitempty"`
}

type verdict string

const (
	verdictInUse    verdict = "in_use"
	verdictReplaced verdict = "replaced"   // was in use, and another one of its kind is
	verdictUnused   verdict = "not_used"   // not seen, and another one of its kind is in use
	verdictNever    verdict = "never_used" // not seen, nor another one of its kind
)

// judge fills in the verdicts.
func (r *secretsReport) judge() {
	type group struct{ account, scheme, keyID string }
	groupOf := func(s *secretReport) group { return group{s.Account, s.Scheme, s.KeyID} }
	latest := make(map[group]*secretReport)
	for i := range r.Secrets {
		s := &r.Secrets[i]
		if before := latest[groupOf(s)]; s.LastUsed != nil && (before == nil || s.LastUsed.After(*before.LastUsed)) {
			latest[groupOf(s)] = s
		}
	}
	for i := range r.Secrets {
		s := &r.Secrets[i]
		inUse := latest[groupOf(s)]
		if inUse != nil && inUse != s {
			s.InUse = inUse.Name
		}
		switch {
		case inUse == nil:
			s.Verdict = verdictNever
		case s.LastUsed == nil:
			s.Verdict = verdictUnused
		case inUse.LastUsed.Sub(*s.LastUsed) > overlap:
			s.Verdict = verdictReplaced
		default:
			s.Verdict = verdictInUse
		}
	}
}

// advice is the verdict on a secret for a person.
func (r *secretsReport) advice(s *secretReport) string {
	switch s.Verdict {
	case verdictReplaced:
		return fmt.Sprintf("not used since %s: can be removed, %s has taken over", moment(*s.LastUsed), visible(s.InUse))
	case verdictUnused:
		return fmt.Sprintf("not used since %s: can be removed if %s, which is in use, is the newer one", moment(r.ObservedSince), visible(s.InUse))
	case verdictNever:
		return "never used as far as is known, since " + moment(r.ObservedSince)
	}
	if s.InUse != "" {
		return fmt.Sprintf("in use, and so is %s, which was used after it: keep both for now", visible(s.InUse))
	}
	return "in use"
}

func (r *secretsReport) print(w io.Writer, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ACCOUNT\tSCHEME\tKEY ID\tNAME\tLAST USED\tVERDICT")
	for i := range r.Secrets {
		s := &r.Secrets[i]
		used := "-"
		if s.LastUsed != nil {
			used = fmt.Sprintf("%s ago (%s)", age(now.Sub(*s.LastUsed)), moment(*s.LastUsed))
		}
		keyID := "-"
		if s.KeyID != "" {
			keyID = visible(s.KeyID)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", visible(s.Account), visible(s.Scheme), keyID, visible(s.Name), used, r.advice(s))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(r.Secrets) == 0 {
		fmt.Fprintln(w, "No secret is configured.")
	}
	return nil
}

func moment(t time.Time) string { return t.Local().Format(time.DateTime) }

// age writes a duration in its greatest unit.
func age(d time.Duration) string {
	d = max(d, 0) // the clocks may differ
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
