package faults

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// testFlippedBytes flips one byte in each file of a data directory, one file at a time, each in a fresh copy. What was hit may be
// lost, if doctor or a gap says so. Nothing else may be, then or when the process is killed after it has taken more, and the gateway
// must start.
func testFlippedBytes(t *testing.T, r *rand.Rand) {
	s := newSceneWith(t, Options{}, roundTimeout)
	s.driver.Connections, s.driver.BodyBytes = roundConnections, 4<<10
	stop := s.drive(1500) // more than one file of records
	s.awaitDriven(1500, stop)
	stop = s.load()
	s.mistake(r)
	stop()
	parked := s.park(20)
	_, err := s.gateway.Stop()
	s.must(err)
	sound := s.gateway.settings.LogDir
	report, err := s.gateway.Examine()
	s.must(err)
	if report.Damaged {
		t.Fatalf("doctor finds damage in a sound directory:\n%s", report.Text)
	}
	for _, file := range filesIn(t, sound) {
		t.Run(file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(sound, file))
			if err != nil {
				t.Fatal(err)
			}
			if len(data) == 0 {
				t.Skip("it is empty")
			}
			offset, where := anOffset(r, data)
			t.Log(where)
			s.flip(t, r, sound, file, offset, parked)
		})
	}
}

// flip changes one byte of one file in a copy of a directory, in which so many notifications are parked, and checks what a gateway
// makes of it.
func (s *scene) flip(t *testing.T, r *rand.Rand, sound, file string, offset, parked int) {
	mask := byte(1 + r.IntN(255))
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(dir, os.DirFS(sound)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("byte %d of %d, changed by %#x", offset, len(data), mask)
	data[offset] ^= mask
	if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
		t.Fatal(err)
	}
	gateway := *s.gateway
	gateway.settings.LogDir, gateway.output = dir, &output{}
	one := &scene{
		t: t, ctx: s.ctx, stop: func() {}, gateway: &gateway,
		driver: &Driver{URL: gateway.Webhook, Sender: s.driver.Sender, Connections: roundConnections},
	}
	one.driver.last.Store(s.driver.last.Load())
	one.must(gateway.Accept(gateway.settings.secrets...))
	one.reported, err = gateway.Examine()
	one.must(err)
	t.Logf("doctor says:\n%s", one.reported.Text)
	defer func() {
		output := gateway.Close()
		if t.Failed() {
			t.Logf("the gateway printed:\n%s", output)
		}
	}()
	one.must(gateway.Start(one.ctx))
	const more = 100
	one.awaitDriven(more, one.drive(more))
	stop := one.load()
	one.mistake(r)
	stop()
	one.must(gateway.Kill())
	one.must(gateway.Start(one.ctx))
	// An entry that is damaged cannot be released, and says so.
	if out, err := gateway.Release(); err != nil && !one.reported.Quarantine {
		t.Fatal(err, out)
	}
	if got := one.parked(); got < parked-one.reported.Parked && !one.reported.Groups {
		t.Errorf("%d notifications are parked, there were %d, of which %d are reported to be lost", got, parked, one.reported.Parked)
	}
	log, err := ReadLog(one.ctx, gateway.GRPC)
	one.must(err)
	t.Logf("%d in the log, gaps %v", len(log.Notifications), log.Missing)
	history := History{Sent: append(s.driver.Sent(), one.driver.Sent()...), Log: log, Reported: one.reported}
	if len(log.Gaps) > 0 {
		history.Reported.Damaged = true
	}
	violations := Check(history)
	if len(violations) > 0 {
		t.Errorf("%d violations:\n%s", len(violations), Summary(violations))
	}
	_, err = gateway.Stop()
	one.must(err)
}

const workers = "workers" // a group

// park parks some notifications, and returns how many.
func (s *scene) park(count int32) int {
	s.t.Helper()
	client, err := dial(s.gateway.GRPC)
	s.must(err)
	defer func() { _ = client.Close() }()
	groups := linksgatev1.NewWorkerServiceClient(client)
	_, err = linksgatev1.NewGroupServiceClient(client).CreateGroup(s.ctx, &linksgatev1.CreateGroupRequest{
		Group: &linksgatev1.Group{Name: workers}, Start: &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}},
	})
	s.must(err)
	fetched, err := groups.Fetch(s.ctx, &linksgatev1.FetchRequest{GroupName: workers, ClientName: "test", MaxLeases: count})
	s.must(err)
	reject := &linksgatev1.RejectRequest{GroupName: workers}
	for _, lease := range fetched.GetLeases() {
		reject.Rejections = append(reject.Rejections, &linksgatev1.LeaseRejection{LeaseToken: lease.GetLeaseToken(), Action: &linksgatev1.LeaseRejection_Park{Park: true}})
	}
	_, err = groups.Reject(s.ctx, reject)
	s.must(err)
	var parked int
	s.must(Await(s.ctx, "all are parked", func() bool { parked = s.parked(); return parked == len(reject.GetRejections()) }))
	if parked == 0 {
		s.t.Fatal("nothing is parked")
	}
	return parked
}

// parked counts what is parked.
func (s *scene) parked() int {
	s.t.Helper()
	client, err := dial(s.gateway.GRPC)
	s.must(err)
	defer func() { _ = client.Close() }()
	listed, err := linksgatev1.NewGroupServiceClient(client).ListParked(s.ctx, &linksgatev1.ListParkedRequest{GroupName: workers, PageSize: 1000})
	if code := status.Code(err); s.reported.Groups && (code == codes.NotFound || code == codes.DataLoss) {
		return 0
	}
	s.must(err)
	return len(listed.GetParked())
}

// anOffset returns an offset in a file, and says of what kind: anywhere, or in the head of an entry, which is what finds the next one.
func anOffset(r *rand.Rand, data []byte) (offset int, where string) {
	const headBytes, headSign, signAt = 48, 0xE7, 43
	var heads []int
	for at := 0; at+headBytes <= len(data); at += 8 {
		if data[at+signAt] == headSign {
			heads = append(heads, at)
		}
	}
	if len(heads) == 0 || r.IntN(2) == 0 {
		return r.IntN(len(data)), "anywhere"
	}
	head, within := r.IntN(len(heads)), r.IntN(headBytes)
	return heads[head] + within, fmt.Sprintf("byte %d of head %d of %d", within, head, len(heads))
}

// filesIn returns the files below a directory, by their paths in it.
func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
