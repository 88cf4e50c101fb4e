package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/payload"
)

const releaseLong = `Release verifies entries again, with the configuration that the gateway has now. What
verifies is appended to the log, exactly once, and leaves the quarantine; the rest
stays. Its time of receipt remains that of its arrival.

What went to a wrong URL (reason no-such-url) is released once you know what its account
and kind should have been: --as-account and --as-kind. It must be signed, or --force.

An ID that is not in quarantine keeps the others from nothing. The exit status is 1 if
an entry could not be released.`

// releaser releases entries and counts.
type releaser struct {
	client        *quarantineClient
	force, dryRun bool
	asAccount     string
	asKind        linksgatev1.NotificationKind
	out           io.Writer
	progress      *ticker

	released, before, copies, refused, gone, failed int
}

func newQuarantineReleaseCommand(f *quarantineFlags) *cobra.Command {
	var c choice
	var force, dryRun bool
	var asAccount, asKind string
	cmd := &cobra.Command{
		Use:   "release {ID ... | --all}",
		Short: "Verify entries again and put them into the log",
		Long:  releaseLong,
		RunE: func(cmd *cobra.Command, ids []string) error {
			if err := c.check(ids); err != nil {
				return err
			}
			if (asAccount == "") != (asKind == "") {
				return usagef("--as-account and --as-kind need each other: both say what the URL should have been")
			}
			kind, known := payload.KindByName(asKind)
			if asKind != "" && !known {
				return usagef("--as-kind: no such kind as %q; the kinds are %s", asKind, strings.Join(payload.KindNames(payload.Kinds()), ", "))
			}
			return f.call(func(client *quarantineClient) error {
				r := releaser{client: client, force: force, dryRun: dryRun, asAccount: asAccount, asKind: kind, out: cmd.OutOrStdout(), progress: newTicker(cmd.ErrOrStderr())}
				return r.run(cmd.Context(), &c, ids)
			})
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().BoolVar(&force, "force", false, "also what does not verify, marked as forced")
	cmd.Flags().StringVar(&asAccount, "as-account", "", "release what went to a wrong URL as a notification of this account (`NAME`)")
	cmd.Flags().StringVar(&asKind, "as-kind", "", "and of this `KIND`, such as sms-received")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would happen, and why")
	return cmd
}

func (r *releaser) run(ctx context.Context, c *choice, ids []string) error {
	entries, err := c.entries(ctx, r.client, ids, r.fail)
	if err != nil {
		return err
	}
	for entry, listErr := range entries {
		if err = listErr; err != nil {
			break
		}
		if err = r.release(ctx, entry.GetId()); err != nil {
			break
		}
		r.progress.tell("%s so far", r.summary())
	}
	fmt.Fprintln(r.out, r.summary())
	if err == nil && r.refused+r.failed > 0 || err == nil && r.gone > 0 && !c.all {
		err = errReported
	}
	return err
}

// release releases one entry and prints what became of it. It returns an error only if going on is of no use.
func (r *releaser) release(ctx context.Context, id string) error {
	response, err := r.client.ReleaseQuarantineEntry(ctx, &linksgatev1.ReleaseQuarantineEntryRequest{
		Id: id, Force: r.force, DryRun: r.dryRun, AsAccount: r.asAccount, AsKind: r.asKind,
	})
	if err != nil {
		return r.fail(id, err)
	}
	return r.print(id, response)
}

// fail tells of an entry that could not be released. It returns an error as release does.
func (r *releaser) fail(id string, err error) error {
	why := r.client.whyAbsent(err)
	switch {
	case why != "":
		r.gone++
		return r.line(id, why)
	case isHopeless(status.Code(err)):
		r.failed++
		return r.client.explain("release "+visible(id), err)
	}
	r.failed++
	return r.line(id, "failed: "+escaped(status.Convert(err).Message()))
}

func (r *releaser) line(id, text string) error {
	_, err := fmt.Fprintf(r.out, "%s  %s\n", visible(id), text)
	return err
}

func (r *releaser) print(id string, response *linksgatev1.ReleaseQuarantineEntryResponse) error {
	notification := visible(response.GetNotificationId())
	switch response.GetOutcome() {
	case linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_RELEASED:
		r.released++
		if r.dryRun {
			return r.line(id, "would be released: "+releaseReason(response.GetVerification()))
		}
		return r.line(id, "released as "+notification+": "+releaseReason(response.GetVerification()))
	case linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_ALREADY_RELEASED:
		r.before++
		return r.line(id, "was released before as "+notification)
	case linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_DUPLICATE:
		r.copies++
		return r.line(id, "a copy was accepted meanwhile as "+notification)
	case linksgatev1.ReleaseOutcome_RELEASE_OUTCOME_REFUSED:
		r.refused++
		return r.line(id, "stays: "+escaped(response.GetDetail()))
	}
	r.failed++
	return errors.New("the gateway gave an outcome that this linksgate does not know: use one of the same version")
}

// releaseReason says how a notification comes to be released.
func releaseReason(v *linksgatev1.Verification) string {
	switch v.GetStatus() {
	case linksgatev1.VerificationStatus_VERIFICATION_STATUS_FORCED:
		return "forced, it does not verify"
	case linksgatev1.VerificationStatus_VERIFICATION_STATUS_UNSIGNED:
		return "unsigned, which its account now accepts"
	}
	return words("verified", enumText(v.GetScheme().String(), "SIGNATURE_SCHEME_"), pair("key-id", v.GetKeyId()),
		pair("secret", v.GetSecretName()), pair("reading", v.GetReading()))
}

func (r *releaser) summary() string {
	verb := "released"
	if r.dryRun {
		verb = "would be released"
	}
	text := fmt.Sprintf("%d %s", r.released, verb)
	for _, part := range []struct {
		n    int
		what string
	}{
		{r.before, "released before"}, {r.copies, "copies of what the log holds"}, {r.refused, "not verified, still in quarantine"},
		{r.gone, "not in quarantine"}, {r.failed, "failed"},
	} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	return text
}
