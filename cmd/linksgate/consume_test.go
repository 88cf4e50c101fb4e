package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/faults"
	"github.com/linksgate/linksgate/server/simulator"
)

// consumeTimeout bounds each wait. A test that is done in time never comes near it.
const consumeTimeout = 3 * time.Minute

// settledWithin is how long a group may take to settle what was handled: longer than a lease, which is the longest that anything
// in a group waits for.
const settledWithin = time.Minute

// workplace is a gateway process with the group "work", and a directory for what commands leave behind.
type workplace struct {
	t       *testing.T
	ctx     context.Context
	binary  string
	dir     string
	gateway *faults.Gateway
	sender  *simulator.Sender
	sent    int
}

func newWorkplace(t *testing.T, flags ...string) *workplace {
	t.Helper()
	t.Parallel()
	binary, err := exec.LookPath("linksgate") // this test binary, see TestMain
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), consumeTimeout)
	w := &workplace{t: t, ctx: ctx, binary: binary, dir: t.TempDir(), sender: faults.FirstSecrets.Sender()}
	w.gateway, err = faults.NewGateway(binary, t.TempDir(), faults.Options{})
	w.must(err)
	t.Cleanup(func() {
		cancel()
		if output := w.gateway.Close(); t.Failed() {
			t.Logf("the gateway printed:\n%s", output)
		}
	})
	w.must(w.gateway.Start(ctx))
	w.linksgate(exitOK, append([]string{"group", "create", "work", "--from-start"}, flags...)...)
	return w
}

func (w *workplace) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *workplace) await(what string, holds func() bool) {
	w.t.Helper()
	w.must(faults.Await(w.ctx, what, holds))
}

// linksgate runs a command to its end, requires an exit status, and returns what it printed.
func (w *workplace) linksgate(code int, arguments ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.ctx, w.binary, append(arguments, "--address", w.gateway.GRPC)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		w.t.Fatalf("linksgate %s: exit status %d, want %d\n%s%s", strings.Join(arguments, " "), got, code, out.String(), errs.String())
	}
	return out.String()
}

// send sends SMS, each of a SIM of its own, whose texts are numbers from 1 on.
func (w *workplace) send(count int) {
	w.t.Helper()
	for range count {
		w.sent++
		n, err := w.sender.MakeWithBody(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED,
			fmt.Appendf(nil, `{"sim_id":"8986022019%010d","imsi":"42300%010d","text_message":"%d"}`, w.sent, w.sent, w.sent))
		w.must(err)
		request, err := n.Request(w.ctx, w.gateway.Webhook)
		w.must(err)
		response, err := http.DefaultClient.Do(request)
		w.must(err)
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			w.t.Fatalf("answered %d", response.StatusCode)
		}
	}
}

func (w *workplace) status() *linksgatev1.GroupStatus {
	w.t.Helper()
	g := new(linksgatev1.Group)
	w.must(protojson.Unmarshal([]byte(w.linksgate(exitOK, "group", "show", "work", "--json")), g))
	return g.GetStatus()
}

func (w *workplace) awaitSettled() {
	w.t.Helper()
	var last *linksgatev1.GroupStatus
	settled := false
	deadline := time.Now().Add(settledWithin)
	w.await("the group has settled everything", func() bool {
		last = w.status()
		settled = last.GetOldestUnsettled() == nil && last.GetInFlight() == 0 && last.GetRetrying() == 0
		return settled || time.Now().After(deadline)
	})
	if !settled {
		w.t.Fatalf("the group has not settled everything after %v: %v", settledWithin, last)
	}
}

func (w *workplace) parked() []*linksgatev1.ParkedNotification {
	w.t.Helper()
	var all []*linksgatev1.ParkedNotification
	for line := range strings.Lines(w.linksgate(exitOK, "group", "parked", "work", "--json")) {
		p := new(linksgatev1.ParkedNotification)
		w.must(protojson.Unmarshal([]byte(line), p))
		all = append(all, p)
	}
	return all
}

// file is the path of a file for commands.
func (w *workplace) file(name string) string { return filepath.Join(w.dir, name) }

func (w *workplace) create(name string) {
	w.t.Helper()
	w.must(os.WriteFile(w.file(name), nil, 0o600))
}

func (w *workplace) exists(name string) bool {
	_, err := os.Stat(w.file(name))
	return err == nil
}

