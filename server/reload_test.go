package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server"
	"github.com/linksgate/linksgate/server/config"
	"github.com/linksgate/linksgate/server/signature"
	"github.com/linksgate/linksgate/server/simulator"
)

// formerLinksfield signs with the secrets of acme from before.
var formerLinksfield = simulator.Sender{
	MD5:   signature.Secret{Value: md5OldSecret},
	KeyID: hmacKeyID,
	HMAC:  signature.Secret{Value: hmacOld},
}

// operator changes the configuration of a gateway on disk. DIR in the text stands for its directory, which holds the secrets.
type operator struct {
	dir    string
	reload chan struct{}
}

// head is what begins the operator's configurations, accounts what ends most of them.
const (
	head = `listen: {webhook: "127.0.0.1:0", grpc: "127.0.0.1:0", rest: "127.0.0.1:0", admin: "127.0.0.1:0"}
log: {dir: DIR/data, fsync: false}
`
	oldSecrets = `accounts:
  acme:
    md5_secrets: [{file: DIR/md5-old}]
    hmac_keys: [{id: acme-key, file: DIR/hmac-old}]
`
	bothSecrets = `accounts:
  acme:
    md5_secrets: [{file: DIR/md5-old}, {file: DIR/md5-new}]
    hmac_keys: [{id: acme-key, file: DIR/hmac-old}, {id: acme-key, file: DIR/hmac-new}]
`
	newSecrets = `accounts:
  acme:
    md5_secrets: [{file: DIR/md5-new}]
    hmac_keys: [{id: acme-key, file: DIR/hmac-new}]
`
)

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{dir: t.TempDir(), reload: make(chan struct{})}
	for name, value := range map[string]string{
		"md5-old": md5OldSecret, "md5-new": md5Secret, "hmac-old": hmacOld, "hmac-new": hmacSecret, "token": orderToken,
	} {
		o.write(t, name, value+"\n")
	}
	return o
}

// write writes a file as a careless editor does: in its place.
func (o *operator) write(t *testing.T, name, text string) {
	t.Helper()
	text = strings.ReplaceAll(text, "DIR", o.dir)
	if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (o *operator) source() (config.Config, error) {
	return config.Read(filepath.Join(o.dir, "linksgate.yaml"))
}

const (
	often = 5 * time.Millisecond
	never = 24 * time.Hour
)

// start runs a gateway with a configuration, which is looked at now and then.
func (o *operator) start(t *testing.T, cfg string, poll time.Duration) *gateway {
	t.Helper()
	o.write(t, "linksgate.yaml", cfg)
	read, err := o.source()
	if err != nil {
		t.Fatal(err)
	}
	return startGatewayIn(t, read, server.Env{Source: o.source, Reload: o.reload, PollInterval: poll})
}

// change writes a configuration and has it loaded. It returns what is logged about that.
func (o *operator) change(t *testing.T, g *gateway, cfg string) reloadLine {
	t.Helper()
	before := len(g.reloads(t))
	o.write(t, "linksgate.yaml", cfg)
	handOver(t, o.reload, struct{}{})
	eventually(t, "the configuration is reloaded or refused", func() bool { return len(g.reloads(t)) > before })
	return g.reloads(t)[before]
}

// handOver sends to a gateway that should be receiving.
func handOver[T any](t *testing.T, to chan<- T, value T) {
	t.Helper()
	select {
	case to <- value:
	case <-time.After(patience):
		t.Fatal("the gateway does not look at its configuration")
	}
}

// reloadLine is a line of the log about a configuration that was found.
type reloadLine struct {
	Level, Msg        string
	Changes, Problems []string
}

func (g *gateway) reloads(t *testing.T) []reloadLine {
	t.Helper()
	var lines []reloadLine
	for text := range strings.Lines(g.logs.String()) {
		var line struct {
			Level, Msg        string
			Changes, Problems *string
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("log line %s: %v", text, err)
		}
		if line.Changes != nil || line.Problems != nil {
			lines = append(lines, reloadLine{line.Level, line.Msg, listed(line.Changes), listed(line.Problems)})
		}
	}
	return lines
}

// listed takes a list in a line of the log apart.
func listed(text *string) []string {
	if text == nil {
		return nil
	}
	return slices.DeleteFunc(strings.Split(*text, "; "), func(one string) bool { return one == "" })
}

// configState is what GET /config answers.
type configState struct {
	LoadedAt     time.Time `json:"loaded_at"`
	NeedsRestart []string  `json:"needs_restart"`
	LastFailure  *struct {
		At       time.Time
		Problems []string
	} `json:"last_failure"`
}

func (g *gateway) configState(t *testing.T) configState {
	t.Helper()
	var state configState
	g.adminJSON(t, "/config", &state)
	return state
}

// adminJSON gets a document of the administration address, which must hold nothing private.
func (g *gateway) adminJSON(t *testing.T, path string, into any) {
	t.Helper()
	status, text := g.admin(t, path)
	if err := json.Unmarshal([]byte(text), into); err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d %s, %v", path, status, text, err)
	}
	for _, private := range []string{md5Secret, md5OldSecret, hmacSecret, hmacOld, orderToken, inlineSecret} {
		if strings.Contains(text, private) {
			t.Errorf("%s holds %q: %s", path, private, text)
		}
	}
}

