package rpc

import (
	"context"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// start returns the position that a request begins at; without one it is ifUnset. field is the request's that holds it. The log is as
// described.
func (s *Server) start(
	ctx context.Context, field string, start *linksgatev1.Start, info eventlog.Info, ifUnset eventlog.Cursor,
) (eventlog.Cursor, error) {
	switch at := start.GetPosition().(type) {
	case *linksgatev1.Start_Latest:
		return info.Next, checkTrue(field+".latest", at.Latest)
	case *linksgatev1.Start_Earliest:
		return info.First, checkTrue(field+".earliest", at.Earliest)
	case *linksgatev1.Start_After:
		return s.toCursor(field+".after", at.After)
	case *linksgatev1.Start_Since:
		if err := checkTime(field+".since", at.Since); err != nil {
			return eventlog.Cursor{}, err
		}
		return s.log.CursorAt(ctx, at.Since.AsTime())
	}
	return ifUnset, nil
}

// startWithin is as start, for what cannot be told of a gap: the position must be one of those that are retained.
func (s *Server) startWithin(ctx context.Context, field string, start *linksgatev1.Start, info eventlog.Info) (eventlog.Cursor, error) {
	cursor, err := s.start(ctx, field, start, info, info.Next)
	_, isToken := start.GetPosition().(*linksgatev1.Start_After)
	switch {
	case err != nil || !isToken:
	case info.Next.Before(cursor):
		err = eventlog.ErrAhead
	case cursor.Stream < info.First.Stream:
		err = &gapError{err: eventlog.ErrExpired, available: s.log.Token(info.First)}
	}
	return cursor, err
}

// checkTrue refuses a choice that was set to false: it says neither that nor anything else.
func checkTrue(field string, value bool) error {
	if !value {
		return &fieldError{field: field, problem: "must be true, or not set"}
	}
	return nil
}
