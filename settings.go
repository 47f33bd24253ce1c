package tollgate

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddy-tollgate/tollgate/web"
	"github.com/caddyserver/caddy/v2"
)

// Defaults, in one place.
const (
	defaultPathPrefix    = "/oauth"
	defaultAfterLogin    = "/"
	defaultTokenLifetime = 2 * time.Hour
	defaultTimeout       = 10 * time.Second
	defaultMaxAge        = time.Minute
	defaultMaxStale      = 15 * time.Minute
	defaultRefreshBefore = 5 * time.Minute
	defaultStreamRecheck = time.Minute
	defaultLifetime      = maxLifetime
	defaultActiveStatus  = "1"
)

// settings is the configuration with its placeholders read, its defaults filled in
// and its texts parsed.
type settings struct {
	client       *oauthClient
	providerName string // for people
	redirectURI  string
	origin       string // scheme and host of redirect_uri: the external origin
	secrets      [][]byte
	endpoints    map[string]string // name to path
	public       []string
	optional     []string
	rules        rules
	required     [][]string // the path patterns of each of the rules
	afterLogin   string
	afterLogout  string // empty: the signed-out page
	errorPath    string // empty: an error page
	brand        string
	pages        *web.Pages
	// builtinPages take the place of own templates that fail; nil without such templates.
	builtinPages *web.Pages

	activeStatus      string
	statusMissingOK   bool
	ages              ages
	passUnknown       bool // an unknown balance is good enough
	identity          *identityHeaders
	assertion         *assertionSettings // nil: none
	cookies           *cookieJar
	lifetime          time.Duration
	idleTimeout       time.Duration
	refreshBefore     time.Duration
	streamRecheck     time.Duration
	trustedProxies    trustedProxies // those of forward_auth
	retryUnauthorized bool
}

// resolve reads the whole configuration. It asks no network and starts nothing, so
// that it serves the Caddyfile's error messages, `caddy validate` and the start.
func (h *Handler) resolve(repl *caddy.Replacer) (*settings, error) {
	r := &resolver{repl: repl}
	s := &settings{}
	origin := s.resolveRedirectURI(r, h)
	s.resolveProvider(r, h.Provider)
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
	s.resolveForwardAuth(r, h)
	s.resolvePassAccessToken(r, h)
	s.resolveDestinations(r, h)
	if r.err != nil {
		return nil, r.err
	}
	return s, nil
}

func (s *settings) resolveRedirectURI(r *resolver, h *Handler) *url.URL {
	const setting = "redirect_uri"
	if h.RedirectURI == "" {
		r.fail(setting, "is required: the callback's full URL, exactly as it is registered with the provider")
	}
	s.redirectURI = r.text(setting, h.RedirectURI, "")
	u, err := url.Parse(s.redirectURI)
	switch {
	case r.err != nil:
		return &url.URL{}
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		r.check(setting, h.RedirectURI, fmt.Errorf("%q is not an absolute http(s) URL", s.redirectURI))
		return &url.URL{}
	case strings.Contains(s.redirectURI, " "):
		r.check(setting, h.RedirectURI, errors.New("must not hold a blank"))
	case u.User != nil || strings.ContainsAny(s.redirectURI, "?#"): // url.Parse forgets an empty query
		r.check(setting, h.RedirectURI, errors.New("must have no user, query or fragment"))
	case u.Path == "" || u.Path == "/" || u.Path != path.Clean(u.Path) || u.RawPath != "":
		r.check(setting, h.RedirectURI, fmt.Errorf("%q needs a plain path of its own, such as /oauth/callback", s.redirectURI))
	case !isSecureURL(u) && !h.InsecureHTTP:
		r.check(setting, h.RedirectURI, fmt.Errorf("%q must be https, or http on loopback (insecure_http allows it all the same)", s.redirectURI))
	case h.InsecureHTTP && isSecureURL(u):
		r.fail("insecure_http", "contradicts redirect_uri, which is https or on loopback already: take it out")
	}
	if _, err := canonicalHost(u.Hostname()); err != nil {
		r.check(setting, h.RedirectURI, err)
	}
	s.origin = serializeOrigin(u)
	return u
}

func (s *settings) resolveSecrets(r *resolver, secrets []string) {
	for _, raw := range secrets {
		if raw == "" {
			r.fail("secret", "is empty")
		}
		text := r.anyText("secret", raw, "") // parseSecret takes blanks and line breaks off
		if r.err != nil {
			return
		}
		secret, err := parseSecret(text)
		r.check("secret", raw, err)
		s.secrets = append(s.secrets, secret)
	}
}

