package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/jsondoc"
	"github.com/linksgate/linksgate/server/signature"
)

// answer is what a request gets. The answers that do not depend on the request are shared: they must not be changed.
type answer struct {
	status     int
	reason     string // short and stable, for metrics and logs
	detail     string // for a person at the sender's side
	id         string // of the stored notification
	retryAfter time.Duration
	err        error                        // for the log; not shown to the sender
	quarantine linksgatev1.QuarantineReason // of a request that is to be kept
	kept       string                       // what became of that, for the log; empty if it was not to be kept
}

const retryAfter = 5 * time.Second

var (
	// One text for all of them: a stranger must not learn which accounts exist.
	answerNoURL = &answer{status: http.StatusNotFound, reason: "no_such_url",
		detail: "no notification is received at this URL: check account, kind and path token"}
	answerNotAllowed = &answer{status: http.StatusNotFound, reason: "source_not_allowed", detail: answerNoURL.detail}
	answerNotPost    = &answer{status: http.StatusMethodNotAllowed, reason: "not_post",
		detail: "notifications are sent with POST"}
	answerTooLarge = &answer{status: http.StatusRequestEntityTooLarge, reason: "too_large",
		detail: "the body is over the limit"}
	answerSlow = &answer{status: http.StatusRequestTimeout, reason: "slow",
		detail: "the body did not arrive in time"}
	answerCutOff = &answer{status: http.StatusBadRequest, reason: "cut_off",
		detail: "the request ended before its body did"}
	answerUnreadable = &answer{status: http.StatusBadRequest, reason: "unreadable",
		detail: "the body could not be received"}
	answerBusy = &answer{status: http.StatusTooManyRequests, reason: "busy", retryAfter: time.Second,
		detail: "too many requests at once"}
)

func stored(id string) *answer { return &answer{status: http.StatusOK, reason: "stored", id: id} }

// refuseBody answers a body that could not be parsed.
func refuseBody(err error) *answer {
	reason := "invalid_json"
	switch {
	case errors.Is(err, jsondoc.ErrDuplicateKey):
		reason = "duplicate_key"
	case errors.Is(err, jsondoc.ErrNesting):
		reason = "nesting"
	case errors.Is(err, jsondoc.ErrTooMany):
		reason = "too_many_values"
	}
	return &answer{status: http.StatusBadRequest, reason: reason, err: err,
		quarantine: linksgatev1.QuarantineReason_QUARANTINE_REASON_UNREADABLE,
		detail:     fmt.Sprintf("the body is not readable as one JSON document: %v", err)}
}

// isMisdirected reports whether the request was refused for its URL, or for where it came from.
func (a *answer) isMisdirected() bool { return a == answerNoURL || a == answerNotAllowed }

// misdirected is the same answer for one request that is to be kept.
func (a *answer) misdirected(path string) *answer {
	own := *a
	own.quarantine = linksgatev1.QuarantineReason_QUARANTINE_REASON_NO_SUCH_URL
	own.err = fmt.Errorf("nothing is received at the path %.200q: release it as the account and kind that were meant", loggedPath(path))
	if a == answerNotAllowed {
		own.quarantine = linksgatev1.QuarantineReason_QUARANTINE_REASON_SOURCE_NOT_ALLOWED
		own.err = errors.New("it came from an address that allowed_sources does not have")
	}
	return &own
}

// loggedPath is a path without what may be a path token: its first parts, up to where a kind stands.
func loggedPath(path string) string {
	const parts = 3 // linksfield, account, kind
	at := 0
	for range parts {
		next := strings.IndexByte(path[min(at+1, len(path)):], '/')
		if next < 0 {
			return path
		}
		at += 1 + next
	}
	return path[:at] + "/…"
}

// bearsSignature reports whether the request bore a well-formed signature, be it of nobody that is known. Of one that was not looked at,
// the header has to do.
func (a *answer) bearsSignature(headers http.Header) bool {
	if a.quarantine == linksgatev1.QuarantineReason_QUARANTINE_REASON_NO_SUCH_URL ||
		a.quarantine == linksgatev1.QuarantineReason_QUARANTINE_REASON_SOURCE_NOT_ALLOWED {
		return headers.Get("X-Lf-Md5") != "" || headers.Get("X-Lf-Signature") != ""
	}
	return a.quarantine == linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MISMATCH ||
		a.quarantine == linksgatev1.QuarantineReason_QUARANTINE_REASON_UNKNOWN_KEY
}

// refuseSignature answers a request that could not be verified. The sender is not told more than that: what would match is
// the operator's to find out, with `linksgate verify`.
func refuseSignature(err error) *answer {
	a := &answer{status: http.StatusUnauthorized, reason: "signature_mismatch", err: err,
		quarantine: linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MISMATCH,
		detail:     "the signature was not made with a configured secret over this body"}
	switch {
	case errors.Is(err, signature.ErrMissing):
		a.reason, a.detail = "signature_missing", "the request bears no signature"
		a.quarantine = linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MISSING
	case errors.Is(err, signature.ErrMalformed):
		a.reason, a.detail = "signature_malformed", "the signature headers are malformed"
		a.quarantine = linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MALFORMED
	case errors.Is(err, signature.ErrAlgorithm):
		a.reason, a.detail = "signature_algorithm", "the signature algorithm is not supported"
		a.quarantine = linksgatev1.QuarantineReason_QUARANTINE_REASON_SIGNATURE_MALFORMED
	case errors.Is(err, signature.ErrUnknownKey):
		a.reason = "signature_unknown_key"
		a.quarantine = linksgatev1.QuarantineReason_QUARANTINE_REASON_UNKNOWN_KEY
	}
	return a
}

// refuseStore answers a notification that the log did not take.
func refuseStore(err error) *answer {
	if errors.Is(err, eventlog.ErrTooLarge) {
		return answerTooLarge
	}
	reason := "log_unavailable"
	switch {
	case errors.Is(err, eventlog.ErrFrozen):
		reason = "log_frozen"
	case errors.Is(err, eventlog.ErrNoSpace):
		reason = "no_space"
	case errors.Is(err, eventlog.ErrClosed):
		reason = "draining"
	}
	return &answer{status: http.StatusServiceUnavailable, reason: reason, retryAfter: retryAfter, err: err,
		detail: "the notification cannot be stored now"}
}

// write sends the answer: the id of what was stored, or a problem in the form of RFC 9457.
func (a *answer) write(w http.ResponseWriter) {
	header := w.Header()
	if a.status == http.StatusOK {
		header["Content-Type"] = jsonType
		body := make([]byte, 0, 64)
		body = append(body, `{"id":"`...) // ids need no escaping
		body = append(body, a.id...)
		body = append(body, "\"}\n"...)
		_, _ = w.Write(body) // the sender may be gone: what it was owed is on disk
		return
	}
	if a.status == http.StatusMethodNotAllowed {
		header.Set("Allow", http.MethodPost)
	}
	if a.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(a.retryAfter.Seconds())))
	}
	header.Set("Content-Type", "application/problem+json")
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{http.StatusText(a.status), a.status, a.detail})
}

var jsonType = []string{"application/json"}
