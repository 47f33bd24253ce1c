// Package simulator is a simulated AIHubMix that runs in-process: its authorize,
// token, userinfo, topup and oauth_apps endpoints, the pages that users see
// there, and failures that a client must handle.
//
// It is strict on purpose. Where the provider's document leaves something
// open, it follows the OAuth RFCs. It refuses requests that a tolerant server
// would accept, so that no client passes here by luck. It shares no code with
// the gateway: no test would notice a mistake that both contain.
//
// It is not an authorization server for real users. Users have no passwords,
// balances are invented, and all data is lost when the process ends.
//
// Begin with Provider, with Options for the settings, and with Fault for the
// failures.
package simulator

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// The paths of the simulator. The paths below /api are those of the real
// provider. The others are pages and forms of the simulator.
const (
	AuthorizePath = "/api/oauth2/authorize"
	TokenPath     = "/api/oauth2/token"
	UserInfoPath  = "/api/oauth2/userinfo"
	TopUpPath     = "/api/oauth2/topup"
	RevokePath    = "/api/oauth2/revoke"
	AppsPath      = "/api/oauth_apps"

	TopUpPagePath = "/topup"
	LoginPath     = "/login"
	LogoutPath    = "/logout"
	ConsentPath   = "/consent"
	stylePath     = "/style.css"
)

// DefaultDeveloperToken is accepted by AppsPath when Options.DeveloperToken
// is empty.
const DefaultDeveloperToken = "developer_token_of_the_simulator"

const (
	// maxBody is the maximum size of a request's body. The largest regular
	// one is a form with one access token. 32 KiB is enough for huge tokens.
	maxBody = 32 << 10

	// maxURL is the maximum length of path and query together. It keeps
	// recorded requests small. Most servers accept lines of this length.
	maxURL = 8 << 10
)

// Options configures a Provider. The zero value is a working simulator with
// three users and no client; add one with SetClient or through AppsPath.
type Options struct {
	// Users who can sign in. Default: DefaultUsers().
	Users []User

	// Clients are the clients registered at the start. SetClient and AppsPath
	// can register more.
	Clients []Client

	// BaseURL is the origin under which browsers reach the simulator. The
	// top-up URL begins with it. Default: the scheme and Host of the request.
	BaseURL string

	// DeveloperToken is the Bearer token that AppsPath requires.
	// Default: DefaultDeveloperToken.
	DeveloperToken string

	// CodeLifetime is how long an authorization code is valid.
	// Default: 1 minute.
	CodeLifetime time.Duration

	// AccessLifetime is how long an access token is valid. Default: 2 hours.
	AccessLifetime time.Duration

	// RefreshLifetime is how long a refresh token is valid, counted from its
	// rotation. Default: 30 days.
	RefreshLifetime time.Duration

	// AccessTokenSize is the length of access tokens in bytes. The minimum is
	// 128. Default: 800, about the size of a JSON Web Token with a few claims.
	AccessTokenSize int

	// NoRotation keeps a refresh token valid after its use. The response of a
	// refresh then has no refresh_token.
	NoRotation bool

	// RevokeOldAccess revokes the older access tokens of a grant when it is
	// refreshed. By default they stay valid until they expire.
	RevokeOldAccess bool

	// AutoLogin is a username. A browser that has not signed in counts as
	// signed in as this user. An unknown name has no effect.
	AutoLogin string

	// AllowLoginHint lets login_hint=<username> at AuthorizePath sign that
	// user in without a click. Signing in is then a plain GET, which any site
	// could trigger. Use it only in tests.
	AllowLoginHint bool

	// Now is the clock of all lifetimes. Default: time.Now.
	Now func() time.Time

	// Rand draws for Fault.Probability. Use a seeded one for repeatable runs,
	// and do not use it elsewhere at the same time. Default: random.
	Rand *rand.Rand
}

