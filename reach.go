package tollgate

import (
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	"go.uber.org/zap"
)

// warnIfUnreachable warns if the endpoints of a sign-in do not come to this handler,
// because it stands in a `handle_path` that leaves them out. No request for them will
// ever say so here; the first request of any kind shows the server's routes.
func (h *Handler) warnIfUnreachable(r *http.Request) {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return
	}
	for _, name := range []string{"start", "callback"} {
		path := h.endpoints[name]
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
