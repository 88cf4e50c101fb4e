package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/payload"
)

// A line shows the beginning of what is long; --json shows all of it.
const (
	shownRunes  = 200 // of one text
	shownPieces = 8   // of fields or devices
	shownICCIDs = 3
)

// printer returns a function that writes notifications, one line each, and
// returns nil only when out has passed them on.
func printer(out *bufio.Writer, asJSON bool) func([]*linksgatev1.Notification) error {
	return func(notifications []*linksgatev1.Notification) error {
		for _, n := range notifications {
			line := []byte(textLine(n))
			if asJSON {
				var err error
				if line, err = jsonLine(n); err != nil {
					return fmt.Errorf("encode %s: %w", visible(n.GetId()), err)
				}
			}
			// A write that fails makes all later ones and Flush fail too.
			_, _ = out.Write(line)
			_ = out.WriteByte('\n')
		}
		return out.Flush()
	}
}

// jsonLine is the Protobuf JSON form. Runes that do not print are escaped, which
// to a reader of JSON is the same text.
func jsonLine(n proto.Message) ([]byte, error) {
	data, err := protojson.Marshal(n)
	if err != nil {
		return nil, err
	}
	// protojson puts spaces where it likes, on purpose; scripts like them gone.
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return nil, err
	}
	return escapeJSON(compact.Bytes()), nil
}

// escapeJSON escapes what does not print in valid JSON text. Control characters
// of ASCII are escaped in it already, except for DEL.
func escapeJSON(text []byte) []byte {
	unprintable := func(r rune) bool { return r >= utf8.RuneSelf-1 && !strconv.IsPrint(r) }
	if bytes.IndexFunc(text, unprintable) < 0 {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		switch high, low := utf16.EncodeRune(r); {
		case !unprintable(r):
			b.WriteRune(r)
		case high != utf8.RuneError:
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

// textLine is a notification for a person.
func textLine(n *linksgatev1.Notification) string {
	return strings.Join([]string{
		n.GetReceivedAt().AsTime().UTC().Format("2006-01-02T15:04:05.000Z"),
		visible(n.GetAccount()),
		kindText(n.GetKind()),
		iccidText(n.GetIccids()),
		gist(n),
		verificationText(n.GetVerification()),
		visible(n.GetId()),
	}, "  ")
}

func kindText(kind linksgatev1.NotificationKind) string {
	if name := payload.KindName(kind); name != "" {
		return name
	}
	if kind == linksgatev1.NotificationKind_NOTIFICATION_KIND_UNSPECIFIED {
		return "-" // of what went to a wrong URL
	}
	return fmt.Sprintf("kind-%d", kind) // of a newer gateway
}

func iccidText(iccids []string) string {
	if len(iccids) == 0 {
		return "-"
	}
	return list(iccids, shownICCIDs, shown)
}

func verificationText(v *linksgatev1.Verification) string {
	switch {
	case v.GetStatus() == linksgatev1.VerificationStatus_VERIFICATION_STATUS_UNSIGNED:
		return "unsigned"
	case v.GetStatus() == linksgatev1.VerificationStatus_VERIFICATION_STATUS_FORCED:
		return "forced"
	case v.GetStatus() != linksgatev1.VerificationStatus_VERIFICATION_STATUS_VERIFIED:
		return "verification-unknown"
	case v.GetScheme() == linksgatev1.SignatureScheme_SIGNATURE_SCHEME_MD5:
		return "verified:md5"
	case v.GetScheme() == linksgatev1.SignatureScheme_SIGNATURE_SCHEME_HMAC_SHA1:
		return "verified:hmac-sha1"
	}
	return "verified"
}

// gist is what a notification says, as far as it is typed.
func gist(n *linksgatev1.Notification) string {
	switch p := n.GetPayload().(type) {
	case *linksgatev1.Notification_SmsReceived:
		return gistOfSMS(p.SmsReceived)
	case *linksgatev1.Notification_PlanOrderStatusChange:
		return gistOfOrder(p.PlanOrderStatusChange)
	case *linksgatev1.Notification_DeviceWarning:
		return words(list(p.DeviceWarning.GetDevices(), shownPieces, gistOfDevice), fieldsText(p.DeviceWarning.GetFields()))
	case *linksgatev1.Notification_DataUsageAlert:
		return words(fieldsText(p.DataUsageAlert.GetFields()))
	case *linksgatev1.Notification_SmsDeliveryReport:
		return words(fieldsText(p.SmsDeliveryReport.GetFields()))
	case *linksgatev1.Notification_RechargeSuccess:
		return words(fieldsText(p.RechargeSuccess.GetFields()))
	case *linksgatev1.Notification_CubeEvent:
		return words(fieldsText(p.CubeEvent.GetFields()))
	case *linksgatev1.Notification_PlatformAlarm:
		return words(fieldsText(p.PlatformAlarm.GetFields()))
	case *linksgatev1.Notification_Unrecognized:
		return "unrecognized " + shown(p.Unrecognized.GetReason())
	}
	return "untyped" // of a newer gateway
}

func gistOfSMS(sms *linksgatev1.SmsReceived) string {
	messageType := ""
	if t := sms.GetMessageTypeText(); t != "" {
		messageType = "type=" + shown(t)
	}
	return words(strconv.Quote(shortened(sms.GetText(), shownRunes)), messageType, fieldsText(sms.GetFields()))
}

func gistOfOrder(order *linksgatev1.PlanOrderStatusChange) string {
	status := "status unknown"
	if s := order.GetStatus(); s != linksgatev1.PlanOrderStatus_PLAN_ORDER_STATUS_UNSPECIFIED {
		status = enumText(s.String(), "PLAN_ORDER_STATUS_")
	}
	imsis := ""
	if len(order.GetImsis()) > 0 {
		imsis = "imsi=" + list(order.GetImsis(), shownICCIDs, shown)
	}
	return words(status, pair("code", order.GetStatusCode()), pair("order", order.GetOrderId()), imsis, fieldsText(order.GetFields()))
}

func gistOfDevice(device *linksgatev1.DeviceWarningItem) string {
	warning := "warning-" + shown(device.GetWarningCode())
	if w := device.GetWarning(); w != linksgatev1.DeviceWarningCode_DEVICE_WARNING_CODE_UNSPECIFIED {
		warning = enumText(w.String(), "DEVICE_WARNING_CODE_")
	}
	return shown(device.GetIccid()) + ":" + warning
}

// fieldsText shows members that are not modelled.
func fieldsText(fields map[string]string) string {
	all := make([]string, 0, shownPieces)
	for i, key := range slices.Sorted(maps.Keys(fields)) {
		if i == shownPieces {
			all = append(all, fmt.Sprintf("+%d", len(fields)-i))
			break
		}
		all = append(all, shown(key)+"="+shown(fields[key]))
	}
	return strings.Join(all, " ")
}

// pair is key=value, or nothing when there is no value.
func pair(key, value string) string {
	if value == "" {
		return ""
	}
	return key + "=" + shown(value)
}

func shown(text string) string { return visible(shortened(text, shownRunes)) }

// list joins the first few elements, and says how many more there are.
func list[T any](elements []T, few int, text func(T) string) string {
	var all []string
	for i, e := range elements {
		if i == few {
			all = append(all, fmt.Sprintf("+%d", len(elements)-i))
			break
		}
		all = append(all, text(e))
	}
	return strings.Join(all, ",")
}

// words joins what is not empty; "-" when nothing is.
func words(parts ...string) string {
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, " ")
}

// enumText is the name of an enum value as a person writes it.
func enumText(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", "-")
}
