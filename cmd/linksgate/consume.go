package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	// greatestInFlight is by ConsumeRequest.max_in_flight, and by the number of leases in one request to settle them.
	greatestInFlight = 1024
	// printInFlight is how many notifications are taken at once when they are only printed.
	printInFlight = 64
	// exitPark is the exit status with which a command parks its notification.
	exitPark = 100
)

const consumeLong = `Consume makes you a member of a group (see linksgate group --help) and runs a command
for each notification that the group lends you, through sh -c:

  standard input   the notification as one line of JSON, as tail --json prints it
  environment      LINKSGATE_NOTIFICATION_ID, LINKSGATE_KIND, LINKSGATE_ACCOUNT,
                   LINKSGATE_ICCID (the first that it names, or empty),
                   LINKSGATE_ATTEMPT (from 1), LINKSGATE_GROUP, LINKSGATE_CLIENT_NAME
  exit status 0    handled: acknowledged, it does not come again
  exit status 100  it can never be handled: parked at once
  any other, or    it comes again after the group's back-off, to any member; parked
  killed           after the group's last attempt

A command that cannot be run (126, 127: no such file, not executable) ends consume, and
so does a failure when nobody reads its standard output any more: what was not handled
goes back to the group, as if it had not been lent.

The last line that the command wrote to its standard error goes with a refusal, and is
what linksgate group parked shows. Start as many as you like, on as many machines: they
share the work. Each takes only a little more than it can work on.

While a command runs longer than its lease, the lease is extended. If that is refused,
somebody else has the notification: the command is killed, with its process group. So
it is when consume itself is killed, whichever way. Over restarts of the gateway and
broken connections commands go on; what they did is told when it is back.

SIGTERM or SIGINT: nothing more is begun, what runs may finish within --grace, and what
was not begun goes back to the group. A second signal kills what still runs.

Without --exec, each notification is printed as tail does, and acknowledged after that.`

const consumeExample = `  linksgate group create sms --kind sms-received --ordering by-sim

  # A script for each SMS, four at a time
  linksgate consume sms --exec ./handle-sms --parallel 4

  # Post each to a service; what it answers with 4xx is parked, other failures come again
  linksgate consume sms --exec '
    code=$(curl -s -o /dev/null -w "%{http_code}" --json @- http://localhost:8000/sms) || exit 1
    case $code in 2??) ;; 4??) echo "refused: $code" >&2; exit 100;; *) echo "answered $code" >&2; exit 1;; esac'

  # Whatever there is, as JSON, and no more
  linksgate consume sms --json --idle-exit 2s > sms.jsonl`

// consumeFlags are the flags of consume as given.
type consumeFlags struct {
	command     string
	parallel    int
	maxInFlight int
	clientName  string
	json        bool
	count       int
	idleExit    time.Duration
	grace       time.Duration

	connection
}

func newConsumeCommand() *cobra.Command {
	var f consumeFlags
	cmd := &cobra.Command{
		Use:     "consume GROUP",
		Short:   "Take part in a group: run a command for each notification",
		Long:    consumeLong,
		Example: consumeExample,
		Args:    cobra.ExactArgs(1),
		RunE:    f.run,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.command, "exec", "", "run `COMMAND` for each notification, through sh -c")
	flags.IntVar(&f.parallel, "parallel", 1, "how many commands may run at once, up to 1024 (`NUMBER`)")
	flags.IntVar(&f.maxInFlight, "max-in-flight", 0, "most notifications to have at once, up to 1024; default: a little more than --parallel, or 64 to print (`NUMBER`)")
	flags.StringVar(&f.clientName, "client-name", "", "`NAME` of this member, for linksgate group show; default: host and process")
	flags.BoolVar(&f.json, "json", false, "print one line of JSON for each notification")
	flags.IntVar(&f.count, "count", 0, "leave after so many notifications (`NUMBER`)")
	flags.DurationVar(&f.idleExit, "idle-exit", 0, "leave when nothing has come for a `DURATION`; with status 1 if the gateway is away by then, for 15s at least")
	flags.DurationVar(&f.grace, "grace", 30*time.Second, "how long commands may take to finish after a signal (`DURATION`)")
	f.register(flags)
	return cmd
}

