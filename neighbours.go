package tollgate

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// neighbours are the sites of this process that have tollgate. Cookies know no ports: a
// browser sends the cookies of one site to every other site of the same host, and so to
// the application behind it.
type neighbours struct {
	mu    sync.Mutex // guards sites, and writing names
	sites []*neighbour
	// names are the cookie names of all sites, or nil where all have the same one.
	names atomic.Pointer[browser.CookieNames]
}

// neighbour is a handler, and where in the configuration it is.
type neighbour struct {
	handler *Handler
	app     *caddyhttp.App // of one configuration
	server  *caddyhttp.Server
	hosts   []string // that its route names; nil: every host
}

// allNeighbours holds the one value of its kind, under the key that is empty. It is a
// pool, so that the value outlives a config reload.
var allNeighbours = caddy.NewUsagePool()

// Destruct implements caddy.Destructor.
func (*neighbours) Destruct() error { return nil }

// CookieNames are the cookie names of all sites, or nil where one check is enough,
// because all sites have the same one.
func (n *neighbours) cookieNames() browser.CookieNames {
	names := n.names.Load()
	if names == nil {
		return nil
	}
	return *names
}

// update makes the names anew. Requests read them without a lock.
func (n *neighbours) update() {
	names := browser.CookieNames{}
	for _, site := range n.sites {
		names[site.handler.settings.cookies.Name] = struct{}{}
	}
	if len(names) < 2 {
		n.names.Store(nil)
		return
	}
	n.names.Store(&names)
}

// joinNeighbours makes this site known to the others of the process, and warns about
// what cannot work beside a site of the same configuration.
func (h *Handler) joinNeighbours(ctx caddy.Context) {
	value, _, _ := allNeighbours.LoadOrNew("", func() (caddy.Destructor, error) { return new(neighbours), nil }) // which never fails
	n := value.(*neighbours)
	h.neighbours, h.settings.cookies.Others = n, n.cookieNames
	site := placeOf(ctx, h)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, other := range n.sites {
		if other.app == site.app && site.app != nil {
			site.warnBeside(other)
		}
	}
	site.warnOfCallback()
	n.sites = append(n.sites, site)
	n.update()
}

func (h *Handler) leaveNeighbours() {
	n := h.neighbours
	if n == nil {
		return
	}
	h.neighbours = nil
	n.mu.Lock()
	n.sites = slices.DeleteFunc(n.sites, func(site *neighbour) bool { return site.handler == h })
	n.update()
	n.mu.Unlock()
	_, _ = allNeighbours.Delete("")
}

// placeOf finds the server and the route that a handler is being provisioned for. Outside
// of Caddy's HTTP app there is neither.
func placeOf(ctx caddy.Context, h *Handler) *neighbour {
	site := &neighbour{handler: h}
	for _, module := range ctx.Modules() {
		if app, ok := module.(*caddyhttp.App); ok {
			site.app = app
		}
	}
	site.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if site.server == nil {
		return site
	}
	// Caddy takes the raw form of a route's handlers away when it has loaded them, route
	// by route: the first route that still has it is the one that is being loaded.
	for _, route := range site.server.Routes {
		if route.HandlersRaw != nil {
			site.hosts = hostsOf(route)
			break
		}
	}
	return site
}

// hostsOf are the hosts that a route names, or nil when it is for every host.
func hostsOf(route caddyhttp.Route) (hosts []string) {
	for _, set := range route.MatcherSets {
		named := false
		for _, matcher := range set {
			switch match := matcher.(type) {
			case caddyhttp.MatchHost:
				hosts, named = append(hosts, match...), true
			case *caddyhttp.MatchHost:
				hosts, named = append(hosts, *match...), true
			}
		}
		if !named {
			return nil
		}
	}
	return hosts
}

// String names the site for an operator: its hosts and its listeners.
func (s *neighbour) String() string {
	hosts := "every host"
	if len(s.hosts) > 0 {
		hosts = strings.Join(s.hosts, ", ")
	}
	if s.server == nil {
		return hosts
	}
	return hosts + " on " + strings.Join(s.server.Listen, ", ")
}

// warnBeside warns about two sites of one configuration of which each breaks the other's
// sign-ins. Two handlers of one site, in two of its routes, share everything by intent.
func (s *neighbour) warnBeside(other *neighbour) {
	h, o := s.handler, other.handler
	log := h.logger.With(zap.Stringer("site", s), zap.Stringer("other", other))
	switch {
	case h.settings.redirectURI == o.settings.redirectURI && (s.server != other.server || !slices.Equal(s.hosts, other.hosts)):
		log.Warn("two sites have the same redirect_uri: sign-ins of both end at the one that receives it; give each its own",
			zap.String("redirect_uri", h.settings.redirectURI))
	case h.stateKey != o.stateKey && h.shareCookies(o):
		log.Warn("two sites share a host and a cookie name: a sign-in at one replaces the other's session in the browser, since cookies know no ports; "+
			"set another `session { cookie_name … }` for one of them",
			zap.String("cookie", h.settings.cookies.Name), zap.String("redirect_uri", h.settings.redirectURI), zap.String("other_redirect_uri", o.settings.redirectURI))
	}
}

