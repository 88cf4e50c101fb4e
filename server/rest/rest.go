// Package rest serves the gRPC services as JSON over HTTP, and their streams as NDJSON and SSE.
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/gen/openapi"
	restv1 "github.com/linksgate/linksgate/gen/rest/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/rpc"
)

// Paths that are not generated.
const (
	subscribePath = "/v1/notifications:subscribe"
	openAPIPath   = "/openapi.json"
)

// Media types of answers.
const (
	mediaJSON   = "application/json"
	mediaNDJSON = "application/x-ndjson"
	mediaSSE    = "text/event-stream"
)

// Bounds of the server's requests.
const (
	maxRESTBody = 4 << 20 // what gRPC takes
	// MaxHeader bounds the header in bytes.
	MaxHeader  = 64 << 10         // a filter with as many ICCIDs as it may have is in the query
	ReadTime   = 30 * time.Second // for a whole request
	AnswerTime = 90 * time.Second // for a whole answer that is not a stream; Fetch waits for up to a minute
	Ping       = 30 * time.Second // how often a silent HTTP/2 connection is probed, and how long that is waited for
)

// Facade is the gRPC services as JSON over HTTP: a client of the gRPC server like any other, but within the process. A request
// goes through [Facade.ServeHTTP], which holds what is true of all of them; through the routes that are generated from
// proto/linksgate/v1/rest.yaml, or [Facade.subscribe]; and becomes a call, the code of whose error becomes the HTTP status.
//
// What is not known is refused, in a body and in a query, where grpc-gateway would pass over it: a filter that is misspelt must
// not be a filter that lets everything through.
type Facade struct {
	routes        *runtime.ServeMux
	notifications linksgatev1.NotificationServiceClient
	conn          *grpc.ClientConn
	form          jsonForm
	origins       *http.CrossOriginProtection
	hosts         Hosts
	sendTimeout   time.Duration // how long a client of a stream may not read
}

// New returns the handler of the REST address, which may be asked for by the names that are allowed. A client that does not read a
// stream for sendTimeout is cut off; 0 means that of gRPC. Close is to be called after the last request.
func New(server *rpc.Server, allowedHosts []string, sendTimeout time.Duration) (*Facade, error) {
	if sendTimeout == 0 {
		sendTimeout = rpc.DefaultSendTimeout
	}
	conn, err := server.Connect(grpc.WithUnaryInterceptor(checkCall))
	if err != nil {
		return nil, err
	}
	f := &Facade{
		notifications: linksgatev1.NewNotificationServiceClient(conn), conn: conn, form: jsonForm{new(runtime.JSONPb)},
		origins: http.NewCrossOriginProtection(), hosts: NewHosts(allowedHosts, len(allowedHosts) > 0), sendTimeout: sendTimeout,
	}
	none := func(string) (string, bool) { return "", false }
	f.routes = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, f.form),
		runtime.WithErrorHandler(f.failed),
		runtime.WithRoutingErrorHandler(f.unrouted),
		runtime.WithMiddlewares(f.admit),
		runtime.WithIncomingHeaderMatcher(none),
		runtime.WithMetadata(func(ctx context.Context, _ *http.Request) metadata.MD { return callerIn(ctx) }),
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithOutgoingTrailerMatcher(none),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithWriteContentLength(),
	)
	// Neither context ends: the calls' are those of their requests.
	ctx := context.Background()
	err = errors.Join(
		restv1.RegisterNotificationServiceHandler(ctx, f.routes, conn),
		restv1.RegisterGroupServiceHandler(ctx, f.routes, conn),
		restv1.RegisterWorkerServiceHandler(ctx, f.routes, conn),
		restv1.RegisterQuarantineServiceHandler(ctx, f.routes, conn),
		restv1.RegisterErasureServiceHandler(ctx, f.routes, conn),
		restv1.RegisterAuditServiceHandler(ctx, f.routes, conn),
		f.routes.HandlePath(http.MethodGet, subscribePath, f.subscribe), // instead of the generated one: the last one counts
		f.routes.HandlePath(http.MethodGet, openAPIPath, f.openAPI),
	)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return f, nil
}

// Close ends the calls that go on.
func (f *Facade) Close() error { return f.conn.Close() }

// CountRequests counts what a handler answers.
func CountRequests(registry prometheus.Registerer, handler http.Handler) http.Handler {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "linksgate_rest_requests_total", Help: "REST requests that ended, by method and status."}, []string{"method", "code"})
	registry.MustRegister(requests)
	return promhttp.InstrumentHandlerCounter(requests, handler)
}

