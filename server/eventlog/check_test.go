package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

const (
	checkedBatches = 200 // in three blocks
	checkedEntries = 20  // of which one was removed
)

// dataDirs makes the directories of one log: as a stop leaves it, and as the end of the process leaves it.
func dataDirs(t *testing.T) (stopped, killed string) {
	t.Helper()
	stopped, killed = filepath.Join(t.TempDir(), "stopped"), filepath.Join(t.TempDir(), "killed")
	l := openLog(t, Options{Dir: stopped, NoSync: true})
	early, err := os.ReadFile(filepath.Join(stopped, markFile))
	if err != nil {
		t.Fatal(err)
	}
	for n := range checkedBatches {
		body := fmt.Sprintf(`{"n":%d,"pad":%q}`, n, strings.Repeat("x", 100<<10))
		mustAppend(t, l, &linksgatev1.Notification{
			Account: "acme", Kind: linksgatev1.Kind_KIND_CUBE, Raw: &linksgatev1.Notification_Body{Body: body}, ContentDigest: digestOf(body),
		})
	}
	addEntries(t, l.Quarantine(), checkedEntries)
	if err := l.Quarantine().Remove(t.Context(), l.Quarantine().id(7)); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, l, groupRecord("a", Cursor{Stream: 1}))
	record, err := l.Get(t.Context(), Position{Stream: 1})
	if err != nil {
		t.Fatal(err)
	}
	mustPark(t, l, "a", record)
	copyDir(t, stopped, killed)
	// On a slow machine some of it would be confirmed by now; a process that is killed early has confirmed nothing.
	if err := os.WriteFile(filepath.Join(killed, markFile), early, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return stopped, killed
}

// copyDir copies a directory, which may be in use: a file that goes away meanwhile is left out, as it would be a moment later.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(from), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(to, path), 0o700)
		}
		data, err := os.ReadFile(filepath.Join(from, path))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tree returns the contents of all files in a directory, by name.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			files[path] = "directory"
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = digestOf(string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// check checks a directory, and requires that this leaves it as it was.
func check(t *testing.T, dir string) (Summary, []Problem) {
	t.Helper()
	before := tree(t, dir)
	var problems []Problem
	scratch := t.TempDir()
	summary, err := Check(t.Context(), dir, CheckOptions{Scratch: scratch, Report: func(p Problem) { problems = append(problems, p) }})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("the directory was changed:\n%s", diff)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) != 0 {
		t.Errorf("left in the scratch directory: %v %v", left, err)
	}
	if summary.Problems != len(problems) {
		t.Errorf("%d problems were counted, %d reported", summary.Problems, len(problems))
	}
	return summary, problems
}

func TestCheckOfASoundLog(t *testing.T) {
	stopped, killed := dataDirs(t)
	for name, dir := range map[string]string{"stopped": stopped, "killed": killed} {
		t.Run(name, func(t *testing.T) {
			summary, problems := check(t, dir)
			if len(problems) != 0 {
				t.Errorf("problems: %+v", problems)
			}
			if summary.Batches != checkedBatches || summary.Notifications != checkedBatches || summary.QuarantineEntries != checkedEntries-1 ||
				summary.FirstSequence != 1 || summary.LastSequence != checkedBatches || summary.FirstWritten.IsZero() ||
				!summary.FirstWritten.Before(summary.LastWritten) || summary.LogID == "" {
				t.Errorf("summary %+v", summary)
			}
			l := openLog(t, Options{Dir: dir})
			if l.ID() != summary.LogID {
				t.Errorf("log id %s, want %s", summary.LogID, l.ID())
			}
			checkStored(t, l, checkedBatches)
		})
	}
}