// answers returns the status that a sender gets for an MO SMS and for a Cube notification.
func (g *gateway) answers(t *testing.T, sender *simulator.Sender) [2]int {
	t.Helper()
	var statuses [2]int
	for i, kind := range []linksgatev1.NotificationKind{linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE} {
		n, err := sender.Make(kind, rand.Uint64())
		if err != nil {
			t.Fatal(err)
		}
		statuses[i] = g.request(t, http.MethodPost, []string{smsPath, cubePath}[i], n.Header, bytes.NewReader(n.Body)).status
	}
	return statuses
}

var (
	accepted = [2]int{http.StatusOK, http.StatusOK}
	refused  = [2]int{http.StatusUnauthorized, http.StatusUnauthorized}
)

// TestChangesThatAreFound changes files in the ways in which that is done, and tells nobody.
func TestChangesThatAreFound(t *testing.T) {
	t.Parallel()
	replace := func(t *testing.T, o *operator, name, text string) {
		o.write(t, name+".tmp", text)
		if err := os.Rename(filepath.Join(o.dir, name+".tmp"), filepath.Join(o.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link := func(t *testing.T, o *operator, target string) {
		if err := os.Symlink(target, filepath.Join(o.dir, "..data.tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(o.dir, "..data.tmp"), filepath.Join(o.dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name    string
		config  string
		prepare func(*testing.T, *operator)
		change  func(*testing.T, *operator)
	}{
		{"the configuration is written in its place", oldSecrets, nil,
			func(t *testing.T, o *operator) { o.write(t, "linksgate.yaml", head+newSecrets) }},
		{"the configuration is renamed", oldSecrets, nil,
			func(t *testing.T, o *operator) { replace(t, o, "linksgate.yaml", head+newSecrets) }},
		{"secrets are written in their place", oldSecrets, nil,
			func(t *testing.T, o *operator) { o.write(t, "md5-old", md5Secret); o.write(t, "hmac-old", hmacSecret) }},
		{"secrets are renamed", oldSecrets, nil,
			func(t *testing.T, o *operator) {
				replace(t, o, "md5-old", md5Secret)
				replace(t, o, "hmac-old", hmacSecret)
			}},
		{"a link two directories up is swapped", strings.NewReplacer("md5-old", "..data/md5", "hmac-old", "..data/hmac").Replace(oldSecrets),
			func(t *testing.T, o *operator) {
				for _, dir := range []string{"..1", "..2"} {
					if err := os.Mkdir(filepath.Join(o.dir, dir), 0o700); err != nil {
						t.Fatal(err)
					}
				}
				o.write(t, "..1/md5", md5OldSecret)
				o.write(t, "..1/hmac", hmacOld)
				o.write(t, "..2/md5", md5Secret)
				o.write(t, "..2/hmac", hmacSecret)
				link(t, o, "..1")
			},
			func(t *testing.T, o *operator) { link(t, o, "..2") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOperator(t)
			if tt.prepare != nil {
				tt.prepare(t, o)
			}
			g := o.start(t, head+tt.config, often)
			if old, now := g.answers(t, &formerLinksfield), g.answers(t, &linksfield); old != accepted || now != refused {
				t.Fatalf("before the change: %v with the old secrets, %v with the new", old, now)
			}
			tt.change(t, o)
			eventually(t, "the new secrets are accepted", func() bool { return g.answers(t, &linksfield) == accepted })
			if old := g.answers(t, &formerLinksfield); old != refused {
				t.Errorf("after the change: %v with the old secrets", old)
			}
		})
	}
}

// TestWhatCanChange changes one thing at a time, and tells the gateway to look.
func TestWhatCanChange(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	g := o.start(t, head+oldSecrets, never)
	first := g.configState(t)
	const other = "  other: {md5_secrets: [{name: of-other, file: DIR/md5-new}], kinds: {cube: {signature: none, path_token: {file: DIR/token}}}}\n"
	order := func(policy string) string {
		return head + oldSecrets + "    kinds: {plan-order-status: " + policy + "}\n"
	}
	guarded := order("{signature: if-present, path_token: {file: DIR/token}}")
	for _, tt := range []struct {
		config  string
		changes []string
		url     string // to which something unsigned is sent
		status  int
	}{
		{head + oldSecrets, []string{}, orderPath, http.StatusUnauthorized},
		{head + oldSecrets + other, []string{"accounts.other: added", "accounts.other.md5_secrets: added of-other", "accounts.other.kinds.cube: changed"},
			"/linksfield/other/cube/" + orderToken, http.StatusOK},
		{guarded, []string{"accounts.acme.kinds.plan-order-status: changed",
			"accounts.other: removed", "accounts.other.md5_secrets: removed of-other", "accounts.other.kinds.cube: changed"},
			"/linksfield/other/cube/" + orderToken, http.StatusNotFound},
		{guarded, []string{}, orderPath + "/" + orderToken, http.StatusOK},
		{order("{signature: none, allowed_sources: [203.0.113.7]}"), []string{"accounts.acme.kinds.plan-order-status: changed"}, orderPath, http.StatusNotFound},
		{order("{signature: none, allowed_sources: [203.0.113.7]}") + "webhook: {trusted_proxies: [127.0.0.0/8]}\n",
			[]string{"webhook.trusted_proxies: changed"}, orderPath, http.StatusOK},
		{head + bothSecrets, []string{"accounts.acme.md5_secrets: added md5-new", "accounts.acme.hmac_keys acme-key: added hmac-new",
			"accounts.acme.kinds.plan-order-status: changed", "webhook.trusted_proxies: changed"}, orderPath, http.StatusUnauthorized},
		{head + newSecrets, []string{"accounts.acme.md5_secrets: removed md5-old", "accounts.acme.hmac_keys acme-key: removed hmac-old"},
			orderPath, http.StatusUnauthorized},
		{head + strings.ReplaceAll(newSecrets, "-new}", "-old, name: md5-new}"), []string{"accounts.acme.md5_secrets: new value of md5-new",
			"accounts.acme.hmac_keys acme-key: removed hmac-new", "accounts.acme.hmac_keys acme-key: added md5-new"}, orderPath, http.StatusUnauthorized},
	} {
		line := o.change(t, g, tt.config)
		if diff := cmp.Diff(tt.changes, line.Changes); diff != "" || line.Level != "INFO" {
			t.Errorf("logged %+v; - wanted, + logged:\n%s", line, diff)
		}
		a := g.request(t, http.MethodPost, tt.url, http.Header{"X-Forwarded-For": {"203.0.113.7"}}, strings.NewReader(markedBody))
		if a.status != tt.status {
			t.Errorf("after %v: %d to %s; want %d", tt.changes, a.status, tt.url, tt.status)
		}
		state := g.configState(t)
		if !state.LoadedAt.After(first.LoadedAt) || state.LastFailure != nil || len(state.NeedsRestart) != 0 {
			t.Errorf("after %v: GET /config says %+v", tt.changes, state)
		}
		first = state
	}
	if _, text := g.admin(t, "/metrics"); !strings.Contains(text, `linksgate_config_reloads_total{outcome="success"} 9`) ||
		!strings.Contains(text, "\nlinksgate_config_last_reload_success_timestamp_seconds 1.") {
		t.Errorf("the metrics do not tell of 9 reloads: %s", linesWith(text, "linksgate_config"))
	}
}

// TestABadConfigurationChangesNothing includes what is refused at the start for the sake of security.
func TestABadConfigurationChangesNothing(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	g := o.start(t, head+oldSecrets, never)
	loaded := g.configState(t).LoadedAt
	kind := func(policy string) string {
		return head + oldSecrets + "    kinds: {plan-order-status: " + policy + "}\n"
	}
	for i, tt := range []struct {
		name, config string
		problems     []string // parts of them, in order
	}{
		{"not YAML", head + "accounts: [", []string{"linksgate.yaml"}},
		{"empty", "", []string{"linksgate.yaml"}},
		{"no accounts", head, []string{"accounts"}},
		{"unknown key", head + oldSecrets + "    secret: " + inlineSecret + "\n", []string{`unknown field "secret"`}},
		{"missing secret", head + strings.Replace(newSecrets, "md5-new", "md5-newer", 1), []string{"accounts.acme.md5_secrets[0].file"}},
		{"unsigned and not guarded", kind("{signature: none}"), []string{"accounts.acme.kinds.plan-order-status.signature: none accepts what anyone sends"}},
		{"perhaps unsigned and not guarded", kind("{signature: if-present}"), []string{"accounts.acme.kinds.plan-order-status.signature: if-present accepts"}},
		{"perhaps unsigned, no sources", kind("{signature: if-present, allowed_sources: []}"), []string{"accounts.acme.kinds.plan-order-status.signature"}},
		{"two of one name", head + strings.ReplaceAll(bothSecrets, "md5-new}", "md5-new, name: md5-old}"), []string{"accounts.acme.md5_secrets[1].name: md5-old"}},
		{"several", head + "webhook: {trusted_proxies: [here]}\n" + strings.ReplaceAll(newSecrets, "-new", "-newer"),
			[]string{"accounts.acme.md5_secrets[0].file", "accounts.acme.hmac_keys[0].file", "webhook.trusted_proxies"}},
	} {
		line := o.change(t, g, tt.config)
		state := g.configState(t)
		if line.Level != "ERROR" || state.LastFailure == nil || !slices.Equal(line.Problems, state.LastFailure.Problems) || !state.LoadedAt.Equal(loaded) {
			t.Fatalf("%s: logged %+v, GET /config says %+v", tt.name, line, state)
		}
		if !slices.EqualFunc(tt.problems, line.Problems, func(part, problem string) bool { return strings.Contains(problem, part) }) {
			t.Errorf("%s: the problems are %q; want %q", tt.name, line.Problems, tt.problems)
		}
		if old, now := g.answers(t, &formerLinksfield), g.answers(t, &linksfield); old != accepted || now != refused {
			t.Errorf("%s: %v with the secrets in force, %v with others", tt.name, old, now)
		}
		if a := g.request(t, http.MethodPost, orderPath, nil, strings.NewReader(markedBody)); a.status != http.StatusUnauthorized {
			t.Errorf("%s: %d for an order status that nobody signed", tt.name, a.status)
		}
		if _, text := g.admin(t, "/metrics"); !strings.Contains(text, fmt.Sprintf(`linksgate_config_reloads_total{outcome="failure"} %d`, i+1)) {
			t.Errorf("%s: the metrics do not tell of it", tt.name)
		}
	}
	if strings.Contains(g.logs.String(), inlineSecret) {
		t.Error("the log holds a secret that was written into the file by mistake")
	}
	if line := o.change(t, g, head+newSecrets); line.Level != "INFO" || g.configState(t).LastFailure != nil || g.answers(t, &linksfield) != accepted {
		t.Errorf("mended: logged %+v, GET /config says %+v", line, g.configState(t))
	}
}

// TestASecretThatComesAfterItsName finds a configuration before the secret that it names, as two volumes may be updated.
func TestASecretThatComesAfterItsName(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	g := o.start(t, head+oldSecrets, often)
	o.write(t, "linksgate.yaml", head+strings.ReplaceAll(bothSecrets, "md5-new", "md5-newer"))
	eventually(t, "the configuration is refused", func() bool { return g.configState(t).LastFailure != nil })
	if got := g.answers(t, &formerLinksfield); got != accepted {
		t.Errorf("%v under the configuration that stays in force", got)
	}
	o.write(t, "md5-newer", md5Secret)
	eventually(t, "the secret is accepted", func() bool { return g.answers(t, &linksfield) == accepted })
	if state := g.configState(t); state.LastFailure != nil {
		t.Errorf("GET /config says %+v", state)
	}
}

func TestWhatNeedsARestart(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	certificate, key := writeCertificate(t)
	o.write(t, "crt", readText(t, certificate))
	o.write(t, "key", readText(t, key))
	tls := "grpc: {tls: {cert_file: DIR/crt, key_file: DIR/key}}\n"
	g := o.start(t, head+tls+oldSecrets, never)

	change := strings.NewReplacer(`webhook: "127.0.0.1:0"`, `webhook: "127.0.0.1:1"`, "fsync: false", "max_age: 1h", "grpc: {tls:", "grpc: {max_streams: 7, tls:")
	line := o.change(t, g, change.Replace(head+tls)+"webhook: {max_requests: 5, trusted_proxies: [10.0.0.0/8]}\ndrain_timeout: 1s\n"+newSecrets)
	keys := []string{"drain_timeout", "grpc.max_streams", "listen.webhook", "log.fsync", "log.max_age", "webhook.max_requests"}
	if diff := cmp.Diff(keys, g.configState(t).NeedsRestart); diff != "" {
		t.Errorf("- wanted, + said by GET /config:\n%s", diff)
	}
	if got := g.answers(t, &linksfield); got != accepted || !slices.Contains(line.Changes, "webhook.trusted_proxies: changed") {
		t.Errorf("%v with the new secrets; the rest was not put in force: %+v", got, line)
	}
	eventually(t, "the keys are logged with a warning", func() bool {
		return strings.Contains(g.logs.String(), `"keys":"`+strings.Join(keys, "; ")+`"`) && strings.Contains(g.logs.String(), `"level":"WARN"`)
	})

	// Writing a default out changes nothing.
	o.change(t, g, head+tls+"webhook: {read_timeout: 10s}\n"+newSecrets)
	if keys := g.configState(t).NeedsRestart; len(keys) != 0 {
		t.Errorf("as it was at the start: GET /config says %v", keys)
	}
	certificate, key = writeCertificate(t)
	o.write(t, "crt", readText(t, certificate))
	o.write(t, "key", readText(t, key))
	line = o.change(t, g, head+tls+newSecrets)
	if keys := g.configState(t).NeedsRestart; len(keys) != 0 || !slices.Contains(line.Changes, "grpc.tls: new certificates") {
		t.Errorf("another certificate: GET /config says %v; the log says %+v", keys, line)
	}
	o.change(t, g, head+oldSecrets)
	if keys := g.configState(t).NeedsRestart; len(keys) != 1 || keys[0] != "grpc.tls" {
		t.Errorf("no TLS any more: GET /config says %v", keys)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestOnlyWhatIsSeenTwiceIsTaken finds configurations one by one. When one has been handed over, the one before it has been dealt with.
func TestOnlyWhatIsSeenTwiceIsTaken(t *testing.T) {
	t.Parallel()
	type found struct {
		config config.Config
		err    error
	}
	cfg := testConfig(t)
	with := func(account string) found {
		c := cfg
		c.Accounts = maps.Clone(cfg.Accounts)
		c.Accounts[account] = cfg.Accounts["other"]
		return found{config: c}
	}
	next := make(chan found)
	done := t.Context().Done()
	g := startGatewayIn(t, cfg, server.Env{PollInterval: time.Millisecond, Source: func() (config.Config, error) {
		select {
		case f := <-next:
			return f.config, f.err
		case <-done:
			return cfg, nil
		}
	}})
	broken, otherwise := found{err: errors.New("broken")}, found{err: errors.New("broken in another way")}
	same := found{config: cfg}
	for i, tt := range []struct {
		found   []found
		outcome []string // levels of what is logged
	}{
		{[]found{same, same, same}, nil},
		{[]found{with("half"), same, with("half"), same}, nil},
		{[]found{with("half"), with("whole"), same}, nil},
		{[]found{broken, same, broken, otherwise, same}, nil},
		{[]found{with("half"), with("whole"), with("whole"), with("whole"), with("whole")}, []string{"INFO"}},
		{[]found{broken, broken, broken, broken}, []string{"ERROR"}},
		{[]found{otherwise, otherwise, otherwise}, []string{"ERROR"}},
		{[]found{with("whole"), with("whole"), with("whole")}, []string{"INFO"}},
		{[]found{same, same}, []string{"INFO"}},
	} {
		before := len(g.reloads(t))
		for _, f := range append(tt.found, tt.found[len(tt.found)-1]) {
			handOver(t, next, f)
		}
		var outcome []string
		for _, line := range g.reloads(t)[before:] {
			outcome = append(outcome, line.Level)
		}
		if !slices.Equal(outcome, tt.outcome) {
			t.Errorf("step %d: logged %v; want %v", i, outcome, tt.outcome)
		}
	}
	if strings.Contains(g.logs.String(), "half") {
		t.Errorf("a configuration that was seen once was taken: %v", g.reloads(t))
	}
}

// TestRotationUnderLoad changes both secrets of an account from old to new by way of both, while Linksfield sends with those
// that the account is known to have. Not one notification may be refused.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	g := o.start(t, head+oldSecrets, often)
	load := startLoad(t, g)

	load.pass(t, 100)
	o.write(t, "linksgate.yaml", head+bothSecrets)
	g.awaitSecrets(t, "hmac-new", "hmac-old", "md5-new", "md5-old")
	load.sign(withEither)
	for i := range 10 {
		load.pass(t, 20)
		// Reloads beside the point, while both are in use.
		o.write(t, "linksgate.yaml", head+bothSecrets+strings.Repeat("  other: {md5_secrets: [{file: DIR/md5-new}]}\n", i%2))
		eventually(t, "the reload is done", func() bool { return len(g.reloads(t)) > i })
	}
	o.write(t, "linksgate.yaml", head+bothSecrets)
	load.pass(t, 100)
	load.sign(withNew)
	load.awaitAll(t)
	o.write(t, "linksgate.yaml", head+newSecrets)
	g.awaitSecrets(t, "hmac-new", "md5-new")
	load.pass(t, 100)
	sent := load.stop()

	if got := g.answers(t, &formerLinksfield); got != refused {
		t.Errorf("afterwards: %v with the old secrets", got)
	}
	verifiedBy := make(map[string]int)
	for _, n := range g.list(t, &linksgatev1.ListNotificationsRequest{PageSize: 1000}) {
		verifiedBy[n.GetVerification().GetSecretName()]++
	}
	total := 0
	for _, name := range []string{"md5-old", "md5-new", "hmac-old", "hmac-new"} {
		if verifiedBy[name] == 0 {
			t.Errorf("no notification was verified by %s", name)
		}
		total += verifiedBy[name]
	}
	if total != sent {
		t.Errorf("%d notifications are in the log; %d were answered with 200", total, sent)
	}
}

// awaitSecrets waits until exactly the secrets of these names are in force.
func (g *gateway) awaitSecrets(t *testing.T, names ...string) {
	t.Helper()
	eventually(t, "the secrets are "+strings.Join(names, ", "), func() bool {
		return slices.Equal(slices.Sorted(maps.Keys(g.lastUsed(t))), names)
	})
}

// The ways in which a load is signed.
const (
	withOld int32 = iota
	withEither
	withNew
)

// load is Linksfield sending over several connections, without a pause.
type load struct {
	mode    atomic.Int32
	modes   []atomic.Int32 // of the request that each sender finished last
	sent    atomic.Int64
	ended   atomic.Bool
	senders sync.WaitGroup
}

func startLoad(t *testing.T, g *gateway) *load {
	l := &load{modes: make([]atomic.Int32, 4)}
	for i := range l.modes {
		l.senders.Go(func() {
			for n := uint64(i) << 32; !l.ended.Load(); n++ {
				mode := l.mode.Load()
				if err := l.send(t, g, n, mode); err != nil {
					t.Error(err)
					return
				}
				l.modes[i].Store(mode)
				l.sent.Add(1)
			}
		})
	}
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *load) send(t *testing.T, g *gateway, n uint64, mode int32) error {
	sender := &formerLinksfield
	if mode == withNew || mode == withEither && rand.N(2) == 0 {
		sender = &linksfield
	}
	kind, path := linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED, smsPath
	if n%2 == 0 {
		kind, path = linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE, cubePath
	}
	made, err := sender.Make(kind, n)
	if err != nil {
		return err
	}
	a, err := g.send(t.Context(), http.MethodPost, path, made.Header, bytes.NewReader(made.Body))
	if err == nil && a.status != http.StatusOK {
		return fmt.Errorf("a good notification was refused, in mode %d: %d %s", mode, a.status, a.body)
	}
	return err
}

func (l *load) sign(mode int32) { l.mode.Store(mode) }

// pass waits until some more notifications have been answered.
func (l *load) pass(t *testing.T, count int64) {
	t.Helper()
	from := l.sent.Load()
	eventually(t, "the load goes on", func() bool { return t.Failed() || l.sent.Load() >= from+count })
}

// awaitAll waits until every sender signs in the mode that was set last.
func (l *load) awaitAll(t *testing.T) {
	t.Helper()
	for i := range l.modes {
		eventually(t, "the senders have changed over", func() bool { return t.Failed() || l.modes[i].Load() == l.mode.Load() })
	}
}

// stop returns how many notifications were answered with 200. It may be called again.
func (l *load) stop() int {
	l.ended.Store(true)
	l.senders.Wait()
	return int(l.sent.Load())
}

// linesWith returns the lines of a text that hold a word.
func linesWith(text, word string) string {
	var found strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found.WriteString(line)
		}
	}
	return found.String()
}
