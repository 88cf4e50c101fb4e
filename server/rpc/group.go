package rpc

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/group"
)

// groupServer implements [linksgatev1.GroupServiceServer].
type groupServer struct {
	linksgatev1.UnimplementedGroupServiceServer
	server *Server
	groups *group.Groups
	parked *eventlog.Groups
}

// CreateGroup implements [linksgatev1.GroupServiceServer].
func (s *groupServer) CreateGroup(ctx context.Context, req *linksgatev1.CreateGroupRequest) (*linksgatev1.CreateGroupResponse, error) {
	wanted := proto.CloneOf(req.GetGroup())
	if wanted == nil {
		wanted = new(linksgatev1.Group)
	}
	if err := completeGroup(wanted); err != nil {
		return nil, err
	}
	info, err := s.server.log.Info(ctx)
	if err != nil {
		return nil, err
	}
	start, _, err := s.place(ctx, req, info)
	if err != nil {
		return nil, err
	}
	created, err := s.groups.Create(ctx, wanted, start)
	if err != nil {
		return nil, err
	}
	return &linksgatev1.CreateGroupResponse{Group: created}, nil
}

// place returns the place in the log that a request names, and in which field; without one the head. It must stand within what is
// retained: unlike a subscription a group has nobody to tell of a gap.
func (s *groupServer) place(ctx context.Context, req proto.Message, info eventlog.Info) (eventlog.Cursor, string, error) {
	cursor, field, err := s.server.start(ctx, req, info, info.Next)
	switch {
	case err != nil:
	case field == fieldAfter && info.Next.Before(cursor):
		err = eventlog.ErrAhead
	case field == fieldAfter && cursor.Stream < info.First.Stream:
		err = &gapError{err: eventlog.ErrExpired, available: s.server.log.Token(info.First)}
	}
	return cursor, field, err
}

// GetGroup implements [linksgatev1.GroupServiceServer].
func (s *groupServer) GetGroup(ctx context.Context, req *linksgatev1.GetGroupRequest) (*linksgatev1.GetGroupResponse, error) {
	if err := checkGroupName("group", req.GetGroup()); err != nil {
		return nil, err
	}
	found, err := s.groups.Get(ctx, req.GetGroup())
	if err != nil {
		return nil, err
	}
	return &linksgatev1.GetGroupResponse{Group: found}, nil
}

// ListGroups implements [linksgatev1.GroupServiceServer].
func (s *groupServer) ListGroups(ctx context.Context, req *linksgatev1.ListGroupsRequest) (*linksgatev1.ListGroupsResponse, error) {
	after, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil || len(after) > 0 && checkGroupName("", string(after)) != nil {
		return nil, &fieldError{field: "page_token", problem: "not a page token of this list"}
	}
	size := pageSize(req.GetPageSize())
	groups, more, err := s.groups.List(ctx, string(after), size)
	if err != nil {
		return nil, err
	}
	s.server.completeElsewhere(ctx, groups)
	for i, bytes := 0, 0; i < len(groups); i++ { // filters can be large
		if bytes += proto.Size(groups[i]); bytes > maxPageBytes && i > 0 {
			groups, more = groups[:i], true
		}
	}
	response := &linksgatev1.ListGroupsResponse{Groups: groups}
	if more && len(groups) > 0 {
		response.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(groups[len(groups)-1].GetName()))
	}
	return response, nil
}

// UpdateGroup implements [linksgatev1.GroupServiceServer].
func (s *groupServer) UpdateGroup(ctx context.Context, req *linksgatev1.UpdateGroupRequest) (*linksgatev1.UpdateGroupResponse, error) {
	wanted := req.GetGroup()
	if err := checkGroupName("group.name", wanted.GetName()); err != nil {
		return nil, err
	}
	paths := req.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		paths = setFields(wanted)
	}
	if len(paths) == 0 {
		return nil, &fieldError{field: "group", problem: "nothing to change: set filter, lease_duration, max_attempts or back_off"}
	}
	updated, err := s.groups.Update(ctx, wanted.GetName(), func(stored *linksgatev1.Group) error {
		for _, path := range paths {
			switch path {
			case "filter":
				stored.Filter = wanted.GetFilter()
			case "lease_duration":
				stored.LeaseDuration = wanted.GetLeaseDuration()
			case "max_attempts":
				stored.MaxAttempts = wanted.GetMaxAttempts()
			case "back_off":
				stored.BackOff = wanted.GetBackOff()
			case "ordering":
				if wanted.GetOrdering() != stored.GetOrdering() {
					return &fieldError{field: "group.ordering", problem: "cannot be changed; create another group"}
				}
			case "name":
			default:
				return &fieldError{field: "update_mask", problem: fmt.Sprintf("%q cannot be changed", path)}
			}
		}
		return completeGroup(stored)
	})
	if err != nil {
		return nil, err
	}
	return &linksgatev1.UpdateGroupResponse{Group: updated}, nil
}

