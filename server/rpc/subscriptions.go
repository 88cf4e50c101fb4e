package rpc

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/eventlog"
)

// list has a subscription listed until the function that it returns is called.
func (s *Server) list(sub *subscription) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscriptions[sub] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subscriptions, sub)
	}
}

// ListSubscriptions implements [linksgatev1.NotificationServiceServer].
func (s *Server) ListSubscriptions(ctx context.Context, _ *linksgatev1.ListSubscriptionsRequest) (*linksgatev1.ListSubscriptionsResponse, error) {
	info, err := s.log.Info(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	open := make([]*subscription, 0, len(s.subscriptions))
	for sub := range s.subscriptions {
		open = append(open, sub)
	}
	s.mu.Unlock()
	caller := sessionOf(ctx).caller
	if caller.MayAdmin() != nil {
		open = slices.DeleteFunc(open, func(sub *subscription) bool { return sub.caller.Name != caller.Name })
	}
	slices.SortFunc(open, func(a, b *subscription) int { return cmp.Compare(a.opened.UnixNano(), b.opened.UnixNano()) })
	response := new(linksgatev1.ListSubscriptionsResponse)
	for _, sub := range open {
		response.Subscriptions = append(response.Subscriptions, sub.describe(info))
	}
	return response, nil
}

func (sub *subscription) describe(info eventlog.Info) *linksgatev1.Subscription {
	token := *sub.sentToken.Load()
	description := &linksgatev1.Subscription{
		ClientName: sub.request.GetClientName(),
		Caller:     sub.caller.Name,
		Peer:       sub.server.addressOf(sub.stream.Context()),
		StartedAt:  timestamppb.New(sub.opened),
		Filter:     sub.request.GetFilter(),
		Token:      token,
		Lag:        toLag(eventlog.Lag{}),
		Live:       sub.live.Load(),
		Sent:       sub.sent.Load(),
		Blocked:    durationpb.New(sub.blocked()),
	}
	ctx := sub.stream.Context()
	if agent := metadata.ValueFromIncomingContext(ctx, "user-agent"); len(agent) > 0 {
		description.UserAgent = agent[0]
	}
	if at, err := sub.server.log.ParseToken(token); err == nil && at.Before(info.Next) {
		description.Lag = toLag(eventlog.Lag{Batches: info.Next.Stream - at.Stream, Time: time.Duration(sub.lagTime.Load())})
	}
	return description
}

// unknownAccounts returns the accounts of a filter that are not configured.
func (s *Server) unknownAccounts(filter *linksgatev1.NotificationFilter) (unknown []string) {
	if s.hasAccount == nil {
		return nil
	}
	for _, name := range filter.GetAccounts() {
		if !s.hasAccount(name) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}
