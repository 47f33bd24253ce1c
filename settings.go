package tollgate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/web"
)

// Default values of the options.
const (
	defaultPathPrefix    = "/oauth"
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
	trustedProxies    policy.TrustedProxies // of forward_auth
	retryUnauthorized bool
}

// resolve reads the whole configuration. It makes no network requests and starts nothing.
// So the Caddyfile parser, `caddy validate` and the start can all use it.
func (h *Handler) resolve(repl *caddy.Replacer) (*settings, error) {
	r := &config.Resolver{Repl: repl}
	s := &settings{}
	origin := s.resolveRedirectURI(r, h)
	s.resolveProvider(r, h.Provider, h.now)
	s.resolveSecrets(r, h.Secret)
	s.resolveEndpoints(r, h, origin)
	s.resolvePages(r, h)
	s.resolveBalance(r, h.Balance)
	s.resolveIdentity(r, h.Identity)
	s.resolveAssertion(r, h.Assertion)
	s.resolveSession(r, h.Session, origin)
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
	const setting = "redirect_uri"
	if h.RedirectURI == "" {
		r.Fail(setting, "is required: set the full URL of the callback, exactly as registered with the provider")
	}
	s.redirectURI = r.Text(setting, h.RedirectURI, "")
	u, err := url.Parse(s.redirectURI)
	switch {
	case r.Err != nil:
		return &url.URL{}
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		r.Check(setting, h.RedirectURI, errors.New("is not an absolute URL: it must begin with https:// or http:// and a host"))
		return &url.URL{}
	case strings.Contains(s.redirectURI, " "):
		r.Check(setting, h.RedirectURI, errors.New("must not contain a space"))
	case u.User != nil || strings.ContainsAny(s.redirectURI, "?#"): // url.Parse forgets an empty query
		r.Check(setting, h.RedirectURI, errors.New("must not contain a user, query or fragment"))
	case u.Path == "" || u.Path == "/" || u.Path != path.Clean(u.Path) || u.RawPath != "":
		r.Check(setting, h.RedirectURI, fmt.Errorf("%q needs a plain path, such as /oauth/callback", s.redirectURI))
	case !origin.IsSecure(u) && !h.InsecureHTTP:
		r.Check(setting, h.RedirectURI, fmt.Errorf("%q must be https (http only on loopback); to allow plain http anyway set `insecure_http`", s.redirectURI))
	case h.InsecureHTTP && origin.IsSecure(u):
		r.Fail("insecure_http", "contradicts redirect_uri, which is https or on loopback already: remove insecure_http")
	}
	if _, err := origin.CanonicalHost(u.Hostname()); err != nil {
		r.Check(setting, h.RedirectURI, err)
	}
	s.origin = origin.Of(u)
	return u
}

func (s *settings) resolveSecrets(r *config.Resolver, secrets []string) {
	for _, raw := range secrets {
		if raw == "" {
			r.Fail("secret", "is empty")
		}
		text := r.AnyText("secret", raw, "") // ParseSecret removes spaces and line breaks
		if r.Err != nil {
			return
		}
		secret, err := keys.ParseSecret(text)
		r.Check("secret", raw, err)
		s.secrets = append(s.secrets, secret)
	}
}

