package eventlog

import (
	"context"
	"encoding/base32"
	"strings"

	"github.com/linksgate/linksgate/server/store"
	"github.com/linksgate/linksgate/server/store/disk"
)

// tables is the backend of a log on this machine's disk: the log, and tables beside it.
type tables struct {
	options Options
	engine  store.Engine
	groups  *tableGroups // nil until they are opened
}

func openTables(ctx context.Context, options Options) (*tables, error) {
	engine, err := disk.Open(ctx, disk.Options{
		Dir: options.Dir, NoSync: options.NoSync, MinFree: options.MinFree, Logger: options.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &tables{options: options, engine: engine}, nil
}

func (t *tables) openLog(ctx context.Context) (store.Log, logID, error) {
	l, err := t.engine.OpenLog(ctx, "log", store.LogOptions{MaxAge: t.options.MaxAge, MaxBytes: t.options.MaxBytes})
	if err != nil {
		return nil, logID{}, err
	}
	return l, shortID(l.ID()), nil
}

// shortID is the part of a store's log id that names the log here.
func shortID(long string) (id logID) {
	raw, err := base32.HexEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(long))
	if err == nil {
		copy(id[:], raw)
	}
	return id
}

func (t *tables) openQuarantine(ctx context.Context, l *Log) (quarantineStore, error) {
	kv, err := t.engine.OpenKV(ctx, "quarantine", store.KVOptions{MaxAge: t.options.QuarantineAge, MaxBytes: t.options.QuarantineBytes})
	if err != nil {
		return nil, err
	}
	return openQuarantineTable(ctx, l, kv)
}

func (t *tables) openGroups(ctx context.Context, l *Log) (Groups, error) {
	records, err := t.engine.OpenKV(ctx, "groups", store.KVOptions{})
	if err != nil {
		return nil, err
	}
	parked, err := t.engine.OpenKV(ctx, "parked", store.KVOptions{MaxAge: t.options.ParkedAge, MaxBytes: t.options.ParkedBytes})
	if err != nil {
		return nil, err
	}
	t.groups, err = openTableGroups(ctx, l, records, parked)
	return t.groups, err
}

func (t *tables) writable() error         { return t.engine.Writable() }
func (t *tables) failed() <-chan struct{} { return t.engine.Failed() }
func (t *tables) cause() error            { return t.engine.Err() }

func (t *tables) close() error {
	if t.groups != nil {
		t.groups.background.Wait()
	}
	return t.engine.Close()
}
