package tollgate

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/audit"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/placeholders"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/respond"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/web"
)

// endpoint is one row of the table of the gateway's own endpoints.
type endpoint struct {
	name string
	// methods are the methods that this row serves; nil is every method.
	methods []string
	serve   endpointFunc
}

type (
	endpointFunc func(h *Handler, w http.ResponseWriter, r *http.Request, v *visit) error
	// denyFunc answers a request that has no session.
	denyFunc func(rs *responses, w http.ResponseWriter, r *http.Request, v *visit) error
)

var (
	methodGet  = []string{http.MethodGet}
	methodRead = []string{http.MethodGet, http.MethodHead}
	methodPost = []string{http.MethodPost}
)

// endpoints is the table of all endpoints. `auth` and the paths below it exist only with
// forward_auth, and `jwks.json` exists only with assertion.
var endpoints = []endpoint{
	{"start", methodGet, func(h *Handler, w http.ResponseWriter, r *http.Request, v *visit) error {
		return h.signIns.start(w, r, v)
	}},
	{"callback", methodGet, func(h *Handler, w http.ResponseWriter, r *http.Request, v *visit) error {
		return h.signIns.callback(w, r, v)
	}},
	{"userinfo", methodRead, withSession((*responses).denyUserinfo, (*Handler).serveUserinfo)},
	{"refresh", methodPost, sameOriginOnly(withSession((*responses).denyScript, (*Handler).serveRefresh))},
	{"topup", methodRead, withSession((*responses).demandLogin, (*Handler).serveTopup)},
	{"logout", methodRead, (*Handler).serveLogoutPage},
	{"logout", methodPost, sameOriginOnly((*Handler).serveLogout)},
	{"auth", nil, func(h *Handler, w http.ResponseWriter, r *http.Request, v *visit) error {
		return h.authChecks.serve(w, r, v)
	}},
	{"jwks.json", methodRead, (*Handler).serveKeys},
	{"sdk.js", methodRead, (*Handler).serveSDK},
	{"health", methodRead, serveHealth},
	{"ready", methodRead, (*Handler).serveReady},
}

// endpointNames lists the names of the table, each once.
func endpointNames() (names []string) {
	for _, e := range endpoints {
		if !slices.Contains(names, e.name) {
			names = append(names, e.name)
		}
	}
	return names
}

// endpointFor finds the row for a request. It is nil if the endpoint does not serve the
// method; allowed then lists the methods that it serves.
func endpointFor(name, method string) (row *endpoint, allowed []string) {
	for i, e := range endpoints {
		if e.name != name {
			continue
		}
		if e.methods == nil || slices.Contains(e.methods, method) {
			return &endpoints[i], nil
		}
		allowed = append(allowed, e.methods...)
	}
	return nil, allowed
}

// serveEndpoint answers a request for one of the gateway's own endpoints. Such a request
// never reaches the upstream.
//
// It never returns the error of an endpoint: Caddy would log it with the URL, and the
// callback's URL holds the code and the state.
func (h *Handler) serveEndpoint(w http.ResponseWriter, r *http.Request, v *visit, name string) error {
	err := h.answerEndpoint(w, r, v, name)
	if err == nil {
		return nil
	}
	h.audit.Rarely(zap.ErrorLevel, "endpoint failed", name, append(audit.RequestFields(r), zap.String("endpoint", name), zap.Error(err))...)
	return respond.WriteProblem(w, r, respond.Problem{Title: "Something went wrong here", Status: http.StatusInternalServerError, Error: "server_error"})
}

func (h *Handler) answerEndpoint(w http.ResponseWriter, r *http.Request, v *visit, name string) error {
	placeholders.Set(placeholders.Of(r), nil)
	if name != "auth" { // that one decides about a request
		h.metrics.CountRequest(metrics.Endpoint)
	}
	if name == "start" || name == "callback" {
		recorder, began := caddyhttp.NewResponseRecorder(w, nil, nil), time.Now()
		w = recorder
		audit.Hide(r)
		defer func() { h.audit.Served(r, name, recorder.Status(), time.Since(began)) }()
	}
	row, allowed := endpointFor(name, r.Method)
	switch {
	case row != nil:
		return row.serve(h, w, r, v)
	case name == "start" && h.settings.forwarding.IsForwarded(r):
		return h.responses.denyScript(w, r, v) // a proxy in front forwards the client's method
	default:
		return respond.DenyMethod(w, r, strings.Join(allowed, ", "))
	}
}

