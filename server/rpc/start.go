package rpc

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linksgate/linksgate/server/eventlog"
)

// Fields that name a place in the log, in every message that has them.
const (
	fieldLatest   = "latest"
	fieldEarliest = "earliest"
	fieldAfter    = "after"
	fieldSince    = "since"
)

// start returns the place in the log that a request names, in the one of its oneofs that can, and in which field; without one it is
// ifUnset. The log is as described.
func (s *Server) start(ctx context.Context, req proto.Message, info eventlog.Info, ifUnset eventlog.Cursor) (eventlog.Cursor, string, error) {
	message := req.ProtoReflect()
	choice := message.Descriptor().Fields().ByName(fieldAfter).ContainingOneof()
	field := message.WhichOneof(choice)
	if field == nil {
		return ifUnset, "", nil
	}
	name, value := string(field.Name()), message.Get(field)
	place := ifUnset
	var err error
	switch name {
	case fieldLatest:
		place, err = info.Next, checkTrue(name, value.Bool())
	case fieldEarliest:
		place, err = info.First, checkTrue(name, value.Bool())
	case fieldAfter:
		place, err = s.toCursor(name, value.String())
	case fieldSince:
		since, _ := value.Message().Interface().(*timestamppb.Timestamp)
		if err = checkTime(name, since); err == nil {
			place, err = s.log.CursorAt(ctx, since.AsTime())
		}
	default:
		err = &fieldError{field: name, problem: "does not name a place"}
	}
	return place, name, err
}

// checkTrue refuses a choice that was set to false: it says neither that nor anything else.
func checkTrue(field string, value bool) error {
	if !value {
		return &fieldError{field: field, problem: "must be true, or not set"}
	}
	return nil
}
