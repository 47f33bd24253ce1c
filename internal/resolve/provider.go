// Package resolve turns plain values of the configuration into what the gateway works with:
// the endpoints of a provider, amounts, path patterns, cookies. It replaces placeholders and
// checks each value through a config.Resolver, which keeps the first error.
//
// It does not know the JSON of the configuration, which is in the root package, and starts
// nothing. There is one file for each part of the configuration. Begin with provider.go.
package resolve

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/oauth2"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// Preset holds the defaults of one kind of provider. An empty value must be configured, or
// the feature is off.
type Preset struct {
	name    string // shown on pages
	BaseURL string
	// The paths of the endpoints below BaseURL.
	Authorization, Token, Userinfo, Topup string

	Scopes        []string
	AutoAuthorize bool
	// LogoutParam is sent with the first sign-in after a logout.
	LogoutParam map[string]string
	// StatusMissingOK is true if a user without a status counts as active.
	StatusMissingOK bool
}

// Presets are the kinds of provider. `oauth2` assumes RFC 6749 only. Most servers understand
// prompt=login (OpenID Connect Core 3.1.2.1); the others must ignore it (RFC 6749 section
// 3.1).
var Presets = map[string]Preset{
	"aihubmix": {
		name:          "AIHubMix",
		BaseURL:       oauth.DefaultBaseURL,
		Authorization: "/api/oauth2/authorize",
		Token:         "/api/oauth2/token",
		Userinfo:      "/api/oauth2/userinfo",
		Topup:         "/api/oauth2/topup",
		Scopes:        []string{"profile", "balance"},
		AutoAuthorize: true,
	},
	"oauth2": {
		LogoutParam:     map[string]string{"prompt": "login"},
		StatusMissingOK: true,
	},
}

// PresetNames lists the kinds of provider.
func PresetNames() []string { return slices.Sorted(maps.Keys(Presets)) }

// NameOf is the provider's name on the pages: the name of the preset, or the host of the
// authorization endpoint.
func (p Preset) NameOf(authorizationEndpoint string) string {
	if p.name != "" {
		return p.name
	}
	u, err := url.Parse(authorizationEndpoint)
	if err != nil {
		return ""
	}
	return u.Host
}

// Endpoints reads the provider's endpoints: full URLs, or paths below base_url.
type Endpoints struct {
	r    *config.Resolver
	base string
}

// NewEndpoints returns a reader of endpoints below baseURL.
func NewEndpoints(r *config.Resolver, baseURL string) Endpoints {
	return Endpoints{r: r, base: strings.TrimRight(baseURL, "/")}
}

// Required reads an endpoint that every sign-in needs.
func (e Endpoints) Required(name, raw, defaultPath string) string {
	if raw == "" && (defaultPath == "" || e.base == "") {
		e.r.Fail("provider."+name, "is required: tollgate does not know the endpoints of this provider, and does not use discovery")
	}
	return e.Optional(name, raw, defaultPath)
}

// Optional reads an endpoint that a provider need not have.
func (e Endpoints) Optional(name, raw, defaultPath string) string {
	setting := "provider." + name
	text := raw
	if text == "" {
		text = defaultPath
	}
	if !strings.HasPrefix(text, "/") {
		return e.r.URL(setting, text, "")
	}
	if e.base == "" || strings.HasPrefix(text, "//") {
		// The text is not repeated: a secret may be part of it.
		e.r.Check(setting, raw, errors.New("is neither an absolute URL nor a path below base_url"))
	}
	return e.r.URL(setting, e.base+text, "")
}

// Scopes reads the scopes of a sign-in.
func Scopes(r *config.Resolver, raw, byDefault []string) []string {
	if len(raw) == 0 {
		return byDefault
	}
	scopes := r.Texts("provider.scopes", raw)
	for i, scope := range scopes {
		r.Check("provider.scopes", raw[i], oauth.CheckScope(scope))
	}
	return scopes
}

// Issuer reads the provider's issuer identifier. It is compared exactly, so it must be
// written as the provider writes it (RFC 9207 section 2).
func Issuer(r *config.Resolver, raw string) string {
	issuer := r.URL("provider.issuer", raw, "")
	if strings.Contains(issuer, "?") {
		r.Check("provider.issuer", raw, errors.New("must not contain a query"))
	}
	return issuer
}

// Client reads the client's id and secret, and how it sends the secret, into conf.
func Client(r *config.Resolver, id, secret, authentication string, conf *oauth2.Config) {
	if id == "" {
		r.Fail("provider.client_id", "is required")
	}
	conf.ClientID = r.Text("provider.client_id", id, "")
	r.Check("provider.client_id", id, oauth.CheckCredential(conf.ClientID))
	method := r.OneOf("provider.client_authentication", authentication, "client_secret_post",
		"client_secret_post", "client_secret_basic", "none")
	// Fixed and never probed: probing would send a code or a refresh token twice.
	conf.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	if method == "client_secret_basic" {
		conf.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
	}
	switch {
	case method == "none" && secret != "":
		r.Fail("provider.client_secret", "contradicts client_authentication none")
	case method != "none" && secret == "":
		r.Fail("provider.client_secret", "is required")
	default:
		conf.ClientSecret = ClientSecret(r, secret)
	}
}

// ClientSecret reads the client secret.
func ClientSecret(r *config.Resolver, raw string) string {
	secret := r.Text("provider.client_secret", raw, "")
	r.Check("provider.client_secret", raw, oauth.CheckCredential(secret))
	return secret
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

// Params reads parameters for the authorization endpoint, by name.
func Params(r *config.Resolver, setting string, params map[string]string) []oauth2.AuthCodeOption {
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

// Fields reads where in the user information each field is.
func Fields(r *config.Resolver, fields map[string]string) oauth.FieldPaths {
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