// sameOriginOnly refuses requests from pages of another origin.
func sameOriginOnly(serve endpointFunc) endpointFunc {
	return func(h *Handler, w http.ResponseWriter, r *http.Request, v *visit) error {
		if !browser.IsSameOrigin(r, h.settings.origin) {
			return respond.WriteProblem(w, r, respond.Problem{Title: "Refused: the request comes from another origin", Status: http.StatusForbidden, Error: "cross_origin"})
		}
		return serve(h, w, r, v)
	}
}

// denyScript always answers 401, also to a browser navigation, because these endpoints have
// no page to return to.
func (rs *responses) denyScript(w http.ResponseWriter, r *http.Request, v *visit) error {
	rs.sessions.deleteDead(w, v)
	return respond.Unauthenticated(w, r, rs.settings.places.StartURL(rs.returnPathOf(r)))
}

// withSession serves an endpoint that needs a session, and denies requests without one.
// The response carries the session cookie if it was renewed.
func withSession(deny denyFunc, serve endpointFunc) endpointFunc {
	return func(h *Handler, w http.ResponseWriter, r *http.Request, v *visit) error {
		err := h.sessions.open(r.Context(), v)
		switch {
		case err != nil:
			return h.responses.writeUnavailable(w, r, v, h.responses.returnPathOf(r), h.audit.Fault(r.Context(), r, err))
		case v.session == nil:
			return deny(h.responses, w, r, v)
		}
		rw := &relay.Writer{
			ResponseWriterWrapper: relay.Wrap(w), Cookies: h.settings.cookies,
			Owner: &passing{handler: h, visit: v, request: r},
		}
		err = serve(h, rw, r, v)
		rw.Finish()
		return err
	}
}

// denyUserinfo answers that the caller is not signed in: with 204 if the query has
// optional=1, otherwise with 401. The 204 is for pages that only check whether a user is
// signed in: a browser would log a 401 as an error in its console.
func (rs *responses) denyUserinfo(w http.ResponseWriter, r *http.Request, v *visit) error {
	if queryOf(r).Get("optional") != "1" {
		rs.sessions.deleteDead(w, v)
		return respond.WriteChallenge(w, r, respond.Problem{Error: respond.NotAuthenticated, LoginURL: rs.settings.places.StartURL(rs.returnPathOf(r))})
	}
	rs.sessions.deleteDead(w, v)
	respond.SetOwnHeaders(w.Header())
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) serveUserinfo(w http.ResponseWriter, r *http.Request, v *visit) error {
	return h.serveUser(w, r, v, (*responses).denyUserinfo)
}

// serveUser sends the user information. deny answers if the session has ended.
func (h *Handler) serveUser(w http.ResponseWriter, r *http.Request, v *visit, deny denyFunc) error {
	id := h.tokens.identify(r.Context(), v.session, nil)
	if h.sessions.hasEnded(v) || id.Refused && h.tokens.needsSignIn(v.session) {
		return deny(h.responses, w, r, v)
	}
	if !h.decider.mayPass(id) {
		return h.responses.writeForbidden(w, r, v)
	}
	response := identity.Document{Identity: id, Expires: v.session.End(h.settings.lifetime, h.settings.idleTimeout)}
	if h.holds != nil {
		response.Extra = h.holds.Standing(r.Context(), v.session, id).Members()
	}
	if rw, ok := w.(*relay.Writer); ok {
		rw.BalanceIsLow = h.settings.isLow(id)
	}
	return respond.JSON(w, r, http.StatusOK, respond.TypeJSON, response)
}

// serveRefresh re-reads the user information, at most once a second per session. In between
// it answers with the cached user information.
func (h *Handler) serveRefresh(w http.ResponseWriter, r *http.Request, v *visit) error {
	if first := h.state.rereads.SetIfAbsent(v.session.ID, struct{}{}); first {
		err := h.tokens.users.Reread(audit.WithRequestID(r), v.session, h.tokens.userReader(v.session))
		v.dead = errors.Is(err, session.ErrEnded)
		switch {
		case v.dead, h.tokens.needsSignInAfter(err, v.session):
			return h.responses.denyScript(w, r, v)
		case err != nil:
			return h.responses.writeUnavailable(w, r, v, h.responses.returnPathOf(r), h.audit.Fault(r.Context(), r, err))
		}
	}
	return h.serveUser(w, r, v, (*responses).denyScript)
}

