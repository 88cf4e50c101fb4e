package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/payload"
)

const mcpLong = `Mcp lets an assistant look at a gateway, over the Model Context Protocol on standard
input and output. It only reads: the history of a SIM, why requests were refused,
how a group is doing, and the state of the log. It sees what the gateway lets this
command see.

Configure it in the assistant as a server with the command "linksgate mcp".`

// Bounds of what one tool answers.
const (
	mcpNotifications = 200
	mcpEntries       = 50
	mcpParked        = 20
	mcpTime          = 30 * time.Second
)

type mcpFlags struct {
	connection
}

func newMCPCommand() *cobra.Command {
	var f mcpFlags
	cmd := &cobra.Command{
		Use:   "mcp",
		Short: "Let an assistant look at a gateway, over the Model Context Protocol",
		Long:  mcpLong,
		Args:  cobra.NoArgs,
		RunE:  f.run,
	}
	flags := cmd.Flags()
	f.register(flags)
	return cmd
}

func (f *mcpFlags) run(cmd *cobra.Command, _ []string) error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return newMCPServer(conn).Run(cmd.Context(), &mcp.StdioTransport{})
}

// simHistoryInput is what sim_history is asked for.
type simHistoryInput struct {
	ICCID string    `json:"iccid" jsonschema:"the ICCID of the SIM, as the notifications spell it"`
	Since time.Time `json:"since,omitzero" jsonschema:"from when on; without it, as far back as the log reaches"`
}

// refusalsInput is what refusals is asked for.
type refusalsInput struct {
	Account string    `json:"account,omitempty" jsonschema:"only of this account"`
	Kind    string    `json:"kind,omitempty" jsonschema:"only of this kind, such as sms-received"`
	Since   time.Time `json:"since,omitzero" jsonschema:"only what was received since then"`
}

// groupInput is what group_state is asked for.
type groupInput struct {
	Group string `json:"group" jsonschema:"the name of the group"`
}

// newMCPServer serves what an assistant may look at.
func newMCPServer(conn *grpc.ClientConn) *mcp.Server {
	notifications := linksgatev1.NewNotificationServiceClient(conn)
	quarantine, groups := linksgatev1.NewQuarantineServiceClient(conn), linksgatev1.NewGroupServiceClient(conn)
	server := mcp.NewServer(&mcp.Implementation{Name: "linksgate", Version: version()}, nil)
	reads := &mcp.ToolAnnotations{ReadOnlyHint: true}
	mcp.AddTool(server, &mcp.Tool{
		Name: "sim_history", Annotations: reads,
		Description: fmt.Sprintf("What Linksfield sent about one SIM, in order: at most the %d newest notifications.", mcpNotifications),
	}, func(ctx context.Context, _ *mcp.CallToolRequest, in simHistoryInput) (*mcp.CallToolResult, any, error) {
		return answerMCP(ctx, func(ctx context.Context) (map[string]any, error) { return simHistory(ctx, notifications, in) })
	})
	mcp.AddTool(server, &mcp.Tool{
		Name: "refusals", Annotations: reads,
		Description: fmt.Sprintf("Requests that the gateway refused and keeps in quarantine, with the reason and what was tried to verify "+
			"them: at most the %d newest.", mcpEntries),
	}, func(ctx context.Context, _ *mcp.CallToolRequest, in refusalsInput) (*mcp.CallToolResult, any, error) {
		return answerMCP(ctx, func(ctx context.Context) (map[string]any, error) { return refusals(ctx, quarantine, in) })
	})
	mcp.AddTool(server, &mcp.Tool{
		Name: "group_state", Annotations: reads,
		Description: "How a group of workers is doing: its rules, lag, members, and what it has parked and why.",
	}, func(ctx context.Context, _ *mcp.CallToolRequest, in groupInput) (*mcp.CallToolResult, any, error) {
		return answerMCP(ctx, func(ctx context.Context) (map[string]any, error) { return groupState(ctx, groups, in) })
	})
	mcp.AddTool(server, &mcp.Tool{
		Name: "log_state", Annotations: reads,
		Description: "The log's extent, retention and durability, whether it can be written, and who is subscribed and how far behind.",
	}, func(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		return answerMCP(ctx, func(ctx context.Context) (map[string]any, error) { return logState(ctx, notifications) })
	})
	return server
}

