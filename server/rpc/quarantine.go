package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// Reverify takes a quarantined request the way of a new one, with the configuration in force now. It returns the notification
// to release, or an error that says why there is none, for the operator to read.
type Reverify func(entry *linksgatev1.QuarantineEntry, force bool) (*linksgatev1.Notification, error)

// quarantineServer implements [linksgatev1.QuarantineServiceServer].
type quarantineServer struct {
	linksgatev1.UnimplementedQuarantineServiceServer
	quarantine *eventlog.Quarantine
	log        *eventlog.Log
	reverify   Reverify
}

// ListQuarantineEntries implements [linksgatev1.QuarantineServiceServer].
func (s *quarantineServer) ListQuarantineEntries(ctx context.Context, req *linksgatev1.ListQuarantineEntriesRequest) (*linksgatev1.ListQuarantineEntriesResponse, error) {
	if err := checkSelection(req); err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	response := new(linksgatev1.ListQuarantineEntriesResponse)
	bytes := 0
	var last string
	for entry, err := range s.quarantine.Read(ctx, req.GetPageToken()) {
		switch {
		case errors.Is(err, eventlog.ErrBadID):
			return nil, &fieldError{field: "page_token", problem: "not a page token"}
		case err != nil:
			return nil, err
		}
		if !selects(req, entry) {
			last = entry.GetId()
			continue
		}
		// The token of a page is the last entry that was looked at. It is only needed if there is another one.
		if bytes += proto.Size(entry); len(response.Entries) == size || (bytes > maxPageBytes && len(response.Entries) > 0) {
			response.NextPageToken = last
			break
		}
		response.Entries = append(response.Entries, entry)
		last = entry.GetId()
	}
	return response, nil
}

// checkSelection refuses what no entry could match.
func checkSelection(req *linksgatev1.ListQuarantineEntriesRequest) error {
	if _, err := toFilter(&linksgatev1.NotificationFilter{Accounts: req.GetAccounts(), Kinds: req.GetKinds()}, ""); err != nil {
		return err
	}
	if most := len(linksgatev1.QuarantineReason_name); len(req.GetReasons()) > most {
		return &fieldError{field: "reasons", problem: fmt.Sprintf("%d entries, at most %d", len(req.GetReasons()), most)}
	}
	for _, reason := range req.GetReasons() {
		if reason == linksgatev1.QuarantineReason_QUARANTINE_REASON_UNSPECIFIED || linksgatev1.QuarantineReason_name[int32(reason)] == "" {
			return &fieldError{field: "reasons", problem: fmt.Sprintf("%v is not a reason", reason)}
		}
	}
	if req.GetSince() == nil {
		return nil
	}
	return checkTime("since", req.GetSince())
}

// selects reports whether a request asks for an entry.
func selects(req *linksgatev1.ListQuarantineEntriesRequest, entry *linksgatev1.QuarantineEntry) bool {
	in := func(n int, contains bool) bool { return n == 0 || contains }
	return in(len(req.GetReasons()), slices.Contains(req.GetReasons(), entry.GetReason())) &&
		in(len(req.GetAccounts()), slices.Contains(req.GetAccounts(), entry.GetAccount())) &&
		in(len(req.GetKinds()), slices.Contains(req.GetKinds(), entry.GetKind())) &&
		(req.GetSince() == nil || !entry.GetReceivedAt().AsTime().Before(req.GetSince().AsTime()))
}

// GetQuarantineEntry implements [linksgatev1.QuarantineServiceServer].
func (s *quarantineServer) GetQuarantineEntry(ctx context.Context, req *linksgatev1.GetQuarantineEntryRequest) (*linksgatev1.GetQuarantineEntryResponse, error) {
	entry, err := s.quarantine.Get(ctx, req.GetId())
	if err != nil {
		return nil, idError(err)
	}
	return &linksgatev1.GetQuarantineEntryResponse{Entry: entry}, nil
}

