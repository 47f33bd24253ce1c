package tollgate

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
)

// Assertion is the user's identity as a signed JWT. Turn it on if anything except the
// gateway can reach the upstream, or if the upstream passes the identity on.
type Assertion struct {
	// The header that carries the assertion. A header of this name from a client is
	// removed. Default: `X-Tollgate-Assertion`.
	Header string `json:"header,omitempty"`

	// The recipient: the value of the claim `aud`. Default: the origin of `redirect_uri`.
	Audience string `json:"audience,omitempty"`

	// How long an assertion is valid, from 10s to 5m. It never outlives the session's
	// `lifetime`. One assertion is reused for up to half of this time if its content stays
	// the same. Default: 60s.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`
}

// Provider is the OAuth 2.0 provider that people sign in with.
//
// Every text here may contain placeholders such as `{env.X}` and `{file./path}`. They
// are read when the configuration is loaded. If one is missing or empty, tollgate refuses
// to start.
type Provider struct {
	// The kind of provider: `aihubmix`, or `oauth2` for any other OAuth 2.0 server.
	// With `oauth2` you must set the authorization, token and user information endpoints.
	// By default no scope is requested, there is no top-up and `auto_authorize` is off.
	// User information without a status is accepted unless `active_status` is set.
	// Discovery (RFC 8414) is not used: a downloaded document would decide where the client
	// secret is sent, and the gateway must start without a network. Default: `aihubmix`.
	Preset string `json:"preset,omitempty"`

	// The base of the default endpoints, and of endpoints below that are written as a
	// path. Must be https (http only on loopback). Default: `https://api.aihubmix.com` with
	// `aihubmix`, none with `oauth2`.
	BaseURL string `json:"base_url,omitempty"`

	// The client ID that the provider gave this application. Required.
	ClientID string `json:"client_id,omitempty"`

	// The client secret that belongs to `client_id`. From a file (`{file./path}`) it
	// is read again when the file changes. Required, except with
	// `client_authentication none`. It is sent only to the token endpoint and to the
	// revocation endpoint.
	ClientSecret string `json:"client_secret,omitempty"`

	// How the client secret is sent (RFC 6749 section 2.3.1): `client_secret_post`
	// in the body, `client_secret_basic` in the Authorization header, or `none` for
	// a client without a secret. Default: `client_secret_post`.
	ClientAuthentication string `json:"client_authentication,omitempty"`

	// The URL at which users sign in: the browser is redirected there. Required with `oauth2`.
	// Default with `aihubmix`: `<base_url>/api/oauth2/authorize`.
	AuthorizationEndpoint string `json:"authorization_endpoint,omitempty"`

	// The endpoint that exchanges codes and refresh tokens for tokens. Its response may be
	// JSON or a form. Required with `oauth2`. Default with `aihubmix`:
	// `<base_url>/api/oauth2/token`.
	TokenEndpoint string `json:"token_endpoint,omitempty"`

	// The endpoint that returns the user information. Required with `oauth2`.
	// Default with `aihubmix`: `<base_url>/api/oauth2/userinfo`.
	UserinfoEndpoint string `json:"userinfo_endpoint,omitempty"`

	// The endpoint that returns the top-up URL. Set `off` if the provider has none.
	// Default: `<base_url>/api/oauth2/topup` with `aihubmix`, `off` with `oauth2`.
	TopupEndpoint string `json:"topup_endpoint,omitempty"`

	// The endpoint that revokes refresh tokens at logout (RFC 7009). Default: none.
	RevocationEndpoint string `json:"revocation_endpoint,omitempty"`

	// The endpoint that returns the balance, if the user information does not contain it.
	// `fields` applies to its response, too. Default: none.
	BalanceEndpoint string `json:"balance_endpoint,omitempty"`

	// The provider's issuer identifier (RFC 9207). Set it if the provider sends `iss` to
	// the callback and its issuer is on a different host than its endpoints. The two texts
	// must be identical. A callback without `iss` is accepted. Default: an `iss` must be on
	// the host of one of the endpoints.
	Issuer string `json:"issuer,omitempty"`

	// The scopes to request. Default: `profile` and `balance` with `aihubmix`, none with
	// `oauth2`.
	Scopes []string `json:"scopes,omitempty"`

	// Whether to send `auto_authorize=true`, which skips the provider's consent page. The
	// first login after a logout does not send it, so that the user is not signed in again
	// automatically. Default: true with `aihubmix`, false with `oauth2`.
	AutoAuthorize *bool `json:"auto_authorize,omitempty"`

	// Whether to use PKCE with S256 (RFC 7636). A provider without PKCE ignores it.
	// Default: true.
	PKCE *bool `json:"pkce,omitempty"`

	// More parameters for the authorization endpoint, by name. Parameters that tollgate
	// sets itself are not allowed here.
	AuthorizeParam map[string]string `json:"authorize_param,omitempty"`

	// Parameters for the authorization endpoint, by name, for the first sign-in after a
	// logout only. They keep a provider from signing the user in again automatically. For
	// none write `off` in the Caddyfile or `{}` in JSON. Default: `prompt` with the value
	// `login` with `oauth2`, none with `aihubmix`.
	LogoutParam map[string]string `json:"logout_param,omitzero"`

	// The lifetime of an access token if the provider's response has no usable
	// `expires_in`. Default: 2h.
	TokenLifetime caddy.Duration `json:"token_lifetime,omitempty"`

	// The timeout of one request to the provider. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Where each field is in the user information response, as a dotted path of
	// member names. The fields are `id`, `username`, `email`, `quota`,
	// `used_quota`, `balance`, `status` and `created_time`. Default: the field's own
	// name, and `balance_formatted` for `balance`.
	Fields map[string]string `json:"fields,omitempty"`

	// The status that a user must have. A user with another status gets 403. So does a user
	// without a status, except with preset `oauth2` while `active_status` is not set. `any`
	// accepts every user. Default: `1`.
	ActiveStatus string `json:"active_status,omitempty"`
}

