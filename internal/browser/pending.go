package browser

import (
	"slices"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

const (
	// MaxPendingLogins is the maximum number of pending logins per browser. A further one
	// replaces the oldest: too many cookies make requests that servers refuse.
	MaxPendingLogins = 5

	// MaxLoginBytes is the maximum size of all pending logins' cookies together, in bytes,
	// for the same reason. Less is available next to a long session; see LoginRoom.
	MaxLoginBytes = 4096
	// MaxAllBytes is the maximum size of the login and session cookies together, in bytes.
	MaxAllBytes = 8192

	// MaxRemovals is the maximum number of login cookies that one response deletes. A
	// sibling domain may set any number of them, and a proxy in front of the gateway limits
	// the size of a response's header.
	MaxRemovals = 20

	// minLoginValue is shorter than every sealed login, in bytes. Shorter values are
	// rejected without cryptography.
	minLoginValue = 200
)

// PendingLogins are the pending logins of one browser, read from its request.
type PendingLogins struct {
	live []pendingLogin // oldest first
	// Gone are the logins whose cookies must be deleted. The caller may want to keep their
	// return paths; see Destinations.
	Gone []pendingLogin
	// junk are the names of login cookies that do not hold a login.
	junk []string
}

type pendingLogin struct {
	*Login
	name string
	size int // of the cookie, in bytes
}

// ReadLogins opens the login cookies of a request, except the one with the name except. The
// limit on the request header's size limits the work.
func ReadLogins(s *keys.Sealer, sent []sentLogin, except string, now time.Time) *PendingLogins {
	p := &PendingLogins{}
	for _, cookie := range sent {
		if cookie.Name == except {
			continue
		}
		l, ok := (*Login)(nil), false
		if len(cookie.Value) >= minLoginValue {
			l, ok = OpenLogin(s, cookie.Value)
		}
		switch pending := (pendingLogin{l, cookie.Name, len(cookie.Name) + len(cookie.Value)}); {
		case !ok:
			p.junk = append(p.junk, cookie.Name)
		case l.Expired(now):
			p.Gone = append(p.Gone, pending)
		default:
			p.live = append(p.live, pending)
		}
	}
	slices.SortStableFunc(p.live, func(a, b pendingLogin) int { return a.started.Compare(b.started) })
	return p
}

// Size returns the size of the live logins' cookies, names included, in bytes.
func (p *PendingLogins) Size() int {
	size := 0
	for _, l := range p.live {
		size += l.size
	}
	return size
}

// Keep moves the oldest logins from Live to Gone until at most count logins with at most size
// bytes are left.
func (p *PendingLogins) Keep(count, size int) {
	for len(p.live) > 0 && (len(p.live) > count || p.Size() > size) {
		p.Gone = append(p.Gone, p.live[0])
		p.live = p.live[1:]
	}
}

// Removals returns the names of the cookies to delete in one response, at most MaxRemovals.
// Cookies that hold a login come first, because they certainly belong to the gateway.
func (p *PendingLogins) Removals() []string {
	var names []string
	for _, l := range p.Gone {
		names = append(names, l.name)
	}
	names = append(names, p.junk...)
	return names[:min(len(names), MaxRemovals)]
}

// LoginRoom returns how many bytes the login cookies may take if the session's cookies take
// session bytes.
func LoginRoom(session int) int {
	return max(min(MaxLoginBytes, MaxAllBytes-session), 0)
}
