package tollgate

import (
	"net/http"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/charging"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/placeholders"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/respond"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// visit is one request on its way through the handler: the cookies that the browser sent,
// and the session that they belong to.
type visit struct {
	sent browser.Sent
	// session is the newest generation of the session, or nil if the request has no session.
	session *session.Session
	// known reports whether the store has a live session. It stays true if the tokens of the
	// session cannot be refreshed, although session is nil then.
	known bool
	// carried is the generation that the browser holds.
	carried uint64
	// version is the version of the session registry from which session was read.
	version uint64
	// dormant reports whether the tokens have expired and the provider refuses to refresh
	// them. session is nil then. The store keeps the session: a later refresh that succeeds
	// revives it.
	dormant bool
	// rewrite reports whether the browser needs a new cookie in any case, because the secret
	// or the store has changed.
	rewrite bool
	// dead reports whether the browser holds the cookie of a session of this site that has
	// ended.
	dead bool
	// cookieOf is the session whose cookie the browser holds, if this site has sealed it.
	// The session may have ended.
	cookieOf session.ID
	// deletions caches the Set-Cookie values that delete that cookie.
	deletions []string
	// handToken is policy.Question.HandToken, for a request to `auth`.
	handToken bool
	// explained reports whether the request is only explained: nothing is asked of the
	// provider.
	explained bool
	// streaming reports whether this is a periodic check of a session with open streams.
	// Open streams count as use, so the idle timeout does not end the session. The check
	// accepts a balance that was read since the previous check.
	streaming bool
}

// ServeHTTP implements caddyhttp.MiddlewareHandler. A request goes through it from top to
// bottom: target, strip, route, session, refresh, rules, identity. A request with a refused
// target is answered before its headers are stripped, because it is not passed on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	begun := time.Now()
	if judged := policy.JudgeTarget(r, originalURL(r)); judged != policy.TargetOK {
		h.metrics.CountRequest(metrics.BadRequest)
		return h.refuseTarget(w, r, judged)
	}
	h.firstRequest.Do(func() { h.place.WarnIfUnreachable(r, h.settings.endpoints) })
	h.settings.identity.Strip(r)
	caddyhttp.SetVar(r.Context(), metVar, h)
	v := &visit{sent: h.settings.cookies.Take(r.Header)}

	to := h.route(r)
	if to.ambiguous != unambiguous {
		h.metrics.CountRequest(metrics.BadRequest)
	}
	switch {
	case to.ambiguous == ambiguousEndpoint && to.endpoint == "auth":
		return h.authChecks.write(r.Context(), w, r, v, verdictLogin, nil)
	case to.ambiguous == ambiguousEndpoint:
		h.audit.OwnRequest(r, "ambiguous") // it may be the callback, with a code in its URL
		return respond.AmbiguousPath(w, r)
	case to.ambiguous == ambiguousRules:
		return respond.AmbiguousPath(w, r)
	case to.endpoint != "":
		return h.serveEndpoint(w, r, v, to.endpoint)
	case to.leftOut:
		policy.StripFolded(r.Header, policy.MethodOverrides)
	}
	demand := to.demand

	decided := h.decider.decide(r.Context(), r, v, demand)
	dry := v.session != nil && demand.Access == policy.AccessProtected && charging.WantsDryRun(r.Header)
	if decided.id != nil && policy.IsForeignWebSocket(r, h.settings.origin) {
		if demand.Access != policy.AccessOptional {
			h.metrics.CountRequest(metrics.CrossOrigin)
			return respond.WriteProblem(w, r, respond.Problem{Title: "Refused: the WebSocket is opened by a page of another origin", Status: http.StatusForbidden, Error: "cross_origin"})
		}
		decided.id = nil
	}
	if !dry && h.decider.isTooEarly(r, demand, decided) {
		h.metrics.CountRequest(metrics.TooEarly)
		return respond.WriteProblem(w, r, respond.Problem{Title: "Too early: send the request again when the TLS handshake is complete", Status: http.StatusTooEarly, Error: "too_early"})
	}
	if decided.id != nil && decided.charge != nil {
		decided = h.decider.admit(r, v, demand, decided, dry)
	}
	h.decider.note(begun, decided, dry)
	if dry {
		charging.NoteDryRun(w.Header())
	}
	switch decided.verdict {
	case verdictPass:
		if dry {
			return h.responses.writeNoContent(w)
		}
		return h.pass(w, r, v, demand, decided, next)
	case verdictLogin:
		return h.responses.demandLogin(w, r, v)
	case verdictRefused:
		return h.responses.writeForbidden(w, r, v)
	case verdictLacking:
		return h.responses.writeLacking(w, r, v, decided.short, decided.available)
	case verdictOverBudget:
		return h.responses.writeOverBudget(w, r, v, decided.over)
	case verdictUnchecked:
		return h.responses.writeUnchecked(w, r, v, decided.retryAfter, decided.cause)
	default:
		return h.responses.writeUnavailable(w, r, v, h.responses.returnPathOf(r), decided.cause)
	}
}

