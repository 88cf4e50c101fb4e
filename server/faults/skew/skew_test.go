package skew

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

const childEnv = "LINKSGATE_SKEW_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	// The child tells its time for each line that it is given.
	began := time.Now()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		now := time.Now()
		fmt.Println(now.UnixNano(), now.Sub(began).Nanoseconds())
	}
}

// A child sees its own clock jump, both ways and as often as asked, and nothing else changes: not its monotonic clock, not our clock.
func TestClockJumps(t *testing.T) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"=1")
	ask, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	clock, err := Start(child, time.Minute)
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(out)
	var last int64
	for i, offset := range []time.Duration{time.Minute, 0, time.Hour, -24 * time.Hour, 400 * 24 * time.Hour, 0, -time.Second} {
		if i > 0 { // it began with the first one
			if err := clock.Set(offset); err != nil {
				t.Fatal(err)
			}
		}
		before := time.Now()
		fmt.Fprintln(ask)
		var wall, monotonic int64
		if _, err := fmt.Fscan(answers, &wall, &monotonic); err != nil {
			t.Fatal(err)
		}
		after := time.Now()
		if told := time.Unix(0, wall); told.Before(before.Round(0).Add(offset)) || told.After(after.Round(0).Add(offset)) {
			t.Errorf("offset %v: the child says %v, not between %v and %v", offset, told, before.Add(offset), after.Add(offset))
		}
		if monotonic < last || monotonic-last > int64(time.Minute) {
			t.Errorf("offset %v: the monotonic clock went from %d to %d", offset, last, monotonic)
		}
		last = monotonic
	}
	ask.Close()
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	if err := clock.Set(0); err == nil {
		t.Error("the clock of a process that has ended was moved")
	}
}
