package tollgate

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/web"
)

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
func (h *Handler) goneCallback(w http.ResponseWriter, r *http.Request, v *visit, flow string, answer callbackAnswer) error {
	gone, known := h.state.destinations.Of(flow)
	switch {
	case !known:
		return h.lateCallback(w, r, v, nil)
	case !gone.Dropped:
		return h.lateCallback(w, r, v, &browser.Login{ReturnPath: gone.ReturnPath})
	}
	if err := h.sessions.find(r.Context(), v); err == nil && v.session != nil {
		return redirect(w, http.StatusSeeOther, gone.ReturnPath)
	}
	if answer.errorCode == "" && h.logins.mayRestart(w, v, flow, gone) {
		return redirect(w, http.StatusSeeOther, h.logins.restartURL(gone))
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
