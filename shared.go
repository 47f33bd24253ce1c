package tollgate

import (
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
)

// shared is what one site knows beyond a single configuration: which sessions were
// renewed or ended, what the provider said of its users, which logins are spent.
// Old and new handlers work on the same value while a config reload goes on, so
// that no reload makes two of them spend one refresh token.
type shared struct {
	renewals *renewals
	users    *userInfos
	// exchanges makes a callback that arrives twice at once spend its code once.
	exchanges singleflight.Group
	// spent remembers where used logins were going, for a callback that comes again.
	spent *otter.Cache[string, string]
	// rereads holds when each session last asked for a re-read.
	rereads *otter.Cache[sessionID, time.Time]
}

const (
	// spentLifetime is how long a used login is remembered.
	spentLifetime = loginLifetime
	maxSpent      = 50_000

	// rereadInterval is the least time between two re-reads that one session asks
	// for.
	rereadInterval = time.Second
)

func newShared(now func() time.Time) *shared {
	return &shared{
		renewals: newRenewals(now),
		users:    newUserInfos(now),
		spent: otter.Must(&otter.Options[string, string]{
			MaximumSize:      maxSpent,
			ExpiryCalculator: otter.ExpiryWriting[string, string](spentLifetime),
		}),
		rereads: otter.Must(&otter.Options[sessionID, time.Time]{
			MaximumSize:      maxSpent,
			ExpiryCalculator: otter.ExpiryWriting[sessionID, time.Time](rereadInterval),
		}),
	}
}

// Destruct implements caddy.Destructor.
func (s *shared) Destruct() error {
	s.renewals.close()
	s.users.close()
	s.spent.StopAllGoroutines()
	s.rereads.StopAllGoroutines()
	return nil
}

// sharedStates is the one package variable that changes: a pool, as Caddy has them
// for what has to outlive a config.
var sharedStates = caddy.NewUsagePool()

// holdState takes the site's shared state from the pool, or begins it. The key is
// everything that makes a session or a user another one's: the client, the
// provider's endpoints and the site. The secret is not part of it; changing that
// must not forget which refresh tokens are spent.
func (h *Handler) holdState() error {
	key := string(appendText(appendText(appendText(appendText(nil,
		h.client.config.ClientID), h.client.config.Endpoint.TokenURL), h.client.userinfoEndpoint), h.redirectURI))
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
	_, err := sharedStates.Delete(key)
	return err
}
