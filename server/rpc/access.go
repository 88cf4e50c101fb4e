package rpc

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/eventlog"
)

// Every call goes through [Server.authorizeUnary] or [Server.authorizeStream], which ask who calls, and whether the rule of its method
// lets that be done. What another gateway passes on, that gateway has asked about.

// rule says who may call a method.
type rule struct {
	// right is what the caller must have, for people: one of those of package access, "any" for whoever is a caller, "none" for all.
	right string
	// check returns an error if the caller may not make this request. It may narrow the request to what the caller may have. Nil: every
	// caller may, and the method leaves out what the caller may not see.
	check func(ctx context.Context, s *Server, caller *access.Caller, request any) error
	// audited: what the method does is recorded.
	audited bool
}

// Rights of rules that are not of package access.
const (
	rightAny  = "any"
	rightNone = "none"
)

// rules are those of all methods. A method without one cannot be called.
var rules = map[string]rule{
	linksgatev1.NotificationService_Subscribe_FullMethodName:         {right: access.Read, check: narrow},
	linksgatev1.NotificationService_ListNotifications_FullMethodName: {right: access.Read, check: narrow},
	linksgatev1.NotificationService_GetNotification_FullMethodName:   {right: access.Read}, // of what it finds
	linksgatev1.NotificationService_GetLogInfo_FullMethodName:        {right: rightAny},
	linksgatev1.NotificationService_ListSubscriptions_FullMethodName: {right: rightAny}, // its own; with admin all

	linksgatev1.GroupService_CreateGroup_FullMethodName:  {right: access.Operate, check: mayCreateGroup, audited: true},
	linksgatev1.GroupService_GetGroup_FullMethodName:     {right: access.Work + " or " + access.Operate, check: maySeeGroup},
	linksgatev1.GroupService_ListGroups_FullMethodName:   {right: rightAny}, // those that GetGroup would return
	linksgatev1.GroupService_UpdateGroup_FullMethodName:  {right: access.Operate, check: mayUpdateGroup, audited: true},
	linksgatev1.GroupService_DeleteGroup_FullMethodName:  {right: access.Operate, check: mayOperateGroup, audited: true},
	linksgatev1.GroupService_SeekGroup_FullMethodName:    {right: access.Operate, check: mayOperateGroup, audited: true},
	linksgatev1.GroupService_ListParked_FullMethodName:   {right: access.Operate, check: mayOperateGroup},
	linksgatev1.GroupService_ReplayParked_FullMethodName: {right: access.Operate, check: mayOperateGroup, audited: true},
	linksgatev1.GroupService_PurgeParked_FullMethodName:  {right: access.Operate, check: mayOperateGroup, audited: true},

	linksgatev1.WorkerService_Consume_FullMethodName:      {right: access.Work + " and " + access.Read, check: mayJoin},
	linksgatev1.WorkerService_Fetch_FullMethodName:        {right: access.Work + " and " + access.Read, check: mayJoin},
	linksgatev1.WorkerService_Acknowledge_FullMethodName:  {right: access.Work, check: mayWork},
	linksgatev1.WorkerService_Reject_FullMethodName:       {right: access.Work, check: mayWork},
	linksgatev1.WorkerService_ExtendLeases_FullMethodName: {right: access.Work, check: mayWork},
	linksgatev1.WorkerService_Leave_FullMethodName:        {right: access.Work, check: mayWork},

	linksgatev1.QuarantineService_ListQuarantineEntries_FullMethodName:  {right: access.Operate, check: narrowQuarantine},
	linksgatev1.QuarantineService_GetQuarantineEntry_FullMethodName:     {right: access.Operate, check: mayOperateEntry},
	linksgatev1.QuarantineService_ReleaseQuarantineEntry_FullMethodName: {right: access.Operate, check: mayOperateEntry, audited: true},
	linksgatev1.QuarantineService_PurgeQuarantineEntry_FullMethodName:   {right: access.Operate, check: mayOperateEntry, audited: true},
	linksgatev1.QuarantineService_GetQuarantineInfo_FullMethodName:      {right: access.Operate, check: mayOperateSome},

	linksgatev1.ErasureService_EraseSim_FullMethodName:       {right: access.Operate + " of all accounts", check: mayOperateAll, audited: true},
	linksgatev1.AuditService_ListAuditEntries_FullMethodName: {right: access.Admin, check: mayAdmin},

	"/grpc.health.v1.Health/Check":                                   {right: rightNone},
	"/grpc.health.v1.Health/Watch":                                   {right: rightNone},
	"/grpc.health.v1.Health/List":                                    {right: rightNone},
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {right: rightAny},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {right: rightAny},
}

// errNoRule: a method was forgotten in the table.
var errNoRule = errors.New("no rule says who may call this method")

