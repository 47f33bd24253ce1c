package identity

import (
	"fmt"
	"net/textproto"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// DefaultTokenHeader carries the access token as `Bearer <token>`; any other header
// carries the bare token.
const DefaultTokenHeader = "Authorization"

// TokenValue is how the access token stands in its header.
func (h *Headers) TokenValue(s *session.Session) string {
	if h.Token == DefaultTokenHeader {
		return "Bearer " + s.Tokens.Access
	}
	return s.Tokens.Access
}

// ReserveToken makes name the header of the access token, and so one of ours, which is
// removed from what a client sends.
func (h *Headers) ReserveToken(name string) error {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	if !header.IsName(name) {
		return fmt.Errorf("%q is not a header name", name)
	}
	if header.IsReserved(canonical) {
		return fmt.Errorf("%s cannot carry the token: it steers the request itself", canonical)
	}
	if _, taken := h.folded[header.Fold(canonical)]; taken {
		return fmt.Errorf("%s carries the identity already", canonical)
	}
	h.Token = canonical
	h.folded[header.Fold(canonical)] = struct{}{}
	h.noteBeginnings()
	return nil
}
