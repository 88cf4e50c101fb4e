// Package docs_test runs what the documents say: every block of shell commands in the README and here, on the binary that
// is built from this checkout and a gateway of its own.
package docs_test

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var enabled = flag.Bool("docs", false, "run the commands of the documents; needs bash, curl and jq")

// prelude is run before the commands of a document. What runs until it is stopped goes to the background; a stream of events
// ends after two seconds.
const prelude = `
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
go() { if [ "$1" = build ]; then mkdir -p bin; else (cd "$CHECKOUT" && command go "$@"); fi; }
linksgate() {
  case "$*" in
  serve*--check*) command linksgate "$@" ;;
  serve*)
    command linksgate "$@" >serve.log 2>&1 &
    command curl -sf --retry 100 --retry-delay 1 --retry-connrefused -o ready "http://$LINKSGATE_ADMIN_ADDR/readyz" ;;
  consume*) command linksgate "$@" >>consume.log 2>&1 & ;;
  *) command linksgate "$@" ;;
  esac
}
curl() {
  case "$*" in
  *event-stream*) command curl --max-time 2 "$@" || [ $? -eq 28 ] ;;
  *) command curl --fail-with-body "$@" ;;
  esac
}
grpcurl() { go run github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4 -plaintext "$@"; }
`

// gateway is run, after prelude, before the commands of all documents but the README, whose quick start has these commands itself.
const gateway = `
printf 'my-notification-secret\n' >md5.secret
printf 'my-cube-key\n' >cube.key
printf 'accounts: {acme: {md5_secrets: [{file: md5.secret}], hmac_keys: [{id: cube-1, file: cube.key}]}}\n' >linksgate.yaml
linksgate serve
linksgate send http://localhost:8080/linksfield/acme --count 64 --secret-file md5.secret --key-id cube-1 --key-file cube.key
`

var block = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

func TestCommandsOfTheDocumentsRun(t *testing.T) {
	if !*enabled {
		t.Skip("run with -docs, as make test-docs does")
	}
	checkout, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/linksgate")
	build.Dir = checkout
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, output)
	}
	documents, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, filepath.Join("..", "README.md")) {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		script := commands(string(text))
		if script == "" {
			continue
		}
		t.Run(filepath.Base(document), func(t *testing.T) {
			t.Parallel()
			if filepath.Base(document) != "README.md" {
				script = gateway + script
			}
			run(t, checkout, bin, prelude+script)
		})
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

func TestLinksOfTheDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, filepath.Join("..", "README.md")) {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), match[1])); err != nil {
				t.Errorf("%s: %v", document, err)
			}
		}
	}
}

// commands returns the shell commands of a document, but those that are for its development.
func commands(text string) string {
	text, _, _ = strings.Cut(text, "\n## Development\n")
	var script strings.Builder
	for _, match := range block.FindAllStringSubmatch(text, -1) {
		script.WriteString(match[1])
	}
	return script.String()
}

// run runs a script in a directory of its own, with a gateway's addresses where the documents have the defaults.
func run(t *testing.T, checkout, bin, script string) {
	t.Helper()
	environment := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CHECKOUT="+checkout)
	for port, name := range map[int]string{8080: "WEBHOOK", 9090: "GRPC", 9091: "ADMIN", 9092: "REST"} {
		address := freeAddress(t)
		environment = append(environment, "LINKSGATE_"+name+"_ADDR="+address)
		if name == "GRPC" {
			environment = append(environment, "LINKSGATE_ADDRESS="+address)
		}
		if name == "ADMIN" {
			environment = append(environment, "LINKSGATE_ADMIN=http://"+address)
		}
		script = strings.ReplaceAll(script, fmt.Sprintf("localhost:%d", port), address)
	}
	command := exec.CommandContext(t.Context(), "bash", "-x", "-c", script)
	command.Dir, command.WaitDelay = t.TempDir(), 10*time.Second
	environment = append(environment, "LINKSGATE_CONTEXTS="+filepath.Join(command.Dir, "contexts.yaml"))
	command.Env = environment
	if output, err := command.CombinedOutput(); err != nil {
		served, _ := os.ReadFile(filepath.Join(command.Dir, "serve.log"))
		t.Fatalf("%v\n%s\nthe gateway:\n%s", err, output, served)
	}
}

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// TestNoticeNamesEveryModule requires that NOTICE lists the modules that the binary contains, and no others.
func TestNoticeNamesEveryModule(t *testing.T) {
	t.Parallel()
	notice, err := os.ReadFile("../NOTICE")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, match := range regexp.MustCompile(`(?m)^(\S+/\S+|go\.\S+) {2,}\S+$`).FindAllStringSubmatch(string(notice), -1) {
		listed = append(listed, match[1])
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./cmd/linksgate")
	list.Dir = ".."
	output, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	contained := slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(output)))))
	if slices.Sort(listed); !slices.Equal(listed, contained) {
		t.Errorf("NOTICE lists\n%s\nthe binary contains\n%s", strings.Join(listed, "\n"), strings.Join(contained, "\n"))
	}
}
