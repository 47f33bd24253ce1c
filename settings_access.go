package tollgate

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/resolve"
)

func (s *settings) resolveAssertion(r *config.Resolver, a *Assertion) {
	if a == nil || s.identity == nil {
		return
	}
	const setting = "assertion.header"
	name := textproto.CanonicalMIMEHeaderKey(r.Text(setting, a.Header, identity.DefaultAssertionHeader))
	switch {
	case !header.IsName(name):
		r.Fail(setting, "%q is not a valid header name", name)
	case header.IsReserved(name) || slices.Contains(authHeaderNames, name):
		r.Fail(setting, "%s already has another meaning: choose another name", name)
	case s.identity.Forges(name):
		r.Fail(setting, "%s already carries a part of the identity: choose another name", name)
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

func (s *settings) resolveRequire(r *config.Resolver, blocks []*Require) {
	if len(blocks) > policy.MaxBlocks {
		r.Fail("require", "has %d blocks; the limit is %d", len(blocks), policy.MaxBlocks)
	}
	for i, block := range blocks {
		setting := fmt.Sprintf("require[%d]", i)
		if block == nil {
			block = &Require{}
		}
		if block.Balance == "" && block.Reserve == "" && len(block.Budget) == 0 && len(block.EmailDomain) == 0 && len(block.User) == 0 {
			r.Fail(setting, "has no rule: set balance, reserve, budget, email_domain or user")
		}
		s.required = append(s.required, r.Patterns(setting+".paths", block.Paths))
		s.rules = append(s.rules, policy.Rule{
			Balance: resolve.Amount(r, setting+".balance", block.Balance),
			Reserve: resolve.Reserve(r, setting+".reserve", block.Reserve),
			Budgets: s.resolveBudgets(r, setting+".budget", block),
			Domains: resolve.Domains(r, setting+".email_domain", block.EmailDomain),
			Users:   r.Texts(setting+".user", block.User),
		})
	}
}

func (s *settings) resolveBudgets(r *config.Resolver, setting string, block *Require) []policy.Budget {
	budgets := resolve.NewBudgets(s.redirectURI, block.Paths)
	for i, b := range block.Budget {
		if b == nil {
			b = &Budget{}
		}
		budgets.Add(r, fmt.Sprintf("%s[%d]", setting, i), b.Amount, b.Per)
	}
	return budgets.List
}

// resolveCharge checks what only all blocks together show.
func (s *settings) resolveCharge(r *config.Resolver, h *Handler) {
	if r.Err != nil {
		return
	}
	balances := make([]string, 0, len(h.Require))
	for _, block := range h.Require {
		balances = append(balances, block.Balance)
	}
	s.charge = resolve.Charge(r, s.rules, balances, h.ForwardAuth != nil)
}

func (s *settings) resolveTopupHosts(r *config.Resolver, raw []string) {
	const setting = "topup_hosts"
	if len(raw) > 0 && r.Err == nil && s.client.TopupEndpoint == "" {
		r.Fail(setting, "has no effect without topup_endpoint: remove it, or set topup_endpoint")
	}
	if hosts := resolve.Hosts(r, setting, raw); r.Err == nil {
		s.client.TopupHosts = hosts
	}
}

// resolveDestinations prevents redirect loops: error_redirect must be a page without login,
// and no page may be an endpoint that starts a sign-in. A setting is refused only if it is
// certainly wrong.
func (s *settings) resolveDestinations(r *config.Resolver, h *Handler) {
	for _, page := range []struct{ setting, raw, path string }{
		{"after_login", h.AfterLogin, s.afterLogin}, {"after_logout", h.AfterLogout, s.afterLogout}, {"error_redirect", h.ErrorRedirect, s.errorPath},
	} {
		if name := resolve.EndpointAt(s.endpoints, page.path); name == "start" || name == "callback" {
			r.Check(page.setting, page.raw, fmt.Errorf("%q is the endpoint %s, which would start the next sign-in: set a page of your application", page.path, name))
		}
	}
	// Requests that the matcher does not select are public. Which ones is unknown here.
	if r.Err == nil && len(h.Match) == 0 && resolve.NeedsLogin(s.errorPath, s.endpoints, s.public, s.optional) {
		r.Check("error_redirect", h.ErrorRedirect, fmt.Errorf(
			"%q needs a login, so a failed sign-in would start the next one: add the path to `public` or `optional`", s.errorPath))
	}
}

func (s *settings) resolveForwardAuth(r *config.Resolver, h *Handler) {
	if h.ForwardAuth == nil {
		return
	}
	if h.Session == nil || config.IsCookieStore(h.Session.Store) {
		r.Fail("forward_auth", "needs a session store on the server, because the proxy in front does not pass renewed cookies on to the browser; set `session { store storage }` or `session { store redis { … } }`")
	}
	s.forwarding = policy.Forwarding{
		Proxies:  resolve.Proxies(r, "forward_auth.trusted_proxies", h.ForwardAuth.TrustedProxies),
		AuthPath: s.endpoints["auth"],
		Origin:   s.origin,
	}
	if r.Err != nil {
		return
	}
	empty := http.Header{}
	s.identity.SetEmpty(empty)
	for name := range empty {
		if slices.Contains(authHeaderNames, name) {
			r.Fail("identity.header", "%s has another meaning in the response of forward_auth: choose another name", name)
		}
	}
	if size := header.Size(empty); size > maxAuthHeaders/2 {
		r.Fail("identity", "the header names alone take %d bytes, and the response of forward_auth allows %d: use fewer presets or shorter names", size, maxAuthHeaders/2)
	}
}

func (s *settings) resolvePassAccessToken(r *config.Resolver, h *Handler) {
	if r.Err != nil {
		return
	}
	const setting = "pass_access_token"
	if h.PassAccessToken == "" {
		if h.RetryUnauthorized != nil && *h.RetryUnauthorized {
			r.Fail("retry_unauthorized", "needs pass_access_token: only a request with an access token can be retried with a new one")
		}
		return
	}
	name := r.Text(setting, h.PassAccessToken, "")
	if h.ForwardAuth != nil && slices.Contains(authHeaderNames, textproto.CanonicalMIMEHeaderKey(name)) {
		r.Fail(setting, "%s has another meaning in the response of forward_auth: choose another name", name)
	}
	if r.Err != nil {
		return
	}
	r.Check(setting, h.PassAccessToken, s.identity.ReserveToken(name))
	s.retryUnauthorized = h.RetryUnauthorized == nil || *h.RetryUnauthorized
}
