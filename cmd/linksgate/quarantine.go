package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/payload"
)

const quarantineLong = `Quarantine is where a gateway keeps the requests that it could not verify or read,
so that a notification that Linksfield sends once is not lost because a secret was
wrong. It is bounded in size and age; the oldest entries go first.

After the configuration was mended: see with release --all --dry-run what would
verify now, then release it. Each entry gets into the log once, however often it is
released, and in the order of arrival.

Commands that take IDs take --all instead, and then the same filters as list.`

const quarantineExample = `  # What is there, and why
  linksgate quarantine list --since 2h
  linksgate quarantine show 6w7v28hpc8bfm-q17

  # The secret has been corrected
  linksgate quarantine release --all --reason signature-mismatch --dry-run
  linksgate quarantine release --all --reason signature-mismatch

  # What strangers sent
  linksgate quarantine purge --all --reason signature-missing --yes`

// quarantineFlags are the flags that all the commands of quarantine share.
type quarantineFlags struct {
	connection
}

func newQuarantineCommand() *cobra.Command {
	var f quarantineFlags
	cmd := &cobra.Command{
		Use:     "quarantine",
		Short:   "Look at what a gateway refused, and release or purge it",
		Long:    quarantineLong,
		Example: quarantineExample,
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	f.register(flags)
	cmd.AddCommand(newQuarantineListCommand(&f), newQuarantineShowCommand(&f), newQuarantineExplainCommand(&f), newQuarantineReleaseCommand(&f), newQuarantinePurgeCommand(&f))
	return cmd
}

// call calls run with a client of the gateway.
func (f *quarantineFlags) call(run func(*quarantineClient) error) error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return run(&quarantineClient{linksgatev1.NewQuarantineServiceClient(conn), &f.connection})
}

// quarantineClient reads a gateway's quarantine.
type quarantineClient struct {
	linksgatev1.QuarantineServiceClient
	*connection
}

// entries yields the entries that a request asks for, page by page, in the order of arrival. A page ends with the id of an entry
// and the next one begins after it, so entries that are removed meanwhile make no difference to the others.
func (c *quarantineClient) entries(ctx context.Context, request *linksgatev1.ListQuarantineEntriesRequest) iter.Seq2[*linksgatev1.QuarantineEntry, error] {
	return func(yield func(*linksgatev1.QuarantineEntry, error) bool) {
		for {
			page, err := c.ListQuarantineEntries(ctx, request)
			if err != nil {
				yield(nil, c.explain("list the quarantine", err))
				return
			}
			for _, entry := range page.GetEntries() {
				if !yield(entry, nil) {
					return
				}
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}

// get returns entries in the order of arrival. Of ids that give none it tells absent, which says whether to go on, and why there is none.
func (c *quarantineClient) get(ctx context.Context, ids []string, absent func(id string, why error) error) ([]*linksgatev1.QuarantineEntry, error) {
	var entries []*linksgatev1.QuarantineEntry
	for _, id := range unique(ids) {
		response, err := c.GetQuarantineEntry(ctx, &linksgatev1.GetQuarantineEntryRequest{Id: id})
		switch {
		case err == nil:
			entries = append(entries, response.GetEntry())
		case isHopeless(status.Code(err)):
			return nil, c.explain("get "+visible(id), err)
		default:
			if err := absent(id, err); err != nil {
				return nil, err
			}
		}
	}
	slices.SortStableFunc(entries, func(a, b *linksgatev1.QuarantineEntry) int {
		return a.GetReceivedAt().AsTime().Compare(b.GetReceivedAt().AsTime())
	})
	return entries, nil
}

// unique returns ids without repetitions.
func unique(ids []string) []string {
	var once []string
	for _, id := range ids {
		if !slices.Contains(once, id) {
			once = append(once, id)
		}
	}
	return once
}

// isHopeless reports whether a call that failed with a code was about the gateway, not about one entry.
func isHopeless(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied:
		return true
	}
	return false
}

// whyAbsent says why an id is of no entry; "" if the error is about something else.
func (c *quarantineClient) whyAbsent(err error) string {
	switch status.Code(err) {
	case codes.NotFound:
		return "not in quarantine: it was released, purged, or is no longer retained"
	case codes.InvalidArgument:
		return "not the id of a quarantine entry: list shows the ids"
	case codes.FailedPrecondition:
		return "not in quarantine: the id belongs to another gateway's log; is " + visible(c.address) + " the right address?"
	}
	return ""
}

// explain turns the error of a call into one that says what to do.
func (c *quarantineClient) explain(what string, err error) error {
	st := status.Convert(err)
	if err := c.examineFailure(st, c.address); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if why := c.whyAbsent(err); why != "" {
		return fmt.Errorf("%s: %s", what, why)
	}
	advice := "the gateway's log says more"
	switch st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded:
		advice = "is the gateway running at " + visible(c.address) + "? Nothing is lost by trying again"
	case codes.Unimplemented, codes.Unknown:
		advice = "is " + visible(c.address) + " the gRPC address of a Linksgate?"
	case codes.Canceled:
		advice = "interrupted: what was done stays done"
	case codes.Unauthenticated, codes.PermissionDenied:
		advice = credentialAdvice
	}
	return fmt.Errorf("%s: %s: %s\n  %s", what, st.Code(), escaped(st.Message()), advice)
}

// entryFilter are the flags that select entries.
type entryFilter struct {
	reasons, accounts, kinds []string
	since                    string
}

func (f *entryFilter) register(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.reasons, "reason", nil, "only refused for this `REASON`: "+strings.Join(reasonNames(), ", ")+"; repeatable")
	flags.StringArrayVar(&f.accounts, "account", nil, "only of the account `NAME`; repeatable")
	flags.StringSliceVar(&f.kinds, "kind", nil, "only of `KIND`: "+strings.Join(payload.KindNames(payload.Kinds()), ", ")+"; repeatable")
	flags.StringVar(&f.since, "since", "", "only received at or after a `TIME`: 2026-03-01T08:00:00Z, or a duration ago such as 2h")
}

