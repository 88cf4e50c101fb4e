package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	// greatestReason is by Rejection.reason, in bytes.
	greatestReason = 1000
	// letGo is how long a command that has ended is waited for when something that it started keeps its output open.
	letGo = time.Second
)

// shells runs commands, each slot one at a time.
//
// Commands are never left behind: nobody would tell the gateway that a notification is still being worked on, and it would go to
// another member. Every slot has a process group, led by a keeper: a shell that reads from a pipe of which only this process has
// the other end, and kills its group when the pipe ends. A command is born into the group of its slot, before it is the command,
// so there is no moment at which this process can die and the command live on.
type shells struct {
	command        string
	environment    []string
	stdout, stderr io.Writer
	ran            atomic.Bool // a command could be run
	slots          []slot      // each belongs to the goroutine that handles something in it
}

// slot is a process group.
type slot struct {
	keeper *exec.Cmd // nil: there is none
	pipe   *os.File  // keeps the keeper waiting
	gone   chan struct{}
}

func newShells(command string, slots int, group, clientName string) *shells {
	return &shells{
		command:     command,
		environment: append(os.Environ(), "LINKSGATE_GROUP="+group, "LINKSGATE_CLIENT_NAME="+clientName),
		slots:       make([]slot, slots),
	}
}

// close ends the keepers, and with them whatever commands have left running. Nothing is being handled any more.
func (s *shells) close() {
	for i := range s.slots {
		s.slots[i].kill()
	}
}

// handle runs the command for one lease. An error says that commands cannot be run here.
func (s *shells) handle(ctx context.Context, slot int, leases []*linksgatev1.Lease) ([]outcome, error) {
	line, err := jsonLine(leases[0].GetNotification())
	if err != nil {
		return []outcome{{decision: retry, reason: "encode: " + err.Error()}}, nil
	}
	var said lastLine
	cmd, err := s.start(ctx, &s.slots[slot], func(cmd *exec.Cmd) {
		cmd.Env = slices.Concat(s.environment, environmentOf(leases[0]))
		cmd.Stdin = bytes.NewReader(append(line, '\n'))
		cmd.Stdout = s.stdout
		cmd.Stderr = io.MultiWriter(s.stderr, &said)
	})
	if err != nil && ctx.Err() != nil {
		return []outcome{{decision: retry, reason: "killed before it began"}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("run the command: %w", err)
	}
	// What Wait says beside the state is about pipes that the command did not read or did not close.
	_ = cmd.Wait()
	o := decisionOn(cmd.ProcessState, said.String())
	switch {
	case o.decision != acknowledge && nobodyReads(s.stdout):
		return nil, fmt.Errorf("run the command: %w", syscall.EPIPE)
	case !s.couldRun(cmd.ProcessState.ExitCode()):
		return nil, fmt.Errorf("--exec %s cannot be run: %s", strconv.Quote(s.command), escaped(o.reason))
	}
	return []outcome{o}, nil
}

// couldRun reports whether the shell could run the command that ended with an exit status. If not, that has nothing to do with the
// notification. A command may end with such a status of its own accord, so once one was run, only a file that is missing counts.
func (s *shells) couldRun(exitStatus int) bool {
	const notExecutable, notFound = 126, 127 // by POSIX, of the shell
	if exitStatus != notExecutable && exitStatus != notFound {
		s.ran.Store(true)
		return true
	}
	if !s.ran.Load() {
		return false
	}
	path := strings.Fields(s.command)[0]
	if !strings.Contains(path, "/") || strings.ContainsAny(path, "\\\"'`$*?[]{}()<>|&;=~#") {
		return true // not a file, or not as it stands
	}
	_, err := exec.LookPath(path)
	return err == nil
}

// nobodyReads reports whether output goes to a pipe, or the like, whose reader has gone.
func nobodyReads(output io.Writer) bool {
	file, ok := output.(*os.File)
	if !ok {
		return false
	}
	gone := false
	raw, err := file.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(poll, 0)
		gone = err == nil && poll[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
	})
	return err == nil && gone
}

