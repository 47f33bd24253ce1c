package identity

import (
	"fmt"
	"net/textproto"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// DefaultTokenHeader is the header of the access token if none is configured. It carries
// `Bearer <token>`. Any other header carries the token alone.
const DefaultTokenHeader = "Authorization"

// TokenValue returns the value of the access token's header.
func (h *Headers) TokenValue(s *session.Session) string {
	if h.Token == DefaultTokenHeader {
		return "Bearer " + s.Tokens.Access
	}
	return s.Tokens.Access
}

// ReserveToken makes name the header of the access token. Strip then removes it from client
// requests. It fails if the name is invalid, reserved, or already an identity header.
func (h *Headers) ReserveToken(name string) error {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	if !header.IsName(name) {
		return fmt.Errorf("%q is not a valid header name", name)
	}
	if header.IsReserved(canonical) {
		return fmt.Errorf("%s cannot carry the token: it steers the request itself", canonical)
	}
	if _, taken := h.folded[header.Fold(canonical)]; taken {
		return fmt.Errorf("%s already carries the identity", canonical)
	}
	h.Token = canonical
	h.folded[header.Fold(canonical)] = struct{}{}
	h.noteFirstBytes()
	return nil
}
