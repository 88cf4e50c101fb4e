package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// follower makes one subscription out of any number of streams. The place where
// the next stream starts moves only after a frame has been handled: when show has
// returned nil, not when the notifications were received. So nothing is shown
// twice and nothing is left out, wherever a stream breaks.
//
// All its fields belong to the goroutine that calls run.
type follower struct {
	session
	client linksgatev1.NotificationServiceClient
	// request of the next stream. Its start moves with each frame; an end at
	// the head becomes an end at the token of the first head that was seen.
	request *linksgatev1.SubscribeRequest
	// show returns nil only when the notifications were printed.
	show func([]*linksgatev1.Notification) error
	// remember keeps the token of what was handled last.
	remember func(token string) error

	complete bool // the end was reached, whatever the stream says after that
}

// run returns nil when the end of the subscription was reached or ctx ended. An
// error says what the user can do.
func (f *follower) run(ctx context.Context) error {
	f.joining, f.joined = "subscribing", "subscribed"
	open := func(ctx context.Context) (grpc.ServerStreamingClient[linksgatev1.SubscribeResponse], error) {
		return f.client.Subscribe(ctx, f.request)
	}
	stream := func(ctx context.Context) (streamEnd, error) { return readStream(ctx, &f.session, open, f.handle) }
	return f.session.run(ctx, stream, f.judge)
}

func (f *follower) handle(response *linksgatev1.SubscribeResponse, end *streamEnd) error {
	switch frame := response.GetFrame().(type) {
	case *linksgatev1.SubscribeResponse_Confirmed:
		f.confirm(frame.Confirmed)
	case *linksgatev1.SubscribeResponse_Batch:
		if err := f.show(frame.Batch.GetNotifications()); err != nil {
			return err
		}
	case *linksgatev1.SubscribeResponse_Gap:
		f.notice(describeGap(frame.Gap))
	case *linksgatev1.SubscribeResponse_Closing:
		end.closing = frame.Closing
		f.complete = frame.Closing.GetReason() == linksgatev1.ClosingReason_CLOSING_REASON_COMPLETED
	}
	if response.GetConfirmed() == nil {
		end.progressed = true
	}
	if response.GetToken() == "" {
		return errors.New("the gateway sent a frame without a token: is this address a Linksgate?")
	}
	f.request.Start = &linksgatev1.Start{Position: &linksgatev1.Start_After{After: response.GetToken()}}
	return f.remember(response.GetToken())
}

// confirm fixes what must not change from one stream to the next.
func (f *follower) confirm(c *linksgatev1.SubscriptionConfirmed) {
	f.confirmed(c.GetHeartbeatInterval().AsDuration())
	if f.request.GetUntilHead() {
		if c.GetHead() == nil {
			f.complete = true // the log is empty: its head has nothing before it
			return
		}
		f.request.Until = &linksgatev1.SubscribeRequest_UntilToken{UntilToken: c.GetHead().GetToken()}
	}
}

// judge decides what follows a stream: another one, the end (nil, nil), or an error.
func (f *follower) judge(end streamEnd) (*again, error) {
	if f.complete || end.closing == nil && errors.Is(end.err, io.EOF) && f.request.Until != nil {
		return nil, nil
	}
	return f.session.judge(end, explain)
}

// explain turns a status into an error that says what to do.
func explain(st *status.Status, info *errdetails.ErrorInfo) error {
	advice := ""
	switch st.Code() {
	case codes.OutOfRange:
		advice = "notifications after this place have expired: --on-gap continue goes on with the first that is there"
		if token := info.GetMetadata()["first_available_token"]; token != "" {
			advice += ", as does --after " + visible(token)
		}
		advice += "; --from-start starts anew (without --checkpoint, if it was given)"
	case codes.DataLoss:
		advice = "--on-gap continue goes on after what is damaged; if the log lost its end, start anew with --from-start or --since" +
			" (without --checkpoint, if it was given)"
	case codes.FailedPrecondition:
		advice = "the token belongs to another log: is this the right address? To start anew, leave out --checkpoint or --after"
	case codes.InvalidArgument:
		advice = "check the flags, and the token if one was given"
	case codes.ResourceExhausted:
		advice = "a smaller --max-batch makes smaller messages"
	case codes.Unimplemented, codes.Unknown:
		advice = "is this address a Linksgate? If so, " + rightPort
	case codes.Unauthenticated, codes.PermissionDenied:
		advice = credentialAdvice
	default:
		advice = "the gateway's log says more"
	}
	return fmt.Errorf("subscribe: %s: %s\n  %s", st.Code(), escaped(st.Message()), advice)
}

func describeGap(gap *linksgatev1.Gap) string {
	why := "are missing"
	switch gap.GetReason() {
	case linksgatev1.GapReason_GAP_REASON_ERASED:
		return fmt.Sprintf("gap: %s were erased on purpose; going on after them", plural(gap.GetNotifications(), "notification"))
	case linksgatev1.GapReason_GAP_REASON_EXPIRED:
		why = "have expired"
	case linksgatev1.GapReason_GAP_REASON_CORRUPT:
		why = "are damaged"
	}
	return fmt.Sprintf("gap: notifications %s (record batches: %d); going on after them", why, gap.GetRecordBatches())
}
