package origin

import (
	"net"
	"net/url"
	"strings"
)

// HostnameOf returns the host of an origin in canonical form, without the port.
func HostnameOf(origin string) string {
	u, err := url.Parse(origin)
	if err != nil {
		return ""
	}
	return HostKey(u.Hostname())
}

// IsSameHost reports whether a Host header names the host of an origin. A Host header
// without a port counts as the origin's port: many proxies leave it out.
func IsSameHost(host, origin string) bool {
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	name, port := splitHost(host)
	if port != "" && port != PortOf(u) {
		return false
	}
	return HostKey(name) == HostKey(u.Hostname())
}

// HostOf returns the host of an origin, with its port if that is not the default.
func HostOf(origin string) string {
	_, host, _ := strings.Cut(origin, "://")
	return host
}

// splitHost splits a Host header. port is empty if there is none.
func splitHost(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return name, port
	}
	return strings.Trim(host, "[]"), ""
}

// PortOf returns the port of a URL, or else the default port of its scheme.
func PortOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// HostKey returns a host in canonical form: in lower case, without a dot at its end, an IP
// address in its canonical notation.
func HostKey(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if canonical, err := CanonicalHost(name); err == nil {
		return canonical
	}
	return name // no browser sends such a host
}
