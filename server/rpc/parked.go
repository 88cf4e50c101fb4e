package rpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// ListParked implements [linksgatev1.GroupServiceServer].
func (s *groupServer) ListParked(ctx context.Context, req *linksgatev1.ListParkedRequest) (*linksgatev1.ListParkedResponse, error) {
	if err := s.checkGroup(ctx, req.GetGroupName()); err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	response := new(linksgatev1.ListParkedResponse)
	bytes, last := 0, ""
	for entry, err := range s.parked.Parked(ctx, req.GetGroupName(), req.GetPageToken()) {
		if errors.Is(err, eventlog.ErrBadToken) {
			return nil, &fieldError{field: "page_token", problem: "not a page token of this list"}
		}
		if err != nil {
			return nil, err
		}
		bytes += proto.Size(entry.Parked)
		if n := len(response.GetParked()); n > 0 && (n == size || bytes > maxPageBytes) {
			response.NextPageToken = last
			break
		}
		response.Parked = append(response.Parked, entry.Parked)
		last = entry.Cursor
	}
	return response, nil
}

// ReplayParked implements [linksgatev1.GroupServiceServer].
func (s *groupServer) ReplayParked(ctx context.Context, req *linksgatev1.ReplayParkedRequest) (*linksgatev1.ReplayParkedResponse, error) {
	done, missing, err := s.eachParked(ctx, req.GetGroupName(), req.GetNotificationIds(), req.GetAll(), s.parked.Replay)
	return &linksgatev1.ReplayParkedResponse{Replayed: done, NotParked: missing}, err
}

// PurgeParked implements [linksgatev1.GroupServiceServer].
func (s *groupServer) PurgeParked(ctx context.Context, req *linksgatev1.PurgeParkedRequest) (*linksgatev1.PurgeParkedResponse, error) {
	done, missing, err := s.eachParked(ctx, req.GetGroupName(), req.GetNotificationIds(), req.GetAll(), s.parked.Purge)
	return &linksgatev1.PurgeParkedResponse{Purged: done, NotParked: missing}, err
}

// eachParked does something with parked notifications: those with the ids, or all. An error leaves the rest as it is; calling again
// goes on.
func (s *groupServer) eachParked(ctx context.Context, name string, ids []string, all bool, do func(ctx context.Context, group, id string) error) (done int64, missing []string, err error) {
	switch {
	case all && len(ids) > 0:
		return 0, nil, &fieldError{field: "all", problem: "excludes notification_ids"}
	case !all && len(ids) == 0:
		return 0, nil, &fieldError{field: "notification_ids", problem: "are required, unless all is true"}
	case len(ids) > maxParkedIDs:
		return 0, nil, &fieldError{field: "notification_ids", problem: fmt.Sprintf("%d entries, at most %d", len(ids), maxParkedIDs)}
	}
	if err := s.checkGroup(ctx, name); err != nil {
		return 0, nil, err
	}
	if all {
		// What is parked meanwhile is not meant, and would never end.
		for entry, err := range s.parked.Parked(ctx, name, "") {
			if err != nil {
				return 0, nil, err
			}
			ids = append(ids, entry.Parked.GetNotification().GetId())
		}
	}
	for _, id := range ids { // all of them before the first: what is done is not undone
		if _, err := s.server.log.ParseNotificationID(id); err != nil {
			return 0, nil, &fieldError{field: "notification_ids", problem: fmt.Sprintf("%q: %v", id, err), err: err}
		}
	}
	for _, id := range ids {
		switch err := do(ctx, name, id); {
		case err == nil:
			done++
		case errors.Is(err, eventlog.ErrNotFound) && all:
		case errors.Is(err, eventlog.ErrNotFound):
			missing = append(missing, id)
		default:
			return 0, nil, err
		}
	}
	return done, missing, nil
}

func (s *groupServer) checkGroup(ctx context.Context, name string) error {
	if err := checkGroupName("group_name", name); err != nil {
		return err
	}
	_, _, err := s.parked.Get(ctx, name)
	return err
}
