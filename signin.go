package tollgate

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
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
	audit     *audit
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
		si.logger.Error("cannot start sign-in: session store or secret unavailable", zap.Error(err))
		si.metrics.CountLogin(resultUnavailable)
		return si.responses.writeSignInUnavailable(w, r)
	}
	query := queryOf(r)
	returnTo := query.Get("return_to")
	if asked, forwarded := si.settings.forwarding.Page(r); forwarded && !query.Has("return_to") {
		returnTo = asked
	}
	now := si.now()
	l := browser.NewLogin(si.responses.returnPath(returnTo), query.Get("popup") == "1", "", now)
	if nonce := query.Get("nonce"); browser.IsNonce(nonce) {
		l.Nonce = nonce
	}
	sealed, err := si.Seal(w, keys.Login, &v.sent, l)
	if err != nil {
		return err
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
	answer, cause := oauth.ParseCallback(queryOf(r))
	if cause != "" {
		return si.failLogin(w, r, v, nil, http.StatusBadRequest, cause)
	}
	keys, err := si.readyForLogin(r.Context())
	if err != nil {
		si.logger.Error("cannot finish sign-in: session store or secret unavailable", zap.Error(err))
		si.metrics.CountLogin(resultUnavailable)
		return si.responses.writeSignInUnavailable(w, r) // its page retries this URL: the code is not spent yet
	}
	flow := browser.FlowOf(answer.State)
	l := si.Find(keys.Login, &v.sent, flow, answer.State)
	if l == nil {
		return si.goneCallback(w, r, v, flow, answer)
	}
	w.Header().Add("Set-Cookie", si.settings.cookies.Remove(si.settings.cookies.LoginName(flow)))
	if l.Expired(si.now()) {
		return si.lateCallback(w, r, v, l)
	}
	if answer.ErrorCode != "" {
		return si.failLogin(w, r, v, l, http.StatusBadRequest, oauth.AuthorizationErrorCode(answer.ErrorCode))
	}
	if !si.settings.client.IsIssuer(answer.Issuer) {
		if requests, due := si.state.foreignIssuers.Next(si.now()); due {
			si.audit.issuer(answer.Issuer, si.settings.client.Issuer, requests)
		}
		return si.failLogin(w, r, v, l, http.StatusBadRequest, "invalid_response")
	}

	s, err := si.signIn(r, l, flow, answer.Code)
	switch {
	case errors.Is(err, errLoginSpent):
		return si.lateCallback(w, r, v, l)
	case errors.Is(err, errUserRefused):
		return si.failLogin(w, r, v, l, http.StatusForbidden, "access_denied")
	case err != nil:
		si.logger.Warn("sign-in failed", zap.Error(err))
		return si.failLogin(w, r, v, l, signInStatus(err), "server_error")
	}
	return si.finishLogin(w, r, v, l, s)
}

// maxLoggedIssuer limits the length of an issuer in the log, in bytes.
const maxLoggedIssuer = 256

// issuer logs that a callback named an issuer that is not the configured one: either the
// provider's issuer is on another host, or it is an attack (RFC 9207 section 4). An attacker
// can write anything into the callback's URL, so a value that does not have the form of an
// issuer is not logged, and the line is written once a minute, for a number of requests.
func (a *audit) issuer(issuer, expected string, requests int) {
	u, err := url.Parse(issuer)
	if err != nil || len(issuer) > maxLoggedIssuer || !origin.IsSecure(u) || u.User != nil || strings.ContainsAny(issuer, "?#") {
		issuer = "(not an issuer identifier)"
	}
	a.logger.Warn("the callback's iss differs from the configured issuer; if the provider is right, set `issuer` in the provider block",
		zap.String("iss", issuer), zap.String("expected", expected), zap.Int("requests", requests))
}

// lateCallback answers a callback whose login is over, or was not started by this browser.
// With a live session it redirects to the login's page. Otherwise it shows a page with a
// button that starts a new login, for the same page if that is known. It never starts a
// login by itself: that could loop.
func (si *signIns) lateCallback(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login) error {
	if err := si.sessions.find(r.Context(), v); err != nil || v.session == nil {
		return si.failLogin(w, r, v, l, http.StatusBadRequest, "invalid_state")
	}
	target := si.settings.afterLogin
	if l != nil {
		target = l.ReturnPath
	}
	return respond.Redirect(w, http.StatusSeeOther, target)
}

