package tollgate

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/respond"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/web"
)

// serveStart redirects the browser to the provider. A cookie binds the state to this
// browser. Only a top-level navigation may start a login: otherwise images or scripts
// could fill the browser with pending logins.
func (h *Handler) serveStart(w http.ResponseWriter, r *http.Request, v *visit) error {
	if !browser.IsNavigation(r) {
		return h.responses.denyScript(w, r, v)
	}
	if location, ok := h.logins.toExternalHost(r); ok {
		return respond.Redirect(w, http.StatusFound, location)
	}
	keys, err := h.readyForLogin(r.Context())
	if err != nil {
		h.logger.Error("cannot start sign-in: session store or secret unavailable", zap.Error(err))
		h.metrics.CountLogin(resultUnavailable)
		return h.responses.writeSignInUnavailable(w, r)
	}
	query := queryOf(r)
	returnTo := query.Get("return_to")
	if asked, forwarded := h.settings.forwarding.Page(r); forwarded && !query.Has("return_to") {
		returnTo = asked
	}
	now := h.now()
	l := browser.NewLogin(h.responses.returnPath(returnTo), query.Get("popup") == "1", "", now)
	if nonce := query.Get("nonce"); browser.IsNonce(nonce) {
		l.Nonce = nonce
	}
	sealed, err := h.logins.Seal(w, keys.Login, &v.sent, l)
	if err != nil {
		return err
	}
	w.Header().Add("Set-Cookie", h.settings.cookies.Login(browser.FlowOf(l.State), sealed))
	return respond.Redirect(w, http.StatusFound, h.settings.client.AuthorizationURL(l.State, l.Verifier, v.sent.SignedOut))
}

// readyForLogin gives the keys if a new session could be saved now. Otherwise a user would
// sign in at the provider for nothing, and a code would be spent for nothing.
func (h *Handler) readyForLogin(ctx context.Context) (*keys.Ring, error) {
	if err := h.store.Ready(ctx); err != nil {
		return nil, err
	}
	return h.keys.Ring(ctx)
}

