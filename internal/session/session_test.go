package session

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// FuzzSessionRecord: what reads as a record, is written and read back the same.
func FuzzSessionRecord(f *testing.F) {
	f.Add(sampleSession(20).AppendBinary(nil))
	f.Add([]byte{recordVersion})
	f.Add([]byte{recordVersion + 1})
	f.Add(bytes.Repeat([]byte{0xff}, 80))
	f.Fuzz(func(t *testing.T, record []byte) {
		s, err := ParseSession(record)
		if err != nil {
			return
		}
		again, err := ParseSession(s.AppendBinary(nil))
		if err != nil || *again != *s {
			t.Fatalf("%x reads as %+v, and then as %+v, %v", record, s, again, err)
		}
	})
}

// sampleSession is a session with all its fields set.
func sampleSession(accessLength int) *Session {
	now := time.UnixMilli(1_700_000_000_123)
	s := NewSession(now, oauth.Tokens{
		Access: strings.Repeat("a", accessLength), Refresh: "refresh_1", Scope: "profile balance",
		Issued: now, Expires: now.Add(2 * time.Hour),
	}, oauth.NewUserInfo([oauth.FieldCount]oauth.Scalar{oauth.FieldID: "12345", oauth.FieldUsername: `"张伟"`, oauth.FieldBalance: `"750.00"`}, now))
	s.Generation = 7
	return s
}

func TestSessionRecordReadsBackAsWritten(t *testing.T) {
	want := sampleSession(800)
	got, err := ParseSession(want.AppendBinary(nil))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(oauth.UserInfo{}, decimal.Decimal{})); diff != "" {
		t.Errorf("the session differs (-want +got):\n%s", diff)
	}
}

func TestInexactRecordsAreRefused(t *testing.T) {
	record := sampleSession(10).AppendBinary(nil)
	for n := range record {
		if _, err := ParseSession(record[:n]); !errors.Is(err, errRecord) {
			t.Fatalf("the first %d of %d bytes: got %v, want %v", n, len(record), err, errRecord)
		}
	}
	if _, err := ParseSession(append(bytes.Clone(record), 0)); !errors.Is(err, errRecord) {
		t.Errorf("one byte more: got %v, want %v", err, errRecord)
	}
	other := bytes.Clone(record)
	other[0]++
	if _, err := ParseSession(other); !errors.Is(err, errRecord) {
		t.Errorf("another version: got %v, want %v", err, errRecord)
	}
}

func TestRefreshIsDueShortlyBeforeTheTokenExpires(t *testing.T) {
	issued := time.Unix(1_700_000_000, 0)
	for _, lifetime := range []time.Duration{time.Second, 10 * time.Second, time.Minute, 299 * time.Second, 25 * time.Minute, 2 * time.Hour, 30 * 24 * time.Hour} {
		for _, before := range []time.Duration{time.Second, 5 * time.Minute, 24 * time.Hour} {
			tok := oauth.Tokens{Issued: issued, Expires: issued.Add(lifetime)}
			window := min(before, lifetime/5)
			earliest, latest := tok.Expires.Add(-window), tok.Expires.Add(-window+window/10)
			different := map[time.Time]bool{}
			for i := range 50 {
				id := ID{byte(i)}
				at := (&Session{ID: id, Tokens: tok}).RefreshAt(before)
				if at.Before(earliest) || at.After(latest) {
					t.Fatalf("life %v, before %v: got %v, want a time from %v to %v", lifetime, before, at, earliest, latest)
				}
				if !at.Equal((&Session{ID: id, Tokens: tok}).RefreshAt(before)) {
					t.Fatal("the jitter of one session changes")
				}
				different[at] = true
			}
			if len(different) < 25 {
				t.Errorf("life %v, before %v: got %d different moments for 50 sessions, want at least 25", lifetime, before, len(different))
			}
		}
	}
}
