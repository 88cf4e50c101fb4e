package rpc

import (
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// The HTTP side has errors of its own. Their codes are chosen here too.

// InvalidField is the error of a request that breaks a rule about one of its fields.
func InvalidField(field, problem string) error {
	st, _ := toStatus(&fieldError{field: field, problem: problem})
	return st.Err()
}

// refusals are the codes of what HTTP refuses before it becomes a call, with the reasons in ErrorInfo.
var refusals = map[int]struct {
	code   codes.Code
	reason linksgatev1.ErrorReason
}{
	http.StatusBadRequest:            {codes.InvalidArgument, linksgatev1.ErrorReason_ERROR_REASON_INVALID_ARGUMENT},
	http.StatusForbidden:             {codes.PermissionDenied, linksgatev1.ErrorReason_ERROR_REASON_CROSS_ORIGIN},
	http.StatusNotFound:              {codes.NotFound, linksgatev1.ErrorReason_ERROR_REASON_NO_SUCH_PATH},
	http.StatusMethodNotAllowed:      {codes.Unimplemented, linksgatev1.ErrorReason_ERROR_REASON_METHOD_NOT_ALLOWED},
	http.StatusNotAcceptable:         {codes.InvalidArgument, linksgatev1.ErrorReason_ERROR_REASON_NOT_ACCEPTABLE},
	http.StatusRequestTimeout:        {codes.DeadlineExceeded, linksgatev1.ErrorReason_ERROR_REASON_BODY_TOO_SLOW},
	http.StatusRequestEntityTooLarge: {codes.InvalidArgument, linksgatev1.ErrorReason_ERROR_REASON_TOO_LARGE},
	http.StatusUnsupportedMediaType:  {codes.InvalidArgument, linksgatev1.ErrorReason_ERROR_REASON_UNSUPPORTED_MEDIA_TYPE},
	http.StatusMisdirectedRequest:    {codes.PermissionDenied, linksgatev1.ErrorReason_ERROR_REASON_HOST_NOT_ALLOWED},
}

// Refusal is the error of a request that HTTP answers with a status of its own.
func Refusal(httpStatus int, text string) error {
	refusal, ok := refusals[httpStatus]
	if !ok {
		refusal.code, refusal.reason = codes.Internal, linksgatev1.ErrorReason_ERROR_REASON_INTERNAL
	}
	return describe(refusal.code, refusal.reason, text, nil).Err()
}

// StatusOf returns the status of an error that a client of this server has got, with an ErrorInfo also when it was made before
// the call arrived here. It reports false for what is not known, of which clients are told nothing.
func StatusOf(err error) (*status.Status, bool) {
	st, ok := status.FromError(err)
	switch {
	case !ok:
		return toStatus(err)
	case hasErrorInfo(st):
		return st, true
	case st.Code() == codes.Unavailable: // a connection within the process fails only when the server ends
		st, _ := toStatus(errDraining)
		return st, true
	}
	reason, ok := reasons[st.Code()]
	if !ok {
		reason = linksgatev1.ErrorReason_ERROR_REASON_INTERNAL
	}
	return describe(st.Code(), reason, st.Message(), nil), true
}

// reasons are of errors that gRPC makes itself.
var reasons = map[codes.Code]linksgatev1.ErrorReason{
	codes.Canceled:          linksgatev1.ErrorReason_ERROR_REASON_CANCELLED,
	codes.DeadlineExceeded:  linksgatev1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED,
	codes.InvalidArgument:   linksgatev1.ErrorReason_ERROR_REASON_INVALID_ARGUMENT,
	codes.ResourceExhausted: linksgatev1.ErrorReason_ERROR_REASON_TOO_LARGE,
	codes.Unimplemented:     linksgatev1.ErrorReason_ERROR_REASON_UNIMPLEMENTED,
}

func hasErrorInfo(st *status.Status) bool {
	for _, detail := range st.Details() {
		if _, ok := detail.(*errdetails.ErrorInfo); ok {
			return true
		}
	}
	return false
}
