package records

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// sampleSession is a session with all its fields set.
func sampleSession(accessLength int) *session.Session {
	now := time.UnixMilli(1_700_000_000_123)
	s := session.NewSession(now, oauth.Tokens{
		Access: strings.Repeat("a", accessLength), Refresh: "refresh_1", Scope: "profile balance",
		Issued: now, Expires: now.Add(2 * time.Hour),
	}, oauth.NewUserInfo([oauth.FieldCount]oauth.Scalar{oauth.FieldID: "12345", oauth.FieldUsername: `"张伟"`, oauth.FieldBalance: `"750.00"`}, now))
	s.Generation = 7
	return s
}

// FuzzRecord: what is read as a record is written as the same one, its revision is what
// stores compare, and it opens under its own name with its own key only.
func FuzzRecord(f *testing.F) {
	name := sampleSession(1).ID.Hash()
	sealed, err := SealRecord(session.RecordKey{1}, name, sampleSession(20).AppendBinary(nil))
	if err != nil {
		f.Fatal(err)
	}
	good := Record{Head: session.Head{Revision: 3, Expires: time.UnixMilli(1), User: "abc", Kind: session.RecordLive}, Sealed: sealed}
	f.Add(good.String())
	f.Add("1 1 0 0 0 0 - gone\n")
	f.Add("1 18446744073709551615 -1 -1 -1 -1 x moved\n\n")
	f.Add("2 1 0 0 0 0 - live\nx")
	f.Add("1 +1 0 0 0 0 - live\nx")
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := ParseRecord(text)
		if !ok {
			return
		}
		again, ok := ParseRecord(r.String())
		if !ok || *again != *r {
			t.Fatalf("%q reads as %+v, and then as %+v", text, r, again)
		}
		if revision, ok := RevisionOf(text); !ok || revision != r.Revision {
			t.Fatalf("%q: stores compare revision %d, want %d", text, revision, r.Revision)
		}
		if _, opens := openRecord(session.RecordKey{2}, name, r.Sealed); opens {
			t.Fatalf("%q opens with another key", text)
		}
		if _, opens := openRecord(session.RecordKey{1}, "another name", r.Sealed); opens {
			t.Fatalf("%q opens under another name", text)
		}
		if plain, opens := openRecord(session.RecordKey{1}, name, r.Sealed); opens != (r.Sealed == sealed) || (opens && len(plain) == 0) {
			t.Fatalf("%q opens: %v", text, opens)
		}
	})
}