// ReleaseQuarantineEntry implements [linksgatev1.QuarantineServiceServer].
func (s *quarantineServer) ReleaseQuarantineEntry(ctx context.Context, req *linksgatev1.ReleaseQuarantineEntryRequest) (*linksgatev1.ReleaseQuarantineEntryResponse, error) {
	entry, err := s.quarantine.Get(ctx, req.GetId())
	if err != nil {
		return nil, idError(err)
	}
	if entry, err = renamed(entry, req); err != nil {
		return nil, err
	}
	n, err := s.reverify(entry, req.GetForce())
	if err != nil {
		return &linksgatev1.ReleaseQuarantineEntryResponse{
			Outcome: linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_REFUSED, Detail: err.Error(),
		}, nil
	}
	response := &linksgatev1.ReleaseQuarantineEntryResponse{
		Outcome: linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_RELEASED, Verification: n.GetVerification(),
	}
	if req.GetDryRun() {
		return response, nil
	}
	released, err := s.quarantine.Release(ctx, req.GetId(), n)
	if err != nil {
		return nil, err
	}
	response.NotificationId = s.log.NotificationID(released.Position)
	switch {
	case released.Before:
		response.Outcome = linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_ALREADY_RELEASED
	case released.Copy:
		response.Outcome = linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_DUPLICATE
	}
	return response, nil
}

// renamed returns an entry as the account and kind that a request says.
func renamed(entry *linksgatev1.QuarantineEntry, req *linksgatev1.ReleaseQuarantineEntryRequest) (*linksgatev1.QuarantineEntry, error) {
	account, kind := req.GetAsAccount(), req.GetAsKind()
	if account == "" && kind == linksgatev1.NotificationKind_NOTIFICATION_KIND_UNSPECIFIED {
		return entry, nil
	}
	switch {
	case entry.GetReason() != linksgatev1.QuarantineReason_QUARANTINE_REASON_NO_SUCH_URL:
		return nil, &fieldError{field: "as_account", problem: "is only for an entry whose reason is NO_SUCH_URL"}
	case account == "" || kind == linksgatev1.NotificationKind_NOTIFICATION_KIND_UNSPECIFIED:
		return nil, &fieldError{field: "as_kind", problem: "as_account and as_kind need each other"}
	}
	if _, err := toFilter(&linksgatev1.NotificationFilter{
		Accounts: []string{account}, Kinds: []linksgatev1.NotificationKind{kind},
	}, "as_"); err != nil {
		return nil, err
	}
	entry = proto.CloneOf(entry)
	entry.Account, entry.Kind = account, kind
	return entry, nil
}

// PurgeQuarantineEntry implements [linksgatev1.QuarantineServiceServer].
func (s *quarantineServer) PurgeQuarantineEntry(ctx context.Context, req *linksgatev1.PurgeQuarantineEntryRequest) (*linksgatev1.PurgeQuarantineEntryResponse, error) {
	if err := s.quarantine.Remove(ctx, req.GetId()); err != nil {
		return nil, idError(err)
	}
	return &linksgatev1.PurgeQuarantineEntryResponse{}, nil
}

// GetQuarantineInfo implements [linksgatev1.QuarantineServiceServer].
func (s *quarantineServer) GetQuarantineInfo(ctx context.Context, _ *linksgatev1.GetQuarantineInfoRequest) (*linksgatev1.GetQuarantineInfoResponse, error) {
	info, err := s.quarantine.Info(ctx)
	if err != nil {
		return nil, err
	}
	response := &linksgatev1.GetQuarantineInfoResponse{
		Entries: int64(info.Entries), Bytes: int64(info.Bytes), MaxBytes: info.MaxBytes, MaxAge: durationpb.New(info.MaxAge),
	}
	if !info.Oldest.IsZero() {
		response.OldestReceivedAt = timestamppb.New(info.Oldest)
	}
	return response, nil
}

// idError makes an error about the id that a request names one about its field.
func idError(err error) error {
	if errors.Is(err, eventlog.ErrBadID) || errors.Is(err, eventlog.ErrOtherLog) {
		return &fieldError{field: "id", problem: err.Error(), err: err}
	}
	return err
}
