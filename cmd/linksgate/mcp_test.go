package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// An assistant finds a SIM's history, why a request was refused, and how a group is doing; and is offered nothing that changes anything.
func TestAnAssistantCanLook(t *testing.T) {
	s := newSite(t)
	s.start(t, rightSecret)
	const iccid = "89860220190000000007"
	for _, text := range []string{"one", "two"} {
		s.send(t, "acme", linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED,
			`{"sim_id":"`+iccid+`","text_message":"`+text+`"}`, http.StatusOK)
	}
	s.sendUnsigned(t, "acme", "sms-received", `{"sim_id":"`+iccid+`"}`, http.StatusUnauthorized)
	address := s.serving.GRPC.String()
	runs(t, exitOK, "group", "create", "night", "--from-start", "--address", address)

	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ours, theirs := mcp.NewInMemoryTransports()
	if _, err := newMCPServer(conn).Connect(t.Context(), ours, nil); err != nil {
		t.Fatal(err)
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test"}, nil).Connect(t.Context(), theirs, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close() }()

	for tool, err := range session.Tools(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if tool.Annotations == nil || !tool.Annotations.ReadOnlyHint {
			t.Errorf("%s does not say that it only reads", tool.Name)
		}
	}
	call := func(name string, arguments map[string]any) (text string, failed bool) {
		t.Helper()
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: name, Arguments: arguments})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text = result.Content[0].(*mcp.TextContent).Text
		if !result.IsError && !json.Valid([]byte(text)) {
			t.Errorf("%s answers %s", name, text)
		}
		return text, result.IsError
	}
	for name, tt := range map[string]struct {
		arguments map[string]any
		holds     []string
	}{
		"sim_history": {map[string]any{"iccid": iccid}, []string{`"text":"one"`, `"text":"two"`, `"older_left_out":0`}},
		"refusals":    {map[string]any{"kind": "sms-received"}, []string{"QUARANTINE_REASON_SIGNATURE_MISSING"}},
		"group_state": {map[string]any{"group": "night"}, []string{`"name":"night"`, `"oldest_parked":[]`}},
		"log_state":   {map[string]any{}, []string{`"writable":true`, `"subscriptions":[]`}},
	} {
		text, failed := call(name, tt.arguments)
		for _, want := range tt.holds {
			if failed || !strings.Contains(text, want) {
				t.Errorf("%s: %s; want %s", name, text, want)
			}
		}
	}
	if text, failed := call("group_state", map[string]any{"group": "nobody"}); !failed || !strings.Contains(text, "no such group") {
		t.Errorf("a group that is not there: %s", text)
	}
	if text, _ := call("sim_history", map[string]any{"iccid": "1"}); !strings.Contains(text, `"notifications":[]`) {
		t.Errorf("a SIM that is not there: %s", text)
	}
}
