package tollgate

import (
	"context"
	"errors"
	"maps"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// errFutile: a refresh would not make the upstream accept the access token.
var errFutile = errors.New("a new access token would not help")

// retrying lets the upstream see a request once more, with a new access token, when it
// refuses the one that it got. A 401 says that it did nothing, so that any method may
// be repeated.
//
// The refresh is waited for before the first answer goes on: when it fails, or when the
// body cannot be sent again, that answer goes through as it is, and when the session is
// over, ours takes its place.
func (h *Handler) retrying(next caddyhttp.Handler, v *visit) caddyhttp.Handler {
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		original, ok := h.noteRequest(w, r)
		if !ok {
			return next.ServeHTTP(w, r)
		}
		var refresh error
		first := &relay.Gate{ResponseWriterWrapper: relay.Wrap(w), HoldBack: func(status int) bool {
			if status != http.StatusUnauthorized {
				original.Forget()
				return false
			}
			refresh = h.renewRefused(r.Context(), v.session, original.Token)
			return errors.Is(refresh, session.ErrEnded) || refresh == nil && original.Rewind()
		}}
		err := next.ServeHTTP(first, r)
		if !first.Held {
			return err
		}
		original.PutBack(w, r)
		if refresh != nil {
			return h.demandLogin(w, r, v)
		}
		h.setAccessToken(r.Header, v.session)
		return next.ServeHTTP(&relay.Gate{ResponseWriterWrapper: relay.Wrap(w), HoldBack: func(status int) bool {
			if status != http.StatusUnauthorized {
				h.state.doubted.Invalidate(v.session.ID)
			}
			return false
		}}, r)
	})
}

// renewRefused sees to it that a session has another access token than the one that an
// upstream refused.
func (h *Handler) renewRefused(ctx context.Context, s *session.Session, refused string) error {
	s, live := h.state.sessions.Latest(s)
	switch {
	case !live:
		return session.ErrEnded
	case h.settings.identity.TokenValue(s) != refused:
		return nil // somebody refreshed it meanwhile
	case !s.Tokens.Refreshable():
		return errFutile
	}
	if doubted, ok := h.state.doubted.GetIfPresent(s.ID); ok && s.Generation >= doubted {
		return errFutile
	}
	// Before the refresh: whoever gets the new token may be refused faster than we are.
	h.state.doubted.Set(s.ID, s.Generation+1)
	_, err := h.state.renewals.Wait(ctx, s, h.renewal(s))
	if err != nil {
		h.state.doubted.Invalidate(s.ID)
		h.logger.Debug("the upstream refused the access token, and it was not refreshed", zap.String("session", s.ID.Hash()), zap.Error(err))
	}
	return err
}

// noteRequest notes a request that carries the access token. ok is false where it could
// not be sent once more.
func (h *Handler) noteRequest(w http.ResponseWriter, r *http.Request) (original *relay.Original, ok bool) {
	groups, known := r.Context().Value(relay.RouteGroups).(map[string]struct{})
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	token, carries := r.Header[h.settings.identity.Token]
	if !known || !carries {
		return nil, false
	}
	original = &relay.Original{
		Method: r.Method,
		Url:    *r.URL,
		Host:   r.Host,
		Uri:    r.RequestURI,
		Length: r.ContentLength,
		Header: r.Header.Clone(),
		Token:  token[0],
		Answer: w.Header().Clone(),
		Groups: maps.Clone(groups),
		Vars:   maps.Clone(vars),
	}
	switch {
	case r.Method == http.MethodConnect:
		// A WebSocket over HTTP/2 or HTTP/3. Nothing of it is read before the upstream has
		// agreed, and nothing of it may be kept.
		original.WebSocket = r.Body
	case r.Body != nil && r.Body != http.NoBody:
		original.Trailers = len(r.Trailer) > 0
		original.Body = &relay.BodyReader{KeptBody: &relay.KeptBody{Source: r.Body, Lost: r.ContentLength > relay.MaxReplayedBody}, First: true}
		r.Body = original.Body
	}
	return original, true
}
