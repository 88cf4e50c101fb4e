// Package skew answers one question: what does a process do when the machine's clock jumps?
//
// It starts a process that has a wall clock of its own: the machine's, moved by an offset that can be changed at any time while the
// process runs. Nobody else's clock is touched, so this is for tests; and the process is the one that ships, since nothing is built
// into it.
//
// # How
//
// A Go program asks for the time through the vDSO, a piece of code that the kernel maps into each process. Before the first instruction
// of the new process runs, its copy of clock_gettime is replaced by one that makes the system call and adds the offset to what it
// says of CLOCK_REALTIME. The copy is private, as those are in which debuggers set breakpoints. The monotonic clock stays as it is, as
// in a real jump.
//
// # What is left out
//
// The kernel's own time: that of timers, which Go does not set by the wall clock, and that of files. Threads that call the system
// without the vDSO. A jump is by whole seconds.
package skew

import "errors"

// ErrUnsupported says that the clock of a process cannot be moved on this machine.
var ErrUnsupported = errors.New("the clock of a process cannot be moved here")
