// Package tollgate is an authentication gateway for Caddy. It runs in front of an
// existing web application, signs users in with AIHubMix's OAuth 2.0, keeps their
// sessions, and tells the application who they are and how much they can still spend.
//
// Begin with Handler, the configuration, and with its ServeHTTP in handler.go.
package tollgate

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-tollgate/tollgate/internal/audit"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/charging"
	"github.com/caddy-tollgate/tollgate/internal/clock"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/errorroutes"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/neighbours"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/resolve"
	"github.com/caddy-tollgate/tollgate/internal/secretfiles"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/watch"
	"github.com/caddy-tollgate/tollgate/stores/cookie"
	"github.com/caddy-tollgate/tollgate/web"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler signs users in, and forwards their requests with headers that identify the
// user. For a request without a session it redirects a page navigation to the provider,
// and answers any other request with 401.
//
// Every text may contain placeholders such as `{env.X}` and `{file./path}`. They are read
// when the configuration is loaded. If one is missing or empty, tollgate refuses to start.
//
// For later directives and the access log it sets these placeholders. They are empty for
// an anonymous request:
//
// Placeholder | Description
// ------------|---------------
// `{http.auth.user.id}` | The provider's immutable user id
// `{http.auth.user.username}` | The user name
// `{http.auth.user.email}` | The e-mail address
// `{http.auth.user.balance}` | The balance, as the provider wrote it
// `{http.auth.user.balance_age}` | Age of the balance in whole seconds
// `{http.auth.user.balance_state}` | `fresh`, `stale` or `unknown`
// `{http.auth.user.quota}` | The quota, as the provider wrote it
// `{http.auth.user.used_quota}` | The used quota, as the provider wrote it
// `{http.auth.user.status}` | The user's status, as the provider wrote it
// `{http.auth.user.session}` | A hash that names the session in logs
// `{http.auth.user.available}` | What the user can spend besides this request; empty without `reserve`
type Handler struct {
	// The requests to protect, as matcher sets of Caddy. A request is selected if all
	// matchers of at least one set match. In the Caddyfile this is the matcher behind
	// `tollgate`. Other requests are treated like those to a `public` path: no login, no
	// identity, and identity headers from the client are removed. The gateway's own
	// endpoints, and the refusal of ambiguous paths, work for every request. If a directive
	// has changed the request, the original and the changed request are both matched, and
	// one match is enough. Default: every request.
	Match caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`

	// The OAuth 2.0 provider. Required.
	Provider *Provider `json:"provider,omitempty"`

	// The full URL of the callback, exactly as registered with the provider. Its origin is
	// the external origin of this site. Its path is the path of the callback. Must be https
	// (http only on loopback). Required.
	RedirectURI string `json:"redirect_uri,omitempty"`

	// The secrets that seal the cookies: first the current one, then previous ones. Cookies
	// sealed with a previous secret are still accepted, and are sealed again with the
	// current one. Each secret is at least 32 random bytes, written as 64 or more hex digits
	// or in base64url. `caddy tollgate keygen` prints one. A file (`{file./path}`) may contain
	// several, one in each line, and is read again when it changes: docs/secrets.md says how to
	// replace a secret. Default: a secret is made after the first start, and kept in Caddy's
	// storage.
	Secret []string `json:"secret,omitempty"`

	// The path prefix of the gateway's own endpoints. Default: `/oauth`.
	PathPrefix string `json:"path_prefix,omitempty"`

	// Other paths for single endpoints, by name. Default: `<path_prefix>/<name>`. The
	// callback always has the path of `redirect_uri`.
	Endpoints map[string]string `json:"endpoints,omitempty"`

	// Paths that need no login, as patterns of Caddy's path matcher. Their requests never
	// carry an identity. If a directive such as `rewrite` or `uri` changes a path, both paths
	// must be public. Default: none.
	Public []string `json:"public,omitempty"`

	// Paths where sign-in is optional, as patterns of Caddy's path matcher. Their requests
	// carry the identity if there is a session, and pass as anonymous otherwise. If a
	// directive changes a path, both paths must be optional or public. Default: none.
	Optional []string `json:"optional,omitempty"`

	// Rules for signed-in users. Each block names path patterns; without patterns it applies
	// to every path. All conditions of all matching blocks must be met. Otherwise the
	// response is 403, or 402 if only the balance is too low. On an `optional` path such a
	// user passes as anonymous. Rules do not apply to `public` paths and to the gateway's own
	// endpoints. At most 64 blocks. Default: none.
	Require []*Require `json:"require,omitempty"`

	// The hosts to which the endpoint `topup` may redirect, each with its port unless that
	// is 443: `pay.example.com`, `pay.example.com:8443`. They are compared exactly:
	// subdomains do not match. If the provider returns a top-up URL on another host, the
	// response is 502, `topup_failed`. Default: any host with https.
	TopupHosts []string `json:"topup_hosts,omitempty"`

	// How old the user information, and so the balance, may be.
	Balance *Balance `json:"balance,omitempty"`

	// The headers that tell the upstream who the user is.
	Identity *Identity `json:"identity,omitempty"`

	// Sends the upstream a signed assertion of who the user is. The upstream verifies it with
	// the public keys at the endpoint `jwks.json`. Default: off.
	Assertion *Assertion `json:"assertion,omitempty"`

	// The header in which the upstream receives the user's access token, on requests that
	// carry the identity. Without a value it is `Authorization`, as `Bearer <token>`; any
	// other header carries the token alone. A header of that name from a client is removed on
	// every path. With `forward_auth` the response of `auth` carries the token, too, but only
	// for `trusted_proxies`; these must not let browsers reach `auth`. Default: the token is
	// not passed, and `Authorization` is passed on unchanged.
	PassAccessToken string `json:"pass_access_token,omitempty"`

	// Whether to refresh the access token and repeat the request once if the upstream answers
	// 401 to a request that carried the token. A request with a body is repeated only if at
	// most 1 MiB of the body was read. Needs `pass_access_token`. Default: true if
	// `pass_access_token` is set.
	RetryUnauthorized *bool `json:"retry_unauthorized,omitempty"`

	// How sessions are stored, and the session cookie.
	Session *Session `json:"session,omitempty"`

	// Opens the endpoint `auth`, at which another proxy asks who sent a request and whether
	// the request may pass. Needs the session store `storage` or `redis`, because such a
	// proxy does not pass renewed cookies on to the browser. Default: off.
	ForwardAuth *ForwardAuth `json:"forward_auth,omitempty"`

	// An access token is refreshed this long before it expires, but at most a fifth of its
	// lifetime before. Default: 5m.
	RefreshBefore caddy.Duration `json:"refresh_before,omitempty"`

	// The interval at which the session of open WebSockets and event streams is checked.
	// Minimum: 1s. With an `idle_timeout` the check runs at least twice per `idle_timeout`.
	// The streams are closed if the session has ended, or if the user no longer meets the
	// rules of their path. If the session ends in the same process, they are closed at once.
	// Default: 60s.
	StreamRecheck caddy.Duration `json:"stream_recheck,omitempty"`

	// Whether a user who is not signed in first sees a page with a sign-in button.
	// Default: false (the browser is redirected to the provider at once).
	LoginPage bool `json:"login_page,omitempty"`

	// The path after a sign-in that has no page to return to. Default: `/`.
	AfterLogin string `json:"after_login,omitempty"`

	// The path after signing out. If it needs a login and `login_page` is off, signing out
	// leads straight to the provider's sign-in; tollgate logs a warning. Default: a page that
	// confirms the sign-out.
	AfterLogout string `json:"after_logout,omitempty"`

	// A path of the application for failed sign-ins. It receives the error code as
	// `?error=<code>`. It must be `public` or `optional`: otherwise a failed sign-in would
	// start the next one. Default: an error page.
	ErrorRedirect string `json:"error_redirect,omitempty"`

	// The application's name on the gateway's pages. Default: none.
	Brand string `json:"brand,omitempty"`

	// A picture file (PNG, JPEG or SVG, at most 32 KiB). The pages show it instead of the
	// name; it is embedded into every page. Needs `brand`, which is its alternative text. An
	// SVG can adapt to dark mode with a media query. Default: none.
	Logo string `json:"logo,omitempty"`

	// The colour of buttons and marks on the pages, in three or six hex digits, such as
	// `3a4cc9`. If its contrast to the background is too low, it is made darker (in dark mode
	// lighter). Text on it is white or black, whichever is easier to read. Default: a blue.
	Accent string `json:"accent,omitempty"`

	// A folder with your own templates. Each replaces the gateway's template of the same
	// name: `layout.html`, `style.css`, and one per page. They are read and tested when the
	// configuration is loaded. docs/pages.md lists the data they receive. Default: none.
	Pages string `json:"pages,omitempty"`

	// Allows a `redirect_uri` with plain http that is not on loopback. Anybody on the network
	// path can then read and steal sessions.
	InsecureHTTP bool `json:"insecure_http,omitempty"`

	settings   *settings
	store      session.Store
	storeName  string
	keys       *keys.Source
	sdk        *web.SDK
	state      *siteState
	sessions   *sessions
	tokens     *tokens
	holds      *charging.Holds // nil if no rule has a reserve or a budget
	decider    *decider
	assertions *assertions
	authChecks *authChecks
	signIns    *signIns
	responses  *responses
	audit      *audit.Log
	routes     *policy.Routes
	// matchers are loaded from Match. If there are none, every request is selected.
	matchers caddyhttp.MatcherSets
	// firstRequest guards the checks that need a request of the site: they run once.
	firstRequest *sync.Once
	metrics      *metrics.Set
	now          func() time.Time
	ctx          caddy.Context
	logger       *zap.Logger

	// storeSecrets are the secrets from files that the session store uses.
	storeSecrets []secretfiles.Secret
	secretFiles  *secretfiles.Watcher // nil until Provision has ended

	stateKey string           // key of the state in the pool; empty until it is held
	place    *neighbours.Site // nil until it has joined the other sites
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.tollgate",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up the handler. It makes no network requests, so the gateway starts while
// the provider is down, and `caddy validate` writes no files.
func (h *Handler) Provision(ctx caddy.Context) error {
	return config.WithoutSecrets(h.provision(ctx), nil)
}

// UnmarshalJSON decodes as strictly as Caddy itself. Its errors contain no secret.
func (h *Handler) UnmarshalJSON(text []byte) error {
	type plain Handler
	return config.UnmarshalStrict(text, (*plain)(h))
}

func (h *Handler) provision(ctx caddy.Context) error {
	h.ctx, h.logger = ctx, ctx.Logger()
	site := clock.Of(ctx)
	h.now = site.Now
	resolved, err := h.resolve(caddy.NewReplacer())
	if err != nil {
		return err
	}
	h.settings = resolved
	h.logger = h.logger.With(zap.String("site", resolved.origin)) // several sites may write to one log
	h.firstRequest = new(sync.Once)
	if err := h.loadMatchers(ctx); err != nil {
		return fmt.Errorf("match: %w", err)
	}
	h.settings.warnings(h.matchers).Log(h.logger)

	if h.sdk, err = h.settings.newSDK(); err != nil {
		return err
	}
	if h.metrics, err = metrics.Of(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	h.settings.client.Watch = watch.Provider(h.metrics, h.settings.client.Endpoints())
	if h.keys, err = h.newKeySource(ctx.Storage()); err != nil {
		return err
	}
	h.keys.OnMade(h.warnOfMadeSecret)
	if h.routes, err = resolve.Routes(ctx, resolved.endpoints, resolved.public, resolved.optional, resolved.required...); err != nil {
		return err
	}
	if err := h.holdState(); err != nil {
		return err
	}
	if err := h.openStore(ctx); err != nil {
		return err
	}
	h.assemble(site)
	h.state.join(h)
	h.place = &neighbours.Site{
		Handler: h, State: h.stateKey, Origin: h.settings.origin, RedirectURI: h.settings.redirectURI,
		Cookies: h.settings.cookies, ForwardAuth: h.ForwardAuth != nil, Logger: h.logger,
	}
	h.place.Join(ctx)
	if err := h.introduce(ctx); err != nil {
		return err
	}
	place := neighbours.PlaceOf(ctx)
	if err := errorroutes.Guard(ctx, place.Server, place.Hosts, h.serveErrorRoute, h.logger); err != nil {
		return err
	}
	h.watchSecrets(site)
	return nil
}

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

// assemble creates the handler's parts. Everything that they share must exist already.
func (h *Handler) assemble(site clock.Clock) {
	h.audit = &audit.Log{Logger: h.logger, Metrics: h.metrics, Now: h.now}
	h.tokens = &tokens{
		settings: h.settings, store: h.store, state: h.state,
		users:  h.state.usersAt(h.settings.client.UserinfoEndpoint),
		lease:  cmp.Or(site.Lease(), h.settings.client.Timeout+renewal.LeaseMargin),
		now:    h.now,
		logger: h.logger, audit: h.audit, metrics: h.metrics,
	}
	if h.settings.charge != nil {
		h.holds = charging.New(charging.Terms{
			Endpoint: h.settings.client.UserinfoEndpoint, Charge: h.settings.charge, Ages: h.settings.ages, PassUnknown: h.settings.passUnknown,
		}, h.store, h.state.ledgers, h.tokens.users, h.tokens.userReader, h.logger)
		h.tokens.noteReading = h.holds.NoteReading
	}
	h.sessions = &sessions{settings: h.settings, store: h.store, state: h.state, tokens: h.tokens, now: h.now, logger: h.logger, audit: h.audit}
	h.responses = &responses{settings: h.settings, sessions: h.sessions, audit: h.audit}
	h.decider = &decider{settings: h.settings, sessions: h.sessions, tokens: h.tokens, holds: h.holds, audit: h.audit, metrics: h.metrics}
	h.assertions = &assertions{keys: h.keys, settings: h.settings, audit: h.audit, now: h.now}
	if h.settings.assertion != nil {
		h.assertions.asserter = identity.NewAsserter(h.settings.assertion, h.settings.origin)
	}
	h.authChecks = &authChecks{
		settings: h.settings, routes: h.routes, decider: h.decider, sessions: h.sessions, tokens: h.tokens,
		assertions: h.assertions, metrics: h.metrics, timeout: cmp.Or(site.AuthTimeout(), defaultAuthTimeout), audit: h.audit,
	}
	h.signIns = &signIns{
		Logins:   browser.NewLogins(h.settings.cookies, h.state.destinations, h.settings.afterLogin, h.now),
		settings: h.settings, state: h.state, store: h.store, keys: h.keys, sessions: h.sessions,
		responses: h.responses, audit: h.audit, metrics: h.metrics, now: h.now, logger: h.logger,
	}
}

func (h *Handler) openStore(ctx caddy.Context) error {
	module := any(new(cookie.Store))
	if h.Session != nil && len(h.Session.Store) > 0 {
		err := config.CheckStoreModule(h.Session.Store)
		if err != nil {
			return err
		}
		if module, err = ctx.LoadModule(h.Session, "Store"); err != nil {
			return fmt.Errorf("session.store: %w", err)
		}
	}
	store, ok := module.(session.Module)
	if !ok {
		return fmt.Errorf("session.store: %T is not a session store", module)
	}
	h.storeName = module.(caddy.Module).CaddyModule().ID.Name()
	site := clock.Of(ctx)
	h.store = store.Open(session.Env{
		Keys:        h.keys.Ring,
		SecretGiven: len(h.settings.secrets) > 0,
		WatchSecret: func(s secretfiles.Secret) { h.storeSecrets = append(h.storeSecrets, s) },
		Latest:      func(s *session.Session) (*session.Session, bool) { return h.state.sessions.Latest(s) },
		Ended:       h.state.endedNames,
		Takeover:    h.state.takeover,
		Lifetime:    h.settings.lifetime,
		IdleTimeout: h.settings.idleTimeout,
		Lease:       site.Lease(),
		Timeout:     site.StoreTimeout(),
		Now:         h.now,
	})
	if h.storeName != "cookie" { // sessions in cookies are read and written without a request
		h.store = watch.Store(h.store, h.metrics, h.storeName)
	}
	return nil
}

// Validate implements caddy.Validator. Provision has checked every setting. Validate only
// checks that the pages render.
func (h *Handler) Validate() error {
	_, err := renderPage(h.settings, pageSignedOut, pageData{}, "")
	return err
}

// Cleanup releases the shared state. The last handler to release it waits for refreshes in
// flight. Requests of this handler may also still be in flight: they keep what they use.
func (h *Handler) Cleanup() error {
	h.secretFiles.Stop()
	h.place.Leave()
	err := h.releaseState()
	if h.store != nil {
		h.store.Close()
	}
	if h.settings != nil {
		h.settings.client.Close()
	}
	return err
}

// gracePeriod is the time that the configuration gives requests to finish. Zero means no
// limit.
func gracePeriod(ctx caddy.Context) time.Duration {
	app, err := ctx.AppIfConfigured("http")
	if err != nil {
		return 0
	}
	return time.Duration(app.(*caddyhttp.App).GracePeriod)
}

// MarshalLogObject keeps secrets out of Caddy's handler traces, which log the whole
// configuration of a handler.
func (h *Handler) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("redirect_uri", h.RedirectURI)
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ zapcore.ObjectMarshaler     = (*Handler)(nil)
)
