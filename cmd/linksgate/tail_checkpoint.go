package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// checkpointFile remembers one resume token. The file is replaced, never rewritten: a
// crash leaves the token before or the one after, not a part of one.
type checkpointFile struct {
	path string
	last string // in the file, as far as we know
}

// read returns the token, or "" when there is no file yet. An empty file is an
// error: to take it for no file would leave notifications out unseen.
func (f *checkpointFile) read() (string, error) {
	data, err := readFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read --checkpoint: %w", err)
	}
	f.last = strings.TrimSpace(string(data))
	if f.last == "" {
		return "", fmt.Errorf("the checkpoint %s is empty; remove it to start anew", f.path)
	}
	return f.last, nil
}

// write returns nil only when the token is in the file and will be found there
// after a crash.
func (f *checkpointFile) write(token string) error {
	if token == f.last {
		return nil
	}
	if err := replaceFile(f.path, token+"\n"); err != nil {
		return fmt.Errorf("write --checkpoint: %w", err)
	}
	f.last = token
	return nil
}

// replaceFile returns nil only when the content is in the file, and the directory says so.
func replaceFile(path, content string) (err error) {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if _, err := file.WriteString(content); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory last over a loss of power.
func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
