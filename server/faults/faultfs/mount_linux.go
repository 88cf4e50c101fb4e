package faultfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount serves an empty file system at a directory, which must exist, until Close. It needs the right to mount.
func Mount(dir string, options Options) (*FS, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	fs := newFS(options)
	fs.dir = dir
	// The descriptor must not reach child processes, which would keep the mount alive without anyone to serve it.
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount: %w: open /dev/fuse: %w", ErrNoFUSE, err)
	}
	mountOptions := &fuse.MountOptions{
		FsName: "faultfs", Name: "faultfs", DisableXAttrs: true, DisableReadDirPlus: true, MaxWrite: 512 << 10,
	}
	arguments := []string{
		fmt.Sprintf("fd=%d", fd), "rootmode=40000",
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()),
		fmt.Sprintf("max_read=%d", mountOptions.MaxWrite),
	}
	if err := syscall.Mount("faultfs", dir, "fuse.faultfs", syscall.MS_NOSUID|syscall.MS_NODEV, strings.Join(arguments, ",")); err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("mount %s: %w: %w", dir, ErrNoFUSE, err)
	}
	fs.server, err = fuse.NewServer(bridge{fuse.NewDefaultRawFileSystem(), fs}, fmt.Sprintf("/dev/fd/%d", fd), mountOptions)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, err), syscall.Unmount(dir, syscall.MNT_DETACH))
	}
	go fs.server.Serve()
	if err := settlePoll(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, err), fs.Close())
	}
	return fs, nil
}

// settlePoll lets the kernel ask once whether files can be polled. It is told no, and asks no more. Asked by the Go runtime, when this
// process opens a file here, the question could hold the last thread that can answer.
func settlePoll(dir string) error {
	fd, err := syscall.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), syscall.O_RDONLY|syscall.O_CLOEXEC, 0) // served by go-fuse itself
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: 1}
	// Not epoll_ctl(2), which the syscall package calls without letting go of the thread's processor.
	if _, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// Close unmounts the file system. If a process still uses it, all that this process does there fails from then on, and Close says so.
func (fs *FS) Close() error {
	var err error
	for delay := time.Millisecond; delay < time.Second; delay *= 2 { // the kernel closes the files of an ended process a little later
		if err = syscall.Unmount(fs.dir, 0); !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(delay)
	}
	if err == nil {
		fs.server.Wait()
		return nil
	}
	return errors.Join(fmt.Errorf("unmount %s: %w", fs.dir, err), syscall.Unmount(fs.dir, syscall.MNT_FORCE|syscall.MNT_DETACH))
}
