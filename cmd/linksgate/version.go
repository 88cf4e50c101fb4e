package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what a binary was built from, as far as it was recorded.
type build struct {
	Version  string `json:"version"`                 // of the module; (devel) without one
	Revision string `json:"revision,omitempty"`      // of the repository
	Time     string `json:"revision_time,omitempty"` // RFC 3339
	Modified bool   `json:"modified"`                // the working tree differed from the revision
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// builtFrom tells what this binary was built from.
func builtFrom() build {
	b := build{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = cmp.Or(info.Main.Version, b.Version)
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Revision = setting.Value
		case "vcs.time":
			b.Time = setting.Value
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		}
	}
	return b
}

// version is the version of the module that the binary was built from.
func version() string { return builtFrom().Version }

// text is for a person.
func (b build) text() string {
	text := "linksgate " + b.Version + "\n"
	if b.Revision != "" {
		text += "revision " + b.Revision
		if b.Time != "" {
			text += " of " + b.Time
		}
		if b.Modified {
			text += ", modified"
		}
		text += "\n"
	}
	return text + fmt.Sprintf("%s %s\n", b.Go, b.Platform)
}

func newVersionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Tell what this binary was built from",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd.OutOrStdout(), builtFrom())
			}
			_, err := io.WriteString(cmd.OutOrStdout(), builtFrom().text())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}
