package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const greatestBatch = 512 // by SubscribeRequest.max_batch

const tailLong = `Tail prints the notifications of a gateway in the order of its log: from now on,
or from a point in the past and then on and on.

It follows the gateway over restarts and broken connections, and goes on after
the last notification it printed: none is printed twice, none is left out. A gateway
that is not there yet is waited for; an address that can never answer ends it. With
--checkpoint this also holds from one run to the next; the start flags count only
for the first run then.

Each notification is one line: time of receipt, account, kind, ICCIDs, what it
says, how it was verified, id. Text that came from outside is quoted, and what
does not print is escaped. With --json, each is one line of JSON and complete.

ADDRESS is HOST:PORT, the same as --address.`

const tailExample = `  # What arrives from now on
  linksgate tail

  # SMS of one SIM in the last two hours, and on
  linksgate tail --kind sms-received --iccid 89860220190123456789 --since 2h

  # Everything that is retained, as JSON, and no more
  linksgate tail --from-start --until head --json > notifications.jsonl

  # What came since the last run
  linksgate tail --checkpoint seen.token --from-start --until head --json`

// tailFlags are the flags of tail as given.
type tailFlags struct {
	filterFlags
	startFlags
	until    string
	onGap    string
	maxBatch uint32

	checkpoint string
	json       bool
	connection
}

func newTailCommand() *cobra.Command {
	var f tailFlags
	cmd := &cobra.Command{
		Use:     "tail [ADDRESS]",
		Short:   "Follow a gateway's notifications",
		Long:    tailLong,
		Example: tailExample,
		Args:    cobra.MaximumNArgs(1),
		RunE:    f.run,
	}
	flags := cmd.Flags()
	f.filterFlags.register(flags)
	f.startFlags.register(flags)
	flags.StringVar(&f.until, "until", "", "end at the newest notification there is now (head), or at a resume `TOKEN`")
	flags.StringVar(&f.onGap, "on-gap", "fail", "when notifications are no longer there: fail or continue (`WHAT`)")
	flags.StringVar(&f.checkpoint, "checkpoint", "", "remember in `FILE` what was printed, and go on after it next time")
	flags.Uint32Var(&f.maxBatch, "max-batch", 256, "most notifications in one message, from 1 to 512 (`NUMBER`)")
	flags.BoolVar(&f.json, "json", false, "print one line of JSON for each notification")
	f.connection.register(flags)
	return cmd
}

func (f *tailFlags) run(cmd *cobra.Command, args []string) error {
	if err := f.check(cmd.Flags()); err != nil {
		return err
	}
	request, err := f.request(time.Now())
	if err != nil {
		return err
	}
	notice := func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), "linksgate: "+text) }
	remember := func(string) error { return nil }
	if f.checkpoint != "" {
		file := checkpointFile{path: f.checkpoint}
		token, err := file.read()
		if err != nil {
			return err
		}
		if token != "" {
			request.Start = &linksgatev1.Start{Position: &linksgatev1.Start_After{After: token}}
		}
		remember = file.write
	}
	conn, err := f.dial(args...)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()

	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	follower := follower{
		session: session{
			address: f.address, notice: notice, wait: wait, silence: 3 * defaultHeartbeat,
			examine: func(ctx context.Context) error { return f.examine(ctx, f.address) },
		},
		client:   linksgatev1.NewNotificationServiceClient(conn),
		request:  request,
		show:     printer(out, f.json),
		remember: remember,
	}
	if err := follower.run(cmd.Context()); !errors.Is(err, syscall.EPIPE) {
		return err
	}
	return nil // whoever read the output has seen enough
}

// request is the subscription that the flags ask for.
func (f *tailFlags) request(now time.Time) (*linksgatev1.SubscribeRequest, error) {
	filter, err := f.filter()
	if err != nil {
		return nil, err
	}
	request := &linksgatev1.SubscribeRequest{
		Filter:     filter,
		MaxBatch:   int32(f.maxBatch),
		ClientName: "linksgate tail",
	}
	if f.maxBatch < 1 || f.maxBatch > greatestBatch {
		return nil, usagef("--max-batch must be from 1 to %d", greatestBatch)
	}
	switch f.onGap {
	case "fail":
		request.OnGap = linksgatev1.GapPolicy_GAP_POLICY_FAIL
	case "continue":
		request.OnGap = linksgatev1.GapPolicy_GAP_POLICY_CONTINUE
	default:
		return nil, usagef("--on-gap must be fail or continue, not %q", f.onGap)
	}
	switch f.until {
	case "":
	case "head":
		request.Until = &linksgatev1.SubscribeRequest_UntilHead{UntilHead: true}
	default:
		request.Until = &linksgatev1.SubscribeRequest_UntilToken{UntilToken: f.until}
	}
	return request, f.setStart(request, now)
}

func (f *tailFlags) setStart(request *linksgatev1.SubscribeRequest, now time.Time) error {
	if f.after != "" && f.checkpoint != "" {
		return usagef("--after and --checkpoint exclude each other: both say where to go on")
	}
	at, err := f.start(now)
	if request.Start = at; at == nil {
		request.Start = latest()
	}
	return err
}

// wait returns nil after d, or an error at once when ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
