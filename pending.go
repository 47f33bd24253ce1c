package tollgate

import (
	"slices"
	"time"
)

const (
	// maxPendingLogins is how many logins may wait in one browser. The oldest goes:
	// cookies that pile up end in a request that no server takes.
	maxPendingLogins = 5

	// maxLoginBytes bounds the pending logins' cookies together, for the same
	// reason. A long session leaves less.
	maxLoginBytes = 4096
	// maxAllBytes bounds them together with the session's.
	maxAllBytes = 8192

	// maxRemovals bounds how many login cookies one response removes. A sibling domain
	// may plant any number of them, and a proxy in front bounds a response's header.
	maxRemovals = 20

	// minLoginValue is less than any sealed login takes, in bytes. A shorter value is not
	// worth the cryptography.
	minLoginValue = 200
)

// pendingLogins are the logins that wait in one browser, as its request brought them.
type pendingLogins struct {
	live []pendingLogin // the oldest first
	// gone are the logins that must leave the browser. Where they lead is worth
	// remembering.
	gone []pendingLogin
	// junk are the cookies that hold no login at all.
	junk []string
}

type pendingLogin struct {
	*login
	name string
	size int // of the cookie, in bytes
}

// readLogins opens the login cookies of a request, but for the one named except. The
// work is bounded by the size of the request's header.
func readLogins(s *sealer, sent []sentLogin, except string, now time.Time) *pendingLogins {
	p := &pendingLogins{}
	for _, cookie := range sent {
		if cookie.name == except {
			continue
		}
		l, ok := (*login)(nil), false
		if len(cookie.value) >= minLoginValue {
			l, ok = openLogin(s, cookie.value)
		}
		switch pending := (pendingLogin{l, cookie.name, len(cookie.name) + len(cookie.value)}); {
		case !ok:
			p.junk = append(p.junk, cookie.name)
		case l.expired(now):
			p.gone = append(p.gone, pending)
		default:
			p.live = append(p.live, pending)
		}
	}
	slices.SortStableFunc(p.live, func(a, b pendingLogin) int { return a.started.Compare(b.started) })
	return p
}

func (p *pendingLogins) size() int {
	size := 0
	for _, l := range p.live {
		size += l.size
	}
	return size
}

// keep drops the oldest logins until at most count of them are left, which take at most
// size bytes together.
func (p *pendingLogins) keep(count, size int) {
	for len(p.live) > 0 && (len(p.live) > count || p.size() > size) {
		p.gone = append(p.gone, p.live[0])
		p.live = p.live[1:]
	}
}

// removals names the cookies to remove in one response: first those that hold a login,
// which are ours for certain.
func (p *pendingLogins) removals() []string {
	var names []string
	for _, l := range p.gone {
		names = append(names, l.name)
	}
	names = append(names, p.junk...)
	return names[:min(len(names), maxRemovals)]
}

// loginRoom is how many bytes the login cookies may take next to a session's.
func loginRoom(session int) int {
	return max(min(maxLoginBytes, maxAllBytes-session), 0)
}
