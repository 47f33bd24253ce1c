// Package recordstest tests the stores that keep sessions on a server. Suite has what every
// such store promises.
package recordstest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// sessionsEqual compares sessions with all that they hold.
var sessionsEqual = cmp.AllowUnexported(session.Session{}, oauth.Tokens{}, oauth.UserInfo{}, session.Kept{}, session.Head{}, decimal.Decimal{})

// Place is a place for records. Each Open gives another process's view of the same place.
// Fail makes the place unreachable until Mend.
type Place struct {
	Open func(t *testing.T) records.Store
	Fail func(t *testing.T)
	Mend func(t *testing.T)
}

// Store is one process's store over the place. Without secrets, all processes have one
// and the same.
func (p Place) Store(t *testing.T, secrets ...string) *records.Tickets {
	t.Helper()
	if len(secrets) == 0 {
		secrets = []string{"s"}
	}
	var raw [][]byte
	for _, secret := range secrets {
		raw = append(raw, []byte(strings.Repeat(secret, 32)))
	}
	source, err := keys.NewSource(raw, nil, "client", "https://app.example.com/cb", nil)
	if err != nil {
		t.Fatal(err)
	}
	store := records.NewTickets(session.Env{
		Keys:     source.Ring,
		Latest:   func(s *session.Session) (*session.Session, bool) { return s, true },
		Ended:    session.NewEndedNames(time.Now),
		Lifetime: time.Hour,
		Now:      time.Now,
	}, p.Open(t), session.Takeover{Until: time.Now().Add(time.Hour)})
	t.Cleanup(store.Close)
	return store
}

// FreshSession is a session of the user that has just begun.
func FreshSession(user string) *session.Session {
	now := time.Now().Round(time.Millisecond)
	return session.NewSession(now, oauth.Tokens{
		Access: "access_1", Refresh: "refresh_1", Scope: "profile balance", Issued: now, Expires: now.Add(2 * time.Hour),
	}, oauth.NewUserInfo([oauth.FieldCount]oauth.Scalar{oauth.FieldID: oauth.Scalar(user), oauth.FieldEmail: `"someone@example.com"`}, now))
}

// Keep creates a session and gives its cookie value, too.
func Keep(t *testing.T, store session.Store, s *session.Session) (*session.Session, string) {
	t.Helper()
	s, err := store.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	value, _, err := store.Cookie(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return s, value
}

// MustLoad loads, and fails the test when the store fails.
func MustLoad(t *testing.T, store session.Store, value string) *session.Session {
	t.Helper()
	found, err := store.Load(t.Context(), value)
	if err != nil {
		t.Fatal(err)
	}
	return found.Session
}

// InTime tries what has to be over before a time has passed. While the machine was too slow, it
// tries again with twice the time. left reports whether the time has not passed yet.
func InTime(d time.Duration, try func(d time.Duration, left func() bool)) {
	for ; ; d *= 2 {
		end := time.Now().Add(d)
		left := func() bool { return time.Now().Before(end) }
		if try(d, left); left() {
			return
		}
	}
}

// Eventually waits until something has happened in the background, for longer than a busy
// machine takes.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}
