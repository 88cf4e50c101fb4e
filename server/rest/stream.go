package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/rpc"
)

// A subscription over HTTP is its frames in one of two forms: NDJSON, a line each, or SSE, an event each. An event source in a
// browser comes back by itself, with the id of the last event, which is the resume token. It does so for ever, unless it is
// answered with anything but 200: so what has ended a stream for good must be told by a status when it comes back, and what
// passes must not be. See [frames.begin].

const (
	sseRetry      = time.Second            // when an event source comes back, unless told otherwise
	lookAheadTime = 500 * time.Millisecond // how long the answer to one that comes back may be held
	writeChunk    = 64 << 10               // what a client must read within the send timeout
)

// subscribe serves a subscription until it ends or the client is gone.
func (f *Facade) subscribe(w http.ResponseWriter, r *http.Request, _ map[string]string) {
	events := negotiate(r.Header, []string{mediaNDJSON, mediaSSE}) == mediaSSE
	request, err := subscribeRequest(r)
	if err != nil {
		f.fail(w, err)
		return
	}
	last := r.Header.Get("Last-Event-Id")
	returning := events && last != ""
	switch {
	case returning && !utf8.ValidString(last):
		f.refuse(w, http.StatusBadRequest, "Last-Event-ID is not valid UTF-8")
		return
	case returning:
		request.Start = &linksgatev1.Start{Position: &linksgatev1.Start_After{After: last}}
	}

	var receiving sync.WaitGroup
	defer receiving.Wait()
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(r.Context(), callerIn(r.Context()))) // ends when the client is gone
	defer cancel()
	stream, err := f.notifications.Subscribe(ctx, request)
	if err != nil {
		f.fail(w, err)
		return
	}
	in := frames{ctx: ctx, received: make(chan received)}
	receiving.Go(func() { in.receive(stream) })

	out := &streamWriter{w: w, connection: http.NewResponseController(w), form: f.form, timeout: f.sendTimeout, events: events}
	first, err := in.begin(returning, request.GetUntil() != nil)
	switch {
	case returning && isTemporary(err):
		out.end(err)
		return
	case err != nil:
		f.fail(w, err)
		return
	case returning && first[len(first)-1].GetClosing().GetReason() == linksgatev1.ClosingReason_CLOSING_REASON_COMPLETED:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	for _, frame := range first {
		out.frame(frame)
	}
	for out.err == nil {
		frame, err := in.next(nil)
		if err != nil {
			out.end(err)
			return
		}
		out.frame(frame)
	}
}

// subscribeRequest reads a request from a query.
func subscribeRequest(r *http.Request) (*linksgatev1.SubscribeRequest, error) {
	request := new(linksgatev1.SubscribeRequest)
	call, _ := r.Context().Value(restCallKey{}).(restCall)
	if err := call.checkQuery(request.ProtoReflect().Descriptor()); err != nil {
		return nil, err
	}
	if err := runtime.PopulateQueryParameters(request, call.query, utilities.NewDoubleArray(nil)); err != nil {
		return nil, rpc.Refusal(http.StatusBadRequest, err.Error())
	}
	return request, nil
}

// isTemporary reports whether an error says when to come back.
func isTemporary(err error) bool {
	if err == nil {
		return false
	}
	st, _ := rpc.StatusOf(err)
	_, temporary := retryDelay(st.Details())
	return temporary
}

// frames are what a subscription gets.
type frames struct {
	ctx      context.Context // of the subscription
	received chan received
}

// received is a frame, or what ended the stream.
type received struct {
	frame *linksgatev1.SubscribeResponse
	err   error
}

