package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/cluster"
	"github.com/linksgate/linksgate/server/eventlog"
	"github.com/linksgate/linksgate/server/eventlog/eventlogtest"
	"github.com/linksgate/linksgate/server/group"
)

// statusCase says what clients get for an error.
type statusCase struct {
	err    error
	code   codes.Code
	reason string
	// details beside the ErrorInfo, by type.
	retry, badRequest, quota bool
	// metadata of the ErrorInfo.
	metadata map[string]string
}

// sentinels are the errors of the log and of groups, by name.
var sentinels = map[string]statusCase{
	"ErrBadToken":    {err: eventlog.ErrBadToken, code: codes.InvalidArgument, reason: "INVALID_ARGUMENT"},
	"ErrBadID":       {err: eventlog.ErrBadID, code: codes.InvalidArgument, reason: "INVALID_ARGUMENT"},
	"ErrOtherLog":    {err: eventlog.ErrOtherLog, code: codes.FailedPrecondition, reason: "OTHER_LOG"},
	"ErrAhead":       {err: eventlog.ErrAhead, code: codes.DataLoss, reason: "AHEAD_OF_HEAD"},
	"ErrExpired":     {err: eventlog.ErrExpired, code: codes.OutOfRange, reason: "EXPIRED"},
	"ErrDamaged":     {err: eventlog.ErrDamaged, code: codes.DataLoss, reason: "CORRUPT"},
	"ErrErased":      {err: eventlog.ErrErased, code: codes.NotFound, reason: "NOT_FOUND"},
	"ErrBadICCID":    {err: eventlog.ErrBadICCID, code: codes.InvalidArgument, reason: "INVALID_ARGUMENT"},
	"ErrNotFound":    {err: eventlog.ErrNotFound, code: codes.NotFound, reason: "NOT_FOUND"},
	"ErrTooLarge":    {err: eventlog.ErrTooLarge, code: codes.InvalidArgument, reason: "TOO_LARGE"},
	"ErrUnavailable": {err: eventlog.ErrUnavailable, code: codes.Unavailable, reason: "LOG_UNAVAILABLE", retry: true},
	"ErrNoSpace":     {err: eventlog.ErrNoSpace, code: codes.Unavailable, reason: "NO_SPACE", retry: true},
	"ErrFrozen":      {err: eventlog.ErrFrozen, code: codes.Unavailable, reason: "LOG_FROZEN", retry: true},
	"ErrClosed":      {err: eventlog.ErrClosed, code: codes.Unavailable, reason: "DRAINING", retry: true},

	"ErrNoGroup":       {err: eventlog.ErrNoGroup, code: codes.NotFound, reason: "NO_SUCH_GROUP"},
	"ErrGroupExists":   {err: eventlog.ErrGroupExists, code: codes.AlreadyExists, reason: "GROUP_EXISTS"},
	"ErrGroupChanged":  {err: eventlog.ErrGroupChanged, code: codes.Aborted, reason: "GROUP_CHANGED", retry: true},
	"ErrTooManyGroups": {err: eventlog.ErrTooManyGroups, code: codes.ResourceExhausted, reason: "TOO_MANY_GROUPS", quota: true},
	"ErrDraining":      {err: group.ErrDraining, code: codes.Unavailable, reason: "DRAINING", retry: true},
	"ErrMoved":         {err: group.ErrMoved, code: codes.Unavailable, reason: "GROUP_MOVED", retry: true},
	"ErrRefiltered":    {err: group.ErrRefiltered, code: codes.Unavailable, reason: "GROUP_MOVED", retry: true},
	"ErrTaken":         {err: group.ErrTaken, code: codes.Unavailable, reason: "GROUP_TAKEN_OVER", retry: true},
	"ErrElsewhere":     {err: cluster.ErrElsewhere, code: codes.Unavailable, reason: "GROUP_TAKEN_OVER", retry: true},
	"ErrLost":          {err: cluster.ErrLost, code: codes.Unavailable, reason: "GROUP_TAKEN_OVER", retry: true},
	"ErrCutOff":        {err: cluster.ErrCutOff, code: codes.Unavailable, reason: "LOG_UNAVAILABLE", retry: true},
}