func narrow(_ context.Context, _ *Server, caller *access.Caller, request any) error {
	switch r := request.(type) {
	case *linksgatev1.SubscribeRequest:
		return narrowFilter(&r.Filter, caller.Narrow)
	case *linksgatev1.ListNotificationsRequest:
		return narrowFilter(&r.Filter, caller.Narrow)
	}
	return errNoRule
}

// narrowFilter restricts a filter, which may not be set before or after.
func narrowFilter(filter **linksgatev1.NotificationFilter, narrow func(*linksgatev1.NotificationFilter) error) error {
	if *filter == nil {
		*filter = new(linksgatev1.NotificationFilter)
	}
	err := narrow(*filter)
	if proto.Size(*filter) == 0 {
		*filter = nil
	}
	return err
}

func mayCreateGroup(_ context.Context, _ *Server, caller *access.Caller, request any) error {
	r := request.(*linksgatev1.CreateGroupRequest)
	if r.GetGroup() == nil {
		r.Group = new(linksgatev1.Group)
	}
	return narrowFilter(&r.GetGroup().Filter, caller.NarrowGroup)
}

// filterOf returns the filter of the group that a request names, which the caller may have no right to know of.
func filterOf(ctx context.Context, s *Server, request any) (*linksgatev1.NotificationFilter, error) {
	name := groupOf(request)
	if err := checkGroupName("group_name", name); err != nil {
		return nil, err
	}
	record, _, err := s.log.Groups().Get(ctx, name)
	return record.GetGroup().GetFilter(), err
}

func mayOperateGroup(ctx context.Context, s *Server, caller *access.Caller, request any) error {
	if caller.MayOperateAll() == nil { // whatever the group is about
		return nil
	}
	if err := caller.MayOperateSome(); err != nil {
		return err
	}
	filter, err := filterOf(ctx, s, request)
	if err != nil {
		return err
	}
	return caller.MayOperateGroup(filter)
}

func mayUpdateGroup(ctx context.Context, s *Server, caller *access.Caller, request any) error {
	if err := mayOperateGroup(ctx, s, caller, request); err != nil {
		return err
	}
	r := request.(*linksgatev1.UpdateGroupRequest)
	changes := r.GetGroup().GetFilter() != nil
	for _, path := range r.GetUpdateMask().GetPaths() {
		changes = changes || path == "filter"
	}
	if !changes {
		return nil
	}
	if r.GetGroup() == nil {
		r.Group = new(linksgatev1.Group)
	}
	return narrowFilter(&r.GetGroup().Filter, caller.NarrowGroup)
}

func maySeeGroup(ctx context.Context, s *Server, caller *access.Caller, request any) error {
	work := caller.MayWork(groupOf(request))
	if work == nil || mayOperateGroup(ctx, s, caller, request) == nil {
		return nil
	}
	return work
}

func mayWork(_ context.Context, _ *Server, caller *access.Caller, request any) error {
	return caller.MayWork(groupOf(request))
}

// mayJoin: a group carries the rights of whoever has created it, and a member gets what the group gets.
func mayJoin(ctx context.Context, s *Server, caller *access.Caller, request any) error {
	if err := mayWork(ctx, s, caller, request); err != nil || caller.MayReadAll(nil) == nil {
		return err
	}
	filter, err := filterOf(ctx, s, request)
	if err != nil {
		return err
	}
	return caller.MayReadAll(filter)
}

func narrowQuarantine(_ context.Context, _ *Server, caller *access.Caller, request any) error {
	r := request.(*linksgatev1.ListQuarantineEntriesRequest)
	accounts, err := caller.NarrowOperated(r.GetAccounts())
	r.Accounts = accounts
	return err
}

func mayOperateEntry(ctx context.Context, s *Server, caller *access.Caller, request any) error {
	if caller.MayOperateAll() == nil {
		return nil
	}
	if err := caller.MayOperateSome(); err != nil {
		return err
	}
	entry, err := s.log.Quarantine().Get(ctx, request.(interface{ GetId() string }).GetId())
	if errors.Is(err, eventlog.ErrDamaged) { // of which account it was is not known
		return caller.MayOperateAll()
	}
	if err != nil {
		return idError(err)
	}
	if release, ok := request.(*linksgatev1.ReleaseQuarantineEntryRequest); ok && release.GetAsAccount() != "" {
		if err := caller.MayOperate(release.GetAsAccount()); err != nil {
			return err
		}
	}
	return caller.MayOperate(entry.GetAccount())
}

func mayOperateSome(_ context.Context, _ *Server, caller *access.Caller, _ any) error {
	return caller.MayOperateSome()
}

func mayOperateAll(_ context.Context, _ *Server, caller *access.Caller, _ any) error {
	return caller.MayOperateAll()
}

func mayAdmin(_ context.Context, _ *Server, caller *access.Caller, _ any) error {
	return caller.MayAdmin()
}

