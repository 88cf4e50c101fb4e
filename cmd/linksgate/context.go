package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const contextLong = `Context keeps the settings of the gateways that you use, by name, so that a command
needs no flags. They are in a file, by default contexts.yaml in the directory linksgate of
your configuration directory; $LINKSGATE_CONTEXTS names another one:

    current: production
    contexts:
      production:
        address: gateway.example.com:9090
        admin: https://gateway.example.com:9091
        ca: ca.pem
        token_file: production.token

Files count from the directory of that file. A flag goes before its environment variable,
and that before the context. The file holds no token itself.`

// contextsEnv names the file of contexts.
const contextsEnv = "LINKSGATE_CONTEXTS"

// clientContext is how to reach one gateway.
type clientContext struct {
	Address   string `yaml:"address,omitempty" json:"address,omitempty"`
	Admin     string `yaml:"admin,omitempty" json:"admin,omitempty"`
	TLS       bool   `yaml:"tls,omitempty" json:"tls,omitempty"`
	CA        string `yaml:"ca,omitempty" json:"ca,omitempty"`
	Cert      string `yaml:"cert,omitempty" json:"cert,omitempty"`
	Key       string `yaml:"key,omitempty" json:"key,omitempty"`
	TokenFile string `yaml:"token_file,omitempty" json:"token_file,omitempty"`
}

// clientContexts is the file of contexts.
type clientContexts struct {
	Current  string                   `yaml:"current,omitempty"`
	Contexts map[string]clientContext `yaml:"contexts"`
}

// contextsFile is where the contexts are.
func contextsFile() (string, error) {
	if file := os.Getenv(contextsEnv); file != "" {
		return file, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("there is no configuration directory: %w; name the file of contexts with $%s", err, contextsEnv)
	}
	return filepath.Join(dir, "linksgate", "contexts.yaml"), nil
}

// readContexts reads the contexts. No file is none.
func readContexts() (c clientContexts, file string, err error) {
	if file, err = contextsFile(); err != nil {
		if os.Getenv(contextsEnv) == "" {
			return c, "", nil // neither is there a context
		}
		return c, "", err
	}
	data, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, file, nil
	}
	if err == nil && len(strings.TrimSpace(string(data))) > 0 {
		err = yaml.UnmarshalWithOptions(data, &c, yaml.Strict())
	}
	if err != nil {
		return c, file, fmt.Errorf("read the contexts in %s: %s", file, escaped(err.Error()))
	}
	return c, file, nil
}

// chooseContext returns the context of a name, the current one if that is empty, or none.
func chooseContext(name string) (clientContext, error) {
	all, file, err := readContexts()
	if err != nil {
		return clientContext{}, err
	}
	wanted := name
	if wanted == "" {
		wanted = all.Current
	}
	chosen, ok := all.Contexts[wanted]
	if !ok {
		if wanted == "" {
			return clientContext{}, nil
		}
		return clientContext{}, usagef("there is no context %q in %s; linksgate context list shows those that there are", wanted, file)
	}
	for _, path := range []*string{&chosen.CA, &chosen.Cert, &chosen.Key, &chosen.TokenFile} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(filepath.Dir(file), *path)
		}
	}
	return chosen, nil
}

// write replaces the file of contexts.
func (c clientContexts) write(file string) error {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return usagef("write the contexts: %s is not a regular file", file)
	}
	data, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	beside := file + ".new"
	if err := os.WriteFile(beside, data, 0o600); err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	return os.Rename(beside, file)
}

func newContextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "context", Short: "Keep the settings of the gateways that you use", Long: contextLong, Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newContextListCommand(), newContextUseCommand(), newContextSetCommand(), newContextDeleteCommand())
	return cmd
}

func newContextListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the contexts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, file, err := readContexts()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"file": file, "current": all.Current, "contexts": all.Contexts})
			}
			if len(all.Contexts) == 0 {
				tellNone(cmd, "no context in "+file)
			}
			table := newTable(bufio.NewWriter(cmd.OutOrStdout()), "CURRENT\tNAME\tADDRESS\tADMIN\tTOKEN FILE")
			for _, name := range slices.Sorted(maps.Keys(all.Contexts)) {
				one, current := all.Contexts[name], ""
				if name == all.Current {
					current = "*"
				}
				if err := table.row("%s\t%s\t%s\t%s\t%s\n", current, visible(name), orDash(one.Address), orDash(one.Admin), orDash(one.TokenFile)); err != nil {
					return err
				}
			}
			return table.finish()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return escaped(text)
}

// changeContexts reads the contexts, changes them, and writes them.
func changeContexts(change func(*clientContexts) error) error {
	all, file, err := readContexts()
	if err != nil {
		return err
	}
	if file == "" {
		_, err := contextsFile()
		return err
	}
	if all.Contexts == nil {
		all.Contexts = make(map[string]clientContext)
	}
	if err := change(&all); err != nil {
		return err
	}
	return all.write(file)
}

func newContextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the one that commands use", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return changeContexts(func(all *clientContexts) error {
				if _, ok := all.Contexts[args[0]]; !ok {
					return usagef("there is no context %q; linksgate context set %[1]s --address HOST:PORT makes one", args[0])
				}
				all.Current = args[0]
				return nil
			})
		},
	}
}

func newContextSetCommand() *cobra.Command {
	var given clientContext
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Make a context, or change what is given of one", Args: cobra.ExactArgs(1),
		Example: `  linksgate context set production --address gateway.example.com:9090 --ca ca.pem --token-file token
  linksgate context use production`,
	}
	flags := cmd.Flags()
	flags.StringVar(&given.Address, "address", "", "`HOST:PORT` of the gateway's gRPC")
	flags.StringVar(&given.Admin, "admin", "", "`URL` of the gateway's admin address")
	flags.BoolVar(&given.TLS, "tls", false, "connect with TLS")
	flags.StringVar(&given.CA, "ca", "", "`FILE` of PEM certificates to trust instead of the system's")
	flags.StringVar(&given.Cert, "cert", "", "`FILE` of a client certificate (PEM)")
	flags.StringVar(&given.Key, "key", "", "`FILE` of its key")
	flags.StringVar(&given.TokenFile, "token-file", "", "`FILE` that holds the access token")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return changeContexts(func(all *clientContexts) error {
			one := all.Contexts[args[0]]
			err := one.take(given, flags)
			all.Contexts[args[0]] = one
			return err
		})
	}
	return cmd
}

// take takes what was given in flags. Files are found from everywhere then.
func (c *clientContext) take(given clientContext, flags *pflag.FlagSet) error {
	for name, value := range map[string]struct{ into, from *string }{
		"address": {&c.Address, &given.Address}, "admin": {&c.Admin, &given.Admin}, "ca": {&c.CA, &given.CA}, "cert": {&c.Cert, &given.Cert},
		"key": {&c.Key, &given.Key}, "token-file": {&c.TokenFile, &given.TokenFile},
	} {
		if !flags.Changed(name) {
			continue
		}
		*value.into = *value.from
		if *value.from == "" || name == "address" || name == "admin" {
			continue
		}
		path, err := filepath.Abs(*value.from)
		if err != nil {
			return err
		}
		*value.into = path
	}
	if flags.Changed("tls") {
		c.TLS = given.TLS
	}
	return nil
}

func newContextDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Forget a context", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return changeContexts(func(all *clientContexts) error {
				if _, ok := all.Contexts[args[0]]; !ok {
					return usagef("there is no context %q", args[0])
				}
				delete(all.Contexts, args[0])
				if all.Current == args[0] {
					all.Current = ""
				}
				return nil
			})
		},
	}
}
