package rpc

import (
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
	reason string
}{
	http.StatusBadRequest:            {codes.InvalidArgument, "INVALID_ARGUMENT"},
	http.StatusForbidden:             {codes.PermissionDenied, "CROSS_ORIGIN"},
	http.StatusNotFound:              {codes.NotFound, "NO_SUCH_PATH"},
	http.StatusMethodNotAllowed:      {codes.Unimplemented, "METHOD_NOT_ALLOWED"},
	http.StatusNotAcceptable:         {codes.InvalidArgument, "NOT_ACCEPTABLE"},
	http.StatusRequestTimeout:        {codes.DeadlineExceeded, "BODY_TOO_SLOW"},
	http.StatusRequestEntityTooLarge: {codes.InvalidArgument, "TOO_LARGE"},
	http.StatusUnsupportedMediaType:  {codes.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE"},
	http.StatusMisdirectedRequest:    {codes.PermissionDenied, "HOST_NOT_ALLOWED"},
}

// Refusal is the error of a request that HTTP answers with a status of its own.
func Refusal(httpStatus int, text string) error {
	refusal, ok := refusals[httpStatus]
	if !ok {
		refusal.code, refusal.reason = codes.Internal, "INTERNAL"
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
	return describe(st.Code(), code.Code_name[int32(st.Code())], st.Message(), nil), true
}

func hasErrorInfo(st *status.Status) bool {
	for _, detail := range st.Details() {
		if _, ok := detail.(*errdetails.ErrorInfo); ok {
			return true
		}
	}
	return false
}
