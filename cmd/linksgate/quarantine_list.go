package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

func newQuarantineListCommand(f *quarantineFlags) *cobra.Command {
	var filter entryFilter
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the entries, in the order of arrival",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request, err := filter.request(time.Now())
			if err != nil {
				return err
			}
			return f.call(func(client *quarantineClient) error {
				out := bufio.NewWriter(cmd.OutOrStdout())
				show, finish := entryTable(out)
				if asJSON {
					show, finish = func(e *linksgatev1.QuarantineEntry) error { return writeMessage(out, e) }, out.Flush
				}
				none := true
				for entry, err := range client.entries(cmd.Context(), request) {
					if err == nil {
						none, err = false, show(entry)
					}
					if err != nil {
						_ = finish() // what there is before it
						return err
					}
				}
				switch {
				case none && filter.given():
					tellNone(cmd, "the filters select no entry of the quarantine")
				case none:
					tellNone(cmd, "the quarantine is empty")
				}
				return finish()
			})
		},
	}
	filter.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each entry, complete with its body")
	return cmd
}

// entryTable writes a table, a piece at a time.
func entryTable(out *bufio.Writer) (show func(*linksgatev1.QuarantineEntry) error, finish func() error) {
	table := newTable(out, "ID\tRECEIVED\tACCOUNT\tKIND\tREASON\tSOURCE\tSIZE")
	show = func(e *linksgatev1.QuarantineEntry) error {
		return table.row("%s\t%s\t%s\t%s\t%s\t%s\t%d\n", visible(e.GetId()), timeText(e.GetReceivedAt().AsTime()), orDash(e.GetAccount()),
			kindText(e.GetKind()), reasonName(e.GetReason()), sourceText(e.GetSourceAddress()), len(bodyOf(e)))
	}
	return show, table.finish
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func sourceText(address string) string {
	if address == "" {
		return "-"
	}
	return visible(address)
}

func bodyOf(e *linksgatev1.QuarantineEntry) string {
	if raw, ok := e.GetRaw().(*linksgatev1.QuarantineEntry_BinaryBody); ok {
		return string(raw.BinaryBody)
	}
	return e.GetBody()
}

// writeMessage writes a message in the Protobuf JSON form, as one line on which nothing is hidden.
func writeMessage(w io.Writer, m proto.Message) error {
	line, err := jsonLine(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

func newQuarantineShowCommand(f *quarantineFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show an entry: headers, body, and what was tried to verify it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return f.call(func(client *quarantineClient) error {
				response, err := client.GetQuarantineEntry(cmd.Context(), &linksgatev1.GetQuarantineEntryRequest{Id: ids[0]})
				if err != nil {
					return client.explain("get "+visible(ids[0]), err)
				}
				if asJSON {
					return writeMessage(cmd.OutOrStdout(), response.GetEntry())
				}
				_, err = io.WriteString(cmd.OutOrStdout(), entryText(response.GetEntry()))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

// entryText is an entry for a person. It shows all of the body, line by line.
func entryText(e *linksgatev1.QuarantineEntry) string {
	var b strings.Builder
	for _, line := range [][2]string{
		{"id", visible(e.GetId())},
		{"received", timeText(e.GetReceivedAt().AsTime())},
		{"account", visible(e.GetAccount())},
		{"kind", kindText(e.GetKind())},
		{"reason", reasonName(e.GetReason()) + ": " + escaped(e.GetDetail())},
		{"source", sourceText(e.GetSourceAddress())},
		{"digest", visible(e.GetContentDigest())},
		{"path", escaped(e.GetPath())},
	} {
		if line[0] == "path" && line[1] == "" {
			continue
		}
		fmt.Fprintf(&b, "%-9s %s\n", line[0], line[1])
	}
	if trace := e.GetTraceContext(); trace != nil {
		fmt.Fprintf(&b, "%-9s %s %s\n", "trace", visible(trace.GetTraceparent()), escaped(trace.GetTracestate()))
	}
	fmt.Fprintln(&b, "headers")
	for _, header := range e.GetHeaders() {
		fmt.Fprintf(&b, "  %s: %s\n", visible(header.GetName()), escaped(header.GetValue()))
	}
	fmt.Fprintln(&b, "tried in vain")
	for _, attempt := range e.GetAttempts() {
		fmt.Fprintf(&b, "  %s\n", attemptText(attempt))
	}
	if len(e.GetAttempts()) == 0 {
		fmt.Fprintln(&b, "  nothing")
	}
	body := bodyOf(e)
	fmt.Fprintf(&b, "body, %s\n", plural(uint64(len(body)), "byte"))
	for line := range strings.SplitSeq(body, "\n") {
		fmt.Fprintf(&b, "  %s\n", escaped(line))
	}
	return b.String()
}

func attemptText(a *linksgatev1.SignatureAttempt) string {
	return words(enumText(a.GetScheme().String(), "SIGNATURE_SCHEME_"), pair("key-id", a.GetKeyId()),
		pair("secret", a.GetSecretName()), pair("reading", a.GetReading()))
}
