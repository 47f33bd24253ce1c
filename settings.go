package tollgate

import (
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/oauth2"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/resolve"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/web"
)

// Default values of the options.
const (
	defaultAfterLogin    = "/"
	defaultTokenLifetime = 2 * time.Hour
	defaultTimeout       = 10 * time.Second
	defaultMaxAge        = time.Minute
	defaultMaxStale      = 15 * time.Minute
	defaultRefreshBefore = 5 * time.Minute
	defaultStreamRecheck = time.Minute
	defaultLifetime      = session.MaxLifetime
	defaultActiveStatus  = "1"
)

// settings is the configuration after placeholders are replaced, defaults are filled in and
// texts are parsed.
type settings struct {
	client       *oauth.Client
	providerName string // shown on pages
	redirectURI  string
	origin       string // scheme and host of redirect_uri: the external origin
	secrets      [][]byte
	endpoints    map[string]string // name to path
	public       []string
	optional     []string
	rules        policy.Rules
	required     [][]string // the path patterns of each require block
	places       browser.Places
	loginPage    bool
	afterLogin   string
	afterLogout  string // empty: the signed-out page
	errorPath    string // empty: an error page
	brand        string
	pages        *web.Pages
	// builtinPages replace the operator's own templates if these fail. It is nil if the
	// operator has no templates.
	builtinPages *web.Pages

	activeStatus      string
	statusMissingOK   bool
	ages              account.Ages
	passUnknown       bool // whether a request passes while the balance is unknown
	low               *account.Amount
	charge            *policy.Charge // of all rules together; nil if none of them holds or counts money
	identity          *identity.Headers
	assertion         *identity.AssertionOptions // nil: no assertion
	cookies           *browser.Jar
	lifetime          time.Duration
	idleTimeout       time.Duration
	refreshBefore     time.Duration
	streamRecheck     time.Duration
	forwarding        policy.Forwarding // of forward_auth
	retryUnauthorized bool
}

// resolve reads the whole configuration. It makes no network requests and starts nothing.
// So the Caddyfile parser, `caddy validate` and the start can all use it.
func (h *Handler) resolve(repl *caddy.Replacer) (*settings, error) {
	r := &config.Resolver{Repl: repl}
	s := &settings{}
	redirectURI := s.resolveRedirectURI(r, h)
	s.resolveProvider(r, h.Provider, h.now)
	s.secrets = resolve.Secrets(r, h.Secret)
	s.resolveEndpoints(r, h, redirectURI)
	s.resolvePages(r, h)
	s.places = browser.Places{Origin: s.origin, Start: s.endpoints["start"], Callback: s.endpoints["callback"], AfterLogin: s.afterLogin}
	s.resolveBalance(r, h.Balance)
	s.resolveIdentity(r, h.Identity)
	s.resolveAssertion(r, h.Assertion)
	s.resolveSession(r, h.Session, redirectURI)
	s.resolvePaths(r, h)
	s.resolveTopupHosts(r, h.TopupHosts)
	s.resolveRequire(r, h.Require)
	s.resolveCharge(r, h)
	s.resolveForwardAuth(r, h)
	s.resolvePassAccessToken(r, h)
	s.resolveDestinations(r, h)
	if r.Err != nil {
		return nil, r.Err
	}
	return s, nil
}

func (s *settings) resolveRedirectURI(r *config.Resolver, h *Handler) *url.URL {
	u, text := resolve.RedirectURI(r, h.RedirectURI, h.InsecureHTTP)
	s.redirectURI, s.origin = text, origin.Of(u)
	return u
}

func (s *settings) resolveProvider(r *config.Resolver, p *Provider, now func() time.Time) {
	if p == nil {
		r.Fail("provider", "is required")
		return
	}
	preset := resolve.Presets[r.OneOf("provider", p.Preset, "aihubmix", resolve.PresetNames()...)]
	endpoints := resolve.NewEndpoints(r, r.URL("provider.base_url", p.BaseURL, preset.BaseURL))
	c := oauth.NewClient(r.Duration("provider.timeout", p.Timeout, defaultTimeout), now)
	c.PKCE = p.PKCE == nil || *p.PKCE
	c.AutoAuthorize = preset.AutoAuthorize
	c.TokenLifetime = r.Duration("provider.token_lifetime", p.TokenLifetime, defaultTokenLifetime)
	if p.AutoAuthorize != nil {
		c.AutoAuthorize = *p.AutoAuthorize
	}
	c.Config = oauth2.Config{
		RedirectURL: s.redirectURI,
		Scopes:      resolve.Scopes(r, p.Scopes, preset.Scopes),
		Endpoint: oauth2.Endpoint{
			AuthURL:  endpoints.Required("authorization_endpoint", p.AuthorizationEndpoint, preset.Authorization),
			TokenURL: endpoints.Required("token_endpoint", p.TokenEndpoint, preset.Token),
		},
	}
	c.UserinfoEndpoint = endpoints.Required("userinfo_endpoint", p.UserinfoEndpoint, preset.Userinfo)
	if p.TopupEndpoint != "off" {
		c.TopupEndpoint = endpoints.Optional("topup_endpoint", p.TopupEndpoint, preset.Topup)
	}
	c.RevocationEndpoint = endpoints.Optional("revocation_endpoint", p.RevocationEndpoint, "")
	c.BalanceEndpoint = endpoints.Optional("balance_endpoint", p.BalanceEndpoint, "")
	c.Issuer = resolve.Issuer(r, p.Issuer)
	c.Fields = resolve.Fields(r, p.Fields)
	resolve.Client(r, p.ClientID, p.ClientSecret, p.ClientAuthentication, &c.Config)
	c.AuthorizeParams = resolve.Params(r, "provider.authorize_param", p.AuthorizeParam)
	logoutParam := p.LogoutParam
	if logoutParam == nil {
		logoutParam = preset.LogoutParam
	}
	c.LogoutParams = resolve.Params(r, "provider.logout_param", logoutParam)
	s.client = c
	s.providerName = preset.NameOf(c.Config.Endpoint.AuthURL)

	s.statusMissingOK = preset.StatusMissingOK && p.ActiveStatus == ""
	s.activeStatus = r.Text("provider.active_status", p.ActiveStatus, defaultActiveStatus)
}

