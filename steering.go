package tollgate

import (
	"net/http"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/policy"
)

// Headers with which a client asks an application to take the request for another one.
// The names are folded.
var (
	// urlOverrides name another path: IIS, and old Symfony and Zend applications, route by
	// them. Rules of ours would have seen the wrong path (Symfony CVE-2018-14773).
	urlOverrides = map[string]bool{"x-original-url": true, "x-rewrite-url": true}

	// methodOverrides name another method.
	methodOverrides = map[string]bool{"x-http-method-override": true, "x-http-method": true, "x-method-override": true}
)

// stripFolded removes the headers whose folded name is among these. All of them begin
// with an X.
func stripFolded(fields http.Header, names map[string]bool) {
	var stack [identity.MaxFolded]byte
	for name := range fields {
		if name == "" || name[0] != 'X' && name[0] != 'x' {
			continue
		}
		if names[string(header.AppendFolded(stack[:0], name))] {
			delete(fields, name)
		}
	}
}

// isForeignWebSocket reports whether a page of another origin opens a WebSocket. The
// browser sends cookies along, also from a sibling host where they are SameSite=Lax, and
// lets the page read what comes back: no CORS protects a WebSocket. origin is the
// external origin; a site that serves several hosts is also entered under the request's
// own host. A client that is no browser sends no Origin.
func isForeignWebSocket(r *http.Request, origin string) bool {
	if r.Header.Get("Upgrade") == "" && !policy.IsWebSocketConnect(r) {
		return false
	}
	from, sent := r.Header["Origin"]
	if !sent {
		return false
	}
	scheme, _, _ := strings.Cut(origin, "://")
	return len(from) != 1 || from[0] != origin && from[0] != scheme+"://"+strings.ToLower(r.Host)
}
