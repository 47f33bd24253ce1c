package tollgate

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// visit is one request on its way through the hall: what the browser sent, and the
// session that it stands for.
type visit struct {
	sent browser.Sent
	// session is the newest generation of the session, or nil when there is none.
	session *session.Session
	// carried is the generation that the browser holds.
	carried uint64
	// version is that of the renewals from which session was taken.
	version uint64
	// dormant: the provider refuses to refresh the session's tokens, and they have ended.
	// The visit has no session then, and the session is kept: a refresh that works again
	// revives it.
	dormant bool
	// rewrite asks for a new cookie, whatever else: the secret or the store has changed.
	rewrite bool
	// dead: the browser holds the cookie of a session of this site that has ended.
	dead bool
	// deletions are the Set-Cookie values that delete it, once they are made.
	deletions []string
	// short is what the session's user lacks, where that is money.
	short *account.Shortfall
	// streaming: it is a look at a session with open streams. These are use of it, so
	// that no idle timeout ends it, and a balance counts that is not older than the look
	// before.
	streaming bool
}

// ServeHTTP implements caddyhttp.MiddlewareHandler. A request walks through it in
// one direction: target, strip, route, session, renew, rules, identity.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if judged := h.checkTarget(r); judged != policy.TargetOK {
		return h.refuseTarget(w, r, judged)
	}
	h.firstRequest.Do(func() { h.warnIfUnreachable(r) })
	h.identity.Strip(r)
	v := &visit{sent: h.cookies.Take(r.Header)}

	name, unambiguous := h.routes.Endpoint(originalURL(r))
	switch {
	case !unambiguous && name == "auth":
		return h.writeAuth(r.Context(), w, r, v, verdictLogin, nil)
	case !unambiguous:
		h.logOwn(r, "ambiguous") // it may be the callback's
		return writeBadRequest(w, r)
	}
	if name != "" {
		return h.serveEndpoint(w, r, v, name)
	}
	demand, unambiguous := h.routes.Demand(originalURL(r), r)
	if !unambiguous {
		return writeBadRequest(w, r)
	}
	if h.leavesOut(r) {
		demand.Access = policy.AccessPublic
		stripFolded(r.Header, methodOverrides)
	}

	decided, id := h.decide(r.Context(), r, v, demand)
	if id != nil && isForeignWebSocket(r, h.origin) {
		if demand.Access != policy.AccessOptional {
			return writeProblem(w, r, problem{Title: "Refused: the WebSocket is opened by a page of another origin", Status: http.StatusForbidden, Error: "cross_origin"})
		}
		id = nil
	}
	switch decided {
	case verdictPass:
		return h.pass(w, r, v, demand, id, next)
	case verdictLogin:
		return h.demandLogin(w, r, v)
	case verdictRefused:
		return h.writeForbidden(w, r)
	case verdictLacking:
		return h.writeLacking(w, r, v.short)
	default:
		return h.writeUnavailable(w, r, h.returnPathOf(r))
	}
}

// checkTarget judges what a request asks for. It comes before everything else, on
// every path.
func (h *Handler) checkTarget(r *http.Request) policy.Target {
	original := originalURL(r)
	judged := policy.JudgeTarget(r.Method, policy.IsWebSocketConnect(r), original, r.URL)
	if judged == policy.TargetOK {
		policy.FillPath(original)
		policy.FillPath(r.URL)
	}
	return judged
}

