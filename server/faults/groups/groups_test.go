package groups

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/faults"
	"github.com/linksgate/linksgate/server/simulator"
)

// The defaults make a run of some seconds.
var (
	seed          = flag.Uint64("seed", 0, "seed of who is killed when; 0: a new one")
	binary        = flag.String("gateway", "", "the binary to test, `FILE`; default: built from this module")
	notifications = flag.Int("notifications", 2000, "how many notifications the members share")
	sims          = flag.Int("sims", 50, "how many SIMs they are about")
	kills         = flag.Int("kills", 6, "how often a member is killed")
	tolerance     = flag.Float64("tolerance", 0.3, "by how much a share may differ from an even one, as a part of it")
	timeout       = flag.Duration("longest", 2*time.Minute, "how long a test may take")
)

const (
	members  = 3
	parallel = 4 // commands of a member
)

// group is the one that a test has.
const group = "work"

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	os.Exit(runTests(m))
}

// runTests runs the tests and removes what they built.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "linksgate-groups")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	buildBinary = sync.OnceValues(func() (string, error) {
		if *binary != "" {
			return *binary, nil
		}
		return faults.Build(context.Background(), dir)
	})
	return m.Run()
}

// buildBinary returns the binary to test.
var buildBinary func() (string, error)

// scene is a gateway with a group, and the processes that are its members.
type scene struct {
	t        *testing.T
	ctx      context.Context
	binary   string
	gateway  *faults.Gateway
	recorder *Recorder
	command  string // that members run
	members  [members]*Member
	started  [members]int // how many there were at each place
	output   lockedBuffer // of all members
}

// newScene starts a gateway and creates a group from flags. Its members will do the work, which is in the language of the shell.
func newScene(t *testing.T, work string, flags ...string) *scene {
	t.Helper()
	path, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), *timeout)
	s := &scene{t: t, ctx: ctx, binary: path}
	s.gateway, err = faults.NewGateway(path, t.TempDir(), faults.Options{})
	s.must(err)
	s.recorder, err = NewRecorder(filepath.Join(t.TempDir(), "pipe"))
	s.must(err)
	s.command = s.recorder.Command(work)
	t.Cleanup(func() {
		cancel()
		for _, m := range s.members {
			if m != nil {
				_ = m.Kill() // it may have ended
			}
		}
		output := s.gateway.Close()
		if t.Failed() {
			t.Logf("the members printed:\n%s\nthe gateway printed:\n%s", s.output.end(), output)
		}
	})
	s.must(s.gateway.Start(ctx))
	s.linksgate(append([]string{"group", "create", group, "--from-start"}, flags...)...)
	return s
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) await(what string, holds func() bool) {
	s.t.Helper()
	s.must(faults.Await(s.ctx, what, holds))
}

// linksgate runs a command to its end and returns what it printed.
func (s *scene) linksgate(arguments ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.ctx, s.binary, append(arguments, "--address", s.gateway.GRPC)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("linksgate %s: %v\n%s%s", strings.Join(arguments, " "), err, out, stderr.String())
	}
	return string(out)
}

// start starts the next member at a place.
func (s *scene) start(place int) error {
	s.started[place]++
	name := fmt.Sprintf("%d.%d", place, s.started[place])
	m, err := StartMember(s.binary, s.gateway.GRPC, group, name, s.command, &s.output, "--parallel", strconv.Itoa(parallel))
	if err != nil {
		return err
	}
	s.members[place] = m
	return nil
}

// send sends notifications about SIMs in turn, and requires that all are accepted.
func (s *scene) send(count, sims int) {
	const connections = 32
	sender := faults.FirstSecrets.Sender()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	failed := make([]error, connections)
	var next atomic.Int64
	var sending sync.WaitGroup
	for i := range failed {
		sending.Go(func() {
			for n := int(next.Add(1)); n <= count && failed[i] == nil; n = int(next.Add(1)) {
				failed[i] = sendOne(s.ctx, client, s.gateway.Webhook, sender, n, n%sims)
			}
		})
	}
	sending.Wait()
	if err := errors.Join(failed...); err != nil {
		s.t.Error(err)
	}
}

func sendOne(ctx context.Context, client *http.Client, url string, sender *simulator.Sender, n, sim int) error {
	body := fmt.Appendf(nil, `{"imsi":"42300%010d","received_at":"2026-01-01T000000","sim_id":"8986022019%010d","text_message":"%d"}`, sim, sim, n)
	made, err := sender.MakeWithBody(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body)
	if err != nil {
		return err
	}
	request, err := made.Request(ctx, url)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("notification %d was answered %d", n, answer.StatusCode)
	}
	return err
}

