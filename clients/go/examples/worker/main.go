// Command worker takes part in the group "sms". Create it first: linksgate group create sms --kind sms-received --ordering by-sim
package main

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	linksgate "github.com/linksgate/linksgate/clients/go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Print(err)
	}
}

func run(ctx context.Context) error {
	client, err := linksgate.New([]string{"localhost:9090"}, linksgate.Logger(slog.Default()))
	if err != nil {
		return err
	}
	return client.Work(ctx, "sms", handle, linksgate.Parallel(8))
}

func handle(ctx context.Context, d *linksgate.Delivery) error {
	sms := d.GetSmsReceived()
	if sms.GetText() == "" {
		return linksgate.Park("an SMS without a text")
	}
	err := answer(ctx, sms.GetIccid(), sms.GetText())
	if errors.Is(err, context.DeadlineExceeded) {
		return linksgate.EverythingIsDown(30*time.Second, err)
	}
	return err // nil: acknowledged; else it comes again after the group's back-off
}

// answer stands for what your service does.
func answer(_ context.Context, iccid, text string) error {
	log.Println(iccid, text)
	return nil
}
