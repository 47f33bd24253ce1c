package tollgate

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/placeholders"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/respond"
)

const (
	// defaultAuthTimeout limits an auth check. Of the supported proxies Envoy has the
	// shortest timeout: 200 ms.
	defaultAuthTimeout = 150 * time.Millisecond

	// maxAuthHeaders limits the headers of an auth response, in bytes. nginx accepts 4,096
	// bytes with the status line; the difference is for the headers that the server adds.
	maxAuthHeaders = 4096 - 256
)

// headerReason is the response header with the reason why a request may not pass.
const headerReason = "Tollgate-Reason"

// authResponse is the status and the reason of an auth response.
type authResponse struct {
	status int
	reason string
}

// authResponses are the only auth responses. No other status is used, because nginx turns it
// into a 500.
var authResponses = map[verdict]authResponse{
	verdictPass:        {http.StatusOK, ""},
	verdictLogin:       {http.StatusUnauthorized, "unauthenticated"},
	verdictRefused:     {http.StatusForbidden, "refused"},
	verdictLacking:     {http.StatusForbidden, "insufficient_balance"},
	verdictUnavailable: {http.StatusForbidden, "unavailable"},
}

// authHeaderNames are the headers of an auth response besides the identity headers.
var authHeaderNames = []string{
	"Cache-Control", "Referrer-Policy", "X-Content-Type-Options", "Set-Cookie", headerReason, "Www-Authenticate",
	"Date", "Server", "Via", "Alt-Svc", "Content-Type", "Content-Encoding", "Location",
}

// serveAuth tells another proxy whether a request may pass, and which user sent it. A
// question that cannot be parsed gets the answer for a request without a session.
func (h *Handler) serveAuth(w http.ResponseWriter, r *http.Request, v *visit) error {
	begun := time.Now()
	if policy.ForwardsTunnel(r.Header) {
		h.metrics.CountRequest(metrics.BadRequest)
		return h.writeAuth(r.Context(), w, r, v, verdictRefused, nil)
	}
	asked, ok := h.settings.forwarding.Question(h.routes, r, originalURL(r))
	if !ok {
		h.metrics.CountRequest(metrics.BadRequest)
		h.warnOfFullURL(r)
		return h.writeAuth(r.Context(), w, r, v, verdictLogin, nil)
	}
	v.handToken = asked.HandToken
	ctx, cancel := context.WithTimeout(r.Context(), h.authTimeout)
	defer cancel()
	decided := h.decide(ctx, r, v, asked.Demand)
	h.noteDecision(begun, decided, false)
	if decided.verdict == verdictUnavailable && ctx.Err() != nil && r.Context().Err() == nil {
		h.logger.Warn("the auth check exceeded its time limit", zap.Duration("after", h.authTimeout))
	}
	return h.writeAuth(ctx, w, r, v, decided.verdict, decided.id)
}

// warnOfFullURL tells the operator of a proxy that sends no path, so that every request
// gets 401. A client can cause the line, too: it is written once a minute.
func (h *Handler) warnOfFullURL(r *http.Request) {
	if !h.settings.forwarding.IsOnlyFullURL(r) {
		return
	}
	if requests, due := h.state.fullURLs.Next(h.now()); due {
		h.logger.Warn("the proxy in front sends the original URL only as a full URL, so `auth` answers 401: make it set X-Forwarded-Uri to the path with the query",
			zap.String("proxy", r.RemoteAddr), zap.Int("requests", requests))
	}
}

// writeAuth writes an auth response. It always sets every identity header, so that the
// proxy overwrites those that the client sent.
func (h *Handler) writeAuth(ctx context.Context, w http.ResponseWriter, r *http.Request, v *visit, decided verdict, id *identity.Identity) error {
	fields := w.Header()
	h.setIdentity(fields, r, v, id)
	cookies := h.promptCookies(ctx, v, id)
	answer := authResponses[decided]
	respond.SetOwnHeaders(fields)
	if size := header.Size(fields); size > maxAuthHeaders {
		h.logger.Error("the identity does not fit into the auth response: list fewer headers in `identity`",
			zap.Int("bytes", size), zap.Int("at_most", maxAuthHeaders), zap.String("largest", h.settings.identity.Largest(fields)))
		answer, cookies = authResponses[verdictUnavailable], nil
		h.setIdentity(fields, r, v, nil)
	}
	// Proxies forward at most one cookie, and the session's is one: the ticket. If the
	// cookie does not fit, leave it out: the browser's existing ticket stays valid.
	if len(cookies) > 0 && header.Size(fields)+len("Set-Cookie: \r\n")+len(cookies[0]) <= maxAuthHeaders {
		fields.Set("Set-Cookie", cookies[0])
	}
	if answer.reason != "" {
		fields.Set(headerReason, answer.reason)
	}
	if answer.status == http.StatusUnauthorized {
		fields.Set("WWW-Authenticate", respond.Challenge)
	}
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// The server would wait for a body that the proxy may never send.
		fields.Set("Connection", "close")
	}
	w.WriteHeader(answer.status)
	return nil
}

// promptCookies gives the Set-Cookie values of an auth response. It returns nil if they are
// not ready in time: making them may need a write to the store.
func (h *Handler) promptCookies(ctx context.Context, v *visit, id *identity.Identity) []string {
	if id == nil {
		return nil
	}
	made := make(chan []string, 1)
	go func() { made <- h.sessions.renewedCookies(ctx, v) }()
	select {
	case cookies := <-made:
		return cookies
	case <-ctx.Done():
		return nil
	}
}

// setIdentity sets every identity header of a response. All of them are empty if id is nil.
func (h *Handler) setIdentity(header http.Header, r *http.Request, v *visit, id *identity.Identity) {
	repl := placeholders.Of(r)
	placeholders.Set(repl, id)
	if id == nil {
		h.settings.identity.SetEmpty(header)
		return
	}
	id.Assertion = h.assert(r.Context(), id)
	h.settings.identity.Set(header, id, func(template string) string { return placeholders.Expand(repl, template) })
	if h.settings.identity.Token == "" {
		return
	}
	header[h.settings.identity.Token] = []string{""}
	if v.handToken {
		h.tokens.setAccessToken(header, id.Session)
	}
}
