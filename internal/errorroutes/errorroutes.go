// Package errorroutes puts a guard before the error routes of a server. An error of a
// directive that runs before tollgate, such as basic_auth, leads there directly, with
// everything that the client sent. If an error route leads to an upstream, the request must be
// as harmless as one for a public path.
//
// It finds the error routes in Caddy's configuration. It does not change requests: the
// handler that the caller gives does. Begin with Guard.
package errorroutes

import (
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// Serve answers a request that has come to an error route. ours is false if the request is for
// the host of another site.
type Serve func(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, ours bool) error

// guard is the handler that stands before error routes.
type guard struct {
	serve Serve
	hosts caddyhttp.MatchHost // of the site; none is every host
}

// Guard puts serve before the error routes of the server, and of the subroutes around the
// handler that is provisioned with ctx. hosts are the hosts of the site; without hosts the site
// serves every host. Guard does nothing if server is nil. The directive cannot add a route of its
// own there: the Caddyfile sorts `handle_errors 404` before it, and drops it if tollgate is in a
// block. Caddy provisions error routes after all other routes, so that they may still change.
//
// Caddy provisions named routes last: from there it is too late.
func Guard(ctx caddy.Context, server *caddyhttp.Server, hosts []string, serve Serve, logger *zap.Logger) error {
	if server == nil {
		return nil
	}
	warnOfNamedRoute(server, logger)
	g := &guard{serve: serve, hosts: slices.Clone(hosts)}
	slices.Sort(g.hosts)
	g.hosts = slices.Compact(g.hosts)
	if err := g.hosts.Provision(ctx); err != nil {
		return err
	}
	g.stand(server.Routes, server.Errors)
	for _, module := range ctx.Modules() {
		if subroute, ok := module.(*caddyhttp.Subroute); ok {
			g.stand(subroute.Routes, subroute.Errors)
		}
	}
	return nil
}

// stand puts the guard before error routes, if Caddy loads the routes that they belong to.
func (g *guard) stand(routes caddyhttp.RouteList, errors *caddyhttp.HTTPErrorConfig) {
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
func warnOfNamedRoute(server *caddyhttp.Server, logger *zap.Logger) {
	if server.Errors == nil || isLoading(server.Errors.Routes) || !leadsToUpstream(server.Errors.Routes) {
		return
	}
	logger.Warn("tollgate is in a named route, so it cannot guard the error routes of this server, which lead to an upstream: " +
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
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ours := true
	if len(g.hosts) > 0 {
		matched, err := g.hosts.MatchWithError(r)
		ours = matched || err != nil
	}
	return g.serve(w, r, next, ours)
}