func (s *settings) resolveEndpoints(r *config.Resolver, h *Handler, origin *url.URL) {
	prefix := strings.TrimRight(r.Path("path_prefix", h.PathPrefix, defaultPathPrefix), "/")
	if strings.ContainsAny(prefix, "?#%") {
		r.Fail("path_prefix", "must be a plain path without a query, fragment or escape")
	}
	s.endpoints = make(map[string]string, len(endpointNames()))
	byPath := make(map[string]string, len(endpointNames()))
	for _, name := range endpointNames() {
		p := prefix + "/" + name
		setting := "endpoints." + name
		if name == "jwks.json" && h.Assertion == nil {
			if _, moved := h.Endpoints[name]; moved {
				r.Fail(setting, "the endpoint needs an `assertion` block")
			}
			continue
		}
		if name == "auth" && h.ForwardAuth == nil {
			if _, moved := h.Endpoints[name]; moved {
				r.Fail(setting, "the endpoint needs a `forward_auth` block")
			}
			continue
		}
		if name == "callback" {
			p = origin.Path
			if own, ok := h.Endpoints[name]; ok && own != p {
				r.Fail(setting, "contradicts redirect_uri, whose path is the callback: remove it")
			}
		} else if own, ok := h.Endpoints[name]; ok {
			p = own
			if own == "" || own[0] != '/' || own == "/" || own != path.Clean(own) || strings.ContainsAny(own, "?#%\\;*{}") {
				r.Fail(setting, "%q is not a plain path", own)
			}
		}
		if other, taken := byPath[p]; taken {
			r.Fail(setting, "has the same path as the endpoint %s: %s", other, p)
		}
		s.endpoints[name], byPath[p] = p, name
	}
	for _, name := range slices.Sorted(maps.Keys(h.Endpoints)) {
		if !slices.Contains(endpointNames(), name) {
			r.Fail("endpoints", "unknown endpoint %s", config.UnknownName(name, endpointNames()))
		}
	}
	for _, name := range endpointNames() {
		p := s.endpoints[name]
		if auth := s.endpoints["auth"]; auth != "" && strings.HasPrefix(p, auth+"/") {
			r.Fail("endpoints.auth", "every path below %s belongs to auth: move the endpoint %s elsewhere", auth, name)
		}
	}
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
	s.low = resolveAmount(r, "balance.low", b.Low)
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
		r.Template("identity.header", i.Header[name], placeholderPrefix, slices.Sorted(maps.Keys(placeholders)))
	}
	s.identity = headers
}

func (s *settings) resolveSession(r *config.Resolver, o *Session, external *url.URL) {
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
	secure := external.Scheme == "https"
	sameSite := r.OneOf("session.same_site", o.SameSite, "lax", "lax", "strict", "none")
	if sameSite == "none" && !secure {
		r.Fail("session.same_site", "none needs an https redirect_uri: browsers refuse such a cookie on plain http")
	}
	if o.Partitioned && !secure {
		r.Fail("session.partitioned", "needs an https redirect_uri: browsers refuse such a cookie on plain http")
	}
	domain := r.Domain("session.cookie_domain", o.CookieDomain)
	if host, _ := origin.CanonicalHost(external.Hostname()); domain != "" && host != domain && !strings.HasSuffix(host, "."+domain) {
		r.Fail("session.cookie_domain", "%q is not the host of redirect_uri (%q) or a parent domain of it", domain, host)
	}
	name := r.Text("session.cookie_name", o.CookieName, browser.DefaultCookieName(secure, domain))
	if problem := browser.ValidCookieName(name, secure, domain); problem != "" {
		r.Fail("session.cookie_name", "%s", problem)
	}
	s.cookies = &browser.Jar{
		Name:        name,
		Domain:      domain,
		Secure:      secure,
		SameSite:    map[string]http.SameSite{"lax": http.SameSiteLaxMode, "strict": http.SameSiteStrictMode, "none": http.SameSiteNoneMode}[sameSite],
		Partitioned: o.Partitioned,
	}
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

// storeNamespace is the Caddy namespace of the session store modules.
const storeNamespace = "tollgate.stores"

// storeNames returns the names of the session stores in this build.
func storeNames() []string {
	var names []string
	for _, info := range caddy.GetModules(storeNamespace) {
		names = append(names, info.ID.Name())
	}
	return names
}

// checkStoreModule checks that a store in JSON names a known module. Caddy's own error would
// print every value of the store, and one of the values may be a password.
func checkStoreModule(store json.RawMessage) error {
	var named struct{ Module json.RawMessage }
	var name string
	err := json.Unmarshal(store, &named)
	if err == nil {
		err = json.Unmarshal(named.Module, &name)
	}
	if names := storeNames(); err != nil || !slices.Contains(names, name) {
		return config.Errorf("session.store.module", "must be one of %s; write the store as an object, for example {\"module\": \"storage\"}", strings.Join(names, ", "))
	}
	return nil
}
