package rpc

import (
	"fmt"
	"regexp"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
)

// Bounds and defaults that the protos document.
const (
	defaultLease    = 30 * time.Second
	minLease        = time.Second
	maxLease        = time.Hour
	defaultAttempts = 10
	maxAttempts     = 100
	defaultInitial  = time.Second
	maxInitial      = time.Hour
	defaultMaximum  = 5 * time.Minute
	maxDelay        = 24 * time.Hour
	defaultInFlight = 16
	maxInFlight     = 1024
	defaultWait     = 20 * time.Second
	maxWait         = time.Minute
	minPause        = time.Second
	maxPause        = time.Hour
	maxMemberID     = 64
	maxLeaseTokens  = 1024
	maxParkedIDs    = 1000
	maxLeasesBytes  = 1 << 20 // in one frame
)

var groupName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func checkGroupName(field, name string) error {
	if !groupName.MatchString(name) {
		return &fieldError{field: field, problem: "must be 1 to 63 lower-case letters, digits and hyphens, beginning with a letter"}
	}
	return nil
}

// completeGroup checks a group and fills in its defaults.
func completeGroup(g *linksgatev1.Group) error {
	if err := checkGroupName("group.name", g.GetName()); err != nil {
		return err
	}
	if _, err := toFilter(g.GetFilter(), "group.filter."); err != nil {
		return err
	}
	switch g.GetOrdering() {
	case linksgatev1.GroupOrdering_GROUP_ORDERING_UNSPECIFIED:
		g.Ordering = linksgatev1.GroupOrdering_GROUP_ORDERING_NONE
	case linksgatev1.GroupOrdering_GROUP_ORDERING_NONE, linksgatev1.GroupOrdering_GROUP_ORDERING_BY_SIM:
	default:
		return &fieldError{field: "group.ordering", problem: fmt.Sprintf("%d is not an ordering", g.GetOrdering())}
	}
	lease, err := toDuration("group.lease_duration", g.GetLeaseDuration(), defaultLease, minLease, maxLease)
	if err != nil {
		return err
	}
	g.LeaseDuration = durationpb.New(lease)
	if g.GetMaxAttempts() == 0 {
		g.MaxAttempts = defaultAttempts
	}
	if g.GetMaxAttempts() < 0 || g.GetMaxAttempts() > maxAttempts {
		return &fieldError{field: "group.max_attempts", problem: outside(g.GetMaxAttempts(), maxAttempts)}
	}
	initial, err := toDuration("group.back_off.initial", g.GetBackOff().GetInitial(), defaultInitial, 0, maxInitial)
	if err != nil {
		return err
	}
	maximum, err := toDuration("group.back_off.maximum", g.GetBackOff().GetMaximum(), max(defaultMaximum, initial), initial, maxDelay)
	if err != nil {
		return err
	}
	g.BackOff = &linksgatev1.RetryBackOff{Initial: durationpb.New(initial), Maximum: durationpb.New(maximum)}
	return nil
}

// toMost reads how many leases a member may have.
func toMost(field string, most int32) (int, error) {
	switch {
	case most == 0:
		return defaultInFlight, nil
	case most < 0 || most > maxInFlight:
		return 0, &fieldError{field: field, problem: outside(most, maxInFlight)}
	}
	return int(most), nil
}

// checkSettlement checks what Acknowledge, Reject and ExtendLeases have in common.
func checkSettlement(name, field string, count int) error {
	switch {
	case count == 0:
		return &fieldError{field: field, problem: "are required"}
	case count > maxLeaseTokens:
		return &fieldError{field: field, problem: fmt.Sprintf("%d entries, at most %d", count, maxLeaseTokens)}
	}
	return checkGroupName("group_name", name)
}

// setFields returns the settings that a group has.
func setFields(g *linksgatev1.Group) []string {
	var paths []string
	if g.GetFilter() != nil {
		paths = append(paths, "filter")
	}
	if g.GetLeaseDuration() != nil {
		paths = append(paths, "lease_duration")
	}
	if g.GetMaxAttempts() != 0 {
		paths = append(paths, "max_attempts")
	}
	if g.GetBackOff() != nil {
		paths = append(paths, "back_off")
	}
	if g.GetPaused() {
		paths = append(paths, "paused")
	}
	if g.GetOrdering() != linksgatev1.GroupOrdering_GROUP_ORDERING_UNSPECIFIED {
		paths = append(paths, "ordering")
	}
	return paths
}
