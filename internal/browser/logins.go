package browser

import (
	"net/http"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

// Logins keeps the pending logins of the browsers of one site.
type Logins struct {
	jar          *Jar
	destinations *Destinations
	afterLogin   string
	now          func() time.Time
}

// NewLogins returns the Logins of a site. afterLogin is the return path of a login whose own
// is not known.
func NewLogins(jar *Jar, destinations *Destinations, afterLogin string, now func() time.Time) *Logins {
	return &Logins{jar: jar, destinations: destinations, afterLogin: afterLogin, now: now}
}

// Seal returns the value of a login's cookie, and makes room for it in the browser. If
// the return path does not fit next to the pending logins, this process remembers it
// instead: a pending login is worth more than a return path.
func (lg *Logins) Seal(w http.ResponseWriter, s *keys.Sealer, sent *Sent, l *Login) (string, error) {
	pending := readLogins(s, sent.Logins, "", lg.now())
	pending.keep(maxPendingLogins-1, maxLoginBytes)
	flow := FlowOf(l.State)
	room := loginRoom(len(sent.First)+len(sent.Second)) - len(lg.jar.LoginName(flow))

	sealed, whole, err := l.Seal(s, room-pending.Size())
	if err != nil {
		return "", err
	}
	if !whole {
		lg.destinations.Remember(flow, DestinationOf(l))
	}
	pending.keep(maxPendingLogins-1, room-len(sealed))
	lg.drop(w, pending)
	return sealed, nil
}

// drop deletes the login cookies that do not fit into the browser. The process
// remembers their return paths, so that each tab still comes back to its own page.
func (lg *Logins) drop(w http.ResponseWriter, pending *pendingLogins) {
	for _, l := range pending.gone {
		flow := FlowOf(l.State)
		to := DestinationOf(l.Login)
		to.ReturnPath = lg.destinationOf(flow, l.Login)
		to.Dropped = !l.Expired(lg.now())
		lg.destinations.Remember(flow, to)
	}
	for _, name := range pending.removals() {
		w.Header().Add("Set-Cookie", lg.jar.Remove(name))
	}
}

// Trim makes room for a new session next to the logins that are still pending: tabs
// that started at the same time did not know of each other. The callbacks of the dropped
// logins are late, and lead to their pages with the new session.
func (lg *Logins) Trim(w http.ResponseWriter, s *keys.Sealer, sent *Sent, ended *Login, session []string) {
	size := 0
	for _, cookie := range session {
		size += len(cookie)
	}
	pending := readLogins(s, sent.Logins, lg.jar.LoginName(FlowOf(ended.State)), lg.now())
	pending.keep(maxPendingLogins, loginRoom(size))
	lg.drop(w, pending)
}

// Find returns the login that this browser started with this state, or nil if it
// started no such login. The login may have expired.
func (lg *Logins) Find(s *keys.Sealer, sent *Sent, flow, state string) *Login {
	for _, cookie := range sent.Logins {
		if cookie.Name != lg.jar.LoginName(flow) {
			continue
		}
		if l, ok := openLogin(s, cookie.Value); ok && l.matches(state) {
			l.ReturnPath = lg.destinationOf(flow, l)
			return l
		}
	}
	return nil
}

// destinationOf returns the return path of a login: from its cookie, or else from the memory
// of this process, or else after_login.
func (lg *Logins) destinationOf(flow string, l *Login) string {
	if l.ReturnPath != "" {
		return l.ReturnPath
	}
	if remembered, ok := lg.destinations.Of(flow); ok {
		return remembered.ReturnPath
	}
	return lg.afterLogin
}

// MayRestart reports whether a dropped login is to be started again, and notes that.
//
// A browser keeps five pending logins. If more tabs than that start one, the oldest are
// dropped, and their callbacks find no cookie. The process remembers these logins. The
// callback of a dropped login starts a new one, once, and the provider signs most users
// in without a question. So each tab ends at its own page, with one click at most.
//
// This cannot loop. A login is restarted once, and a browser gets four restarts in half a
// minute; then a page with a button takes over. A login counts as dropped only if its
// cookie came back from the browser once, so a browser without cookies restarts nothing.
// An attacker gains nothing: a link to `start` begins a sign-in as well.
func (lg *Logins) MayRestart(w http.ResponseWriter, sent *Sent, flow string, gone Destination) bool {
	recent := sent.Recent.Next("restarted login")
	if gone.restarted || recent.IsLoop() {
		return false
	}
	gone.restarted = true
	lg.destinations.Remember(flow, gone)
	w.Header().Add("Set-Cookie", lg.jar.Recent(recent))
	return true
}
