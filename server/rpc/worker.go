package rpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/group"
)

// workerServer implements [linksgatev1.WorkerServiceServer].
type workerServer struct {
	linksgatev1.UnimplementedWorkerServiceServer
	server *Server
	groups *group.Groups
}

// Leave implements [linksgatev1.WorkerServiceServer].
func (s *workerServer) Leave(ctx context.Context, req *linksgatev1.LeaveRequest) (*linksgatev1.LeaveResponse, error) {
	if err := checkGroupName("group_name", req.GetGroupName()); err != nil {
		return nil, err
	}
	if len(req.GetMemberId()) == 0 || len(req.GetMemberId()) > maxMemberID {
		return nil, &fieldError{field: "member_id", problem: "is not one that Consume has given"}
	}
	return &linksgatev1.LeaveResponse{}, s.groups.Leave(ctx, req.GetGroupName(), req.GetMemberId())
}

// Fetch implements [linksgatev1.WorkerServiceServer].
func (s *workerServer) Fetch(ctx context.Context, req *linksgatev1.FetchRequest) (*linksgatev1.FetchResponse, error) {
	release, err := s.server.admit(ctx)
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
	if err := errors.Join(checkGroupName("group_name", req.GetGroupName()), checkClientName(req.GetClientName())); err != nil {
		return nil, err
	}
	leases, err := s.groups.Fetch(ctx, req.GetGroupName(), req.GetClientName(), most, maxPageBytes, wait)
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
			LeaseToken: leases[i].Token, Attempt: int32(leases[i].Attempt), ExpiresAt: timestamppb.New(leases[i].Until), Notification: notification,
		})
	}
	return response, nil
}

// Acknowledge implements [linksgatev1.WorkerServiceServer].
func (s *workerServer) Acknowledge(ctx context.Context, req *linksgatev1.AcknowledgeRequest) (*linksgatev1.AcknowledgeResponse, error) {
	if err := checkSettlement(req.GetGroupName(), "lease_tokens", len(req.GetLeaseTokens())); err != nil {
		return nil, err
	}
	results, err := s.groups.Acknowledge(ctx, req)
	return &linksgatev1.AcknowledgeResponse{Results: results}, err
}

// Reject implements [linksgatev1.WorkerServiceServer].
func (s *workerServer) Reject(ctx context.Context, req *linksgatev1.RejectRequest) (*linksgatev1.RejectResponse, error) {
	if err := checkSettlement(req.GetGroupName(), "rejections", len(req.GetRejections())); err != nil {
		return nil, err
	}
	for i, r := range req.GetRejections() {
		field := fmt.Sprintf("rejections[%d].", i)
		var err error
		switch action := r.GetAction().(type) {
		case *linksgatev1.LeaseRejection_RetryAfter:
			_, err = toDuration(field+"retry_after", action.RetryAfter, 0, 0, maxDelay)
		case *linksgatev1.LeaseRejection_Park:
			err = checkTrue(field+"park", action.Park)
		case *linksgatev1.LeaseRejection_Release:
			err = checkTrue(field+"release", action.Release)
		case *linksgatev1.LeaseRejection_PauseGroup:
			_, err = toDuration(field+"pause_group", action.PauseGroup, 0, minPause, maxPause)
		}
		if err != nil {
			return nil, err
		}
	}
	results, err := s.groups.Reject(ctx, req)
	return &linksgatev1.RejectResponse{Results: results}, err
}

// ExtendLeases implements [linksgatev1.WorkerServiceServer].
func (s *workerServer) ExtendLeases(ctx context.Context, req *linksgatev1.ExtendLeasesRequest) (*linksgatev1.ExtendLeasesResponse, error) {
	if err := checkSettlement(req.GetGroupName(), "lease_tokens", len(req.GetLeaseTokens())); err != nil {
		return nil, err
	}
	if _, err := toDuration("duration", req.GetDuration(), 0, minLease, maxLease); err != nil {
		return nil, err
	}
	results, err := s.groups.ExtendLeases(ctx, req)
	return &linksgatev1.ExtendLeasesResponse{Results: results}, err
}
