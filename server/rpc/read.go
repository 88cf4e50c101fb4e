package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// Bounds of one page, beside its number of notifications.
const (
	maxPageBytes = 2 << 20
	maxPageTime  = 2 * time.Second
)

// ListNotifications implements [linksgatev1.NotificationServiceServer].
func (s *Server) ListNotifications(ctx context.Context, req *linksgatev1.ListNotificationsRequest) (*linksgatev1.ListNotificationsResponse, error) {
	filter, err := toFilter(req.GetFilter(), "filter.")
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	info, err := s.log.Info(ctx)
	if err != nil {
		return nil, err
	}
	start, err := s.listStart(ctx, req, info)
	if err != nil {
		return nil, err
	}
	if start == info.Next {
		return &linksgatev1.ListNotificationsResponse{EndToken: s.log.Token(start)}, nil
	}
	p := page{server: s, end: start, most: size}
	deadline := time.Now().Add(maxPageTime)
	options := eventlog.ReadOptions{Filter: filter, Until: info.Next, Pulse: maxPageTime}
	for step, err := range s.log.Read(ctx, start, options) {
		if err != nil {
			return nil, err
		}
		full, err := p.take(step)
		if err != nil {
			return nil, err
		}
		if full || time.Now().After(deadline) {
			break
		}
	}
	return p.response(info.Next), nil
}

// pageSize is the size that a request asks for. Too much is brought down to the bound, as AIP-158 asks.
func pageSize(asked int32) (int, error) {
	switch {
	case asked < 0:
		return 0, &fieldError{field: "page_size", problem: outside(asked, maxPageSize)}
	case asked == 0:
		return defaultPageSize, nil
	}
	return int(min(asked, maxPageSize)), nil
}

func (s *Server) listStart(ctx context.Context, req *linksgatev1.ListNotificationsRequest, info eventlog.Info) (eventlog.Cursor, error) {
	if req.GetPageToken() != "" {
		return s.toCursor("page_token", req.GetPageToken())
	}
	return s.start(ctx, "start", req.GetStart(), info, info.First)
}

// page is a page of ListNotifications in the making.
type page struct {
	server        *Server
	notifications []*linksgatev1.Notification
	end           eventlog.Cursor // after everything that was looked at
	most, bytes   int
}

// take adds a step. It reports whether the page is full.
func (p *page) take(step eventlog.Step) (bool, error) {
	if step.Gap != nil && !errors.Is(step.Gap.Err, eventlog.ErrErased) {
		if len(p.notifications) > 0 {
			return true, nil // the next page begins at the gap and says so
		}
		return false, &gapError{err: step.Gap.Err, available: p.server.log.Token(step.Next)}
	}
	for _, record := range step.Records {
		n, err := record.Notification()
		if err != nil {
			return false, err
		}
		if p.bytes += len(record.Framed()); p.bytes > maxPageBytes && len(p.notifications) > 0 {
			return true, nil
		}
		p.notifications = append(p.notifications, n)
		p.end = record.Next
		if len(p.notifications) == p.most {
			return true, nil
		}
	}
	p.end = step.Next
	return false, nil
}

func (p *page) response(head eventlog.Cursor) *linksgatev1.ListNotificationsResponse {
	token := p.server.log.Token(p.end)
	response := &linksgatev1.ListNotificationsResponse{Notifications: p.notifications, EndToken: token}
	if p.end.Before(head) {
		response.NextPageToken = token
	}
	return response
}

// GetNotification implements [linksgatev1.NotificationServiceServer].
func (s *Server) GetNotification(ctx context.Context, req *linksgatev1.GetNotificationRequest) (*linksgatev1.GetNotificationResponse, error) {
	position, err := s.log.ParseNotificationID(req.GetId())
	if err != nil {
		return nil, idError(err)
	}
	record, err := s.log.Get(ctx, position)
	if err != nil {
		return nil, err
	}
	n, err := record.Notification()
	if err != nil {
		return nil, err
	}
	if caller := sessionOf(ctx).caller; caller.MayRead(n.GetAccount(), n.GetKind()) != nil {
		err := caller.MayRead(n.GetAccount(), n.GetKind())
		s.access.Refused(caller.Name, err)
		return nil, err
	}
	return &linksgatev1.GetNotificationResponse{Notification: n}, nil
}

// GetLogInfo implements [linksgatev1.NotificationServiceServer].
func (s *Server) GetLogInfo(ctx context.Context, _ *linksgatev1.GetLogInfoRequest) (*linksgatev1.GetLogInfoResponse, error) {
	info, err := s.log.Info(ctx)
	if err != nil {
		return nil, err
	}
	response := &linksgatev1.GetLogInfoResponse{
		LogId:          s.log.ID(),
		First:          s.firstOf(info),
		Head:           s.headOf(info.Head, info.HeadWritten),
		RecordBatches:  int64(info.Batches),
		Bytes:          int64(info.Bytes),
		MaxAge:         durationpb.New(info.MaxAge),
		MaxBytes:       info.MaxBytes,
		Durability:     durabilities[s.log.Durability()],
		Writable:       true,
		GatewayVersion: s.version,
	}
	if err := s.log.Err(); err != nil {
		response.Writable, response.UnwritableReason = false, err.Error()
	}
	if spooled := s.log.Spooled(); spooled.Batches > 0 {
		response.Spool = &linksgatev1.LogSpool{
			RecordBatches: int64(spooled.Batches), Bytes: spooled.Bytes, Since: timestamppb.New(spooled.Since),
		}
	}
	return response, nil
}

var durabilities = map[eventlog.Durability]linksgatev1.LogDurability{
	eventlog.DurabilityFsync:      linksgatev1.LogDurability_LOG_DURABILITY_FSYNC,
	eventlog.DurabilityProcess:    linksgatev1.LogDurability_LOG_DURABILITY_PROCESS,
	eventlog.DurabilityReplicated: linksgatev1.LogDurability_LOG_DURABILITY_REPLICATED,
}