// ServeHTTP implements [http.Handler].
func (f *Facade) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	// Whoever opens a page of somebody else's in a browser that reaches this address must not thereby purge a quarantine, be it
	// under that page's name or across origins.
	if err := f.hosts.check(r); err != nil {
		f.refuse(w, http.StatusMisdirectedRequest, err.Error())
		return
	}
	if err := f.origins.Check(r); err != nil {
		f.refuse(w, http.StatusForbidden, err.Error())
		return
	}
	if err := checkURL(r.URL); err != nil {
		f.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if r.Method == http.MethodOptions {
		if methods := f.methodsOf(r); len(methods) > 0 {
			header.Set("Allow", strings.Join(methods, ", "))
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	routed := r.Clone(context.WithValue(r.Context(), callerKey{}, rpc.CallerOf(r)))
	if r.Method == http.MethodHead {
		routed.Method, w = http.MethodGet, headWriter{w}
	}
	routed.Header = onlyRead(r.Header)
	f.routes.ServeHTTP(w, routed)
}

// callerKey is of the metadata that says who makes a request.
type callerKey struct{}

func callerIn(ctx context.Context) metadata.MD {
	md, _ := ctx.Value(callerKey{}).(metadata.MD)
	return md
}

// headWriter writes no body, and so ends a stream after its headers.
type headWriter struct{ http.ResponseWriter }

// Write implements [io.Writer].
func (headWriter) Write([]byte) (int, error) { return 0, http.ErrBodyNotAllowed }

// onlyRead returns the headers that mean something here. In others grpc-gateway would find a method, deadlines and metadata.
func onlyRead(header http.Header) http.Header {
	kept := make(http.Header)
	for _, name := range []string{"Accept", "Content-Type", "Last-Event-Id"} {
		if values, ok := header[name]; ok {
			kept[name] = values
		}
	}
	return kept
}

// checkURL refuses what could not become a string of a message, and what net/url would leave out.
func checkURL(u *url.URL) error {
	if !utf8.ValidString(u.Path) {
		return errors.New("the path is not valid UTF-8")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fmt.Errorf("the query cannot be read: %w", err)
	}
	for name, values := range query {
		if !utf8.ValidString(name + strings.Join(values, "")) {
			return errors.New("the query is not valid UTF-8")
		}
	}
	return nil
}

// probe, in the context of a request, is told the methods that its path has, and the request is not served.
type probe struct{ methods []string }

type probeKey struct{}

// methodsOf asks the routes for the methods of a path.
func (f *Facade) methodsOf(r *http.Request) []string {
	var p probe
	ctx := context.WithValue(r.Context(), probeKey{}, &p)
	for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodPatch, http.MethodPost} {
		asked := r.Clone(ctx)
		asked.Method = method
		f.routes.ServeHTTP(nil, asked)
	}
	if slices.Contains(p.methods, http.MethodGet) {
		p.methods = append(p.methods, http.MethodHead)
	}
	if len(p.methods) > 0 {
		p.methods = append(p.methods, http.MethodOptions)
	}
	return p.methods
}

// unrouted answers what has no route.
func (f *Facade) unrouted(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, httpStatus int) {
	if _, probing := r.Context().Value(probeKey{}).(*probe); probing {
		return
	}
	if methods := f.methodsOf(r); len(methods) > 0 {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		f.refuse(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s is not a method of this path; %s are", r.Method, strings.Join(methods, ", ")))
		return
	}
	if httpStatus != http.StatusBadRequest {
		httpStatus = http.StatusNotFound
	}
	f.refuse(w, httpStatus, fmt.Sprintf("there is nothing at this path; GET %s describes what there is", openAPIPath))
}

// admit refuses what a route could not answer, and reads the body.
func (f *Facade) admit(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, path map[string]string) {
		for _, value := range path {
			if strings.Contains(value, ":") { // no name and no id has one: it begins a verb that this route does not have
				f.unrouted(r.Context(), f.routes, f.form, w, r, http.StatusNotFound)
				return
			}
		}
		if p, probing := r.Context().Value(probeKey{}).(*probe); probing {
			p.methods = append(p.methods, r.Method)
			return
		}
		offers := []string{mediaJSON}
		if r.URL.Path == subscribePath {
			offers = []string{mediaNDJSON, mediaSSE}
		}
		if negotiate(r.Header, offers) == "" {
			f.refuse(w, http.StatusNotAcceptable, fmt.Sprintf("this is answered as %s only", strings.Join(offers, " or ")))
			return
		}
		body, httpStatus, err := readBody(w, r)
		if err != nil {
			f.refuse(w, httpStatus, err.Error())
			return
		}
		if err := checkBody(body, path); err != nil {
			f.fail(w, err)
			return
		}
		call := restCall{query: r.URL.Query(), path: path, body: r.Method == http.MethodPost, patch: r.Method == http.MethodPatch, raw: body}
		next(w, r.WithContext(context.WithValue(r.Context(), restCallKey{}, call)), path)
	}
}

// readBody reads a body and puts what was read in its place. When it fails it says with which HTTP status.
func readBody(w http.ResponseWriter, r *http.Request) (body []byte, httpStatus int, err error) {
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxRESTBody))
	tooLarge := new(http.MaxBytesError)
	switch {
	case errors.As(err, &tooLarge):
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the body has more than %d bytes", tooLarge.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, http.StatusRequestTimeout, fmt.Errorf("the body did not arrive within %v", ReadTime)
	case err != nil:
		return nil, http.StatusBadRequest, fmt.Errorf("the body cannot be read: %w", err)
	}
	// The deadline for reading the request would otherwise end it while it is answered.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(body))
	if r.Method != http.MethodPost && r.Method != http.MethodPatch {
		if len(body) > 0 {
			return nil, http.StatusBadRequest, fmt.Errorf("%s has no body here", r.Method)
		}
		return body, 0, nil
	}
	// Not being generous here also keeps forms of other people's pages out.
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != mediaJSON {
		return nil, http.StatusUnsupportedMediaType, errors.New("the body must be JSON and say so, with Content-Type: application/json")
	}
	if len(body) == 0 {
		return nil, http.StatusBadRequest, errors.New("the body is missing; that of an empty message is {}")
	}
	return body, 0, nil
}