// log reads the log.
func (s *scene) log() []Notification {
	s.t.Helper()
	var log []Notification
	cmd := exec.CommandContext(s.ctx, s.binary, "tail", s.gateway.GRPC, "--from-start", "--until", "head", "--json")
	out, err := cmd.Output()
	s.must(err)
	for line := range bytes.Lines(out) {
		n := new(linksgatev1.Notification)
		s.must(protojson.Unmarshal(line, n))
		log = append(log, Notification{ID: n.GetId(), SIM: strings.Join(n.GetIccids(), " ")})
	}
	return log
}

// status asks how the group is doing.
func (s *scene) status() *linksgatev1.GroupStatus {
	s.t.Helper()
	g := new(linksgatev1.Group)
	s.must(protojson.Unmarshal([]byte(s.linksgate("group", "show", group, "--json")), g))
	return g.GetStatus()
}

// awaitSettled waits until the gateway knows that everything was handled.
func (s *scene) awaitSettled() {
	s.t.Helper()
	s.await("the group has settled everything", func() bool {
		status := s.status()
		return status.GetOldestUnsettled() == nil && status.GetInFlight() == 0 && status.GetRetrying() == 0
	})
}

// Three members share the work of a group while they are killed and replaced.
func TestMembersDie(t *testing.T) {
	t.Logf("-seed %d", *seed)
	r := rand.New(rand.NewPCG(*seed, 0))
	// Some take longer than others.
	s := newScene(t, `case $LINKSGATE_NOTIFICATION_ID in *[05]) i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done;; esac`,
		"--ordering", "by-sim", "--back-off", "100ms", "--max-attempts", "100")
	began := time.Now()
	for place := range s.members {
		s.must(s.start(place))
	}
	var sending sync.WaitGroup
	sending.Go(func() { s.send(*notifications, *sims) })
	s.awaitAtWork()
	s.must(s.recorder.Note(Quiet, "all"))
	for _, moment := range moments(r) {
		s.await(fmt.Sprintf("%d are handled", moment), func() bool { return s.recorder.Handled() >= moment })
		s.must(s.recorder.Note(Noisy, "all"))
		s.replace(r.IntN(members))
		s.awaitAtWork()
		s.must(s.recorder.Note(Quiet, "all"))
	}
	s.await("all are handled", func() bool { return s.recorder.Handled() >= *notifications })
	took := time.Since(began)
	sending.Wait()
	s.awaitSettled()
	if parked := s.status().GetParked(); parked > 0 {
		t.Errorf("%d are parked", parked)
	}
	for _, m := range s.members {
		s.must(m.Stop())
	}
	history := History{Log: s.log(), Tolerance: *tolerance}
	var err error
	history.Events, err = s.recorder.Close()
	s.must(err)
	if len(history.Log) != *notifications {
		t.Errorf("%d were sent, the log holds %d", *notifications, len(history.Log))
	}
	t.Logf("%d notifications of %d SIMs, %d kills: %v, %.0f/s", *notifications, *sims, *kills, took.Round(time.Millisecond),
		float64(*notifications)/took.Seconds())
	violations, report := CheckAndReport(history)
	t.Log(report)
	if len(violations) > 0 {
		t.Errorf("%d violations:\n%s", len(violations), faults.Summary(violations))
	}
}

// moments are the numbers of handled notifications at which a member is killed.
func moments(r *rand.Rand) []int {
	all := make([]int, *kills)
	for i := range all {
		all[i] = 1 + r.IntN(*notifications*9/10)
	}
	slices.Sort(all)
	return all
}

// replace kills the member at a place, and starts another one.
func (s *scene) replace(place int) {
	s.t.Helper()
	s.must(s.members[place].Kill())
	s.must(s.recorder.Note(Killed, s.members[place].Name))
	s.must(s.start(place))
}

// awaitAtWork waits until all members have begun something, or there is nothing left.
func (s *scene) awaitAtWork() {
	s.t.Helper()
	s.await("all members are at work", func() bool {
		return s.recorder.Handled() >= *notifications || !slices.ContainsFunc(s.members[:], func(m *Member) bool { return !s.recorder.AtWork(m.Name) })
	})
}

// The gateway is killed soon after it has lent something, while members work on that. What they had settled last may come again, but never
// while something of that SIM is being worked on, nor out of order.
func TestGatewayDies(t *testing.T) {
	const (
		deaths = 2
		each   = 12 // notifications
		ofSIMs = 4
		// unwritten is more than the engine takes to write what it has delivered: before each death there is nothing that it knows of.
		unwritten = 3 * time.Second
	)
	t.Logf("-seed %d", *seed)
	r := rand.New(rand.NewPCG(*seed, 1))
	// The work takes longer than a start of the gateway.
	s := newScene(t, "sleep 1.5", "--ordering", "by-sim", "--lease", "4s", "--back-off", "100ms", "--max-attempts", "100")
	for place := range s.members {
		s.must(s.start(place))
	}
	for death := range deaths {
		time.Sleep(unwritten)
		s.send(each, ofSIMs)
		s.await("a member is at work", func() bool {
			return slices.ContainsFunc(s.members[:], func(m *Member) bool { return s.recorder.AtWork(m.Name) })
		})
		time.Sleep(time.Duration(r.Int64N(int64(500 * time.Millisecond))))
		s.must(s.gateway.Kill())
		s.must(s.gateway.Start(s.ctx))
		s.await("all are handled", func() bool { return s.recorder.Handled() >= (death+1)*each })
		s.awaitSettled()
	}
	if parked := s.status().GetParked(); parked > 0 {
		t.Errorf("%d are parked", parked)
	}
	for _, m := range s.members {
		s.must(m.Stop())
	}
	history := History{Log: s.log()}
	var err error
	history.Events, err = s.recorder.Close()
	s.must(err)
	violations := Check(history)
	again := len(violations)
	violations = slices.DeleteFunc(violations, func(v faults.Violation) bool { return v.Rule == Repeated })
	t.Logf("%d were handled again", again-len(violations))
	if len(violations) > 0 {
		t.Errorf("%d violations:\n%s", len(violations), faults.Summary(violations))
	}
}

