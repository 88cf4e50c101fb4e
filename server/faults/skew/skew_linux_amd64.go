package skew

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Clock is the wall clock of one process.
type Clock struct {
	memory *os.File // of the process
	offset int64    // where in it the offset is, in seconds
}

// clockGettime replaces the function of this name. The offset follows it, at an address that is a multiple of 8.
var clockGettime = []byte{
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov $SYS_clock_gettime, %eax
	0x0f, 0x05, //                   syscall
	0x85, 0xff, //                   test %edi, %edi: CLOCK_REALTIME is 0
	0x75, 0x0a, //                   jne ret
	0x4c, 0x8b, 0x05, 0, 0, 0, 0, // mov offset(%rip), %r8
	0x4c, 0x01, 0x06, //             add %r8, (%rsi): the seconds
	0xc3, //                         ret
}

// endOfLoad is where the displacement of the offset ends, and what it is counted from.
const endOfLoad = 18

// Start starts a command with a clock that is the machine's moved by an offset, as by Set, from the first instruction on. It takes the
// place of [exec.Cmd.Start]. An error that wraps ErrUnsupported says that no process is left, because its clock cannot be moved.
func Start(cmd *exec.Cmd, offset time.Duration) (*Clock, error) {
	// Only the thread that starts a traced process may speak to it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	clock, err := take(cmd.Process.Pid, offset)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // with an error: it was killed
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return clock, nil
}

// take replaces the clock of a process that is about to begin, and lets it go.
func take(pid int, offset time.Duration) (*Clock, error) {
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return nil, fmt.Errorf("wait for the process: %w", err)
	}
	if !status.Stopped() {
		return nil, fmt.Errorf("the process did not stop: %v", status)
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	c := &Clock{memory: memory}
	if err = c.replace(pid); err == nil {
		err = c.Set(offset)
	}
	if err == nil {
		err = syscall.PtraceDetach(pid)
	}
	if err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	return c, nil
}

// replace puts the new function in the place of the old one.
func (c *Clock) replace(pid int) error {
	base, err := vdso(pid)
	if err != nil {
		return err
	}
	function, err := c.find(base, "__vdso_clock_gettime")
	if err != nil {
		return err
	}
	start := base + int64(function.Value)
	c.offset = (start + int64(len(clockGettime)) + 7) / 8 * 8
	code := make([]byte, c.offset+8-start)
	if uint64(len(code)) > function.Size {
		return fmt.Errorf("%s has no room: %d bytes", function.Name, function.Size)
	}
	copy(code, clockGettime)
	binary.LittleEndian.PutUint32(code[endOfLoad-4:], uint32(c.offset-start-endOfLoad))
	if _, err := c.memory.WriteAt(code, start); err != nil {
		return fmt.Errorf("write to the vDSO: %w", err)
	}
	return nil
}

// vdso returns where the vDSO of a process is.
func vdso(pid int) (int64, error) {
	const sysinfoHeader = 33 // AT_SYSINFO_EHDR of getauxval(3)
	vector, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	if err != nil {
		return 0, err
	}
	for ; len(vector) >= 16; vector = vector[16:] {
		if binary.LittleEndian.Uint64(vector) == sysinfoHeader {
			return int64(binary.LittleEndian.Uint64(vector[8:])), nil
		}
	}
	return 0, errors.New("the process has no vDSO")
}

// find finds a function in the vDSO.
func (c *Clock) find(base int64, name string) (elf.Symbol, error) {
	image := make([]byte, 64<<10)
	n, _ := c.memory.ReadAt(image, base) // which ends with an error where the vDSO does
	file, err := elf.NewFile(bytes.NewReader(image[:n]))
	if err != nil {
		return elf.Symbol{}, fmt.Errorf("read the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return elf.Symbol{}, fmt.Errorf("read the vDSO: %w", err)
	}
	for _, symbol := range symbols {
		if symbol.Name == name {
			return symbol, nil
		}
	}
	return elf.Symbol{}, fmt.Errorf("the vDSO has no %s", name)
}

// Set moves the clock to the machine's time and an offset, of which whole seconds count. It is an error if the process has ended.
func (c *Clock) Set(offset time.Duration) error {
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(offset/time.Second))
	if _, err := c.memory.WriteAt(seconds, c.offset); err != nil {
		return fmt.Errorf("move the clock of a process: %w", err)
	}
	return nil
}
