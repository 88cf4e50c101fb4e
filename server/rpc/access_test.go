package rpc

import (
	"fmt"
	"os"
	"strings"
	"testing"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/reflect/protoreflect"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// TestEveryMethodHasARule walks the descriptors of all services: a method without a rule could not be called, and a rule without a
// method, or without its line in the documentation, misleads.
func TestEveryMethodHasARule(t *testing.T) {
	document, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, file := range []protoreflect.FileDescriptor{
		linksgatev1.File_linksgate_v1_notification_service_proto, linksgatev1.File_linksgate_v1_group_service_proto,
		linksgatev1.File_linksgate_v1_worker_service_proto, linksgatev1.File_linksgate_v1_quarantine_service_proto,
		linksgatev1.File_linksgate_v1_erasure_service_proto, linksgatev1.File_linksgate_v1_audit_service_proto,
		healthv1.File_grpc_health_v1_health_proto, reflectionv1.File_grpc_reflection_v1_reflection_proto,
		reflectionv1alpha.File_grpc_reflection_v1alpha_reflection_proto,
	} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := fmt.Sprintf("/%s/%s", service.FullName(), service.Methods().Get(j).Name())
				seen[method] = true
				rule, ok := rules[method]
				if !ok {
					t.Errorf("%s has no rule", method)
					continue
				}
				if strings.HasPrefix(method, "/linksgate.") && !strings.Contains(string(document), documented(method, rule)) {
					t.Errorf("docs/security.md lacks the line\n%s", documented(method, rule))
				}
			}
		}
	}
	for method := range rules {
		if !seen[method] {
			t.Errorf("%s has a rule and is no method", method)
		}
	}
}

// documented is the line of the table of rights in the documentation.
func documented(method string, rule rule) string {
	audited := ""
	if rule.audited {
		audited = "yes"
	}
	return fmt.Sprintf("| `%s` | %s | %s |", strings.TrimPrefix(method, "/linksgate.v1."), rule.right, audited)
}
