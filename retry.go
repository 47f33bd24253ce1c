package tollgate

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// retrying sends a request to the upstream once more, with a new access token, if the
// upstream answers 401. A 401 means that the upstream has done nothing, so requests are
// retried whatever their method.
//
// The first response is held back until the refresh is done. If the refresh fails, or the
// body cannot be sent again, the first response is passed on unchanged. If the session is
// over, tollgate's own response replaces it. The session may also end after the refresh,
// while the rest of the first response arrives.
func (h *Handler) retrying(next caddyhttp.Handler, v *visit, id *identity.Identity) caddyhttp.Handler {
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
		err := first.Serve(next, r)
		if !first.Held {
			return err
		}
		original.PutBack(w, r)
		if refresh != nil || h.sessions.hasEnded(v) {
			return h.responses.demandLogin(w, r, v)
		}
		h.tokens.setAccessToken(r.Header, v.session)
		h.settings.identity.SetAssertion(r.Header, h.assertions.sign(r.Context(), id)) // the first may have expired
		return next.ServeHTTP(&relay.Gate{ResponseWriterWrapper: relay.Wrap(w), HoldBack: func(status int) bool {
			if status != http.StatusUnauthorized {
				h.state.unauthorized.Accepted(v.session)
			}
			return false
		}}, r)
	})
}
