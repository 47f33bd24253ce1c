package tollgate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/respond"
)

// loadMatchers loads the matcher of the directive. Without a matcher every request is
// selected.
func (h *Handler) loadMatchers(ctx caddy.Context) error {
	if len(h.Match) == 0 {
		return nil
	}
	loaded, err := ctx.LoadModule(h, "Match")
	if err != nil {
		return err
	}
	return h.matchers.FromInterface(loaded)
}

// matchedPaths returns the path patterns of the matchers.
func matchedPaths(matchers caddyhttp.MatcherSets) (patterns []string) {
	for _, set := range matchers {
		for _, matcher := range set {
			switch matcher := matcher.(type) {
			case caddyhttp.MatchPath:
				patterns = append(patterns, matcher...)
			case *caddyhttp.MatchPath:
				patterns = append(patterns, *matcher...)
			}
		}
	}
	return patterns
}

// newRoutes prepares the path patterns of the configuration for matching.
func newRoutes(ctx caddy.Context, endpoints map[string]string, public, optional []string, required ...[]string) (*policy.Routes, error) {
	publicPaths, err := newPatterns(ctx, "public", public)
	if err != nil {
		return nil, err
	}
	optionalPaths, err := newPatterns(ctx, "optional", optional)
	if err != nil {
		return nil, err
	}
	var blocks []policy.Patterns
	for i, list := range required {
		block, err := newPatterns(ctx, fmt.Sprintf("require[%d]", i), list)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, block)
	}
	return policy.NewRoutes(endpoints, publicPaths, optionalPaths, blocks), nil
}

func newPatterns(ctx caddy.Context, setting string, list []string) (policy.Patterns, error) {
	matcher := caddyhttp.MatchPath(slices.Clone(list)) // Provision changes it in place
	if err := matcher.Provision(ctx); err != nil {
		return policy.Patterns{}, fmt.Errorf("%s: %w", setting, err)
	}
	return policy.Patterns{List: matcher, Match: matcher.MatchWithError}, nil
}

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

// assert returns the signed assertion of id. Returns "" if assertions are off or the
// assertion cannot be made: an upstream that requires one then refuses the request.
func (h *Handler) assert(ctx context.Context, id *identity.Identity) string {
	if h.asserter == nil {
		return ""
	}
	keys, err := h.keys.Ring(ctx)
	if err != nil {
		h.audit.fault(ctx, err)
		return ""
	}
	text, err := h.asserter.Assert(keys.Assertion, id, id.Session.End(h.settings.lifetime, 0), h.now())
	if err != nil {
		h.logger.Error("cannot sign the assertion; the request is forwarded without it", zap.String("session", id.Session.ID.Hash()), zap.Error(err))
		return ""
	}
	return text
}

// serveKeys responds with the public keys that verify assertions: first the key of the
// current secret, then the keys of previous secrets.
func (h *Handler) serveKeys(w http.ResponseWriter, r *http.Request, _ *visit) error {
	keys, err := h.keys.Ring(r.Context())
	if err != nil {
		h.audit.fault(r.Context(), err)
		return h.responses.writeUnavailable(w, r, h.settings.endpoints["jwks.json"])
	}
	return respond.JSON(w, r, http.StatusOK, respond.TypeJSON, keys.Assertion.Public)
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
			Balance: resolveAmount(r, setting+".balance", block.Balance),
			Reserve: resolveReserve(r, setting+".reserve", block.Reserve),
			Budgets: s.resolveBudgets(r, setting+".budget", block),
			Domains: resolveDomains(r, setting+".email_domain", block.EmailDomain),
			Users:   r.Texts(setting+".user", block.User),
		})
	}
}

// plainAmount is an amount as an operator writes it, without a currency.
var plainAmount = regexp.MustCompile(`^[0-9]{1,100}(\.[0-9]{1,100})?$`)

func resolveAmount(r *config.Resolver, setting, raw string) *account.Amount {
	text := r.Text(setting, raw, "")
	if text == "" {
		return nil
	}
	if !plainAmount.MatchString(text) {
		r.Check(setting, raw, fmt.Errorf("%q is not a plain amount such as 0.50; it must not be negative", text))
	}
	value, _ := decimal.Parse(text)
	return &account.Amount{Text: text, Value: value, Near: value.Double()}
}

func resolveDomains(r *config.Resolver, setting string, raw []string) []string {
	var domains []string
	for i, text := range r.Texts(setting, raw) {
		if strings.ContainsAny(text, "@*/: \t") || text[0] == '.' || strings.HasSuffix(text, ".") {
			r.Check(setting, raw[i], fmt.Errorf("%q is not a domain such as example.com", text))
		}
		domains = append(domains, policy.LowerASCII(text))
	}
	return domains
}

func (s *settings) resolveForwardAuth(r *config.Resolver, h *Handler) {
	if h.ForwardAuth == nil {
		return
	}
	if isCookieStore(h.Session) {
		r.Fail("forward_auth", "needs a session store on the server, because the proxy in front does not pass renewed cookies on to the browser; set `session { store storage }` or `session { store redis { … } }`")
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
			r.Fail("identity.header", "%s has another meaning in the response of forward_auth: choose another name", name)
		}
	}
	if size := header.Size(empty); size > maxAuthHeaders/2 {
		r.Fail("identity", "the header names alone take %d bytes, and the response of forward_auth allows %d: use fewer presets or shorter names", size, maxAuthHeaders/2)
	}
}

// isCookieStore reports whether sessions are stored in the browser's cookie.
func isCookieStore(o *Session) bool {
	if o == nil || len(o.Store) == 0 {
		return true
	}
	var store struct {
		Module string `json:"module"`
	}
	return json.Unmarshal(o.Store, &store) == nil && store.Module == "cookie"
}

// privateRanges is Caddy's name for the addresses of private networks and of loopback.
const privateRanges = "private_ranges"

// parseProxies parses an address, a CIDR range, or `private_ranges`.
func parseProxies(text string) (policy.TrustedProxies, error) {
	expressions := []string{text}
	if text == privateRanges {
		expressions = caddyhttp.PrivateRangesCIDR()
	}
	proxies := make(policy.TrustedProxies, 0, len(expressions))
	for _, expression := range expressions {
		prefix, err := caddyhttp.CIDRExpressionToPrefix(expression)
		if err != nil || strings.Contains(text, "%") || prefix.Addr().Is4In6() { // Caddy would drop a zone silently
			return nil, fmt.Errorf("%q is neither an address nor a CIDR range nor %s", text, privateRanges)
		}
		proxies = append(proxies, prefix)
	}
	return proxies, nil
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
