package tollgate

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
)

// Assertion is the user's identity as a signed JWT, for an upstream that others than
// the gateway could reach, or that hands the identity on.
type Assertion struct {
	// The header that carries it. One of this name that a client sends is removed.
	// Default: `X-Tollgate-Assertion`.
	Header string `json:"header,omitempty"`

	// Who it is for, in the claim `aud`. Default: the origin of `redirect_uri`.
	Audience string `json:"audience,omitempty"`

	// How long it is valid, from 10s to 5m, and never beyond the session's `lifetime`.
	// One assertion is used for up to half of that, while nothing in it changes.
	// Default: 60s.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`
}

// Provider is the OAuth 2.0 provider that people sign in with.
//
// Every text here may hold placeholders such as `{env.X}` and `{file./path}`,
// which are read when the configuration is loaded. One that is missing or empty
// stops the start.
type Provider struct {
	// The kind of provider: `aihubmix`, or `oauth2` for any other server that
	// speaks plain OAuth 2.0. With `oauth2` nothing is assumed: the authorization, token
	// and user information endpoints have to be set, no scope is asked for, there is no
	// top-up, `auto_authorize` is off, and a user information answer without a status is
	// accepted unless `active_status` is set. There is no discovery (RFC 8414): a document
	// that is fetched would decide where the client secret is sent, and the gateway starts
	// without a network. Default: `aihubmix`.
	Preset string `json:"preset,omitempty"`

	// What an endpoint below is relative to that is written as a path, and what the
	// default endpoints are relative to. Must be https, or http on loopback.
	// Default: `https://api.aihubmix.com` with `aihubmix`, none with `oauth2`.
	BaseURL string `json:"base_url,omitempty"`

	// The client identifier that the provider gave this application. Required.
	ClientID string `json:"client_id,omitempty"`

	// The client secret that goes with it. Required, except with the client
	// authentication `none`. It is sent to the token endpoint (and the revocation
	// endpoint, where there is one) and nowhere else.
	ClientSecret string `json:"client_secret,omitempty"`

	// How the client secret is sent (RFC 6749 section 2.3.1): `client_secret_post`
	// in the body, `client_secret_basic` in the Authorization header, or `none` for
	// a client without a secret. Default: `client_secret_post`.
	ClientAuthentication string `json:"client_authentication,omitempty"`

	// Where the browser is sent to sign in. Required with `oauth2`.
	// Default with `aihubmix`: `<base_url>/api/oauth2/authorize`.
	AuthorizationEndpoint string `json:"authorization_endpoint,omitempty"`

	// Where codes and refresh tokens become tokens. The answer may be JSON or a form.
	// Required with `oauth2`. Default with `aihubmix`: `<base_url>/api/oauth2/token`.
	TokenEndpoint string `json:"token_endpoint,omitempty"`

	// Where the user information is read. Required with `oauth2`.
	// Default with `aihubmix`: `<base_url>/api/oauth2/userinfo`.
	UserinfoEndpoint string `json:"userinfo_endpoint,omitempty"`

	// Where the top-up URL is asked for; `off` for a provider without one.
	// Default: `<base_url>/api/oauth2/topup` with `aihubmix`, `off` with `oauth2`.
	TopupEndpoint string `json:"topup_endpoint,omitempty"`

	// Where refresh tokens are revoked at logout (RFC 7009). Default: none.
	RevocationEndpoint string `json:"revocation_endpoint,omitempty"`

	// Where a provider that keeps the balance apart from the user information
	// answers it, in the same `fields`. Default: none.
	BalanceEndpoint string `json:"balance_endpoint,omitempty"`

	// The provider's issuer identifier (RFC 9207), for a provider that names it in the
	// callback's `iss` and whose issuer is on another host than its endpoints. It has to
	// be equal to the letter. A callback without `iss` is accepted. Default: an `iss` must
	// be on the host of one of the endpoints.
	Issuer string `json:"issuer,omitempty"`

	// The scopes to ask for. Default: `profile` and `balance` with `aihubmix`, none with
	// `oauth2`.
	Scopes []string `json:"scopes,omitempty"`

	// Whether to send `auto_authorize=true`, which skips the provider's consent
	// page. The first login after a logout leaves it out, so that signing out is
	// not undone by itself. Default: true with `aihubmix`, false with `oauth2`.
	AutoAuthorize *bool `json:"auto_authorize,omitempty"`

	// Whether to use PKCE with S256 (RFC 7636). A provider that does not know it
	// ignores it. Default: true.
	PKCE *bool `json:"pkce,omitempty"`

	// More parameters for the authorization endpoint, by name. The ones that
	// tollgate sends itself cannot be set here.
	AuthorizeParam map[string]string `json:"authorize_param,omitempty"`

	// Parameters for the authorization endpoint, by name, that only the first sign-in
	// after a logout sends, so that a provider where the person is still signed in does not
	// undo the logout by itself. `off` in the Caddyfile, `{}` in JSON: none.
	// Default: `prompt` with the value `login` with `oauth2`, none with `aihubmix`.
	LogoutParam map[string]string `json:"logout_param,omitzero"`

	// How long an access token lives when the provider's answer has no usable
	// expires_in. Default: 2h.
	TokenLifetime caddy.Duration `json:"token_lifetime,omitempty"`

	// How long one request to the provider may take. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Where each field stands in the user information answer, as a dotted path of
	// member names. The fields are `id`, `username`, `email`, `quota`,
	// `used_quota`, `balance`, `status` and `created_time`. Default: the field's own
	// name, and `balance_formatted` for `balance`.
	Fields map[string]string `json:"fields,omitempty"`

	// The status of a user who may be served. A user of any other is refused with
	// 403, and so is one without a status, except as `preset` says. `any` accepts all.
	// Default: `1`.
	ActiveStatus string `json:"active_status,omitempty"`
}

