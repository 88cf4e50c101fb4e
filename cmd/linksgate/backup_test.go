package main

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// A directory that is in use is copied by backup, and by cp: what was accepted before is in the copy, which a gateway goes on with.
func TestCopiesOfARunningGateway(t *testing.T) {
	for name, copyTo := range map[string]func(t *testing.T, dir, to string){
		"backup and restore": func(t *testing.T, dir, to string) {
			backup := filepath.Join(t.TempDir(), "backup")
			for range 2 {
				if out := runs(t, exitOK, "backup", dir, backup); !strings.Contains(out, "segment") {
					t.Errorf("backup says %q", out)
				}
			}
			runs(t, exitOK, "restore", backup, to)
			if code, stderr := execute(t, new(strings.Builder), "restore", backup, to); code != exitUsage || !strings.Contains(stderr, "is not empty") {
				t.Errorf("restored twice: %d %s", code, stderr)
			}
		},
		"cp": func(t *testing.T, dir, to string) {
			if out, err := exec.CommandContext(t.Context(), "cp", "-a", dir, to).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.start(t, rightSecret)
			for n := range 20 {
				s.send(t, "acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body(n), http.StatusOK)
			}
			s.sendUnsigned(t, "acme", "sms-received", "garbage", http.StatusBadRequest)
			to := filepath.Join(t.TempDir(), "restored")
			copyTo(t, s.config.Log.Dir, to)
			s.stop()
			checked := runs(t, exitOK, "doctor", to)
			for _, want := range []string{"log         " + s.serving.LogID + "\n", "20 notifications", "quarantine  1 entry\n"} {
				if !strings.Contains(checked, want) {
					t.Errorf("%q is missing:\n%s", want, checked)
				}
			}
			s.config.Log.Dir = to
			s.start(t, rightSecret)
			s.send(t, "acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, body(20), http.StatusOK)
			s.stop()
			if after := runs(t, exitOK, "doctor", to); !strings.Contains(after, "21 notifications") {
				t.Errorf("after it went on:\n%s", after)
			}
		})
	}
}
