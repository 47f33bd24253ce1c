// Package neighbours knows the sites of this process that have tollgate, and where in
// Caddy's configuration each of them is. It finds what cannot work beside another site.
//
// It decides about no request. Begin with Join.
package neighbours

import (
	"context"
	"net"
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
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// neighbours are the sites of this process that have tollgate. Cookies know no ports: a
// browser sends the cookies of one site to every other site of the same host, and so to
// the application behind it.
type neighbours struct {
	mu    sync.Mutex // guards sites, and writing names
	sites []*Site
	// names are the cookie names of all sites, or nil if all sites have the same one.
	names atomic.Pointer[browser.CookieNames]
}

// Site is one tollgate in the configuration.
type Site struct {
	// Handler is the tollgate.
	Handler caddyhttp.MiddlewareHandler
	// State names what handlers of one site share. Handlers of other sites have another.
	State string
	// Origin is the external origin, and RedirectURI the callback's URL.
	Origin, RedirectURI string
	Cookies             *browser.Jar
	// ForwardAuth is true if another proxy receives the requests of the site.
	ForwardAuth bool
	Logger      *zap.Logger

	place Place
	all   *neighbours // nil before Join and after Leave
	// repeats is true if another tollgate of this configuration is of the same site.
	repeats bool
}

// Place is where in the configuration a handler is. Outside of Caddy's HTTP app all of it
// is empty.
type Place struct {
	App    *caddyhttp.App // of one configuration
	Server *caddyhttp.Server
	// Hosts are the hosts that the handler's route names. It is nil if the route is for
	// every host.
	Hosts []string
}

// allNeighbours holds the one value of its kind, under the empty key. It is a pool, so
// that the value survives a config reload.
var allNeighbours = caddy.NewUsagePool()

// Destruct implements caddy.Destructor.
func (*neighbours) Destruct() error { return nil }

// cookieNames are the cookie names of all sites. It is nil if all sites have the same one:
// one check is enough then.
func (n *neighbours) cookieNames() browser.CookieNames {
	names := n.names.Load()
	if names == nil {
		return nil
	}
	return *names
}

// update collects the names again. Requests read them without a lock.
func (n *neighbours) update() {
	names := browser.CookieNames{}
	for _, site := range n.sites {
		names[site.Cookies.Name] = struct{}{}
	}
	if len(names) < 2 {
		n.names.Store(nil)
		return
	}
	n.names.Store(&names)
}

// Join makes a site known to the others of the process, and warns about what cannot work
// beside a site of the same configuration. The caller must call Leave.
func (s *Site) Join(ctx caddy.Context) {
	value, _, _ := allNeighbours.LoadOrNew("", func() (caddy.Destructor, error) { return new(neighbours), nil }) // never fails
	s.all = value.(*neighbours)
	s.Cookies.Others = s.all.cookieNames
	s.place = PlaceOf(ctx)
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	for _, other := range s.all.sites {
		if other.place.App == s.place.App && s.place.App != nil {
			s.repeats = s.repeats || other.State == s.State
			s.warnBeside(other)
		}
	}
	s.warnOfCallback()
	s.all.sites = append(s.all.sites, s)
	s.all.update()
}

// Repeats reports whether another tollgate of the same configuration, which joined before, is
// of the same site.
func (s *Site) Repeats() bool { return s.repeats }

// Leave takes a site out again. It does nothing before Join, and the second time.
func (s *Site) Leave() {
	if s == nil || s.all == nil {
		return
	}
	all := s.all
	s.all = nil
	all.mu.Lock()
	all.sites = slices.DeleteFunc(all.sites, func(site *Site) bool { return site == s })
	all.update()
	all.mu.Unlock()
	_, _ = allNeighbours.Delete("")
}

// Place returns where the site is. It is empty before Join.
func (s *Site) Place() Place { return s.place }

// PlaceOf finds the server and the route for which a handler is being provisioned.
func PlaceOf(ctx caddy.Context) Place {
	var place Place
	for _, module := range ctx.Modules() {
		if app, ok := module.(*caddyhttp.App); ok {
			place.App = app
		}
	}
	place.Server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if place.Server == nil {
		return place
	}
	// Caddy deletes the raw form of a route's handlers once it has loaded them, route by
	// route. So the first route that still has it is the one that is being loaded.
	for _, route := range place.Server.Routes {
		if route.HandlersRaw != nil {
			place.Hosts = hostsOf(route)
			break
		}
	}
	return place
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

// String names the place for an operator: its hosts and its listeners.
func (p Place) String() string {
	hosts := "every host"
	if len(p.Hosts) > 0 {
		hosts = strings.Join(p.Hosts, ", ")
	}
	if p.Server == nil {
		return hosts
	}
	return hosts + " on " + strings.Join(p.Server.Listen, ", ")
}

// Conflict is how two sites of one configuration break each other's sign-ins.
type Conflict int

const (
	NoConflict Conflict = iota
	// SameRedirectURI: the sign-ins of both end at the site that receives the callback.
	SameRedirectURI
	// SameCookies: a sign-in at one site replaces the other's session in the browser.
	SameCookies
)

// ConflictWith returns the conflict of two sites of one configuration. Two handlers of one
// site, in two of its routes, share everything on purpose.
func (s *Site) ConflictWith(other *Site) Conflict {
	switch {
	case s.RedirectURI == other.RedirectURI && (s.place.Server != other.place.Server || !slices.Equal(s.place.Hosts, other.place.Hosts)):
		return SameRedirectURI
	case s.State != other.State && s.sharesCookies(other):
		return SameCookies
	default:
		return NoConflict
	}
}

// warnBeside warns about a conflict with another site.
func (s *Site) warnBeside(other *Site) {
	log := s.Logger.With(zap.Stringer("address", s.place), zap.Stringer("other", other.place))
	switch s.ConflictWith(other) {
	case SameRedirectURI:
		log.Warn("two sites have the same redirect_uri: sign-ins of both end at the one that receives it; give each its own",
			zap.String("redirect_uri", config.Shown(s.RedirectURI)))
	case SameCookies:
		log.Warn("two sites share a host and a cookie name: a sign-in at one replaces the other's session in the browser, since cookies know no ports; "+
			"set another `session { cookie_name … }` for one of them",
			zap.String("cookie", s.Cookies.Name), zap.String("redirect_uri", config.Shown(s.RedirectURI)), zap.String("other_redirect_uri", config.Shown(other.RedirectURI)))
	}
}

// sharesCookies reports whether a browser would keep the cookies of two sites in one place.
func (s *Site) sharesCookies(other *Site) bool {
	if !s.Cookies.Owns(other.Cookies.Name) && !other.Cookies.Owns(s.Cookies.Name) {
		return false
	}
	host, otherHost := origin.HostnameOf(s.Origin), origin.HostnameOf(other.Origin)
	return host == otherHost || s.Cookies.Reaches(otherHost) || other.Cookies.Reaches(host)
}

// warnOfCallback warns if the callback does not reach this site. A site that names no host
// often is behind a proxy, where this is intended: it gets an INFO line.
func (s *Site) warnOfCallback() {
	if s.place.App == nil || s.place.Server == nil || s.ForwardAuth || s.place.receives(s.Origin) {
		return
	}
	log := s.Logger.Info
	if len(s.place.Hosts) > 0 {
		log = s.Logger.Warn
	}
	log("redirect_uri leads to another host or port than this site's: unless a proxy in front passes that address on to this site, sign-ins end elsewhere; "+
		"set redirect_uri to this site's own address, or add that address to the site",
		zap.Stringer("address", s.place), zap.String("redirect_uri", config.Shown(s.RedirectURI)))
}

// receives reports whether a request for this origin comes to the site, as far as the
// configuration tells.
func (p Place) receives(external string) bool {
	u, err := url.Parse(external)
	if err != nil {
		return true
	}
	return p.NamesHost(origin.HostKey(u.Hostname())) && p.ListensOn(origin.PortOf(u))
}

// NamesHost reports whether the site is for a host. A wildcard or a placeholder cannot be
// compared, so it counts as a match.
func (p Place) NamesHost(host string) bool {
	return len(p.Hosts) == 0 || slices.ContainsFunc(p.Hosts, func(name string) bool {
		return strings.ContainsAny(name, "*{") || origin.HostKey(name) == host
	})
}

// ListensOn reports whether the site's server listens on a port, or on what stands for
// it: http_port and https_port replace 80 and 443 for operators who map these ports elsewhere.
func (p Place) ListensOn(port string) bool {
	ports := map[string]bool{}
	for _, address := range p.Server.Listen {
		listens, err := caddy.ParseNetworkAddress(address)
		if err != nil || listens.IsUnixNetwork() || listens.IsFdNetwork() {
			return true
		}
		for number := range listens.PortRangeSize() {
			ports[strconv.Itoa(int(listens.StartPort+number))] = true
		}
	}
	aliases := map[string]int{"80": p.App.HTTPPort, "443": p.App.HTTPSPort}
	return ports[port] || aliases[port] != 0 && ports[strconv.Itoa(aliases[port])]
}

// WarnIfUnreachable warns if the endpoints of a sign-in do not come to the site's handler. It
// tries the routes of the server with the help of a request r. endpoints are paths by name.
func (s *Site) WarnIfUnreachable(r *http.Request, endpoints map[string]string) {
	for _, name := range []string{"start", "callback"} {
		if path := endpoints[name]; !s.isReached(r, path) {
			s.Logger.Warn("nobody can sign in: a matcher around `tollgate`, such as that of `handle_path`, keeps this path away from it; "+
				"move tollgate out of that block, or set `path_prefix` and `redirect_uri` to paths that the block matches",
				zap.String("endpoint", name), zap.String("path", path))
		}
	}
}

// isReached reports whether a request for a path of this site would reach the site's
// handler. The handler may be in a block, such as `handle_path`, whose matcher keeps the
// path away from it. Such a request never arrives, so the routes are tried with the help
// of another request r.
func (s *Site) isReached(r *http.Request, path string) bool {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return true
	}
	asked := &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: path}, RequestURI: path, Host: r.Host, TLS: r.TLS, Header: http.Header{},
		Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor, RemoteAddr: r.RemoteAddr,
	}
	repl := caddy.NewReplacer()
	asked = asked.WithContext(r.Context()) // with the connection's addresses, for placeholders
	return leadTo(s.Handler, server.Routes, caddyhttp.PrepareRequest(asked, repl, nil, server), repl)
}

