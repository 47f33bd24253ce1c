package tollgate

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// resolveTopupHosts parses topup_hosts, in the form of origin.HostAndPort.
func (s *settings) resolveTopupHosts(r *config.Resolver, raw []string) {
	const setting = "topup_hosts"
	if len(raw) > 0 && r.Err == nil && s.client.TopupEndpoint == "" {
		r.Fail(setting, "has no effect without topup_endpoint: remove it, or set topup_endpoint")
	}
	for i, text := range r.Texts(setting, raw) {
		host, err := parseHost(text)
		r.Check(setting, raw[i], err)
		if r.Err == nil {
			s.client.TopupHosts = append(s.client.TopupHosts, host)
		}
	}
}

// parseHost parses a host with an optional port, as in an https URL.
func parseHost(text string) (string, error) {
	u, err := url.Parse("https://" + text)
	if err != nil || u.User != nil || u.Host != text || strings.HasSuffix(text, ":") {
		return "", fmt.Errorf("%q is not a host such as pay.example.com or pay.example.com:8443", text)
	}
	if _, err := origin.CanonicalHost(u.Hostname()); err != nil {
		return "", err
	}
	return origin.HostAndPort(u), nil
}

// providerPreset holds the defaults of one kind of provider. An empty value must be
// configured, or the feature is off.
type providerPreset struct {
	name    string // shown on pages
	baseURL string
	// The paths of the endpoints below base_url.
	authorization, token, userinfo, topup string

	scopes        []string
	autoAuthorize bool
	// logoutParam is sent with the first sign-in after a logout.
	logoutParam map[string]string
	// statusMissingOK is true if a user without a status counts as active.
	statusMissingOK bool
}

// providerPresets are the kinds of provider. `oauth2` assumes RFC 6749 only. Most servers
// understand prompt=login (OpenID Connect Core 3.1.2.1); the others must ignore it (RFC 6749
// section 3.1).
var providerPresets = map[string]providerPreset{
	"aihubmix": {
		name:          "AIHubMix",
		baseURL:       oauth.DefaultBaseURL,
		authorization: "/api/oauth2/authorize",
		token:         "/api/oauth2/token",
		userinfo:      "/api/oauth2/userinfo",
		topup:         "/api/oauth2/topup",
		scopes:        []string{"profile", "balance"},
		autoAuthorize: true,
	},
	"oauth2": {
		logoutParam:     map[string]string{"prompt": "login"},
		statusMissingOK: true,
	},
}

func providerPresetNames() []string { return slices.Sorted(maps.Keys(providerPresets)) }

func (s *settings) resolveProvider(r *config.Resolver, p *Provider, now func() time.Time) {
	if p == nil {
		r.Fail("provider", "is required")
		return
	}
	preset := providerPresets[r.OneOf("provider", p.Preset, "aihubmix", providerPresetNames()...)]
	endpoints := endpointResolver{r: r, base: strings.TrimRight(r.Url("provider.base_url", p.BaseURL, preset.baseURL), "/")}
	c := oauth.NewClient(r.Duration("provider.timeout", p.Timeout, defaultTimeout), now)
	c.PKCE = p.PKCE == nil || *p.PKCE
	c.AutoAuthorize = preset.autoAuthorize
	c.TokenLifetime = r.Duration("provider.token_lifetime", p.TokenLifetime, defaultTokenLifetime)
	if p.AutoAuthorize != nil {
		c.AutoAuthorize = *p.AutoAuthorize
	}
	c.Config = oauth2.Config{
		RedirectURL: s.redirectURI,
		Scopes:      resolveScopes(r, p.Scopes, preset.scopes),
		Endpoint: oauth2.Endpoint{
			AuthURL:  endpoints.required("authorization_endpoint", p.AuthorizationEndpoint, preset.authorization),
			TokenURL: endpoints.required("token_endpoint", p.TokenEndpoint, preset.token),
		},
	}
	c.UserinfoEndpoint = endpoints.required("userinfo_endpoint", p.UserinfoEndpoint, preset.userinfo)
	if p.TopupEndpoint != "off" {
		c.TopupEndpoint = endpoints.optional("topup_endpoint", p.TopupEndpoint, preset.topup)
	}
	c.RevocationEndpoint = endpoints.optional("revocation_endpoint", p.RevocationEndpoint, "")
	c.BalanceEndpoint = endpoints.optional("balance_endpoint", p.BalanceEndpoint, "")
	c.Issuer = resolveIssuer(r, p.Issuer)
	c.Fields = resolveFields(r, p.Fields)
	resolveClient(r, p, &c.Config)
	c.AuthorizeParams = resolveParams(r, "provider.authorize_param", p.AuthorizeParam)
	logoutParam := p.LogoutParam
	if logoutParam == nil {
		logoutParam = preset.logoutParam
	}
	c.LogoutParams = resolveParams(r, "provider.logout_param", logoutParam)
	s.client = c
	s.providerName = providerName(preset, c.Config.Endpoint.AuthURL)

	s.statusMissingOK = preset.statusMissingOK && p.ActiveStatus == ""
	s.activeStatus = r.Text("provider.active_status", p.ActiveStatus, defaultActiveStatus)
}

