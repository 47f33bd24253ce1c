package tollgate

import (
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func TestARefreshIsDueAheadOfTheEndButNotTooEarly(t *testing.T) {
	issued := time.Unix(1_700_000_000, 0)
	for _, lifetime := range []time.Duration{time.Second, 10 * time.Second, time.Minute, 299 * time.Second, 25 * time.Minute, 2 * time.Hour, 30 * 24 * time.Hour} {
		for _, before := range []time.Duration{time.Second, 5 * time.Minute, 24 * time.Hour} {
			tok := oauth.Tokens{Issued: issued, Expires: issued.Add(lifetime)}
			window := min(before, lifetime/5)
			earliest, latest := tok.Expires.Add(-window), tok.Expires.Add(-window+window/10)
			different := map[time.Time]bool{}
			for i := range 50 {
				id := session.ID{byte(i)}
				at := (&session.Session{ID: id, Tokens: tok}).RefreshAt(before)
				if at.Before(earliest) || at.After(latest) {
					t.Fatalf("life %v, before %v: due at %v, not between %v and %v", lifetime, before, at, earliest, latest)
				}
				if !at.Equal((&session.Session{ID: id, Tokens: tok}).RefreshAt(before)) {
					t.Fatal("the jitter of one session changes")
				}
				different[at] = true
			}
			if len(different) < 25 {
				t.Errorf("life %v, before %v: only %d different moments for 50 sessions", lifetime, before, len(different))
			}
		}
	}
}