// Require is one block of rules for who is signed in.
type Require struct {
	// The path patterns, as of Caddy's path matcher, to which the rules apply. They
	// stand behind `require`. If a directive such as `rewrite` or `uri` changes a path,
	// one of the two paths suffices. Default: every path.
	Paths []string `json:"paths,omitempty"`

	// The least balance, such as `0.50`; not negative. It is compared exactly with the
	// provider's text. Below it the answer is 402. Default: none.
	Balance string `json:"balance,omitempty"`

	// The domains, of which the user's e-mail address must have one: the part behind
	// its one `@`, and not a part of that. It is worth as much as the provider's check
	// of addresses. Default: any.
	EmailDomain []string `json:"email_domain,omitempty"`

	// The ids, of which the user must have one, as exact text. Default: any.
	User []string `json:"user,omitempty"`
}

// Balance says how old the user information, and with it the balance, may be.
type Balance struct {
	// Information older than this is re-read: while it is still used, or before, when
	// it is older than `max_stale`. Default: 60s.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// How old a balance may be used while the provider does not answer. An older one
	// is unknown. Not below `max_age`. Default: 15m.
	MaxStale caddy.Duration `json:"max_stale,omitempty"`

	// What becomes of a request to which a required `balance` applies while none is
	// known, or none that can be read: `deny` answers 402, `allow` lets it pass. An amount
	// that cannot be read and is plainly negative, such as `(5.00)` or `5.00-`, gets 402
	// with `allow`, too. Default: `deny`.
	OnUnknown string `json:"on_unknown,omitempty"`
}

// Identity says which headers tell the upstream who the user is.
type Identity struct {
	// Sets of headers: `default` (X-User-…), `webauth` (X-WEBAUTH-…), `remote`
	// (Remote-…), `forwarded` (X-Forwarded-User, …), `auth_request`
	// (X-Auth-Request-…), or `none`. Default: `default`.
	Presets []string `json:"presets,omitempty"`

	// Headers of your own, by name. The value may hold placeholders, such as
	// `{http.auth.user.id}`. It is percent-encoded like every identity header, and a
	// header of this name that a client sends is removed.
	Header map[string]string `json:"header,omitempty"`
}

// ForwardAuth lets another proxy ask who a request comes from, and whether it may
// pass: at the endpoint `auth`, and at every path below it.
type ForwardAuth struct {
	// The proxies that may say which URL they were asked for, and so which rules of
	// `public`, `optional` and `require` apply: addresses, CIDR ranges, or
	// `private_ranges`. They say it in `X-Forwarded-Uri`, `X-Original-URL` or `X-Auth-Request-Redirect`, or
	// append the path to that of `auth`. Each of them must set one of these headers with
	// every question, or the client's own would count; two that disagree are refused, and
	// so is a full URL without the path alone in another of them. To
	// everybody else every path is a protected one, to which every `require` block
	// applies. Default: none.
	TrustedProxies []string `json:"trusted_proxies,omitempty"`
}

// Session says how sessions are kept.
type Session struct {
	// Where sessions are kept: `cookie`, in the browser; `storage`, in Caddy's storage;
	// `redis`, in Redis or Valkey. docs/sessions.md says what each promises.
	// Default: `cookie`.
	Store json.RawMessage `json:"store,omitempty" caddy:"namespace=tollgate.stores inline_key=module"`

	// How long a session lives at most, from its sign-in. Up to 30d, the life of the
	// provider's refresh tokens. Default: 30d.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`

	// How long a session lives without a request. Default: off.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`

	// The SameSite attribute of the session cookie: `lax`, `strict` or `none`.
	// `none` needs an https origin, and lets every other site send requests with the
	// session: the application then has to protect its own forms and calls against
	// cross-site request forgery. With `strict` a sign-in ends on a page that goes on
	// by itself, since a browser sends no such cookie along a redirect from the
	// provider. Default: `lax`.
	SameSite string `json:"same_site,omitempty"`

	// The session cookie's name, to the letter. Default: `__Host-tollgate` on https
	// (`__Secure-tollgate` with `cookie_domain`), `tollgate` on plain http.
	CookieName string `json:"cookie_name,omitempty"`

	// The Domain attribute, for a session that several hosts of one domain share.
	// It gives up the protection of the prefix `__Host-`. Default: none.
	CookieDomain string `json:"cookie_domain,omitempty"`

	// Whether the session cookie has the attribute Partitioned: a browser then keeps one
	// for each site that the application stands in a frame of, and sends it nowhere
	// else. A sign-in happens outside of frames, so the session that it begins is not
	// seen inside of them. Needs an https origin. Default: false.
	Partitioned bool `json:"partitioned,omitempty"`
}