// answerMCP answers with JSON. What the gateway refuses is for the assistant to read, and no failure of the protocol.
func answerMCP(ctx context.Context, look func(context.Context) (map[string]any, error)) (*mcp.CallToolResult, any, error) {
	ctx, cancel := context.WithTimeout(ctx, mcpTime)
	defer cancel()
	found, err := look(ctx)
	switch code := status.Code(err); {
	case err == nil:
	case code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		return nil, nil, fmt.Errorf("not found within %v: there is too much to look at; ask again with since", mcpTime)
	case code == codes.Unavailable:
		return nil, nil, fmt.Errorf("the gateway does not answer; is it running at the address that linksgate mcp was given? %w", err)
	default:
		return nil, nil, err
	}
	data, err := json.Marshal(found)
	if err != nil {
		return nil, nil, err
	}
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: string(data)}}}, nil, nil
}

func simHistory(ctx context.Context, client linksgatev1.NotificationServiceClient, in simHistoryInput) (map[string]any, error) {
	request := &linksgatev1.ListNotificationsRequest{Filter: &linksgatev1.NotificationFilter{Iccids: []string{in.ICCID}}, PageSize: greatestPage}
	if !in.Since.IsZero() {
		request.Start = &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: timestamppb.New(in.Since)}}
	}
	newest, left, err := newestOf(mcpNotifications, func(token string) ([]*linksgatev1.Notification, string, error) {
		request.PageToken = token
		page, err := client.ListNotifications(ctx, request)
		return page.GetNotifications(), page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, err
	}
	all, err := rawMessages(newest)
	return map[string]any{"notifications": all, "older_left_out": left}, err
}

func refusals(ctx context.Context, client linksgatev1.QuarantineServiceClient, in refusalsInput) (map[string]any, error) {
	request := &linksgatev1.ListQuarantineEntriesRequest{PageSize: greatestPage}
	if in.Account != "" {
		request.Accounts = []string{in.Account}
	}
	if in.Kind != "" {
		kind, ok := payload.KindByName(in.Kind)
		if !ok {
			return nil, fmt.Errorf("%q is not a kind; the kinds are %v", in.Kind, payload.KindNames(payload.Kinds()))
		}
		request.Kinds = []linksgatev1.NotificationKind{kind}
	}
	if !in.Since.IsZero() {
		request.Since = timestamppb.New(in.Since)
	}
	newest, left, err := newestOf(mcpEntries, func(token string) ([]*linksgatev1.QuarantineEntry, string, error) {
		request.PageToken = token
		page, err := client.ListQuarantineEntries(ctx, request)
		return page.GetEntries(), page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, err
	}
	all, err := rawMessages(newest)
	return map[string]any{"entries": all, "older_left_out": left}, err
}

func groupState(ctx context.Context, client linksgatev1.GroupServiceClient, in groupInput) (map[string]any, error) {
	group, err := client.GetGroup(ctx, &linksgatev1.GetGroupRequest{GroupName: in.Group})
	if err != nil {
		return nil, err
	}
	parked, err := client.ListParked(ctx, &linksgatev1.ListParkedRequest{GroupName: in.Group, PageSize: mcpParked})
	if err != nil {
		return nil, err
	}
	state, err := rawMessages([]proto.Message{group.GetGroup()})
	if err != nil {
		return nil, err
	}
	oldest, err := rawMessages(parked.GetParked())
	return map[string]any{"group": state[0], "oldest_parked": oldest}, err
}

func logState(ctx context.Context, client linksgatev1.NotificationServiceClient) (map[string]any, error) {
	info, err := client.GetLogInfo(ctx, &linksgatev1.GetLogInfoRequest{})
	if err != nil {
		return nil, err
	}
	subscriptions, err := client.ListSubscriptions(ctx, &linksgatev1.ListSubscriptionsRequest{})
	if err != nil {
		return nil, err
	}
	log, err := rawMessages([]proto.Message{info})
	if err != nil {
		return nil, err
	}
	all, err := rawMessages(subscriptions.GetSubscriptions())
	return map[string]any{"log": log[0], "subscriptions": all}, err
}

// newestOf returns the newest of what all pages hold, and how many older ones it left out.
func newestOf[M any](most int, page func(token string) ([]M, string, error)) (newest []M, left int, err error) {
	for token := ""; ; {
		some, next, err := page(token)
		if err != nil {
			return nil, 0, err
		}
		newest = append(newest, some...)
		if over := len(newest) - most; over > 0 {
			left, newest = left+over, newest[over:]
		}
		if token = next; token == "" {
			return newest, left, nil
		}
	}
}

// rawMessages are messages in the JSON form that the gateway gives them everywhere.
func rawMessages[M proto.Message](messages []M) ([]json.RawMessage, error) {
	all := make([]json.RawMessage, 0, len(messages))
	for _, message := range messages {
		line, err := jsonLine(message)
		if err != nil {
			return nil, err
		}
		all = append(all, line)
	}
	return all, nil
}
