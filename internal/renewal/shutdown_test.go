package renewal_test

import (
	"context"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/stores/cookie"
)

// A shutdown that comes right after Start finds the refresh counted, although its goroutine
// may not have run yet.
func TestDrainWaitsForARefreshThatHasJustBegun(t *testing.T) {
	for range 200 {
		sessions := session.NewRegistry(time.Now, func(session.ID, time.Time) {})
		refresher := renewal.New(sessions, time.Now)
		now := time.Now()
		s := session.NewSession(now, oauth.Tokens{
			Access: "access_1", Refresh: "refresh_1", Issued: now, Expires: now.Add(time.Minute),
		}, oauth.UserInfo{})
		refresher.Start(t.Context(), s, renewal.How{
			Store: &cookie.Sessions{}, Lease: time.Second,
			Spend: func(_ context.Context, old oauth.Tokens) (oauth.Tokens, error) {
				return oauth.Tokens{Access: "access_2", Refresh: "refresh_2", Issued: now, Expires: now.Add(time.Hour)}, nil
			},
			Timeout: time.Second,
		})
		refresher.Drain(10 * time.Second)
		newest, live := sessions.Latest(s)
		refresher.Close()
		sessions.Close()
		if !live || newest.Tokens.Access != "access_2" {
			t.Fatalf("after the drain: got %q, want %q", newest.Tokens.Access, "access_2")
		}
	}
}
