package payload_test

import (
	"slices"
	"strings"
	"testing"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/payload"
)

// TestIndex requires that what filters look at is found under documented names, under those that the operator has configured, and, of SIMs,
// by shape where neither gives one; in the form in which ICCIDs are compared.
func TestIndex(t *testing.T) {
	paths := func(texts ...string) (paths []payload.Path) {
		for _, text := range texts {
			path, err := payload.ParsePath(text)
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
		}
		return paths
	}
	taught := payload.Names{
		ICCID: paths("simId", "data.sims.iccid"), IMSI: paths("data.imsi"), PartnerCode: paths("partner", "data.partner"), OccurredAt: paths("at", "data.at"),
	}
	const sim, other = "89860220190123456789", "89314404000816575667"
	for body, want := range map[string]*linksgatev1.Notification{
		`{"simId":"8986 0220 1901 2345 6789","partner":"P1","at":"1642385160000"}`: {Iccids: []string{sim}, PartnerCode: "P1"},
		`{"data":{"sims":[{"iccid":89860220190123456789},{"iccid":"` + other + `F"},{"x":1}],"imsi":["1","2,3"],"partner":"P2","at":"2026-11-27T12:00:00Z"}}`: {
			Iccids: []string{sim, other}, PartnerCode: "P2", Imsis: []string{"1", "2", "3"},
		},
		`{"sim_id":"` + sim + `","simId":"` + sim + `","partner_code":"P0","partner":"P1"}`: {Iccids: []string{sim}, PartnerCode: "P0"},
		`{"x":["` + sim + `",{"y":"` + other + `"}],"z":89860220190123456789}`:              {Iccids: []string{sim, other}, FoundIccids: []string{sim, other}},
		`{"simId":"1","x":"` + sim + `"}`:                                                   {Iccids: []string{"1"}},
		`{"sim_id":8.986e19,"x":"1642385160000"}`:                                           {DamagedIccids: []string{"8.986e19"}},
		`{"text":"call 89860220190123456789 please"}`:                                       {},
	} {
		n := &linksgatev1.Notification{Kind: linksgatev1.NotificationKind_NOTIFICATION_KIND_DATA_USAGE_ALERT, Imsis: []string{"of before"}}
		payload.Fill(n, mustParse(t, body), taught)
		if !slices.Equal(n.GetIccids(), want.GetIccids()) || !slices.Equal(n.GetFoundIccids(), want.GetFoundIccids()) ||
			!slices.Equal(n.GetDamagedIccids(), want.GetDamagedIccids()) || n.GetPartnerCode() != want.GetPartnerCode() ||
			!slices.Equal(n.GetImsis(), want.GetImsis()) || (n.GetOccurredAt() != nil) != strings.Contains(body, `"at"`) {
			t.Errorf("%s: %v; want %v", body, n, want)
		}
	}
	for _, text := range []string{"", ".", "a.", ".a", strings.Repeat("a.", 8) + "a", strings.Repeat("a", 65), "a\n"} {
		if path, err := payload.ParsePath(text); err == nil {
			t.Errorf("%q is taken for %v", text, path)
		}
	}
}
