package browser

import (
	"slices"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

const (
	// MaxPendingLogins is how many logins may wait in one browser. The oldest goes:
	// cookies that pile up end in a request that no server takes.
	MaxPendingLogins = 5

	// MaxLoginBytes bounds the pending logins' cookies together, for the same
	// reason. A long session leaves less.
	MaxLoginBytes = 4096
	// MaxAllBytes bounds them together with the session's.
	MaxAllBytes = 8192

	// MaxRemovals bounds how many login cookies one response removes. A sibling domain
	// may plant any number of them, and a proxy in front bounds a response's header.
	MaxRemovals = 20

	// minLoginValue is less than any sealed login takes, in bytes. A shorter value is not
	// worth the cryptography.
	minLoginValue = 200
)

// PendingLogins are the logins that wait in one browser, as its request brought them.
type PendingLogins struct {
	Live []pendingLogin // the oldest first
	// Gone are the logins that must leave the browser. Where they lead is worth
	// remembering.
	Gone []pendingLogin
	// junk are the cookies that hold no login at all.
	junk []string
}

type pendingLogin struct {
	*Login
	name string
	size int // of the cookie, in bytes
}

// ReadLogins opens the login cookies of a request, but for the one named except. The
// work is bounded by the size of the request's header.
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
			p.Live = append(p.Live, pending)
		}
	}
	slices.SortStableFunc(p.Live, func(a, b pendingLogin) int { return a.Started.Compare(b.Started) })
	return p
}

func (p *PendingLogins) Size() int {
	size := 0
	for _, l := range p.Live {
		size += l.size
	}
	return size
}

// Keep drops the oldest logins until at most count of them are left, which take at most
// size bytes together.
func (p *PendingLogins) Keep(count, size int) {
	for len(p.Live) > 0 && (len(p.Live) > count || p.Size() > size) {
		p.Gone = append(p.Gone, p.Live[0])
		p.Live = p.Live[1:]
	}
}

// Removals names the cookies to remove in one response: first those that hold a login,
// which are ours for certain.
func (p *PendingLogins) Removals() []string {
	var names []string
	for _, l := range p.Gone {
		names = append(names, l.name)
	}
	names = append(names, p.junk...)
	return names[:min(len(names), MaxRemovals)]
}

// LoginRoom is how many bytes the login cookies may take next to a session's.
func LoginRoom(session int) int {
	return max(min(MaxLoginBytes, MaxAllBytes-session), 0)
}
