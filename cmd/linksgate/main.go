// Linksgate receives Linksfield's webhook notifications and streams them to
// services. See linksgate --help.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks a command to end; from then on a second one ends the process.
	context.AfterFunc(ctx, stop)

	root := newRootCommand()
	err := root.ExecuteContext(ctx)
	if text := errorText(err); text != "" {
		fmt.Fprintln(root.ErrOrStderr(), "linksgate: "+text)
	}
	return exitCode(err)
}