// Require is one block of rules for signed-in users.
type Require struct {
	// The paths to which the rules apply, as patterns of Caddy's path matcher. In the
	// Caddyfile write them behind `require`. If a directive such as `rewrite` or `uri`
	// changes a path, the rules apply if one of the two paths matches. Default: every path.
	Paths []string `json:"paths,omitempty"`

	// The minimum balance, such as `0.50`. It must not be negative. It is compared exactly
	// (as a decimal) with the provider's text. A user with less gets 402. Default: none.
	Balance string `json:"balance,omitempty"`

	// What a request holds of the user's money while it runs, such as `0.10`. The request
	// passes only if the balance, minus what other requests hold and what was spent since the
	// balance was read, covers the required `balance` and this amount. Otherwise the response
	// is 402, or 503 if the balance cannot be checked. Without an amount in the Caddyfile,
	// `reserve` holds the `balance` of its block. At an `optional` path a request without enough money passes as
	// anonymous. Not with `forward_auth`, which does not see when a response ends. See
	// docs/spending.md. Default: none.
	Reserve string `json:"reserve,omitempty"`

	// What one user may spend at these paths in each UTC hour, day or month, by the
	// application's `Tollgate-Cost`. Above it the response is 402, `budget_exceeded`. Without
	// `reserve`, requests that run at the same time can exceed the budget. A block may have
	// several budgets with different windows. Not with `forward_auth`. Default: none.
	Budget []*Budget `json:"budget,omitempty"`

	// Allowed e-mail domains. The part after the only `@` must equal one of them;
	// subdomains do not match. Only as trustworthy as the provider's verification of
	// addresses. Default: any.
	EmailDomain []string `json:"email_domain,omitempty"`

	// Allowed user IDs. The user's ID must equal one of them exactly. Default: any.
	User []string `json:"user,omitempty"`
}

// Budget is what one user may spend in a window.
type Budget struct {
	// The amount, such as `5.00`. More may be spent only by a request that costs more than it
	// holds. Required.
	Amount string `json:"amount,omitempty"`

	// The window: `hour`, `day` or `month`, in UTC. Required.
	Per string `json:"per,omitempty"`
}

