package tollgate

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/policy"
)

func (s *settings) resolveForwardAuth(r *config.Resolver, h *Handler) {
	if h.ForwardAuth == nil {
		return
	}
	if isCookieStore(h.Session) {
		r.Fail("forward_auth", "needs a session store on the server: the proxy in front does not hand renewed cookies on to the browser; set `session { store storage }` or `session { store redis { … } }`")
	}
	for _, raw := range h.ForwardAuth.TrustedProxies {
		const setting = "forward_auth.trusted_proxies"
		if raw == "" {
			r.Fail(setting, "is empty")
		}
		prefixes, err := parseProxies(r.Text(setting, raw, ""))
		r.Check(setting, raw, err)
		s.trustedProxies = append(s.trustedProxies, prefixes...)
	}
	if r.Err != nil {
		return
	}
	empty := http.Header{}
	s.identity.SetEmpty(empty)
	for name := range empty {
		if slices.Contains(authHeaderNames, name) {
			r.Fail("identity.header", "%s means something else in the answer of forward_auth", name)
		}
	}
	if size := header.Size(empty); size > maxAuthHeaders/2 {
		r.Fail("identity", "the headers' names alone take %d bytes: too many for the answer of forward_auth", size)
	}
}

// isCookieStore reports whether sessions are kept in the browser.
func isCookieStore(o *Session) bool {
	if o == nil || len(o.Store) == 0 {
		return true
	}
	var store struct {
		Module string `json:"module"`
	}
	return json.Unmarshal(o.Store, &store) == nil && store.Module == "cookie"
}

// privateRanges is Caddy's word for the addresses of private networks and of this
// machine.
const privateRanges = "private_ranges"

// parseProxies reads an address, a CIDR range, or the word for the private ones.
func parseProxies(text string) (policy.TrustedProxies, error) {
	expressions := []string{text}
	if text == privateRanges {
		expressions = caddyhttp.PrivateRangesCIDR()
	}
	proxies := make(policy.TrustedProxies, 0, len(expressions))
	for _, expression := range expressions {
		prefix, err := caddyhttp.CIDRExpressionToPrefix(expression)
		if err != nil || strings.Contains(text, "%") || prefix.Addr().Is4In6() { // a zone would be dropped without a word
			return nil, fmt.Errorf("%q is neither an address nor a CIDR range nor %s", text, privateRanges)
		}
		proxies = append(proxies, prefix)
	}
	return proxies, nil
}
