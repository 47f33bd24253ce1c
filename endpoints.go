package tollgate

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// endpointNames are the gateway's own endpoints. `auth` is there with forward_auth
// alone, and with everything below it; `jwks.json` with assertion alone.
var endpointNames = []string{"start", "callback", "userinfo", "refresh", "topup", "logout", "auth", "jwks.json", "sdk.js", "health", "ready"}

// serveEndpoint answers a request for one of the gateway's own endpoints. None of
// them ever reaches the upstream.
//
// None returns an error either: Caddy would log it with the URL, which holds the code and
// the state at the callback.
func (h *Handler) serveEndpoint(w http.ResponseWriter, r *http.Request, v *visit, name string) error {
	err := h.answerEndpoint(w, r, v, name)
	if err == nil {
		return nil
	}
	h.logger.Error("an endpoint failed", append(requestFields(r), zap.String("endpoint", name), zap.Error(err))...)
	return writeProblem(w, r, problem{Title: "Something went wrong here", Status: http.StatusInternalServerError, Error: "server_error"})
}

func (h *Handler) answerEndpoint(w http.ResponseWriter, r *http.Request, v *visit, name string) error {
	setPlaceholders(replacerOf(r), nil)
	if name == "start" || name == "callback" {
		h.logOwn(r, name)
	}
	isGet := r.Method == http.MethodGet
	isRead := isGet || r.Method == http.MethodHead
	isPost := r.Method == http.MethodPost
	switch {
	case name == "start" && isGet:
		return h.serveStart(w, r, v)
	case name == "start" && h.isForwarded(r):
		return h.denyScript(w, r, v) // a proxy in front passes whatever it got
	case name == "callback" && isGet:
		return h.serveCallback(w, r, v)
	case name == "userinfo" && isRead:
		return h.withSession(w, r, v, h.denyUserinfo, h.serveUserinfo)
	case name == "refresh" && isPost:
		return h.sameOriginOnly(w, r, v, h.serveRefresh)
	case name == "topup" && isRead:
		return h.withSession(w, r, v, h.demandLogin, h.serveTopup)
	case name == "logout" && isRead:
		return h.serveLogoutPage(w, r)
	case name == "logout" && isPost:
		return h.sameOriginOnly(w, r, v, h.serveLogout)
	case name == "auth":
		return h.serveAuth(w, r, v)
	case name == "jwks.json" && isRead:
		return h.serveKeys(w, r)
	case name == "sdk.js" && isRead:
		return h.serveSDK(w, r)
	case name == "health" && isRead:
		return writeJSON(w, r, http.StatusOK, typeJSON, map[string]string{"status": "ok"})
	case name == "ready" && isRead:
		return h.serveReady(w, r)
	}
	return denyMethod(w, r, allowedMethods[name])
}

var allowedMethods = map[string]string{
	"start":     "GET",
	"callback":  "GET",
	"userinfo":  "GET, HEAD",
	"refresh":   "POST",
	"topup":     "GET, HEAD",
	"logout":    "GET, HEAD, POST",
	"jwks.json": "GET, HEAD",
	"sdk.js":    "GET, HEAD",
	"health":    "GET, HEAD",
	"ready":     "GET, HEAD",
}

type endpointFunc func(w http.ResponseWriter, r *http.Request, v *visit) error

// sameOriginOnly refuses what another site's page has sent.
func (h *Handler) sameOriginOnly(w http.ResponseWriter, r *http.Request, v *visit, serve endpointFunc) error {
	if !browser.IsSameOrigin(r, h.origin) {
		return writeProblem(w, r, problem{Title: "Refused: the request comes from another origin", Status: http.StatusForbidden, Error: "cross_origin"})
	}
	return serve(w, r, v)
}

// denyScript answers 401 whoever asks: what stands behind it is no page.
func (h *Handler) denyScript(w http.ResponseWriter, r *http.Request, v *visit) error {
	h.deleteDead(w, v)
	return writeUnauthenticated(w, r, h.startURL(h.returnPathOf(r)))
}

// withSession serves an endpoint that needs a session, and denies it to who has none.
// The answer carries the session cookie where that was renewed.
func (h *Handler) withSession(w http.ResponseWriter, r *http.Request, v *visit, deny, serve endpointFunc) error {
	err := h.openSession(r.Context(), v)
	switch {
	case err != nil:
		h.logFault(r.Context(), err)
		return h.writeUnavailable(w, r, h.returnPathOf(r))
	case v.session == nil:
		return deny(w, r, v)
	}
	rw := &relay.Writer{
		ResponseWriterWrapper: relay.Wrap(w), Cookies: h.cookies,
		Owner: &passing{handler: h, visit: v, request: r},
	}
	err = serve(rw, r, v)
	rw.Finish()
	return err
}

// userinfoAnswer is what the userinfo and refresh endpoints say: the provider's own
// members, with the provider's own types, the balance with its age, and the
// session's times.
type userinfoAnswer struct {
	id      *identity.Identity
	expires time.Time
}

// MarshalJSON implements json.Marshaler.
func (a userinfoAnswer) MarshalJSON() ([]byte, error) {
	members := make(map[string]any, oauth.FieldCount+2)
	for f, name := range oauth.UserFieldJSON {
		members[name] = nil
		if raw := a.id.Info.Fields[f]; raw != "" {
			members[name] = json.RawMessage(raw)
		}
	}
	balance := map[string]any{"value": nil, "state": a.id.State, "age": int64(max(a.id.Age, 0) / time.Second)}
	if a.id.Told {
		balance["value"] = a.id.Text(identity.ValueBalance)
	}
	members["balance"] = balance
	members["session"] = map[string]int64{
		"issued_at":  a.id.Session.Created.Unix(),
		"expires_at": a.expires.Unix(),
	}
	return json.Marshal(members)
}

