package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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
)

// boundless is a number of bytes that nothing reaches.
const boundless = 1 << 50

// streamNames are the streams of a log, the log itself first.
var streamNames = []string{streamName, quarantineStream, groupsStream, parkedStream}

// engine is a connection to JetStream, and the server behind it when that is embedded.
type engine struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	server *natsserver.Server // nil when external
	lock   *os.File           // nil when external

	dir     string // empty when external
	minFree int64
	names   map[string]*nameSync // by stream; empty when external
	flaws   []flaw               // of the files, as they were found
	// lostPlaces are those of groups whose files were damaged, or damaged earlier and not made anew.
	lostPlaces []groupPlace
	cut        bool                      // the engine has cut off records of the log when it opened them
	stored     map[string]*atomic.Uint64 // by stream: the last sequence that is known to be stored

	broken context.Context // ends when the embedded server says that it cannot write any more; the cause is what it said
	giveUp context.CancelCauseFunc
}

func openEngine(ctx context.Context, options Options) (*engine, error) {
	if options.URL != "" {
		return connectEngine(options)
	}
	return embedEngine(ctx, options)
}

func connectEngine(options Options) (*engine, error) {
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
	return newEngine(conn, &engine{broken: context.Background()})
}

func embedEngine(ctx context.Context, options Options) (*engine, error) {
	if err := makeDir(options.Dir); err != nil {
		return nil, fmt.Errorf("create the data directory: %w", err)
	}
	lock, err := lockDir(options.Dir)
	if err != nil {
		return nil, err
	}
	e := &engine{lock: lock, dir: options.Dir, minFree: options.MinFree}
	e.broken, e.giveUp = context.WithCancelCause(context.Background())
	files, err := settleFiles(ctx, options.Dir, options.Logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bring %s to a state to go on from: %w", options.Dir, err), e.close())
	}
	e.flaws, e.lostPlaces = files.flaws, files.lostPlaces
	e.server, err = natsserver.NewServer(&natsserver.Options{
		ServerName:             "linksgate",
		DontListen:             true,
		NoSigs:                 true,
		JetStream:              true,
		DisableJetStreamBanner: true,
		StoreDir:               options.Dir,
		SyncAlways:             !options.NoSync,
		JetStreamMaxMemory:     256 << 20, // readers' ephemeral consumers only
		// The streams have their own bounds, and may have to be opened with larger ones than they are to get.
		JetStreamMaxStore: boundless,
		// A consumer for each group and each reader behind the window; both are bounded elsewhere.
		JetStreamLimits: natsserver.JSLimitOpts{DefaultMaxConsumers: -1},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("configure the embedded NATS server: %w", err), e.close())
	}
	e.server.SetLoggerV2(engineLogger{options.Logger, e.giveUp}, false, false, false)
	e.server.Start()
	if err := e.awaitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", options.Dir, err), e.close())
	}
	e.cut = files.reportCut(options.Logger)
	conn, err := nats.Connect("", nats.InProcessServer(e.server), nats.Name("linksgate"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to the embedded NATS server: %w", err), e.close())
	}
	if !options.NoSync {
		e.names = make(map[string]*nameSync)
		for _, stream := range streamNames {
			e.names[stream] = &nameSync{dir: recordsPath(options.Dir, stream)}
		}
	}
	return newEngine(conn, e)
}

// awaitReady waits until the embedded server has opened its streams, however long it takes to read them, or has given up.
func (e *engine) awaitReady(ctx context.Context) error {
	for !e.server.ReadyForConnections(50 * time.Millisecond) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if cause := context.Cause(e.broken); cause != nil {
			return cause
		}
		if !e.server.Running() {
			return errors.New("the log engine ended; its log lines say why")
		}
	}
	if !e.server.JetStreamEnabled() {
		return errors.Join(errors.New("the log engine did not start its store"), context.Cause(e.broken))
	}
	return nil
}

func newEngine(conn *nats.Conn, e *engine) (*engine, error) {
	e.conn, e.stored = conn, make(map[string]*atomic.Uint64)
	for _, stream := range streamNames {
		e.stored[stream] = new(atomic.Uint64)
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(10*time.Second))
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	e.js = js
	return e, nil
}

