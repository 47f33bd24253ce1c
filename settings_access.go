package tollgate

import (
	"context"
	"net/http"
	"net/textproto"
	"slices"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
)

func (s *settings) resolveAssertion(r *config.Resolver, a *Assertion) {
	if a == nil || s.identity == nil {
		return
	}
	const setting = "assertion.header"
	name := textproto.CanonicalMIMEHeaderKey(r.Text(setting, a.Header, identity.DefaultAssertionHeader))
	switch {
	case !header.IsName(name):
		r.Fail(setting, "%q is not a header name", name)
	case header.IsReserved(name) || slices.Contains(authHeaderNames, name):
		r.Fail(setting, "%s means something else already", name)
	case s.identity.Forges(name):
		r.Fail(setting, "%s carries something of the identity already", name)
	default:
		s.identity.AddAssertion(name)
	}
	s.assertion = &identity.AssertionOptions{
		Audience: r.Text("assertion.audience", a.Audience, s.origin),
		Lifetime: r.Duration("assertion.lifetime", a.Lifetime, identity.DefaultAssertionLifetime),
	}
	if l := s.assertion.Lifetime; l < identity.MinAssertionLifetime || l > identity.MaxAssertionLifetime {
		r.Fail("assertion.lifetime", "must be from 10s to 5m")
	}
}

// assert gives the assertion of id, or nothing where there is none to be made: an
// upstream that asks for one then refuses the request.
func (h *Handler) assert(ctx context.Context, id *identity.Identity) string {
	if h.asserter == nil {
		return ""
	}
	keys, err := h.keys.Ring(ctx)
	if err != nil {
		h.logFault(ctx, err)
		return ""
	}
	text, err := h.asserter.Assert(keys.Assertion, id, id.Session.End(h.lifetime, 0), h.now())
	if err != nil {
		h.logger.Error("the identity cannot be asserted", zap.String("session", id.Session.ID.Hash()), zap.Error(err))
		return ""
	}
	return text
}

// serveKeys answers with the public keys by which assertions are verified: that of the
// current secret first, then those of the previous ones.
func (h *Handler) serveKeys(w http.ResponseWriter, r *http.Request) error {
	keys, err := h.keys.Ring(r.Context())
	if err != nil {
		h.logFault(r.Context(), err)
		return h.writeUnavailable(w, r, h.endpoints["jwks.json"])
	}
	return writeJSON(w, r, http.StatusOK, typeJSON, keys.Assertion.Public)
}
