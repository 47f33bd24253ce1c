package tollgate

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// renewWhenDue refreshes the tokens of a session shortly before they expire. While the
// tokens are valid, the refresh runs in the background. After that, all requests of the
// session wait for the same refresh.
func (h *Handler) renewWhenDue(ctx context.Context, s *session.Session, now time.Time) (*session.Session, error) {
	valid := s.Tokens.Valid(now)
	switch {
	case !s.Tokens.Refreshable():
		if !valid {
			return nil, session.ErrEnded
		}
	case !valid:
		return h.state.renewals.Wait(ctx, s, h.renewal(s))
	case !now.Before(s.RefreshAt(h.settings.refreshBefore)):
		h.state.renewals.Start(s, h.renewal(s))
	}
	return s, nil
}

// renewal gives the renewal package what it needs to refresh the tokens of s.
func (h *Handler) renewal(s *session.Session) renewal.How {
	return renewal.How{
		Spend: func(ctx context.Context, old oauth.Tokens) (oauth.Tokens, error) {
			renewed, err := h.settings.client.Refresh(ctx, old)
			h.logRefresh(s, err)
			return renewed, err
		},
		Store:   h.store,
		Timeout: h.settings.client.Timeout + renewal.LeaseMargin,
		Lease:   h.lease,
		Unsaved: func(err error) {
			h.logger.Error("refreshed tokens not saved to the session store yet; kept in memory, retrying",
				zap.String("session", s.ID.Hash()), zap.Error(err))
		},
		Abandoned: h.revoke,
	}
}

// identify gives the identity of the session's user, from the provider's last answer. If
// need would decide on a balance that is too old, the user information is read again first.
func (h *Handler) identify(ctx context.Context, s *session.Session, need *account.Need) *identity.Identity {
	view := h.users.Current(ctx, s, h.now(), h.settings.ages, need, h.userReader(s))
	return &identity.Identity{Session: s, View: view}
}

// userReader gives a function that reads the user information with the session's access
// token. If the provider answers 401, it refreshes the token once and retries once.
func (h *Handler) userReader(s *session.Session) account.ReadFunc {
	return func(ctx context.Context) (oauth.UserInfo, error) {
		var info oauth.UserInfo
		err := h.withAccessToken(ctx, s, func(access string) (err error) {
			info, err = h.settings.client.UserInfo(ctx, access)
			return err
		})
		if err != nil {
			h.logger.Warn("cannot read the user information", zap.String("session", s.ID.Hash()), zap.Error(err))
		}
		return info, err
	}
}

// withAccessToken calls ask with the session's access token. If the provider answers 401, it
// refreshes the token once and calls ask once more. Concurrent callers share that refresh.
// futile remembers a session whose new token was answered with 401, too: its tokens are
// not refreshed again for this reason.
func (h *Handler) withAccessToken(ctx context.Context, s *session.Session, ask func(access string) error) error {
	s, live := h.state.sessions.Latest(s)
	if !live {
		return session.ErrEnded
	}
	err := ask(s.Tokens.Access)
	if err == nil || oauth.FailureOf(err) != oauth.FailureUnauthorized || !s.Tokens.Refreshable() {
		return err
	}
	if _, futile := h.state.futile.GetIfPresent(s.ID); futile {
		return err
	}
	renewed, renewErr := h.state.renewals.Wait(ctx, s, h.renewal(s))
	if renewErr != nil {
		return renewErr
	}
	err = ask(renewed.Tokens.Access)
	if err != nil && oauth.FailureOf(err) == oauth.FailureUnauthorized {
		h.state.futile.Set(s.ID, struct{}{})
	}
	return err
}

// revoke revokes the refresh token at the provider, if the provider has a revocation
// endpoint. It runs in the background, and the session is over even if it fails.
func (h *Handler) revoke(s *session.Session) {
	if h.settings.client.RevocationEndpoint == "" || !s.Tokens.Refreshable() {
		return
	}
	end := h.state.renewals.Running.Begin() // a shutdown waits for it
	go func() {                             // ends with the request's own timeout
		defer end()
		if err := h.settings.client.Revoke(context.Background(), s.Tokens.Refresh); err != nil {
			h.logger.Warn("cannot revoke a refresh token at the provider", zap.String("session", s.ID.Hash()), zap.Error(err))
		}
	}()
}

// setAccessToken sets the access token header to the newest token of the session, because a
// refresh may have finished meanwhile. It sets nothing if the session has just ended.
func (h *Handler) setAccessToken(header http.Header, s *session.Session) {
	if h.settings.identity.Token == "" {
		return
	}
	if newest, live := h.state.sessions.Latest(s); live {
		header[h.settings.identity.Token] = []string{h.settings.identity.TokenValue(newest)}
	}
}
