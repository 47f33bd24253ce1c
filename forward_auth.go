package tollgate

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/audit"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/placeholders"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/respond"
)

// defaultAuthTimeout limits an auth check. Of the supported proxies Envoy has the shortest
// timeout: 200 ms.
const defaultAuthTimeout = 150 * time.Millisecond

// authResponses are the answers to another proxy.
var authResponses = map[verdict]respond.AuthAnswer{
	verdictPass:        respond.AuthPass,
	verdictLogin:       respond.AuthLogin,
	verdictRefused:     respond.AuthRefused,
	verdictLacking:     respond.AuthLacking,
	verdictUnavailable: respond.AuthUnavailable,
}

// authChecks serves the endpoint `auth`.
type authChecks struct {
	settings   *settings
	routes     *policy.Routes
	decider    *decider
	sessions   *sessions
	tokens     *tokens
	assertions *assertions
	metrics    *metrics.Set
	timeout    time.Duration // of one check
	audit      *audit.Log
}

// serve tells another proxy whether a request may pass, and which user sent it. A
// question that cannot be parsed gets the answer for a request without a session.
func (ac *authChecks) serve(w http.ResponseWriter, r *http.Request, v *visit) error {
	begun := time.Now()
	if policy.ForwardsTunnel(r.Header) {
		ac.metrics.CountRequest(metrics.BadRequest)
		return ac.write(r.Context(), w, r, v, verdictRefused, nil)
	}
	asked, ok := ac.settings.forwarding.Question(ac.routes, r, originalURL(r))
	if !ok {
		ac.metrics.CountRequest(metrics.BadRequest)
		ac.warnOfFullURL(r)
		return ac.write(r.Context(), w, r, v, verdictLogin, nil)
	}
	v.handToken = asked.HandToken
	ctx, cancel := context.WithTimeout(r.Context(), ac.timeout)
	defer cancel()
	decided := ac.decider.decide(ctx, r, v, asked.Demand)
	ac.decider.note(begun, decided, false)
	if decided.verdict == verdictUnavailable && ctx.Err() != nil && r.Context().Err() == nil {
		ac.audit.Rarely(zap.WarnLevel, "the auth check exceeded its time limit", "", zap.Duration("after", ac.timeout))
	}
	return ac.write(ctx, w, r, v, decided.verdict, decided.id)
}

// warnOfFullURL tells the operator of a proxy that sends no path, so that every request
// gets 401. A client can cause the line, too: it is written once a minute.
func (ac *authChecks) warnOfFullURL(r *http.Request) {
	if !ac.settings.forwarding.IsOnlyFullURL(r) {
		return
	}
	ac.audit.Rarely(zap.WarnLevel, "the proxy in front sends the original URL only as a full URL, so `auth` answers 401: make it set X-Forwarded-Uri to the path with the query", "",
		zap.String("proxy", r.RemoteAddr))
}

// write writes an auth response. It always sets every identity header, so that the
// proxy overwrites those that the client sent.
func (ac *authChecks) write(ctx context.Context, w http.ResponseWriter, r *http.Request, v *visit, decided verdict, id *identity.Identity) error {
	fields := w.Header()
	ac.setIdentity(fields, r, v, id)
	cookies := ac.promptCookies(ctx, v, id)
	answer := authResponses[decided]
	respond.SetOwnHeaders(fields)
	if size := header.Size(fields); size > respond.MaxAuthHeaders {
		ac.audit.Rarely(zap.ErrorLevel, "the identity does not fit into the auth response: list fewer headers in `identity`", "",
			zap.Int("bytes", size), zap.Int("at_most", respond.MaxAuthHeaders), zap.String("largest", ac.settings.identity.Largest(fields)))
		answer, cookies = respond.AuthUnavailable, nil
		ac.setIdentity(fields, r, v, nil)
	}
	return respond.Auth(w, r, answer, cookies)
}

// promptCookies gives the Set-Cookie values of an auth response. It returns nil if they are
// not ready in time: making them may need a write to the store.
func (ac *authChecks) promptCookies(ctx context.Context, v *visit, id *identity.Identity) []string {
	if id == nil {
		return nil
	}
	made := make(chan []string, 1)
	go func() { made <- ac.sessions.renewedCookies(ctx, v) }()
	select {
	case cookies := <-made:
		return cookies
	case <-ctx.Done():
		return nil
	}
}

// setIdentity sets every identity header of a response. All of them are empty if id is nil.
func (ac *authChecks) setIdentity(header http.Header, r *http.Request, v *visit, id *identity.Identity) {
	repl := placeholders.Of(r)
	placeholders.Set(repl, id)
	if id == nil {
		ac.settings.identity.SetEmpty(header)
		return
	}
	id.Assertion = ac.assertions.sign(r.Context(), id)
	ac.settings.identity.Set(header, id, func(template string) string { return placeholders.Expand(repl, template) })
	if ac.settings.identity.Token == "" {
		return
	}
	header[ac.settings.identity.Token] = []string{""}
	if v.handToken {
		ac.tokens.setAccessToken(header, id.Session)
	}
}
