package rpc

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

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
	start, err := s.server.startWithin(ctx, "start", req.GetStart(), info)
	if err != nil {
		return nil, err
	}
	created, err := s.groups.Create(ctx, wanted, start)
	if err != nil {
		return nil, err
	}
	return &linksgatev1.CreateGroupResponse{Group: created}, nil
}

// GetGroup implements [linksgatev1.GroupServiceServer].
func (s *groupServer) GetGroup(ctx context.Context, req *linksgatev1.GetGroupRequest) (*linksgatev1.GetGroupResponse, error) {
	if err := checkGroupName("group_name", req.GetGroupName()); err != nil {
		return nil, err
	}
	found, err := s.groups.Get(ctx, req.GetGroupName())
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
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	groups, more, err := s.groups.List(ctx, string(after), size)
	if err != nil {
		return nil, err
	}
	last := "" // looked at
	if len(groups) > 0 {
		last = groups[len(groups)-1].GetName()
	}
	groups = slices.DeleteFunc(groups, func(g *linksgatev1.Group) bool {
		caller := sessionOf(ctx).caller
		return caller.MayWork(g.GetName()) != nil && caller.MayOperateGroup(g.GetFilter()) != nil
	})
	s.server.completeElsewhere(ctx, groups)
	for i, bytes := 0, 0; i < len(groups); i++ { // filters can be large
		if bytes += proto.Size(groups[i]); bytes > maxPageBytes && i > 0 {
			groups, more, last = groups[:i], true, groups[i-1].GetName()
		}
	}
	response := &linksgatev1.ListGroupsResponse{Groups: groups}
	if more {
		response.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(last))
	}
	return response, nil
}

// UpdateGroup implements [linksgatev1.GroupServiceServer].
func (s *groupServer) UpdateGroup(ctx context.Context, req *linksgatev1.UpdateGroupRequest) (*linksgatev1.UpdateGroupResponse, error) {
	wanted := req.GetGroup()
	if err := checkGroupName("group_name", req.GetGroupName()); err != nil {
		return nil, err
	}
	if name := wanted.GetName(); name != "" && name != req.GetGroupName() {
		return nil, &fieldError{field: "group.name", problem: fmt.Sprintf("cannot be changed: it is %q, and group_name %q", name, req.GetGroupName())}
	}
	paths := req.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		paths = setFields(wanted)
	}
	if len(paths) == 0 {
		return nil, &fieldError{field: "group", problem: "nothing to change: set filter, lease_duration, max_attempts, back_off or paused"}
	}
	updated, err := s.groups.Update(ctx, req.GetGroupName(), func(stored *linksgatev1.Group) error {
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
			case "paused":
				stored.Paused = wanted.GetPaused()
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
	if err := checkGroupName("group_name", req.GetGroupName()); err != nil {
		return nil, err
	}
	if err := s.groups.Delete(ctx, req.GetGroupName()); err != nil {
		return nil, err
	}
	return &linksgatev1.DeleteGroupResponse{}, nil
}

// SeekGroup implements [linksgatev1.GroupServiceServer].
func (s *groupServer) SeekGroup(ctx context.Context, req *linksgatev1.SeekGroupRequest) (*linksgatev1.SeekGroupResponse, error) {
	if err := checkGroupName("group_name", req.GetGroupName()); err != nil {
		return nil, err
	}
	info, err := s.server.log.Info(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetTo().GetPosition() == nil {
		return nil, &fieldError{field: "to", problem: "is required: latest, earliest, after or since"}
	}
	place, err := s.server.startWithin(ctx, "to", req.GetTo(), info)
	if err != nil {
		return nil, err
	}
	moved, err := s.groups.Seek(ctx, req.GetGroupName(), place)
	if err != nil {
		return nil, err
	}
	return &linksgatev1.SeekGroupResponse{Group: moved}, nil
}
