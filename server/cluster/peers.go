package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// PassedOn is the key of the metadata of calls that another gateway has passed on. The value names the call.
const PassedOn = "linksgate-passed-on"

// Headers of messages between gateways.
const (
	headerMethod  = "Linksgate-Method"
	headerCall    = "Linksgate-Call"    // names the call
	headerStream  = "Linksgate-Stream"  // the answer is a stream
	headerTimeout = "Linksgate-Timeout" // of the call, in milliseconds
	headerNumber  = "Linksgate-Number"  // of a message of the answer, from 1
	headerMore    = "Linksgate-More"    // the next message goes on with this one
	headerEnd     = "Linksgate-End"     // the data is the status
	headerCredit  = "Linksgate-Credit"  // how many messages were taken
	headerCancel  = "Linksgate-Cancel"  // or leave
	statusHeader  = "Status"            // by which NATS says that nobody is there
)

const (
	// window is how many messages of a stream may be under way.
	window = 32
	// chunk is how much of a message of gRPC is in one of NATS.
	chunk = 256 << 10
	// maxCalls is how many calls of others are made at once.
	maxCalls = 4096
	// sign is how often either side of a stream shows that it is there.
	sign = time.Second
)

// peers passes calls on, and makes those that others pass on.
type peers struct {
	conn    *nats.Conn
	subject string // of gateways, with a period at its end
	id      string
	logger  *slog.Logger

	ctx     context.Context // of calls of others
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu            sync.Mutex
	subscriptions []*nats.Subscription      // mu
	controls      map[string]chan *nats.Msg // mu; of streams that are sent, by call
	leaving       map[string]chan struct{}  // mu; closed when a stream is to end as planned, by call
	closed        bool                      // mu
}

func newPeers(conn *nats.Conn, subject, id string, logger *slog.Logger) *peers {
	p := &peers{conn: conn, subject: subject, id: id, logger: logger, controls: make(map[string]chan *nats.Msg), leaving: make(map[string]chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

func (p *peers) serve(local *grpc.ClientConn) error {
	slots := make(chan struct{}, maxCalls)
	calls, err := p.conn.Subscribe(p.subject+p.id+".call", func(m *nats.Msg) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.closed {
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			return // it goes unanswered
		}
		control := make(chan *nats.Msg, 4*window)
		p.controls[m.Header.Get(headerCall)], p.leaving[m.Header.Get(headerCall)] = control, make(chan struct{})
		p.running.Go(func() {
			defer func() { <-slots }()
			defer func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				delete(p.controls, m.Header.Get(headerCall))
				delete(p.leaving, m.Header.Get(headerCall))
			}()
			p.make(local, m, control)
		})
	})
	if err != nil {
		return fmt.Errorf("answer other gateways: %w", err)
	}
	controls, err := p.conn.Subscribe(p.subject+p.id+".control.*", func(m *nats.Msg) {
		p.mu.Lock()
		control := p.controls[m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]]
		p.mu.Unlock()
		select {
		case control <- m:
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("answer other gateways: %w", err)
	}
	p.mu.Lock()
	p.subscriptions = []*nats.Subscription{calls, controls}
	p.mu.Unlock()
	return p.conn.FlushTimeout(2 * time.Second)
}

// close makes others hear that nobody is there, and ends what they have asked for.
func (p *peers) close() {
	p.mu.Lock()
	p.closed = true
	subscriptions := p.subscriptions
	p.mu.Unlock()
	for _, s := range subscriptions {
		_ = s.Unsubscribe()
	}
	_ = p.conn.FlushTimeout(time.Second)
	p.cancel()
	p.running.Wait()
}

// leavingOf returns what is closed when a stream is to end as planned; nil if there is no such call.
func (p *peers) leavingOf(call string) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leaving[call]
}

// outgoing is the answer to one call of another gateway.
type outgoing struct {
	peers   *peers
	call    string
	to      string
	number  uint64
	taken   uint64 // by the other gateway
	control <-chan *nats.Msg
	stream  bool
	heard   time.Time
}

// make makes a call of another gateway on this gateway's own server, and sends what that answers.
func (p *peers) make(local *grpc.ClientConn, m *nats.Msg, control <-chan *nats.Msg) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(p.ctx, PassedOn, m.Header.Get(headerCall)))
	defer cancel()
	if ms, err := strconv.ParseInt(m.Header.Get(headerTimeout), 10, 64); err == nil && ms > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
	}
	o := &outgoing{peers: p, call: m.Header.Get(headerCall), to: m.Reply, control: control, stream: m.Header.Get(headerStream) != "", heard: time.Now()}
	method := m.Header.Get(headerMethod)
	var err error
	if !o.stream {
		err = o.answer(ctx, local, method, m.Data)
	} else {
		err = o.forward(ctx, cancel, local, method, m.Data)
	}
	data, marshalErr := proto.Marshal(status.Convert(err).Proto())
	if marshalErr != nil {
		return
	}
	if err := o.publish(nats.Header{headerEnd: {"1"}}, data); err != nil {
		p.logger.Debug("a call of another gateway not answered", "error", err)
	}
}

