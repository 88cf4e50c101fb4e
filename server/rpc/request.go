package rpc

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// Bounds and defaults that the protos document.
const (
	defaultHeartbeat = 10 * time.Second
	minHeartbeat     = time.Second
	maxHeartbeat     = 10 * time.Minute
	maxClientName    = 100
	maxICCIDs        = 1000
	maxFilterList    = 100
	maxFilterEntry   = 64  // bytes
	maxPartnerCode   = 256 // bytes: nothing is documented of its form
	defaultPageSize  = 100
	maxPageSize      = 1000
)

// toFilter checks a filter. An empty one is nil. prefix stands before the names of its fields in errors.
func toFilter(f *linksgatev1.NotificationFilter, prefix string) (*eventlog.Filter, error) {
	for _, list := range []struct {
		field  string
		values []string
		most   int
		bytes  int // of an entry
	}{
		{prefix + "accounts", f.GetAccounts(), maxFilterList, maxFilterEntry},
		{prefix + "iccids", f.GetIccids(), maxICCIDs, maxFilterEntry},
		{prefix + "partner_codes", f.GetPartnerCodes(), maxFilterList, maxPartnerCode},
	} {
		if len(list.values) > list.most {
			return nil, &fieldError{field: list.field, problem: fmt.Sprintf("%d entries, at most %d", len(list.values), list.most)}
		}
		for _, value := range list.values {
			switch {
			case value == "":
				return nil, &fieldError{field: list.field, problem: "an entry is empty"}
			case len(value) > list.bytes:
				return nil, &fieldError{field: list.field, problem: fmt.Sprintf("an entry has %d bytes, at most %d", len(value), list.bytes)}
			}
		}
	}
	if most := len(linksgatev1.NotificationKind_name); len(f.GetKinds()) > most {
		return nil, &fieldError{field: prefix + "kinds", problem: fmt.Sprintf("%d entries, at most %d", len(f.GetKinds()), most)}
	}
	for _, kind := range f.GetKinds() {
		if kind == linksgatev1.NotificationKind_NOTIFICATION_KIND_UNSPECIFIED || linksgatev1.NotificationKind_name[int32(kind)] == "" {
			return nil, &fieldError{field: prefix + "kinds", problem: fmt.Sprintf("%v is not a kind of notification", kind)}
		}
	}
	return eventlog.FilterOf(f), nil
}

// toCursor reads a token from a field of a request.
func (s *Server) toCursor(field, token string) (eventlog.Cursor, error) {
	cursor, err := s.log.ParseToken(token)
	if err != nil {
		return cursor, &fieldError{field: field, problem: err.Error(), err: err}
	}
	return cursor, nil
}

// outside says that a number is not between 1 and a bound, or 0 for the default.
func outside(n int32, most int) string { return fmt.Sprintf("%d is not between 1 and %d", n, most) }

func checkTime(field string, t *timestamppb.Timestamp) error {
	if err := t.CheckValid(); err != nil {
		return &fieldError{field: field, problem: err.Error()}
	}
	return nil
}

func toHeartbeat(d *durationpb.Duration) (time.Duration, error) {
	return toDuration("heartbeat_interval", d, defaultHeartbeat, minHeartbeat, maxHeartbeat)
}

// toDuration reads a duration that has a default and bounds.
func toDuration(field string, d *durationpb.Duration, ifUnset, least, most time.Duration) (time.Duration, error) {
	if d == nil {
		return ifUnset, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, &fieldError{field: field, problem: err.Error()}
	}
	given := d.AsDuration()
	if given < least || given > most {
		return 0, &fieldError{field: field, problem: fmt.Sprintf("%v is not between %v and %v", given, least, most)}
	}
	return given, nil
}

func checkClientName(name string) error {
	if len(name) > maxClientName {
		return &fieldError{field: "client_name", problem: fmt.Sprintf("longer than %d bytes", maxClientName)}
	}
	for _, c := range []byte(name) {
		if c < ' ' || c > '~' {
			return &fieldError{field: "client_name", problem: "not printable ASCII"}
		}
	}
	return nil
}

// positionOf describes a place for clients; nil if there is none.
func (s *Server) positionOf(place eventlog.Cursor, sequence uint64, written time.Time) *linksgatev1.LogPosition {
	p := &linksgatev1.LogPosition{Token: s.log.Token(place), Sequence: int64(sequence)}
	if !written.IsZero() {
		p.WrittenAt = timestamppb.New(written)
	}
	return p
}

// firstOf describes the oldest retained notification.
func (s *Server) firstOf(info eventlog.Info) *linksgatev1.LogPosition {
	if info.Empty() {
		return nil
	}
	return s.positionOf(info.First, eventlog.Position(info.First).Sequence(), info.FirstWritten)
}

// headOf describes the newest notification.
func (s *Server) headOf(head eventlog.Position, written time.Time) *linksgatev1.LogPosition {
	if head.Stream == 0 {
		return nil
	}
	return s.positionOf(eventlog.Cursor{Stream: head.Stream + 1}, head.Sequence(), written)
}

func toLag(lag eventlog.Lag) *linksgatev1.Lag {
	return &linksgatev1.Lag{RecordBatches: int64(lag.Batches), Time: durationpb.New(lag.Time)}
}