// routed is what the path of a request says about it.
type routed struct {
	// endpoint is the endpoint of ours that the request is for, or empty.
	endpoint string
	// ambiguous says what depends on how the path is read. Nothing else is known then.
	ambiguous ambiguity
	demand    policy.Demand
	// leftOut reports whether the matcher leaves the request out.
	leftOut bool
}

// ambiguity is what depends on how a path is read.
type ambiguity int

const (
	unambiguous ambiguity = iota
	ambiguousEndpoint
	ambiguousRules
)

// route says what a request is for, and who may pass.
func (h *Handler) route(r *http.Request) routed {
	name, ok := h.routes.Endpoint(originalURL(r))
	switch {
	case !ok:
		return routed{endpoint: name, ambiguous: ambiguousEndpoint}
	case name != "":
		return routed{endpoint: name}
	}
	demand, ok := h.routes.Demand(originalURL(r), r)
	if !ok {
		return routed{ambiguous: ambiguousRules}
	}
	leftOut := h.leavesOut(r)
	if leftOut {
		demand.Access = policy.AccessPublic
	}
	return routed{demand: demand, leftOut: leftOut}
}

// refuseTarget answers a request whose method or target is refused. The target may
// hold a code and a state, so it stays out of the access log.
func (h *Handler) refuseTarget(w http.ResponseWriter, r *http.Request, judged policy.Target) error {
	placeholders.Set(placeholders.Of(r), nil)
	h.audit.OwnRequest(r, "none")
	if policy.IsConnect(r.Method) && r.ProtoMajor == 1 {
		// The next bytes on the connection were meant for the tunnel, not for us.
		w.Header().Set("Connection", "close")
	}
	if judged == policy.TargetMethod {
		return respond.DenyMethod(w, r, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	return respond.WriteProblem(w, r, targetRefusals[judged])
}

// targetRefusals are the responses to requests whose target is refused. DenyMethod writes the
// one for the method.
var targetRefusals = map[policy.Target]respond.Problem{
	policy.TargetMethod:   {Title: "The method is not allowed", Status: http.StatusMethodNotAllowed},
	policy.TargetProtocol: {Title: "The request names a protocol, and is not a CONNECT", Status: http.StatusBadRequest, Error: "bad_request"},
	policy.TargetHost:     {Title: "The Host header is not a host", Status: http.StatusBadRequest, Error: "bad_request"},
	policy.TargetNoPath:   {Title: "The request target has no path", Status: http.StatusBadRequest, Error: "bad_request"},
}

// pass forwards the request to the upstream: with the identity, or as anonymous if there is
// none. It settles what the request holds when the response has ended.
func (h *Handler) pass(w http.ResponseWriter, r *http.Request, v *visit, asked policy.Demand, decided decision, next caddyhttp.Handler) error {
	id := decided.id
	policy.StripFolded(r.Header, policy.URLOverrides)
	rw := &relay.Writer{ResponseWriterWrapper: relay.Wrap(w), Cookies: h.settings.cookies}
	err := charging.ErrNoResponse // until the next handler returns: it may panic
	if decided.held != nil {
		call := h.holds.Begin(r, v.session, originalURL(r).Path, decided.held)
		defer func() { call.End(rw, err) }()
	}
	repl := placeholders.Of(r)
	placeholders.Set(repl, id)
	if id != nil {
		id.Assertion = h.assertions.sign(r.Context(), id)
		h.settings.identity.Set(r.Header, id, func(template string) string { return placeholders.Expand(repl, template) })
		h.tokens.setAccessToken(r.Header, id.Session)
		if h.settings.retryUnauthorized {
			next = h.retrying(next, v, id)
		}
		rw.BalanceIsLow = h.settings.isLow(id) && browser.IsNavigation(r)
		owner := &passing{handler: h, visit: v, request: r, asked: asked, original: originalURL(r), url: *r.URL}
		rw.Owner = owner
		if decided.held == nil {
			defer owner.noteCost(rw)
		}
		rw.Streaming.Begin(owner, w, r)
		defer rw.Streaming.Finish()
	} else if v.dead {
		rw.Owner = &passing{handler: h, visit: v, request: r} // it deletes the cookie
	}
	defer rw.End()
	err = next.ServeHTTP(rw, r)
	h.settings.identity.RemoveProofs(r.Header) // error routes may forward the request anywhere
	rw.Finish()
	if rw.Streaming.Over() {
		err = http.ErrAbortHandler
		panic(err) // a truncated response must not look complete
	}
	return err
}

// metVar is the variable with the *Handler that has stripped a request.
const metVar = "tollgate.met"

// serveErrorRoute answers an error of the site. ours is false if the request is for the host
// of another site. A request that has not come to tollgate before the error is stripped.
func (h *Handler) serveErrorRoute(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, ours bool) error {
	met, _ := caddyhttp.GetVar(r.Context(), metVar).(*Handler)
	switch {
	case met == h: // the request has the identity that this tollgate gave it
		return answerError(w, r, next, h.settings.cookies)
	case !ours:
		return next.ServeHTTP(w, r)
	case met != nil:
		// Another tollgate of the server gave it an identity. Its error may lead to our
		// application, which trusts our names.
		h.settings.identity.Without(met.settings.identity).Strip(r)
		return next.ServeHTTP(w, r)
	}
	if judged := policy.JudgeTarget(r, originalURL(r)); judged != policy.TargetOK {
		return h.refuseTarget(w, r, judged)
	}
	h.settings.identity.Strip(r)
	v := &visit{sent: h.settings.cookies.Take(r.Header)}
	policy.StripFolded(r.Header, policy.MethodOverrides)
	return h.pass(w, r, v, policy.Demand{Access: policy.AccessPublic}, decision{}, next)
}

// answerError serves an error behind tollgate. The response that failed may have left a
// renewed session cookie in the header.
func answerError(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, cookies *browser.Jar) error {
	rw := relay.AfterError(w, cookies)
	defer rw.End()
	err := next.ServeHTTP(rw, r)
	rw.Finish()
	return err
}

// queryOf reads the query that the client sent, also if an earlier directive has rewritten
// the URL.
func queryOf(r *http.Request) url.Values {
	return originalURL(r).Query()
}

// leavesOut reports whether the matcher does not select a request. Such a request passes like
// one for a public path. Fail closed: if the matcher fails, the request counts as selected.
func (h *Handler) leavesOut(r *http.Request) bool {
	if len(h.matchers) == 0 {
		return false
	}
	sent := *r
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		sent.Method, sent.URL = original.Method, original.URL
	}
	selected, err := policy.Selects(h.matchers.AnyMatchWithError, r, &sent)
	if err != nil {
		h.audit.Rarely(zap.WarnLevel, "cannot evaluate the matcher of tollgate; the request is treated as protected", "", zap.Error(err))
	}
	return err == nil && !selected
}

// originalURL returns the URL that the client sent, before any rewrite.
func originalURL(r *http.Request) *url.URL {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return original.URL
	}
	return r.URL
}