// shareCookies reports whether a browser would keep cookies of two sites in one place.
func (h *Handler) shareCookies(o *Handler) bool {
	if !h.settings.cookies.Owns(o.settings.cookies.Name) && !o.settings.cookies.Owns(h.settings.cookies.Name) {
		return false
	}
	host, other := origin.HostnameOf(h.settings.origin), origin.HostnameOf(o.settings.origin)
	return host == other || h.settings.cookies.Reaches(other) || o.settings.cookies.Reaches(host)
}

// warnOfCallback warns when the callback does not come to this site. A site that names no
// host often stands behind a proxy, where that is as it should be: there it is a note.
func (s *neighbour) warnOfCallback() {
	h := s.handler
	if s.app == nil || s.server == nil || h.ForwardAuth != nil || s.receives(h.settings.origin) {
		return
	}
	say := h.logger.Info
	if len(s.hosts) > 0 {
		say = h.logger.Warn
	}
	say("redirect_uri leads to another host or port than this site's: unless a proxy in front passes that address on to this site, sign-ins end elsewhere; "+
		"set redirect_uri to this site's own address, or add that address to the site",
		zap.Stringer("site", s), zap.String("redirect_uri", h.settings.redirectURI))
}

// receives reports whether a request for this origin comes to the site, as far as the
// configuration tells.
func (s *neighbour) receives(external string) bool {
	u, err := url.Parse(external)
	if err != nil {
		return true
	}
	return s.namesHost(origin.HostKey(u.Hostname())) && s.listensOn(origin.PortOf(u))
}

// namesHost reports whether the site is for a host. What cannot be known, a wildcard or a
// placeholder, counts as yes.
func (s *neighbour) namesHost(host string) bool {
	return len(s.hosts) == 0 || slices.ContainsFunc(s.hosts, func(name string) bool {
		return strings.ContainsAny(name, "*{") || origin.HostKey(name) == host
	})
}

// listensOn reports whether the site's server listens on a port, or on what stands for
// it: http_port and https_port are for who maps 80 and 443 elsewhere.
func (s *neighbour) listensOn(port string) bool {
	ports := map[string]bool{}
	for _, address := range s.server.Listen {
		listens, err := caddy.ParseNetworkAddress(address)
		if err != nil || listens.IsUnixNetwork() || listens.IsFdNetwork() {
			return true
		}
		for number := range listens.PortRangeSize() {
			ports[strconv.Itoa(int(listens.StartPort+number))] = true
		}
	}
	aliases := map[string]int{"80": s.app.HTTPPort, "443": s.app.HTTPSPort}
	return ports[port] || aliases[port] != 0 && ports[strconv.Itoa(aliases[port])]
}

// warnIfUnreachable warns if the endpoints of a sign-in do not come to this handler,
// because it stands in a `handle_path` that leaves them out. No request for them will
// ever say so here; the first request of any kind shows the server's routes.
func (h *Handler) warnIfUnreachable(r *http.Request) {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return
	}
	for _, name := range []string{"start", "callback"} {
		path := h.settings.endpoints[name]
		if !h.isReachedBy(server, r, path) {
			h.logger.Warn("nobody can sign in: a matcher around `tollgate`, such as that of `handle_path`, keeps this path away from it; "+
				"move tollgate out of that block, or set `path_prefix` and `redirect_uri` to paths that the block matches",
				zap.String("endpoint", name), zap.String("path", path))
		}
	}
}

// isReachedBy reports whether a request for a path of this site would come here.
func (h *Handler) isReachedBy(server *caddyhttp.Server, r *http.Request, path string) bool {
	repl := caddy.NewReplacer()
	asked := &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: path}, RequestURI: path, Host: r.Host, TLS: r.TLS, Header: http.Header{},
		Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor, RemoteAddr: r.RemoteAddr,
	}
	asked = caddyhttp.PrepareRequest(asked, repl, nil, server)
	return leadTo(h, server.Routes, asked, repl)
}

// leadTo reports whether routes lead a request to a handler. It follows matchers, groups
// and rewrites, and assumes that no other handler answers first. Where a matcher fails
// nobody can tell: that is no reason to warn.
func leadTo(h *Handler, routes caddyhttp.RouteList, r *http.Request, repl *caddy.Replacer) bool {
	taken := map[string]bool{}
	for _, route := range routes {
		if route.Group != "" && taken[route.Group] {
			continue
		}
		matched, err := route.MatcherSets.AnyMatchWithError(r)
		if err != nil {
			return true
		}
		if !matched {
			continue
		}
		taken[route.Group] = true
		for _, handler := range route.Handlers {
			switch handler := handler.(type) {
			case *Handler:
				if handler == h {
					return true
				}
			case *caddyhttp.Subroute:
				if leadTo(h, handler.Routes, r, repl) {
					return true
				}
			case *rewrite.Rewrite:
				handler.Rewrite(r, repl)
			}
		}
	}
	return false
}
