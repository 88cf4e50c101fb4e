// Command print prints each SMS that a SIM sends, and goes on where it stopped.
package main

import (
	"context"
	"fmt"
	"log"
	"os/signal"
	"syscall"

	linksgate "github.com/linksgate/linksgate/clients/go"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Print(err)
	}
}

func run(ctx context.Context) error {
	client, err := linksgate.New([]string{"localhost:9090"})
	if err != nil {
		return err
	}
	for n, err := range client.Subscribe(ctx, linksgate.From(linksgate.FileCheckpoint("print.token")), linksgate.Earliest(),
		linksgate.Kinds(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED)) {
		if err != nil {
			return err
		}
		fmt.Println(n.GetSmsReceived().GetIccid(), n.GetSmsReceived().GetText())
	}
	return nil
}
