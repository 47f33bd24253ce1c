package tollgate

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// errFutile means that a refresh would not make the upstream accept the access token.
var errFutile = errors.New("a new access token would not help")

// retrying sends a request to the upstream once more, with a new access token, if the
// upstream answers 401. A 401 means that the upstream has done nothing, so requests are
// retried whatever their method.
//
// The first response is held back until the refresh is done. If the refresh fails, or the
// body cannot be sent again, the first response is passed on unchanged. If the session is
// over, tollgate's own response replaces it.
func (h *Handler) retrying(next caddyhttp.Handler, v *visit) caddyhttp.Handler {
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		original, ok := relay.Note(w, r, h.settings.identity.Token)
		if !ok {
			return next.ServeHTTP(w, r)
		}
		var refresh error
		first := &relay.Gate{ResponseWriterWrapper: relay.Wrap(w), HoldBack: func(status int) bool {
			if status != http.StatusUnauthorized {
				original.Forget()
				return false
			}
			refresh = h.tokens.renewRefused(r.Context(), v.session, original.Token)
			return errors.Is(refresh, session.ErrEnded) || refresh == nil && original.Rewind()
		}}
		err := next.ServeHTTP(first, r)
		if !first.Held {
			return err
		}
		original.PutBack(w, r)
		if refresh != nil {
			return h.responses.demandLogin(w, r, v)
		}
		h.tokens.setAccessToken(r.Header, v.session)
		return next.ServeHTTP(&relay.Gate{ResponseWriterWrapper: relay.Wrap(w), HoldBack: func(status int) bool {
			if status != http.StatusUnauthorized {
				h.state.doubted.Forget(v.session.ID)
			}
			return false
		}}, r)
	})
}

// renewRefused refreshes the tokens of a session, unless its access token already differs
// from the refused one. doubted holds the first generation of tokens that must not be
// refreshed for this reason: the upstream has not accepted it yet.
func (t *tokens) renewRefused(ctx context.Context, s *session.Session, refused string) error {
	s, live := t.state.sessions.Latest(s)
	switch {
	case !live:
		return session.ErrEnded
	case t.settings.identity.TokenValue(s) != refused:
		return nil // another request has refreshed it meanwhile
	case !s.Tokens.Refreshable():
		return errFutile
	}
	if doubted, ok := t.state.doubted.Get(s.ID); ok && s.Generation >= doubted {
		return errFutile
	}
	// Before the refresh: another request may use the new token, and get a 401, first.
	t.state.doubted.Set(s.ID, s.Generation+1)
	_, err := t.state.renewals.Wait(ctx, s, t.renewal(s))
	if err != nil {
		t.state.doubted.Forget(s.ID)
		t.logger.Debug("the upstream refused the access token, and the refresh failed", zap.String("session", s.ID.Hash()), zap.Error(err))
	}
	return err
}
