package group

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// The methods that gateways ask each other for. Their requests and answers are those of the RPCs of the same names; an answer leaves
// the outcome unspecified where the gateway does not have the notification in hand.
var methods = map[actionKind]string{
	actionAcknowledge: "acknowledge", actionReject: "reject", actionExtend: "extend",
}

// encode puts actions of one kind into the request that they came from.
func encode(group string, actions []action) []byte {
	tokens := make([]string, len(actions))
	for i, a := range actions {
		tokens[i] = a.token
	}
	switch actions[0].kind {
	case actionAcknowledge:
		return marshal(&linksgatev1.AcknowledgeRequest{Group: group, LeaseTokens: tokens, Leaving: actions[0].leaving})
	case actionExtend:
		return marshal(&linksgatev1.ExtendLeaseRequest{Group: group, LeaseTokens: tokens, Duration: durationpb.New(actions[0].extend)})
	}
	request := &linksgatev1.RejectRequest{Group: group, Leaving: actions[0].leaving}
	for _, a := range actions {
		r := &linksgatev1.Rejection{LeaseToken: a.token, Reason: a.reason}
		switch {
		case a.park:
			r.Action = &linksgatev1.Rejection_Park{Park: true}
		case a.giveUp:
			r.Action = &linksgatev1.Rejection_Release{Release: true}
		case a.delay != backOffRule:
			r.Action = &linksgatev1.Rejection_RetryAfter{RetryAfter: durationpb.New(a.delay)}
		}
		request.Rejections = append(request.Rejections, r)
	}
	return marshal(request)
}

// marshal marshals what was made here, or read from a message, and so can be marshalled.
func marshal(message proto.Message) []byte {
	data, _ := proto.Marshal(message)
	return data
}

// answer does what another gateway asks for.
func (g *Groups) answer(ctx context.Context, method string, request []byte) []byte {
	var group string
	var actions []action
	switch method {
	case methodStatus:
		status, _ := g.localStatus(string(request))
		return marshal(status)
	case methods[actionAcknowledge]:
		r := new(linksgatev1.AcknowledgeRequest)
		if proto.Unmarshal(request, r) == nil {
			group, actions = r.GetGroup(), acknowledgements(r)
		}
	case methods[actionReject]:
		r := new(linksgatev1.RejectRequest)
		if proto.Unmarshal(request, r) == nil {
			group, actions = r.GetGroup(), rejections(r)
		}
	case methods[actionExtend]:
		r := new(linksgatev1.ExtendLeaseRequest)
		if proto.Unmarshal(request, r) == nil {
			group, actions = r.GetGroup(), extensions(r)
		}
	}
	if len(actions) == 0 {
		return nil
	}
	g.mu.Lock()
	has := g.sessions[group] != nil
	g.mu.Unlock()
	if !has { // nor a notification in hand
		results := make([]*linksgatev1.LeaseResult, len(actions))
		for i := range results {
			results[i] = new(linksgatev1.LeaseResult)
		}
		return marshal(&linksgatev1.AcknowledgeResponse{Results: results})
	}
	results, err := g.settle(ctx, group, actions, reachHere)
	if err != nil {
		return nil
	}
	return marshal(&linksgatev1.AcknowledgeResponse{Results: results})
}

func pick(actions []action, which []int) []action {
	chosen := make([]action, len(which))
	for n, i := range which {
		chosen[n] = actions[i]
	}
	return chosen
}

// takeResults takes over another gateway's results, of what it had in hand.
func takeResults(answer []byte, asked []int, results []*linksgatev1.LeaseResult) {
	response := new(linksgatev1.AcknowledgeResponse)
	if err := proto.Unmarshal(answer, response); err != nil || len(response.GetResults()) != len(asked) {
		return
	}
	for n, i := range asked {
		if result := response.GetResults()[n]; result.GetOutcome() != linksgatev1.LeaseOutcome_LEASE_OUTCOME_UNSPECIFIED {
			results[i] = result
		}
	}
}
