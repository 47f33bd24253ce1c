package renewal

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/recent"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// ErrFutile means that a refresh would not make the upstream accept the access token.
var ErrFutile = errors.New("a new access token would not help")

const (
	// futileInterval is how long a 401 causes no further refresh after a refresh that did not
	// help.
	futileInterval = 30 * time.Second

	// maxFutile is the size of each table of such refreshes.
	maxFutile = 50_000
)

// Unauthorized refreshes the tokens of a session after a 401, once, unless an earlier refresh
// did not help.
type Unauthorized struct {
	refresher *Refresher
	// futile holds the sessions whose refreshed access token was also refused by the provider:
	// another refresh would not help yet.
	futile *recent.Table[session.ID, struct{}]
	// doubted holds, by session, the first generation of tokens that were refreshed because of
	// an upstream's 401, and that no upstream has accepted yet. Refreshing those again would
	// not help.
	doubted *recent.Table[session.ID, uint64]
}

// NewUnauthorized returns an Unauthorized, which the caller must close. It does not close the
// refresher.
func NewUnauthorized(refresher *Refresher) *Unauthorized {
	return &Unauthorized{
		refresher: refresher,
		futile:    recent.NewTable[session.ID, struct{}](maxFutile, futileInterval),
		doubted:   recent.NewTable[session.ID, uint64](maxFutile, futileInterval),
	}
}

// Close ends the memory of refreshes that did not help.
func (u *Unauthorized) Close() {
	u.futile.Close()
	u.doubted.Close()
}

// Ask calls ask, a request to the provider, with the session's access token. If the provider
// answers 401, it refreshes the token once and calls ask once more. Concurrent callers share
// that refresh.
func (u *Unauthorized) Ask(ctx context.Context, s *session.Session, how func(*session.Session) How, ask func(access string) error) error {
	s, live := u.refresher.Sessions.Latest(s)
	if !live {
		return session.ErrEnded
	}
	err := ask(s.Tokens.Access)
	if !isUnauthorized(err) || !s.Tokens.Refreshable() {
		return err
	}
	if _, futile := u.futile.Get(s.ID); futile {
		return err
	}
	renewed, renewErr := u.refresher.Wait(ctx, s, how(s))
	if renewErr != nil {
		return renewErr
	}
	err = ask(renewed.Tokens.Access)
	if isUnauthorized(err) {
		u.futile.Set(s.ID, struct{}{})
	}
	return err
}

func isUnauthorized(err error) bool {
	return err != nil && oauth.FailureOf(err) == oauth.FailureUnauthorized
}

// Refused refreshes the tokens of a session after the upstream has refused its access token
// with a 401. isRefused reports whether a session still has the refused token.
func (u *Unauthorized) Refused(ctx context.Context, s *session.Session, how func(*session.Session) How, isRefused func(*session.Session) bool) error {
	s, live := u.refresher.Sessions.Latest(s)
	switch {
	case !live:
		return session.ErrEnded
	case !isRefused(s):
		return nil // another request has refreshed it meanwhile
	case !s.Tokens.Refreshable():
		return ErrFutile
	}
	if doubted, ok := u.doubted.Get(s.ID); ok && s.Generation >= doubted {
		return ErrFutile
	}
	// Before the refresh: another request may use the new token, and get a 401, first.
	u.doubted.Set(s.ID, s.Generation+1)
	_, err := u.refresher.Wait(ctx, s, how(s))
	if err != nil {
		u.doubted.Forget(s.ID)
	}
	return err
}

// Accepted notes that the upstream has accepted the access token of a session.
func (u *Unauthorized) Accepted(s *session.Session) { u.doubted.Forget(s.ID) }
