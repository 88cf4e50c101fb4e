// Package payload answers one question: what does this body say?
//
// Linksfield's bodies do not name the notification that they belong to: the URL
// does, so a [linksgatev1.NotificationKind] is known before a body is read. [Fill] gives a
// notification the payload message of its kind. What Linksfield documents
// becomes a typed field; every other member goes to the map `fields`, a string
// as it is and anything else as its JSON text. For the kinds whose body
// Linksfield does not publish, that is every member.
//
// Three promises hold for every body:
//
//   - Total: Fill never fails. What cannot be typed becomes an Unrecognized,
//     with the reason.
//   - Tolerant: a number where a string is documented is taken as its literal,
//     so a long ICCID keeps its digits. A documented member that is an object,
//     an array, a boolean or null stays in `fields`.
//   - Lossless: every member of the body, and of each item of `devices`, is in
//     a typed field or in `fields`. Codes and times are typed only when they can
//     be read without guessing, and always keep their original text. A
//     documented member that is empty ("" or []) reads like a missing one: only
//     the notification's body tells the two apart.
//
// Nothing is typed under a name that Linksfield does not document. What filters look at (ICCIDs, the partner) is looked for under the
// names that the operator has configured too ([Names]), and ICCIDs by their shape where no name gives one.
//
// Everything here is pure. Fill may run concurrently on different notifications.
package payload

import (
	"fmt"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/jsondoc"
)

// Fill sets the payload, and what is indexed of n, replacing what was there,
// from n.Kind, n.Headers, the body, and the names that the operator has
// configured for its kind. A nil doc stands for a body that is not JSON.
//
// Afterwards n has a payload: that of its kind, or an Unrecognized if the body is
// not a JSON object or the kind is not one of [Kinds]. n shares its strings with
// doc, which must not be changed any more.
func Fill(n *linksgatev1.Notification, doc *jsondoc.Document, names Names) {
	n.Payload = nil
	ClearIndex(n)
	switch {
	case doc == nil:
		unrecognized(n, "The body is not JSON.")
	case doc.Root.Kind != jsondoc.Object:
		unrecognized(n, "The body is "+describe(doc.Root.Kind)+", not a JSON object.")
	default:
		fillPayload(n, doc.Root.Members)
		fillIndex(n, doc.Root, names)
	}
}

func fillPayload(n *linksgatev1.Notification, body []jsondoc.Member) {
	switch n.Kind {
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_DATA_USAGE_ALERT:
		n.Payload = &linksgatev1.Notification_DataUsageAlert{
			DataUsageAlert: &linksgatev1.DataUsageAlert{Fields: allFields(body)}}
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_DELIVERY:
		n.Payload = &linksgatev1.Notification_SmsDeliveryReport{
			SmsDeliveryReport: &linksgatev1.SmsDeliveryReport{Fields: allFields(body)}}
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED:
		n.Payload = &linksgatev1.Notification_SmsReceived{SmsReceived: smsReceived(body)}
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS:
		n.Payload = &linksgatev1.Notification_PlanOrderStatusChange{PlanOrderStatusChange: planOrderStatusChange(body)}
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING:
		n.Payload = &linksgatev1.Notification_DeviceWarning{DeviceWarning: deviceWarning(body)}
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_RECHARGE_SUCCESS:
		n.Payload = &linksgatev1.Notification_RechargeSuccess{
			RechargeSuccess: &linksgatev1.RechargeSuccess{Fields: allFields(body)}}
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_CUBE:
		n.Payload = &linksgatev1.Notification_CubeEvent{
			CubeEvent: &linksgatev1.CubeEvent{SentAt: sentAt(n.Headers), Fields: allFields(body)}}
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_MARKETPLACE_ALARM:
		n.Payload = &linksgatev1.Notification_PlatformAlarm{
			PlatformAlarm: &linksgatev1.PlatformAlarm{Fields: allFields(body)}}
	default:
		unrecognized(n, fmt.Sprintf("This gateway knows no notification of kind %d.", n.Kind))
	}
}

func unrecognized(n *linksgatev1.Notification, reason string) {
	n.Payload = &linksgatev1.Notification_Unrecognized{Unrecognized: &linksgatev1.UnrecognizedPayload{Reason: reason}}
}
