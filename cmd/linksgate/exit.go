package main

import (
	"errors"
	"fmt"

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
			if err := args(cmd, given); err != nil {
				return usagef("%w; see %s --help", err, cmd.CommandPath())
			}
			return nil
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
