package tollgate

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/charging"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/watch"
)

// What the tests in package tollgate_test need of the inside. They wait for work that no
// response shows, and hold up work that is too short to meet by chance.

// Internals are the parts that a handler is made of.
type Internals struct {
	Store    session.Store
	Storage  certmagic.Storage
	Keys     *keys.Source
	Sessions *session.Registry
	Renewals *renewal.Refresher
	Streams  *relay.Table[*passing]
	Ledgers  *charging.Ledgers
	Users    *account.Users
	// Matchers are those of the directive. A test may set them before the first request.
	Matchers *caddyhttp.MatcherSets
	// ForgetUnconfirmed ends the back-off of sessions whose user could not be read.
	ForgetUnconfirmed func()
}

// Internals returns the handler's parts.
func (h *Handler) Internals() Internals {
	return Internals{
		Store: watch.Unwrap(h.store), Storage: h.ctx.Storage(), Keys: h.keys, Sessions: h.state.sessions, Renewals: h.state.renewals,
		Streams: h.state.streams, Ledgers: h.state.ledgers, Users: h.tokens.users, Matchers: &h.matchers, ForgetUnconfirmed: h.state.unconfirmed.ForgetAll,
	}
}

// SetLogger sets the logger, before the first request.
func (h *Handler) SetLogger(logger *zap.Logger) {
	h.logger, h.sessions.logger, h.tokens.logger = logger, logger, logger
	h.signIns.logger, h.audit.Logger, h.place.Logger = logger, logger, logger
}

// Renewal says how the handler refreshes the tokens of a session.
func (h *Handler) Renewal(s *session.Session) renewal.How { return h.tokens.renewal(s) }

// EndNamed ends a session as the admin API does.
func (h *Handler) EndNamed(r *http.Request, session, user string) (bool, error) {
	return administered{h}.EndSession(r, session, user)
}

// RunningHandlers returns the handlers of the site at an origin, in this process.
func RunningHandlers(origin string) (handlers []*Handler) {
	sharedStates.Range(func(_, state any) bool {
		held, release := state.(*siteState).heldHandlers()
		defer release()
		for _, h := range held {
			if h.settings.origin == origin {
				handlers = append(handlers, h)
			}
		}
		return true
	})
	return handlers
}

// EndpointNames are the names of the endpoints.
var EndpointNames = endpointNames

// Limits that tests reach.
const (
	DefaultAuthTimeout = defaultAuthTimeout
	RereadInterval     = rereadInterval
)