// lines are the lines that commands have appended to a file.
func (w *workplace) lines(name string) []string {
	text, _ := os.ReadFile(w.file(name)) // it may not be there yet
	return strings.Fields(string(text))
}

// consumer is a linksgate consume process, whose commands run in the directory of the workplace.
type consumer struct {
	w      *workplace
	cmd    *exec.Cmd
	stderr *lockedBuffer
	exited chan struct{}
}

func (w *workplace) consume(arguments ...string) *consumer {
	w.t.Helper()
	return w.consumeTo(nil, nil, arguments...)
}

// consumeTo is consume with a standard output, and with standard error on it instead of where awaitStderr looks.
func (w *workplace) consumeTo(stdout, stderr *os.File, arguments ...string) *consumer {
	w.t.Helper()
	c := &consumer{w: w, stderr: new(lockedBuffer), exited: make(chan struct{})}
	c.cmd = exec.Command(w.binary, append([]string{"consume", "work", "--address", w.gateway.GRPC}, arguments...)...)
	c.cmd.Dir, c.cmd.Stderr, c.cmd.WaitDelay = w.dir, c.stderr, time.Second
	if stdout != nil {
		c.cmd.Stdout = stdout
	}
	if stderr != nil {
		c.cmd.Stderr = stderr
	}
	w.must(c.cmd.Start())
	go func() { defer close(c.exited); _ = c.cmd.Wait() }()
	w.t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // it may have ended
		<-c.exited
		if w.t.Failed() {
			w.t.Logf("consume printed:\n%s", c.stderr)
		}
	})
	return c
}

func (c *consumer) signal(signal os.Signal) {
	c.w.t.Helper()
	c.w.must(c.cmd.Process.Signal(signal))
}

func (c *consumer) awaitExit(code int) {
	c.w.t.Helper()
	select {
	case <-c.exited:
	case <-c.w.ctx.Done():
		c.w.t.Fatal("consume did not end")
	}
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.w.t.Errorf("consume: %v, want exit status %d", c.cmd.ProcessState, code)
	}
}

func (c *consumer) awaitStderr(text string) {
	c.w.t.Helper()
	c.w.await("stderr says "+text, func() bool { return strings.Contains(c.stderr.String(), text) })
}

// lockedBuffer is what a process has printed so far.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// untilOpen is a command that appends its notification's id to "began", waits for the file "open", and appends it to "ended".
const untilOpen = `echo $LINKSGATE_NOTIFICATION_ID >>began; while [ ! -e open ]; do sleep 0.02; done; echo $LINKSGATE_NOTIFICATION_ID >>ended`

// Commands that run while the gateway is restarted go on. What they have done counts afterwards: nothing is lost, and nothing runs twice,
// but for those that ran when the gateway was killed: it may have lent them again before it was told.
func TestConsumeGoesOnOverARestart(t *testing.T) {
	const count, parallel = 12, 4
	for name, test := range map[string]struct {
		restart  func(*workplace)
		repeated int
	}{
		"SIGTERM": {func(w *workplace) { _, err := w.gateway.Stop(); w.must(err) }, 0},
		"SIGKILL": {func(w *workplace) { w.must(w.gateway.Kill()) }, parallel},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorkplace(t)
			w.send(count)
			c := w.consume("--parallel", strconv.Itoa(parallel), "--exec", untilOpen)
			w.await("commands run", func() bool { return len(w.lines("began")) == parallel })
			running := w.lines("began")
			test.restart(w)
			w.must(w.gateway.Start(w.ctx))
			c.awaitStderr("joined again")
			if n := len(w.lines("began")); n != parallel {
				t.Errorf("%d began, while %d ran: one of them again", n, parallel)
			}
			w.create("open")
			w.await("all have ended", func() bool {
				ended := w.lines("ended")
				slices.Sort(ended)
				return len(slices.Compact(ended)) == count
			})
			w.awaitSettled()
			c.signal(syscall.SIGTERM)
			c.awaitExit(exitOK)
			again := w.lines("began")[parallel:]
			fresh := slices.DeleteFunc(slices.Clone(again), func(id string) bool { return slices.Contains(running, id) })
			if len(fresh) != count-parallel || len(again)-len(fresh) > test.repeated {
				t.Errorf("began %v, after %v", again, running)
			}
			if strings.Contains(c.stderr.String(), "handled too late") {
				t.Error("an acknowledgement did not count")
			}
		})
	}
}

