package linksgate

import (
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// What coming back cannot mend. An [Error] is one of these, by [errors.Is].
var (
	// ErrExpired: the position is no longer retained. Error.FirstAvailableToken is where the log begins now.
	ErrExpired = errors.New("expired")
	// ErrDataLoss: notifications are corrupt, or the log lost its end, or is a copy that was restored.
	ErrDataLoss = errors.New("data loss")
	// ErrOtherLog: the token is of another log.
	ErrOtherLog = errors.New("another log")
	// ErrInvalidRequest: the gateway does not take the request. Error.Fields says why.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrPermissionDenied: the credential is missing, unknown, or lacks a right.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrNotFound: there is no such group.
	ErrNotFound = errors.New("not found")
	// ErrUnsupported: what is at the address does not have this service.
	ErrUnsupported = errors.New("unsupported")
)

// Error is an answer of a gateway that ends a subscription or a worker.
type Error struct {
	// Code is that of the call.
	Code codes.Code
	// Reason is one of the gateway's, without its prefix ([linksgatev1.ErrorReason]); empty if it gave none.
	Reason string
	// Message is for a person to read.
	Message string
	// FirstAvailableToken is where to go on, if the gateway said so.
	FirstAvailableToken string
	// Fields are the violations of an invalid request.
	Fields []*errdetails.BadRequest_FieldViolation

	kind error
}

// Error implements error.
func (e *Error) Error() string {
	text := fmt.Sprintf("%v: %s", e.kind, e.Message)
	if e.FirstAvailableToken != "" {
		text += "; the first available token is " + e.FirstAvailableToken
	}
	return text
}

// Unwrap returns the one of ErrExpired, … that it is.
func (e *Error) Unwrap() error { return e.kind }

// errorDomain marks details that come from a gateway, not from a proxy before it.
const errorDomain = "linksgate"

// final returns the error that a call ends with for good; nil if it is to be tried again.
func final(err error) *Error {
	st := status.Convert(err)
	e := &Error{Code: st.Code(), Message: st.Message()}
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == errorDomain {
				e.Reason, e.FirstAvailableToken = detail.GetReason(), detail.GetMetadata()["first_available_token"]
			}
		case *errdetails.BadRequest:
			e.Fields = detail.GetFieldViolations()
		}
	}
	switch st.Code() {
	case codes.OutOfRange:
		e.kind = ErrExpired
	case codes.DataLoss:
		e.kind = ErrDataLoss
	case codes.FailedPrecondition:
		e.kind = ErrOtherLog
	case codes.InvalidArgument:
		e.kind = ErrInvalidRequest
	case codes.Unauthenticated, codes.PermissionDenied:
		e.kind = ErrPermissionDenied
	case codes.NotFound:
		e.kind = ErrNotFound
	case codes.Unimplemented:
		e.kind = ErrUnsupported
	default:
		return nil
	}
	return e
}

// gapError is what a gap in a subscription is that does not go on after gaps, if the gateway says it by a frame.
func gapError(gap *linksgatev1.Gap, token string) *Error {
	e := &Error{Code: codes.DataLoss, Reason: "CORRUPT", Message: "notifications are corrupt", FirstAvailableToken: token, kind: ErrDataLoss}
	if gap.GetReason() == linksgatev1.GapReason_GAP_REASON_EXPIRED {
		e.Code, e.Reason, e.Message, e.kind = codes.OutOfRange, "EXPIRED", "notifications have expired", ErrExpired
	}
	return e
}
