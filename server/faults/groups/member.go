package groups

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// exitTimeout bounds how long a process may take to end after it should have, on a busy machine.
const exitTimeout = 15 * time.Second

// Member is one `linksgate consume` process.
type Member struct {
	Name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended and its state is set
}

// StartMember starts a process that takes part in a group with a command. More arguments go to consume.
func StartMember(binary, address, group, name, command string, output io.Writer, more ...string) (*Member, error) {
	cmd := exec.Command(binary, append([]string{"consume", group, "--address", address, "--client-name", name, "--exec", command}, more...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "LINKSGATE_") })
	cmd.Stdout, cmd.Stderr = output, output
	// What it leaves running must not keep the output open, or nobody would see that it has ended.
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start member %s: %w", name, err)
	}
	m := &Member{Name: name, cmd: cmd, exited: make(chan struct{})}
	go func() { defer close(m.exited); _ = cmd.Wait() }()
	return m, nil
}

// Kill kills the process group as kill -9 does, and waits until the process is gone.
func (m *Member) Kill() error {
	select {
	case <-m.exited:
		return fmt.Errorf("kill member %s: it had ended by itself: %v", m.Name, m.cmd.ProcessState)
	default:
	}
	return errors.Join(m.signal(syscall.SIGKILL), m.wait())
}

// Stop asks the process to end. It is an error if it does not, or not with status 0.
func (m *Member) Stop() error {
	if err := errors.Join(m.signal(syscall.SIGTERM), m.wait()); err != nil {
		return errors.Join(err, m.signal(syscall.SIGKILL))
	}
	if !m.cmd.ProcessState.Success() {
		return fmt.Errorf("stop member %s: %v", m.Name, m.cmd.ProcessState)
	}
	return nil
}

func (m *Member) signal(signal syscall.Signal) error {
	if err := syscall.Kill(-m.cmd.Process.Pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to member %s: %w", signal, m.Name, err)
	}
	return nil
}

func (m *Member) wait() error {
	select {
	case <-m.exited:
		return nil
	case <-time.After(exitTimeout):
		return fmt.Errorf("member %s was still running after %v", m.Name, exitTimeout)
	}
}
