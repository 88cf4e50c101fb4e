package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const purgeLong = `Purge deletes entries for good: a notification in them is lost. With --all, exactly
the entries that are there when it begins; it asks first, or is told --yes.

An ID that is not in quarantine keeps the others from nothing. The exit status is 1 if
there is one, or if an entry could not be deleted.`

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
	p := purger{client: client, all: c.all, out: cmd.OutOrStdout()}
	chosen := unique(ids)
	if c.all || dryRun {
		// What arrives from here on has been seen by nobody: it stays.
		var err error
		if chosen, err = p.list(cmd.Context(), c, ids, dryRun); err != nil {
			return err
		}
	}
	count := entriesText(len(chosen))
	if dryRun {
		return p.report(count+" would be deleted", nil)
	}
	if c.all && !yes && len(chosen) > 0 {
		if err := confirm(cmd, "Delete "+count+" for good?"); err != nil {
			return err
		}
	}
	progress := newTicker(cmd.ErrOrStderr())
	deleted := 0
	var err error
	for i, id := range chosen {
		if _, failed := client.PurgeQuarantineEntry(cmd.Context(), &linksgatev1.PurgeQuarantineEntryRequest{Id: id}); failed == nil {
			deleted++
		} else if err = p.fail(id, failed); err != nil {
			break
		}
		progress.tell("%d of %s", i+1, count)
	}
	return p.report(entriesText(deleted)+" deleted", err)
}

// purger counts what could not be deleted.
type purger struct {
	client       *quarantineClient
	all          bool
	out          io.Writer
	gone, failed int
}

// list returns the ids of what is chosen, and prints it.
func (p *purger) list(ctx context.Context, c *choice, ids []string, print bool) ([]string, error) {
	entries, err := c.entries(ctx, p.client, ids, p.fail)
	if err != nil {
		return nil, err
	}
	show, finish := entryTable(bufio.NewWriter(p.out))
	var chosen []string
	for entry, err := range entries {
		if err == nil && print {
			err = show(entry)
		}
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, entry.GetId())
	}
	return chosen, finish()
}

// fail tells of an entry that cannot be deleted. It returns an error only if going on is of no use.
func (p *purger) fail(id string, err error) error {
	why := p.client.whyAbsent(err)
	switch {
	case why != "":
		if p.gone++; p.all {
			return nil // somebody else was faster
		}
	case isHopeless(status.Code(err)):
		p.failed++
		return p.client.explain("purge "+visible(id), err)
	default:
		p.failed++
		why = "failed: " + escaped(status.Convert(err).Message())
	}
	_, err = fmt.Fprintf(p.out, "%s  %s\n", visible(id), why)
	return err
}

// report prints what was done, also when that ended with an error.
func (p *purger) report(text string, err error) error {
	if p.gone > 0 {
		text += fmt.Sprintf(", %d not in quarantine", p.gone)
	}
	if p.failed > 0 {
		text += fmt.Sprintf(", %d failed", p.failed)
	}
	fmt.Fprintln(p.out, text)
	if err == nil && (p.failed > 0 || p.gone > 0 && !p.all) {
		err = errReported
	}
	return err
}

var errUnconfirmed = usagef("--all deletes for good: see with --dry-run what, then confirm with --yes")

// confirm asks a question and returns nil only if the answer was yes.
func confirm(cmd *cobra.Command, question string) error {
	fmt.Fprint(cmd.ErrOrStderr(), question+" Type yes: ")
	type reply struct {
		text string
		err  error
	}
	replies := make(chan reply, 1)
	go func() { // nothing ends a wait for a terminal: it may go on until the process ends
		text, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
		replies <- reply{text, err}
	}()
	select {
	case r := <-replies:
		switch {
		case strings.TrimSpace(r.text) == "yes":
			return nil
		case r.err == nil:
			return errors.New("nothing was deleted")
		}
	case <-cmd.Context().Done():
	}
	fmt.Fprintln(cmd.ErrOrStderr()) // nobody has ended the line of the question
	return errUnconfirmed
}

// canAnswer reports whether there may be somebody to ask. The null device passes for one, and then answers nothing.
func canAnswer(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && isTerminal(file)
}
