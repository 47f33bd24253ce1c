package tollgate

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/audit"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/respond"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/web"
)

// signIns serves start and callback, and keeps the pending logins of the browsers.
type signIns struct {
	*browser.Logins
	settings  *settings
	state     *siteState
	store     session.Store
	keys      *keys.Source
	sessions  *sessions
	responses *responses
	audit     *audit.Log
	metrics   *metrics.Set
	now       func() time.Time
	logger    *zap.Logger
}

// start redirects the browser to the provider. A cookie binds the state to this
// browser. Only a top-level navigation may start a login: otherwise images or scripts
// could fill the browser with pending logins.
func (si *signIns) start(w http.ResponseWriter, r *http.Request, v *visit) error {
	if !browser.IsNavigation(r) {
		return si.responses.denyScript(w, r, v)
	}
	if location, ok := si.toExternalHost(r); ok {
		return respond.Redirect(w, http.StatusFound, location)
	}
	keys, err := si.readyForLogin(r.Context())
	if err != nil {
		return si.postponeSignIn(w, r, err)
	}
	query := queryOf(r)
	returnTo := query.Get("return_to")
	if asked, forwarded := si.settings.forwarding.Page(r); forwarded && !query.Has("return_to") {
		returnTo = asked
	}
	now := si.now()
	l := browser.NewLogin(si.settings.places.ReturnPath(returnTo), query.Get("popup") == "1", "", now)
	if nonce := query.Get("nonce"); browser.IsNonce(nonce) {
		l.Nonce = nonce
	}
	sealed, err := si.Seal(w, keys.Login, &v.sent, l)
	if err != nil {
		return err
	}
	if !origin.IsSameHost(browserHost(r), si.settings.origin) { // the callback will bring no cookie
		si.state.destinations.Remember(browser.FlowOf(l.State), browser.Destination{ReturnPath: l.ReturnPath, Popup: l.Popup, Nonce: l.Nonce, OtherHost: true})
	}
	w.Header().Add("Set-Cookie", si.settings.cookies.Login(browser.FlowOf(l.State), sealed))
	return respond.Redirect(w, http.StatusFound, si.settings.client.AuthorizationURL(l.State, l.Verifier, v.sent.SignedOut))
}

// readyForLogin gives the keys if a new session could be saved now. Otherwise a user would
// sign in at the provider for nothing, and a code would be spent for nothing.
func (si *signIns) readyForLogin(ctx context.Context) (*keys.Ring, error) {
	if err := si.store.Ready(ctx); err != nil {
		return nil, err
	}
	return si.keys.Ring(ctx)
}

// callback finishes a login. It checks, in this order: the parameters, the login
// cookie, the state, the provider's error, the issuer, the code. The code is not spent
// before all other checks have passed (RFC 9700 section 4.7.1).
func (si *signIns) callback(w http.ResponseWriter, r *http.Request, v *visit) error {
	answer, fault := oauth.ParseCallback(queryOf(r))
	if fault != "" {
		return si.refuseCallback(w, r, v, nil, fault)
	}
	keys, err := si.readyForLogin(r.Context())
	if err != nil {
		return si.postponeSignIn(w, r, err) // its page retries this URL: the code is not spent yet
	}
	flow := browser.FlowOf(answer.State)
	l := si.Find(keys.Login, &v.sent, flow, answer.State)
	if l == nil {
		return si.goneCallback(w, r, v, flow, answer)
	}
	w.Header().Add("Set-Cookie", si.settings.cookies.Remove(si.settings.cookies.LoginName(flow)))
	if l.Expired(si.now()) {
		return si.lateCallback(w, r, v, l, cause.Expired)
	}
	if answer.ErrorCode != "" {
		return si.refuseCallback(w, r, v, l, oauth.AuthorizationErrorCode(answer.ErrorCode))
	}
	if !si.settings.client.IsIssuer(answer.Issuer) {
		si.audit.Issuer(answer.Issuer, si.settings.client.Issuer)
		return si.refuseCallback(w, r, v, l, cause.InvalidResponse)
	}

	s, err := si.signIn(r, l, flow, answer.Code)
	switch {
	case errors.Is(err, errLoginSpent):
		return si.lateCallback(w, r, v, l, cause.InvalidState)
	case err != nil:
		return si.failLogin(w, r, v, l, err)
	}
	return si.finishLogin(w, r, v, l, s)
}