// Provider is the simulated AIHubMix. It is an http.Handler and safe for
// concurrent use. It starts no goroutine and need not be closed. All tables
// have a maximum size: a full table drops its oldest entry.
type Provider struct {
	options Options
	mux     *http.ServeMux

	users    *userTable
	clients  *clientTable
	grants   *grantTable
	browsers *browserTable
	tickets  *ticketTable
	faults   *faultTable
	journal  *journal

	lastAppID atomic.Int64 // the ids of applications are 1, 2, 3, …

	// crossOrigin refuses forms that another site submits.
	crossOrigin *http.CrossOriginProtection
}

// New returns a Provider with these options.
func New(options Options) *Provider {
	options = options.withDefaults()
	p := &Provider{
		options:     options,
		users:       newUserTable(options.Users),
		clients:     newClientTable(options.Clients),
		grants:      newGrantTable(options),
		browsers:    newBrowserTable(),
		tickets:     newTicketTable(),
		faults:      newFaultTable(options.Rand),
		journal:     newJournal(),
		crossOrigin: http.NewCrossOriginProtection(),
	}
	p.mux = p.routes()
	return p
}

func (o Options) withDefaults() Options {
	if len(o.Users) == 0 {
		o.Users = DefaultUsers()
	}
	o.BaseURL = strings.TrimRight(o.BaseURL, "/")
	if o.DeveloperToken == "" {
		o.DeveloperToken = DefaultDeveloperToken
	}
	if o.CodeLifetime == 0 {
		o.CodeLifetime = time.Minute
	}
	if o.AccessLifetime == 0 {
		o.AccessLifetime = 2 * time.Hour
	}
	if o.RefreshLifetime == 0 {
		o.RefreshLifetime = 30 * 24 * time.Hour
	}
	if o.AccessTokenSize == 0 {
		o.AccessTokenSize = 800
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return o
}

func (p *Provider) routes() *http.ServeMux {
	mux := http.NewServeMux()

	mux.HandleFunc("GET "+AuthorizePath, p.observed(only(Authorize), p.authorize))
	mux.HandleFunc("POST "+TokenPath, p.observed(tokenEndpoints, p.token))
	mux.HandleFunc("POST "+RevokePath, p.observed(only(Revoke), p.revoke))
	mux.HandleFunc("GET "+UserInfoPath, p.observed(only(UserInfo), p.userInfo))
	mux.HandleFunc("GET "+TopUpPath, p.observed(only(TopUp), p.topUpURL))
	mux.HandleFunc("POST "+AppsPath, p.observed(only(Apps), p.createApp))

	mux.HandleFunc("POST "+LoginPath, p.sameOrigin(p.login))
	mux.HandleFunc("POST "+LogoutPath, p.sameOrigin(p.logout))
	mux.HandleFunc("POST "+ConsentPath, p.sameOrigin(p.consent))
	mux.HandleFunc("GET "+TopUpPagePath, p.topUpPage)
	mux.HandleFunc("POST "+TopUpPagePath, p.sameOrigin(p.addMoney))
	mux.HandleFunc("GET "+stylePath, serveStyle)
	mux.HandleFunc("GET /{$}", p.index)
	return mux
}

// ServeHTTP serves one request.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Responses contain tokens, codes and balances, and must not be cached.
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")

	if len(r.URL.Path)+len(r.URL.RawQuery) > maxURL {
		http.Error(w, "URI too long", http.StatusRequestURITooLong)
		return
	}
	// Read the whole body first. Only then does the server notice that a
	// client leaves, on which hanging and delayed responses depend.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "body too large or incomplete", http.StatusRequestEntityTooLarge)
		return
	}
	r = r.WithContext(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))

	p.mux.ServeHTTP(w, r)
}

// observed records each request of an endpoint, and applies its faults.
func (p *Provider) observed(endpointsOf func(*http.Request) []Endpoint, work http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		endpoints := endpointsOf(r)
		p.journal.record(r, p.options.Now(), endpoints)

		fault, broken := p.faults.take(endpoints)
		if !broken {
			work(w, r)
			return
		}
		fault.serve(w, r, work)
	}
}

// baseURL is the origin under which the browser can reach the simulator.
func (p *Provider) baseURL(r *http.Request) string {
	if p.options.BaseURL != "" {
		return p.options.BaseURL
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

var _ http.Handler = (*Provider)(nil)
