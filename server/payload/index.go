package payload

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/iccid"
	"github.com/linksgate/linksgate/server/jsondoc"
)

// Names are where the bodies of a kind have what Linksfield does not document, as the operator has found out.
type Names struct {
	// ICCID, IMSI and PartnerCode: all that is found under any of the paths; of PartnerCode and OccurredAt the first.
	ICCID, IMSI, PartnerCode, OccurredAt []Path
}

// Equal reports whether two have the same names.
func (n Names) Equal(other Names) bool {
	same := func(a, b []Path) bool { return slices.EqualFunc(a, b, slices.Equal[Path]) }
	return same(n.ICCID, other.ICCID) && same(n.IMSI, other.IMSI) && same(n.PartnerCode, other.PartnerCode) && same(n.OccurredAt, other.OccurredAt)
}

// Path leads from a body to members: the key at each level. Arrays on the way are gone through.
type Path []string

// maxPathKeys bounds a path.
const maxPathKeys = 8

var pathKey = regexp.MustCompile(`^[^.\x00-\x1f]{1,64}$`)

// ParsePath reads a path such as data.iccid.
func ParsePath(text string) (Path, error) {
	keys := strings.Split(text, ".")
	if len(keys) > maxPathKeys || slices.ContainsFunc(keys, func(key string) bool { return !pathKey.MatchString(key) }) {
		return nil, fmt.Errorf("%.100q is not a path of members such as data.iccid: up to %d keys with a period between", text, maxPathKeys)
	}
	return keys, nil
}

// texts appends the texts that a path leads to.
func (p Path) texts(texts []string, v jsondoc.Value) []string {
	if v.Kind == jsondoc.Array {
		for i := range v.Elements {
			texts = p.texts(texts, v.Elements[i])
		}
		return texts
	}
	if len(p) == 0 {
		if text, ok := scalar(v); ok {
			texts = append(texts, text)
		}
		return texts
	}
	if member, ok := v.Lookup(p[0]); ok {
		texts = p[1:].texts(texts, member)
	}
	return texts
}

func textsAt(paths []Path, body jsondoc.Value) (texts []string) {
	for _, path := range paths {
		texts = path.texts(texts, body)
	}
	return texts
}

// ClearIndex takes from a notification what filters look at, and what else does not stand in its payload.
func ClearIndex(n *linksgatev1.Notification) {
	n.Iccids, n.FoundIccids, n.DamagedIccids, n.Imsis, n.PartnerCode, n.OccurredAt = nil, nil, nil, nil, "", nil
}

// fillIndex sets what filters look at, which does not depend on how much of the payload could be typed: `sim_id` and `partner_code` mean
// the same in every body.
func fillIndex(n *linksgatev1.Notification, body jsondoc.Value, names Names) {
	documented := func(key string) string {
		member, _ := body.Lookup(key)
		text, _ := scalar(member)
		return text
	}
	if codes := distinct(append([]string{documented("partner_code")}, textsAt(names.PartnerCode, body)...)); len(codes) > 0 {
		n.PartnerCode = codes[0]
	}
	sims := append([]string{documented("sim_id")}, textsAt(names.ICCID, body)...)
	for _, device := range n.GetDeviceWarning().GetDevices() {
		sims = append(sims, device.Iccid)
	}
	for _, text := range distinct(sims) {
		if iccid.IsDamaged(text) {
			n.DamagedIccids = append(n.DamagedIccids, text)
		} else {
			n.Iccids = append(n.Iccids, iccid.Normal(text))
		}
	}
	n.Iccids = distinct(n.Iccids)
	if len(n.Iccids) == 0 {
		n.FoundIccids = distinct(shaped(nil, body))
		n.Iccids = slices.Clone(n.FoundIccids)
	}
	for _, text := range textsAt(names.IMSI, body) {
		n.Imsis = append(n.Imsis, commaSeparated(text)...)
	}
	n.Imsis = distinct(n.Imsis)
	for _, text := range textsAt(names.OccurredAt, body) {
		if n.OccurredAt = timestamp(text); n.OccurredAt != nil {
			break
		}
	}
}

// maxFound bounds how many ICCIDs are found by their shape.
const maxFound = 16

// shaped appends what has the shape of an ICCID, anywhere.
func shaped(found []string, v jsondoc.Value) []string {
	if text, ok := scalar(v); ok && len(found) < maxFound && strings.HasPrefix(strings.TrimLeft(text, " \t"), "89") {
		if normal := iccid.Normal(text); iccid.IsShaped(normal) {
			found = append(found, normal)
		}
	}
	for i := range v.Members {
		found = shaped(found, v.Members[i].Value)
	}
	for i := range v.Elements {
		found = shaped(found, v.Elements[i])
	}
	return found
}

// distinct keeps the first of each text and drops empty ones, in place.
func distinct(texts []string) []string {
	if len(texts) == 0 {
		return nil
	}
	seen := map[string]bool{"": true}
	return slices.DeleteFunc(texts, func(text string) bool {
		again := seen[text]
		seen[text] = true
		return again
	})
}
