package tollgate

import (
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/neighbours"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/relay"
)

// metVar is the variable with the *Handler that has stripped a request.
const metVar = "tollgate.met"

// errorGuard stands before the error routes of a server. An error of a directive that
// runs before tollgate, such as basic_auth, leads there directly, with everything that
// the client sent. If an error route leads to an upstream, the request must be as
// harmless as one for a public path.
type errorGuard struct {
	handler *Handler
	hosts   caddyhttp.MatchHost // of the site; none is every host
}

// guardErrorRoutes puts a guard before the error routes of the server, and of the subroutes
// around the handler. A route of the directive's own is not possible there: the
// Caddyfile sorts `handle_errors 404` before it, and drops it if tollgate is in a block.
// Caddy provisions error routes after all other routes, so that they may still change.
//
// Caddy provisions named routes last: from there it is too late.
func (h *Handler) guardErrorRoutes(ctx caddy.Context) error {
	place := neighbours.PlaceOf(ctx)
	if place.Server == nil {
		return nil
	}
	h.warnOfNamedRoute(place.Server)
	guard := &errorGuard{handler: h, hosts: slices.Clone(place.Hosts)}
	slices.Sort(guard.hosts)
	guard.hosts = slices.Compact(guard.hosts)
	if err := guard.hosts.Provision(ctx); err != nil {
		return err
	}
	guard.stand(place.Server.Routes, place.Server.Errors)
	for _, module := range ctx.Modules() {
		if subroute, ok := module.(*caddyhttp.Subroute); ok {
			guard.stand(subroute.Routes, subroute.Errors)
		}
	}
	return nil
}

// stand puts the guard before error routes, if Caddy loads the routes that they belong to.
func (g *errorGuard) stand(routes caddyhttp.RouteList, errors *caddyhttp.HTTPErrorConfig) {
	if errors == nil || !isLoading(routes) {
		return
	}
	first := caddyhttp.Route{Handlers: []caddyhttp.MiddlewareHandler{g}}
	errors.Routes = append(caddyhttp.RouteList{first}, errors.Routes...)
}

// isLoading reports whether Caddy loads routes now, and so has not come to their error
// routes yet. It takes the raw form away of what it has loaded.
func isLoading(routes caddyhttp.RouteList) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool { return route.HandlersRaw != nil })
}

// warnOfNamedRoute warns if the handler is in a named route of a server with error routes to
// an upstream. No guard can stand before them: they are loaded already.
func (h *Handler) warnOfNamedRoute(server *caddyhttp.Server) {
	if server.Errors == nil || isLoading(server.Errors.Routes) || !leadsToUpstream(server.Errors.Routes) {
		return
	}
	h.logger.Warn("tollgate is in a named route, so it cannot guard the error routes of this server, which lead to an upstream: " +
		"a request that fails before tollgate reaches the upstream with the client's identity headers; write tollgate into the site instead")
}

// leadsToUpstream reports whether routes proxy requests.
func leadsToUpstream(routes caddyhttp.RouteList) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
		return slices.ContainsFunc(route.Handlers, func(handler caddyhttp.MiddlewareHandler) bool {
			switch handler := handler.(type) {
			case *caddyhttp.Subroute:
				return leadsToUpstream(handler.Routes)
			case caddy.Module:
				return handler.CaddyModule().ID == "http.handlers.reverse_proxy"
			default:
				return false
			}
		})
	})
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (g *errorGuard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	met, _ := caddyhttp.GetVar(r.Context(), metVar).(*Handler)
	if met == g.handler { // the request has the identity that this tollgate gave it
		return g.answer(w, r, next)
	}
	if len(g.hosts) > 0 {
		if ours, err := g.hosts.MatchWithError(r); err == nil && !ours {
			return next.ServeHTTP(w, r)
		}
	}
	h := g.handler
	if met != nil {
		// Another tollgate of the server gave it an identity. Its error may lead to our
		// application, which trusts our names.
		h.settings.identity.Without(met.settings.identity).Strip(r)
		return next.ServeHTTP(w, r)
	}
	if judged := h.checkTarget(r); judged != policy.TargetOK {
		return h.refuseTarget(w, r, judged)
	}
	h.settings.identity.Strip(r)
	v := &visit{sent: h.settings.cookies.Take(r.Header)}
	policy.StripFolded(r.Header, policy.MethodOverrides)
	return h.pass(w, r, v, policy.Demand{Access: policy.AccessPublic}, decision{}, next)
}

// answer serves an error behind tollgate. The response that failed may have left a renewed
// session cookie in the header.
func (g *errorGuard) answer(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	rw := relay.AfterError(w, g.handler.settings.cookies)
	defer rw.End()
	err := next.ServeHTTP(rw, r)
	rw.Finish()
	return err
}
