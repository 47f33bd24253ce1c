// Package simulator is an AIHubMix that runs in-process: its authorize,
// token, userinfo, topup and oauth_apps endpoints, the pages a user sees
// there, and the failures a client has to live through.
//
// It is strict on purpose. What the provider's document leaves open is
// decided the way the OAuth RFCs decide it, and a request that a tolerant
// server would forgive is refused, so that a client which passes here has
// not passed by luck. It shares no code with the gateway: a mistake made in
// both places would be invisible to every test.
//
// It is not an authorization server for real users. Nobody has a password,
// balances are invented, and everything is forgotten when the process ends.
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

// The paths the simulator answers. Those below /api are the provider's own;
// the others are the pages and forms of the simulator.
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
	// maxBody bounds a request's body. The largest honest one is a form with
	// one access token; 32 KiB leaves room for tokens of absurd size.
	maxBody = 32 << 10

	// maxURL bounds path and query together, so that recorded requests stay
	// small. It is the line length most servers accept.
	maxURL = 8 << 10
)

// Options configures a Provider. The zero value is a working simulator with
// three users and no client; add one with SetClient or through AppsPath.
type Options struct {
	// Users who can sign in. Default: DefaultUsers().
	Users []User

	// Clients known from the start. More come through SetClient and AppsPath.
	Clients []Client

	// BaseURL is the origin under which browsers reach the simulator; it
	// begins the top-up URL. Default: the scheme and Host of the request.
	BaseURL string

	// DeveloperToken is what AppsPath wants as Bearer token.
	// Default: DefaultDeveloperToken.
	DeveloperToken string

	// CodeLifetime is how long an authorization code waits for its exchange.
	// Default: 1 minute.
	CodeLifetime time.Duration

	// AccessLifetime is how long an access token is valid. Default: 2 hours.
	AccessLifetime time.Duration

	// RefreshLifetime is how long a refresh token is valid, counted anew
	// from every rotation. Default: 30 days.
	RefreshLifetime time.Duration

	// AccessTokenSize is the length of access tokens in bytes; not less than
	// 128. Default: 800, about what a JSON Web Token with a few claims needs.
	AccessTokenSize int

	// NoRotation keeps a refresh token valid after its use; refresh answers
	// then carry no refresh_token.
	NoRotation bool

	// RevokeOldAccess ends the older access tokens of a grant as soon as it
	// is refreshed. By default they live to their own end.
	RevokeOldAccess bool

	// AutoLogin is a username. Browsers without a sign-in of their own count
	// as signed in as this user. An unknown name signs nobody in.
	AutoLogin string

	// AllowLoginHint lets login_hint=<username> at AuthorizePath sign that
	// user in without a click. It makes signing in a plain GET, which any
	// site could trigger, so it is for tests alone.
	AllowLoginHint bool

	// Now is the clock of all lifetimes. Default: time.Now.
	Now func() time.Time

	// Rand decides Fault.Probability; give a seeded one for repeatable runs,
	// and do not use it elsewhere at the same time. Default: random.
	Rand *rand.Rand
}

// Provider is the simulated AIHubMix. It is an http.Handler, safe for
// concurrent use; it starts no goroutine and needs no closing. All tables
// are bounded: when one is full its oldest entry is forgotten.
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

	lastAppID atomic.Int64 // ids of applications count up from 1

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

// ServeHTTP answers one request.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Tokens, codes and balances pass through here: nothing may be cached.
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")

	if len(r.URL.Path)+len(r.URL.RawQuery) > maxURL {
		http.Error(w, "URI too long", http.StatusRequestURITooLong)
		return
	}
	// The body is read to its end before anything else: only then does the
	// server notice a client that leaves, which hanging and delayed answers
	// depend on.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "body too large or incomplete", http.StatusRequestEntityTooLarge)
		return
	}
	r = r.WithContext(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))

	p.mux.ServeHTTP(w, r)
}

// observed puts record keeping and faults in front of an endpoint's work.
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