// A notification that kills its member, each time, is parked. What was in flight with it is not, and everything goes on. After the
// fix it is handled.
func TestPoison(t *testing.T) {
	const (
		count    = 60
		attempts = 6
		poison   = `"text_message":"30"`
	)
	dir := t.TempDir()
	fixed := filepath.Join(dir, "fixed")
	// The others take long enough to be in the middle when a member dies.
	s := newScene(t, `read -r json
		case $json in *'"text":"30"'*) [ -e '`+fixed+`' ] || kill -9 $PPID;; *) i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done;; esac`,
		"--back-off", "50ms", "--max-attempts", strconv.Itoa(attempts))
	s.send(count, count)
	ctx, cancel := context.WithCancel(s.ctx)
	var supervised sync.WaitGroup
	for place := range s.members {
		s.must(s.start(place))
	}
	for place := range s.members {
		supervised.Go(func() { s.supervise(ctx, place) })
	}
	s.await("something is parked and the others are handled", func() bool {
		return s.recorder.Handled() >= count-1 && s.status().GetParked() > 0
	})
	s.awaitSettled()
	parked := s.parked()
	if len(parked) != 1 || !strings.Contains(parked[0].GetNotification().GetBody(), poison) {
		t.Fatalf("parked: %v", parked)
	}
	if p := parked[0]; p.GetAttempts() != attempts || p.GetReason() != linksgatev1.ParkReason_PARK_REASON_DISCONNECTED {
		t.Errorf("parked after %d attempts as %v: %s", p.GetAttempts(), p.GetReason(), p.GetDetail())
	}
	s.must(os.WriteFile(fixed, nil, 0o600))
	if out := s.linksgate("group", "replay", group, parked[0].GetNotification().GetId()); out != "1 notification replayed\n" {
		t.Errorf("replay: %s", out)
	}
	s.await("the last one is handled", func() bool { return s.recorder.Handled() >= count })
	s.awaitSettled()
	if left := s.parked(); len(left) > 0 {
		t.Errorf("still parked: %v", left)
	}
	cancel()
	supervised.Wait()
	events, err := s.recorder.Close()
	s.must(err)
	deaths, innocent := 0, 0
	for _, e := range events {
		switch {
		case e.ID == parked[0].GetNotification().GetId():
			if e.What == Began {
				deaths++
			}
		case e.What == Began:
			innocent++
		case e.What == Ended:
			innocent--
		}
	}
	t.Logf("the poison began %d times; others were in the middle %d times when it killed their member", deaths, innocent)
	if deaths != attempts+1 {
		t.Errorf("the poison began %d times, want %d and once after the fix", deaths, attempts)
	}
	if innocent == 0 {
		t.Error("nothing else was in flight with the poison: that it is not parked shows nothing")
	}
}

// supervise starts another member whenever one has ended, until ctx ends.
func (s *scene) supervise(ctx context.Context, place int) {
	for {
		select {
		case <-ctx.Done():
			if err := s.members[place].Stop(); err != nil {
				s.t.Error(err)
			}
			return
		case <-s.members[place].exited:
			if err := s.start(place); err != nil {
				s.t.Error(err)
				return
			}
		}
	}
}

// parked lists what is parked.
func (s *scene) parked() []*linksgatev1.ParkedNotification {
	s.t.Helper()
	var all []*linksgatev1.ParkedNotification
	for line := range strings.Lines(s.linksgate("group", "parked", group, "--json")) {
		p := new(linksgatev1.ParkedNotification)
		s.must(protojson.Unmarshal([]byte(line), p))
		all = append(all, p)
	}
	return all
}

// lockedBuffer keeps the end of what several processes print.
type lockedBuffer struct {
	mu   sync.Mutex
	kept []byte // mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = append(b.kept, p...)
	b.kept = b.kept[max(0, len(b.kept)-16<<10):]
	return len(p), nil
}

func (b *lockedBuffer) end() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.kept)
}