// What retention would delete when the log is opened is still there to be checked.
func TestCheckLiftsTheRetention(t *testing.T) {
	dir, _ := dataDirs(t)
	small := openLog(t, Options{NoSync: true, MaxBytes: MinMaxBytes})
	if err := small.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{settingsFile, settingsSumFile} {
		data, err := os.ReadFile(filepath.Join(small.options.Dir, streamsDir, streamName, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, streamsDir, streamName, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	summary, problems := check(t, dir)
	if summary.Batches != checkedBatches || len(problems) != 0 || summary.LogID != small.ID() {
		t.Errorf("%+v %+v", summary, problems)
	}
}

// damage is a way to harm a file.
type damage func(t *testing.T, path string)

// flip turns a bit in the record with a number, counted from 0; so many bytes after its beginning.
func flip(record, offset int) damage {
	return func(t *testing.T, path string) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := offset
		for range record {
			at += int(uint32(data[at-offset]) | uint32(data[at-offset+1])<<8 | uint32(data[at-offset+2])<<16 | uint32(data[at-offset+3]&0x7f)<<24)
		}
		data[at] ^= 0x40
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func empty(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
}

func cutOff(bytes int64) damage {
	return func(t *testing.T, path string) {
		t.Helper()
		info, err := os.Stat(path)
		if err == nil {
			err = os.Truncate(path, info.Size()-bytes)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheckFindsDamage(t *testing.T) {
	stopped, killed := dataDirs(t)
	const (
		log, quarantine = streamName, quarantineStream
		groups, parked  = groupsStream, parkedStream
		missing         = "missing, or not matching its checksum"
		damaged         = "a record does not match its checksum,"
		head            = "the head of a record is damaged, at byte"
		settings        = "settings are missing or do not match"
		gone            = "records are missing"
	)
	place := consumerName(groupRecord("a", Cursor{Stream: 1}))
	for name, tt := range map[string]struct {
		dir    string
		file   string
		damage damage
		want   string // what is found, shortly
	}{
		"payload":                     {stopped, log + "/msgs/1.blk", flip(10, 5000), "1.blk 11-11 " + damaged},
		"payload, killed":             {killed, log + "/msgs/1.blk", flip(10, 5000), "1.blk 11-11 " + damaged},
		"length":                      {stopped, log + "/msgs/1.blk", flip(10, 1), "1.blk " + head},
		"checksum of the first":       {stopped, log + "/msgs/1.blk", flip(1, -3), "1.blk 1-1 " + damaged},
		"last block, killed":          {killed, log + "/msgs/3.blk", flip(3, 5000), "3.blk 166-166 " + damaged},
		"torn write, killed":          {killed, log + "/msgs/3.blk", cutOff(10), "3.blk the last"},
		"block missing":               {stopped, log + "/msgs/2.blk", remove, "2.blk 82-162 the file is missing:"},
		"block missing, killed":       {killed, log + "/msgs/2.blk", remove, log + " 82-162 " + missing},
		"last block missing":          {stopped, log + "/msgs/3.blk", remove, "3.blk 163-200 the file is missing:"},
		"first block missing":         {stopped, log + "/msgs/1.blk", remove, "1.blk 1-81 the file is missing:"},
		"settings":                    {stopped, log + "/meta.inf", flip(0, 40), "meta.inf " + settings},
		"checksum of the settings":    {killed, log + "/meta.sum", flip(0, 3), "meta.inf " + settings},
		"no settings":                 {stopped, log + "/meta.inf", remove, "meta.inf " + settings},
		"no records":                  {stopped, log + "/msgs", remove, "msgs the stream's " + gone + "; LINKSGATE_NOTIFICATIONS 1-200 the end of the log is missing"},
		"settings of the quarantine":  {stopped, quarantine + "/meta.inf", flip(0, 40), "meta.inf " + settings},
		"records of the quarantine":   {stopped, quarantine + "/msgs", remove, "msgs the stream's " + gone},
		"file of the quarantine":      {stopped, quarantine + "/msgs/1.blk", remove, "1.blk 1-20 the file is missing:"},
		"an entry":                    {stopped, quarantine + "/msgs/1.blk", flip(10, 60), "1.blk 11-11 " + damaged},
		"an entry, killed":            {killed, quarantine + "/msgs/1.blk", flip(10, 60), "1.blk 11-11 " + damaged},
		"a group":                     {stopped, groups + "/msgs/1.blk", flip(0, 80), "1.blk 1-1 " + damaged},
		"file of the groups":          {stopped, groups + "/msgs/1.blk", remove, "1.blk 1-1 the file is missing:"},
		"the groups":                  {killed, groups, remove, "meta.inf " + settings + "; msgs the stream's " + gone},
		"a parked one":                {stopped, parked + "/msgs/1.blk", flip(0, 80), "1.blk 1-1 " + damaged},
		"file of what is parked":      {stopped, parked + "/msgs/1.blk", remove, "1.blk 1-1 the file is missing:"},
		"all that is parked":          {killed, parked, remove, "meta.inf " + settings + "; msgs the stream's " + gone + "; " + place + " the place of group a is missing"},
		"places of groups":            {stopped, log + "/obs", remove, "o.dat the place of a group is not as it was when the gateway was stopped"},
		"places of groups, killed":    {killed, log + "/obs", remove, place + " the place of group a is missing"},
		"a place":                     {stopped, log + "/obs/" + place + "/o.dat", flip(0, 3), "o.dat the place of a group is not as it was when the gateway was stopped"},
		"settings of a place":         {stopped, log + "/obs/" + place + "/meta.inf", flip(0, 40), "meta.inf the settings of a group's place do not match"},
		"the engine's index":          {stopped, log + "/msgs/index.db", flip(0, 12), ""}, // is made anew from the records
		"the engine's index, missing": {stopped, log + "/msgs/index.db", remove, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			copyDir(t, tt.dir, dir)
			tt.damage(t, filepath.Join(dir, streamsDir, filepath.FromSlash(tt.file)))
			summary, problems := check(t, dir)
			if got := shortly(problems); got != tt.want {
				t.Errorf("found %q, want %q; %+v", got, tt.want, summary)
			}
			for _, p := range problems {
				if p.Meaning == "" || p.First > 1 && p.After.IsZero() && !strings.Contains(tt.want, "file is missing") || !p.Before.IsZero() && !p.After.Before(p.Before) {
					t.Errorf("problem %+v", p)
				}
			}
			if lost := lostBatches(problems); strings.Contains(tt.file, log+"/msgs") && name != "torn write, killed" && summary.Batches+lost != checkedBatches {
				t.Errorf("%d batches were read and %d are told to be lost, of %d", summary.Batches, lost, checkedBatches)
			}
		})
	}
}

// shortly says what problems were found, up to where they differ in numbers of no interest.
func shortly(problems []Problem) string {
	var all []string
	for _, p := range problems {
		place := filepath.Base(p.File)
		if p.File == "" {
			place = p.Stream
		}
		if p.First > 0 {
			place += fmt.Sprintf(" %d-%d", p.First, p.Last)
		}
		what := strings.TrimPrefix(p.What, "the stream's ")
		if strings.HasPrefix(what, "records") {
			what = p.What
		}
		if i := strings.IndexAny(what, "0123456789"); i > 0 {
			what = strings.TrimSpace(what[:i])
		}
		all = append(all, place+" "+strings.TrimSuffix(what, " their checksum"))
	}
	return strings.Join(all, "; ")
}

func lostBatches(problems []Problem) uint64 {
	lost := uint64(0)
	for _, p := range problems {
		if p.Stream == streamName && p.First > 0 {
			lost += p.Last - p.First + 1
		}
	}
	return lost
}

// What the engine delivers in good faith is looked at too.
func TestCheckFindsWhatIsNotAsItSaysItIs(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, Options{Dir: dir, NoSync: true})
	good := func() *linksgatev1.Notification {
		n := notification(1)
		n.ContentDigest = digestOf(n.GetBody())
		return n
	}
	otherBody, otherID, otherToken := good(), good(), good()
	otherBody.Raw = &linksgatev1.Notification_Body{Body: "another body"}
	otherID.Id, otherToken.Token = l.NotificationID(Position{Stream: 9}), l.Token(Cursor{Stream: 9})
	for _, n := range []*linksgatev1.Notification{good(), otherBody, good(), otherID, otherToken} {
		mustAppend(t, l, n)
	}
	if _, err := l.engine.conn.Request(subject, []byte("not a batch"), publishTimeout); err != nil {
		t.Fatal(err)
	}
	addEntries(t, l.Quarantine(), 1)
	e := entry(1)
	e.ContentDigest = digestOf("another body")
	if err := l.Quarantine().Add(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	summary, problems := check(t, dir)
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%s %d.%d %s", p.Stream, p.First, p.Index, p.What))
	}
	want := []string{
		streamName + " 2.0 its body does not match its content digest",
		streamName + " 4.0 its id names the sequence 36864, and it stands at 16384",
		streamName + " 5.0 its token does not lead to what follows it",
		streamName + " 6.-1 not a record batch",
		quarantineStream + " 2.-1 its body does not match its content digest",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
	if summary.Batches != 5 || summary.Notifications != 2 || summary.QuarantineEntries != 1 {
		t.Errorf("summary %+v", summary)
	}
}

func TestCheckNeedsADataDirectoryToItself(t *testing.T) {
	empty, used := t.TempDir(), t.TempDir()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	openLog(t, Options{Dir: used, NoSync: true})
	for dir, want := range map[string]string{
		filepath.Join(empty, "missing"): "no such file or directory",
		file:                            "is not a directory",
		empty:                           "is not the data directory of a gateway",
		used:                            "a gateway has " + used + " open",
	} {
		before := []map[string]string{tree(t, filepath.Dir(file)), tree(t, empty)}
		if _, err := Check(t.Context(), dir, CheckOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", dir, err, want)
		}
		if diff := cmp.Diff(before, []map[string]string{tree(t, filepath.Dir(file)), tree(t, empty)}); diff != "" {
			t.Errorf("%s: the check made\n%s", dir, diff)
		}
	}
}

func TestCheckEndsWithItsContext(t *testing.T) {
	dir, _ := dataDirs(t)
	for step, when := range map[string]string{"at once": "", "while copying": "copying", "while reading": "reading " + streamName} {
		ctx, cancel := context.WithCancel(t.Context())
		if when == "" {
			cancel()
		}
		_, err := Check(ctx, dir, CheckOptions{Scratch: t.TempDir(), Progress: func(p CheckProgress) {
			if p.Step == when {
				cancel()
			}
		}})
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) || err == nil && when != "reading "+streamName {
			t.Errorf("%s: %v", step, err) // reading may be over before progress is told
		}
	}
}
