package explain

import (
	"fmt"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Describe describes a session and every clock that ends it. balanceState says how well its
// balance is known. An idleTimeout of 0 is off.
func Describe(s *session.Session, balanceState string, lifetime, idleTimeout time.Duration) *Session {
	described := &Session{
		Name: s.ID.Hash(), Generation: s.Generation,
		UserID: s.User.ID(), Username: s.User.Text(oauth.FieldUsername), Email: s.User.Text(oauth.FieldEmail),
		Balance: fmt.Sprintf("%s (%s)", s.User.Text(oauth.FieldBalance), balanceState), ReadAt: s.User.ReadAt,
		SignedInAt: s.Created, LastSeenAt: s.LastSeen,
		AccessToken: masked(s.Tokens.Access), AccessTokenEnds: s.Tokens.Expires, RefreshToken: masked(s.Tokens.Refresh),
		Clocks: []Clock{{Name: "lifetime", At: s.Created.Add(lifetime)}},
	}
	if idleTimeout > 0 {
		described.Clocks = append(described.Clocks, Clock{Name: "idle_timeout", At: s.LastSeen.Add(idleTimeout)})
	}
	if !s.Tokens.Refreshable() {
		described.Clocks = append(described.Clocks, Clock{Name: "the access token, which cannot be refreshed", At: s.Tokens.Expires})
	}
	if end := s.Kept.Expires; !end.IsZero() {
		described.Clocks = append(described.Clocks, Clock{Name: "the store", At: end})
	}
	return described
}

// Doubts says what the provider has to confirm before a session passes. A refresh is due
// refreshBefore the end of the access token.
func Doubts(s *session.Session, now time.Time, refreshBefore time.Duration) (notes []string) {
	if !s.Tokens.Valid(now) {
		notes = append(notes, "the access token has ended: the gateway first refreshes it, and the provider may refuse that")
	} else if s.Tokens.Refreshable() && !now.Before(s.RefreshAt(refreshBefore)) {
		notes = append(notes, "a refresh of the access token is due, and begins in the background")
	}
	if s.IsUnconfirmed() {
		notes = append(notes, "the session comes from a cookie, and the provider has not confirmed its user yet")
	}
	return notes
}
