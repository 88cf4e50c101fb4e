//go:build !(linux && amd64)

package skew

import (
	"os/exec"
	"time"
)

// Clock is the wall clock of one process.
type Clock struct{}

// Start returns ErrUnsupported: the code that it would put in place is of another machine.
func Start(*exec.Cmd, time.Duration) (*Clock, error) { return nil, ErrUnsupported }

// Set is never called.
func (*Clock) Set(time.Duration) error { return ErrUnsupported }
