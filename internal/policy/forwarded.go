package policy

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// originalURLHeaders are the headers in which a proxy says what it was asked for, in
// the order in which they are read: Traefik's and Caddy's, ingress-nginx's, and the
// one of oauth2-proxy's users.
var originalURLHeaders = []string{"X-Forwarded-Uri", "X-Original-Url", "X-Auth-Request-Redirect"}

// TrustedProxies are the peers that may name the original request.
type TrustedProxies []netip.Prefix

// Trust reports whether a TCP peer is one of them.
func (t TrustedProxies) Trust(remoteAddr string) bool {
	peer, err := netip.ParseAddrPort(remoteAddr)
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	for _, prefix := range t {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// Everybody reports whether all addresses of a family are among them.
func (t TrustedProxies) Everybody() bool {
	for _, prefix := range t {
		if prefix.Bits() == 0 {
			return true
		}
	}
	return false
}

// forwardedURL returns the URL that a client requested from the proxy in front, or nil if the
// proxy does not send it. A proxy passes on what the client sent under the names that it does
// not set itself. So all headers that are there must agree, each of them once, and ok is
// false otherwise. ok is also false for onlyFullURL.
func forwardedURL(header http.Header) (asked *url.URL, ok bool) {
	for _, name := range originalURLHeaders {
		lines, sent := header[name]
		if !sent {
			continue
		}
		if len(lines) != 1 {
			return nil, false
		}
		u, ok := parseForwardedURL(lines[0])
		if !ok {
			return nil, false
		}
		if asked, ok = agreeOnURL(asked, u); !ok {
			return nil, false
		}
	}
	return asked, !onlyFullURL(header)
}

// onlyFullURL reports whether the original URL is sent as a full URL and not as a path.
// Such a URL is refused: a proxy builds it from the client's Host header, and the text does
// not say where that header ends. With `Host: app/public/x?` HAProxy makes
// `http://app/public/x?/admin` of a request for /admin.
func onlyFullURL(header http.Header) bool {
	sent := false
	for _, name := range originalURLHeaders {
		for _, line := range header[name] {
			if strings.HasPrefix(line, "/") {
				return false
			}
			sent = true
		}
	}
	return sent
}

// agreeOnURL returns the URL that two headers name. One of them may leave out the host. The first may be nil.
func agreeOnURL(a, b *url.URL) (*url.URL, bool) {
	switch {
	case a == nil:
		return b, true
	case a.EscapedPath() != b.EscapedPath() || a.RawQuery != b.RawQuery:
		return nil, false
	case a.Host == "":
		return b, true
	default:
		return a, b.Host == "" || origin.HostAndPort(a) == origin.HostAndPort(b)
	}
}

// parseForwardedURL reads a path with its query, or a full http(s) URL, as a server
// reads the target of a request: what begins with two slashes is a path. A full URL with a
// query and no path is refused: of `Host: app?x=` nginx makes `http://app?x=/admin`.
func parseForwardedURL(text string) (*url.URL, bool) {
	u, err := url.ParseRequestURI(text)
	if err != nil || u.User != nil || u.Opaque != "" {
		return nil, false
	}
	switch {
	case u.Scheme == "" && u.Host == "":
	case (u.Scheme == "https" || u.Scheme == "http") && u.Host != "":
		if u.Path == "" {
			u.Path = "/"
			if u.RawQuery != "" || u.ForceQuery {
				return nil, false
			}
		}
	default:
		return nil, false
	}
	return u, u.Path != "" && u.Path[0] == '/'
}

// forwardedPath returns the path and the query of a URL of this site, and "" for another
// host's URL. The scheme may be another one: TLS may end in front of the proxy.
func forwardedPath(asked *url.URL, external string) string {
	_, own, _ := strings.Cut(external, "://")
	if asked.Host != "" && origin.HostAndPort(asked) != own {
		return ""
	}
	path := asked.EscapedPath()
	if asked.RawQuery != "" {
		path += "?" + asked.RawQuery
	}
	return path
}