// serveLogoutPage asks before it signs out. To a user who is signed out it says so.
func (h *Handler) serveLogoutPage(w http.ResponseWriter, r *http.Request, v *visit) error {
	err := h.sessions.find(r.Context(), v)
	if err != nil {
		h.audit.Fault(r.Context(), r, err)
	} else if v.session == nil {
		h.sessions.deleteDead(w, v)
		return h.responses.writePage(w, r, http.StatusOK, pageSignedOut, pageData{})
	}
	return h.responses.writePage(w, r, http.StatusOK, pageLogout, pageData{visit: v})
}

// serveLogout ends the session and deletes all tollgate cookies. If the store does not
// answer, the session cannot be ended and the cookies stay: the user must not appear signed
// out while the session is live.
func (h *Handler) serveLogout(w http.ResponseWriter, r *http.Request, v *visit) error {
	err := h.sessions.find(r.Context(), v)
	if err == nil && v.session != nil {
		err = h.sessions.end(r.Context(), v.session, h.now())
	}
	if err != nil {
		page := h.settings.endpoints["logout"]
		return h.responses.writeRetry(w, r, pageData{visit: v, returnTo: page, home: page, cause: h.audit.Fault(r.Context(), r, err), ownForm: browser.IsForm(r)})
	}
	if v.session != nil {
		h.tokens.revoke(r.Context(), v.session)
		h.audit.Event(audit.Logout, r, v.session, "")
	}
	h.sessions.noteDisplaced(v)
	for _, cookie := range h.settings.cookies.RemoveAll(&v.sent) {
		w.Header().Add("Set-Cookie", cookie)
	}
	w.Header().Add("Set-Cookie", h.settings.cookies.SignedOut())
	// Otherwise the back button shows cached pages of the signed-in user.
	w.Header().Set("Clear-Site-Data", `"cache"`)
	switch query := queryOf(r); {
	case browser.WantsJSON(r):
		respond.SetOwnHeaders(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return nil
	case query.Has(switchQuery):
		// Not a redirect: form-action of the page would block the way to the provider.
		start := h.settings.places.StartURL(h.settings.places.ReturnPath(query.Get("return_to")))
		w.Header().Set("Refresh", "0;url="+start)
		return h.responses.writePage(w, r, http.StatusOK, pageContinue, pageData{home: start})
	case h.settings.afterLogout != "":
		return respond.Redirect(w, http.StatusSeeOther, h.settings.afterLogout)
	default:
		return respond.Redirect(w, http.StatusSeeOther, h.settings.endpoints["logout"])
	}
}

// assertions signs who the user is, for the upstream and for other proxies.
type assertions struct {
	// asserter is nil if there is no assertion block.
	asserter *identity.Asserter
	keys     *keys.Source
	settings *settings
	audit    *audit.Log
	now      func() time.Time
}

// sign returns the signed assertion of id. Returns "" if assertions are off or the
// assertion cannot be made: an upstream that requires one then refuses the request.
func (a *assertions) sign(ctx context.Context, id *identity.Identity) string {
	if a.asserter == nil {
		return ""
	}
	keys, err := a.keys.Ring(ctx)
	if err != nil {
		a.audit.Fault(ctx, nil, err)
		return ""
	}
	text, err := a.asserter.Assert(keys.Assertion, id, id.Session.End(a.settings.lifetime, 0), a.now())
	if err != nil {
		a.audit.Rarely(zap.ErrorLevel, "cannot sign the assertion; the request is forwarded without it", "", zap.String("session", id.Session.ID.Hash()), zap.Error(err))
		return ""
	}
	return text
}

// serveKeys responds with the public keys that verify assertions: first the key of the
// current secret, then the keys of previous secrets.
func (h *Handler) serveKeys(w http.ResponseWriter, r *http.Request, v *visit) error {
	keys, err := h.keys.Ring(r.Context())
	if err != nil {
		return h.responses.writeUnavailable(w, r, v, h.settings.endpoints["jwks.json"], h.audit.Fault(r.Context(), r, err))
	}
	return respond.JSON(w, r, http.StatusOK, respond.TypeJSON, keys.Assertion.Public)
}

func serveHealth(_ *Handler, w http.ResponseWriter, r *http.Request, _ *visit) error {
	return respond.JSON(w, r, http.StatusOK, respond.TypeJSON, map[string]string{"status": "ok"})
}

// serveReady answers whether the gateway can serve requests now: the store has to be ready.
func (h *Handler) serveReady(w http.ResponseWriter, r *http.Request, _ *visit) error {
	if err := h.store.Ready(r.Context()); err != nil {
		h.audit.StoreFailed("not ready: the session store does not answer", nil, err)
		w.Header().Set("Retry-After", strconv.Itoa(retrySeconds))
		return respond.WriteProblem(w, r, respond.Problem{Title: "The session store does not answer", Status: http.StatusServiceUnavailable, Error: "unavailable", Cause: cause.StoreUnavailable})
	}
	return respond.JSON(w, r, http.StatusOK, respond.TypeJSON, map[string]string{"status": "ok"})
}

// errorTopupFailed is the problem document's error if the provider gives no usable top-up URL.
const errorTopupFailed = "topup_failed"

// serveTopup redirects to the provider's top-up page, or gives its URL as JSON. The URL is
// checked against topup_hosts. The balance is re-read before its next use.
func (h *Handler) serveTopup(w http.ResponseWriter, r *http.Request, v *visit) error {
	if h.settings.client.TopupEndpoint == "" {
		return respond.WriteProblem(w, r, respond.Problem{Title: "There is no way to top up here", Status: http.StatusNotFound, Error: "no_topup"})
	}
	var location string
	err := h.tokens.withAccessToken(r.Context(), v.session, func(access string) (err error) {
		location, err = h.settings.client.TopupURL(r.Context(), access)
		return err
	})
	v.dead = errors.Is(err, session.ErrEnded)
	switch {
	case v.dead, h.tokens.needsSignInAfter(err, v.session):
		return h.responses.demandLogin(w, r, v)
	case err != nil:
		h.audit.TopupFailed(r, v.session, err)
		if isDefinite(err) {
			return h.responses.writeTopupFailed(w, r, cause.Of(err))
		}
		return h.responses.writeUnavailable(w, r, v, h.responses.returnPathOf(r), cause.Of(err))
	}
	h.tokens.users.AwaitMoney(v.session)
	if browser.WantsJSON(r) {
		return respond.JSON(w, r, http.StatusOK, respond.TypeJSON, map[string]string{"topup_url": location})
	}
	return respond.Redirect(w, http.StatusSeeOther, location)
}

// isDefinite reports whether a retry would get the same answer from the provider: it
// refused, or it answered 200 with an invalid body.
func isDefinite(err error) bool {
	pe, ok := errors.AsType[*oauth.Error](err)
	if !ok {
		return false
	}
	return pe.Status == http.StatusOK || pe.Kind == oauth.FailureRefused || pe.Kind == oauth.FailureUnauthorized
}

// writeTopupFailed answers that the provider gave no usable top-up URL. Its page links back
// to the site, because a sign-in would not help.
func (rs *responses) writeTopupFailed(w http.ResponseWriter, r *http.Request, code string) error {
	if !browser.IsNavigation(r) {
		return respond.WriteProblem(w, r, respond.Problem{Title: "The provider gave no top-up URL that can be used", Status: http.StatusBadGateway, Error: errorTopupFailed})
	}
	return rs.writePage(w, r, http.StatusBadGateway, pageError, pageData{cause: code, words: "topup", signedIn: true})
}

// newSDK creates the script that the application's pages load. It contains the paths of this
// site's endpoints.
func (s *settings) newSDK() (*web.SDK, error) {
	return web.NewSDK(web.Endpoints{
		Start:    s.endpoints["start"],
		Userinfo: s.endpoints["userinfo"],
		Refresh:  s.endpoints["refresh"],
		Topup:    s.topupURL(),
		Logout:   s.endpoints["logout"],
	})
}

// serveSDK serves the same bytes to every caller.
func (h *Handler) serveSDK(w http.ResponseWriter, r *http.Request, _ *visit) error {
	respond.SetOwnHeaders(w.Header())
	// Compressed by the script, because Caddy's encode may come later in the chain.
	h.sdk.Write(w, r.Method, slices.Contains(encode.AcceptedEncodings(r, []string{"gzip"}), "gzip"))
	return nil
}
