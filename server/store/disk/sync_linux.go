package disk

import (
	"os"
	"syscall"
)

// datasync makes what was written to a file durable, and its size; not its times, which would cost a write to the journal.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
