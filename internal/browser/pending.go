package browser

import (
	"slices"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

const (
	// maxPendingLogins is the maximum number of pending logins per browser. A further one
	// replaces the oldest: too many cookies make requests that servers refuse.
	maxPendingLogins = 5

	// maxLoginBytes is the maximum size of all pending logins' cookies together, in bytes,
	// for the same reason. Less is available next to a long session; see loginRoom.
	maxLoginBytes = 4096
	// maxAllBytes is the maximum size of the login and session cookies together, in bytes.
	maxAllBytes = 8192

	// maxRemovals is the maximum number of login cookies that one response deletes. A
	// sibling domain may set any number of them, and a proxy in front of the gateway limits
	// the size of a response's header.
	maxRemovals = 20

	// minLoginValue is shorter than every sealed login, in bytes. Shorter values are
	// rejected without cryptography.
	minLoginValue = 200
)

// pendingLogins are the pending logins of one browser, read from its request.
type pendingLogins struct {
	live []pendingLogin // oldest first
	// gone are the logins whose cookies must be deleted. The caller may want to keep their
	// return paths; see Destinations.
	gone []pendingLogin
	// junk are the names of login cookies that do not hold a login.
	junk []string
}

type pendingLogin struct {
	*Login
	name string
	size int // of the cookie, in bytes
}

// readLogins opens the login cookies of a request, except the one with the name except. The
// limit on the request header's size limits the work.
func readLogins(s *keys.Sealer, sent []sentLogin, except string, now time.Time) *pendingLogins {
	p := &pendingLogins{}
	for _, cookie := range sent {
		if cookie.Name == except {
			continue
		}
		l, ok := (*Login)(nil), false
		if len(cookie.Value) >= minLoginValue {
			l, ok = openLogin(s, cookie.Value)
		}
		switch pending := (pendingLogin{l, cookie.Name, len(cookie.Name) + len(cookie.Value)}); {
		case !ok:
			p.junk = append(p.junk, cookie.Name)
		case l.Expired(now):
			p.gone = append(p.gone, pending)
		default:
			p.live = append(p.live, pending)
		}
	}
	slices.SortStableFunc(p.live, func(a, b pendingLogin) int { return a.started.Compare(b.started) })
	return p
}

// Size returns the size of the live logins' cookies, names included, in bytes.
func (p *pendingLogins) Size() int {
	size := 0
	for _, l := range p.live {
		size += l.size
	}
	return size
}

// keep moves the oldest logins from Live to gone until at most count logins with at most size
// bytes are left.
func (p *pendingLogins) keep(count, size int) {
	for len(p.live) > 0 && (len(p.live) > count || p.Size() > size) {
		p.gone = append(p.gone, p.live[0])
		p.live = p.live[1:]
	}
}

// removals returns the names of the cookies to delete in one response, at most maxRemovals.
// Cookies that hold a login come first, because they certainly belong to the gateway.
func (p *pendingLogins) removals() []string {
	var names []string
	for _, l := range p.gone {
		names = append(names, l.name)
	}
	names = append(names, p.junk...)
	return names[:min(len(names), maxRemovals)]
}

// loginRoom returns how many bytes the login cookies may take if the session's cookies take
// session bytes.
func loginRoom(session int) int {
	return max(min(maxLoginBytes, maxAllBytes-session), 0)
}
