package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/webhook"
)

// Bounds of what is read from the log after a start, to learn which secrets were in use before it.
const (
	usesWindow = 24 * time.Hour
	// usesStretch is how many record batches are read at a time, from the newest stretch back to older ones.
	usesStretch = 256
	// maxUsesRead is the number of notifications after which no further stretch is begun.
	maxUsesRead = 200_000
)

// Usage knows which configured secrets were last used, and when. The front records each use; what was used before the gateway
// was started stands in the log, which names with each notification the secret that verified it. Of several gateways on one
// log, each knows what it verified itself, and what the log held when it started.
type Usage struct {
	log    *eventlog.Log
	front  *webhook.Handler
	logger *slog.Logger
	since  atomic.Pointer[time.Time] // a use since then has been seen
}

// NewUsage returns what knows of the uses from now on.
func NewUsage(log *eventlog.Log, front *webhook.Handler, logger *slog.Logger) *Usage {
	u := &Usage{log: log, front: front, logger: logger}
	u.setSince(time.Now())
	return u
}

func (u *Usage) setSince(t time.Time) {
	t = t.UTC()
	u.since.Store(&t)
}

// Learn reads the log of the time before the gateway was started. It ends when every secret has been seen, when it has read
// enough, or with ctx.
func (u *Usage) Learn(ctx context.Context) {
	if err := u.learnBack(ctx, time.Now().Add(-usesWindow)); err != nil && ctx.Err() == nil {
		u.logger.Warn("the log could not be read for the uses of secrets before the start", "error", err)
	}
}

// learnBack reads the log backwards, a stretch at a time. So it can end after any stretch, and knows the newest uses first.
func (u *Usage) learnBack(ctx context.Context, oldest time.Time) error {
	info, err := u.log.Info(ctx)
	if err != nil {
		return err
	}
	if info.Empty() {
		return nil
	}
	first, err := u.log.CursorAt(ctx, oldest)
	if err != nil {
		return err
	}
	// The secrets of the start: one that got a new value meanwhile under its name has no part in what the log says.
	uses := u.front.Uses()
	whole := true // all up to the head could be read
	for end, read := info.Next, 0; first.Before(end); {
		if read >= maxUsesRead || allSeen(uses) {
			return nil
		}
		begin := first
		if end.Stream > first.Stream+usesStretch {
			begin = eventlog.Cursor{Stream: end.Stream - usesStretch}
		}
		since, count, gap, err := u.learnStretch(ctx, uses, begin, end)
		if err != nil {
			return err
		}
		if whole && !since.IsZero() {
			u.setSince(since)
		}
		if gap != nil && whole {
			whole = false // what was used is still worth knowing
			u.logger.Warn("a part of the log cannot be read: uses of secrets before it are known in part", "error", gap)
		}
		end, read = begin, read+count
	}
	if !whole {
		return nil
	}
	if oldest.Before(info.FirstWritten) {
		oldest = info.FirstWritten
	}
	u.setSince(oldest)
	return nil
}

// learnStretch reads a part of the log. It returns when that begins, and how many notifications it holds; if something cannot be read, what,
// and when what follows begins.
func (u *Usage) learnStretch(ctx context.Context, uses *webhook.Uses, begin, end eventlog.Cursor) (since time.Time, count int, gap, err error) {
	for step, err := range u.log.Read(ctx, begin, eventlog.ReadOptions{Until: end, Pulse: time.Second}) {
		switch {
		case err != nil:
			return since, count, gap, err
		case step.Gap != nil && !errors.Is(step.Gap.Err, eventlog.ErrErased):
			since, gap = time.Time{}, fmt.Errorf("before %d: %w", step.Next.Stream, step.Gap.Err)
		}
		for _, record := range step.Records {
			n, err := record.Notification()
			if err != nil {
				since, gap = time.Time{}, err
				continue
			}
			uses.Learn(n)
			if count++; since.IsZero() {
				since = n.GetReceivedAt().AsTime()
				if released := n.GetReleasedAt(); released != nil { // it was written long after it had been received
					since = released.AsTime()
				}
			}
		}
	}
	return since, count, gap, nil
}

func allSeen(uses *webhook.Uses) bool {
	for _, use := range uses.List() {
		if use.LastUsed.IsZero() {
			return false
		}
	}
	return true
}

// serve answers GET /secrets.
func (u *Usage) serve(w http.ResponseWriter, _ *http.Request) {
	type secret struct {
		Account  string     `json:"account"`
		Scheme   string     `json:"scheme"`
		KeyID    string     `json:"key_id"`
		Name     string     `json:"name"`
		LastUsed *time.Time `json:"last_used"`
	}
	answer := struct {
		ObservedSince time.Time `json:"observed_since"`
		Secrets       []secret  `json:"secrets"`
	}{*u.since.Load(), []secret{}}
	for _, use := range u.front.Uses().List() {
		one := secret{Account: use.Account, Scheme: use.Scheme, KeyID: use.KeyID, Name: use.Name}
		if !use.LastUsed.IsZero() {
			one.LastUsed = &use.LastUsed
		}
		answer.Secrets = append(answer.Secrets, one)
	}
	writeJSON(w, answer)
}
