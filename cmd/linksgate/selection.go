package main

import (
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/payload"
)

// filterFlags select notifications of the log.
type filterFlags struct {
	accounts, kinds, iccids, partnerCodes []string
}

func (f *filterFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.accounts, "account", nil, "only of the account `NAME`; repeatable")
	flags.StringSliceVar(&f.kinds, "kind", nil, "only of `KIND`: "+strings.Join(payload.KindNames(payload.Kinds()), ", ")+"; repeatable")
	flags.StringArrayVar(&f.iccids, "iccid", nil, "only about the SIM with this `ICCID`; repeatable")
	flags.StringArrayVar(&f.partnerCodes, "partner-code", nil, "only of the partner `CODE`; repeatable")
}

func (f *filterFlags) filter() (*linksgatev1.NotificationFilter, error) {
	kinds, err := parseKinds(f.kinds)
	if err != nil {
		return nil, err
	}
	return &linksgatev1.NotificationFilter{Accounts: f.accounts, Kinds: kinds, Iccids: f.iccids, PartnerCodes: f.partnerCodes}, nil
}

// startFlags name a place in the log. Without any of them: its head.
type startFlags struct {
	since, after string
	fromStart    bool
}

func (f *startFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.since, "since", "", "start at a `TIME`: 2026-03-01T08:00:00Z, or a duration ago such as 2h")
	flags.StringVar(&f.after, "after", "", "start after the notification with this resume `TOKEN`")
	flags.BoolVar(&f.fromStart, "from-start", false, "start with the oldest notification that is retained")
}

// check refuses two places, and a token that a script failed to fill in.
func (f *startFlags) check(flags *pflag.FlagSet) error {
	switch {
	case flags.Changed("after") && f.after == "":
		return usagef("--after is empty: give a resume token, or --from-start")
	case f.after != "" && f.since != "", f.after != "" && f.fromStart, f.since != "" && f.fromStart:
		return usagef("--after, --since and --from-start exclude each other")
	}
	return nil
}

// start is the place that the flags name; nil if they name none.
func (f *startFlags) start(now time.Time) (*linksgatev1.Start, error) {
	switch {
	case f.after != "":
		return &linksgatev1.Start{Position: &linksgatev1.Start_After{After: f.after}}, nil
	case f.since != "":
		since, err := parseSince(f.since, now)
		return &linksgatev1.Start{Position: &linksgatev1.Start_Since{Since: timestamppb.New(since)}}, err
	case f.fromStart:
		return &linksgatev1.Start{Position: &linksgatev1.Start_Earliest{Earliest: true}}, nil
	}
	return nil, nil
}

// latest is the place after the newest notification.
func latest() *linksgatev1.Start {
	return &linksgatev1.Start{Position: &linksgatev1.Start_Latest{Latest: true}}
}

func parseSince(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	since, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, usagef("--since: %q is neither a time such as 2026-03-01T08:00:00Z nor a duration such as 90m or 2h", text)
	}
	return since, nil
}