// accessSentinels are the errors of package access, which has one of the log's names too.
var accessSentinels = map[string]statusCase{
	"ErrNoCredential":  {err: access.ErrNoCredential, code: codes.Unauthenticated, reason: "CREDENTIAL_MISSING"},
	"ErrBadCredential": {err: access.ErrBadCredential, code: codes.Unauthenticated, reason: "CREDENTIAL_REFUSED"},
	"ErrUnavailable":   {err: access.ErrUnavailable, code: codes.Unavailable, reason: "ISSUER_UNAVAILABLE", retry: true},
	"ErrTooMany":       {err: access.ErrTooMany, code: codes.ResourceExhausted, reason: "CALLER_LIMIT", retry: true, quota: true},
}

// TestEveryErrorOfAccessHasACode is the same for package access.
func TestEveryErrorOfAccessHasACode(t *testing.T) {
	for _, name := range exportedErrors(t, "../access") {
		if _, ok := accessSentinels[name]; !ok {
			t.Errorf("%s has no row in the table", name)
		}
	}
	for name, tt := range accessSentinels {
		t.Run(name, func(t *testing.T) {
			tt.err = fmt.Errorf("%w: more", tt.err)
			checkStatus(t, tt)
		})
	}
}

// TestEveryErrorBelowHasACode reads the names of the errors from the source, so that a new one is not forgotten.
func TestEveryErrorBelowHasACode(t *testing.T) {
	names := slices.DeleteFunc(slices.Concat(exportedErrors(t, "../eventlog"), exportedErrors(t, "../group"), exportedErrors(t, "../cluster")),
		func(name string) bool { return name == "ErrLeave" || name == "ErrLeft" }) // are planned endings, never a status
	if len(names) == 0 {
		t.Fatal("no errors were found")
	}
	for _, name := range names {
		tt, ok := sentinels[name]
		if !ok {
			t.Errorf("%s has no row in the table", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			checkStatus(t, tt)
			wrapped := tt
			wrapped.err = fmt.Errorf("append: %w: %w", tt.err, errors.New("something of the engine"))
			checkStatus(t, wrapped)
		})
	}
	if len(names) != len(sentinels) {
		t.Errorf("the table has %d rows; the errors are %v", len(sentinels), names)
	}
}

