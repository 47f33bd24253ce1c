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

// renewWhenDue refreshes the tokens of a session ahead of their end. While they are
// valid nobody waits for that; afterwards everybody waits for the same refresh.
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

// renewal says how the tokens of s are renewed, and writes down how it went.
func (h *Handler) renewal(s *session.Session) renewal.How {
	return renewal.How{
		Spend: func(ctx context.Context, old oauth.Tokens) (oauth.Tokens, error) {
			renewed, err := h.settings.client.Refresh(ctx, old)
			h.logRefresh(s, err)
			return renewed, err
		},
		Store:    h.tickets,
		Patience: h.settings.client.Timeout + renewal.LeaseMargin,
		Lease:    h.lease,
		Unsaved: func(err error) {
			h.logger.Error("what came of a refresh cannot be written down yet; it is kept in memory, and written as soon as the store takes it",
				zap.String("session", s.ID.Hash()), zap.Error(err))
		},
		Abandoned: h.revoke,
	}
}

// identify gives who the session's user is, with what the provider said last. Where a
// need is about to decide, that is read anew.
func (h *Handler) identify(ctx context.Context, s *session.Session, need *account.Need) *identity.Identity {
	view := h.users.Current(ctx, s, h.now(), h.settings.ages, need, h.userReader(s))
	return &identity.Identity{Session: s, View: view}
}

// userReader reads the user information with the session's access token. If the
// provider does not accept that, the token is refreshed once and the question
// repeated once.
func (h *Handler) userReader(s *session.Session) account.ReadFunc {
	return func(ctx context.Context) (oauth.UserInfo, error) {
		var info oauth.UserInfo
		err := h.withAccessToken(ctx, s, func(access string) (err error) {
			info, err = h.settings.client.UserInfo(ctx, access)
			return err
		})
		if err != nil {
			h.logger.Warn("the user information could not be read", zap.String("session", s.ID.Hash()), zap.Error(err))
		}
		return info, err
	}
}

// withAccessToken asks the provider something in the user's name. A 401 refreshes
// the token once, together with everybody else's need for it, and asks once more.
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

// revoke tells the provider, where it has an endpoint for that. Nobody waits for
// it, and the session is over whatever comes of it.
func (h *Handler) revoke(s *session.Session) {
	if h.settings.client.RevocationEndpoint == "" || !s.Tokens.Refreshable() {
		return
	}
	end := h.state.renewals.Running.Begin() // a shutdown waits for it
	go func() {                             // ends with the request's own timeout
		defer end()
		if err := h.settings.client.Revoke(context.Background(), s.Tokens.Refresh); err != nil {
			h.logger.Warn("a refresh token could not be revoked", zap.String("session", s.ID.Hash()), zap.Error(err))
		}
	}()
}

// setAccessToken puts the access token of a session into a header: the newest that is
// known, since a refresh may have been finished meanwhile. A session that has just
// ended has none to give.
func (h *Handler) setAccessToken(header http.Header, s *session.Session) {
	if h.settings.identity.Token == "" {
		return
	}
	if newest, live := h.state.sessions.Latest(s); live {
		header[h.settings.identity.Token] = []string{h.settings.identity.TokenValue(newest)}
	}
}
