package server_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/linksgate/linksgate/"

// arrows says what the packages of the gateway may import beside the standard library, tests aside: import paths, and
// prefixes of them that end with a slash. A package without an entry may import anything but what only others may.
var arrows = map[string][]string{
	"server/jsondoc":     {},
	"server/bodyform":    {"golang.org/x/text/"},
	"server/signature":   {module + "server/jsondoc"},
	"server/iccid":       {},
	"server/payload":     {module + "gen/", module + "server/iccid", module + "server/jsondoc", "google.golang.org/protobuf/"},
	"server/store":       {},
	"server/store/disk":  {module + "server/store", "github.com/tidwall/btree"},
	"server/store/spool": {module + "server/store", module + "server/store/disk", module + "server/store/nats"},
	"server/store/nats":  {module + "server/store", "github.com/nats-io/", "github.com/tidwall/btree"},
	"server/dedup":       {},
	"server/eventlog": {
		module + "gen/", module + "server/dedup", module + "server/iccid", module + "server/store", "google.golang.org/protobuf/",
	},
	"server/webhook": {
		module + "gen/", module + "server/bodyform", module + "server/eventlog", module + "server/jsondoc", module + "server/payload",
		module + "server/signature",
		"google.golang.org/protobuf/", "github.com/prometheus/client_golang/", "golang.org/x/time/rate",
	},
	"server/cluster": {
		module + "server/store", "github.com/nats-io/", "google.golang.org/protobuf/", "google.golang.org/grpc", "google.golang.org/grpc/",
		"google.golang.org/genproto/googleapis/rpc/status",
	},
	"server/access": {
		module + "gen/", "github.com/golang-jwt/jwt/v5", "github.com/MicahParks/", "golang.org/x/time/rate", "github.com/prometheus/client_golang/",
	},
	"server/audit": {module + "gen/", module + "server/store", "google.golang.org/protobuf/"},
	"server/group": {module + "gen/", module + "server/eventlog", "google.golang.org/protobuf/"},
	"server/rpc": {
		module + "gen/", module + "server/access", module + "server/audit", module + "server/cluster", module + "server/eventlog",
		module + "server/group",
		"google.golang.org/protobuf/", "google.golang.org/grpc", "google.golang.org/grpc/", "google.golang.org/genproto/googleapis/rpc/code",
		"google.golang.org/genproto/googleapis/rpc/errdetails", "github.com/prometheus/client_golang/",
	},
	"server/config": {
		module + "gen/", module + "server/access", module + "server/eventlog", module + "server/payload", module + "server/signature",
		module + "server/store/disk",
		module + "server/store/nats", module + "server/store/spool", module + "server/webhook", "github.com/goccy/go-yaml", "github.com/goccy/go-yaml/", "github.com/prometheus/client_golang/",
	},
	"server/admin": {
		module + "server/access", module + "server/config", module + "server/eventlog", module + "server/group", module + "server/webhook",
		"github.com/prometheus/client_golang/",
	},
	"server/rest": {
		module + "gen/", module + "server/access", module + "server/rpc", "github.com/grpc-ecosystem/grpc-gateway/", "google.golang.org/protobuf/", "google.golang.org/grpc",
		"google.golang.org/grpc/metadata", "google.golang.org/genproto/googleapis/rpc/errdetails", "github.com/prometheus/client_golang/",
	},
}

// reserved says who alone may import what, of the packages under server.
var reserved = map[string][]string{
	"github.com/nats-io/":          {"server/cluster", "server/store/nats"},
	module + "server/store/disk":   {"server", "server/config", "server/doctor", "server/eventlog/eventlogtest", "server/store/spool"},
	module + "server/store/nats":   {"server", "server/config", "server/store/spool"},
	module + "server/store/spool":  {"server", "server/config"},
	"google.golang.org/grpc/codes": {"server/rpc"},
	module + "server/webhook":      {"server", "server/admin", "server/config"},
	module + "server/group":        {"server", "server/admin", "server/rpc"},
	module + "server/rpc":          {"server", "server/rest"},
	module + "server/cluster":      {"server", "server/rpc"},
	module + "server/config":       {"server", "server/admin", "server/faults"},
	module + "server/access":       {"server", "server/admin", "server/config", "server/rest", "server/rpc"},
	module + "server/audit":        {"server", "server/rpc"},
	"github.com/golang-jwt/":       {"server/access"},
	module + "server/rest":         {"server"},
	module + "server/admin":        {"server"},
}

func TestImportArrows(t *testing.T) {
	t.Parallel()
	imports := listImports(t)
	for name, allowed := range arrows {
		if imports[name] == nil {
			t.Errorf("there is no package %s", name)
		}
		for _, path := range imports[name] {
			if !isStandard(path) && !slices.ContainsFunc(allowed, func(prefix string) bool { return covers(prefix, path) }) {
				t.Errorf("%s imports %s; it may import only %v", name, path, allowed)
			}
		}
	}
	for name, paths := range imports {
		if !strings.HasPrefix(name+"/", "server/") {
			continue
		}
		for prefix, owners := range reserved {
			if slices.ContainsFunc(paths, func(path string) bool { return covers(prefix, path) }) && !slices.Contains(owners, name) {
				t.Errorf("%s imports %s, which is for %v only", name, prefix, owners)
			}
		}
	}
}

// listImports returns what the packages of the module import, by their path in the module.
func listImports(t *testing.T) map[string][]string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	command.Dir = ".."
	output, err := command.Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("go list: %v: %s", err, exit.Stderr)
	}
	imports := make(map[string][]string)
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var one struct {
			ImportPath string
			Imports    []string
		}
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			return imports
		}
		if err != nil {
			t.Fatal(err)
		}
		imports[strings.TrimPrefix(one.ImportPath, module)] = one.Imports
	}
}

// isStandard reports whether an import path is of the standard library: others begin with a domain.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// covers reports whether an entry of the tables stands for an import path.
func covers(entry, path string) bool {
	return path == entry || strings.HasSuffix(entry, "/") && strings.HasPrefix(path, entry)
}
