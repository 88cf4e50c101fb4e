package rpc

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/cluster"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/group"
)

// ErrorDomain is the domain of every ErrorInfo.
const ErrorDomain = "linksgate"

// reasonPrefix stands before the reason of an ErrorInfo in the names of [linksgatev1.ErrorReason].
const reasonPrefix = "ERROR_REASON_"

// The errors that begin in this package.
var (
	errTooManyStreams = errors.New("too many open subscriptions")
	errDraining       = errors.New("the gateway is shutting down")
	errMaxAge         = errors.New("the stream reached its maximum age") // a planned ending, never a status
	errAccessChanged  = errors.New("what the caller may do was changed") // a planned ending, never a status
)

// fieldError is a request that breaks a documented bound.
type fieldError struct {
	field, problem string
	err            error // may be nil
}

func (e *fieldError) Error() string { return e.field + ": " + e.problem }
func (e *fieldError) Unwrap() error { return e.err }

// gapError ends a reading at a gap. It wraps eventlog.ErrExpired or eventlog.ErrDamaged.
type gapError struct {
	err       error
	available string // token of the first place that can be read again
}

func (e *gapError) Error() string {
	return fmt.Sprintf("notifications after this position are %v; the first available token is %s", e.err, e.available)
}
func (e *gapError) Unwrap() error { return e.err }

// slowError ends a stream whose client does not read.
type slowError struct {
	lastToken string // empty if the stream's frames have none
	timeout   time.Duration
}

func (e *slowError) Error() string {
	if e.lastToken == "" {
		return fmt.Sprintf("the client did not read for %v", e.timeout)
	}
	return fmt.Sprintf("the client did not read for %v; subscribe again after the last token", e.timeout)
}

