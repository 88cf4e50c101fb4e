package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/linksgate/linksgate/server/doctor"
	"github.com/linksgate/linksgate/server/store/disk"
)

const backupLong = `Backup makes BACKUP a copy of the data directory DIR, while the gateway runs or not: the
log, the quarantine, groups and what they have parked, up to what was durable when
it came to each. Files that are complete are linked where BACKUP is on the same file
system, and copied elsewhere; run again, it copies only what is new, and removes what
the gateway has let expire.

BACKUP is a data directory itself: doctor checks it, restore copies it back. It has
no secrets in it, but every notification.`

const restoreLong = `Restore copies BACKUP, which backup made, to DIR, which must not exist or be empty, after
it has checked it as doctor does.

A gateway that goes on with DIR begins a new epoch: tokens that readers have of what
came after the backup are refused with DATA_LOSS, and no id names two notifications.
What was released from quarantine after the backup began can be released again.`

func newBackupCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "backup DIR BACKUP",
		Short:   "Copy a gateway's data directory, also while the gateway runs",
		Long:    backupLong,
		Example: `  linksgate backup /var/lib/linksgate /mnt/backup/linksgate`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCopy(cmd, args[0], args[1], disk.CopyOptions{Link: true}, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "tell what was done as JSON")
	return cmd
}

func newRestoreCommand() *cobra.Command {
	var asJSON, force bool
	cmd := &cobra.Command{
		Use:     "restore BACKUP DIR",
		Short:   "Copy a backup to a new data directory",
		Long:    restoreLong,
		Example: `  linksgate restore /mnt/backup/linksgate /var/lib/linksgate`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if entries, err := os.ReadDir(args[1]); err == nil && len(entries) > 0 {
				return usageError{fmt.Errorf("%s is not empty: restore to a new directory", args[1])}
			}
			progress := newTicker(cmd.ErrOrStderr())
			summary, err := doctor.Check(cmd.Context(), args[0], doctor.Options{
				Report:   func(p doctor.Problem) { _, _ = io.WriteString(cmd.ErrOrStderr(), problemText(p)) },
				Progress: func(done, total int64) { progress.tell("checking: %d%%", 100*done/max(total, 1)) },
			})
			if err != nil {
				return usageError{err}
			}
			if summary.Problems > 0 && !force {
				return errors.New("the backup is damaged: restore it all the same with --force; what is damaged becomes a gap")
			}
			return runCopy(cmd, args[0], args[1], disk.CopyOptions{}, asJSON)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also if the backup is damaged")
	cmd.Flags().BoolVar(&asJSON, "json", false, "tell what was done as JSON")
	return cmd
}

// copiedJSON is what was done, as JSON.
type copiedJSON struct {
	Copied  int   `json:"segments_copied"`
	Linked  int   `json:"segments_linked"`
	Present int   `json:"segments_present"`
	Removed int   `json:"segments_removed"`
	Bytes   int64 `json:"bytes_written"`
}

func runCopy(cmd *cobra.Command, from, to string, options disk.CopyOptions, asJSON bool) error {
	progress := newTicker(cmd.ErrOrStderr())
	options.Progress = func(done, total int64) { progress.tell("copying: %d%%", 100*done/max(total, 1)) }
	done, err := disk.Copy(cmd.Context(), from, to, options)
	if err != nil {
		return fmt.Errorf("%w; run it again to complete the copy", err)
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), copiedJSON{done.Copied, done.Linked, done.Present, done.Removed, done.Bytes})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d segments copied (%d bytes), %d linked, %d there already, %d removed\n",
		done.Copied, done.Bytes, done.Linked, done.Present, done.Removed)
	return err
}