// Balance limits the age of the user information, and so of the balance in it.
type Balance struct {
	// User information older than this is re-read. Requests use the old information
	// meanwhile, unless it is older than `max_stale`: then they wait. Default: 60s.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// How old a balance may be while the provider is unavailable. An older balance is
	// unknown. Must not be less than `max_age`. Default: 15m.
	MaxStale caddy.Duration `json:"max_stale,omitempty"`

	// What happens if a `require` block needs a balance and the balance is unknown or not
	// a number: `deny` answers 402, `allow` lets the request pass. An amount that is not a
	// number but clearly negative, such as `(5.00)` or `5.00-`, gets 402 even with `allow`.
	// Default: `deny`.
	OnUnknown string `json:"on_unknown,omitempty"`

	// Below this balance, such as `2.00`, responses to page navigations and those of
	// `userinfo` carry `Tollgate-Balance-Low: 1`. Nobody is refused. Default: none.
	Low string `json:"low,omitempty"`
}

// Identity selects the headers that tell the upstream who the user is.
type Identity struct {
	// Sets of headers: `default` (X-User-…), `webauth` (X-WEBAUTH-…), `remote`
	// (Remote-…), `forwarded` (X-Forwarded-User, …), `auth_request`
	// (X-Auth-Request-…), or `none`. Default: `default`.
	Presets []string `json:"presets,omitempty"`

	// Your own headers, by name. The value may contain placeholders, such as
	// `{http.auth.user.id}`. It is percent-encoded like every identity header. A header of
	// this name from a client is removed.
	Header map[string]string `json:"header,omitempty"`
}

// ForwardAuth opens the endpoint `auth`, and every path below it. There another proxy
// asks who sent a request, and whether the request may pass.
type ForwardAuth struct {
	// The proxies that may send the original URL, as addresses, CIDR ranges or
	// `private_ranges`. The URL decides which rules of `public`, `optional` and `require`
	// apply. They send it in `X-Forwarded-Uri`, `X-Original-URL` or
	// `X-Auth-Request-Redirect`, or append the path to that of `auth`. Each proxy must set
	// one of these headers on every auth check: otherwise the header that the client sent
	// counts. Headers that disagree are refused. A full URL is refused unless another of
	// these headers holds the same path and query alone. For all other peers every path is
	// protected, and every `require` block applies. Default: none.
	TrustedProxies []string `json:"trusted_proxies,omitempty"`
}

// Session configures how sessions are stored, and the session cookie.
type Session struct {
	// Where sessions are stored: `cookie` (in the browser), `storage` (in Caddy's storage)
	// or `redis` (in Redis or Valkey). docs/sessions.md compares them. Default: `cookie`.
	Store json.RawMessage `json:"store,omitempty" caddy:"namespace=tollgate.stores inline_key=module"`

	// The longest life of a session, counted from the sign-in. At most 30d, which is the
	// lifetime of the provider's refresh tokens. Default: 30d.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`

	// A session without requests ends after this time. Default: off.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`

	// The SameSite attribute of the session cookie: `lax`, `strict` or `none`.
	// `none` needs an https origin. It lets every other site send requests with the
	// session, so your application must protect its own forms and calls against cross-site
	// request forgery. With `strict` a sign-in ends on a page that continues by itself,
	// because a browser does not send a strict cookie after a redirect from the provider.
	// Default: `lax`.
	SameSite string `json:"same_site,omitempty"`

	// The exact name of the session cookie. Default: `__Host-tollgate` on https
	// (`__Secure-tollgate` with `cookie_domain`), `tollgate` on plain http.
	CookieName string `json:"cookie_name,omitempty"`

	// The Domain attribute of the session cookie. Set it if several hosts of one domain
	// share a session. The cookie then loses the protection of the prefix `__Host-`.
	// Default: none.
	CookieDomain string `json:"cookie_domain,omitempty"`

	// Whether the session cookie has the attribute Partitioned. The browser then keeps a
	// separate cookie for each site that shows your application in a frame. A sign-in
	// happens outside of frames, so its session is not available inside them. Needs an
	// https origin. Default: false.
	Partitioned bool `json:"partitioned,omitempty"`
}
