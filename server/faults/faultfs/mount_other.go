//go:build !linux

package faultfs

// Mount returns ErrNoFUSE: how to mount is only known of Linux.
func Mount(string, Options) (*FS, error) { return nil, ErrNoFUSE }

// Close is never called.
func (*FS) Close() error { return nil }
