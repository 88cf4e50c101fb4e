package rpc

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/cluster"
)

// Calls about a group are answered by the gateway that coordinates it. On a log that several gateways share, the others pass them on,
// as the bytes that they are.

// groupOf returns the name of the group that a request is about; "" if it is about none.
func groupOf(request any) string {
	switch r := request.(type) {
	case interface{ GetGroupName() string }:
		return r.GetGroupName()
	case interface{ GetGroup() *linksgatev1.Group }:
		return r.GetGroup().GetName()
	}
	return ""
}

func isGroupMethod(method string) bool {
	return strings.HasPrefix(method, "/"+linksgatev1.GroupService_ServiceDesc.ServiceName+"/") ||
		strings.HasPrefix(method, "/"+linksgatev1.WorkerService_ServiceDesc.ServiceName+"/")
}

// passedOn returns the name of a call that comes from another gateway, by way of this process; "" if it does not.
func (s *Server) passedOn(ctx context.Context) string {
	from, ok := peer.FromContext(ctx)
	names := metadata.ValueFromIncomingContext(ctx, cluster.PassedOn)
	if !ok || from.Addr != s.local.Addr() || len(names) == 0 {
		return ""
	}
	return names[0]
}

// routeUnary has a call answered where its group is coordinated.
func (s *Server) routeUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	name := groupOf(request)
	if s.cluster == nil || !isGroupMethod(info.FullMethod) || checkGroupName("", name) != nil {
		return handler(ctx, request)
	}
	passedOn := s.passedOn(ctx)
	for try := 0; ; try++ {
		route, err := s.cluster.Find(ctx, name, passedOn != "")
		if err != nil {
			return nil, err
		}
		if route.Peer == "" {
			response, err := handler(ctx, request)
			return response, errors.Join(err, route.Done())
		}
		data, err := proto.Marshal(request.(proto.Message))
		if err != nil {
			return nil, err
		}
		answer, err := s.cluster.Call(ctx, route.Peer, info.FullMethod, data)
		if err == nil {
			return encoded{mem.SliceBuffer(answer)}, nil
		}
		if !s.again(ctx, name, err, try) {
			return nil, err
		}
	}
}

// completeElsewhere replaces groups that other gateways coordinate by what those say of them. One that does not answer in time leaves
// its groups as they are.
func (s *Server) completeElsewhere(ctx context.Context, groups []*linksgatev1.Group) {
	if s.cluster == nil {
		return
	}
	const atOnce, patience = 16, 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var asking sync.WaitGroup
	room := make(chan struct{}, atOnce)
	for i, g := range groups {
		room <- struct{}{}
		asking.Go(func() {
			defer func() { <-room }()
			owner := s.cluster.Owner(ctx, g.GetName())
			if owner == "" {
				return
			}
			request, err := proto.Marshal(&linksgatev1.GetGroupRequest{GroupName: g.GetName()})
			if err != nil {
				return
			}
			answer, err := s.cluster.Call(ctx, owner, linksgatev1.GroupService_GetGroup_FullMethodName, request)
			response := new(linksgatev1.GetGroupResponse)
			if err == nil && proto.Unmarshal(answer, response) == nil {
				groups[i] = response.GetGroup()
			}
		})
	}
	asking.Wait()
}

// again reports whether a call that was not made is to be passed on once more, after a while.
func (s *Server) again(ctx context.Context, group string, err error, try int) bool {
	const most, pause = 40, 100 * time.Millisecond
	if errors.Is(err, cluster.ErrLost) || errors.Is(err, cluster.ErrElsewhere) {
		s.cluster.Forget(group)
	}
	if !errors.Is(err, cluster.ErrElsewhere) || try == most {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// routeStream has a member served where its group is coordinated.
func (s *Server) routeStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if s.cluster == nil || info.FullMethod != linksgatev1.WorkerService_Consume_FullMethodName {
		return handler(srv, stream)
	}
	request := new(linksgatev1.ConsumeRequest)
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	ctx := stream.Context()
	if checkGroupName("", request.GetGroupName()) != nil {
		return handler(srv, &received{ServerStream: stream, request: request})
	}
	passedOn := s.passedOn(ctx)
	for try := 0; ; try++ {
		route, err := s.cluster.Find(ctx, request.GetGroupName(), passedOn != "")
		if err != nil {
			return err
		}
		if route.Peer == "" {
			one := &received{ServerStream: stream, request: request, check: route.Done}
			if passedOn != "" {
				defer one.endWith(s.cluster.Leaving(passedOn))()
			}
			return handler(srv, one)
		}
		if err = s.passStream(ctx, route.Peer, info.FullMethod, request, stream); !s.again(ctx, request.GetGroupName(), err, try) {
			return err
		}
	}
}

// passStream passes on a member's stream. It counts as one here too.
func (s *Server) passStream(ctx context.Context, peer, method string, request proto.Message, stream grpc.ServerStream) error {
	release, err := s.admit(ctx)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.draining, func() { cancel(cluster.ErrLeave) })()
	var changed atomic.Bool
	defer s.watch(ctx, func(error) { changed.Store(true); cancel(cluster.ErrLeave) })()
	data, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	err = s.cluster.Stream(ctx, peer, method, data, func(message []byte) error {
		return stream.SendMsg(encoded{mem.SliceBuffer(message)})
	})
	if !errors.Is(context.Cause(ctx), cluster.ErrLeave) {
		return err
	}
	closing := &linksgatev1.Closing{Reason: linksgatev1.ClosingReason_CLOSING_REASON_DRAINING, ReconnectAfter: reconnectAfter()}
	if changed.Load() {
		closing.Reason, err = linksgatev1.ClosingReason_CLOSING_REASON_ACCESS_CHANGED, nil
	} else {
		err = errDraining
	}
	return errors.Join(err, stream.SendMsg(&linksgatev1.ConsumeResponse{
		Frame: &linksgatev1.ConsumeResponse_Closing{Closing: closing},
	}))
}

// received is a stream whose request was read already. Nothing is sent once check fails.
type received struct {
	grpc.ServerStream
	request proto.Message   // nil: it was given
	check   func() error    // may be nil
	ctx     context.Context // nil: the stream's own
}

// endWith has the stream end as planned when the gateway that has passed it on says so. It returns what ends the waiting.
func (r *received) endWith(leaving <-chan struct{}) func() {
	ctx, cancel := context.WithCancelCause(r.ServerStream.Context())
	r.ctx = ctx
	go func() {
		select {
		case <-leaving:
			cancel(errMaxAge)
		case <-ctx.Done():
		}
	}()
	return func() { cancel(nil) }
}

// Context implements [grpc.ServerStream].
func (r *received) Context() context.Context {
	if r.ctx != nil {
		return r.ctx
	}
	return r.ServerStream.Context()
}

// RecvMsg implements [grpc.ServerStream].
func (r *received) RecvMsg(into any) error {
	if r.request == nil {
		return r.ServerStream.RecvMsg(into)
	}
	proto.Merge(into.(proto.Message), r.request)
	r.request = nil
	return nil
}

// SendMsg implements [grpc.ServerStream].
func (r *received) SendMsg(message any) error {
	if r.check != nil {
		if err := r.check(); err != nil {
			return err
		}
	}
	return r.ServerStream.SendMsg(message)
}