// publish stores one message, within publishTimeout.
func (e *engine) publish(ctx context.Context, msg *nats.Msg, options ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	// A server that cannot write any more does not answer.
	defer context.AfterFunc(e.broken, cancel)()
	ack, err := e.js.PublishMsg(ctx, msg, options...)
	if cause := context.Cause(e.broken); cause != nil && err != nil {
		return nil, cause
	}
	if err != nil {
		return nil, err
	}
	if names := e.names[ack.Stream]; names != nil {
		if err := names.sync(); err != nil {
			return nil, fmt.Errorf("sync the names of the log's files: %w", err)
		}
	}
	if stored := e.stored[ack.Stream]; stored != nil {
		raise(stored, ack.Sequence)
	}
	return ack, nil
}

// raise makes a number at least as great as another one.
func raise(number *atomic.Uint64, least uint64) {
	for old := number.Load(); old < least && !number.CompareAndSwap(old, least); old = number.Load() {
	}
}

// lastStored returns the last sequence of a stream that this process knows to be stored; 0 if it has stored nothing.
func (e *engine) lastStored(stream string) uint64 { return e.stored[stream].Load() }

// syncNames makes the directories of the streams durable, from the records up to the data directory.
func (e *engine) syncNames() error {
	for _, names := range e.names {
		if err := syncDirs(names.dir, filepath.Dir(e.dir)); err != nil {
			return fmt.Errorf("sync the directories of the log: %w", err)
		}
	}
	return nil
}

// embedded reports whether the engine is part of this process.
func (e *engine) embedded() bool { return e.server != nil }

// close shuts the engine down, flushing what it has. It waits for the embedded server to end: leaving it running would leave
// its files open under the next process's feet.
func (e *engine) close() error {
	if e.conn != nil {
		e.conn.Close()
	}
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
	if e.lock != nil {
		return e.lock.Close()
	}
	return nil
}

// openStream opens or creates the log's stream and returns the log's id.
func openStream(ctx context.Context, e *engine, options Options, m *marker) (jetstream.Stream, logID, error) {
	config := jetstream.StreamConfig{
		Name:        streamName,
		Description: "Linksgate notifications, in record batches",
		Subjects:    []string{subject, releasedSubject + "*"},
		MaxAge:      options.MaxAge,
		MaxBytes:    options.MaxBytes,
		Replicas:    options.Replicas,
		Metadata:    map[string]string{logIDKey: newLogID().String()},
	}
	if m != nil {
		return m.openStream(ctx, e, config)
	}
	return openWithID(ctx, e.js, config)
}

// openWithID opens or creates a stream that has a log id.
func openWithID(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) (jetstream.Stream, logID, error) {
	stream, err := openOrCreate(ctx, js, config)
	if err != nil {
		return nil, logID{}, err
	}
	id, err := parseLogID(stream.CachedInfo().Config.Metadata[logIDKey])
	if err != nil {
		return nil, logID{}, fmt.Errorf("stream %s is not a Linksgate log: %w", streamName, err)
	}
	return stream, id, nil
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

// engineLogger passes on what the embedded server logs. Its notices are about a server that nobody else can see, so they
// are debug lines here. It also listens for the server's last words: that it cannot write any more is told nowhere else.
type engineLogger struct {
	logger *slog.Logger
	broken context.CancelCauseFunc
}

// lastWords occur in what the server logs when it gives up writing.
var lastWords = []string{"ritical write error", "will be DISABLED"}

func (l engineLogger) log(level slog.Level, format string, v []any) {
	if l.logger.Enabled(context.Background(), level) {
		l.logger.Log(context.Background(), level, "log engine", "message", fmt.Sprintf(format, v...))
	}
}

func (l engineLogger) Noticef(format string, v ...any) { l.log(slog.LevelDebug, format, v) }
func (l engineLogger) Warnf(format string, v ...any)   { l.log(slog.LevelWarn, format, v) }
func (l engineLogger) Debugf(format string, v ...any)  { l.log(slog.LevelDebug, format, v) }
func (l engineLogger) Tracef(format string, v ...any)  { l.log(slog.LevelDebug, format, v) }

func (l engineLogger) Errorf(format string, v ...any) {
	l.log(slog.LevelError, format, v)
	text := fmt.Sprintf(format, v...)
	if slices.ContainsFunc(lastWords, func(words string) bool { return strings.Contains(text, words) }) {
		l.broken(fmt.Errorf("the log engine gave up: %s", text))
	}
}

// Fatalf is where a server would end its process.
func (l engineLogger) Fatalf(format string, v ...any) {
	l.log(slog.LevelError, format, v)
	l.broken(fmt.Errorf("the log engine gave up: %s", fmt.Sprintf(format, v...)))
}
