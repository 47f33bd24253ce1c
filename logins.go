package tollgate

import (
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/respond"
	"github.com/caddy-tollgate/tollgate/web"
)

// logins keeps the pending logins of the browsers.
type logins struct {
	settings *settings
	state    *siteState
	keys     *keys.Source
	now      func() time.Time
	logger   *zap.Logger
}

// seal gives the value of a login's cookie, and makes room for it in the browser. If
// the return path does not fit next to the pending logins, this process remembers it
// instead: a pending login is worth more than a return path.
func (lg *logins) seal(w http.ResponseWriter, ring *keys.Ring, v *visit, l *browser.Login) (string, error) {
	pending := browser.ReadLogins(ring.Login, v.sent.Logins, "", lg.now())
	pending.Keep(browser.MaxPendingLogins-1, browser.MaxLoginBytes)
	flow := browser.FlowOf(l.State)
	room := browser.LoginRoom(len(v.sent.First)+len(v.sent.Second)) - len(lg.settings.cookies.LoginName(flow))

	sealed, whole, err := l.Seal(ring.Login, room-pending.Size())
	if err != nil {
		return "", err
	}
	if !whole {
		lg.state.destinations.Remember(flow, browser.DestinationOf(l))
	}
	pending.Keep(browser.MaxPendingLogins-1, room-len(sealed))
	lg.drop(w, pending)
	return sealed, nil
}

// drop deletes the login cookies that do not fit into the browser. The process
// remembers their return paths, so that each tab still comes back to its own page.
func (lg *logins) drop(w http.ResponseWriter, pending *browser.PendingLogins) {
	for _, l := range pending.Gone {
		flow := browser.FlowOf(l.State)
		to := browser.DestinationOf(l.Login)
		to.ReturnPath = lg.destinationOf(flow, l.Login)
		to.Dropped = !l.Expired(lg.now())
		lg.state.destinations.Remember(flow, to)
	}
	for _, name := range pending.Removals() {
		w.Header().Add("Set-Cookie", lg.settings.cookies.Remove(name))
	}
}

// trim makes room for a new session next to the logins that are still pending: tabs
// that started at the same time did not know of each other. The callbacks of the dropped
// logins are late, and lead to their pages with the new session.
func (lg *logins) trim(w http.ResponseWriter, r *http.Request, v *visit, ended *browser.Login, session []string) {
	keys, err := lg.keys.Ring(r.Context())
	if err != nil {
		return // the next sign-in makes room
	}
	size := 0
	for _, cookie := range session {
		size += len(cookie)
	}
	pending := browser.ReadLogins(keys.Login, v.sent.Logins, lg.settings.cookies.LoginName(browser.FlowOf(ended.State)), lg.now())
	pending.Keep(browser.MaxPendingLogins, browser.LoginRoom(size))
	lg.drop(w, pending)
}

// find gives the login that this browser started with this state. It is nil if there
// is none. The login may have expired.
func (lg *logins) find(ring *keys.Ring, v *visit, flow, state string) *browser.Login {
	for _, cookie := range v.sent.Logins {
		if cookie.Name != lg.settings.cookies.LoginName(flow) {
			continue
		}
		if l, ok := browser.OpenLogin(ring.Login, cookie.Value); ok && l.Matches(state) {
			l.ReturnPath = lg.destinationOf(flow, l)
			return l
		}
	}
	return nil
}

// destinationOf gives the return path of a login: from its cookie, or else from the memory
// of this process, or else after_login.
func (lg *logins) destinationOf(flow string, l *browser.Login) string {
	if l.ReturnPath != "" {
		return l.ReturnPath
	}
	if remembered, ok := lg.state.destinations.Of(flow); ok {
		return remembered.ReturnPath
	}
	return lg.settings.afterLogin
}

// goesRound counts a failed sign-in that leads to error_redirect. It reports whether the
// browser is in a loop: the page at error_redirect may start the next sign-in by itself.
func (lg *logins) goesRound(w http.ResponseWriter, v *visit) bool {
	recent := v.sent.Recent.Next("failed " + lg.settings.errorPath)
	w.Header().Add("Set-Cookie", lg.settings.cookies.Recent(recent))
	if !recent.IsLoop() {
		return false
	}
	if requests, due := lg.state.failingLoops.Next(lg.now()); due { // the count is in a cookie that any client can write
		lg.logger.Warn("sign-in loop: sign-ins fail, and the page at error_redirect starts the next one",
			zap.String("error_redirect", lg.settings.errorPath), zap.Int("requests", requests))
	}
	return true
}

