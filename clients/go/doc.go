// Package linksgate reads notifications from a Linksgate gateway, and works on them in groups.
//
// # Subscribing
//
//	client, err := linksgate.New([]string{"localhost:9090"})
//	…
//	for n, err := range client.Subscribe(ctx, linksgate.From(linksgate.FileCheckpoint("sms.token")),
//		linksgate.Kinds(linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED)) {
//		if err != nil {
//			return err // what coming back cannot mend; see Error
//		}
//		fmt.Println(n.GetSmsReceived().GetText())
//	}
//
// A notification counts as handled when the loop asks for the next one. Over broken connections, frozen and restarted gateways the
// subscription comes back and goes on after the last one that was handled.
//
// # Working in a group
//
//	err := client.Work(ctx, "billing", func(ctx context.Context, d *linksgate.Delivery) error {
//		return bill(ctx, d.Notification)
//	}, linksgate.Parallel(8))
//
// What the handler returns without an error is acknowledged, and does not come again. An error makes it come again after the group's
// back-off; [Park], [RetryAfter] and [EverythingIsDown] say otherwise. When ctx ends the worker leaves, and Work returns nil when
// everything that was begun has ended and the gateway knows.
//
// ../README.md says what clients in all languages do alike.
package linksgate
