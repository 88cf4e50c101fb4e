package eventlog

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/linksgate/linksgate/server/store"
)

const (
	streamName = "LINKSGATE_NOTIFICATIONS"
	subject    = "linksgate.notifications"
	// releasedSubject, with the sequence of a quarantine entry, is the subject of what was released from it.
	releasedSubject = subject + ".released."
	allSubjects     = "linksgate.>"
	logIDKey        = "linksgate-log-id" // in the stream's metadata

	// duplicateWindow is how long the engine remembers the id of a message, so that publishing one again after a lost
	// acknowledgement does not store it twice. It must exceed the time that the writer goes on trying.
	duplicateWindow = time.Minute
	// publishTimeout is how long one try to store a message may take, and publishTries how many there are.
	publishTimeout = 5 * time.Second
	publishTries   = 2
)

// engine is the backend of a log on a NATS cluster: a connection to JetStream.
type engine struct {
	options Options
	conn    *nats.Conn
	js      jetstream.JetStream
	stream  jetstream.Stream // of the log
}

// connectNATS connects to a cluster.
func connectNATS(options Options) (*engine, error) {
	opts := []nats.Option{
		nats.Name("linksgate"),
		nats.MaxReconnects(-1),
		nats.NoEcho(),             // peers talk to others, not to themselves
		nats.ReconnectBufSize(-1), // a publish while disconnected fails at once: nothing may seem stored that is not
	}
	if options.Credentials != "" {
		opts = append(opts, nats.UserCredentials(options.Credentials))
	}
	conn, err := nats.Connect(options.URL, opts...)
	var badURL *url.Error
	switch {
	case errors.As(err, &badURL): // it quotes the URL, which may hold a password
		return nil, errors.New("connect to NATS: not a URL such as nats://host:4222")
	case err != nil:
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(10*time.Second))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &engine{options: options, conn: conn, js: js}, nil
}

// publish stores one message, within publishTimeout.
func (e *engine) publish(ctx context.Context, msg *nats.Msg, options ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return e.js.PublishMsg(ctx, msg, options...)
}

// openErasures implements [backend]: what a stream has cannot be replaced.
func (e *engine) openErasures(context.Context, *Log) error { return nil }

func (e *engine) writable() error         { return nil }
func (e *engine) failed() <-chan struct{} { return nil }
func (e *engine) cause() error            { return nil }

func (e *engine) close() error {
	e.conn.Close()
	return nil
}

// openLog opens or creates the log's stream.
func (e *engine) openLog(ctx context.Context) (store.Log, logID, error) {
	stream, err := openOrCreate(ctx, e.js, jetstream.StreamConfig{
		Name:        streamName,
		Description: "Linksgate notifications, in record batches",
		Subjects:    []string{subject, releasedSubject + "*"},
		MaxAge:      e.options.MaxAge,
		MaxBytes:    e.options.MaxBytes,
		Replicas:    e.options.Replicas,
		Metadata:    map[string]string{logIDKey: newLogID().String()},
	})
	if err != nil {
		return nil, logID{}, err
	}
	id, err := parseLogID(stream.CachedInfo().Config.Metadata[logIDKey])
	if err != nil {
		return nil, logID{}, fmt.Errorf("stream %s is not a Linksgate log: %w", streamName, err)
	}
	e.stream = stream
	l, err := newStreamLog(e, id.String())
	return l, id, err
}

// openOrCreate opens a stream, or creates it, and brings its retention up to date. The other settings of a stream that exists,
// its metadata in particular, stay.
func openOrCreate(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (jetstream.Stream, error) {
	want.Storage = jetstream.FileStorage
	want.Retention = jetstream.LimitsPolicy
	want.Duplicates = duplicateWindow
	stream, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another replica was faster
			stream, err = js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", want.Name, err)
	}
	have := stream.CachedInfo().Config
	if have.MaxAge == want.MaxAge && have.MaxBytes == want.MaxBytes && have.Replicas == want.Replicas {
		return stream, nil
	}
	have.MaxAge, have.MaxBytes, have.Replicas = want.MaxAge, want.MaxBytes, want.Replicas
	if stream, err = js.UpdateStream(ctx, have); err != nil {
		return nil, fmt.Errorf("set the retention of stream %s: %w", want.Name, err)
	}
	return stream, nil
}
