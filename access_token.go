package tollgate

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
)

// defaultTokenHeader carries the access token as `Bearer <token>`; any other header
// carries the bare token.
const defaultTokenHeader = "Authorization"

// setAccessToken puts the access token of a session into a header: the newest that is
// known, since a refresh may have been finished meanwhile. A session that has just
// ended has none to give.
func (h *Handler) setAccessToken(header http.Header, s *session) {
	if h.identity.token == "" {
		return
	}
	if newest, live := h.state.sessions.latest(s); live {
		header[h.identity.token] = []string{h.identity.tokenValue(newest)}
	}
}

// tokenValue is how the access token stands in its header.
func (h *identityHeaders) tokenValue(s *session) string {
	if h.token == defaultTokenHeader {
		return "Bearer " + s.tokens.access
	}
	return s.tokens.access
}

// reserveToken makes name the header of the access token, and so one of ours, which is
// removed from what a client sends.
func (h *identityHeaders) reserveToken(name string) error {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	if !isHeaderName(name) {
		return fmt.Errorf("%q is not a header name", name)
	}
	if isReservedHeader(canonical) {
		return fmt.Errorf("%s cannot carry the token: it steers the request itself", canonical)
	}
	if _, taken := h.folded[foldName(canonical)]; taken {
		return fmt.Errorf("%s carries the identity already", canonical)
	}
	h.token = canonical
	h.folded[foldName(canonical)] = struct{}{}
	h.noteBeginnings()
	return nil
}

func (s *settings) resolvePassAccessToken(r *resolver, h *Handler) {
	if r.err != nil {
		return
	}
	const setting = "pass_access_token"
	if h.PassAccessToken == "" {
		if h.RetryUnauthorized != nil && *h.RetryUnauthorized {
			r.fail("retry_unauthorized", "needs pass_access_token: without a token there is none to refresh")
		}
		return
	}
	name := r.text(setting, h.PassAccessToken, "")
	if h.ForwardAuth != nil && slices.Contains(authHeaderNames, textproto.CanonicalMIMEHeaderKey(name)) {
		r.fail(setting, "%s means something else in the answer of forward_auth", name)
	}
	if r.err != nil {
		return
	}
	r.check(setting, h.PassAccessToken, s.identity.reserveToken(name))
	s.retryUnauthorized = h.RetryUnauthorized == nil || *h.RetryUnauthorized
}
