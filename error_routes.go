package tollgate

import (
	"github.com/caddy-tollgate/tollgate/internal/neighbours"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/policy"
)

// metVar is the variable that says of a request that a tollgate has stripped it.
const metVar = "tollgate.met"

// errorGuard stands before the error routes of a server. An error of a directive that
// runs before tollgate, such as basic_auth, leads there directly, with everything that
// the client sent. If an error route leads to an upstream, the request must be as
// harmless as one for a public path.
type errorGuard struct {
	handler *Handler
	hosts   caddyhttp.MatchHost // of the site; none is every host
}

// guardErrorRoutes puts a guard before the error routes. A route of the directive's own
// could not stand there: the Caddyfile sorts `handle_errors 404` before it, and drops it
// if tollgate is in a block. Caddy provisions the error routes after all other routes of
// the server, so that they may still change.
func (h *Handler) guardErrorRoutes(ctx caddy.Context) error {
	place := neighbours.PlaceOf(ctx)
	if place.Server == nil || place.Server.Errors == nil || !isLoadingRoutes(place.Server) {
		return nil
	}
	guard := &errorGuard{handler: h, hosts: slices.Clone(place.Hosts)}
	slices.Sort(guard.hosts)
	guard.hosts = slices.Compact(guard.hosts)
	if err := guard.hosts.Provision(ctx); err != nil {
		return err
	}
	first := caddyhttp.Route{Handlers: []caddyhttp.MiddlewareHandler{guard}}
	place.Server.Errors.Routes = append(caddyhttp.RouteList{first}, place.Server.Errors.Routes...)
	return nil
}

// isLoadingRoutes reports whether Caddy loads the main routes of a server now, and has
// not come to the error routes yet. It takes the raw form away of what it has loaded.
func isLoadingRoutes(server *caddyhttp.Server) bool {
	return slices.ContainsFunc(server.Routes, func(route caddyhttp.Route) bool { return route.HandlersRaw != nil })
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (g *errorGuard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if caddyhttp.GetVar(r.Context(), metVar) != nil {
		return next.ServeHTTP(w, r) // it has the identity that a tollgate gave it
	}
	if len(g.hosts) > 0 {
		if ours, err := g.hosts.MatchWithError(r); err == nil && !ours {
			return next.ServeHTTP(w, r)
		}
	}
	h := g.handler
	if judged := h.checkTarget(r); judged != policy.TargetOK {
		return h.refuseTarget(w, r, judged)
	}
	h.settings.identity.Strip(r)
	v := &visit{sent: h.settings.cookies.Take(r.Header)}
	policy.StripFolded(r.Header, policy.MethodOverrides)
	return h.pass(w, r, v, policy.Demand{Access: policy.AccessPublic}, nil, next)
}
