package tollgate

import (
	"maps"
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
	"github.com/caddy-tollgate/tollgate/internal/placeholders"
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
	required     [][]string // the path patterns of each rule
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
	endpoints := resolve.NewEndpoints(r, r.Url("provider.base_url", p.BaseURL, preset.BaseURL))
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
	presets := i.Presets
	if len(presets) == 0 {
		presets = []string{"default"}
	}
	if slices.Contains(presets, "none") && len(presets) > 1 {
		r.Fail("identity", "none cannot be combined with other presets")
	}
	headers, err := identity.NewHeaders(presets, i.Header)
	r.Check("identity", "", err)
	for _, name := range slices.Sorted(maps.Keys(i.Header)) {
		r.Template("identity.header", i.Header[name], placeholders.Prefix, placeholders.Names())
	}
	s.identity = headers
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