// Commands that end while there is no gateway are settled when it is back.
func TestConsumeTellsWhatWasDoneWithoutAGateway(t *testing.T) {
	const count = 4
	w := newWorkplace(t)
	w.send(count)
	c := w.consume("--parallel", strconv.Itoa(count), "--exec", untilOpen)
	w.await("commands run", func() bool { return len(w.lines("began")) == count })
	w.must(w.gateway.Kill())
	c.awaitStderr("joining again")
	w.create("open")
	w.await("commands have ended", func() bool { return len(w.lines("ended")) == count })
	w.must(w.gateway.Start(w.ctx))
	w.awaitSettled()
	if began := w.lines("began"); len(began) > 2*count {
		t.Errorf("%d began, of %d: what was done did not count", len(began), count)
	}
	if strings.Contains(c.stderr.String(), "handled too late") {
		t.Error("an acknowledgement did not count")
	}
	c.signal(syscall.SIGTERM)
	c.awaitExit(exitOK)
}

func TestConsumeSettlesByHowTheCommandEnds(t *testing.T) {
	w := newWorkplace(t, "--max-attempts", "2", "--back-off", "10ms")
	w.send(5)
	c := w.consume("--client-name", "me", "--exec", `
		read -r json
		echo "$LINKSGATE_NOTIFICATION_ID,$LINKSGATE_KIND,$LINKSGATE_ACCOUNT,$LINKSGATE_ICCID,$LINKSGATE_ATTEMPT,$LINKSGATE_GROUP,$LINKSGATE_CLIENT_NAME" >>seen
		case $json in
		*'"text":"1"'*) ;;
		*'"text":"2"'*) echo first >&2; printf 'cannot\033[31m\n\n' >&2; exit 100;;
		*'"text":"3"'*) echo out of order >&2; exit 7;;
		*'"text":"4"'*) kill -TERM $$;;
		*'"text":"5"'*) [ $LINKSGATE_ATTEMPT = 2 ];;
		*) echo "$json" >>strange;;
		esac`)
	w.await("all have been settled", func() bool { return len(w.lines("seen")) >= 8 && w.status().GetParked() == 3 })
	w.awaitSettled()
	var got []string
	for _, p := range w.parked() {
		got = append(got, fmt.Sprintf("%s %s %d %q", p.GetNotification().GetSmsReceived().GetText(), parkReasonText(p.GetReason()), p.GetAttempts(), p.GetDetail()))
	}
	slices.Sort(got)
	want := []string{
		`2 requested 1 "exit status 100: cannot\x1b[31m"`, `3 rejected 2 "exit status 7: out of order"`, `4 rejected 2 "signal: terminated"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("parked %q, want %q", got, want)
	}
	if w.exists("strange") {
		t.Errorf("standard input was not what tail --json prints: %q", w.lines("strange"))
	}
	first := strings.SplitN(w.lines("seen")[0], ",", 2)
	if first[1] != "sms-received,acme,89860220190000000001,1,work,me" {
		t.Errorf("the environment is %v", first)
	}
	for _, want := range []string{", attempt 1, is parked: exit status 100: cannot\\x1b[31m\n", ", attempt 1, is to come again: exit status 7: out of order\n"} {
		if !strings.Contains(c.stderr.String(), want) {
			t.Errorf("stderr lacks %q", want)
		}
	}
	c.signal(os.Interrupt)
	c.awaitExit(exitOK)

	// After the fix.
	table := w.linksgate(exitOK, "group", "parked", "work")
	if strings.Contains(table, "\x1b") || !strings.Contains(table, `exit status 100: cannot\x1b[31m`) || strings.Count(table, "\n") != 4 {
		t.Errorf("parked:\n%s", table)
	}
	id, handled := w.parked()[0].GetNotification().GetId(), strings.SplitN(w.lines("seen")[0], ",", 2)[0]
	if out := w.linksgate(exitFailure, "group", "replay", "work", id, handled); out != handled+"  not parked\n1 notification replayed\n" {
		t.Errorf("replay: %s", out)
	}
	if out := w.linksgate(exitFailure, "group", "purge", "work", handled, handled, w.parked()[0].GetNotification().GetId(), "--dry-run"); !strings.HasSuffix(out, "\n"+
		handled+"  not parked\n1 notification would be deleted\n") {
		t.Errorf("dry run of some: %s", out)
	}
	if out := w.linksgate(exitOK, "group", "replay", "work", "--all", "--dry-run"); !strings.HasSuffix(out, "\n2 notifications would be replayed\n") {
		t.Errorf("dry run: %s", out)
	}
	if out := w.linksgate(exitOK, "group", "replay", "work", "--all"); out != "2 notifications replayed\n" {
		t.Errorf("replay: %s", out)
	}
	c = w.consume("--exec", "echo $LINKSGATE_ATTEMPT >>again", "--count", "3")
	c.awaitExit(exitOK)
	if again := w.lines("again"); !slices.Equal(again, []string{"1", "1", "1"}) {
		t.Errorf("attempts after replay: %v", again)
	}
	w.awaitSettled()
}

// Each attempt that is counted is one for which the command ran, also where the next one comes before the last one is known to be settled.
func TestConsumeRunsEveryAttempt(t *testing.T) {
	const count, attempts = 100, 3
	w := newWorkplace(t, "--max-attempts", strconv.Itoa(attempts), "--back-off", "0s")
	w.send(count)
	c := w.consume("--parallel", "8", "--exec", `echo "$LINKSGATE_NOTIFICATION_ID,$LINKSGATE_ATTEMPT" >>ran; exit 5`)
	w.await("all are parked", func() bool { return w.status().GetParked() == count })
	w.awaitSettled()
	ran := w.lines("ran")
	slices.Sort(ran)
	if distinct := len(slices.Compact(slices.Clone(ran))); len(ran) != count*attempts || distinct != len(ran) {
		t.Errorf("the command ran %d times for %d attempts, want %d\n%s", len(ran), distinct, count*attempts, c.stderr)
	}
	c.signal(os.Interrupt)
	c.awaitExit(exitOK)
}

// A command that runs longer than its lease keeps its notification.
func TestConsumeExtendsLeases(t *testing.T) {
	w := newWorkplace(t, "--lease", "1s")
	w.send(3)
	c := w.consume("--parallel", "2", "--exec", "echo x >>began; sleep 2.5", "--count", "3")
	c.awaitExit(exitOK)
	w.awaitSettled()
	if began := w.lines("began"); len(began) != 3 {
		t.Errorf("%d began, want 3\n%s", len(began), c.stderr)
	}
}

// What somebody else has is not worked on any longer.
func TestConsumeStopsWhatIsNoLongerItsOwn(t *testing.T) {
	w := newWorkplace(t, "--lease", "1s")
	w.send(1)
	c := w.consume("--exec", "echo $$ >>began; sleep 1000")
	w.await("the command runs", func() bool { return len(w.lines("began")) == 1 })
	w.linksgate(exitOK, "group", "seek", "work", "--latest")
	c.awaitStderr("was given up in the middle")
	w.awaitGone(w.lines("began")[0])
	c.signal(syscall.SIGTERM)
	c.awaitExit(exitOK)
}

// awaitGone waits until a process is no longer there.
func (w *workplace) awaitGone(pid string) {
	w.t.Helper()
	n, err := strconv.Atoi(pid)
	w.must(err)
	w.await("process "+pid+" is gone", func() bool { return syscall.Kill(n, 0) != nil })
}

// Nothing that a command has started outlives a consume that is killed.
func TestConsumeLeavesNothingBehind(t *testing.T) {
	w := newWorkplace(t)
	w.send(2)
	c := w.consume("--parallel", "2", "--exec", `sh -c 'trap "" TERM HUP; sleep 1000' & echo $! $$ >>began; wait`)
	w.await("commands run", func() bool { return len(w.lines("began")) == 4 })
	w.must(c.cmd.Process.Kill())
	for _, pid := range w.lines("began") {
		w.awaitGone(pid)
	}
}

func TestConsumeFinishesOnASignal(t *testing.T) {
	w := newWorkplace(t)
	w.send(6)
	c := w.consume("--parallel", "2", "--exec", untilOpen)
	w.await("commands run", func() bool { return len(w.lines("began")) == 2 })
	c.signal(syscall.SIGTERM)
	c.awaitStderr("finishing what runs (2), for 30s at most")
	w.create("open")
	c.awaitExit(exitOK)
	if ended := w.lines("ended"); len(ended) != 2 {
		t.Errorf("%d ended, want 2", len(ended))
	}
	// What was not begun comes to others, and as if for the first time.
	c = w.consume("--exec", "echo $LINKSGATE_ATTEMPT >>attempts", "--count", "4")
	c.awaitExit(exitOK)
	if attempts := w.lines("attempts"); strings.Join(attempts, " ") != "1 1 1 1" {
		t.Errorf("attempts %v", attempts)
	}
	w.awaitSettled()
}

func TestConsumeKillsOnASecondSignalAndAfterTheGrace(t *testing.T) {
	for name, grace := range map[string]string{"signal": "1h", "grace": "100ms"} {
		t.Run(name, func(t *testing.T) {
			w := newWorkplace(t, "--back-off", "10ms")
			w.send(1)
			c := w.consume("--exec", "echo $$ >>began; sleep 1000", "--grace", grace)
			w.await("the command runs", func() bool { return len(w.lines("began")) == 1 })
			c.signal(syscall.SIGTERM)
			c.awaitStderr("finishing what runs (1)")
			if name == "signal" {
				c.signal(syscall.SIGTERM)
			}
			c.awaitExit(exitFailure)
			c.awaitStderr("1 notification stopped in the middle, to come again")
			w.awaitGone(w.lines("began")[0])
			w.consume("--exec", "true", "--count", "1").awaitExit(exitOK)
			w.awaitSettled()
		})
	}
}

// What could not be handled because of how consume was called comes to others as if for the first time.
func TestConsumeGivesBackWhatItCannotHandle(t *testing.T) {
	for name, test := range map[string]struct {
		exec     []string
		nobody   bool   // reads standard output
		prepare  string // a script, in the file "handle"
		handled  int    // before the end
		code     int
		complain string
	}{
		"no such file":          {exec: []string{"--exec", "./missing"}, code: exitFailure, complain: `--exec "./missing" cannot be run: exit status 127: `},
		"no such program":       {exec: []string{"--exec", "exec no-such-program-anywhere -x"}, code: exitFailure, complain: "cannot be run: exit status 127: "},
		"not executable":        {exec: []string{"--exec", "./began"}, code: exitFailure, complain: "cannot be run: exit status 126: "},
		"taken away":            {exec: []string{"--exec", "./handle"}, prepare: `rm handle`, handled: 1, code: exitFailure, complain: `--exec "./handle" cannot be run: `},
		"nobody reads":          {exec: []string{"--exec", "echo x; echo x >>began"}, nobody: true, code: exitOK, complain: "nobody reads"},
		"nobody reads, printed": {nobody: true, code: exitOK, complain: "nobody reads"},
	} {
		t.Run(name, func(t *testing.T) {
			const count = 4
			w := newWorkplace(t, "--max-attempts", "2", "--back-off", "10ms")
			w.create("began")
			w.must(os.WriteFile(w.file("handle"), []byte("#!/bin/sh\n"+test.prepare), 0o700))
			w.send(count)
			var stdout *os.File
			if test.nobody {
				read, write, err := os.Pipe()
				w.must(err)
				defer write.Close()
				stdout = write
				read.Close()
			}
			c := w.consumeTo(stdout, nil, test.exec...)
			c.awaitExit(test.code)
			c.awaitStderr(test.complain)
			rest := count - test.handled
			w.consume("--exec", "echo $LINKSGATE_ATTEMPT >>attempts", "--count", strconv.Itoa(rest)).awaitExit(exitOK)
			if attempts := w.lines("attempts"); strings.Join(attempts, " ") != strings.TrimSpace(strings.Repeat("1 ", rest)) {
				t.Errorf("attempts %v", attempts)
			}
			w.awaitSettled()
			if n := w.status().GetParked(); n != 0 {
				t.Errorf("%d parked", n)
			}
		})
	}
}

// An exit status that means to a shell that there is no such command, of a command that is there, is about its notification.
func TestConsumeTakesACommandAtItsWord(t *testing.T) {
	w := newWorkplace(t, "--max-attempts", "1")
	w.must(os.WriteFile(w.file("handle"), []byte("#!/bin/sh\nread -r json; case $json in *'\"text\":\"2\"'*) exit 127;; esac"), 0o700))
	w.send(3)
	w.consume("--exec", "./handle", "--count", "3").awaitExit(exitOK)
	if parked := w.parked(); len(parked) != 1 || parked[0].GetDetail() != "exit status 127" {
		t.Errorf("parked: %v", parked)
	}
}

// A command may say what it likes, whoever reads it.
func TestConsumeGoesOnWhenNobodyReadsItsErrors(t *testing.T) {
	w := newWorkplace(t, "--max-attempts", "1")
	w.send(3)
	read, write, err := os.Pipe()
	w.must(err)
	defer write.Close()
	read.Close()
	w.consumeTo(nil, write, "--exec", "echo one >&2; sleep 0.1; echo two >&2; echo x >>ended", "--count", "3").awaitExit(exitOK)
	if ended := w.lines("ended"); len(ended) != 3 || len(w.parked()) != 0 {
		t.Errorf("%d ended, parked: %v", len(ended), w.parked())
	}
}

func TestConsumePrints(t *testing.T) {
	w := newWorkplace(t)
	w.send(4)
	first := w.linksgate(exitOK, "consume", "work", "--count", "1")
	if !strings.Contains(first, `  acme  sms-received  89860220190000000001  "1" `) || strings.Count(first, "\n") != 1 {
		t.Errorf("printed %q", first)
	}
	rest := w.linksgate(exitOK, "consume", "work", "--json", "--idle-exit", "1s")
	var texts []string
	for line := range strings.Lines(rest) {
		n := new(linksgatev1.Notification)
		w.must(protojson.Unmarshal([]byte(line), n))
		texts = append(texts, n.GetSmsReceived().GetText())
	}
	if strings.Join(texts, " ") != "2 3 4" {
		t.Errorf("printed %v", texts)
	}
	w.awaitSettled()
}

// What is told after the gateway could not be is true: only what was handled is said to have been.
func TestConsumeTellsWhatTheGatewayDoesNotKnow(t *testing.T) {
	for want, decisions := range map[string][]decision{
		"2 notifications that had been handled":                        {acknowledge, acknowledge},
		"1 notification that had not been handled":                     {retry},
		"3 notifications that had not been handled":                    {release, park, retry},
		"1 notification that had been handled, and of 2 that had not:": {retry, acknowledge, release},
	} {
		var m member
		for _, d := range decisions {
			m.finished = append(m.finished, &job{outcome: outcome{decision: d}})
		}
		if got := m.untold().Error(); !strings.Contains(got, "could not be told of "+want) {
			t.Errorf("%v: %s", decisions, got)
		}
	}
}

func TestConsumeOfNoGroupSaysWhatToDo(t *testing.T) {
	w := newWorkplace(t)
	w.linksgate(exitOK, "group", "delete", "work", "--yes")
	c := w.consume()
	c.awaitExit(exitFailure)
	c.awaitStderr("linksgate: consume work: NotFound: ")
	c.awaitStderr("linksgate group create work creates it")
}

func TestLastLine(t *testing.T) {
	for want, writes := range map[string][]string{
		"":      {"", "\n \n"},
		"a":     {"a"},
		"a b":   {"x\n", "a", " b\n\n"},
		"c":     {strings.Repeat("x", 1<<20) + "\nc\n"},
		"y":     {strings.Repeat("x\n", 1<<20), "y"},
		"é\xff": {"x\r\né\xff\r\n"},
	} {
		var l lastLine
		for _, text := range writes {
			if n, err := l.Write([]byte(text)); n != len(text) || err != nil {
				t.Errorf("wrote %d of %d, %v", n, len(text), err)
			}
		}
		if got := l.String(); got != want {
			t.Errorf("last line %.20q, want %q", got, want)
		}
	}
	if got := cutBytes("aéé", 4); got != "aé" {
		t.Errorf("cut to %q", got)
	}
}

func TestConsumeTakesLittleMoreThanItCanWorkOn(t *testing.T) {
	for _, tt := range []struct {
		f    consumeFlags
		want int
	}{
		{consumeFlags{command: "x", parallel: 1}, 2},
		{consumeFlags{command: "x", parallel: 8}, 11},
		{consumeFlags{command: "x", parallel: 1024}, 1024},
		{consumeFlags{command: "x", parallel: 4, maxInFlight: 4}, 4},
		{consumeFlags{command: "x", parallel: 4, count: 3}, 3},
		{consumeFlags{parallel: 1}, 64},
		{consumeFlags{parallel: 1, maxInFlight: 1000}, 1000},
	} {
		if got := tt.f.inFlight(); got != tt.want {
			t.Errorf("%+v: %d, want %d", tt.f, got, tt.want)
		}
	}
}
