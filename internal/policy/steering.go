package policy

import (
	"net/http"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/header"
)

// Headers that make an application treat a request as a request for another URL or with
// another method. The names are folded.
var (
	// URLOverrides hold another path. IIS, and old Symfony and Zend applications, route by
	// them, so our rules would have checked the wrong path (Symfony CVE-2018-14773).
	URLOverrides = map[string]bool{"x-original-url": true, "x-rewrite-url": true}

	// MethodOverrides hold another method.
	MethodOverrides = map[string]bool{"x-http-method-override": true, "x-http-method": true, "x-method-override": true}
)

// StripFolded removes the headers whose folded name is in names. All of these names start
// with an X.
func StripFolded(fields http.Header, names map[string]bool) {
	var stack [header.MaxFolded]byte
	for name := range fields {
		if name == "" || name[0] != 'X' && name[0] != 'x' {
			continue
		}
		if names[string(header.AppendFolded(stack[:0], name))] {
			delete(fields, name)
		}
	}
}

// IsForeignWebSocket reports whether a page of another origin opens a WebSocket. The browser
// sends the cookies along; from a sibling host also those with SameSite=Lax. It lets the
// page read all messages: CORS does not protect WebSockets. origin is the external origin;
// the request's own host is allowed, too, because a site may serve several hosts. Clients
// other than browsers send no Origin.
func IsForeignWebSocket(r *http.Request, origin string) bool {
	if r.Header.Get("Upgrade") == "" && !isWebSocketConnect(r) {
		return false
	}
	from, sent := r.Header["Origin"]
	if !sent {
		return false
	}
	scheme, _, _ := strings.Cut(origin, "://")
	return len(from) != 1 || from[0] != origin && from[0] != scheme+"://"+strings.ToLower(r.Host)
}