// start starts the command in the group of a slot.
func (s *shells) start(ctx context.Context, slot *slot, prepare func(*exec.Cmd)) (*exec.Cmd, error) {
	for tries := 0; ; tries++ {
		if err := slot.keep(); err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, "sh", "-c", s.command)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: slot.keeper.Process.Pid}
		cmd.Cancel = func() error { slot.kill(); return nil }
		cmd.WaitDelay = letGo
		prepare(cmd)
		err := cmd.Start()
		// The keeper may have died just now: what a command does to its group, it does to the keeper.
		if tries == 0 && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ESRCH)) {
			slot.kill()
			continue
		}
		return cmd, err
	}
}

// keep starts the keeper unless there is one.
func (s *slot) keep() error {
	if s.keeper != nil {
		select {
		case <-s.gone:
			s.kill() // what is left of its group
		default:
			return nil
		}
	}
	in, pipe, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	keeper := exec.Command("sh", "-c", "trap '' HUP INT TERM; read -r _; kill -9 0")
	keeper.Stdin = in
	keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := keeper.Start(); err != nil {
		pipe.Close()
		return err
	}
	gone := make(chan struct{})
	go func() { defer close(gone); _ = keeper.Wait() }()
	s.keeper, s.pipe, s.gone = keeper, pipe, gone
	return nil
}

// kill kills everything in the group, with the keeper. It may be called while a command is waited for.
func (s *slot) kill() {
	if s.keeper == nil {
		return
	}
	_ = syscall.Kill(-s.keeper.Process.Pid, syscall.SIGKILL) // an empty group is as good
	s.pipe.Close()
	<-s.gone
	s.keeper = nil
}

// environmentOf tells a command about its notification. What came from outside stays out of it, but for an ICCID that looks like one.
func environmentOf(lease *linksgatev1.Lease) []string {
	n := lease.GetNotification()
	iccid := ""
	if len(n.GetIccids()) > 0 && isICCID(n.GetIccids()[0]) {
		iccid = n.GetIccids()[0]
	}
	return []string{
		"LINKSGATE_NOTIFICATION_ID=" + n.GetId(),
		"LINKSGATE_KIND=" + kindText(n.GetKind()),
		"LINKSGATE_ACCOUNT=" + n.GetAccount(),
		"LINKSGATE_ICCID=" + iccid,
		"LINKSGATE_ATTEMPT=" + strconv.FormatUint(uint64(lease.GetAttempt()), 10),
	}
}

func isICCID(text string) bool {
	const longest = 22
	return len(text) <= longest && strings.Trim(text, "0123456789ABCDEFabcdef") == ""
}

// decisionOn is what the end of a command says about its notification.
func decisionOn(state *os.ProcessState, said string) outcome {
	reason := func(what string) string {
		if said != "" {
			what += ": " + said
		}
		return cutBytes(strings.ToValidUTF8(what, "\uFFFD"), greatestReason)
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() { //nolint:misspell // so it is called
		return outcome{decision: retry, reason: reason("signal: " + status.Signal().String())}
	}
	switch code := state.ExitCode(); code {
	case 0:
		return outcome{}
	case exitPark:
		return outcome{decision: park, reason: reason("exit status " + strconv.Itoa(code))}
	default:
		return outcome{decision: retry, reason: reason("exit status " + strconv.Itoa(code))}
	}
}

// cutBytes cuts valid text after at most so many bytes, and not within a rune.
func cutBytes(text string, most int) string {
	for len(text) > most {
		cut := most
		for cut > 0 && text[cut]&0xC0 == 0x80 {
			cut--
		}
		text = text[:cut]
	}
	return text
}

// lastLine keeps the end of what is written to it.
type lastLine struct{ kept []byte }

func (l *lastLine) Write(p []byte) (int, error) {
	const most = 2 * greatestReason
	l.kept = append(l.kept, p[max(0, len(p)-most):]...)
	l.kept = l.kept[max(0, len(l.kept)-most):]
	return len(p), nil
}

// String is the last line that is not blank.
func (l *lastLine) String() string {
	text := bytes.TrimSpace(l.kept)
	return string(bytes.TrimSpace(text[bytes.LastIndexByte(text, '\n')+1:]))
}
