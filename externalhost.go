package tollgate

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// externalHostQuery marks an address of `start` that a browser was sent to because it
// had asked under another host. There is one such step at most: behind a proxy that
// rewrites Host every request looks like one for another host.
const externalHostQuery = "at_origin"

// toExternalHost gives the address of `start` at the external origin, for a browser that
// asks for it at another host. The login cookie belongs to the host that sets it, and the
// callback comes to the host of redirect_uri.
func (h *Handler) toExternalHost(r *http.Request) (location string, ok bool) {
	query := queryOf(r)
	host := browserHost(r)
	if h.ForwardAuth != nil || query.Has(externalHostQuery) || isSameHost(host, h.origin) {
		return "", false
	}
	if h.state.otherHosts.isNew(host) {
		h.logger.Warn("a sign-in begins at another host than redirect_uri's, which the browser is sent to first; "+
			"open the site under that host, or have the proxy in front keep the Host header",
			zap.String("host", host), zap.String("redirect_uri_host", hostOfOrigin(h.origin)))
	}
	query.Set(externalHostQuery, "1")
	return h.origin + h.endpoints["start"] + "?" + query.Encode(), true
}

// browserHost is the host that the browser has asked for: as a proxy that Caddy trusts
// says, or else the Host header.
func browserHost(r *http.Request) string {
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if forwarded := r.Header["X-Forwarded-Host"]; len(forwarded) == 1 && forwarded[0] != "" {
			return forwarded[0]
		}
	}
	return r.Host
}

// isSameHost reports whether a Host header names the host of an origin. A Host header
// without a port counts as the origin's port: many proxies leave it out.
func isSameHost(host, origin string) bool {
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	name, port := splitHost(host)
	if port != "" && port != portOf(u) {
		return false
	}
	return hostKey(name) == hostKey(u.Hostname())
}

func hostOfOrigin(origin string) string {
	_, host, _ := strings.Cut(origin, "://")
	return host
}

// splitHost takes a Host header apart. The port may be missing.
func splitHost(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return name, port
	}
	return strings.Trim(host, "[]"), ""
}

// portOf is the port of a URL, also where the scheme implies it.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// hostKey is a host in lower case, without a dot at its end, and an IP address in
// its one form.
func hostKey(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if canonical, err := origin.CanonicalHost(name); err == nil {
		return canonical
	}
	return name // no browser sends it
}

// otherHosts remembers a few hosts, each of which is worth one line in the log. Clients
// choose them, so it is bounded in number and length.
type otherHosts struct {
	mu    sync.Mutex // guards hosts
	hosts map[string]struct{}
}

const (
	maxOtherHosts = 10
	maxHostLength = 253
)

func (o *otherHosts) isNew(host string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.hosts[host]; known || len(o.hosts) >= maxOtherHosts || len(host) > maxHostLength {
		return false
	}
	if o.hosts == nil {
		o.hosts = make(map[string]struct{})
	}
	o.hosts[host] = struct{}{}
	return true
}
