package rpc

import (
	"context"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// erasureServer implements [linksgatev1.ErasureServiceServer].
type erasureServer struct {
	linksgatev1.UnimplementedErasureServiceServer
	server *Server
	log    *eventlog.Log
}

// EraseSim implements [linksgatev1.ErasureServiceServer].
func (s *erasureServer) EraseSim(ctx context.Context, req *linksgatev1.EraseSimRequest) (*linksgatev1.EraseSimResponse, error) {
	erased, err := s.log.Erase(ctx, req.GetIccid(), req.GetDryRun())
	if err != nil {
		return nil, err
	}
	if !req.GetDryRun() { // which SIM it was is not for logs
		s.server.logger.Warn("sim erased",
			"notifications", int64(erased.Notifications), "quarantine_entries", int64(erased.Quarantined), "parked", int64(erased.Parked))
	}
	return &linksgatev1.EraseSimResponse{
		Notifications: int64(erased.Notifications), QuarantineEntries: int64(erased.Quarantined), Parked: int64(erased.Parked),
	}, nil
}
