package tollgate

import (
	"context"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/admin"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func init() {
	caddy.RegisterModule(adminSessions{})
}

// adminSessions lists and ends sessions through Caddy's admin endpoint, which refuses web
// pages of other origins and is open to everyone else who can reach it.
//
//	GET    /tollgate/sessions?user=<id>
//	DELETE /tollgate/sessions?user=<id>
//	DELETE /tollgate/sessions?all=true
//	DELETE /tollgate/sessions/<session>
//
// It covers all sites of this process that keep their sessions on the server.
type adminSessions struct{}

// CaddyModule returns the Caddy module information.
func (adminSessions) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.tollgate",
		New: func() caddy.Module { return new(adminSessions) },
	}
}

// Routes implements caddy.AdminRouter.
func (adminSessions) Routes() []caddy.AdminRoute {
	server := admin.Server{Sites: eachSite}
	return []caddy.AdminRoute{{Pattern: "/tollgate/", Handler: caddy.AdminHandlerFunc(server.Serve)}}
}

// eachSite calls visit for the handlers of this process; of each site the newest handler
// comes first. Their stores stay open meanwhile.
func eachSite(visit func(admin.Site)) {
	sharedStates.Range(func(_, state any) bool {
		handlers, release := state.(*siteState).heldHandlers()
		defer release()
		for _, h := range handlers {
			visit(administered{h})
		}
		return true
	})
}

// administered is a handler as the admin API sees it.
type administered struct{ handler *Handler }

// Origin implements admin.Site.
func (a administered) Origin() string { return a.handler.settings.origin }

// SessionsOf implements admin.Site.
func (a administered) SessionsOf(ctx context.Context, user string) ([]admin.Session, error) {
	h := a.handler
	stored, err := h.store.SessionsOf(ctx, user)
	listed := make([]admin.Session, 0, len(stored))
	for _, s := range stored {
		times := session.Session{Created: s.Created, LastSeen: s.LastSeen}
		ends := session.Earlier(s.Expires, times.End(h.settings.lifetime, h.settings.idleTimeout))
		listed = append(listed, admin.Session{Summary: s, Ends: ends, Live: h.now().Before(ends)})
	}
	return listed, err
}

// EndSession implements admin.Site. The session has ended once its record is gone. The next
// list removes what may be left of it in the index.
func (a administered) EndSession(r *http.Request, name, user string) (bool, error) {
	h := a.handler
	ended, err := h.store.EndByName(r.Context(), name, time.Time{})
	if !ended {
		return false, err
	}
	h.state.sessions.Version.Add(1) // requests that are under way check again
	h.state.endAllStreams(name)
	h.audit.Revoked(r, name, user)
	return true, nil
}

// Names implements admin.Site.
func (a administered) Names(ctx context.Context) ([]string, error) { return a.handler.store.Names(ctx) }

// Forget implements admin.Site.
func (a administered) Forget(name string) {
	state := a.handler.state
	state.endedNames.Add(name, time.Time{}, a.handler.now()) // this site may have its record in a cache
	state.sessions.Version.Add(1)
	state.endAllStreams(name)
}

// Interface guards.
var (
	_ caddy.Module      = adminSessions{}
	_ caddy.AdminRouter = adminSessions{}
	_ admin.Site        = administered{}
)
