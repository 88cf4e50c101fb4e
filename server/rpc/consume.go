package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/group"
)

// Consume implements [linksgatev1.WorkerServiceServer].
func (s *workerServer) Consume(req *linksgatev1.ConsumeRequest, stream grpc.ServerStreamingServer[linksgatev1.ConsumeResponse]) error {
	release, err := s.server.admit(stream.Context())
	if err != nil {
		return err
	}
	defer release()
	heartbeat, err := toHeartbeat(req.GetHeartbeatInterval())
	if err != nil {
		return err
	}
	inFlight, err := toMost("max_in_flight", req.GetMaxInFlight())
	if err != nil {
		return err
	}
	if err := errors.Join(checkGroupName("group_name", req.GetGroupName()), checkClientName(req.GetClientName())); err != nil {
		return err
	}
	member, err := s.groups.Join(stream.Context(), req.GetGroupName(), req.GetClientName(), inFlight)
	if err != nil {
		return err
	}
	c := &consumption{outlet: newOutlet(stream), server: s.server, member: member, heartbeat: heartbeat, inFlight: inFlight}
	return s.server.serveStream(stream.Context(), c.outlet, c.run)
}

// consumption is the stream of one member.
type consumption struct {
	*outlet
	server    *Server
	member    *group.Member
	heartbeat time.Duration
	inFlight  int
	planned   bool // the gateway ends the stream, and the member keeps its leases
}

func (c *consumption) run(ctx context.Context) error {
	defer func() { c.member.Leave(c.planned) }()
	if err := c.send(&linksgatev1.ConsumeResponse{Frame: &linksgatev1.ConsumeResponse_Joined{Joined: &linksgatev1.GroupJoined{
		Group: c.member.Group(), MemberId: c.member.ID(), MaxInFlight: int32(c.inFlight), HeartbeatInterval: durationpb.New(c.heartbeat),
	}}}); err != nil {
		return err
	}
	for {
		if ctx.Err() != nil {
			return c.close(context.Cause(ctx))
		}
		leases, err := c.next(ctx)
		switch {
		case err != nil:
			return c.close(err)
		case len(leases) == 0 && ctx.Err() != nil:
			continue // but leases that were taken are sent
		case len(leases) == 0:
			err = c.send(&linksgatev1.ConsumeResponse{Frame: &linksgatev1.ConsumeResponse_Heartbeat{Heartbeat: &linksgatev1.GroupHeartbeat{
				Now: timestamppb.Now(),
			}}})
		default:
			err = c.send(newLeasesFrame(leases))
			c.server.metrics.sent.Add(float64(len(leases)))
		}
		if err != nil {
			return err
		}
	}
}

// next waits for leases, at most until a heartbeat is due.
func (c *consumption) next(ctx context.Context) ([]group.Lease, error) {
	ctx, cancel := context.WithDeadline(ctx, c.lastSent.Add(c.heartbeat*3/4))
	defer cancel()
	return c.member.Next(ctx, maxLeasesBytes)
}

// close ends the stream for an error. Planned endings are announced.
func (c *consumption) close(err error) error {
	switch {
	case errors.Is(err, group.ErrLeft):
		c.planned = true
		return c.sendClosing(linksgatev1.ClosingReason_CLOSING_REASON_LEFT, nil)
	case errors.Is(err, errMaxAge):
		c.planned = true
		return c.sendClosing(linksgatev1.ClosingReason_CLOSING_REASON_MAX_AGE, reconnectAfter())
	case errors.Is(err, errAccessChanged):
		c.planned = true
		return c.sendClosing(linksgatev1.ClosingReason_CLOSING_REASON_ACCESS_CHANGED, reconnectAfter())
	case errors.Is(err, errDraining), errors.Is(err, group.ErrDraining), errors.Is(err, eventlog.ErrClosed):
		c.planned = true
		return errors.Join(err, c.sendClosing(linksgatev1.ClosingReason_CLOSING_REASON_DRAINING, reconnectAfter()))
	case errors.Is(err, group.ErrMoved), errors.Is(err, group.ErrTaken), errors.Is(err, group.ErrRefiltered):
		c.planned = true
		return errors.Join(err, c.sendClosing(linksgatev1.ClosingReason_CLOSING_REASON_GROUP_MOVED, durationpb.New(0)))
	}
	return err
}

func (c *consumption) sendClosing(reason linksgatev1.ClosingReason, reconnect *durationpb.Duration) error {
	return c.send(&linksgatev1.ConsumeResponse{Frame: &linksgatev1.ConsumeResponse_Closing{
		Closing: &linksgatev1.Closing{Reason: reason, ReconnectAfter: reconnect},
	}})
}