// endpointResolver reads the provider's endpoints: full URLs, or paths below base_url.
type endpointResolver struct {
	r    *config.Resolver
	base string
}

// required reads an endpoint that every sign-in needs.
func (e endpointResolver) required(name, raw, defaultPath string) string {
	if raw == "" && (defaultPath == "" || e.base == "") {
		e.r.Fail("provider."+name, "is required: tollgate does not know the endpoints of this provider, and does not use discovery")
	}
	return e.optional(name, raw, defaultPath)
}

func (e endpointResolver) optional(name, raw, defaultPath string) string {
	setting := "provider." + name
	text := raw
	if text == "" {
		text = defaultPath
	}
	if !strings.HasPrefix(text, "/") {
		return e.r.Url(setting, text, "")
	}
	if e.base == "" || strings.HasPrefix(text, "//") {
		// The text is not repeated: a secret may be part of it.
		e.r.Check(setting, raw, errors.New("is neither an absolute URL nor a path below base_url"))
	}
	return e.r.Url(setting, e.base+text, "")
}

func resolveScopes(r *config.Resolver, raw, byDefault []string) []string {
	if len(raw) == 0 {
		return byDefault
	}
	scopes := r.Texts("provider.scopes", raw)
	for i, scope := range scopes {
		r.Check("provider.scopes", raw[i], oauth.CheckScope(scope))
	}
	return scopes
}

// resolveIssuer reads the provider's issuer identifier. It is compared exactly, so it must be
// written as the provider writes it (RFC 9207 section 2).
func resolveIssuer(r *config.Resolver, raw string) string {
	issuer := r.Url("provider.issuer", raw, "")
	if strings.Contains(issuer, "?") {
		r.Check("provider.issuer", raw, errors.New("must not contain a query"))
	}
	return issuer
}

// providerName is the provider's name on the pages: the name of the preset, or the host of the
// authorization endpoint.
func providerName(preset providerPreset, authorizationEndpoint string) string {
	if preset.name != "" {
		return preset.name
	}
	u, err := url.Parse(authorizationEndpoint)
	if err != nil {
		return ""
	}
	return u.Host
}

func resolveClient(r *config.Resolver, p *Provider, conf *oauth2.Config) {
	if p.ClientID == "" {
		r.Fail("provider.client_id", "is required")
	}
	conf.ClientID = r.Text("provider.client_id", p.ClientID, "")
	r.Check("provider.client_id", p.ClientID, oauth.CheckCredential(conf.ClientID))
	method := r.OneOf("provider.client_authentication", p.ClientAuthentication, "client_secret_post",
		"client_secret_post", "client_secret_basic", "none")
	// Fixed and never probed: probing would send a code or a refresh token twice.
	conf.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	if method == "client_secret_basic" {
		conf.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
	}
	switch {
	case method == "none" && p.ClientSecret != "":
		r.Fail("provider.client_secret", "contradicts client_authentication none")
	case method != "none" && p.ClientSecret == "":
		r.Fail("provider.client_secret", "is required")
	default:
		conf.ClientSecret = r.Text("provider.client_secret", p.ClientSecret, "")
		r.Check("provider.client_secret", p.ClientSecret, oauth.CheckCredential(conf.ClientSecret))
	}
}

// ownAuthorizeParams are the parameters of the authorization request that only tollgate
// may set.
var ownAuthorizeParams = []string{
	"client_id", "redirect_uri", "response_type", "scope", "state", "auto_authorize",
	"code_challenge", "code_challenge_method",
}

// tokenParams are parameters for the token endpoint only. Sent to the authorization endpoint,
// they would show a secret to the browser.
var tokenParams = []string{"client_secret", "code", "code_verifier", "grant_type", "refresh_token"}

// resolveParams reads parameters for the authorization endpoint, by name.
func resolveParams(r *config.Resolver, setting string, params map[string]string) []oauth2.AuthCodeOption {
	var options []oauth2.AuthCodeOption
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch {
		case slices.Contains(ownAuthorizeParams, name) || name == "":
			r.Fail(setting, "%q is set by tollgate itself", name)
		case slices.Contains(tokenParams, name):
			r.Fail(setting, "%q is a parameter of the token endpoint: here it would be sent through the browser", name)
		default:
			r.Check(setting, "", oauth.CheckParamName(name))
		}
		options = append(options, oauth2.SetAuthURLParam(name, r.Text(setting, params[name], "")))
	}
	return options
}

func resolveFields(r *config.Resolver, fields map[string]string) oauth.FieldPaths {
	var paths oauth.FieldPaths
	for f, name := range oauth.UserFieldWords {
		paths[f] = []string{oauth.UserFieldJSON[f]}
		if dotted, ok := fields[name]; ok {
			paths[f] = strings.Split(dotted, ".")
			if slices.Contains(paths[f], "") {
				r.Fail("provider.fields."+name, "%q is not a dotted path of member names", dotted)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(oauth.UserFieldWords[:], name) {
			r.Fail("provider.fields", "unknown field %s", config.UnknownName(name, oauth.UserFieldWords[:]))
		}
	}
	return paths
}
