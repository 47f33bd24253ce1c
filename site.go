package tollgate

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/charging"
	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/rare"
	"github.com/caddy-tollgate/tollgate/internal/recent"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/wire"
)

// siteState is the state of one site that survives a config reload: sessions that were renewed
// or ended, user information, and used logins. During a reload the old and the new handler
// share it, so that they never use the same refresh token twice.
type siteState struct {
	sessions *session.Registry
	renewals *renewal.Refresher
	// unauthorized refreshes tokens after a 401.
	unauthorized *renewal.Unauthorized
	streams      *relay.Table[*passing]
	// endedNames holds the names of ended sessions in server-side stores.
	endedNames *session.EndedNames
	mu         sync.Mutex                // guards users, handlers and takingOver
	users      map[string]*account.Users // by user information endpoint: at another endpoint the same id may be another user
	handlers   []*Handler                // handlers of the site, the newest last
	now        func() time.Time
	// takingOver is the time at which a configuration of the site first had `from_cookies`.
	takingOver time.Time
	// confirming makes concurrent requests of a migrated session share one read of its user.
	confirming flight.Group[*session.Session]
	// unconfirmed caches, for a short time, the error of such a read.
	unconfirmed *recent.Table[session.ID, error]
	// Hosts are the hosts under which sign-ins began that are not redirect_uri's.
	otherHosts rare.Hosts
	// oldSecretUses limits the log line about a previous secret that is still in use.
	oldSecretUses rare.Line
	// displaced holds the sessions whose cookie was recently deleted or replaced.
	displaced *recent.Table[session.ID, struct{}]
	// exchanges makes concurrent copies of one callback share one code exchange.
	exchanges flight.Group[*session.Session]
	// spent holds the used logins: each can be used once.
	spent *recent.Table[string, struct{}]
	// destinations holds the return paths of logins whose cookie does not contain them.
	destinations *browser.Destinations
	// rereads holds the sessions that have just requested a re-read.
	rereads *recent.Table[session.ID, struct{}]
	// ledgers are those of what the site's users spend.
	ledgers *charging.Ledgers
	// unwatch takes the site out of the gauges of the metrics.
	unwatch func()
	// timeout is how long the shutdown waits for refreshes in flight.
	timeout atomic.Int64
}

const (
	// maxRecent is the size of each table of what happened recently.
	maxRecent = 50_000

	// spentLifetime is how long a used login is remembered.
	spentLifetime = browser.LoginLifetime

	// displacedMemory is how long displaced remembers a session. It must be longer than any
	// request takes.
	displacedMemory = 5 * time.Minute

	// rereadInterval is the minimum time between two re-reads that one session requests.
	rereadInterval = time.Second
)

func newSiteState(now func() time.Time, set *metrics.Set) *siteState {
	s := &siteState{
		streams:       relay.NewTable[*passing](),
		endedNames:    session.NewEndedNames(now),
		users:         make(map[string]*account.Users),
		now:           now,
		oldSecretUses: rare.Line{Every: time.Hour},
		destinations:  browser.NewDestinations(),
		spent:         recent.NewTable[string, struct{}](maxRecent, spentLifetime),
		displaced:     recent.NewTable[session.ID, struct{}](maxRecent, displacedMemory),
		unconfirmed:   recent.NewTable[session.ID, error](maxRecent, account.ReadBackOff),
		rereads:       recent.NewTable[session.ID, struct{}](maxRecent, rereadInterval),
	}
	s.ledgers = charging.NewLedgers(now, s.newestLogger, set)
	s.sessions = session.NewRegistry(now, s.sessionEnds)
	s.renewals = renewal.New(s.sessions, now)
	s.unauthorized = renewal.NewUnauthorized(s.renewals)
	s.unwatch = set.Watch(s)
	return s
}

// usersAt returns the cached users of one user information endpoint.
func (s *siteState) usersAt(endpoint string) *account.Users {
	s.mu.Lock()
	defer s.mu.Unlock()
	users, ok := s.users[endpoint]
	if !ok {
		users = account.NewUsers(s.now, s.noteBusyRead)
		s.users[endpoint] = users
	}
	return users
}

