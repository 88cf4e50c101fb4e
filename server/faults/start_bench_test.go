package faults

import (
	"bytes"
	"context"
	bin "encoding/binary"
	"flag"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storagev1 "github.com/linksgate/linksgate/gen/linksgate/storage/v1"
	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/store"
	"github.com/linksgate/linksgate/server/store/disk"
)

var logBytes = flag.Int64("log-bytes", 10<<30, "how large the log is that BenchmarkStart starts a gateway on")

// BenchmarkStart measures how long the binary takes from its start until it is ready, on a large log of small notifications: after an orderly
// stop, and after a kill under load.
func BenchmarkStart(b *testing.B) {
	path, err := buildBinary()
	if err != nil {
		b.Fatal(err)
	}
	g, err := NewGateway(path, b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	fillLog(b, g.settings.LogDir, *logBytes)
	start := func() time.Duration {
		began := time.Now()
		if err := g.Start(context.Background()); err != nil {
			b.Fatal(err, g.Close())
		}
		return time.Since(began)
	}
	driver := &Driver{URL: g.Webhook, Sender: FirstSecrets.Sender(), Connections: 16}
	load := func(count int) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := driver.Run(ctx, count); err != nil {
			b.Fatal(err)
		}
	}
	start()
	for b.Loop() {
		load(500)
		if _, err := g.Stop(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(start().Seconds(), "s/after-a-stop")
		load(500)
		memory, err := g.ResidentBytes()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(memory>>20), "MiB-resident")
		if err := g.Kill(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(start().Seconds(), "s/after-a-kill")
	}
	g.Close()
}

// fillLog stores so many bytes of notifications, in record batches as a busy gateway makes them.
func fillLog(b *testing.B, dir string, size int64) {
	b.Helper()
	const perBatch = 128
	engine, err := disk.Open(b.Context(), disk.Options{Dir: dir, NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	log, err := engine.OpenLog(b.Context(), "log", store.LogOptions{MaxBytes: 2 * size})
	if err != nil {
		b.Fatal(err)
	}
	batch, key := &storagev1.RecordBatch{}, uint64(0)
	for n := range perBatch {
		batch.Notifications = append(batch.Notifications, &linksgatev1.Notification{
			Account: account, Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_DATA_USAGE_ALERT, ReceivedAt: timestamppb.Now(),
			DuplicateKey: make([]byte, 16),
			Raw:          &linksgatev1.Notification_Body{Body: fmt.Sprintf(`{"number":%d,"text":"%s"}`, n, bytes.Repeat([]byte("x"), 300))},
		})
	}
	for written := int64(0); written < size; {
		for _, n := range batch.GetNotifications() {
			key++
			bin.BigEndian.PutUint64(n.GetDuplicateKey(), key)
		}
		data, err := proto.Marshal(batch)
		if err != nil {
			b.Fatal(err)
		}
		written += int64(len(data))
		if _, err := log.Append(b.Context(), data); err != nil {
			b.Fatal(err)
		}
	}
	if err := engine.Close(); err != nil {
		b.Fatal(err)
	}
	if segments, err := filepath.Glob(filepath.Join(dir, "log", "*.seg")); err != nil || len(segments) < int(size>>26) {
		b.Fatal(len(segments), "segments", err)
	}
}