// toExternalHost gives the URL of `start` at the external origin. ok is false if the request
// is for that host already. The login cookie belongs to the host that sets it, and the
// callback arrives at the host of redirect_uri.
func (lg *logins) toExternalHost(r *http.Request) (location string, ok bool) {
	query := queryOf(r)
	host := browserHost(r)
	if lg.settings.endpoints["auth"] != "" || query.Has(externalHostQuery) || origin.IsSameHost(host, lg.settings.origin) {
		return "", false
	}
	if lg.state.otherHosts.IsNew(host) {
		lg.logger.Warn("a sign-in started at another host than redirect_uri's; the browser was redirected there first; "+
			"open the site under redirect_uri's host, or let the proxy in front keep the Host header",
			zap.String("host", host), zap.String("redirect_uri_host", origin.HostOf(lg.settings.origin)))
	}
	query.Set(externalHostQuery, "1")
	return lg.settings.origin + lg.settings.endpoints["start"] + "?" + query.Encode(), true
}

// A browser keeps five pending logins. If more tabs than that start one, the oldest are
// dropped, and their callbacks find no cookie. The process remembers these logins. The
// callback of a dropped login starts a new one, once, and the provider signs most users
// in without a question. So each tab ends at its own page, with one click at most.
//
// This cannot loop. A login is restarted once, and a browser gets four restarts in half a
// minute; then a page with a button takes over. A login counts as dropped only if its
// cookie came back from the browser once, so a browser without cookies restarts nothing.
// An attacker gains nothing: a link to `start` begins a sign-in as well.

// goneCallback answers a callback whose login is not in the browser.
func (h *Handler) goneCallback(w http.ResponseWriter, r *http.Request, v *visit, flow string, answer oauth.Callback) error {
	gone, known := h.state.destinations.Of(flow)
	switch {
	case !known:
		return h.lateCallback(w, r, v, nil)
	case !gone.Dropped:
		return h.lateCallback(w, r, v, &browser.Login{ReturnPath: gone.ReturnPath})
	}
	if err := h.sessions.find(r.Context(), v); err == nil && v.session != nil {
		return respond.Redirect(w, http.StatusSeeOther, gone.ReturnPath)
	}
	if answer.ErrorCode == "" && h.logins.mayRestart(w, v, flow, gone) {
		return respond.Redirect(w, http.StatusSeeOther, h.logins.restartURL(gone))
	}
	return h.showDropped(w, r, gone)
}

// mayRestart reports whether a dropped login is to be started again, and notes that.
func (lg *logins) mayRestart(w http.ResponseWriter, v *visit, flow string, gone browser.Destination) bool {
	recent := v.sent.Recent.Next("restarted login")
	if gone.Restarted || recent.IsLoop() {
		return false
	}
	gone.Restarted = true
	lg.state.destinations.Remember(flow, gone)
	w.Header().Add("Set-Cookie", lg.settings.cookies.Recent(recent))
	return true
}

// restartURL is the address of `start` for a dropped login.
func (lg *logins) restartURL(gone browser.Destination) string {
	start := lg.settings.startURL(gone.ReturnPath)
	if !gone.Popup {
		return start
	}
	separator := "?"
	if start != lg.settings.endpoints["start"] {
		separator = "&"
	}
	start += separator + "popup=1"
	if gone.Nonce != "" {
		start += "&nonce=" + gone.Nonce
	}
	return start
}

// showDropped shows a page with a button that starts a dropped login again. This is no
// failure of the application's sign-in: it goes neither to error_redirect nor into the
// count of failed sign-ins.
func (h *Handler) showDropped(w http.ResponseWriter, r *http.Request, gone browser.Destination) error {
	const cause = "expired"
	h.audit.event("login_failed", r, nil, zap.String("reason", cause), zap.Int("status", http.StatusBadRequest))
	if gone.Popup {
		return h.responses.writePage(w, r, http.StatusBadRequest, pagePopup,
			pageData{home: gone.ReturnPath, popup: web.PopupMessage{Nonce: gone.Nonce, Error: cause}})
	}
	return h.responses.writePage(w, r, http.StatusBadRequest, pageError, pageData{returnTo: gone.ReturnPath, cause: cause})
}
