package groups

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Recorder reads what commands write into its pipe.
type Recorder struct {
	// Path of the pipe.
	Path string

	file *os.File // both ends, so that neither reading nor writing ever finds nobody there
	read sync.WaitGroup

	mu     sync.Mutex
	events []Event         // mu
	begun  map[string]bool // mu; by member
	ended  map[string]bool // mu; by id
	failed error           // mu
}

// NewRecorder makes a pipe and reads it until Close.
func NewRecorder(path string) (*Recorder, error) {
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make the pipe: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the pipe: %w", err)
	}
	r := &Recorder{Path: path, file: file, begun: make(map[string]bool), ended: make(map[string]bool)}
	r.read.Go(r.run)
	return r, nil
}

// Command is what a member is to run: it records that it has begun, does the work, which is in the language of the shell, and records
// that it has ended. Writing is one builtin of the shell, of fewer bytes than a pipe takes at once.
func (r *Recorder) Command(work string) string {
	line := func(what What) string {
		return fmt.Sprintf(`echo "%s $LINKSGATE_CLIENT_NAME $LINKSGATE_NOTIFICATION_ID" >'%s'`, what, r.Path)
	}
	return line(Began) + "; " + work + "\n" + line(Ended)
}

// Note records an event of the test's own, after all that commands have written before.
func (r *Recorder) Note(what What, member string) error {
	_, err := fmt.Fprintf(r.file, "%s %s -\n", what, member)
	return err
}

const endOfRecord What = "end"

func (r *Recorder) run() {
	for lines := bufio.NewReader(r.file); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			r.fail(err)
			return
		}
		fields := strings.Fields(line)
		if len(fields) != 3 {
			r.fail(fmt.Errorf("the line %q", line))
			return
		}
		e := Event{What: What(fields[0]), Member: fields[1], ID: strings.TrimPrefix(fields[2], "-"), At: time.Now()}
		if e.What == endOfRecord {
			return
		}
		r.mu.Lock()
		r.events = append(r.events, e)
		switch e.What {
		case Began:
			r.begun[e.Member] = true
		case Ended:
			r.ended[e.ID] = true
		}
		r.mu.Unlock()
	}
}

func (r *Recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = fmt.Errorf("read the pipe: %w", err)
}

// Handled is how many notifications have been handled to their end.
func (r *Recorder) Handled() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ended)
}

// AtWork reports whether a member has begun something.
func (r *Recorder) AtWork(member string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun[member]
}

// Close reads what has been written, and returns all events.
func (r *Recorder) Close() ([]Event, error) {
	if err := r.Note(endOfRecord, "-"); err != nil {
		return nil, errors.Join(err, r.file.Close())
	}
	r.read.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events), errors.Join(r.failed, r.file.Close())
}
