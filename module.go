// Package tollgate is an authentication gateway for Caddy. It stands in front of an
// existing web application, signs people in with AIHubMix's OAuth 2.0, keeps their
// sessions, and tells the application who they are and what they have left to
// spend.
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

	"github.com/caddy-tollgate/tollgate/internal/clock"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/neighbours"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/stores/cookie"
	"github.com/caddy-tollgate/tollgate/web"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler signs people in, and passes their requests on with headers that say who
// they are. A request without a session is redirected to the provider when a
// person is navigating, and answered with 401 otherwise.
//
// Every text may hold placeholders such as `{env.X}` and `{file./path}`, which are
// read when the configuration is loaded. One that is missing or empty stops the
// start.
//
// For later directives and the access log it sets these placeholders, which are
// empty for an anonymous request:
//
// Placeholder | Description
// ------------|---------------
// `{http.auth.user.id}` | The provider's immutable user id
// `{http.auth.user.username}` | The user name
// `{http.auth.user.email}` | The e-mail address
// `{http.auth.user.balance}` | The balance, as the provider wrote it
// `{http.auth.user.balance_age}` | Whole seconds since the provider said so
// `{http.auth.user.balance_state}` | `fresh`, `stale` or `unknown`
// `{http.auth.user.quota}` | The quota, as the provider wrote it
// `{http.auth.user.used_quota}` | The used quota, as the provider wrote it
// `{http.auth.user.status}` | The user's status, as the provider wrote it
// `{http.auth.user.session}` | A hash that names the session in logs
type Handler struct {
	// The requests that the rules are about, as matcher sets of Caddy: those of one set
	// must all match, and one set suffices. In the Caddyfile it is the matcher behind
	// `tollgate`. Other requests are treated as for a `public` path: no login, and no
	// identity, not even one that the client claims. The gateway's own endpoints, and the
	// refusal of ambiguous paths, work for every request. A request is matched as the
	// client sent it and as it stands here, and one match suffices. Default: every request.
	Match caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`

	// The OAuth 2.0 provider. Required.
	Provider *Provider `json:"provider,omitempty"`

	// The callback's full URL, exactly as it is registered with the provider. Its
	// origin is the external origin of this site, and its path the path of the
	// callback. Must be https, or http on loopback. Required.
	RedirectURI string `json:"redirect_uri,omitempty"`

	// The secrets that seal the cookies: the current one first, then previous ones,
	// whose cookies are still opened and then sealed anew. Each is at least 32 random
	// bytes, written as 64 or more hex digits or in base64url; `caddy tollgate keygen`
	// prints one. Default: one is made at first use and kept in Caddy's own storage.
	Secret []string `json:"secret,omitempty"`

	// The path under which the gateway's own endpoints stand. Default: `/oauth`.
	PathPrefix string `json:"path_prefix,omitempty"`

	// A path of its own for single endpoints, by name, where the application expects
	// it elsewhere. Default: `<path_prefix>/<name>`; the callback's is the path of
	// `redirect_uri`.
	Endpoints map[string]string `json:"endpoints,omitempty"`

	// Path patterns, as of Caddy's path matcher, that need no login. They carry no
	// identity either. If a directive such as `rewrite` or `uri` changes a path, both
	// paths have to be public. Default: none.
	Public []string `json:"public,omitempty"`

	// Path patterns, as of Caddy's path matcher, that carry the identity when there
	// is a session, and pass as anonymous otherwise. If a directive changes a path, both
	// paths have to be optional or public. Default: none.
	Optional []string `json:"optional,omitempty"`

	// Rules for who is signed in. Each block names path patterns, or none for every
	// path. Every word of every block whose paths match must hold: else the answer is
	// 403, or 402 where only the balance is too low. At an `optional` path such a user
	// passes as anonymous. They hold neither for `public` paths nor for the gateway's
	// own endpoints. At most 64 blocks. Default: none.
	Require []*Require `json:"require,omitempty"`

	// The hosts to which the endpoint `topup` may lead, each with its port unless that is
	// 443: `pay.example.com`, `pay.example.com:8443`. They are compared exactly, so a
	// subdomain is another host. A top-up URL on any other host is answered with 502,
	// `topup_failed`. Default: any host with https.
	TopupHosts []string `json:"topup_hosts,omitempty"`

	// How old the user information may be.
	Balance *Balance `json:"balance,omitempty"`

	// The headers that tell the upstream who the user is.
	Identity *Identity `json:"identity,omitempty"`

	// Signs who the user is, for an upstream that verifies it with the public keys at the
	// endpoint `jwks.json`. Default: off.
	Assertion *Assertion `json:"assertion,omitempty"`

	// The header in which the upstream receives the user's access token, on requests
	// that carry the identity: `Authorization`, as `Bearer <token>`, where the word
	// stands alone, or another one, with the bare token. A client's own header of that
	// name is removed on every path. With `forward_auth` the answer carries it, too, to
	// `trusted_proxies` alone, which must keep browsers from `auth`. Default: the token is
	// not passed, and `Authorization` passes as it is.
	PassAccessToken string `json:"pass_access_token,omitempty"`

	// Whether the upstream's 401 to a request that carried the access token refreshes
	// that token and sends the request once more. A body is sent again where at most
	// 1 MiB of it was read. Needs `pass_access_token`. Default: true where that is set.
	RetryUnauthorized *bool `json:"retry_unauthorized,omitempty"`

	// How sessions are kept.
	Session *Session `json:"session,omitempty"`

	// Opens the endpoint `auth`, at which another proxy asks who a request comes from
	// and whether it may pass. Needs a session store on the server, since such a proxy
	// does not hand renewed cookies on to the browser. Default: off.
	ForwardAuth *ForwardAuth `json:"forward_auth,omitempty"`

	// How long before its end an access token is refreshed, but at most a fifth of
	// its life. Default: 5m.
	RefreshBefore caddy.Duration `json:"refresh_before,omitempty"`

	// How often a session with open WebSockets or event streams is looked at, from 1s,
	// and at least twice in an `idle_timeout`. These end with it, or when their user does
	// not meet the rules of their path any more. What ends a session in the same process
	// ends them at once. Default: 60s.
	StreamRecheck caddy.Duration `json:"stream_recheck,omitempty"`

	// Whether a person who is not signed in sees a page with a button first.
	// Default: false, which sends them straight to the provider.
	LoginPage bool `json:"login_page,omitempty"`

	// Where a person goes after a sign-in that began nowhere in particular.
	// Default: `/`.
	AfterLogin string `json:"after_login,omitempty"`

	// Where a person goes after signing out. If the path needs a login and there is no
	// `login_page`, signing out leads straight to the provider's sign-in, which is warned
	// of. Default: a page that says so.
	AfterLogout string `json:"after_logout,omitempty"`

	// A path of the application that is given the error code of a sign-in that
	// failed, as `?error=<code>`. It must be `public` or `optional`, or a sign-in that
	// failed would begin the next one. Default: an error page.
	ErrorRedirect string `json:"error_redirect,omitempty"`

	// The application's name on the gateway's pages. Default: none.
	Brand string `json:"brand,omitempty"`

	// A file with a picture, PNG, JPEG or SVG of at most 32 KiB, that stands on the
	// pages in the place of the name. Every page carries it in itself. Needs `brand`,
	// which it reads as for people who do not see it. An SVG may look different in the
	// dark by a media query of its own. Default: none.
	Logo string `json:"logo,omitempty"`

	// The colour of buttons and marks on the pages, in three or six hex digits, such
	// as `3a4cc9`. Where it could not be told from the background it is made darker, or
	// in the dark scheme lighter; the text on it is white or black, whichever is easier
	// to read. Default: a blue.
	Accent string `json:"accent,omitempty"`

	// A folder with templates of your own, each in the place of the gateway's that has
	// its name: `layout.html`, `style.css`, and one per page. They are read and tried out
	// when the configuration is loaded. docs/pages.md says what they are given.
	// Default: none.
	Pages string `json:"pages,omitempty"`

	// Allows a redirect_uri that is plain http and not on loopback. Everybody on the
	// way can then read and steal sessions.
	InsecureHTTP bool `json:"insecure_http,omitempty"`

	settings  *settings
	store     session.Store
	keys      *keys.Source
	sdk       *web.SDK
	state     *shared
	sessions  *sessions
	tokens    *tokens
	logins    *logins
	responses *responses
	audit     *audit
	// authTimeout limits an auth check.
	authTimeout time.Duration
	routes      *policy.Routes
	// matchers are those of Match. Without any every request is selected.
	matchers caddyhttp.MatcherSets
	// firstRequest does once what needs a request of the site.
	firstRequest *sync.Once
	// asserter is nil without the assertion block.
	asserter *identity.Asserter
	now      func() time.Time
	ctx      caddy.Context
	logger   *zap.Logger

	stateKey string           // in the pool, once it is held
	place    *neighbours.Site // nil until it has joined the other sites
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.tollgate",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up the handler. It asks no network, so the gateway starts while
// the provider is down, and `caddy validate` leaves no trace.
func (h *Handler) Provision(ctx caddy.Context) error {
	return config.WithoutSecrets(h.provision(ctx), nil)
}

// UnmarshalJSON is Caddy's own strict reading, with an error that shows no secret.
func (h *Handler) UnmarshalJSON(text []byte) error {
	type plain Handler
	return config.UnmarshalStrict(text, (*plain)(h))
}

func (h *Handler) provision(ctx caddy.Context) error {
	h.ctx, h.logger = ctx, ctx.Logger()
	site := clock.Of(ctx)
	h.now = site.Now
	h.authTimeout = cmp.Or(site.AuthTimeout(), defaultAuthTimeout)
	resolved, err := h.resolve(caddy.NewReplacer())
	if err != nil {
		return err
	}
	h.settings = resolved
	h.firstRequest = new(sync.Once)
	if err := h.loadMatchers(ctx); err != nil {
		return fmt.Errorf("match: %w", err)
	}
	if h.settings.trustedProxies.Everybody() {
		h.logger.Warn("forward_auth.trusted_proxies trusts everybody: any client can say which path it is asking about, and so pass as on a public one")
	}
	for _, gap := range policy.MatcherGaps(matchedPaths(h.matchers), h.settings.public, h.settings.optional) {
		h.logger.Warn(gap)
	}
	for _, gap := range policy.RuleGaps(h.settings.public, h.settings.optional, h.settings.required) {
		h.logger.Warn(gap.String())
	}
	h.warnOfDestinations()
	h.warnOfSameSite()

	if h.sdk, err = h.settings.newSDK(); err != nil {
		return err
	}
	if h.keys, err = h.newKeySource(ctx); err != nil {
		return err
	}
	if h.routes, err = newRoutes(ctx, resolved.endpoints, resolved.public, resolved.optional, resolved.required...); err != nil {
		return err
	}
	if h.settings.assertion != nil {
		h.asserter = identity.NewAsserter(h.settings.assertion, h.settings.origin)
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
	return h.guardErrorRoutes(ctx)
}

// assemble makes the handler's parts, once everything they share is there.
func (h *Handler) assemble(site clock.Clock) {
	h.audit = &audit{logger: h.logger}
	h.tokens = &tokens{
		settings: h.settings, store: h.store, state: h.state,
		users:  h.state.usersAt(h.settings.client.UserinfoEndpoint),
		lease:  cmp.Or(site.Lease(), h.settings.client.Timeout+renewal.LeaseMargin),
		now:    h.now,
		logger: h.logger, audit: h.audit,
	}
	h.sessions = &sessions{settings: h.settings, store: h.store, state: h.state, tokens: h.tokens, now: h.now, logger: h.logger, audit: h.audit}
	h.logins = &logins{settings: h.settings, state: h.state, keys: h.keys, now: h.now, logger: h.logger}
	h.responses = &responses{settings: h.settings, sessions: h.sessions, logger: h.logger}
}

func (h *Handler) newKeySource(ctx caddy.Context) (*keys.Source, error) {
	source, err := keys.NewSource(h.settings.secrets, ctx.Storage(), h.settings.client.Config.ClientID, h.settings.redirectURI)
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	return source, nil
}

func (h *Handler) openStore(ctx caddy.Context) error {
	module := any(new(cookie.Store))
	if h.Session != nil && len(h.Session.Store) > 0 {
		err := checkStoreModule(h.Session.Store)
		if err != nil {
			return err
		}
		if module, err = ctx.LoadModule(h.Session, "Store"); err != nil {
			return fmt.Errorf("session.store: %w", err)
		}
	}
	store, ok := module.(session.Module)
	if !ok {
		return fmt.Errorf("session.store: %T is no session store", module)
	}
	h.store = store.Open(session.Env{
		Keys:        h.keys.Ring,
		SecretGiven: len(h.settings.secrets) > 0,
		Latest:      func(s *session.Session) (*session.Session, bool) { return h.state.sessions.Latest(s) },
		Ended:       h.state.endedNames,
		Takeover:    h.state.takeover,
		Lifetime:    h.settings.lifetime,
		IdleTimeout: h.settings.idleTimeout,
		Now:         h.now,
	})
	return nil
}

// Validate implements caddy.Validator. Provision has resolved every setting
// already; what is left to try is what only the whole can show.
func (h *Handler) Validate() error {
	_, err := renderPage(h.settings, pageSignedOut, pageData{}, "")
	return err
}

// Cleanup lets go of the shared state; the last one to do so waits for the refreshes
// that are under way. Requests of this handler may still be under way, too; they keep
// what they use.
func (h *Handler) Cleanup() error {
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

// gracePeriod is how long the configuration lets requests finish; zero is for ever.
func (h *Handler) gracePeriod() time.Duration {
	app, err := h.ctx.AppIfConfigured("http")
	if err != nil {
		return 0
	}
	return time.Duration(app.(*caddyhttp.App).GracePeriod)
}

// MarshalLogObject keeps secrets out of Caddy's handler traces, which log a
// handler's whole configuration.
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
