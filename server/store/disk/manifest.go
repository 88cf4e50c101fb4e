package disk

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

const manifestName = "manifest"

// manifest is what a directory is to hold. In its file it is one line of JSON behind a checksum, twice.
type manifest struct {
	ID       string           `json:"id"`
	Retained uint64           `json:"retained"` // the first sequence that may be read
	Segments []manifestRecord `json:"segments"`
}

// manifestRecord is one segment; Last, and all that content says, only when it is sealed.
type manifestRecord struct {
	origin
	content
	Sealed bool `json:"sealed,omitempty"`
}

// readManifest returns the manifest of a directory; false if there is none that holds.
func readManifest(dir string) (manifest, bool, error) {
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return manifest{}, false, err
	}
	for line := range bytes.Lines(text) {
		sum, document, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(document, castagnoli)) {
			continue
		}
		var m manifest
		if err := json.Unmarshal(document, &m); err == nil && len(m.ID) == hex.EncodedLen(len(id{})) {
			return m, true, nil
		}
	}
	return manifest{}, false, nil
}

// write replaces the manifest of a directory, durably.
func (m manifest) write(dir string, sync func(*os.File) error) error {
	document, err := json.Marshal(m)
	if err != nil {
		return err
	}
	line := fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(document, castagnoli), document)
	path := filepath.Join(dir, manifestName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, line...))
	if err == nil {
		err = sync(f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(dir, sync)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string, sync func(*os.File) error) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(sync(f), f.Close())
}