// session is who makes a call, and what it has shown.
type session struct {
	caller *access.Caller
	shown  access.Credentials
}

type sessionKey struct{}

// sessionOf returns who makes a call.
func sessionOf(ctx context.Context) session {
	if s, ok := ctx.Value(sessionKey{}).(session); ok {
		return s
	}
	return session{caller: access.Trusted()}
}

// Metadata of calls that come from within this process, for whoever made the HTTP request behind them.
const (
	certificateKey = "linksgate-certificate-bin"
	addressKey     = "linksgate-address"
	authorization  = "authorization"
)

// CallerOf returns what must be in the metadata of a call within this process, so that it is made by whoever makes an HTTP request.
func CallerOf(r *http.Request) metadata.MD {
	shown := access.ShownIn(r)
	md := metadata.MD{addressKey: {r.RemoteAddr}}
	for _, value := range shown.Authorization {
		if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }) { // which no metadata takes, and no credential has
			value = "unprintable"
		}
		md.Append(authorization, value)
	}
	if shown.Certificate != nil {
		md[certificateKey] = []string{string(shown.Certificate.Raw)}
	}
	return md
}

// shownIn returns the credentials of a call.
func (s *Server) shownIn(ctx context.Context) access.Credentials {
	shown := access.Credentials{Authorization: metadata.ValueFromIncomingContext(ctx, authorization)}
	from, ok := peer.FromContext(ctx)
	switch {
	case !ok:
	case from.Addr == s.local.Addr():
		if der := metadata.ValueFromIncomingContext(ctx, certificateKey); len(der) == 1 {
			shown.Certificate, _ = x509.ParseCertificate([]byte(der[0])) // crypto/tls has parsed it
		}
	default:
		if info, ok := from.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
			shown.Certificate = info.State.PeerCertificates[0]
		}
	}
	return shown
}

// addressOf is where a call comes from.
func (s *Server) addressOf(ctx context.Context) string {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	if from.Addr != s.local.Addr() {
		return from.Addr.String()
	}
	if address := metadata.ValueFromIncomingContext(ctx, addressKey); len(address) == 1 {
		return address[0]
	}
	return "local"
}

// enter asks who makes a call, and counts it in.
func (s *Server) enter(ctx context.Context, method string) (context.Context, session, rule, error) {
	rule, ok := rules[method]
	if !ok {
		return ctx, session{}, rule, errNoRule
	}
	if rule.right == rightNone {
		return ctx, session{caller: access.Trusted()}, rule, nil
	}
	one := session{shown: s.shownIn(ctx)}
	var err error
	if one.caller, err = s.access.Authenticate(ctx, one.shown); err != nil {
		return ctx, one, rule, err
	}
	if err := one.caller.Request(); err != nil {
		s.access.Refused(one.caller.Name, err)
		return ctx, one, rule, err
	}
	return context.WithValue(ctx, sessionKey{}, one), one, rule, nil
}

// allow returns an error if a caller may not make a request.
func (s *Server) allow(ctx context.Context, rule rule, caller *access.Caller, request any) error {
	if rule.check == nil {
		return nil
	}
	err := rule.check(ctx, s, caller, request)
	if missing := new(access.MissingRight); errors.As(err, &missing) {
		s.access.Refused(caller.Name, err)
	}
	return err
}

// authorizeUnary lets a call be made by those who may make it, and records what it changed.
func (s *Server) authorizeUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if s.passedOn(ctx) != "" {
		return handler(ctx, request)
	}
	ctx, one, rule, err := s.enter(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if err := s.allow(ctx, rule, one.caller, request); err != nil {
		return nil, err
	}
	response, err := handler(ctx, request)
	if rule.audited {
		s.record(ctx, one.caller, info.FullMethod, request, response, err)
	}
	return response, err
}

// authorizeStream lets a stream be opened by those who may open it.
func (s *Server) authorizeStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if s.passedOn(stream.Context()) != "" {
		return handler(srv, stream)
	}
	ctx, one, rule, err := s.enter(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handler(srv, &authorized{ServerStream: stream, ctx: ctx, allow: func(request any) error {
		return s.allow(ctx, rule, one.caller, request)
	}})
}

// authorized is a stream of a caller that is known. What it asks for is looked at when it is received.
type authorized struct {
	grpc.ServerStream
	ctx   context.Context
	allow func(request any) error
}

// Context implements [grpc.ServerStream].
func (a *authorized) Context() context.Context { return a.ctx }

// RecvMsg implements [grpc.ServerStream].
func (a *authorized) RecvMsg(into any) error {
	if err := a.ServerStream.RecvMsg(into); err != nil {
		return err
	}
	return a.allow(into)
}

// watch ends a stream as planned when its caller is not who it was.
func (s *Server) watch(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	one := sessionOf(ctx)
	return s.access.Watch(one.caller, one.shown, func() { cancel(errAccessChanged) })
}
