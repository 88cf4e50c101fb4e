package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

func TestDoctor(t *testing.T) {
	s := newSite(t)
	s.start(t, rightSecret)
	for n := range 5 {
		s.send(t, "acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body(n), http.StatusOK)
	}
	s.sendUnsigned(t, "acme", "sms-received", "garbage", http.StatusBadRequest)
	dir := s.config.Log.Dir
	if used := runs(t, exitOK, "doctor", dir); !strings.Contains(used, "5 notifications in 5 record batches") {
		t.Errorf("of a gateway that runs:\n%s", used)
	}
	s.stop()

	sound := runs(t, exitOK, "doctor", dir)
	for _, want := range []string{"log         " + s.serving.LogID + "\n", "5 notifications in 5 record batches, 1 to 5, written 2", "quarantine  1 entry\n", "\nno problem was found\n"} {
		if !strings.Contains(sound, want) {
			t.Errorf("of a sound log, %q is missing:\n%s", want, sound)
		}
	}

	block := filepath.Join(dir, "log", "00000000000000000001.seg")
	data, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	third := strings.Index(string(data), `"n":2}`)
	data[third] ^= 1
	if err := os.WriteFile(block, data, 0o600); err != nil {
		t.Fatal(err)
	}
	const time = `20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ`
	want := regexp.MustCompile(`^log, record batch 3, log/0+1.seg: an entry does not match its checksum
  written  between ` + time + ` and ` + time + `
  meaning  lost: readers are told of a gap. Everything before and behind it is read
log         [a-z0-9]+
read        4 notifications in 4 record batches, 1 to 5, written ` + time + ` to ` + time + `
quarantine  1 entry
groups      0, with 0 notifications parked or to be replayed
1 problem found
$`)
	if damaged := runs(t, exitFailure, "doctor", dir); !want.MatchString(damaged) {
		t.Errorf("of a damaged log:\n%s", damaged)
	}
	lines := strings.Split(strings.TrimSpace(runs(t, exitFailure, "doctor", "--json", dir)), "\n")
	var problem problemJSON
	var summary summaryJSON
	if len(lines) != 2 || json.Unmarshal([]byte(lines[0]), &problem) != nil || json.Unmarshal([]byte(lines[1]), &summary) != nil {
		t.Fatalf("as JSON: %q", lines)
	}
	if problem.Store != "log" || problem.First != 3 || problem.Last != 3 ||
		problem.After == nil || problem.Before == nil || !problem.After.Before(*problem.Before) {
		t.Errorf("%+v", problem)
	}
	if summary.Batches != 4 || summary.Problems != 1 || summary.LogID != s.serving.LogID || summary.QuarantineEntries != 1 {
		t.Errorf("%+v", summary)
	}
}
