package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/linksgate/linksgate/server/faults/faultfs"
)

// The defaults make a run of some seconds per test. More of each makes a longer one.
var (
	seed          = flag.Uint64("seed", envSeed(), "seed of when things break; 0: a new one (LINKSGATE_FAULTS_SEED)")
	binary        = flag.String("gateway", "", "the binary to test, `FILE`; default: built from this module")
	notifications = flag.Int("notifications", 10_000, "how many notifications each test has accepted")
	vanishings    = flag.Int("vanishings", 20, "how often a test makes a subscriber vanish")
	kills         = flag.Int("kills", 12, "how often a test kills the gateway")
	every         = flag.Bool("every", false, "let every fault strike once")
	duration      = flag.Duration("duration", 0, "let faults strike at random for so long")
)

const (
	connections = 64
	// testTimeout bounds each wait. A test that is done in time never comes near it.
	testTimeout = 3 * time.Minute
	// keepUp bounds how long a subscriber may take to see what has been accepted.
	keepUp = 20 * time.Second
)

func envSeed() uint64 {
	n, _ := strconv.ParseUint(os.Getenv("LINKSGATE_FAULTS_SEED"), 10, 64)
	return n
}

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	os.Exit(run(m))
}

// run runs the tests and removes what they built.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "linksgate-faults")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	buildBinary = sync.OnceValues(func() (string, error) {
		if *binary != "" {
			return *binary, nil
		}
		return Build(context.Background(), dir)
	})
	return m.Run()
}

// buildBinary returns the binary to test.
var buildBinary func() (string, error)

// scene is a gateway with everything that a test has around it. What has been started ends with the test.
type scene struct {
	t           *testing.T
	ctx         context.Context
	gateway     *Gateway
	driver      *Driver
	subscribers []*Subscriber
	running     sync.WaitGroup
	stop        context.CancelFunc // ends the subscribers

	disk     *faultfs.FS // nil if the log is on the machine's own
	gone     []Trace     // of subscribers that have left
	reported Report      // what doctor found, if the disk was damaged

	generation int // of secrets
}

// newScene starts a gateway.
func newScene(t *testing.T) *scene { return newSceneWith(t, Options{}, testTimeout) }

func newSceneWith(t *testing.T, options Options, timeout time.Duration) *scene {
	t.Helper()
	path, err := buildBinary()
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := NewGateway(path, t.TempDir(), options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), timeout)
	s := &scene{
		t: t, ctx: ctx, gateway: gateway, stop: stop,
		driver: &Driver{URL: gateway.Webhook, Sender: FirstSecrets.Sender(), Connections: connections},
	}
	t.Cleanup(func() {
		s.stop()
		output := s.gateway.Close()
		s.running.Wait()
		if t.Failed() {
			t.Logf("the gateway printed:\n%s", output)
		}
	})
	s.must(gateway.Start(ctx))
	return s
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// subscribe starts a subscriber.
func (s *scene) subscribe(subscriber *Subscriber) *Subscriber {
	subscriber.Address = s.gateway.GRPC
	s.subscribers = append(s.subscribers, subscriber)
	s.running.Go(func() {
		if err := subscriber.Run(s.ctx); err != nil {
			s.t.Error(err)
		}
	})
	return subscriber
}

// drive starts the driver until so many notifications have been accepted. The returned function ends it earlier, and waits for it.
func (s *scene) drive(accepted int) (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	s.running.Go(func() {
		defer close(done)
		defer cancel()
		if err := s.driver.Run(ctx, accepted); err != nil {
			s.t.Error(err)
		}
	})
	return func() { cancel(); <-done }
}

// awaitDriven waits until the driver has done what it was started for.
func (s *scene) awaitDriven(accepted int, stop func()) {
	s.t.Helper()
	s.must(s.driver.AwaitAccepted(s.ctx, accepted))
	stop()
}

// vanish makes a subscriber vanish when it has handled so many. One that does not get so far is an error, and no reason to stop: the
// checker tells what it has not seen.
func (s *scene) vanish(subscriber *Subscriber, handled int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, keepUp)
	defer cancel()
	if err := errors.Join(subscriber.AwaitHandled(ctx, handled), subscriber.Vanish()); err != nil {
		s.t.Error(err)
	}
}

// check waits until all subscribers are at the end of the log, stops them, and checks everything.
func (s *scene) check() History {
	s.t.Helper()
	log, err := ReadLog(s.ctx, s.gateway.GRPC)
	s.must(err)
	ctx, cancel := context.WithTimeout(s.ctx, keepUp)
	defer cancel()
	for _, subscriber := range s.subscribers {
		if err := subscriber.AwaitEnd(ctx, log); err != nil {
			s.t.Error(err) // the checker says what it has not seen
		}
	}
	s.stop()
	s.running.Wait()
	history := History{Sent: s.driver.Sent(), Log: log, Subscribers: s.gone, Reported: s.reported}
	for _, subscriber := range s.subscribers {
		trace := subscriber.Trace()
		trace.ToEnd = true
		history.Subscribers = append(history.Subscribers, trace)
		s.t.Logf("%s saw %d over %d streams, fell behind %d times",
			trace.Name, len(trace.Notifications), len(trace.Endings)+1, trace.FellBehind)
	}
	s.t.Logf("%d sent, %d accepted, %d in the log", len(history.Sent), s.driver.Accepted(), len(log.Notifications))
	if violations := Check(history); len(violations) > 0 {
		s.t.Errorf("%d violations:\n%s", len(violations), Summary(violations))
	}
	return history
}

// random returns a source of randomness for one test, which logs what makes it come again.
func random(t *testing.T) *rand.Rand {
	t.Logf("-seed %d", *seed)
	return rand.New(rand.NewPCG(*seed, 0))
}

// someMoments returns n increasing numbers of accepted notifications, at which something is to break.
func someMoments(r *rand.Rand, n int) []int {
	moments := make([]int, n)
	for i := range moments {
		moments[i] = 1 + r.IntN(*notifications*9/10)
	}
	slices.Sort(moments)
	return moments
}

// measurement is how the gateway did for a while.
type measurement struct {
	memory          int64 // bytes, the greatest that was seen
	perNotification time.Duration
}

func (m measurement) String() string {
	return fmt.Sprintf("at most %d MiB, %v per notification", m.memory>>20, m.perNotification)
}

// measure looks at the gateway until the driver has had so many notifications accepted.
func (s *scene) measure(accepted int) measurement {
	s.t.Helper()
	var m measurement
	var failed error
	first, began := s.driver.Accepted(), time.Now()
	s.must(Await(s.ctx, fmt.Sprintf("%d notifications are accepted", accepted), func() bool {
		memory, err := s.gateway.ResidentBytes()
		m.memory = max(m.memory, memory)
		failed = errors.Join(failed, err)
		return s.driver.Accepted() >= accepted || failed != nil
	}))
	s.must(failed)
	m.perNotification = time.Since(began) / time.Duration(max(s.driver.Accepted()-first, 1))
	return m
}