func (s *settings) resolveEndpoints(r *config.Resolver, h *Handler, redirectURI *url.URL) {
	needs := map[string]string{}
	if h.Assertion == nil {
		needs["jwks.json"] = "an `assertion`"
	}
	if h.ForwardAuth == nil {
		needs["auth"] = "a `forward_auth`"
	}
	s.endpoints = resolve.EndpointPaths(r, resolve.OwnPaths{
		Prefix: h.PathPrefix, Own: h.Endpoints, Callback: redirectURI.Path, Needs: needs,
	}, endpointNames())
}

// resolvePages reads the pages after a sign-in, a sign-out or an error, and the look of the
// gateway's own pages.
func (s *settings) resolvePages(r *config.Resolver, h *Handler) {
	s.loginPage = h.LoginPage
	s.afterLogin = r.Path("after_login", h.AfterLogin, defaultAfterLogin)
	s.afterLogout = r.Path("after_logout", h.AfterLogout, "")
	s.errorPath = r.Path("error_redirect", h.ErrorRedirect, "")
	s.brand, s.pages, s.builtinPages = resolve.Pages(r, resolve.Look{Brand: h.Brand, Logo: h.Logo, Accent: h.Accent, Folder: h.Pages})
}

func (s *settings) resolveBalance(r *config.Resolver, b *Balance) {
	if b == nil {
		b = &Balance{}
	}
	s.ages.MaxAge = r.Duration("balance.max_age", b.MaxAge, defaultMaxAge)
	s.ages.MaxStale = r.Duration("balance.max_stale", b.MaxStale, max(defaultMaxStale, s.ages.MaxAge))
	if s.ages.MaxStale < s.ages.MaxAge {
		r.Fail("balance.max_stale", "must not be less than max_age")
	}
	s.low = resolve.Amount(r, "balance.low", b.Low)
	s.passUnknown = r.OneOf("balance.on_unknown", b.OnUnknown, "deny", "deny", "allow") == "allow"
}

func (s *settings) resolveIdentity(r *config.Resolver, i *Identity) {
	if i == nil {
		i = &Identity{}
	}
	s.identity = resolve.IdentityHeaders(r, i.Presets, i.Header)
}

func (s *settings) resolveSession(r *config.Resolver, o *Session, redirectURI *url.URL) {
	if o == nil {
		o = &Session{}
	}
	s.lifetime = r.Duration("session.lifetime", o.Lifetime, defaultLifetime)
	if s.lifetime > session.MaxLifetime {
		r.Fail("session.lifetime", "must not be more than 30d, the lifetime of the provider's refresh tokens")
	}
	s.idleTimeout = r.Duration("session.idle_timeout", o.IdleTimeout, 0)
	if s.idleTimeout > s.lifetime {
		r.Fail("session.idle_timeout", "must not be more than lifetime")
	}
	s.cookies = resolve.Jar(r, resolve.Cookies{
		Name: o.CookieName, Domain: o.CookieDomain, SameSite: o.SameSite, Partitioned: o.Partitioned,
	}, redirectURI)
}

func (s *settings) resolvePaths(r *config.Resolver, h *Handler) {
	s.refreshBefore = r.Duration("refresh_before", h.RefreshBefore, defaultRefreshBefore)
	s.streamRecheck = r.Duration("stream_recheck", h.StreamRecheck, defaultStreamRecheck)
	if r.Err == nil && s.streamRecheck < time.Second {
		r.Fail("stream_recheck", "%s is less than 1s, the minimum: each check reads the session of every open stream", s.streamRecheck)
	}
	s.public = r.Patterns("public", h.Public)
	s.optional = r.Patterns("optional", h.Optional)
	for _, pattern := range s.public {
		if slices.Contains(s.optional, pattern) {
			r.Fail("optional", "%q is already in public: remove it from one of them", pattern)
		}
	}
}

// isLow reports whether a user's balance is below `low`.
func (s *settings) isLow(id *identity.Identity) bool {
	return s.low != nil && id.IsBelow(s.low.Value)
}

func (s *settings) resolveAssertion(r *config.Resolver, a *Assertion) {
	if a == nil || s.identity == nil {
		return
	}
	s.assertion = resolve.Assertion(r, s.identity, resolve.AssertionBlock{Header: a.Header, Audience: a.Audience, Lifetime: a.Lifetime, Origin: s.origin})
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

// resolveCharge resolves what requests hold and which budgets count. It checks the require
// blocks against each other, and against forward_auth.
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
	if r.Err == nil {
		resolve.CheckAuthHeaders(r, s.identity)
	}
}

func (s *settings) resolvePassAccessToken(r *config.Resolver, h *Handler) {
	if r.Err != nil {
		return
	}
	if h.PassAccessToken == "" {
		if h.RetryUnauthorized != nil && *h.RetryUnauthorized {
			r.Fail("retry_unauthorized", "needs pass_access_token: only a request with an access token can be retried with a new one")
		}
		return
	}
	resolve.AccessTokenHeader(r, s.identity, h.PassAccessToken, h.ForwardAuth != nil)
	s.retryUnauthorized = h.RetryUnauthorized == nil || *h.RetryUnauthorized
}