// denyUserinfo says that nobody is signed in: with 401, or with 204 to who asks whether
// somebody is. A browser writes every 401 into its console, and a page that just looks
// has done nothing wrong.
func (h *Handler) denyUserinfo(w http.ResponseWriter, r *http.Request, v *visit) error {
	if queryOf(r).Get("optional") != "1" {
		return h.denyScript(w, r, v)
	}
	h.deleteDead(w, v)
	writeOwnHeaders(w.Header())
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) serveUserinfo(w http.ResponseWriter, r *http.Request, v *visit) error {
	id := h.identify(r.Context(), v.session, nil)
	if h.hasEnded(v) || id.Refused && h.needsSignIn(v.session) {
		return h.denyUserinfo(w, r, v)
	}
	if !h.mayPass(id) {
		return h.writeForbidden(w, r)
	}
	return writeJSON(w, r, http.StatusOK, typeJSON,
		userinfoAnswer{id: id, expires: v.session.End(h.lifetime, h.idleTimeout)})
}

// serveRefresh re-reads the user information. A session that asks more than once a
// second is answered with what is known.
func (h *Handler) serveRefresh(w http.ResponseWriter, r *http.Request, v *visit) error {
	return h.withSession(w, r, v, h.denyScript, func(w http.ResponseWriter, r *http.Request, v *visit) error {
		if _, first := h.state.rereads.SetIfAbsent(v.session.ID, h.now()); first {
			err := h.users.Reread(r.Context(), v.session, h.userReader(v.session))
			v.dead = errors.Is(err, session.ErrEnded)
			switch {
			case v.dead, h.needsSignInAfter(err, v.session):
				return h.denyScript(w, r, v)
			case err != nil:
				return h.writeUnavailable(w, r, h.returnPathOf(r))
			}
		}
		return h.serveUserinfo(w, r, v)
	})
}

// signedOutQuery is what a logout adds to the logout page's address.
const signedOutQuery = "done"

func (h *Handler) serveLogoutPage(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Query().Has(signedOutQuery) {
		return h.writePage(w, r, http.StatusOK, pageSignedOut, pageData{})
	}
	return h.writePage(w, r, http.StatusOK, pageLogout, pageData{})
}

// serveLogout ends the session and clears every cookie of ours. While nobody can end
// it, because the store does not answer, the cookies stay: a session that is not over
// must not look like it.
func (h *Handler) serveLogout(w http.ResponseWriter, r *http.Request, v *visit) error {
	err := h.findSession(r.Context(), v)
	if err == nil && v.session != nil {
		err = h.endSession(r.Context(), v.session, h.now())
	}
	if err != nil {
		h.logFault(r.Context(), err)
		return h.writeUnavailable(w, r, h.endpoints["logout"])
	}
	if v.session != nil {
		h.revoke(v.session)
		h.audit("logout", r, v.session)
	}
	h.noteDisplaced(v)
	for _, name := range h.cookiesToClear(v) {
		w.Header().Add("Set-Cookie", h.cookies.Remove(name))
	}
	w.Header().Add("Set-Cookie", h.cookies.SignedOut())
	// Browsers keep pages to go back to as they were last seen.
	w.Header().Set("Clear-Site-Data", `"cache"`)
	switch {
	case browser.WantsJSON(r):
		writeOwnHeaders(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return nil
	case h.afterLogout != "":
		return redirect(w, http.StatusSeeOther, h.afterLogout)
	default:
		return redirect(w, http.StatusSeeOther, h.endpoints["logout"]+"?"+signedOutQuery)
	}
}

// endSession makes a session no session any more, here and in its store.
func (h *Handler) endSession(ctx context.Context, s *session.Session, from time.Time) error {
	if err := h.store.End(ctx, s, from); err != nil {
		return err
	}
	h.state.sessions.End(s, from)
	return nil
}

// revoke tells the provider, where it has an endpoint for that. Nobody waits for
// it, and the session is over whatever comes of it.
func (h *Handler) revoke(s *session.Session) {
	if h.client.RevocationEndpoint == "" || !s.Tokens.Refreshable() {
		return
	}
	go func() { // ends with the request's own timeout
		if err := h.client.Revoke(context.Background(), s.Tokens.Refresh); err != nil {
			h.logger.Warn("a refresh token could not be revoked", zap.String("session", s.ID.Hash()), zap.Error(err))
		}
	}()
}

func (h *Handler) cookiesToClear(v *visit) []string {
	names := []string{h.cookies.Name}
	if v.sent.HasSecond {
		names = append(names, h.cookies.Name+browser.SecondChunk)
	}
	if v.sent.Recent.Count > 0 {
		names = append(names, h.cookies.RecentName())
	}
	for _, cookie := range v.sent.Logins[:min(len(v.sent.Logins), browser.MaxRemovals)] {
		names = append(names, cookie.Name)
	}
	return names
}

// serveReady says whether the gateway could serve a request now.
func (h *Handler) serveReady(w http.ResponseWriter, r *http.Request) error {
	if err := h.store.Ready(r.Context()); err != nil {
		h.logger.Error("not ready", zap.Error(err))
		w.Header().Set("Retry-After", strconv.Itoa(retrySeconds))
		return writeProblem(w, r, problem{Title: "The session store does not answer", Status: http.StatusServiceUnavailable, Error: "unavailable"})
	}
	return writeJSON(w, r, http.StatusOK, typeJSON, map[string]string{"status": "ok"})
}
