package webhook

import (
	"errors"
	"io"
	"runtime"
	"sync"
)

// What bodies may take while they are on their way and being read. Small ones, which genuine notifications are, have a budget of their
// own: senders of large bodies that never end cannot use it up.
const (
	smallBody         = 16 << 10 // bytes, as declared
	smallBodiesBudget = 16 << 20
	largeBodiesBudget = 48 << 20
	// keptBuffer is the largest buffer that is kept for the next request.
	keptBuffer = 64 << 10
)

// errNoBudget: bodies on their way take all that they may.
var errNoBudget = errors.New("too many bodies at once")

// budget bounds the bytes of bodies.
type budget struct {
	most int64

	mu   sync.Mutex
	used int64 // mu
}

func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > b.most {
		return false
	}
	b.used += n
	return true
}

func (b *budget) giveBack(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
}

// budgetReader takes from a budget what it reads.
type budgetReader struct {
	io.Reader
	budget *budget
	taken  int64
}

// Read implements [io.Reader].
func (r *budgetReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 && !r.budget.take(int64(n)) {
		return 0, errNoBudget
	}
	r.taken += int64(n)
	return n, err
}

// largeAtOnce is how many large bodies are parsed and verified at once: so few that small ones always find a processor.
func largeAtOnce() int { return max(runtime.GOMAXPROCS(0)/2, 1) }