func (f *consumeFlags) check(flags *pflag.FlagSet) error {
	printing := f.command == ""
	switch {
	case flags.Changed("exec") && strings.TrimSpace(f.command) == "":
		return usagef("--exec is empty: leave it out to print notifications, and acknowledge what is printed")
	case f.parallel < 1 || f.parallel > greatestInFlight:
		return usagef("--parallel must be from 1 to %d", greatestInFlight)
	case f.parallel > 1 && printing:
		return usagef("--parallel needs --exec")
	case f.json && !printing:
		return usagef("--json and --exec exclude each other: the command is given JSON, and prints what it likes")
	case f.maxInFlight < 0 || f.maxInFlight > greatestInFlight:
		return usagef("--max-in-flight must be from 1 to %d", greatestInFlight)
	case f.maxInFlight > 0 && f.maxInFlight < f.parallel:
		return usagef("--max-in-flight must not be less than --parallel")
	case f.count < 0:
		return usagef("--count must not be negative")
	case f.idleExit < 0 || f.grace < 0:
		return usagef("--idle-exit and --grace must not be negative")
	}
	return nil
}

// inFlight is how many notifications to have at once. One that waits here could be with another member, so there are only as many
// as keep the commands busy.
func (f *consumeFlags) inFlight() int {
	ready := 1 + f.parallel/4
	most := cmp.Or(f.maxInFlight, min(f.parallel+ready, greatestInFlight))
	if f.command == "" && f.maxInFlight == 0 {
		most = printInFlight
	}
	if f.count > 0 {
		most = min(most, f.count)
	}
	return most
}

func (f *consumeFlags) run(cmd *cobra.Command, args []string) error {
	if err := f.check(cmd.Flags()); err != nil {
		return err
	}
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()

	// Output that nobody reads any more is an error to write, not the end of the process with leases in its hands.
	brokenPipes := make(chan os.Signal, 1)
	signal.Notify(brokenPipes, syscall.SIGPIPE)
	defer signal.Stop(brokenPipes)
	stderr := &lockedWriter{w: cmd.ErrOrStderr(), lenient: true}
	notice := func(text string) { fmt.Fprintln(stderr, "linksgate: "+text) }
	clientName := cmp.Or(f.clientName, defaultClientName())
	m := newMember(linksgatev1.NewWorkerServiceClient(conn), &linksgatev1.ConsumeRequest{
		GroupName: args[0], MaxInFlight: int32(f.inFlight()), ClientName: clientName, HeartbeatInterval: durationpb.New(defaultHeartbeat),
	}, notice)
	m.address, m.examine = f.address, func(ctx context.Context) error { return f.examine(ctx, f.address) }
	m.explain = func(st *status.Status, info *errdetails.ErrorInfo) error {
		return explainConsume(args[0], f.address, st, info)
	}
	m.count, m.idleExit, m.grace = f.count, f.idleExit, f.grace
	if f.command == "" {
		m.handler = newPrintHandler(bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10), f.json)
	} else {
		shells := newShells(f.command, f.parallel, args[0], clientName)
		defer shells.close()
		shells.stdout, shells.stderr = cmd.OutOrStdout(), stderr
		if _, ok := shells.stdout.(*os.File); !ok {
			shells.stdout = &lockedWriter{w: shells.stdout}
		}
		m.handler = handler{slots: f.parallel, most: 1, handle: shells.handle}
	}
	// The first signal ends the context too. It is the others that are for here.
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	m.signals, m.release = signals, func() { signal.Stop(signals) }

	return m.run(cmd.Context())
}

func defaultClientName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	id := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '-'
		}
		return r
	}, host)
	return fmt.Sprintf("%.80s/%d", id, os.Getpid())
}

func explainConsume(group, address string, st *status.Status, info *errdetails.ErrorInfo) error {
	advice := groupAdvice(st.Code(), info.GetMetadata()["first_available_token"], address)
	switch st.Code() {
	case codes.NotFound:
		advice = "linksgate group create " + visible(group) + " creates it; linksgate group list shows those there are"
	case codes.InvalidArgument:
		advice = "check the name of the group and the flags"
	case codes.ResourceExhausted:
		advice = "a smaller --max-in-flight makes smaller messages"
	}
	return fmt.Errorf("consume %s: %s: %s\n  %s", visible(group), st.Code(), escaped(st.Message()), advice)
}

// newPrintHandler prints notifications, and acknowledges them when they have been passed on.
func newPrintHandler(out *bufio.Writer, asJSON bool) handler {
	show := printer(out, asJSON)
	return handler{slots: 1, most: greatestInFlight, handle: func(_ context.Context, _ int, leases []*linksgatev1.Lease) ([]outcome, error) {
		notifications := make([]*linksgatev1.Notification, len(leases))
		for i, lease := range leases {
			notifications[i] = lease.GetNotification()
		}
		if err := show(notifications); err != nil {
			return nil, err
		}
		return make([]outcome, len(leases)), nil // all handled
	}}
}

// lockedWriter is a writer for several goroutines.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer // mu
	// lenient: what cannot be written is dropped. A command must not fail because nobody reads what it says.
	lenient bool
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.w.Write(p)
	if l.lenient {
		return len(p), nil
	}
	return n, err
}