func (s *settings) resolveEndpoints(r *resolver, h *Handler, origin *url.URL) {
	prefix := strings.TrimRight(r.path("path_prefix", h.PathPrefix, defaultPathPrefix), "/")
	if strings.ContainsAny(prefix, "?#%") {
		r.fail("path_prefix", "must be a plain path")
	}
	s.endpoints = make(map[string]string, len(endpointNames))
	byPath := make(map[string]string, len(endpointNames))
	for _, name := range endpointNames {
		p := prefix + "/" + name
		setting := "endpoints." + name
		if name == "jwks.json" && h.Assertion == nil {
			if _, moved := h.Endpoints[name]; moved {
				r.fail(setting, "there is no such endpoint without an assertion block")
			}
			continue
		}
		if name == "auth" && h.ForwardAuth == nil {
			if _, moved := h.Endpoints[name]; moved {
				r.fail(setting, "there is no such endpoint without a forward_auth block")
			}
			continue
		}
		if name == "callback" {
			p = origin.Path
			if own, ok := h.Endpoints[name]; ok && own != p {
				r.fail(setting, "contradicts redirect_uri, whose path is the callback: leave it out")
			}
		} else if own, ok := h.Endpoints[name]; ok {
			p = own
			if own == "" || own[0] != '/' || own == "/" || own != path.Clean(own) || strings.ContainsAny(own, "?#%\\;*{}") {
				r.fail(setting, "%q is not a plain path", own)
			}
		}
		if other, taken := byPath[p]; taken {
			r.fail(setting, "has the same path as %s: %s", other, p)
		}
		s.endpoints[name], byPath[p] = p, name
	}
	for name := range h.Endpoints {
		if !slices.Contains(endpointNames, name) {
			r.fail("endpoints", "unknown endpoint %q", name)
		}
	}
	for name, p := range s.endpoints {
		if auth := s.endpoints["auth"]; auth != "" && strings.HasPrefix(p, auth+"/") {
			r.fail("endpoints.auth", "%s has the path of %s below it: everything there is auth's", auth, name)
		}
	}
}

func (s *settings) resolveBalance(r *resolver, b *Balance) {
	if b == nil {
		b = &Balance{}
	}
	s.ages.maxAge = r.duration("balance.max_age", b.MaxAge, defaultMaxAge)
	s.ages.maxStale = r.duration("balance.max_stale", b.MaxStale, max(defaultMaxStale, s.ages.maxAge))
	if s.ages.maxStale < s.ages.maxAge {
		r.fail("balance.max_stale", "must not be less than max_age")
	}
	s.passUnknown = r.oneOf("balance.on_unknown", b.OnUnknown, "deny", "deny", "allow") == "allow"
}

func (s *settings) resolveIdentity(r *resolver, i *Identity) {
	if i == nil {
		i = &Identity{}
	}
	presets := i.Presets
	if len(presets) == 0 {
		presets = []string{"default"}
	}
	if slices.Contains(presets, "none") && len(presets) > 1 {
		r.fail("identity", "none contradicts the other presets")
	}
	headers, err := newIdentityHeaders(presets, i.Header)
	r.check("identity", "", err)
	for _, name := range slices.Sorted(maps.Keys(i.Header)) {
		r.template("identity.header", i.Header[name], placeholderPrefix, slices.Sorted(maps.Keys(placeholders)))
	}
	s.identity = headers
}

func (s *settings) resolveSession(r *resolver, o *Session, origin *url.URL) {
	if o == nil {
		o = &Session{}
	}
	s.lifetime = r.duration("session.lifetime", o.Lifetime, defaultLifetime)
	if s.lifetime > maxLifetime {
		r.fail("session.lifetime", "must not be more than 30d, the life of the provider's refresh tokens")
	}
	s.idleTimeout = r.duration("session.idle_timeout", o.IdleTimeout, 0)
	if s.idleTimeout > s.lifetime {
		r.fail("session.idle_timeout", "must not be more than lifetime")
	}
	secure := origin.Scheme == "https"
	sameSite := r.oneOf("session.same_site", o.SameSite, "lax", "lax", "strict", "none")
	if sameSite == "none" && !secure {
		r.fail("session.same_site", "none needs an https redirect_uri: browsers refuse such a cookie otherwise")
	}
	if o.Partitioned && !secure {
		r.fail("session.partitioned", "needs an https redirect_uri: browsers refuse such a cookie otherwise")
	}
	domain := r.domain("session.cookie_domain", o.CookieDomain)
	if host, _ := canonicalHost(origin.Hostname()); domain != "" && host != domain && !strings.HasSuffix(host, "."+domain) {
		r.fail("session.cookie_domain", "%q is not a domain of redirect_uri's host %q", domain, host)
	}
	name := r.text("session.cookie_name", o.CookieName, defaultCookieName(secure, domain))
	if problem := validCookieName(name, secure, domain); problem != "" {
		r.fail("session.cookie_name", "%s", problem)
	}
	s.cookies = &cookieJar{
		name:        name,
		domain:      domain,
		secure:      secure,
		sameSite:    map[string]http.SameSite{"lax": http.SameSiteLaxMode, "strict": http.SameSiteStrictMode, "none": http.SameSiteNoneMode}[sameSite],
		partitioned: o.Partitioned,
	}
}

func (s *settings) resolvePaths(r *resolver, h *Handler) {
	s.refreshBefore = r.duration("refresh_before", h.RefreshBefore, defaultRefreshBefore)
	s.streamRecheck = r.duration("stream_recheck", h.StreamRecheck, defaultStreamRecheck)
	if r.err == nil && s.streamRecheck < time.Second {
		r.fail("stream_recheck", "%s is less than 1s: every open stream's session is looked at so often", s.streamRecheck)
	}
	s.public = r.patterns("public", h.Public)
	s.optional = r.patterns("optional", h.Optional)
	for _, pattern := range s.public {
		if slices.Contains(s.optional, pattern) {
			r.fail("optional", "%q is public already", pattern)
		}
	}
}
