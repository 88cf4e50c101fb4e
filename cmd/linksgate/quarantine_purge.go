package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const purgeLong = `Purge deletes entries for good: a notification in them is lost. With --all, exactly
the entries that are there when it begins; it asks first, or is told --yes.`

func newQuarantinePurgeCommand(f *quarantineFlags) *cobra.Command {
	var c choice
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "purge {ID ... | --all}",
		Short: "Delete entries for good",
		Long:  purgeLong,
		RunE: func(cmd *cobra.Command, ids []string) error {
			if err := c.check(ids); err != nil {
				return err
			}
			if c.all && !yes && !dryRun && !canAnswer(cmd.InOrStdin()) {
				return errUnconfirmed
			}
			return f.call(func(client *quarantineClient) error { return purge(cmd, client, &c, ids, yes, dryRun) })
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask before --all is deleted")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only list what would be deleted")
	return cmd
}

func purge(cmd *cobra.Command, client *quarantineClient, c *choice, ids []string, yes, dryRun bool) error {
	entries, err := c.entries(cmd.Context(), client, ids)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	show, finish := entryTable(out)
	// What arrives from here on has been seen by nobody: it stays.
	var chosen []string
	for entry, err := range entries {
		if err == nil && dryRun {
			err = show(entry)
		}
		if err != nil {
			return err
		}
		chosen = append(chosen, entry.GetId())
	}
	if err := finish(); err != nil {
		return err
	}
	count := entriesText(len(chosen))
	if dryRun {
		fmt.Fprintln(cmd.OutOrStdout(), count+" would be deleted")
		return nil
	}
	if c.all && !yes && len(chosen) > 0 {
		if err := confirm(cmd, "Delete "+count+" for good?"); err != nil {
			return err
		}
	}
	progress := newTicker(cmd.ErrOrStderr())
	deleted, gone := 0, 0
	for _, id := range chosen {
		_, err := client.PurgeQuarantineEntry(cmd.Context(), &linksgatev1.PurgeQuarantineEntryRequest{Id: id})
		switch status.Code(err) {
		case codes.OK:
			deleted++
		case codes.NotFound:
			gone++
		default:
			fmt.Fprintln(cmd.OutOrStdout(), entriesText(deleted)+" deleted")
			return client.explain("purge "+visible(id), err)
		}
		progress.tell("%d of %s", deleted+gone, count)
	}
	text := entriesText(deleted) + " deleted"
	if gone > 0 {
		text += fmt.Sprintf(", %d no longer there", gone)
	}
	fmt.Fprintln(cmd.OutOrStdout(), text)
	return nil
}

var errUnconfirmed = usagef("--all deletes for good: see with --dry-run what, then confirm with --yes")

// confirm asks a question and returns nil only if the answer was yes.
func confirm(cmd *cobra.Command, question string) error {
	fmt.Fprint(cmd.ErrOrStderr(), question+" Type yes: ")
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	switch {
	case strings.TrimSpace(answer) == "yes":
		return nil
	case err != nil: // nobody is there to answer
		return errUnconfirmed
	}
	return errors.New("nothing was deleted")
}

// canAnswer reports whether there may be somebody to ask. The null device passes for one, and then answers nothing.
func canAnswer(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && isTerminal(file)
}