// takeover returns the period in which sessions are migrated from cookies. It starts with the
// first configuration that has `from_cookies`: the process may have used cookies for months
// before, and a reload must not restart the period.
func (s *siteState) takeover(after time.Duration) session.Takeover {
	if after <= 0 {
		return session.Takeover{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.takingOver.IsZero() {
		s.takingOver = s.now()
	}
	return session.Takeover{Until: s.takingOver.Add(after)}
}

// join adds a handler to those that the admin API reaches.
func (s *siteState) join(h *Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers = append(s.handlers, h)
}

// leave removes a handler. Call it before the handler's store is closed.
func (s *siteState) leave(h *Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers = slices.DeleteFunc(s.handlers, func(other *Handler) bool { return other == h })
}

// newest returns the newest handler, or nil if the site has none.
func (s *siteState) newest() *Handler {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.handlers) == 0 {
		return nil
	}
	return s.handlers[len(s.handlers)-1]
}

// newestLogger returns the logger of the newest handler, or nil if the site has no handler.
func (s *siteState) newestLogger() *zap.Logger {
	if h := s.newest(); h != nil {
		return h.logger
	}
	return nil
}

// noteBusyRead logs that a read of the user information could not begin.
func (s *siteState) noteBusyRead(of *session.Session, err error) {
	if h := s.newest(); h != nil {
		h.audit.ReadFailed(context.Background(), of, err)
	}
}

// heldHandlers returns the handlers of the site, the newest first. Their stores stay open
// until release is called, even if a reload replaces them meanwhile.
func (s *siteState) heldHandlers() (handlers []*Handler, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var releases []func()
	for _, h := range slices.Backward(s.handlers) {
		handlers = append(handlers, h)
		releases = append(releases, h.store.Hold())
	}
	return handlers, func() {
		for _, release := range releases {
			release()
		}
	}
}

// Destruct implements caddy.Destructor.
func (s *siteState) Destruct() error {
	s.unwatch()
	s.streams.EndAll(relay.GoingAway)
	s.renewals.Drain(time.Duration(s.timeout.Load()))
	s.renewals.Close()
	s.sessions.Close()
	s.endedNames.Close()
	s.unconfirmed.Close()
	s.displaced.Close()
	s.spent.Close()
	s.destinations.Close()
	s.rereads.Close()
	s.unauthorized.Close()
	return nil
}

// sharedStates holds the states of all sites. It is a package variable because the states must
// survive a config reload; Caddy has usage pools for that.
var sharedStates = caddy.NewUsagePool()

// holdState takes the site's shared state from the pool, or creates it. The key consists of the
// client ID and redirect_uri; cookies are bound to the same two. The secret and the provider's
// endpoints are not part of it: after changing them tollgate must still know the used refresh
// tokens and the ended sessions.
func (h *Handler) holdState() error {
	key := string(wire.AppendText(wire.AppendText(nil, h.settings.client.Config.ClientID), h.settings.redirectURI))
	state, _, err := sharedStates.LoadOrNew(key, func() (caddy.Destructor, error) {
		return newSiteState(h.now, h.metrics), nil
	})
	if err != nil {
		return err
	}
	h.state, h.stateKey = state.(*siteState), key
	return nil
}

// releaseState releases the shared state. It does nothing if Provision failed before
// holdState.
func (h *Handler) releaseState() error {
	if h.stateKey == "" {
		return nil
	}
	key := h.stateKey
	h.stateKey = ""
	h.state.leave(h)
	timeout := 2 * (h.settings.client.Timeout + renewal.LeaseMargin) // more than any refresh takes
	if grace := gracePeriod(h.ctx); grace > 0 {
		timeout = min(timeout, grace)
	}
	h.state.timeout.Store(int64(timeout))
	_, err := sharedStates.Delete(key)
	return err
}