// exportedErrors returns the names of the package-level Err variables in a directory, tests aside.
func exportedErrors(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range file.Decls {
			general, ok := declaration.(*ast.GenDecl)
			if !ok || general.Tok != token.VAR {
				continue
			}
			for _, spec := range general.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(name.Name, "Err") {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

func TestErrorsOfRequestsAndStreams(t *testing.T) {
	gapAt := func(err error) error { return &gapError{err: err, available: "token"} }
	available := map[string]string{"first_available_token": "token"}
	bad := &fieldError{field: "after", problem: "not a resume token", err: eventlog.ErrBadToken}
	for _, tt := range []statusCase{
		{err: bad, code: codes.InvalidArgument, reason: "INVALID_ARGUMENT", badRequest: true},
		{err: &fieldError{field: "after", err: eventlog.ErrOtherLog}, code: codes.FailedPrecondition, reason: "OTHER_LOG"},
		{err: gapAt(eventlog.ErrExpired), code: codes.OutOfRange, reason: "EXPIRED", metadata: available},
		{err: gapAt(eventlog.ErrDamaged), code: codes.DataLoss, reason: "CORRUPT", metadata: available},
		{err: &slowError{lastToken: "token", timeout: time.Second}, code: codes.Aborted, reason: "CLIENT_NOT_READING",
			metadata: map[string]string{"last_token": "token"}},
		{err: errTooManyStreams, code: codes.ResourceExhausted, reason: "TOO_MANY_STREAMS", retry: true, quota: true},
		{err: errDraining, code: codes.Unavailable, reason: "DRAINING", retry: true},
		{err: errors.Join(errDraining, nil), code: codes.Unavailable, reason: "DRAINING", retry: true},
		{err: fmt.Errorf("%w: %w: %w", eventlog.ErrFrozen, eventlog.ErrUnavailable, context.DeadlineExceeded),
			code: codes.Unavailable, reason: "LOG_FROZEN", retry: true},
		{err: fmt.Errorf("%w: %w", eventlog.ErrUnavailable, context.DeadlineExceeded), code: codes.Unavailable, reason: "LOG_UNAVAILABLE", retry: true},
		{err: context.Canceled, code: codes.Canceled, reason: "CANCELLED"},
		{err: context.DeadlineExceeded, code: codes.DeadlineExceeded, reason: "DEADLINE_EXCEEDED"},
		{err: errors.New("anything else"), code: codes.Internal, reason: "INTERNAL"},
		{err: fmt.Errorf("open the disk: %w", fs.ErrPermission), code: codes.Internal, reason: "INTERNAL"},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) { checkStatus(t, tt) })
	}
}

// checkStatus requires the code, the reason and the details for an error, and that only internal ones are to be logged.
func checkStatus(t *testing.T, tt statusCase) {
	t.Helper()
	st, known := toStatus(tt.err)
	if st.Code() != tt.code || known == (tt.code == codes.Internal) {
		t.Errorf("%v becomes %v, known: %v; want %v", tt.err, st, known, tt.code)
	}
	if !known && strings.Contains(st.Message(), tt.err.Error()) {
		t.Errorf("an internal error tells %q", st.Message())
	}
	got := statusCase{err: tt.err, code: st.Code()}
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			got.reason, got.metadata = detail.GetReason(), detail.GetMetadata()
			if detail.GetDomain() != ErrorDomain {
				t.Errorf("the domain is %q", detail.GetDomain())
			}
		case *errdetails.RetryInfo:
			got.retry = detail.GetRetryDelay().AsDuration() > 0
		case *errdetails.BadRequest:
			got.badRequest = len(detail.GetFieldViolations()) == 1
		case *errdetails.QuotaFailure:
			got.quota = len(detail.GetViolations()) == 1
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(tt) {
		t.Errorf("%v becomes\n%+v; want\n%+v", tt.err, got, tt)
	}
}

// TestInternalErrorsAreOneTextAndOneLogLine calls through the interceptors, where a handler fails or panics.
func TestInternalErrorsAreOneTextAndOneLogLine(t *testing.T) {
	const inside = "what is wrong inside"
	log := eventlogtest.Open(t, eventlog.Options{})
	fails := func() error { return errors.New(inside) }
	panics := func() error { panic(inside) }
	for name, handle := range map[string]func() error{"an error": fails, "a panic": panics} {
		for kind, call := range map[string]func(*Server) error{
			"unary": func(s *Server) error {
				_, err := s.unaryErrors(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/unary"},
					func(context.Context, any) (any, error) { return nil, handle() })
				return err
			},
			"stream": func(s *Server) error {
				return s.streamErrors(nil, nil, &grpc.StreamServerInfo{FullMethod: "/stream"},
					func(any, grpc.ServerStream) error { return handle() })
			},
		} {
			t.Run(kind+" call, "+name, func(t *testing.T) {
				var logs bytes.Buffer
				s := New(Options{Log: log, Logger: slog.New(slog.NewJSONHandler(&logs, nil))})
				st := status.Convert(call(s))
				want, _ := toStatus(errors.New("any"))
				if st.Code() != codes.Internal || st.Message() != want.Message() || len(st.Details()) != 1 {
					t.Errorf("%v; want %v", st, want)
				}
				if strings.Count(logs.String(), "\n") != 1 || !strings.Contains(logs.String(), inside) {
					t.Errorf("logged %q; want one line that says what was wrong", logs.String())
				}
			})
		}
	}
}

func TestKnownErrorsAreNotLogged(t *testing.T) {
	var logs bytes.Buffer
	s := New(Options{Log: eventlogtest.Open(t, eventlog.Options{}), Logger: slog.New(slog.NewJSONHandler(&logs, nil))})
	for _, tt := range sentinels {
		if err := s.finish("/method", tt.err, nil); status.Code(err) != tt.code {
			t.Errorf("%v; want %v", err, tt.code)
		}
	}
	if err := s.finish("/method", nil, nil); err != nil || logs.Len() > 0 {
		t.Errorf("%v, logged %s", err, logs.String())
	}
}