// DeleteGroup implements [linksgatev1.GroupServiceServer].
func (s *groupServer) DeleteGroup(ctx context.Context, req *linksgatev1.DeleteGroupRequest) (*linksgatev1.DeleteGroupResponse, error) {
	if err := checkGroupName("group", req.GetGroup()); err != nil {
		return nil, err
	}
	if err := s.groups.Delete(ctx, req.GetGroup()); err != nil {
		return nil, err
	}
	return &linksgatev1.DeleteGroupResponse{}, nil
}

// SeekGroup implements [linksgatev1.GroupServiceServer].
func (s *groupServer) SeekGroup(ctx context.Context, req *linksgatev1.SeekGroupRequest) (*linksgatev1.SeekGroupResponse, error) {
	if err := checkGroupName("group", req.GetGroup()); err != nil {
		return nil, err
	}
	info, err := s.server.log.Info(ctx)
	if err != nil {
		return nil, err
	}
	place, field, err := s.place(ctx, req, info)
	if err == nil && field == "" {
		err = &fieldError{field: "to", problem: "is required: latest, earliest, after or since"}
	}
	if err != nil {
		return nil, err
	}
	moved, err := s.groups.Seek(ctx, req.GetGroup(), place)
	if err != nil {
		return nil, err
	}
	return &linksgatev1.SeekGroupResponse{Group: moved}, nil
}

// Fetch implements [linksgatev1.GroupServiceServer].
func (s *groupServer) Fetch(ctx context.Context, req *linksgatev1.FetchRequest) (*linksgatev1.FetchResponse, error) {
	release, err := s.server.admit()
	if err != nil {
		return nil, err
	}
	defer release()
	most, err := toMost("max_leases", req.GetMaxLeases())
	if err != nil {
		return nil, err
	}
	wait, err := toDuration("wait", req.GetWait(), defaultWait, 0, maxWait)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkGroupName("group", req.GetGroup()), checkClientID(req.GetClientId())); err != nil {
		return nil, err
	}
	leases, err := s.groups.Fetch(ctx, req.GetGroup(), req.GetClientId(), most, maxPageBytes, wait)
	if err != nil {
		return nil, err
	}
	response := new(linksgatev1.FetchResponse)
	for i := range leases {
		notification, err := leases[i].Record.Notification()
		if err != nil {
			return nil, err
		}
		response.Leases = append(response.Leases, &linksgatev1.Lease{
			Token: leases[i].Token, Attempt: leases[i].Attempt, ExpiresAt: timestamppb.New(leases[i].Until), Notification: notification,
		})
	}
	return response, nil
}

// Acknowledge implements [linksgatev1.GroupServiceServer].
func (s *groupServer) Acknowledge(ctx context.Context, req *linksgatev1.AcknowledgeRequest) (*linksgatev1.AcknowledgeResponse, error) {
	if err := checkSettlement(req.GetGroup(), "lease_tokens", len(req.GetLeaseTokens())); err != nil {
		return nil, err
	}
	results, err := s.groups.Acknowledge(ctx, req)
	return &linksgatev1.AcknowledgeResponse{Results: results}, err
}

// Reject implements [linksgatev1.GroupServiceServer].
func (s *groupServer) Reject(ctx context.Context, req *linksgatev1.RejectRequest) (*linksgatev1.RejectResponse, error) {
	if err := checkSettlement(req.GetGroup(), "rejections", len(req.GetRejections())); err != nil {
		return nil, err
	}
	for i, r := range req.GetRejections() {
		field := fmt.Sprintf("rejections[%d].", i)
		var err error
		switch action := r.GetAction().(type) {
		case *linksgatev1.Rejection_RetryAfter:
			_, err = toDuration(field+"retry_after", action.RetryAfter, 0, 0, maxDelay)
		case *linksgatev1.Rejection_Park:
			err = checkTrue(field+"park", action.Park)
		case *linksgatev1.Rejection_Release:
			err = checkTrue(field+"release", action.Release)
		}
		if err != nil {
			return nil, err
		}
	}
	results, err := s.groups.Reject(ctx, req)
	return &linksgatev1.RejectResponse{Results: results}, err
}

// ExtendLease implements [linksgatev1.GroupServiceServer].
func (s *groupServer) ExtendLease(ctx context.Context, req *linksgatev1.ExtendLeaseRequest) (*linksgatev1.ExtendLeaseResponse, error) {
	if err := checkSettlement(req.GetGroup(), "lease_tokens", len(req.GetLeaseTokens())); err != nil {
		return nil, err
	}
	if _, err := toDuration("duration", req.GetDuration(), 0, minLease, maxLease); err != nil {
		return nil, err
	}
	results, err := s.groups.ExtendLease(ctx, req)
	return &linksgatev1.ExtendLeaseResponse{Results: results}, err
}