var (
	errLoginSpent  = errors.New("this login has already been finished")
	errUserRefused = errors.New("the provider does not call this user active")
)

// signIn exchanges the code, reads the user information, and saves a new session. If the
// same callback arrives twice at the same time, the code is spent once and both get the
// same session. A later callback gets errLoginSpent.
func (si *signIns) signIn(r *http.Request, l *browser.Login, flow, code string) (*session.Session, error) {
	return si.state.exchanges.Do(r.Context(), flow, func(ctx context.Context) (*session.Session, error) {
		if _, first := si.state.spent.SetIfAbsent(flow, struct{}{}); !first {
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
		return si.store.Create(ctx, session.NewSession(si.now(), t, info))
	})
}

// signInStatus gives the status for a failed sign-in: 400 if the provider does not accept
// the code any more, 502 if the provider's response is invalid, 503 if the provider or the
// store did not answer.
func signInStatus(err error) int {
	pe, ok := errors.AsType[*oauth.Error](err)
	switch {
	case ok && pe.Kind == oauth.FailureEnded:
		return http.StatusBadRequest
	case errors.Is(err, session.ErrTooLarge), ok && pe.Status != 0 && pe.Status < 500 && pe.Status != http.StatusTooManyRequests:
		return http.StatusBadGateway
	default:
		return http.StatusServiceUnavailable
	}
}

// finishLogin gives the browser its session and sends it on.
func (si *signIns) finishLogin(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login, s *session.Session) error {
	// The code is spent, so continue even if the browser has gone away.
	cookies, err := si.sessions.cookies(context.Background(), s, v.sent.HasSecond)
	if err != nil {
		si.logger.Error("cannot save the new session", zap.Error(err))
		return si.failLogin(w, r, v, l, signInStatus(err), "server_error")
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
	si.audit.event("login", r, s, zap.String("scope", s.Tokens.Scope))

	recent := browser.Recent{}
	if v.session == nil {
		recent = v.sent.Recent
	}
	recent = recent.Next(l.ReturnPath)
	w.Header().Add("Set-Cookie", si.settings.cookies.Recent(recent))
	loops := recent.IsLoop() && !l.Popup
	si.metrics.CountLogin(loginResult(loops))
	switch {
	case loops:
		si.logger.Warn("sign-in loop: the browser does not keep the session cookie",
			zap.String("cookie", si.settings.cookies.Name), zap.String("origin", si.settings.origin), zap.String("session", s.ID.Hash()))
		return si.responses.writePage(w, r, http.StatusBadRequest, pageError, pageData{returnTo: l.ReturnPath, cause: "login_loop"})
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
		si.logger.Error("cannot end the browser's previous session", zap.String("session", v.session.ID.Hash()), zap.Error(err))
	}
}

// failLogin answers a failed login: with the popup's page, a redirect to the application's
// own error path, or an error page with a button to start again.
func (si *signIns) failLogin(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login, status int, cause string) error {
	si.audit.event("login_failed", r, nil, zap.String("reason", cause), zap.Int("status", status))
	si.metrics.CountLogin(cause)
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
			pageData{home: returnTo, popup: web.PopupMessage{Nonce: l.Nonce, Error: cause}})
	case si.settings.errorPath != "" && !si.goesRound(w, v):
		return respond.Redirect(w, http.StatusSeeOther, withError(si.settings.errorPath, cause))
	case status == http.StatusForbidden:
		return si.responses.writePage(w, r, status, pageForbidden, pageData{})
	default:
		return si.responses.writePage(w, r, status, pageError, pageData{returnTo: returnTo, cause: cause})
	}
}

// withError adds the error code to the application's error path.
func withError(path, cause string) string {
	u, err := url.Parse(path)
	if err != nil {
		return path
	}
	query := u.Query()
	query.Set("error", cause)
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