// refuseTarget answers a request whose method or target is refused. The target may
// hold a code and a state, so it stays out of the access log.
func (h *Handler) refuseTarget(w http.ResponseWriter, r *http.Request, judged policy.Target) error {
	setPlaceholders(replacerOf(r), nil)
	h.logOwn(r, "none")
	if policy.IsConnect(r.Method) && r.ProtoMajor == 1 {
		// What follows on the connection was meant for the tunnel.
		w.Header().Set("Connection", "close")
	}
	if judged == policy.TargetMethod {
		return denyMethod(w, r, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	return writeProblem(w, r, problem{Title: "The request target has no path", Status: http.StatusBadRequest, Error: "bad_request"})
}

// verdict is what becomes of a request.
type verdict int

const (
	// verdictUnavailable: nobody can tell now.
	verdictUnavailable verdict = iota
	// verdictPass: with the identity, or as anonymous.
	verdictPass
	// verdictLogin: it needs a session and has none.
	verdictLogin
	// verdictRefused: this user may not.
	verdictRefused
	// verdictLacking: this user may, with more money.
	verdictLacking
)

// decide says what becomes of a request, and with which identity it passes: none is
// an anonymous one. It is the one place for that, whether we stand in front of the
// upstream or another proxy does, which asks.
func (h *Handler) decide(ctx context.Context, r *http.Request, v *visit, asked policy.Demand) (verdict, *identity.Identity) {
	access := asked.Access
	if access == policy.AccessPublic {
		return verdictPass, nil
	}
	err := h.openSession(ctx, v)
	switch {
	case access == policy.AccessOptional && (err != nil || v.session == nil):
		return verdictPass, nil
	case err != nil:
		h.logFault(ctx, err)
		return verdictUnavailable, nil
	case v.session == nil:
		return verdictLogin, nil
	}

	decided, id, reason := h.judge(ctx, v, asked.Blocks)
	switch {
	case access == policy.AccessOptional && decided != verdictPass:
		return verdictPass, nil
	case reason != "":
		h.audit("denied", r, v.session, zap.String("reason", reason))
	}
	return decided, id
}

// judge says whether who is signed in may pass where these require blocks apply, as
// whom, and otherwise why not.
func (h *Handler) judge(ctx context.Context, v *visit, which policy.Blocks) (decided verdict, id *identity.Identity, reason string) {
	rules := h.rules.Among(which)
	need := rules.Need(h.passUnknown)
	if need != nil && v.streaming {
		need.AmpleAge = h.recheckInterval() / 2
	}
	id = h.identify(ctx, v.session, need)
	ended, reason := h.hasEnded(v), h.refusal(id, rules)
	switch {
	case ended, id.Refused && h.needsSignIn(v.session):
		return verdictLogin, nil, ""
	case reason != "":
		return verdictRefused, nil, reason
	case need.Meet(id.View) == account.Lacking:
		v.short = need.Shortfall(id.View)
		return verdictLacking, nil, "balance"
	}
	return verdictPass, id, ""
}

// refusal gives the reason why this user may not pass, with any balance, or nothing.
func (h *Handler) refusal(id *identity.Identity, rules policy.Rules) (reason string) {
	if !h.mayPass(id) {
		return "status"
	}
	return rules.Refuse(id.Info)
}

// findSession finds the session of a visit, as new as this process knows it. No
// session is no error; an error means that nobody can tell now.
func (h *Handler) findSession(ctx context.Context, v *visit) error {
	value, ok := v.sent.SessionValue()
	if !ok {
		if v.sent.Duplicate {
			h.logger.Warn("two session cookies of one name: a sibling domain may have planted one", zap.String("cookie", h.cookies.Name))
		}
		return nil
	}
	found, err := h.store.Load(ctx, value)
	if err != nil {
		return err
	}
	v.dead = found.Ours // until it turns out to live
	if found.Session == nil {
		return nil
	}
	s := found.Session
	v.version = h.state.sessions.Version.Load()
	newest, live := h.state.sessions.Latest(s)
	if !live {
		return nil
	}
	if h.tickets != nil && newest.Generation > s.Generation {
		h.state.renewals.Restore(newest, s, h.renewal(s))
	}
	if s.LastSeen.After(newest.LastSeen) {
		newest = newest.Seen(s.LastSeen)
	}
	idle := h.idleTimeout
	if v.streaming {
		idle = 0
	}
	if !h.now().Before(newest.End(h.lifetime, idle)) {
		return nil
	}
	v.session, v.carried, v.rewrite, v.dead = newest, s.Generation, found.Rewrite, false
	return nil
}

// OpenSession finds the session of a visit, and has its tokens renewed when that
// is due.
func (h *Handler) openSession(ctx context.Context, v *visit) error {
	if err := h.findSession(ctx, v); err != nil || v.session == nil {
		return err
	}
	renewed, err := h.renewWhenDue(ctx, v.session, h.now())
	if err == nil && h.tickets != nil && renewed.IsUnconfirmed() {
		renewed, err = h.confirm(ctx, renewed)
	}
	v.session = renewed
	switch {
	case errors.Is(err, session.ErrEnded):
		v.dead = true
		return nil
	case oauth.IsRefusedRefresh(err):
		v.session, v.dormant = nil, true
		return nil
	}
	return err
}

// renewWhenDue refreshes the tokens of a session ahead of their end. While they are
// valid nobody waits for that; afterwards everybody waits for the same refresh.
func (h *Handler) renewWhenDue(ctx context.Context, s *session.Session, now time.Time) (*session.Session, error) {
	valid := s.Tokens.Valid(now)
	switch {
	case !s.Tokens.Refreshable():
		if !valid {
			return nil, session.ErrEnded
		}
	case !valid:
		return h.state.renewals.Wait(ctx, s, h.renewal(s))
	case !now.Before(s.RefreshAt(h.refreshBefore)):
		h.state.renewals.Start(s, h.renewal(s))
	}
	return s, nil
}

// renewal says how the tokens of s are renewed, and writes down how it went.
func (h *Handler) renewal(s *session.Session) renewal.How {
	return renewal.How{
		Spend: func(ctx context.Context, old oauth.Tokens) (oauth.Tokens, error) {
			renewed, err := h.client.Refresh(ctx, old)
			h.logRefresh(s, err)
			return renewed, err
		},
		Store:    h.tickets,
		Patience: h.client.Timeout + renewal.LeaseMargin,
		Lease:    h.lease,
		Unsaved: func(err error) {
			h.logger.Error("what came of a refresh cannot be written down yet; it is kept in memory, and written as soon as the store takes it",
				zap.String("session", s.ID.Hash()), zap.Error(err))
		},
		Abandoned: h.revoke,
	}
}

// identify gives who the session's user is, with what the provider said last. Where a
// need is about to decide, that is read anew.
func (h *Handler) identify(ctx context.Context, s *session.Session, need *account.Need) *identity.Identity {
	view := h.users.Current(ctx, s, h.now(), h.ages, need, h.userReader(s))
	return &identity.Identity{Session: s, View: view}
}

// mayPass reports whether the provider calls the user active, or did so last.
func (h *Handler) mayPass(id *identity.Identity) bool {
	return !id.Refused && id.Info.IsActive(h.activeStatus, h.statusMissingOK)
}

// hasEnded reports whether the session ended while its user was asked for.
func (h *Handler) hasEnded(v *visit) bool {
	if v.version == h.state.sessions.Version.Load() {
		return false
	}
	_, live := h.state.sessions.Latest(v.session)
	v.dead = !live || h.state.endedNames.Has(v.session.ID.Hash(), h.now())
	return v.dead
}

// needsSignIn reports whether only a new sign-in can give a session an access token that
// the provider accepts: there is no refresh token, or it is refused.
func (h *Handler) needsSignIn(s *session.Session) bool {
	return !s.Tokens.Refreshable() || h.state.renewals.IsRefused(s)
}

// needsSignInAfter reports the same of a session in whose name the provider was asked
// something, in vain.
func (h *Handler) needsSignInAfter(err error, s *session.Session) bool {
	// The answer may be about another session of the same user: reads are shared.
	return (oauth.IsRefusedRefresh(err) || oauth.FailureOf(err) == oauth.FailureUnauthorized) && h.needsSignIn(s)
}

// userReader reads the user information with the session's access token. If the
// provider does not accept that, the token is refreshed once and the question
// repeated once.
func (h *Handler) userReader(s *session.Session) account.ReadFunc {
	return func(ctx context.Context) (oauth.UserInfo, error) {
		var info oauth.UserInfo
		err := h.withAccessToken(ctx, s, func(access string) (err error) {
			info, err = h.client.UserInfo(ctx, access)
			return err
		})
		if err != nil {
			h.logger.Warn("the user information could not be read", zap.String("session", s.ID.Hash()), zap.Error(err))
		}
		return info, err
	}
}

// withAccessToken asks the provider something in the user's name. A 401 refreshes
// the token once, together with everybody else's need for it, and asks once more.
func (h *Handler) withAccessToken(ctx context.Context, s *session.Session, ask func(access string) error) error {
	s, live := h.state.sessions.Latest(s)
	if !live {
		return session.ErrEnded
	}
	err := ask(s.Tokens.Access)
	if err == nil || oauth.FailureOf(err) != oauth.FailureUnauthorized || !s.Tokens.Refreshable() {
		return err
	}
	if _, futile := h.state.futile.GetIfPresent(s.ID); futile {
		return err
	}
	renewed, renewErr := h.state.renewals.Wait(ctx, s, h.renewal(s))
	if renewErr != nil {
		return renewErr
	}
	err = ask(renewed.Tokens.Access)
	if err != nil && oauth.FailureOf(err) == oauth.FailureUnauthorized {
		h.state.futile.Set(s.ID, struct{}{})
	}
	return err
}

// pass hands the request to the upstream, with the identity or as anonymous.
func (h *Handler) pass(w http.ResponseWriter, r *http.Request, v *visit, asked policy.Demand, id *identity.Identity, next caddyhttp.Handler) error {
	stripFolded(r.Header, urlOverrides)
	rw := &relay.Writer{ResponseWriterWrapper: relay.Wrap(w), Cookies: h.cookies}
	repl := replacerOf(r)
	setPlaceholders(repl, id)
	if id != nil {
		id.Assertion = h.assert(r.Context(), id)
		h.identity.Set(r.Header, id, func(template string) string { return expand(repl, template) })
		h.setAccessToken(r.Header, id.Session)
		if h.retryUnauthorized {
			next = h.retrying(next, v)
		}
		owner := &passing{handler: h, visit: v, request: r, asked: asked, original: originalURL(r), url: *r.URL}
		rw.Owner = owner
		rw.Streaming.Begin(owner, w, r)
		defer rw.Streaming.Finish()
	} else if v.dead {
		rw.Owner = &passing{handler: h, visit: v, request: r} // it deletes the cookie
	}
	defer rw.End()
	err := next.ServeHTTP(rw, r)
	delete(r.Header, h.identity.Token) // routes for errors may lead anywhere
	rw.Finish()
	if rw.Streaming.Over() {
		panic(http.ErrAbortHandler) // an answer that was cut must not look like a whole one
	}
	return err
}

// renewedCookies gives the Set-Cookie values of an answer, when the browser should
// hold another session cookie than it does. It is asked when the header is written:
// a refresh that was finished meanwhile is delivered, and an older generation never
// overwrites a newer one.
func (h *Handler) renewedCookies(ctx context.Context, v *visit) []string {
	// A ticket stays the same however often the session behind it changes.
	carried := h.tickets != nil || (v.version == h.state.sessions.Version.Load() && v.session.Generation == v.carried)
	if carried && !v.rewrite && h.idleTimeout == 0 {
		return nil
	}
	newest, live := h.state.sessions.Latest(v.session)
	if !live || h.state.sessions.IsEnding(newest) {
		return nil // another session may have taken its place in the browser
	}
	now := h.now()
	slide := newest.SlideDue(now, h.idleTimeout)
	carried = h.tickets != nil || newest.Generation <= v.carried
	if carried && !v.rewrite && !slide {
		return nil
	}
	if h.idleTimeout > 0 {
		newest = newest.Seen(now)
	}
	if h.tickets != nil && slide {
		newest = h.noteSeen(ctx, newest)
	}
	if h.tickets != nil && !v.rewrite {
		return nil
	}
	cookies, err := h.sessionCookies(ctx, newest, v.sent.HasSecond)
	if err != nil {
		// The session lives on in memory, and the next answer tries again.
		h.logger.Error("the session cookie cannot be written", zap.String("session", newest.ID.Hash()), zap.Error(err))
		return nil
	}
	return cookies
}

// noteSeen writes down when a session was used last, whether or not the browser waits
// for it. What somebody else has written meanwhile stays, and it looks again: a refresh
// writes twice.
func (h *Handler) noteSeen(ctx context.Context, s *session.Session) *session.Session {
	ctx = context.WithoutCancel(ctx)
	next := s
	for range 10 {
		saved, err := h.tickets.Save(ctx, next)
		if err == nil {
			return saved
		}
		var standing *session.Session
		if errors.Is(err, records.ErrMoved) {
			standing, err = h.tickets.Reread(ctx, next)
		}
		switch {
		case err != nil:
			h.logger.Warn("the use of a session cannot be written down", zap.String("session", s.ID.Hash()), zap.Error(err))
			return s
		case standing == nil:
			return s // it has ended
		case !standing.LastSeen.Before(s.LastSeen):
			return standing
		}
		next = standing.Seen(s.LastSeen)
	}
	return s
}

// sessionCookies gives the Set-Cookie values of a session.
func (h *Handler) sessionCookies(ctx context.Context, s *session.Session, hasSecond bool) ([]string, error) {
	value, err := h.store.Cookie(ctx, s)
	if err != nil {
		return nil, err
	}
	end := s.End(h.lifetime, h.idleTimeout)
	if h.tickets != nil {
		end = s.End(h.lifetime, 0) // the idle timeout is the record's matter
	}
	return h.cookies.Session(value, end.Sub(h.now()), hasSecond), nil
}

// demandLogin answers a request that needs a session and has none: a person goes to
// the provider, or to the sign-in page; everything else gets a 401.
func (h *Handler) demandLogin(w http.ResponseWriter, r *http.Request, v *visit) error {
	if v.sent.Duplicate {
		w.Header().Add("Set-Cookie", h.cookies.Remove(h.cookies.Name))
	}
	h.deleteDead(w, v)
	w.Header().Add("Vary", "Accept, Sec-Fetch-Mode, Sec-Fetch-Dest, X-Requested-With")
	returnTo := h.returnPathOf(r)
	switch {
	case !browser.IsNavigation(r):
		return writeUnauthenticated(w, r, h.startURL(returnTo))
	case h.LoginPage:
		w.Header().Set("WWW-Authenticate", challenge)
		return h.writePage(w, r, http.StatusUnauthorized, pageSignIn, pageData{returnTo: returnTo})
	default:
		return redirect(w, http.StatusFound, h.startURL(returnTo))
	}
}

// challenge is what RFC 9110 section 15.5.2 asks of every 401. No browser opens a
// password prompt for it.
const challenge = `Cookie realm="tollgate"`

func writeUnauthenticated(w http.ResponseWriter, r *http.Request, loginURL string) error {
	w.Header().Set("WWW-Authenticate", challenge)
	return writeProblem(w, r, problem{
		Title:    "Authentication required",
		Status:   http.StatusUnauthorized,
		Error:    "Not authenticated",
		LoginURL: loginURL,
	})
}

// returnPathOf is where the person comes back to after signing in: the page they
// were going to. A script's request leads back to the page that it runs on, where
// the browser says which, so that nobody lands on JSON.
func (h *Handler) returnPathOf(r *http.Request) string {
	target := ""
	if browser.IsNavigation(r) {
		target = originalURL(r).RequestURI()
	} else if referer, err := url.Parse(r.Referer()); err == nil && origin.Of(referer) == h.origin {
		target = referer.RequestURI()
	}
	return h.returnPath(target)
}

// returnPath gives a safe return path, or after_login. Going back to the endpoints
// that make up a sign-in would begin another one.
func (h *Handler) returnPath(raw string) string {
	cleaned, ok := origin.CleanPath(origin.WithoutOwnOrigin(raw, h.origin))
	if !ok {
		return h.afterLogin
	}
	path, _, _ := strings.Cut(cleaned, "?")
	path, _, _ = strings.Cut(path, "#")
	if path == h.endpoints["start"] || path == h.endpoints["callback"] {
		return h.afterLogin
	}
	return cleaned
}