// toStatus gives each error its code and details: the one place where codes are chosen. What it does not know is internal, and
// reported false, to be logged.
func toStatus(err error) (*status.Status, bool) {
	var field *fieldError
	var gap *gapError
	var slow *slowError
	var missing *access.MissingRight
	// What the error is about comes before where it was found: a token of another log is a failed precondition wherever it stood.
	switch {
	case errors.Is(err, eventlog.ErrOtherLog):
		return describe(codes.FailedPrecondition, linksgatev1.ErrorReason_ERROR_REASON_OTHER_LOG, err.Error(), nil), true
	case errors.Is(err, eventlog.ErrAhead):
		return describe(codes.DataLoss, linksgatev1.ErrorReason_ERROR_REASON_AHEAD_OF_HEAD, err.Error(), nil), true
	case errors.As(err, &field):
		return describe(codes.InvalidArgument, linksgatev1.ErrorReason_ERROR_REASON_INVALID_ARGUMENT, err.Error(), nil, &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field.field, Description: field.problem}},
		}), true
	case errors.As(err, &gap) && errors.Is(err, eventlog.ErrExpired):
		return describe(codes.OutOfRange, linksgatev1.ErrorReason_ERROR_REASON_EXPIRED, err.Error(), map[string]string{"first_available_token": gap.available}), true
	case errors.As(err, &gap):
		return describe(codes.DataLoss, linksgatev1.ErrorReason_ERROR_REASON_CORRUPT, err.Error(), map[string]string{"first_available_token": gap.available}), true
	case errors.As(err, &slow):
		var metadata map[string]string
		if slow.lastToken != "" {
			metadata = map[string]string{"last_token": slow.lastToken}
		}
		return describe(codes.Aborted, linksgatev1.ErrorReason_ERROR_REASON_CLIENT_NOT_READING, err.Error(), metadata), true
	case errors.Is(err, eventlog.ErrBadToken), errors.Is(err, eventlog.ErrBadID), errors.Is(err, eventlog.ErrBadICCID):
		return describe(codes.InvalidArgument, linksgatev1.ErrorReason_ERROR_REASON_INVALID_ARGUMENT, err.Error(), nil), true
	case errors.Is(err, eventlog.ErrExpired):
		return describe(codes.OutOfRange, linksgatev1.ErrorReason_ERROR_REASON_EXPIRED, err.Error(), nil), true
	case errors.Is(err, eventlog.ErrDamaged):
		return describe(codes.DataLoss, linksgatev1.ErrorReason_ERROR_REASON_CORRUPT, err.Error(), nil), true
	case errors.Is(err, eventlog.ErrNotFound):
		return describe(codes.NotFound, linksgatev1.ErrorReason_ERROR_REASON_NOT_FOUND, err.Error(), nil), true
	case errors.Is(err, eventlog.ErrTooLarge):
		return describe(codes.InvalidArgument, linksgatev1.ErrorReason_ERROR_REASON_TOO_LARGE, err.Error(), nil), true
	case errors.As(err, &missing):
		return describe(codes.PermissionDenied, linksgatev1.ErrorReason_ERROR_REASON_RIGHT_MISSING, err.Error(), map[string]string{"right": missing.Right}), true
	case errors.Is(err, access.ErrNoCredential):
		return describe(codes.Unauthenticated, linksgatev1.ErrorReason_ERROR_REASON_CREDENTIAL_MISSING, err.Error(), nil), true
	case errors.Is(err, access.ErrBadCredential):
		return describe(codes.Unauthenticated, linksgatev1.ErrorReason_ERROR_REASON_CREDENTIAL_REFUSED, err.Error(), nil), true
	case errors.Is(err, access.ErrUnavailable):
		return describe(codes.Unavailable, linksgatev1.ErrorReason_ERROR_REASON_ISSUER_UNAVAILABLE, err.Error(), nil, retryIn(time.Second)), true
	case errors.Is(err, access.ErrTooMany):
		delay, limit := access.RetryDelay(err)
		return describe(codes.ResourceExhausted, linksgatev1.ErrorReason_ERROR_REASON_CALLER_LIMIT, err.Error(), nil, retryIn(delay),
			&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{Subject: "caller", Description: limit}}}), true
	case errors.Is(err, errTooManyStreams):
		return describe(codes.ResourceExhausted, linksgatev1.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS, err.Error(), nil, retryIn(5*time.Second),
			&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{
				Subject: "gateway", Description: "open subscriptions"}}}), true
	case errors.Is(err, eventlog.ErrNoGroup):
		return describe(codes.NotFound, linksgatev1.ErrorReason_ERROR_REASON_NO_SUCH_GROUP, err.Error(), nil), true
	case errors.Is(err, eventlog.ErrGroupExists):
		return describe(codes.AlreadyExists, linksgatev1.ErrorReason_ERROR_REASON_GROUP_EXISTS, err.Error(), nil), true
	case errors.Is(err, eventlog.ErrGroupChanged):
		return describe(codes.Aborted, linksgatev1.ErrorReason_ERROR_REASON_GROUP_CHANGED, err.Error(), nil, retryIn(100*time.Millisecond)), true
	case errors.Is(err, eventlog.ErrTooManyGroups):
		return describe(codes.ResourceExhausted, linksgatev1.ErrorReason_ERROR_REASON_TOO_MANY_GROUPS, err.Error(), nil,
			&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{
				Subject: "gateway", Description: "groups"}}}), true
	case errors.Is(err, group.ErrMoved):
		return describe(codes.Unavailable, linksgatev1.ErrorReason_ERROR_REASON_GROUP_MOVED, "the group was moved to another place in the log", nil, retryIn(100*time.Millisecond)), true
	case errors.Is(err, group.ErrRefiltered):
		return describe(codes.Unavailable, linksgatev1.ErrorReason_ERROR_REASON_GROUP_MOVED, err.Error(), nil, retryIn(100*time.Millisecond)), true
	case errors.Is(err, cluster.ErrCutOff):
		return describe(codes.Unavailable, linksgatev1.ErrorReason_ERROR_REASON_LOG_UNAVAILABLE, err.Error(), nil, retryIn(time.Second)), true
	case errors.Is(err, group.ErrTaken), errors.Is(err, cluster.ErrElsewhere), errors.Is(err, cluster.ErrLost):
		return describe(codes.Unavailable, linksgatev1.ErrorReason_ERROR_REASON_GROUP_TAKEN_OVER, err.Error(), nil, retryIn(100*time.Millisecond)), true
	case errors.Is(err, errDraining), errors.Is(err, group.ErrDraining), errors.Is(err, eventlog.ErrClosed):
		return describe(codes.Unavailable, linksgatev1.ErrorReason_ERROR_REASON_DRAINING, errDraining.Error(), nil, retryIn(time.Second)), true
	case errors.Is(err, eventlog.ErrFrozen):
		return describe(codes.Unavailable, linksgatev1.ErrorReason_ERROR_REASON_LOG_FROZEN, "the log is frozen after a write error", nil, retryIn(5*time.Second)), true
	case errors.Is(err, eventlog.ErrNoSpace):
		return describe(codes.Unavailable, linksgatev1.ErrorReason_ERROR_REASON_NO_SPACE, "not enough free space on the gateway's disk", nil, retryIn(5*time.Second)), true
	case errors.Is(err, eventlog.ErrUnavailable):
		return describe(codes.Unavailable, linksgatev1.ErrorReason_ERROR_REASON_LOG_UNAVAILABLE, "the log is unavailable", nil, retryIn(time.Second)), true
	case errors.Is(err, context.Canceled):
		return describe(codes.Canceled, linksgatev1.ErrorReason_ERROR_REASON_CANCELLED, "the call was cancelled", nil), true
	case errors.Is(err, context.DeadlineExceeded):
		return describe(codes.DeadlineExceeded, linksgatev1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED, "the call's deadline passed", nil), true
	}
	return describe(codes.Internal, linksgatev1.ErrorReason_ERROR_REASON_INTERNAL, "internal error; the gateway's log says more", nil), false
}

func describe(code codes.Code, reason linksgatev1.ErrorReason, text string, metadata map[string]string, details ...protoadapt.MessageV1) *status.Status {
	info := &errdetails.ErrorInfo{Reason: strings.TrimPrefix(reason.String(), reasonPrefix), Domain: ErrorDomain, Metadata: metadata}
	st, err := status.New(code, text).WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil { // only for the code OK
		return status.New(code, text)
	}
	return st
}

func retryIn(d time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}

// unaryErrors translates the errors of unary calls.
func (s *Server) unaryErrors(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = s.finish(info.FullMethod, err, recover()) }()
	return handler(ctx, req)
}

// streamErrors translates the errors of streams.
func (s *Server) streamErrors(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() { err = s.finish(info.FullMethod, err, recover()) }()
	return handler(srv, stream)
}

// finish translates and counts the end of a call. A panic is an internal error: one bad request must not end the streams of
// all others.
func (s *Server) finish(method string, err error, panicked any) error {
	if panicked != nil {
		s.logger.Error("a call panicked", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		err = errors.New("panic")
	}
	if _, isStatus := status.FromError(err); !isStatus {
		st, known := toStatus(err)
		if !known && panicked == nil {
			s.logger.Error("a call failed", "method", method, "error", err)
		}
		err = st.Err()
	}
	s.metrics.ended.WithLabelValues(method, status.Code(err).String()).Inc()
	return err
}
