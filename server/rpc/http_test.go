package rpc

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// TestEveryStatusHasAReason gives errors from every place where HTTP requests fail: in this package, in HTTP, and between
// the two, where nobody has thought of a reason.
func TestEveryStatusHasAReason(t *testing.T) {
	ours := describe(codes.NotFound, linksgatev1.ErrorReason_ERROR_REASON_NO_SUCH_GROUP, "no such group", nil).Err()
	for _, tt := range []struct {
		name   string
		err    error
		code   codes.Code
		reason string
		retry  bool
		known  bool
	}{
		{"of this package", ours, codes.NotFound, "NO_SUCH_GROUP", false, true},
		{"wrapped", fmt.Errorf("call: %w", ours), codes.NotFound, "NO_SUCH_GROUP", false, true},
		{"of generated code", status.Error(codes.InvalidArgument, "type mismatch"), codes.InvalidArgument, "INVALID_ARGUMENT", false, true},
		{"of gRPC", status.Error(codes.Unimplemented, "unknown service"), codes.Unimplemented, "UNIMPLEMENTED", false, true},
		{"of a server that is gone", status.Error(codes.Unavailable, "connection error"), codes.Unavailable, "DRAINING", true, true},
		{"of a field", InvalidField("page_size", "too large"), codes.InvalidArgument, "INVALID_ARGUMENT", false, true},
		{"of HTTP", Refusal(http.StatusMethodNotAllowed, "no"), codes.Unimplemented, "METHOD_NOT_ALLOWED", false, true},
		{"of HTTP, unheard of", Refusal(http.StatusTeapot, "no"), codes.Internal, "INTERNAL", false, true},
		{"of nobody", errors.New("secret"), codes.Internal, "INTERNAL", false, false},
	} {
		st, known := StatusOf(tt.err)
		var info *errdetails.ErrorInfo
		retry := false
		for _, detail := range st.Details() {
			switch detail := detail.(type) {
			case *errdetails.ErrorInfo:
				info = detail
			case *errdetails.RetryInfo:
				retry = true
			}
		}
		if st.Code() != tt.code || info.GetReason() != tt.reason || info.GetDomain() != ErrorDomain || retry != tt.retry || known != tt.known {
			t.Errorf("%s: %v with %v, retry %v, known %v; want %+v", tt.name, st, info, retry, known, tt)
		}
		if !known && st.Message() == tt.err.Error() {
			t.Errorf("%s: the client is told %q", tt.name, st.Message())
		}
	}
}
