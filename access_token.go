package tollgate

import (
	"net/http"
	"net/textproto"
	"slices"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// setAccessToken puts the access token of a session into a header: the newest that is
// known, since a refresh may have been finished meanwhile. A session that has just
// ended has none to give.
func (h *Handler) setAccessToken(header http.Header, s *session.Session) {
	if h.identity.Token == "" {
		return
	}
	if newest, live := h.state.sessions.Latest(s); live {
		header[h.identity.Token] = []string{h.identity.TokenValue(newest)}
	}
}

func (s *settings) resolvePassAccessToken(r *config.Resolver, h *Handler) {
	if r.Err != nil {
		return
	}
	const setting = "pass_access_token"
	if h.PassAccessToken == "" {
		if h.RetryUnauthorized != nil && *h.RetryUnauthorized {
			r.Fail("retry_unauthorized", "needs pass_access_token: without a token there is none to refresh")
		}
		return
	}
	name := r.Text(setting, h.PassAccessToken, "")
	if h.ForwardAuth != nil && slices.Contains(authHeaderNames, textproto.CanonicalMIMEHeaderKey(name)) {
		r.Fail(setting, "%s means something else in the answer of forward_auth", name)
	}
	if r.Err != nil {
		return
	}
	r.Check(setting, h.PassAccessToken, s.identity.ReserveToken(name))
	s.retryUnauthorized = h.RetryUnauthorized == nil || *h.RetryUnauthorized
}
