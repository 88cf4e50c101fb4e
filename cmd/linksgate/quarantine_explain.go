package main

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/signature"
)

const explainLong = `Explain tells what would make entries verify. It tries the secrets that you name, as they
are and with white space, quotes or a byte-order mark removed, decoded and with a line
break, over the body as it is, unpacked, in other character sets and with other line
breaks, by every reading of Linksfield's rule. The secrets stay here: the gateway only
gives the entries.

The exit status is 0 if something was found for every entry, else 1.`

// explained is what was found out about an entry, as JSON.
type explained struct {
	ID    string `json:"id"`
	Found *guess `json:"found"`
}

func newQuarantineExplainCommand(f *quarantineFlags) *cobra.Command {
	var c choice
	var secrets, keys []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain {ID ... | --all} --secret-file FILE",
		Short: "Tell what would make entries verify",
		Long:  explainLong,
		Example: `  linksgate quarantine explain --all --since 1h --secret-file md5.secret --secret-file old.secret
  linksgate quarantine explain 8gyy6h6x0p1em-q1 --key-file cube.key --json`,
	}
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if err := c.check(ids); err != nil {
			return err
		}
		md5, err := readSecrets("secret-file", secrets)
		if err != nil {
			return err
		}
		hmac, err := readSecrets("key-file", keys)
		if err != nil {
			return err
		}
		if len(md5)+len(hmac) == 0 {
			return usagef("name the secrets to try with --secret-file, and the keys with --key-file; both are repeatable")
		}
		return f.call(func(client *quarantineClient) error {
			x := explainer{
				out: bufio.NewWriter(cmd.OutOrStdout()), progress: newTicker(cmd.ErrOrStderr()), asJSON: asJSON, secrets: md5, keys: hmac,
				found: make(map[string]int),
			}
			entries, err := c.entries(cmd.Context(), client, ids, func(id string, why error) error {
				x.missing++
				_, err := fmt.Fprintf(cmd.ErrOrStderr(), "linksgate: %s: %s\n", visible(id), escaped(why.Error()))
				return err
			})
			if err != nil {
				return err
			}
			for entry, err := range entries {
				if err == nil {
					err = x.explain(entry)
				}
				if err != nil {
					_ = x.out.Flush()
					return err
				}
			}
			return x.finish()
		})
	}
	c.register(cmd.Flags())
	cmd.Flags().StringArrayVar(&secrets, "secret-file", nil, "`FILE` that holds a notification secret, for md5; repeatable")
	cmd.Flags().StringArrayVar(&keys, "key-file", nil, "`FILE` that holds a key, for hmac-sha1; repeatable")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON for each entry")
	return cmd
}

// readSecrets reads the files that a flag names. Nothing is taken off them but one line break: what is too much is to be found.
func readSecrets(flag string, files []string) (secrets []signature.Secret, err error) {
	for _, file := range files {
		one := secretFlags{prefix: flag[:len(flag)-len("-file")], file: file}
		secret, err := one.read()
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// explainer explains entries and counts.
type explainer struct {
	out           *bufio.Writer
	progress      *ticker
	asJSON        bool
	secrets, keys []signature.Secret

	all, without, missing int
	found                 map[string]int // by sentence
}

func (x *explainer) explain(entry *linksgatev1.QuarantineEntry) error {
	x.all++
	headers := make(http.Header)
	for _, header := range entry.GetHeaders() {
		headers.Add(header.GetName(), header.GetValue())
	}
	found, ok := guessHow(headers, []byte(bodyOf(entry)), x.secrets, x.keys)
	x.progress.tell("%d so far", x.all)
	if x.asJSON {
		one := explained{ID: entry.GetId()}
		if ok {
			one.Found = &found
		} else {
			x.without++
		}
		return printJSON(x.out, one)
	}
	text := "nothing that was tried makes it verify: " + reasonName(entry.GetReason())
	if ok {
		text = found.sentence()
		x.found[text]++
	} else {
		x.without++
	}
	_, err := fmt.Fprintf(x.out, "%s  %s  %s\n", visible(entry.GetId()), timeText(entry.GetReceivedAt().AsTime()), text)
	return err
}

func (x *explainer) finish() error {
	if !x.asJSON {
		for _, sentence := range slices.Sorted(maps.Keys(x.found)) {
			fmt.Fprintf(x.out, "%d of %d: %s\n", x.found[sentence], x.all, sentence)
		}
		if x.without > 0 {
			fmt.Fprintf(x.out, "%d of %d: nothing was found\n", x.without, x.all)
		}
	}
	if err := x.out.Flush(); err != nil {
		return err
	}
	if x.without+x.missing > 0 {
		return errReported
	}
	return nil
}
