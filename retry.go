package tollgate

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

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
				h.state.unauthorized.Accepted(v.session)
			}
			return false
		}}, r)
	})
}