// checkBody refuses a body that names something else than the path does: grpc-gateway would pass over what it says.
func checkBody(body []byte, path map[string]string) error {
	var members map[string]json.RawMessage
	if len(path) == 0 || json.Unmarshal(body, &members) != nil { // what is no object is refused where it is to be a message
		return nil
	}
	for field, inPath := range path {
		name := field[strings.LastIndexByte(field, '.')+1:] // the body of a PATCH is the group, of which the path has the name
		for _, spelling := range []string{name, jsonName(name)} {
			var inBody string
			if json.Unmarshal(members[spelling], &inBody) == nil && inBody != "" && inBody != inPath {
				return rpc.InvalidField(field, fmt.Sprintf("it is %q in the path and %q in the body", inPath, inBody))
			}
		}
	}
	return nil
}

// jsonName is the name of a field in JSON.
func jsonName(name string) string {
	words := strings.Split(name, "_")
	for i, word := range words[1:] {
		words[i+1] = strings.ToUpper(word[:1]) + word[1:]
	}
	return strings.Join(words, "")
}

// negotiate returns the offer that a request accepts best, the first of several, or "". No Accept accepts everything.
func negotiate(header http.Header, offers []string) string {
	accepted := header.Values("Accept")
	if len(accepted) == 0 {
		return offers[0]
	}
	best, bestQuality := "", 0.0
	for _, offer := range offers {
		family, _, _ := strings.Cut(offer, "/")
		quality, precision := 0.0, 0 // of the most precise entry that covers the offer
		for entry := range strings.SplitSeq(strings.Join(accepted, ","), ",") {
			media, parameters, err := mime.ParseMediaType(entry)
			if err != nil {
				continue
			}
			p := slices.Index([]string{"*/*", family + "/*", offer}, media) + 1
			if p <= precision {
				continue
			}
			quality, precision = 1, p
			if q, err := strconv.ParseFloat(parameters["q"], 64); err == nil {
				quality = q
			}
		}
		if quality > bestQuality {
			best, bestQuality = offer, quality
		}
	}
	return best
}

// restCall is what is known of a request when it becomes a call.
type restCall struct {
	query url.Values
	path  map[string]string // parameters of the path, by the fields that they become
	body  bool              // all other fields are in the body
	patch bool              // the field `group` is the body
	raw   []byte            // the body
}

type restCallKey struct{}

// checkCall is a client interceptor: there a request is first seen together with the message that it has become.
func checkCall(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if call, ok := ctx.Value(restCallKey{}).(restCall); ok {
		message := req.(proto.Message).ProtoReflect().Descriptor()
		if err := call.checkQuery(message); err != nil {
			return err
		}
		prefix := ""
		if call.patch { // of which the body is one field
			prefix, message = "group.", message.Fields().ByName("group").Message()
		}
		if err := checkEnums(call.raw, message, prefix); err != nil {
			return err
		}
	}
	if update, ok := req.(*linksgatev1.UpdateGroupRequest); ok {
		toProtoNames(update.GetUpdateMask(), update.GetGroup().ProtoReflect().Descriptor())
	}
	return invoke(ctx, method, req, reply, conn, options...)
}

