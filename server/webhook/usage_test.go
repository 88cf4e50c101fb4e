package webhook

import (
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	linksgatev1 "github.com/linksgate/linksgate/gen/linksgate/v1"
	"github.com/linksgate/linksgate/server/signature"
)

func testAccounts(value string) map[string]*Account {
	return map[string]*Account{"acme": {Keys: signature.Keyring{
		MD5:  []signature.Secret{{Name: "a", Value: value}, {Name: "b", Value: "of b"}},
		HMAC: map[string][]signature.Secret{"key": {{Name: "a", Value: value}}},
	}}}
}

func (u *Uses) lastUsed(id SecretID) time.Time {
	for _, use := range u.List() {
		if use.SecretID == id {
			return use.LastUsed
		}
	}
	return time.Time{}
}

func TestTheLatestUseIsRemembered(t *testing.T) {
	t.Parallel()
	uses := usesOf(testAccounts("of a"), &Uses{})
	id, start := SecretID{"acme", signature.SchemeMD5, "", "a"}, time.Unix(1_800_000_000, 0).UTC()
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for n := range 1000 {
				uses.record(id, start.Add(time.Duration(n*8+i)))
			}
		})
	}
	group.Wait()
	if got, want := uses.lastUsed(id), start.Add(7999); !got.Equal(want) {
		t.Errorf("last used at %v; want %v", got, want)
	}
	uses.record(SecretID{"acme", signature.SchemeMD5, "", "unknown"}, start)
	uses.record(SecretID{"nobody", signature.SchemeMD5, "", "a"}, start)
	for _, use := range uses.List() {
		if use.SecretID != id && !use.LastUsed.IsZero() {
			t.Errorf("%+v: it was not used", use)
		}
	}
}

// TestOldRecordsSpeakOfOldSecrets learns from the log after a reload has given a secret another value under its name.
func TestOldRecordsSpeakOfOldSecrets(t *testing.T) {
	t.Parallel()
	old := usesOf(testAccounts("of a"), &Uses{})
	now := usesOf(testAccounts("of a, the second"), old)
	at := time.Unix(1_800_000_000, 0).UTC()
	for _, v := range []*linksgatev1.Verification{
		{Scheme: linksgatev1.SignatureScheme_SIGNATURE_SCHEME_MD5, SecretName: "a"},
		{Scheme: linksgatev1.SignatureScheme_SIGNATURE_SCHEME_MD5, SecretName: "b"},
		{Scheme: linksgatev1.SignatureScheme_SIGNATURE_SCHEME_HMAC_SHA1, KeyId: "key", SecretName: "a"},
		{Scheme: linksgatev1.SignatureScheme_SIGNATURE_SCHEME_HMAC_SHA1, KeyId: "another", SecretName: "a"},
		{Status: linksgatev1.VerificationStatus_VERIFICATION_STATUS_UNSIGNED, SecretName: "a"},
	} {
		old.Learn(&linksgatev1.Notification{Account: "acme", Verification: v, ReceivedAt: timestamppb.New(at)})
	}
	for _, use := range now.List() {
		if used := !use.LastUsed.IsZero(); used != (use.Name == "b") {
			t.Errorf("%+v: only b is what it was when the log was written", use)
		}
	}
	if len(now.List()) != 3 {
		t.Errorf("%+v; want three secrets", now.List())
	}
}

func BenchmarkRecord(b *testing.B) {
	uses := usesOf(testAccounts("of a"), &Uses{})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			uses.record(SecretID{"acme", signature.SchemeHMAC, "key", "a"}, time.Now())
		}
	})
}
