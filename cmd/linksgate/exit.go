package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes of every command.
const (
	exitOK      = 0
	exitFailure = 1 // also: an answer that was not as expected, a signature that does not hold
	exitUsage   = 2 // what was asked for makes no sense, or cannot be done without more; of verify: there is no answer
)

// errReported ends a command with exitFailure after it has printed all there is
// to say.
var errReported = errors.New("reported")

// usageError is a mistake in how a command was called.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (e usageError) Unwrap() error { return e.error }

// runError is an error from a command that did run.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

// markErrors wraps what the commands under cmd return in runError. What comes out
// of cobra without it was refused before the command ran: an unknown flag, a
// wrong number of arguments, flags that exclude each other.
func markErrors(cmd *cobra.Command) {
	if args := cmd.Args; args != nil && cmd.HasParent() {
		cmd.Args = func(cmd *cobra.Command, given []string) error {
			err := args(cmd, given)
			if usage := new(usageError); err == nil || errors.As(err, usage) {
				return err
			}
			return usagef("%s; see %s --help\n  usage: %s", argumentProblem(cmd.Use, given), cmd.CommandPath(), cmd.UseLine())
		}
	}
	if runE := cmd.RunE; runE != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := runE(cmd, args); err != nil {
				return runError{err}
			}
			return nil
		}
	}
	for _, child := range cmd.Commands() {
		markErrors(child)
	}
}

// argumentProblem names the arguments that are missing, or the first that is too many. A command's Use names them, those in brackets
// may be left out, and what is in braces is for the command itself to check.
func argumentProblem(use string, given []string) string {
	var required []string
	most := 0
	for _, word := range strings.Fields(use)[1:] {
		if strings.HasPrefix(word, "{") {
			break
		}
		if most++; !strings.HasPrefix(word, "[") {
			required = append(required, word)
		}
	}
	switch missing := required[min(len(given), len(required)):]; len(missing) {
	case 0:
		return fmt.Sprintf("unexpected argument %q", given[min(most, len(given)-1)])
	case 1:
		return missing[0] + " is missing"
	default:
		return strings.Join(missing, " and ") + " are missing"
	}
}

func exitCode(err error) int {
	var usage usageError
	var ran runError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage) || !errors.As(err, &ran):
		return exitUsage
	default:
		return exitFailure
	}
}

// errorText is what is left to say about a command's error; empty for nothing.
func errorText(err error) string {
	if err == nil || errors.Is(err, errReported) {
		return ""
	}
	return err.Error()
}
