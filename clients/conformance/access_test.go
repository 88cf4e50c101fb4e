package conformance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/access"
	"github.com/linksgate/linksgate/server/faults"
)

// callers is the section of a gateway's configuration in which the caller of the client has some tokens and some grants, and another
// one may do everything. Whoever shows nothing may see whether the configuration is in force.
func callers(root, grants string, tokens ...string) string {
	text := fmt.Sprintf("access:\n  anonymous: {grants: {admin: true}}\n  callers:\n    root: {tokens: [{sha256: '%s'}], grants: {read: {accounts: ['*']}, work: ['*'], operate: {accounts: ['*']}}}\n",
		access.DigestOf(root))
	text += "    client:\n      grants: {" + grants + "}\n      tokens:\n"
	for _, token := range tokens {
		text += fmt.Sprintf("        - {sha256: '%s'}\n", access.DigestOf(token))
	}
	return text
}

// bearer is a token that is shown with each call.
type bearer string

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (bearer) RequireTransportSecurity() bool { return false }

// Of a gateway that has callers: without a right the client ends and says so; a token that is replaced costs nothing, also while the
// stream is open; a right that is taken away ends it.
func TestCallersOfAGateway(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		root, first, second := access.NewToken(), access.NewToken(), access.NewToken()
		const reads, works = "read: {accounts: [acme]}", "read: {accounts: [acme]}, work: [work]"
		g := startGatewayFor(t, faults.Options{LogDir: t.TempDir(), Access: callers(root, reads, first)})
		conn, err := grpc.NewClient(g.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(bearer(root)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		g.conn = conn
		allow := func(section string) {
			t.Helper()
			if err := g.Allow(section); err != nil {
				t.Fatal(err)
			}
			if ok, err := g.Reload(t.Context()); err != nil || !ok {
				t.Fatal(ok, err)
			}
		}
		path := filepath.Join(t.TempDir(), "token")
		show := func(token string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		show(first)
		subscribe := order{"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "earliest", "token_file": path}
		c.start(t, order{"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "earliest"}).endsWith("PermissionDenied")
		c.start(t, order{"mode": "subscribe", "addresses": []string{g.GRPC}, "start": "earliest", "token": second}).endsWith("PermissionDenied")

		g.send(3)
		h := c.start(t, subscribe)
		h.await("notification", 3)
		show(second)
		allow(callers(root, reads, first, second)) // as an operator does: the new one beside the old one
		allow(callers(root, reads, second))
		g.send(3)
		h.await("notification", 6)
		exactly(t, h.so("notification"), 6)
		allow(callers(root, "work: [work]", second))
		h.endsWith("PermissionDenied")

		g.group(unordered, 30*time.Second)
		if _, err := linksgatev1.NewGroupServiceClient(conn).UpdateGroup(t.Context(), &linksgatev1.UpdateGroupRequest{
			GroupName: "work", Group: &linksgatev1.Group{Filter: &linksgatev1.NotificationFilter{Accounts: []string{"acme"}}},
		}); err != nil {
			t.Fatal(err)
		}
		c.start(t, worker(g, order{"token": first})).endsWith("PermissionDenied")
		c.start(t, worker(g, order{"token": second})).endsWith("PermissionDenied") // it may not read what the group gets
		allow(callers(root, works, second))
		g.send(1)
		w := c.start(t, worker(g, order{"token_file": path}))
		w.await("end", 7)
		eventually(t, "it is a member", func() bool {
			return slices.ContainsFunc(g.status().GetMembers(), func(m *linksgatev1.GroupMember) bool { return m.GetClientName() == "worker" })
		})
		allow(callers(root, reads, second))
		w.endsWith("PermissionDenied")
	})
}
