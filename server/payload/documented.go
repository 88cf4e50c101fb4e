package payload

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/jsondoc"
)

// The bodies that Linksfield documents, each read by one function. The names in
// quotes are Linksfield's.

func smsReceived(body []jsondoc.Member) *linksgatev1.SmsReceived {
	sms := &linksgatev1.SmsReceived{}
	sms.Fields = typed(body, func(key, text string) bool {
		switch key {
		case "sim_id":
			sms.Iccid = text
		case "imsi":
			sms.Imsi = text
		case "partner_code":
			sms.PartnerCode = text
		case "message_type":
			sms.MessageType, sms.MessageTypeText = messageType(text), text
		case "text_message":
			sms.Text = text
		case "received_at":
			sms.ReceivedAt, sms.ReceivedAtText = timestamp(text), text
		default:
			return false
		}
		return true
	})
	return sms
}

func messageType(text string) linksgatev1.SmsMessageType {
	switch {
	case strings.EqualFold(text, "Text"):
		return linksgatev1.SmsMessageType_SMS_MESSAGE_TYPE_TEXT
	case strings.EqualFold(text, "Binary"):
		return linksgatev1.SmsMessageType_SMS_MESSAGE_TYPE_BINARY
	}
	return linksgatev1.SmsMessageType_SMS_MESSAGE_TYPE_UNSPECIFIED
}

func planOrderStatusChange(body []jsondoc.Member) *linksgatev1.PlanOrderStatusChange {
	order := &linksgatev1.PlanOrderStatusChange{}
	order.Fields = typed(body, func(key, text string) bool {
		switch key {
		case "operation":
			order.Status, order.StatusCode = orderStatuses[text], text
		case "orderid":
			order.OrderId = text
		case "assetid":
			order.AssetId = text
		case "imsi":
			order.Imsis = commaSeparated(text)
			// Stray commas and spaces are not in the list: then the text stays too.
			return strings.Join(order.Imsis, ",") == text
		case "time":
			order.OrderCreatedAt, order.OrderCreatedAtText = timestamp(text), text
		default:
			return false
		}
		return true
	})
	return order
}

func deviceWarning(body []jsondoc.Member) *linksgatev1.DeviceWarning {
	warning := &linksgatev1.DeviceWarning{}
	for i := range body {
		m := &body[i]
		if m.Key == "devices" && m.Value.Kind == jsondoc.Array {
			warning.Devices = deviceWarningItems(m.Value.Elements)
			if len(warning.Devices) == len(m.Value.Elements) {
				continue
			}
			// What is not an object is not in the list: then the array stays too.
		}
		warning.Fields = keep(warning.Fields, m)
	}
	return warning
}

// deviceWarningItems reads those elements that are objects.
func deviceWarningItems(elements []jsondoc.Value) []*linksgatev1.DeviceWarningItem {
	var items []*linksgatev1.DeviceWarningItem
	for i := range elements {
		if elements[i].Kind == jsondoc.Object {
			items = append(items, deviceWarningItem(elements[i].Members))
		}
	}
	return items
}

func deviceWarningItem(members []jsondoc.Member) *linksgatev1.DeviceWarningItem {
	item := &linksgatev1.DeviceWarningItem{}
	item.Fields = typed(members, func(key, text string) bool {
		switch key {
		case "deviceId":
			item.Iccid = text
		case "warningCode":
			item.Warning, item.WarningCode = deviceWarnings[text], text
		case "expireTime":
			item.ExpiresAt, item.ExpiresAtText = timestamp(text), text
		default:
			return false
		}
		return true
	})
	return item
}

// sentAt reads the header `x-lf-timestamp`. Two of them do not say which one
// counts.
func sentAt(headers []*linksgatev1.RequestHeader) *timestamppb.Timestamp {
	var sent *timestamppb.Timestamp
	found := false
	for _, h := range headers {
		if h.GetName() != "x-lf-timestamp" {
			continue
		}
		if found {
			return nil
		}
		sent, found = unixMilli(h.GetValue()), true
	}
	return sent
}

var (
	orderStatuses  = byCode[linksgatev1.PlanOrderStatus](linksgatev1.PlanOrderStatus_name)
	deviceWarnings = byCode[linksgatev1.DeviceWarningCode](linksgatev1.DeviceWarningCode_name)
)

// byCode maps the text of Linksfield's codes to the values of an enum whose
// numbers are those codes. A missing key gives the unspecified value.
func byCode[Enum ~int32](names map[int32]string) map[string]Enum {
	codes := make(map[string]Enum, len(names))
	for code := range names {
		codes[strconv.Itoa(int(code))] = Enum(code)
	}
	return codes
}

// documentedNames are Linksfield's names of members, by the kind's name; those of "" mean the same in every body.
var documentedNames = map[string][]string{
	"":                    {"sim_id", "partner_code"},
	"sms-received":        {"imsi", "message_type", "text_message", "received_at"},
	"plan-order-status":   {"operation", "orderid", "assetid", "imsi", "time"},
	"mall-device-warning": {"devices.deviceId", "devices.warningCode", "devices.expireTime"},
}

// IsDocumented reports whether Linksfield documents a member of the bodies of a kind. path has the key at each level, with periods between.
func IsDocumented(kind, path string) bool {
	return slices.Contains(documentedNames[""], path) || slices.Contains(documentedNames[kind], path)
}

// IsTime reports whether a text can be read as a time without guessing: Unix milliseconds or RFC 3339.
func IsTime(text string) bool { return timestamp(text) != nil }