// answer makes a call that has one answer, shows signs of life until that is there, and sends it.
func (o *outgoing) answer(ctx context.Context, local *grpc.ClientConn, method string, request []byte) error {
	var answer []byte
	made := make(chan error, 1)
	go func() { made <- local.Invoke(ctx, method, request, &answer, grpc.ForceCodec(raw{})) }()
	ticker := time.NewTicker(sign)
	defer ticker.Stop()
	for {
		select {
		case err := <-made:
			if err != nil {
				return err
			}
			return o.send(ctx, answer)
		case <-ticker.C:
			_ = o.publish(nats.Header{}, nil)
		}
	}
}

// ended is why a stream ended.
type ended struct{ err error }

// forward sends the messages of a stream, and signs of life between them.
func (o *outgoing) forward(ctx context.Context, cancel context.CancelFunc, local *grpc.ClientConn, method string, request []byte) error {
	stream, err := local.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.ForceCodec(raw{}))
	if err == nil {
		err = stream.SendMsg(request)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		return err
	}
	messages, failed := make(chan []byte), make(chan ended, 1)
	go func() {
		for {
			var message []byte
			if err := stream.RecvMsg(&message); err != nil {
				failed <- ended{err}
				return
			}
			select {
			case messages <- message:
			case <-ctx.Done():
				failed <- ended{ctx.Err()}
				return
			}
		}
	}()
	ticker := time.NewTicker(sign)
	defer ticker.Stop()
	for {
		select {
		case message := <-messages:
			err = o.send(ctx, message)
		case end := <-failed:
			if errors.Is(end.err, io.EOF) {
				return nil
			}
			return end.err
		case m := <-o.control:
			if err = o.hear(m); errors.Is(err, ErrLeave) {
				return o.leave(messages, failed, cancel)
			}
		case <-ticker.C:
			if err = o.publish(nats.Header{}, nil); err == nil && time.Since(o.heard) > silence {
				err = ErrLost
			}
		}
		if err != nil {
			cancel()
			<-failed
			return err
		}
	}
}

// leave lets a stream end as planned, for which it has a second.
func (o *outgoing) leave(messages <-chan []byte, failed <-chan ended, cancel context.CancelFunc) error {
	timer := time.AfterFunc(sign, cancel)
	defer timer.Stop()
	close(o.peers.leavingOf(o.call))
	for {
		select {
		case <-messages:
		case <-failed:
			return nil
		}
	}
}

// hear takes note of what the other gateway says.
func (o *outgoing) hear(m *nats.Msg) error {
	o.heard = time.Now()
	switch m.Header.Get(headerCancel) {
	case "":
	case "leave":
		return ErrLeave
	default:
		return context.Canceled
	}
	if taken, err := strconv.ParseUint(m.Header.Get(headerCredit), 10, 64); err == nil {
		o.taken = max(o.taken, taken)
	}
	return nil
}

// send sends a message of gRPC, when the other gateway has room for it.
func (o *outgoing) send(ctx context.Context, message []byte) error {
	for first := true; first || len(message) > 0; first = false {
		part := message[:min(chunk, len(message))]
		message = message[len(part):]
		header := nats.Header{headerNumber: {strconv.FormatUint(o.number+1, 10)}}
		if len(message) > 0 {
			header.Set(headerMore, "1")
		}
		for o.stream && o.number-o.taken >= window {
			select {
			case m := <-o.control:
				if err := o.hear(m); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(sign):
				if err := o.publish(nats.Header{}, nil); err != nil {
					return err
				}
				if time.Since(o.heard) > silence {
					return ErrLost
				}
			}
		}
		if err := o.publish(header, part); err != nil {
			return err
		}
		o.number++
	}
	return nil
}