// serveCallback finishes a login. It checks, in this order: the parameters, the login
// cookie, the state, the provider's error, the issuer, the code. The code is not spent
// before all other checks have passed (RFC 9700 section 4.7.1).
func (h *Handler) serveCallback(w http.ResponseWriter, r *http.Request, v *visit) error {
	answer, cause := oauth.ParseCallback(queryOf(r))
	if cause != "" {
		return h.failLogin(w, r, v, nil, http.StatusBadRequest, cause)
	}
	keys, err := h.readyForLogin(r.Context())
	if err != nil {
		h.logger.Error("cannot finish sign-in: session store or secret unavailable", zap.Error(err))
		h.metrics.CountLogin(resultUnavailable)
		return h.responses.writeSignInUnavailable(w, r) // its page retries this URL: the code is not spent yet
	}
	flow := browser.FlowOf(answer.State)
	l := h.logins.Find(keys.Login, &v.sent, flow, answer.State)
	if l == nil {
		return h.goneCallback(w, r, v, flow, answer)
	}
	w.Header().Add("Set-Cookie", h.settings.cookies.Remove(h.settings.cookies.LoginName(flow)))
	if l.Expired(h.now()) {
		return h.lateCallback(w, r, v, l)
	}
	if answer.ErrorCode != "" {
		return h.failLogin(w, r, v, l, http.StatusBadRequest, oauth.AuthorizationErrorCode(answer.ErrorCode))
	}
	if !h.settings.client.IsIssuer(answer.Issuer) {
		if requests, due := h.state.foreignIssuers.Next(h.now()); due {
			h.audit.issuer(answer.Issuer, h.settings.client.Issuer, requests)
		}
		return h.failLogin(w, r, v, l, http.StatusBadRequest, "invalid_response")
	}

	s, err := h.signIn(r, l, flow, answer.Code)
	switch {
	case errors.Is(err, errLoginSpent):
		return h.lateCallback(w, r, v, l)
	case errors.Is(err, errUserRefused):
		return h.failLogin(w, r, v, l, http.StatusForbidden, "access_denied")
	case err != nil:
		h.logger.Warn("sign-in failed", zap.Error(err))
		return h.failLogin(w, r, v, l, signInStatus(err), "server_error")
	}
	return h.finishLogin(w, r, v, l, s)
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
func (h *Handler) lateCallback(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login) error {
	if err := h.sessions.find(r.Context(), v); err != nil || v.session == nil {
		return h.failLogin(w, r, v, l, http.StatusBadRequest, "invalid_state")
	}
	target := h.settings.afterLogin
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
func (h *Handler) signIn(r *http.Request, l *browser.Login, flow, code string) (*session.Session, error) {
	return h.state.exchanges.Do(r.Context(), flow, func(ctx context.Context) (*session.Session, error) {
		if _, first := h.state.spent.SetIfAbsent(flow, struct{}{}); !first {
			return nil, errLoginSpent
		}
		h.state.destinations.Remember(flow, browser.DestinationOf(l))
		t, err := h.settings.client.Exchange(ctx, code, l.Verifier)
		if err != nil {
			return nil, err
		}
		info, err := h.settings.client.UserInfo(ctx, t.Access)
		if err != nil {
			return nil, err
		}
		if !info.IsActive(h.settings.activeStatus, h.settings.statusMissingOK) {
			return nil, errUserRefused
		}
		return h.store.Create(ctx, session.NewSession(h.now(), t, info))
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
func (h *Handler) finishLogin(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login, s *session.Session) error {
	// The code is spent, so continue even if the browser has gone away.
	cookies, err := h.sessions.cookies(context.Background(), s, v.sent.HasSecond)
	if err != nil {
		h.logger.Error("cannot save the new session", zap.Error(err))
		return h.failLogin(w, r, v, l, signInStatus(err), "server_error")
	}
	h.replaceSession(r, v, s)
	h.sessions.noteDisplaced(v)
	for _, cookie := range cookies {
		w.Header().Add("Set-Cookie", cookie)
	}
	if ring, err := h.keys.Ring(r.Context()); err == nil { // otherwise the next sign-in makes room
		h.logins.Trim(w, ring.Login, &v.sent, l, cookies)
	}
	if v.sent.SignedOut {
		w.Header().Add("Set-Cookie", h.settings.cookies.Remove(h.settings.cookies.SignedOutName()))
	}
	h.audit.event("login", r, s, zap.String("scope", s.Tokens.Scope))

	recent := browser.Recent{}
	if v.session == nil {
		recent = v.sent.Recent
	}
	recent = recent.Next(l.ReturnPath)
	w.Header().Add("Set-Cookie", h.settings.cookies.Recent(recent))
	loops := recent.IsLoop() && !l.Popup
	h.metrics.CountLogin(loginResult(loops))
	switch {
	case loops:
		h.logger.Warn("sign-in loop: the browser does not keep the session cookie",
			zap.String("cookie", h.settings.cookies.Name), zap.String("origin", h.settings.origin), zap.String("session", s.ID.Hash()))
		return h.responses.writePage(w, r, http.StatusBadRequest, pageError, pageData{returnTo: l.ReturnPath, cause: "login_loop"})
	case l.Popup:
		return h.responses.writePage(w, r, http.StatusOK, pagePopup,
			pageData{home: l.ReturnPath, popup: web.PopupMessage{OK: true, Nonce: l.Nonce}})
	case h.settings.cookies.SameSite == http.SameSiteStrictMode:
		// After a redirect from the provider, a browser does not send a Strict cookie, and
		// tollgate would demand a login again. So a page of ours leads on instead.
		w.Header().Set("Refresh", "0;url="+l.ReturnPath)
		return h.responses.writePage(w, r, http.StatusOK, pageContinue, pageData{home: l.ReturnPath})
	default:
		return respond.Redirect(w, http.StatusSeeOther, l.ReturnPath)
	}
}

// replaceSession ends the previous session of this browser. If it belonged to the same
// user, it ends after a grace period, so that requests in other tabs can finish.
func (h *Handler) replaceSession(r *http.Request, v *visit, s *session.Session) {
	if err := h.sessions.find(r.Context(), v); err != nil || v.session == nil || v.session.ID == s.ID {
		return
	}
	from := h.now()
	if v.session.User.ID() == s.User.ID() {
		from = from.Add(session.EndGrace)
	}
	if err := h.sessions.end(r.Context(), v.session, from); err != nil {
		h.logger.Error("cannot end the browser's previous session", zap.String("session", v.session.ID.Hash()), zap.Error(err))
	}
}

// failLogin answers a failed login: with the popup's page, a redirect to the application's
// own error path, or an error page with a button to start again.
func (h *Handler) failLogin(w http.ResponseWriter, r *http.Request, v *visit, l *browser.Login, status int, cause string) error {
	h.audit.event("login_failed", r, nil, zap.String("reason", cause), zap.Int("status", status))
	h.metrics.CountLogin(cause)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(retrySeconds))
	}
	returnTo := ""
	if l != nil {
		returnTo = l.ReturnPath
	}
	switch {
	case l != nil && l.Popup:
		return h.responses.writePage(w, r, status, pagePopup,
			pageData{home: returnTo, popup: web.PopupMessage{Nonce: l.Nonce, Error: cause}})
	case h.settings.errorPath != "" && !h.logins.goesRound(w, v):
		return respond.Redirect(w, http.StatusSeeOther, withError(h.settings.errorPath, cause))
	case status == http.StatusForbidden:
		return h.responses.writePage(w, r, status, pageForbidden, pageData{})
	default:
		return h.responses.writePage(w, r, status, pageError, pageData{returnTo: returnTo, cause: cause})
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