// receive passes everything on until the stream or ctx ends.
func (in frames) receive(stream linksgatev1.NotificationService_SubscribeClient) {
	for {
		frame, err := stream.Recv()
		select {
		case in.received <- received{frame, err}:
		case <-in.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

var errNotYet = errors.New("no frame in time")

// next returns the next frame, or what ended the stream, or errNotYet when timeout comes first.
func (in frames) next(timeout <-chan time.Time) (*linksgatev1.SubscribeResponse, error) {
	select {
	case r := <-in.received:
		return r.frame, r.err
	case <-in.ctx.Done():
		return nil, in.ctx.Err()
	case <-timeout:
		return nil, errNotYet
	}
}

// begin returns the first frame, or the error in its place. For an event source that comes back it looks further, for as long
// as that does not take long: past Confirmed, which an error may follow that will be there each time it comes back, and up to
// Closing, if the stream has an end that may have been reached before.
func (in frames) begin(returning, ends bool) ([]*linksgatev1.SubscribeResponse, error) {
	frame, err := in.next(nil)
	if err != nil {
		return nil, err
	}
	first := []*linksgatev1.SubscribeResponse{frame}
	if !returning {
		return first, nil
	}
	timer := time.NewTimer(lookAheadTime)
	defer timer.Stop()
	for {
		frame, err := in.next(timer.C)
		switch {
		case errors.Is(err, errNotYet):
			return first, nil
		case err != nil:
			return nil, err
		}
		first = append(first, frame)
		if !ends || frame.GetCaughtUp() == nil {
			return first, nil
		}
	}
}

// streamWriter writes frames, each at once. After the first failure it does nothing.
type streamWriter struct {
	w          http.ResponseWriter
	connection *http.ResponseController
	form       jsonForm
	timeout    time.Duration // how long a client may not read
	events     bool          // SSE, else NDJSON
	begun      bool
	announced  bool // a planned end was, with a time to come back
	err        error
}

func (o *streamWriter) frame(frame *linksgatev1.SubscribeResponse) {
	data, err := o.form.Marshal(frame)
	switch {
	case err != nil:
		o.end(err)
		o.err = err
	case !o.events:
		o.write(append(data, '\n'))
	case frame.GetHeartbeat() != nil:
		// No event, but an id: a reader whose filter matches nothing gets on all the same.
		o.write(fmt.Appendf(nil, ": heartbeat\nid: %s\n\n", frame.GetToken()))
	default:
		var event bytes.Buffer
		if reconnect := frame.GetClosing().GetReconnectAfter(); reconnect != nil {
			fmt.Fprintf(&event, "retry: %d\n", reconnect.AsDuration().Milliseconds())
			o.announced = true
		}
		fmt.Fprintf(&event, "event: %s\nid: %s\ndata: %s\n\n", frameName(frame), frame.GetToken(), data)
		o.write(event.Bytes())
	}
}

// frameName is the name of a frame in the JSON form.
func frameName(frame *linksgatev1.SubscribeResponse) string {
	message := frame.ProtoReflect()
	var name string
	message.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if field.ContainingOneof() != nil {
			name = field.JSONName()
		}
		return name == ""
	})
	return name
}

// end tells what ended the stream, unless it ended as planned or nobody is there to be told.
func (o *streamWriter) end(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return
	}
	st, _ := rpc.StatusOf(err)
	data, err := o.form.Marshal(st.Proto())
	if err != nil {
		return
	}
	if !o.events {
		o.write(fmt.Appendf(nil, "{\"error\":%s}\n", data))
		return
	}
	var event bytes.Buffer
	// This delay is the same for all clients; the one that came with the announcement of the end spreads them.
	if delay, ok := retryDelay(st.Details()); ok && !o.announced {
		fmt.Fprintf(&event, "retry: %d\n", delay.Milliseconds())
	}
	fmt.Fprintf(&event, "event: error\ndata: %s\n\n", data)
	o.write(event.Bytes())
}

func (o *streamWriter) write(data []byte) {
	if !o.begun {
		o.begun = true
		header := o.w.Header()
		header.Set("Content-Type", mediaNDJSON)
		header.Set("X-Accel-Buffering", "no") // nginx would wait until it has a few pages
		if o.events {
			header.Set("Content-Type", mediaSSE)
			data = append(fmt.Appendf(nil, "retry: %d\n", sseRetry.Milliseconds()), data...)
		}
	}
	for len(data) > 0 && o.err == nil {
		n := min(len(data), writeChunk)
		_ = o.connection.SetWriteDeadline(time.Now().Add(o.timeout))
		_, o.err = o.w.Write(data[:n])
		data = data[n:]
	}
	if o.err == nil {
		o.err = o.connection.Flush()
	}
	_ = o.connection.SetWriteDeadline(time.Time{}) // HTTP/2 would end a stream that is only quiet
}
