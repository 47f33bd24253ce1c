package tollgate

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/oauth2"
)

// providerPreset holds what a kind of provider is known to have. What is empty has to be
// configured, or is off.
type providerPreset struct {
	name    string // for people
	baseURL string
	// The endpoints' paths below base_url.
	authorization, token, userinfo, topup string

	scopes        []string
	autoAuthorize bool
	// logoutParam is sent with the first sign-in after a logout.
	logoutParam map[string]string
	// statusMissingOK: a user without a status is an active one.
	statusMissingOK bool
}

// providerPresets are the kinds of provider. Of `oauth2` nothing is known but RFC 6749,
// and that most servers understand prompt=login (OpenID Connect Core 3.1.2.1); the
// others have to ignore it (RFC 6749 section 3.1).
var providerPresets = map[string]providerPreset{
	"aihubmix": {
		name:          "AIHubMix",
		baseURL:       defaultBaseURL,
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

func (s *settings) resolveProvider(r *resolver, p *Provider) {
	if p == nil {
		r.fail("provider", "is required")
		return
	}
	preset := providerPresets[r.oneOf("provider", p.Preset, "aihubmix", providerPresetNames()...)]
	endpoints := endpointResolver{r: r, base: strings.TrimRight(r.url("provider.base_url", p.BaseURL, preset.baseURL), "/")}
	c := &oauthClient{
		pkce:          p.PKCE == nil || *p.PKCE,
		autoAuthorize: preset.autoAuthorize,
		tokenLifetime: r.duration("provider.token_lifetime", p.TokenLifetime, defaultTokenLifetime),
		timeout:       r.duration("provider.timeout", p.Timeout, defaultTimeout),
	}
	if p.AutoAuthorize != nil {
		c.autoAuthorize = *p.AutoAuthorize
	}
	c.config = oauth2.Config{
		RedirectURL: s.redirectURI,
		Scopes:      resolveScopes(r, p.Scopes, preset.scopes),
		Endpoint: oauth2.Endpoint{
			AuthURL:  endpoints.required("authorization_endpoint", p.AuthorizationEndpoint, preset.authorization),
			TokenURL: endpoints.required("token_endpoint", p.TokenEndpoint, preset.token),
		},
	}
	c.userinfoEndpoint = endpoints.required("userinfo_endpoint", p.UserinfoEndpoint, preset.userinfo)
	if p.TopupEndpoint != "off" {
		c.topupEndpoint = endpoints.optional("topup_endpoint", p.TopupEndpoint, preset.topup)
	}
	c.revocationEndpoint = endpoints.optional("revocation_endpoint", p.RevocationEndpoint, "")
	c.balanceEndpoint = endpoints.optional("balance_endpoint", p.BalanceEndpoint, "")
	c.issuer = resolveIssuer(r, p.Issuer)
	c.fields = resolveFields(r, p.Fields)
	resolveClient(r, p, &c.config)
	c.authorizeParams = resolveParams(r, "provider.authorize_param", p.AuthorizeParam)
	logoutParam := p.LogoutParam
	if logoutParam == nil {
		logoutParam = preset.logoutParam
	}
	c.logoutParams = resolveParams(r, "provider.logout_param", logoutParam)
	s.client = c
	s.providerName = providerName(preset, c.config.Endpoint.AuthURL)

	s.statusMissingOK = preset.statusMissingOK && p.ActiveStatus == ""
	s.activeStatus = r.text("provider.active_status", p.ActiveStatus, defaultActiveStatus)
}

// endpointResolver reads the provider's endpoints: full URLs, or paths below base_url.
type endpointResolver struct {
	r    *resolver
	base string
}

// required gives an endpoint that no sign-in can do without.
func (e endpointResolver) required(name, raw, defaultPath string) string {
	if raw == "" && (defaultPath == "" || e.base == "") {
		e.r.fail("provider."+name, "is required: of this provider tollgate knows no endpoints, and there is no discovery")
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
		return e.r.url(setting, text, "")
	}
	if e.base == "" || strings.HasPrefix(text, "//") {
		e.r.check(setting, raw, fmt.Errorf("%q is neither an absolute URL nor a path below base_url", text))
	}
	return e.r.url(setting, e.base+text, "")
}

func resolveScopes(r *resolver, raw, byDefault []string) []string {
	if len(raw) == 0 {
		return byDefault
	}
	scopes := r.texts("provider.scopes", raw)
	for i, scope := range scopes {
		r.check("provider.scopes", raw[i], checkScope(scope))
	}
	return scopes
}

// resolveIssuer reads the provider's issuer identifier. It is compared to the letter, so
// it has to be written as the provider writes it (RFC 9207 section 2).
func resolveIssuer(r *resolver, raw string) string {
	issuer := r.url("provider.issuer", raw, "")
	if strings.Contains(issuer, "?") {
		r.check("provider.issuer", raw, errors.New("must have no query"))
	}
	return issuer
}

// providerName is what the pages call the provider: by its name where that is known,
// and else by the host at which people sign in.
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

func resolveClient(r *resolver, p *Provider, config *oauth2.Config) {
	if p.ClientID == "" {
		r.fail("provider.client_id", "is required")
	}
	config.ClientID = r.text("provider.client_id", p.ClientID, "")
	r.check("provider.client_id", p.ClientID, checkCredential(config.ClientID))
	method := r.oneOf("provider.client_authentication", p.ClientAuthentication, "client_secret_post",
		"client_secret_post", "client_secret_basic", "none")
	// Fixed, never probed: probing sends a code or a refresh token twice.
	config.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	if method == "client_secret_basic" {
		config.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
	}
	switch {
	case method == "none" && p.ClientSecret != "":
		r.fail("provider.client_secret", "contradicts client_authentication none")
	case method != "none" && p.ClientSecret == "":
		r.fail("provider.client_secret", "is required")
	default:
		config.ClientSecret = r.text("provider.client_secret", p.ClientSecret, "")
		r.check("provider.client_secret", p.ClientSecret, checkCredential(config.ClientSecret))
	}
}

// ownAuthorizeParams are the parameters of the authorization request that only
// tollgate sets.
var ownAuthorizeParams = []string{
	"client_id", "redirect_uri", "response_type", "scope", "state", "auto_authorize",
	"code_challenge", "code_challenge_method",
}

// resolveParams reads parameters for the authorization endpoint, by name.
func resolveParams(r *resolver, setting string, params map[string]string) []oauth2.AuthCodeOption {
	var options []oauth2.AuthCodeOption
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch {
		case slices.Contains(ownAuthorizeParams, name) || name == "":
			r.fail(setting, "%q is set by tollgate itself", name)
		default:
			r.check(setting, "", checkParamName(name))
		}
		options = append(options, oauth2.SetAuthURLParam(name, r.text(setting, params[name], "")))
	}
	return options
}

func resolveFields(r *resolver, fields map[string]string) fieldPaths {
	var paths fieldPaths
	for f, name := range userFieldWords {
		paths[f] = []string{userFieldJSON[f]}
		if dotted, ok := fields[name]; ok {
			paths[f] = strings.Split(dotted, ".")
			if slices.Contains(paths[f], "") {
				r.fail("provider.fields."+name, "%q is not a dotted path of member names", dotted)
			}
		}
	}
	for name := range fields {
		if !slices.Contains(userFieldWords[:], name) {
			r.fail("provider.fields", "unknown field %q", name)
		}
	}
	return paths
}
