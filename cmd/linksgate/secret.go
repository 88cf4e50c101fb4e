package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/linksgate/linksgate/server/signature"
)

// secretFlags are the two ways to name a secret without showing it.
type secretFlags struct {
	prefix    string // of the flags' names
	file, env string
}

func (f *secretFlags) register(flags *pflag.FlagSet, prefix, what string) {
	f.prefix = prefix
	flags.StringVar(&f.file, prefix+"-file", "", "`FILE` that holds "+what)
	flags.StringVar(&f.env, prefix+"-env", "", "`NAME` of the environment variable that holds "+what)
}

// given reports whether a secret was named.
func (f *secretFlags) given() bool { return f.file != "" || f.env != "" }

// names is how an error asks for the flags.
func (f *secretFlags) names() string { return "--" + f.prefix + "-file or --" + f.prefix + "-env" }

// read returns the secret; one without a value when none was named. One newline
// at the end of a file is not part of the secret; anything else is.
func (f *secretFlags) read() (signature.Secret, error) {
	switch {
	case !f.given():
		return signature.Secret{}, nil
	case f.file != "" && f.env != "":
		return signature.Secret{}, usagef("give either --%s-file or --%[1]s-env, not both", f.prefix)
	case f.env != "":
		value := os.Getenv(f.env)
		if value == "" {
			return signature.Secret{}, usagef("the environment variable %s, named by --%s-env, is not set or empty", f.env, f.prefix)
		}
		return signature.Secret{Name: "environment variable " + f.env, Value: value}, nil
	default:
		data, err := readFile(f.file)
		if err != nil {
			return signature.Secret{}, fmt.Errorf("read --%s-file: %w", f.prefix, err)
		}
		value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
		if value == "" {
			return signature.Secret{}, usagef("the file %s, named by --%s-file, is empty", f.file, f.prefix)
		}
		return signature.Secret{Name: f.file, Value: value}, nil
	}
}
