package tollgate

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/audit"
	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// tokens keeps the tokens of sessions valid, and uses them at the provider.
type tokens struct {
	settings *settings
	store    session.Store
	state    *siteState
	users    *account.Users
	// lease is how long a lock between processes lasts if it is not renewed.
	lease time.Duration
	now   func() time.Time
	// noteReading tells the ledger that a reading of the balance begins. It returns what to
	// call with the result. It is nil without a ledger.
	noteReading func(context.Context, *session.Session) (end func(context.Context, *oauth.UserInfo))
	logger      *zap.Logger
	audit       *audit.Log
	metrics     *metrics.Set
}

// renewWhenDue refreshes the tokens of a session shortly before they expire. While the
// tokens are valid, the refresh runs in the background. After that, all requests of the
// session wait for the same refresh.
func (t *tokens) renewWhenDue(ctx context.Context, s *session.Session, now time.Time) (*session.Session, error) {
	switch {
	case hasRunOut(s, now):
		return nil, session.ErrEnded
	case !s.Tokens.Refreshable():
	case !s.Tokens.Valid(now):
		return t.state.renewals.Wait(ctx, s, t.renewal(s))
	case !now.Before(s.RefreshAt(t.settings.refreshBefore)):
		t.state.renewals.Start(ctx, s, t.renewal(s))
	}
	return s, nil
}

// hasRunOut reports whether a session has ended with its access token, because that cannot be
// refreshed.
func hasRunOut(s *session.Session, now time.Time) bool {
	return !s.Tokens.Refreshable() && !s.Tokens.Valid(now)
}

// renewal gives the renewal package what it needs to refresh the tokens of s.
func (t *tokens) renewal(s *session.Session) renewal.How {
	return renewal.How{
		Spend: func(ctx context.Context, old oauth.Tokens) (oauth.Tokens, error) {
			renewed, err := t.settings.client.Refresh(ctx, old)
			t.audit.Refreshed(s, err)
			return renewed, err
		},
		Store:     t.store,
		Timeout:   t.settings.client.Timeout + renewal.LeaseMargin,
		Lease:     t.lease,
		Waiting:   t.metrics.CountRefreshWaiter,
		Report:    t.audit,
		Abandoned: t.revoke,
	}
}

// identify gives the identity of the session's user, from the provider's last answer. If
// need would decide on a balance that is too old, the user information is read again first.
func (t *tokens) identify(ctx context.Context, s *session.Session, need *account.Need) *identity.Identity {
	view := t.users.Current(ctx, s, t.now(), t.settings.ages, need, t.userReader(s))
	return &identity.Identity{Session: s, View: view}
}

// userReader gives a function that reads the user information with the session's access
// token. If the provider answers 401, it refreshes the token once and retries once.
func (t *tokens) userReader(s *session.Session) account.ReadFunc {
	return func(ctx context.Context) (oauth.UserInfo, error) {
		var info oauth.UserInfo
		var end func(context.Context, *oauth.UserInfo)
		if t.noteReading != nil {
			end = t.noteReading(ctx, s)
		}
		err := t.withAccessToken(ctx, s, func(access string) (err error) {
			info, err = t.settings.client.UserInfo(ctx, access)
			return err
		})
		if err != nil {
			t.audit.ReadFailed(ctx, s, err)
		} else if end != nil && info.ID() == s.User.ID() {
			end(ctx, &info)
		}
		return info, err
	}
}

// withAccessToken calls ask with the session's access token. If the provider answers 401, it
// refreshes the token once and calls ask once more.
func (t *tokens) withAccessToken(ctx context.Context, s *session.Session, ask func(access string) error) error {
	return t.state.unauthorized.Ask(ctx, s, t.renewal, ask)
}

// renewRefused refreshes the tokens of a session, unless its access token already differs
// from the one that the upstream has refused.
func (t *tokens) renewRefused(ctx context.Context, s *session.Session, refused string) error {
	err := t.state.unauthorized.Refused(ctx, s, t.renewal, func(s *session.Session) bool { return t.settings.identity.TokenValue(s) == refused })
	if err != nil && !errors.Is(err, renewal.ErrFutile) {
		t.logger.Debug("the upstream refused the access token, and the refresh failed", zap.String("session", s.ID.Hash()), zap.Error(err))
	}
	return err
}

// revoke revokes the refresh token at the provider, if the provider has a revocation
// endpoint. It runs in the background, with the values of ctx, and the session is over even if it
// fails.
func (t *tokens) revoke(ctx context.Context, s *session.Session) {
	if t.settings.client.RevocationEndpoint == "" || !s.Tokens.Refreshable() {
		return
	}
	ctx = context.WithoutCancel(ctx)
	end := t.state.renewals.Running.Begin() // a shutdown waits for it
	go func() {                             // ends with the request's own timeout
		defer end()
		if err := t.settings.client.Revoke(ctx, s.Tokens.Refresh); err != nil {
			t.audit.Rarely(zap.WarnLevel, "cannot revoke a refresh token at the provider", cause.Of(err), zap.String("session", s.ID.Hash()), zap.Error(err))
		}
	}()
}

// setAccessToken sets the access token header to the newest token of the session, because a
// refresh may have finished meanwhile. It sets nothing if the session has just ended.
func (t *tokens) setAccessToken(header http.Header, s *session.Session) {
	if t.settings.identity.Token == "" {
		return
	}
	if newest, live := t.state.sessions.Latest(s); live {
		header[t.settings.identity.Token] = []string{t.settings.identity.TokenValue(newest)}
	}
}