// AsReceived returns a request that was never sent with the local address of a connection to
// the site's server. Caddy's placeholders `{http.request.local.…}` fail without one.
func (p Place) AsReceived(asked *http.Request) *http.Request {
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	for _, address := range p.Server.Listen {
		if listens, err := caddy.ParseNetworkAddress(address); err == nil && listens.StartPort != 0 {
			local.Port = int(listens.StartPort)
			break
		}
	}
	return asked.WithContext(context.WithValue(asked.Context(), http.LocalAddrContextKey, local))
}

// Arrive takes a request that was never sent to the site's handler. It returns the request
// as the directives before the handler leave it. ok is false if the routes of the site's
// server do not lead it there.
func (s *Site) Arrive(asked *http.Request) (arrived *http.Request, ok bool) {
	if s.place.Server == nil {
		return asked, true
	}
	repl := caddy.NewReplacer()
	arrived = caddyhttp.PrepareRequest(s.place.AsReceived(asked), repl, nil, s.place.Server)
	return arrived, leadTo(s.Handler, s.place.Server.Routes, arrived, repl)
}

// leadTo reports whether routes lead a request to a handler. It follows matchers, groups
// and rewrites, and assumes that no other handler responds first. If a matcher fails, it
// returns true: the caller warns only if it is certain.
func leadTo(h caddyhttp.MiddlewareHandler, routes caddyhttp.RouteList, r *http.Request, repl *caddy.Replacer) bool {
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
			if handler == h {
				return true
			}
			switch handler := handler.(type) {
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