// toProtoNames gives the fields in a mask the names that gRPC knows. In the JSON form they have those of JSON, which grpc-gateway leaves
// as they are.
func toProtoNames(mask *fieldmaskpb.FieldMask, message protoreflect.MessageDescriptor) {
	for i, path := range mask.GetPaths() {
		if field := message.Fields().ByJSONName(path); field != nil {
			mask.Paths[i] = string(field.Name())
		}
	}
}

// checkQuery refuses parameters that are not fields of the message, or are given elsewhere.
func (c restCall) checkQuery(message protoreflect.MessageDescriptor) error {
	for name := range c.query {
		first, _, _ := strings.Cut(name, ".")
		for bound := range c.path {
			if bound, _, _ := strings.Cut(bound, "."); bound == first {
				return rpc.InvalidField(name, "is given by the path and the body, not by the query")
			}
		}
		switch {
		case !isField(message, strings.Split(name, ".")):
			return rpc.InvalidField(name, "there is no such parameter")
		case c.body, c.patch && first == "group":
			return rpc.InvalidField(name, "belongs into the body, not into the query")
		}
	}
	return nil
}

// isField reports whether names lead from one message to the next and to a field.
func isField(message protoreflect.MessageDescriptor, names []string) bool {
	field := message.Fields().ByName(protoreflect.Name(names[0]))
	if field == nil {
		field = message.Fields().ByJSONName(names[0])
	}
	switch {
	case field == nil:
		return false
	case len(names) == 1:
		return true
	}
	return field.Message() != nil && !field.IsList() && isField(field.Message(), names[1:])
}

// openAPI serves the description of the API.
func (*Facade) openAPI(w http.ResponseWriter, _ *http.Request, _ map[string]string) {
	w.Header().Set("Content-Type", mediaJSON)
	w.Header().Set("Content-Length", strconv.Itoa(len(openapi.Document)))
	_, _ = w.Write(openapi.Document) // the asker may be gone
}

// failed answers for grpc-gateway.
func (f *Facade) failed(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if _, probing := r.Context().Value(probeKey{}).(*probe); !probing {
		f.fail(w, err)
	}
}

// refuse answers with an HTTP status of its own.
func (f *Facade) refuse(w http.ResponseWriter, httpStatus int, text string) {
	f.fail(w, &runtime.HTTPStatusError{HTTPStatus: httpStatus, Err: rpc.Refusal(httpStatus, text)})
}

// fail answers with an error: its google.rpc.Status, and the HTTP status of that unless the error has one.
func (f *Facade) fail(w http.ResponseWriter, err error) {
	own := new(runtime.HTTPStatusError)
	if errors.As(err, &own) {
		err = own.Err
	}
	st, _ := rpc.StatusOf(err)
	httpStatus := runtime.HTTPStatusFromCode(st.Code())
	if own.HTTPStatus != 0 {
		httpStatus = own.HTTPStatus
	}
	header := w.Header()
	if delay, ok := retryDelay(st.Details()); ok {
		header.Set("Retry-After", strconv.Itoa(int((delay+time.Second-1)/time.Second)))
	}
	body, err := f.form.Marshal(st.Proto())
	if err != nil {
		body = []byte(`{}`) // a status can always be marshalled
	}
	if httpStatus == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", access.Challenge)
	}
	header.Set("Content-Type", mediaJSON)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(httpStatus)
	_, _ = w.Write(body) // the asker may be gone
}

// retryDelay finds out whether and when to come back.
func retryDelay(details []any) (time.Duration, bool) {
	for _, detail := range details {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return retry.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}

// jsonForm is the JSON form of messages: what linksgate tail --json prints. Members that are not known are refused.
type jsonForm struct{ *runtime.JSONPb }

// Marshal implements [runtime.Marshaler].
func (f jsonForm) Marshal(v any) ([]byte, error) {
	data, err := f.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	// protojson puts spaces where it likes, on purpose.
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return nil, err
	}
	return compact.Bytes(), nil
}

// NewDecoder implements [runtime.Marshaler]. What is read must be one document.
func (f jsonForm) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, new(json.RawMessage)); err != nil {
			return err
		}
		if err := f.JSONPb.NewDecoder(bytes.NewReader(data)).Decode(v); err != nil {
			// protojson puts a space of either kind into its errors, on purpose.
			return errors.New(strings.ReplaceAll(err.Error(), "\u00a0", " "))
		}
		return nil
	})
}
