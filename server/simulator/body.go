package simulator

import (
	"strconv"
	"time"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/jsondoc"
)

// SIMs is how many SIMs the made-up notifications are about: n and n+SIMs name
// the same one.
const SIMs = 1000

// ICCID returns the ICCID of the SIM that notification n is about, in the kinds
// whose bodies name one under a documented name.
func ICCID(n uint64) string { return numbered("8986022019", n%SIMs, 10) }

// IMSI returns the IMSI of the same SIM.
func IMSI(n uint64) string { return numbered("42300", n%SIMs, 10) }

// firstEvent dates notification 0; each number is a second.
var firstEvent = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// document returns the body of the n-th notification of a kind. It is made as a
// document, not as bytes, so that signing need not parse it.
func document(kind linksgatev1.NotificationKind, n uint64) jsondoc.Document {
	switch kind {
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_SMS_RECEIVED:
		return object(smsReceived(n)...)
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_PLAN_ORDER_STATUS:
		return object(planOrderStatus(n)...)
	case linksgatev1.NotificationKind_NOTIFICATION_KIND_MALL_DEVICE_WARNING:
		return object(deviceWarning(n))
	default:
		return object(undocumented(n)...)
	}
}

// smsReceived takes turns with the two documented forms, with and without a
// message type. Of the types only Binary is printed.
func smsReceived(n uint64) []jsondoc.Member {
	number := strconv.FormatUint(n, 10)
	if n%2 == 0 {
		return []jsondoc.Member{
			text("imsi", IMSI(n)),
			text("partner_code", "P002671"),
			text("received_at", eventTime(n).Format("2006-01-02T150405")),
			text("sim_id", ICCID(n)),
			text("text_message", "device status: "+number),
		}
	}
	return []jsondoc.Member{
		text("partner_code", "P123456"),
		text("sim_id", ICCID(n)),
		text("imsi", IMSI(n)),
		text("message_type", "Binary"),
		text("text_message", "发送短信内容 "+number),
		text("received_at", milliseconds(n)),
	}
}

var orderCodes = [...]string{
	"1000", "1001", "1002", "1003", "1004", "1005", "1007", "1008", "1009", "1010", "1012",
}

// planOrderStatus uses the field names of a sibling platform's order push: those
// of this one are not documented.
func planOrderStatus(n uint64) []jsondoc.Member {
	return []jsondoc.Member{
		text("assetid", numbered("asset-", n%SIMs, 4)),
		text("imsi", IMSI(n)),
		text("operation", orderCodes[n%uint64(len(orderCodes))]),
		text("orderid", "order-"+strconv.FormatUint(n, 10)),
		text("time", milliseconds(n)),
	}
}

// deviceWarning warns about one to three SIMs. The first has an ICCID that no
// other notification has, because the documented fields have no other room for n.
func deviceWarning(n uint64) jsondoc.Member {
	devices := make([]jsondoc.Value, 1+n%3)
	for i := range devices {
		iccid := ICCID(n + uint64(i))
		if i == 0 {
			iccid = numbered("89314404", n, 12)
		}
		devices[i] = jsondoc.Value{Kind: jsondoc.Object, Members: []jsondoc.Member{
			text("expireTime", ""),
			text("warningCode", warningCodes[(n+uint64(i))%uint64(len(warningCodes))]),
			text("deviceId", iccid),
		}}
	}
	return jsondoc.Member{Key: "devices", Value: jsondoc.Value{Kind: jsondoc.Array, Elements: devices}}
}

var warningCodes = [...]string{"1", "2", "3", "4"}

// undocumented is the body of every kind whose body Linksfield does not publish.
func undocumented(n uint64) []jsondoc.Member {
	return []jsondoc.Member{
		text("note", "made up: the real body is not documented"),
		text("number", strconv.FormatUint(n, 10)),
		text("sim", ICCID(n)),
		text("time", milliseconds(n)),
	}
}

func object(members ...jsondoc.Member) jsondoc.Document {
	return jsondoc.Document{Root: jsondoc.Value{Kind: jsondoc.Object, Members: members}}
}

func text(key, value string) jsondoc.Member {
	return jsondoc.Member{Key: key, Value: jsondoc.Value{Kind: jsondoc.String, Text: value}}
}

// eventTime starts anew after ten years, so that every n has a time that can be
// written in four digits of a year.
func eventTime(n uint64) time.Time {
	const tenYears = 10 * 365 * 24 * 3600
	return firstEvent.Add(time.Duration(n%tenYears) * time.Second)
}

func milliseconds(n uint64) string { return strconv.FormatInt(eventTime(n).UnixMilli(), 10) }

// numbered returns prefix and n, padded with zeros to at least width digits.
func numbered(prefix string, n uint64, width int) string {
	var digits [20]byte
	number := strconv.AppendUint(digits[:0], n, 10)
	text := make([]byte, 0, len(prefix)+max(width, len(number)))
	text = append(text, prefix...)
	for range width - len(number) {
		text = append(text, '0')
	}
	return string(append(text, number...))
}