func (f *entryFilter) given() bool {
	return len(f.reasons)+len(f.accounts)+len(f.kinds) > 0 || f.since != ""
}

// greatestPage is by ListQuarantineEntriesRequest.page_size.
const greatestPage = 1000

// request asks for the first page of what the flags select.
func (f *entryFilter) request(now time.Time) (*linksgatev1.ListQuarantineEntriesRequest, error) {
	kinds, err := parseKinds(f.kinds)
	if err != nil {
		return nil, err
	}
	request := &linksgatev1.ListQuarantineEntriesRequest{Accounts: f.accounts, Kinds: kinds, PageSize: greatestPage}
	for _, name := range f.reasons {
		reason, ok := reasonByName(name)
		if !ok {
			return nil, usagef("--reason: %q is not a reason; reasons are %s", name, strings.Join(reasonNames(), ", "))
		}
		request.Reasons = append(request.Reasons, reason)
	}
	if f.since != "" {
		since, err := parseSince(f.since, now)
		if err != nil {
			return nil, err
		}
		request.Since = timestamppb.New(since)
	}
	return request, nil
}

// A reason's name is its enum value's, as a person writes it.
const reasonPrefix = "QUARANTINE_REASON_"

func reasonName(reason linksgatev1.QuarantineReason) string {
	if linksgatev1.QuarantineReason_name[int32(reason)] == "" {
		return fmt.Sprintf("reason-%d", reason) // of a newer gateway
	}
	return enumText(reason.String(), reasonPrefix)
}

func reasonNames() []string {
	var names []string
	for number := range int32(len(linksgatev1.QuarantineReason_name)) {
		if reason := linksgatev1.QuarantineReason(number); reason != linksgatev1.QuarantineReason_QUARANTINE_REASON_UNSPECIFIED {
			names = append(names, reasonName(reason))
		}
	}
	return names
}

func reasonByName(name string) (linksgatev1.QuarantineReason, bool) {
	value, ok := linksgatev1.QuarantineReason_value[reasonPrefix+strings.ReplaceAll(strings.ToUpper(name), "-", "_")]
	return linksgatev1.QuarantineReason(value), ok && value != 0
}

// choice is which entries a command is about: ids, or all that a filter selects.
type choice struct {
	all bool
	entryFilter
}

func (c *choice) register(flags *pflag.FlagSet) {
	flags.BoolVar(&c.all, "all", false, "all entries, or all that the filters below select")
	c.entryFilter.register(flags)
}

// check refuses a choice that is none, or two.
func (c *choice) check(ids []string) error {
	switch {
	case c.all && len(ids) > 0:
		return usagef("give IDs or --all, not both")
	case !c.all && len(ids) == 0:
		return usagef("give the IDs of entries, which list shows, or --all")
	case !c.all && c.given():
		return usagef("--reason, --account, --kind and --since need --all")
	}
	return nil
}

// entries yields the chosen entries in the order of arrival. Of ids that give none it tells absent, as get does.
func (c *choice) entries(ctx context.Context, client *quarantineClient, ids []string, absent func(string, error) error) (iter.Seq2[*linksgatev1.QuarantineEntry, error], error) {
	if !c.all {
		entries, err := client.get(ctx, ids, absent)
		return func(yield func(*linksgatev1.QuarantineEntry, error) bool) {
			for _, entry := range entries {
				if !yield(entry, nil) {
					return
				}
			}
		}, err
	}
	request, err := c.request(time.Now())
	if err != nil {
		return nil, err
	}
	return client.entries(ctx, request), nil
}

// ticker tells on stderr, every now and then, how far a command is.
type ticker struct {
	w    io.Writer
	last time.Time
}

// progressPeriod is short enough to show that something happens, and long enough for a log file.
const progressPeriod = 2 * time.Second

func newTicker(w io.Writer) *ticker { return &ticker{w, time.Now()} }

func (t *ticker) tell(format string, args ...any) {
	if now := time.Now(); now.Sub(t.last) >= progressPeriod {
		t.last = now
		fmt.Fprintf(t.w, "linksgate: "+format+"\n", args...)
	}
}

func entriesText(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}