// lateCallback answers a callback whose login is over, or was not started by this browser.
// With a live session it redirects to the login's page. Otherwise it shows a page with a
// button that starts a new login, for the same page if that is known. It never starts a
// login by itself: that could loop.
func (si *signIns) lateCallback(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login, code string) error {
	if err := si.sessions.find(r.Context(), v); err != nil || v.session == nil {
		return si.refuseCallback(w, r, v, l, code)
	}
	target := si.settings.afterLogin
	if l != nil {
		target = l.ReturnPath
	}
	return respond.Redirect(w, http.StatusSeeOther, target)
}

var (
	errLoginSpent  = errors.New("this login has already been finished")
	errUserRefused = cause.Else(cause.InactiveUser, errors.New("the provider does not call this user active"))
)

// signIn exchanges the code, reads the user information, and saves a new session. If the
// same callback arrives twice at the same time, the code is spent once and both get the
// same session. A later callback gets errLoginSpent.
func (si *signIns) signIn(r *http.Request, l *browser.Login, flow, code string) (*session.Session, error) {
	return si.state.exchanges.Do(r.Context(), flow, func(ctx context.Context) (*session.Session, error) {
		if first := si.state.spent.SetIfAbsent(flow, struct{}{}); !first {
			return nil, errLoginSpent
		}
		si.state.destinations.Remember(flow, browser.DestinationOf(l))
		t, err := si.settings.client.Exchange(ctx, code, l.Verifier)
		if err != nil {
			return nil, err
		}
		info, err := si.settings.client.UserInfo(ctx, t.Access)
		if err != nil {
			return nil, err
		}
		if !info.IsActive(si.settings.activeStatus, si.settings.statusMissingOK) {
			return nil, errUserRefused
		}
		s, err := si.store.Create(ctx, session.NewSession(si.now(), t, info))
		return s, cause.Else(cause.StoreUnavailable, err)
	})
}

// finishLogin gives the browser its session and sends it on.
func (si *signIns) finishLogin(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login, s *session.Session) error {
	// The code is spent, so continue even if the browser has gone away.
	cookies, err := si.sessions.cookies(context.WithoutCancel(r.Context()), s, v.sent.HasSecond)
	if err != nil {
		return si.failLogin(w, r, v, l, cause.Else(cause.StoreUnavailable, err))
	}
	si.replaceSession(r, v, s)
	si.sessions.noteDisplaced(v)
	for _, cookie := range cookies {
		w.Header().Add("Set-Cookie", cookie)
	}
	if ring, err := si.keys.Ring(r.Context()); err == nil { // otherwise the next sign-in makes room
		si.Trim(w, ring.Login, &v.sent, l, cookies)
	}
	if v.sent.SignedOut {
		w.Header().Add("Set-Cookie", si.settings.cookies.Remove(si.settings.cookies.SignedOutName()))
	}
	si.audit.Event(audit.Login, r, s, "", zap.String("scope", s.Tokens.Scope))

	recent := browser.Recent{}
	if v.session == nil {
		recent = v.sent.Recent
	}
	recent = recent.Next(l.ReturnPath)
	w.Header().Add("Set-Cookie", si.settings.cookies.Recent(recent))
	loops := recent.IsLoop() && !l.Popup
	if !loops {
		si.metrics.CountLogin(metrics.ResultOK)
	}
	switch {
	case loops:
		si.audit.SignInFailed(r, cause.LoginLoop, http.StatusBadRequest, nil,
			zap.String("cookie", si.settings.cookies.Name), zap.String("origin", si.settings.origin), zap.String("session", s.ID.Hash()))
		return si.responses.writePage(w, r, http.StatusBadRequest, pageError, pageData{returnTo: l.ReturnPath, cause: cause.LoginLoop})
	case l.Popup:
		return si.responses.writePage(w, r, http.StatusOK, pagePopup,
			pageData{home: l.ReturnPath, popup: web.PopupMessage{OK: true, Nonce: l.Nonce}})
	case si.settings.cookies.SameSite == http.SameSiteStrictMode:
		// After a redirect from the provider, a browser does not send a Strict cookie, and
		// tollgate would demand a login again. So a page of ours leads on instead.
		w.Header().Set("Refresh", "0;url="+l.ReturnPath)
		return si.responses.writePage(w, r, http.StatusOK, pageContinue, pageData{home: l.ReturnPath})
	default:
		return respond.Redirect(w, http.StatusSeeOther, l.ReturnPath)
	}
}

