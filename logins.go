package tollgate

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/respond"
	"github.com/caddy-tollgate/tollgate/web"
)

// goesRound counts a failed sign-in that leads to error_redirect. It reports whether the
// browser is in a loop: the page at error_redirect may start the next sign-in by itself.
func (si *signIns) goesRound(w http.ResponseWriter, v *visit) bool {
	recent := v.sent.Recent.Next("failed " + si.settings.errorPath)
	w.Header().Add("Set-Cookie", si.settings.cookies.Recent(recent))
	if !recent.IsLoop() {
		return false
	}
	// The count is in a cookie that any client can write.
	si.audit.Rarely(zap.WarnLevel, "sign-in loop: sign-ins fail, and the page at error_redirect starts the next one", "",
		zap.String("error_redirect", si.settings.errorPath))
	return true
}

// toExternalHost gives the URL of `start` at the external origin. ok is false if the request
// is for that host already. The login cookie belongs to the host that sets it, and the
// callback arrives at the host of redirect_uri.
func (si *signIns) toExternalHost(r *http.Request) (location string, ok bool) {
	query := queryOf(r)
	host := browserHost(r)
	if si.settings.endpoints["auth"] != "" || query.Has(externalHostQuery) || origin.IsSameHost(host, si.settings.origin) {
		return "", false
	}
	if si.state.otherHosts.IsNew(host) {
		si.logger.Warn("a sign-in started at another host than redirect_uri's; the browser was redirected there first; "+
			"open the site under redirect_uri's host, or let the proxy in front keep the Host header",
			zap.String("host", host), zap.String("redirect_uri_host", origin.HostOf(si.settings.origin)))
	}
	query.Set(externalHostQuery, "1")
	return si.settings.origin + si.settings.endpoints["start"] + "?" + query.Encode(), true
}

// goneCallback answers a callback whose login is not in the browser.
func (si *signIns) goneCallback(w http.ResponseWriter, r *http.Request, v *visit, flow string, answer oauth.Callback) error {
	gone, known := si.state.destinations.Of(flow)
	switch {
	case !known:
		return si.lateCallback(w, r, v, nil, cause.InvalidState)
	case gone.OtherHost:
		return si.lateCallback(w, r, v, &browser.Login{ReturnPath: gone.ReturnPath, Popup: gone.Popup, Nonce: gone.Nonce}, cause.OtherOrigin)
	case !gone.Dropped:
		return si.lateCallback(w, r, v, &browser.Login{ReturnPath: gone.ReturnPath}, cause.InvalidState)
	}
	if err := si.sessions.find(r.Context(), v); err == nil && v.session != nil {
		return respond.Redirect(w, http.StatusSeeOther, gone.ReturnPath)
	}
	if answer.ErrorCode == "" && si.MayRestart(w, &v.sent, flow, gone) {
		return respond.Redirect(w, http.StatusSeeOther, si.settings.places.RestartURL(gone))
	}
	return si.showDropped(w, r, gone)
}

// showDropped shows a page with a button that starts a dropped login again. This is no
// failure of the application's sign-in: it goes neither to error_redirect nor into the
// count of failed sign-ins.
func (si *signIns) showDropped(w http.ResponseWriter, r *http.Request, gone browser.Destination) error {
	si.audit.SignInFailed(r, cause.Expired, http.StatusBadRequest, nil)
	if gone.Popup {
		return si.responses.writePage(w, r, http.StatusBadRequest, pagePopup,
			pageData{home: gone.ReturnPath, popup: web.PopupMessage{Nonce: gone.Nonce, Error: cause.Expired}})
	}
	return si.responses.writePage(w, r, http.StatusBadRequest, pageError, pageData{returnTo: gone.ReturnPath, cause: cause.Expired})
}
