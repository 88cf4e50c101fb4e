package rpc

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/audit"
)

// maxAuditedIDs is how many ids of a request an entry has.
const maxAuditedIDs = 20

// record writes an audit entry about a call that changed something, or may have.
func (s *Server) record(ctx context.Context, caller *access.Caller, method string, request, response any, err error) {
	if s.audit == nil || isDryRun(request) {
		return
	}
	st, ok := status.FromError(err)
	if !ok {
		st, _ = toStatus(err)
	}
	switch st.Code() {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.OutOfRange, codes.ResourceExhausted:
		return // nothing was changed, and whoever calls could fill the audit log with it
	}
	entry := &linksgatev1.AuditEntry{
		Caller: caller.Name, Credential: caller.How, SourceAddress: s.addressOf(ctx), Action: path.Base(method),
		Subject: subjectOf(request), Outcome: st.Code().String(),
	}
	if err != nil {
		entry.Detail = st.Message()
	} else {
		describeResult(entry, messageOf(method, response))
	}
	s.audit.Record(ctx, entry)
}

func isDryRun(request any) bool {
	asked, ok := request.(interface{ GetDryRun() bool })
	return ok && asked.GetDryRun()
}

// subjectOf names what a request is about.
func subjectOf(request any) map[string]string {
	subject := make(map[string]string)
	if name := groupOf(request); name != "" {
		subject["group"] = name
	}
	switch r := request.(type) {
	case *linksgatev1.ReleaseQuarantineEntryRequest:
		subject["entry"] = r.GetId()
		if r.GetForce() {
			subject["force"] = "true"
		}
		if r.GetAsAccount() != "" {
			subject["as_account"], subject["as_kind"] = r.GetAsAccount(), r.GetAsKind().String()
		}
	case *linksgatev1.PurgeQuarantineEntryRequest:
		subject["entry"] = r.GetId()
	case *linksgatev1.EraseSimRequest:
		subject["iccid"] = masked(r.GetIccid())
	case *linksgatev1.ReplayParkedRequest:
		subject["notifications"] = idsOf(r.GetNotificationIds(), r.GetAll())
	case *linksgatev1.PurgeParkedRequest:
		subject["notifications"] = idsOf(r.GetNotificationIds(), r.GetAll())
	case *linksgatev1.UpdateGroupRequest:
		fields := r.GetUpdateMask().GetPaths()
		if len(fields) == 0 {
			fields = setFields(r.GetGroup())
		}
		subject["fields"] = strings.Join(fields, ", ")
	case *linksgatev1.SeekGroupRequest:
		subject["to"] = strings.TrimSpace(fmt.Sprint(r.GetTo()))
	}
	return subject
}

func idsOf(ids []string, all bool) string {
	if all {
		return "all"
	}
	if len(ids) > maxAuditedIDs {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:maxAuditedIDs], ", "), len(ids)-maxAuditedIDs)
	}
	return strings.Join(ids, ", ")
}

// masked hides all but the last four digits: what was erased is not to be found in the audit log.
func masked(iccid string) string {
	const shown = 4
	return "…" + iccid[max(len(iccid)-shown, 0):]
}

// describeResult says what became of a call.
func describeResult(entry *linksgatev1.AuditEntry, response proto.Message) {
	switch r := response.(type) {
	case *linksgatev1.ReleaseQuarantineEntryResponse:
		entry.Detail = strings.TrimPrefix(r.GetOutcome().String(), "RELEASE_OUTCOME_")
		if id := r.GetNotificationId(); id != "" {
			entry.Subject["notification"] = id
		}
	case *linksgatev1.EraseSimResponse:
		entry.Count = r.GetNotifications() + r.GetQuarantineEntries() + r.GetParked()
	case *linksgatev1.ReplayParkedResponse:
		entry.Count = r.GetReplayed()
	case *linksgatev1.PurgeParkedResponse:
		entry.Count = r.GetPurged()
	}
}

// messageOf returns an answer as a message, also if another gateway gave it, as bytes. Nil if it is none.
func messageOf(method string, response any) proto.Message {
	data, isEncoded := response.(encoded)
	if !isEncoded {
		message, _ := response.(proto.Message)
		return message
	}
	service, name := path.Split(strings.TrimPrefix(method, "/"))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.TrimSuffix(service, "/")))
	if err != nil {
		return nil
	}
	output := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name)).Output()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(output.FullName())
	if err != nil {
		return nil
	}
	message := kind.New().Interface()
	if proto.Unmarshal(mem.BufferSlice(data).Materialize(), message) != nil {
		return nil
	}
	return message
}

// auditServer implements [linksgatev1.AuditServiceServer].
type auditServer struct {
	linksgatev1.UnimplementedAuditServiceServer
	trail *audit.Trail
}

// ListAuditEntries implements [linksgatev1.AuditServiceServer].
func (s *auditServer) ListAuditEntries(ctx context.Context, req *linksgatev1.ListAuditEntriesRequest) (*linksgatev1.ListAuditEntriesResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if req.GetSince() != nil {
		if err := checkTime("since", req.GetSince()); err != nil {
			return nil, err
		}
	}
	response := new(linksgatev1.ListAuditEntriesResponse)
	bytes, last := 0, ""
	for entry, err := range s.trail.Read(ctx, req.GetPageToken(), req.GetSince().AsTime()) {
		switch {
		case errors.Is(err, audit.ErrBadCursor):
			return nil, &fieldError{field: "page_token", problem: err.Error()}
		case err != nil:
			return nil, err
		}
		if req.GetCaller() == "" || req.GetCaller() == entry.GetCaller() {
			if req.GetAction() == "" || req.GetAction() == entry.GetAction() {
				if bytes += proto.Size(entry); len(response.Entries) == size || bytes > maxPageBytes && len(response.Entries) > 0 {
					response.NextPageToken = last
					break
				}
				response.Entries = append(response.Entries, entry.AuditEntry)
			}
		}
		last = entry.Cursor
	}
	return response, nil
}