func (o *outgoing) publish(header nats.Header, data []byte) error {
	return o.peers.conn.PublishMsg(&nats.Msg{Subject: o.to, Header: header, Data: data})
}

// call passes a call on to a peer and gives the messages of its answer to take.
func (p *peers) call(ctx context.Context, peer, method string, request []byte, stream bool, take func([]byte) error) error {
	name, inbox := nuid.Next(), p.conn.NewInbox()
	answers := make(chan *nats.Msg, 8*window)
	subscription, err := p.conn.ChanSubscribe(inbox, answers)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrElsewhere, err)
	}
	defer func() { _ = subscription.Unsubscribe() }()
	header := nats.Header{headerMethod: {method}, headerCall: {name}}
	if stream {
		header.Set(headerStream, "1")
	}
	if deadline, ok := ctx.Deadline(); ok {
		header.Set(headerTimeout, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
	}
	if err := p.conn.PublishMsg(&nats.Msg{Subject: p.subject + peer + ".call", Reply: inbox, Header: header, Data: request}); err != nil {
		return fmt.Errorf("%w: %w", ErrElsewhere, err)
	}
	in := &incoming{peers: p, control: p.subject + peer + ".control." + name, stream: stream, take: take}
	ended, err := in.run(ctx, answers)
	if !ended && stream {
		how := "cancel"
		if errors.Is(context.Cause(ctx), ErrLeave) {
			how = "leave"
		}
		_ = in.say(nats.Header{headerCancel: {how}})
	}
	return err
}

// incoming is the answer of another gateway.
type incoming struct {
	peers   *peers
	control string
	stream  bool
	take    func([]byte) error
	number  uint64
	partial []byte
}

// run takes the answer until its end, which it reports.
func (in *incoming) run(ctx context.Context, answers <-chan *nats.Msg) (ended bool, err error) {
	ticker := time.NewTicker(sign)
	defer ticker.Stop()
	heard := time.Now()
	for {
		select {
		case <-ctx.Done():
			return false, status.FromContextError(ctx.Err()).Err()
		case <-ticker.C:
			if in.stream {
				if err := in.say(nats.Header{headerCredit: {strconv.FormatUint(in.number, 10)}}); err != nil {
					return false, fmt.Errorf("%w: %w", ErrLost, err)
				}
			}
			if time.Since(heard) > silence {
				return false, ErrLost
			}
		case m := <-answers:
			heard = time.Now()
			if ended, err := in.one(m); ended || err != nil {
				return ended, err
			}
		}
	}
}

// one takes a message of the answer.
func (in *incoming) one(m *nats.Msg) (ended bool, err error) {
	switch {
	case m.Header.Get(statusHeader) == "503":
		return true, ErrElsewhere
	case m.Header.Get(headerEnd) != "":
		st := new(spb.Status)
		if err := proto.Unmarshal(m.Data, st); err != nil {
			return true, fmt.Errorf("%w: %w", ErrLost, err)
		}
		return true, status.ErrorProto(st)
	case m.Header.Get(headerNumber) == "":
		return false, nil // a sign of life
	}
	in.number++
	if m.Header.Get(headerNumber) != strconv.FormatUint(in.number, 10) {
		return false, fmt.Errorf("%w: a part of its answer is missing", ErrLost)
	}
	message := m.Data
	if in.partial != nil || m.Header.Get(headerMore) != "" {
		in.partial = append(in.partial, m.Data...)
		message = in.partial
	}
	if m.Header.Get(headerMore) == "" {
		in.partial = nil
		if err := in.take(message); err != nil {
			return false, err
		}
	}
	if in.stream && in.number%(window/4) == 0 {
		return false, in.say(nats.Header{headerCredit: {strconv.FormatUint(in.number, 10)}})
	}
	return false, nil
}

func (in *incoming) say(header nats.Header) error {
	return in.peers.conn.PublishMsg(&nats.Msg{Subject: in.control, Header: header})
}

// raw is a codec of marshalled messages.
type raw struct{}

// Marshal implements [encoding.Codec].
func (raw) Marshal(v any) ([]byte, error) {
	if data, ok := v.([]byte); ok {
		return data, nil
	}
	return nil, fmt.Errorf("%T is not a marshalled message", v)
}

// Unmarshal implements [encoding.Codec].
func (raw) Unmarshal(data []byte, v any) error {
	to, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("%T does not take a marshalled message", v)
	}
	*to = append([]byte{}, data...)
	return nil
}

// Name implements [encoding.Codec].
func (raw) Name() string { return "proto" }
