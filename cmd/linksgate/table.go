package main

import (
	"bufio"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// tableRows is how many rows are aligned with each other.
const tableRows = 200

// pieceTable is a table that is written a piece at a time, of whatever length.
type pieceTable struct {
	out     *bufio.Writer
	table   *tabwriter.Writer
	heading string
	rows    int
}

func newTable(out *bufio.Writer, heading string) *pieceTable {
	return &pieceTable{out: out, table: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0), heading: heading}
}

func (t *pieceTable) row(format string, args ...any) error {
	if t.rows == 0 {
		fmt.Fprintln(t.table, t.heading)
	}
	t.rows++
	fmt.Fprintf(t.table, format, args...)
	if t.rows%tableRows == 0 {
		return t.finish()
	}
	return nil
}

func (t *pieceTable) finish() error {
	if err := t.table.Flush(); err != nil {
		return err
	}
	return t.out.Flush()
}

// tellNone says that a list is empty, where it disturbs nobody who reads the list.
func tellNone(cmd *cobra.Command, text string) {
	fmt.Fprintln(cmd.ErrOrStderr(), "linksgate: "+text)
}
