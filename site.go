package tollgate

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/maypok86/otter/v2"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/rare"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/wire"
)

// shared is what one site knows beyond a single configuration: which sessions were
// renewed or ended, what the provider said of its users, which logins are spent.
// Old and new handlers work on the same value while a config reload goes on, so
// that no reload makes two of them spend one refresh token.
type shared struct {
	sessions *session.Registry
	renewals *renewal.Refresher
	streams  *relay.Table[*passing]
	// EndedNames are the records of server-side stores whose sessions have ended.
	endedNames *session.EndedNames
	mu         sync.Mutex                // guards users, handlers and takingOver
	users      map[string]*account.Users // by the endpoint that is asked: elsewhere the same id may be another user
	handlers   []*Handler                // that serve the site, the newest last
	now        func() time.Time
	// takingOver is when a configuration of the site first asked to take sessions over
	// from cookies.
	takingOver time.Time
	// confirming makes the requests of a session that moved read its user once.
	confirming flight.Group[*session.Session]
	// unconfirmed holds why the user of such a session could not be read a moment ago.
	unconfirmed *otter.Cache[session.ID, error]
	// Hosts are the hosts under which sign-ins began that are not redirect_uri's.
	otherHosts rare.Hosts
	// duplicates limits the log line about two session cookies in one request.
	duplicates rare.Line
	// fullURLs limits the log line about a proxy that sends full URLs only.
	fullURLs rare.Line
	// displaced holds the sessions whose cookie was deleted or replaced a short time ago.
	displaced *otter.Cache[session.ID, struct{}]
	// exchanges makes a callback that arrives twice at once spend its code once.
	exchanges flight.Group[*session.Session]
	// spent holds the logins that were used: none is used twice.
	spent *otter.Cache[string, struct{}]
	// destinations remember where logins lead that are not in a cookie.
	destinations *browser.Destinations
	// rereads holds when each session last asked for a re-read.
	rereads *otter.Cache[session.ID, time.Time]
	// futile holds the sessions whose fresh access token was not accepted either:
	// refreshing it again at once would not help.
	futile *otter.Cache[session.ID, struct{}]
	// doubted holds, by session, the generation from which on its access token has come
	// of an upstream's 401 and was not accepted by any upstream yet: refreshing that one
	// again would not help.
	doubted *otter.Cache[session.ID, uint64]
	// patience is how long the end waits for refreshes that are under way.
	patience atomic.Int64
}

const (
	// spentLifetime is how long a used login is remembered.
	spentLifetime = browser.LoginLifetime
	maxSpent      = 50_000

	// displacedMemory is how long a session is remembered whose cookie was deleted or
	// replaced: longer than any request is under way.
	displacedMemory = 5 * time.Minute

	// futileInterval is how long no access token is refreshed for the sake of a 401
	// after that did not help.
	futileInterval = 30 * time.Second

	// rereadInterval is the least time between two re-reads that one session asks
	// for.
	rereadInterval = time.Second
)

func newShared(now func() time.Time) *shared {
	s := &shared{
		streams:    relay.NewTable[*passing](),
		endedNames: session.NewEndedNames(now),
		displaced: otter.Must(&otter.Options[session.ID, struct{}]{
			MaximumSize:      maxSpent,
			ExpiryCalculator: otter.ExpiryWriting[session.ID, struct{}](displacedMemory),
		}),
		unconfirmed: otter.Must(&otter.Options[session.ID, error]{
			MaximumSize:      maxSpent,
			ExpiryCalculator: otter.ExpiryWriting[session.ID, error](account.ReadBackOff),
		}),
		users:        make(map[string]*account.Users),
		now:          now,
		destinations: browser.NewDestinations(),
		spent: otter.Must(&otter.Options[string, struct{}]{
			MaximumSize:      maxSpent,
			ExpiryCalculator: otter.ExpiryWriting[string, struct{}](spentLifetime),
		}),
		rereads: otter.Must(&otter.Options[session.ID, time.Time]{
			MaximumSize:      maxSpent,
			ExpiryCalculator: otter.ExpiryWriting[session.ID, time.Time](rereadInterval),
		}),
		futile: otter.Must(&otter.Options[session.ID, struct{}]{
			MaximumSize:      maxSpent,
			ExpiryCalculator: otter.ExpiryWriting[session.ID, struct{}](futileInterval),
		}),
		doubted: otter.Must(&otter.Options[session.ID, uint64]{
			MaximumSize:      maxSpent,
			ExpiryCalculator: otter.ExpiryWriting[session.ID, uint64](futileInterval),
		}),
	}
	s.sessions = session.NewRegistry(now, s.sessionEnds)
	s.renewals = renewal.New(s.sessions, now)
	return s
}

// usersAt is what is known of the users at one user information endpoint.
func (s *shared) usersAt(endpoint string) *account.Users {
	s.mu.Lock()
	defer s.mu.Unlock()
	users, ok := s.users[endpoint]
	if !ok {
		users = account.NewUsers(s.now)
		s.users[endpoint] = users
	}
	return users
}

// takeover is the time in which sessions are taken over from cookies. It begins with the
// first configuration that asks for it: a process may have served the site from cookies
// for months before, and a reload must not begin the time anew.
func (s *shared) takeover(after time.Duration) session.Takeover {
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

// join adds a handler to the ones that the admin API reaches, and leave takes it out,
// before its store is closed.
func (s *shared) join(h *Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers = append(s.handlers, h)
}

func (s *shared) leave(h *Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers = slices.DeleteFunc(s.handlers, func(other *Handler) bool { return other == h })
}

// heldHandlers gives the handlers of the site, the newest first. Their stores stay open
// until release is called, even if a reload replaces them meanwhile.
func (s *shared) heldHandlers() (handlers []*Handler, release func()) {
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
func (s *shared) Destruct() error {
	s.streams.EndAll(relay.GoingAway)
	s.renewals.Drain(time.Duration(s.patience.Load()))
	s.renewals.Close()
	s.endedNames.Close()
	s.unconfirmed.StopAllGoroutines()
	s.displaced.StopAllGoroutines()
	s.spent.StopAllGoroutines()
	s.destinations.Close()
	s.rereads.StopAllGoroutines()
	s.futile.StopAllGoroutines()
	s.doubted.StopAllGoroutines()
	return nil
}

// sharedStates is the one package variable that changes: a pool, as Caddy has them
// for what has to outlive a config.
var sharedStates = caddy.NewUsagePool()

// holdState takes the site's shared state from the pool, or begins it. The key is
// what a cookie is bound to, too: the client and the site. Neither the secret nor the
// provider's endpoints are part of it; changing those must not forget which refresh
// tokens are spent and which sessions have ended.
func (h *Handler) holdState() error {
	key := string(wire.AppendText(wire.AppendText(nil, h.settings.client.Config.ClientID), h.settings.redirectURI))
	state, _, err := sharedStates.LoadOrNew(key, func() (caddy.Destructor, error) {
		return newShared(h.now), nil
	})
	if err != nil {
		return err
	}
	h.state, h.stateKey = state.(*shared), key
	return nil
}

// releaseState gives the shared state back. Cleanup also runs after a Provision
// that failed before it was taken.
func (h *Handler) releaseState() error {
	if h.stateKey == "" {
		return nil
	}
	key := h.stateKey
	h.stateKey = ""
	h.state.leave(h)
	patience := 2 * (h.settings.client.Timeout + renewal.LeaseMargin) // more than any refresh takes
	if grace := h.gracePeriod(); grace > 0 {
		patience = min(patience, grace)
	}
	h.state.patience.Store(int64(patience))
	_, err := sharedStates.Delete(key)
	return err
}
