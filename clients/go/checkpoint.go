package linksgate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Checkpoint remembers the resume token up to which everything was handled.
//
// To have it together with the effect, in one transaction of a database, do not use a Checkpoint: store n.GetToken() in the transaction,
// and pass the stored token with [After].
type Checkpoint interface {
	// Load returns the token, or "" if none was stored.
	Load(ctx context.Context) (string, error)
	// Store returns nil only when the token will be loaded, also after a crash.
	Store(ctx context.Context, token string) error
}

// FileCheckpoint keeps the token in a file, which is replaced, never rewritten: a crash leaves the token before or the one after.
func FileCheckpoint(path string) Checkpoint { return fileCheckpoint(path) }

type fileCheckpoint string

func (f fileCheckpoint) Load(context.Context) (string, error) {
	data, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	token := strings.TrimSpace(string(data))
	if err == nil && token == "" { // to take it for none would leave notifications out unseen
		err = fmt.Errorf("the checkpoint %s is empty; remove it to start anew", string(f))
	}
	return token, err
}

func (f fileCheckpoint) Store(_ context.Context, token string) (err error) {
	directory := filepath.Dir(string(f))
	file, err := os.CreateTemp(directory, "."+filepath.Base(string(f))+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if _, err := file.WriteString(token + "\n"); err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), string(f)); err != nil {
		return err
	}
	opened, err := os.Open(directory)
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close())
}

// MemoryCheckpoint keeps the token for as long as it is referred to.
func MemoryCheckpoint() Checkpoint { return new(memoryCheckpoint) }

type memoryCheckpoint struct {
	mu    sync.Mutex
	token string // mu
}

func (m *memoryCheckpoint) Load(context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.token, nil
}

func (m *memoryCheckpoint) Store(_ context.Context, token string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.token = token
	return nil
}
