package tollgate

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/web"
)

// logins keeps the pending logins of the browsers.
type logins struct {
	settings *settings
	state    *shared
	keys     *keys.Source
	now      func() time.Time
	logger   *zap.Logger
}

// serveStart redirects the browser to the provider. A cookie binds the state to this
// browser. Only a top-level navigation may start a login: otherwise images or scripts
// could fill the browser with pending logins.
func (h *Handler) serveStart(w http.ResponseWriter, r *http.Request, v *visit) error {
	if !browser.IsNavigation(r) {
		return h.responses.denyScript(w, r, v)
	}
	if location, ok := h.logins.toExternalHost(r); ok {
		return redirect(w, http.StatusFound, location)
	}
	keys, err := h.readyForLogin(r.Context())
	if err != nil {
		h.logger.Error("cannot start sign-in: session store or secret unavailable", zap.Error(err))
		return h.responses.writeSignInUnavailable(w, r)
	}
	query := queryOf(r)
	returnTo := query.Get("return_to")
	if asked, forwarded := h.forwardedPage(r); forwarded && !query.Has("return_to") {
		returnTo = asked
	}
	now := h.now()
	l := browser.NewLogin(h.responses.returnPath(returnTo), query.Get("popup") == "1", "", now)
	if nonce := query.Get("nonce"); browser.IsNonce(nonce) {
		l.Nonce = nonce
	}
	sealed, err := h.logins.seal(w, keys, v, l)
	if err != nil {
		return err
	}
	w.Header().Add("Set-Cookie", h.settings.cookies.Login(browser.FlowOf(l.State), sealed))
	return redirect(w, http.StatusFound, h.settings.client.AuthorizationURL(l.State, l.Verifier, v.sent.SignedOut))
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
	answer, cause := parseCallback(queryOf(r))
	if cause != "" {
		return h.failLogin(w, r, v, nil, http.StatusBadRequest, cause)
	}
	keys, err := h.readyForLogin(r.Context())
	if err != nil {
		h.logger.Error("cannot finish sign-in: session store or secret unavailable", zap.Error(err))
		return h.responses.writeSignInUnavailable(w, r) // its page retries this URL: the code is not spent yet
	}
	flow := browser.FlowOf(answer.state)
	l := h.logins.find(keys, v, flow, answer.state)
	if l == nil {
		return h.goneCallback(w, r, v, flow, answer)
	}
	w.Header().Add("Set-Cookie", h.settings.cookies.Remove(h.settings.cookies.LoginName(flow)))
	if l.Expired(h.now()) {
		return h.lateCallback(w, r, v, l)
	}
	if answer.errorCode != "" {
		return h.failLogin(w, r, v, l, http.StatusBadRequest, authorizationErrorCode(answer.errorCode))
	}
	if !h.settings.client.IsIssuer(answer.issuer) {
		h.audit.issuer(answer.issuer, h.settings.client.Issuer)
		return h.failLogin(w, r, v, l, http.StatusBadRequest, "invalid_response")
	}

	s, err := h.signIn(r, l, flow, answer.code)
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

// callbackAnswer holds the callback's parameters.
type callbackAnswer struct {
	state, code, errorCode, issuer string
}

// parseCallback reads the callback's parameters. Other parameters are ignored. A parameter
// that occurs twice is refused, because two readers could take different values
// (RFC 6749 section 3.1).
func parseCallback(query url.Values) (answer callbackAnswer, cause string) {
	for _, name := range []string{"state", "code", "error", "iss"} {
		if len(query[name]) > 1 {
			return callbackAnswer{}, "invalid_state"
		}
	}
	answer = callbackAnswer{query.Get("state"), query.Get("code"), query.Get("error"), query.Get("iss")}
	if answer.errorCode == "" && (answer.code == "" || answer.state == "") {
		return callbackAnswer{}, "missing_parameters"
	}
	return answer, ""
}

// authorizationErrorCodes are the error codes of RFC 6749 section 4.1.2.1. Any other value
// may have been put into the URL by an attacker, so it is replaced by server_error.
var authorizationErrorCodes = map[string]bool{
	"invalid_request": true, "unauthorized_client": true, "access_denied": true, "unsupported_response_type": true,
	"invalid_scope": true, "server_error": true, "temporarily_unavailable": true,
}

func authorizationErrorCode(code string) string {
	if authorizationErrorCodes[code] {
		return code
	}
	return "server_error"
}

// maxLoggedIssuer limits the length of an issuer in the log, in bytes.
const maxLoggedIssuer = 256

// issuer logs that a callback named an issuer that is not the configured one: either the
// provider's issuer is on another host, or it is an attack (RFC 9207 section 4). An attacker
// can write anything into the callback's URL, so a value that does not have the form of an
// issuer is not logged.
func (a *audit) issuer(issuer, expected string) {
	u, err := url.Parse(issuer)
	if err != nil || len(issuer) > maxLoggedIssuer || !origin.IsSecure(u) || u.User != nil || strings.ContainsAny(issuer, "?#") {
		issuer = "(not an issuer identifier)"
	}
	a.logger.Warn("the callback's iss differs from the configured issuer; if the provider is right, set `issuer` in the provider block",
		zap.String("iss", issuer), zap.String("expected", expected))
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
	return redirect(w, http.StatusSeeOther, target)
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
	h.logins.trim(w, r, v, l, cookies)
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
	switch {
	case recent.IsLoop() && !l.Popup:
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
		return redirect(w, http.StatusSeeOther, l.ReturnPath)
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
		return redirect(w, http.StatusSeeOther, withError(h.settings.errorPath, cause))
	case status == http.StatusForbidden:
		return h.responses.writePage(w, r, status, pageForbidden, pageData{})
	default:
		return h.responses.writePage(w, r, status, pageError, pageData{returnTo: returnTo, cause: cause})
	}
}

// goesRound counts a failed sign-in that leads to error_redirect. It reports whether the
// browser is in a loop: the page at error_redirect may start the next sign-in by itself.
func (lg *logins) goesRound(w http.ResponseWriter, v *visit) bool {
	recent := v.sent.Recent.Next("failed " + lg.settings.errorPath)
	w.Header().Add("Set-Cookie", lg.settings.cookies.Recent(recent))
	if !recent.IsLoop() {
		return false
	}
	lg.logger.Warn("sign-in loop: sign-ins fail, and the page at error_redirect starts the next one", zap.String("error_redirect", lg.settings.errorPath))
	return true
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

// queryOf reads the query that the client sent, also if an earlier directive has rewritten
// the URL.
func queryOf(r *http.Request) url.Values {
	return originalURL(r).Query()
}

func replacerOf(r *http.Request) *caddy.Replacer {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl
}

// externalHostQuery marks the URL of `start` after a redirect from another host. It limits
// such redirects to one: behind a proxy that rewrites Host, every request seems to be for
// another host.
const externalHostQuery = "at_origin"

// toExternalHost gives the URL of `start` at the external origin. ok is false if the request
// is for that host already. The login cookie belongs to the host that sets it, and the
// callback arrives at the host of redirect_uri.
func (lg *logins) toExternalHost(r *http.Request) (location string, ok bool) {
	query := queryOf(r)
	host := browserHost(r)
	if lg.settings.endpoints["auth"] != "" || query.Has(externalHostQuery) || isSameHost(host, lg.settings.origin) {
		return "", false
	}
	if lg.state.otherHosts.isNew(host) {
		lg.logger.Warn("a sign-in started at another host than redirect_uri's; the browser was redirected there first; "+
			"open the site under redirect_uri's host, or let the proxy in front keep the Host header",
			zap.String("host", host), zap.String("redirect_uri_host", hostOfOrigin(lg.settings.origin)))
	}
	query.Set(externalHostQuery, "1")
	return lg.settings.origin + lg.settings.endpoints["start"] + "?" + query.Encode(), true
}

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

// isSameHost reports whether a Host header names the host of an origin. A Host header
// without a port counts as the origin's port: many proxies leave it out.
func isSameHost(host, origin string) bool {
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	name, port := splitHost(host)
	if port != "" && port != portOf(u) {
		return false
	}
	return hostKey(name) == hostKey(u.Hostname())
}

func hostOfOrigin(origin string) string {
	_, host, _ := strings.Cut(origin, "://")
	return host
}

// splitHost splits a Host header. port is empty if there is none.
func splitHost(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return name, port
	}
	return strings.Trim(host, "[]"), ""
}

// portOf gives the port of a URL, or else the default port of its scheme.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// hostKey gives a host in canonical form: in lower case, without a dot at its end, an IP
// address in its canonical notation.
func hostKey(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if canonical, err := origin.CanonicalHost(name); err == nil {
		return canonical
	}
	return name // no browser sends such a host
}

// otherHosts remembers the hosts that have been logged, so that each is logged once. Clients
// choose the hosts, so their number and length are limited.
type otherHosts struct {
	mu    sync.Mutex // guards hosts
	hosts map[string]struct{}
}

const (
	maxOtherHosts = 10
	maxHostLength = 253
)

func (o *otherHosts) isNew(host string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.hosts[host]; known || len(o.hosts) >= maxOtherHosts || len(host) > maxHostLength {
		return false
	}
	if o.hosts == nil {
		o.hosts = make(map[string]struct{})
	}
	o.hosts[host] = struct{}{}
	return true
}