// replaceSession ends the previous session of this browser. If it belonged to the same
// user, it ends after a grace period, so that requests in other tabs can finish.
func (si *signIns) replaceSession(r *http.Request, v *visit, s *session.Session) {
	if err := si.sessions.find(r.Context(), v); err != nil || v.session == nil || v.session.ID == s.ID {
		return
	}
	from := si.now()
	if v.session.User.ID() == s.User.ID() {
		from = from.Add(session.EndGrace)
	}
	if err := si.sessions.end(r.Context(), v.session, from); err != nil {
		si.audit.StoreFailed("cannot end the browser's previous session", v.session, err)
	}
}

// postponeSignIn answers that the store or the secret is unavailable. The page retries.
func (si *signIns) postponeSignIn(w http.ResponseWriter, r *http.Request, err error) error {
	si.audit.SignInFailed(r, cause.StoreUnavailable, http.StatusServiceUnavailable, err)
	return si.responses.writeSignInUnavailable(w, r, cause.StoreUnavailable)
}

// refuseCallback answers a callback whose URL is not that of a sign-in that can go on. The
// status is always 400: anyone can write such a URL, so it must not look like an outage.
func (si *signIns) refuseCallback(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login, code string) error {
	si.audit.SignInFailed(r, code, http.StatusBadRequest, nil)
	return si.answerFailure(w, r, v, l, http.StatusBadRequest, code)
}

// failLogin answers a login that failed at the provider or at the store.
func (si *signIns) failLogin(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login, err error) error {
	code := cause.Of(err)
	row, _ := cause.Find(code)
	si.audit.SignInFailed(r, code, row.Status, err)
	return si.answerFailure(w, r, v, l, row.Status, code)
}

// answerFailure answers a failed login: with the popup's page, a redirect to the application's
// own error path, or an error page with a button to start again.
func (si *signIns) answerFailure(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login, status int, code string) error {
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(retrySeconds))
	}
	returnTo := ""
	if l != nil {
		returnTo = l.ReturnPath
	}
	switch {
	case l != nil && l.Popup:
		return si.responses.writePage(w, r, status, pagePopup,
			pageData{home: returnTo, popup: web.PopupMessage{Nonce: l.Nonce, Error: code}})
	case si.settings.errorPath != "" && !si.goesRound(w, v):
		return respond.Redirect(w, http.StatusSeeOther, withError(si.settings.errorPath, code))
	case status == http.StatusForbidden:
		return si.responses.writePage(w, r, status, pageForbidden, pageData{retry: returnTo, cause: code})
	default:
		return si.responses.writePage(w, r, status, pageError, pageData{returnTo: returnTo, cause: code})
	}
}

// withError adds the error code to the application's error path.
func withError(path, code string) string {
	u, err := url.Parse(path)
	if err != nil {
		return path
	}
	query := u.Query()
	query.Set("error", code)
	u.RawQuery = query.Encode()
	return u.String()
}

// externalHostQuery marks the URL of `start` after a redirect from another host. It limits
// such redirects to one: behind a proxy that rewrites Host, every request seems to be for
// another host.
const externalHostQuery = "at_origin"

// browserHost gives the host in the browser's URL: from the X-Forwarded-Host of a proxy that
// Caddy trusts, or else from the Host header.
func browserHost(r *http.Request) string {
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if forwarded := r.Header["X-Forwarded-Host"]; len(forwarded) == 1 && forwarded[0] != "" {
			return forwarded[0]
		}
	}
	return r.Host
}
