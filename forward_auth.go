package tollgate

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/policy"
)

const (
	// authPatience is how long the answer to another proxy's question may take. The
	// most impatient one, Envoy, waits for 200 ms.
	authPatience = 150 * time.Millisecond

	// maxAuthHeaders bounds the headers of such an answer in bytes: nginx takes 4,096
	// with the status line, of which the rest is left to what the server adds.
	maxAuthHeaders = 4096 - 256
)

// headerReason says why a request may not pass.
const headerReason = "Tollgate-Reason"

// authAnswer is one of the answers to another proxy's question.
type authAnswer struct {
	status int
	reason string
}

// authAnswers are all there are: nginx makes 500 of every other status.
var authAnswers = map[verdict]authAnswer{
	verdictPass:        {http.StatusOK, ""},
	verdictLogin:       {http.StatusUnauthorized, "unauthenticated"},
	verdictRefused:     {http.StatusForbidden, "refused"},
	verdictLacking:     {http.StatusForbidden, "insufficient_balance"},
	verdictUnavailable: {http.StatusForbidden, "unavailable"},
}

// authHeaderNames are the headers of such an answer that are not the identity's.
var authHeaderNames = []string{
	"Cache-Control", "Referrer-Policy", "X-Content-Type-Options", "Set-Cookie", headerReason, "Www-Authenticate",
	"Date", "Server", "Via", "Alt-Svc", "Content-Type", "Content-Encoding", "Location",
}

// serveAuth answers another proxy's question who a request comes from, and whether it
// may pass. What cannot be read counts as no session.
func (h *Handler) serveAuth(w http.ResponseWriter, r *http.Request, v *visit) error {
	if policy.ForwardsTunnel(r.Header) {
		return h.writeAuth(r.Context(), w, r, v, verdictRefused, nil)
	}
	asked, ok := h.askedDemand(r)
	if !ok {
		return h.writeAuth(r.Context(), w, r, v, verdictLogin, nil)
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.authTimeout)
	defer cancel()
	decided := h.decide(ctx, r, v, asked)
	if decided.verdict == verdictUnavailable && ctx.Err() != nil && r.Context().Err() == nil {
		h.logger.Warn("the auth check took longer than its limit", zap.Duration("after", h.authTimeout))
	}
	return h.writeAuth(ctx, w, r, v, decided.verdict, decided.id)
}

// askedDemand says what the path asks that the proxy in front was asked for. Where
// nobody who may say so has said which that is, it is a protected one to which every
// require block applies. ok is false when what was said cannot be read, or in two ways.
func (h *Handler) askedDemand(r *http.Request) (d policy.Demand, ok bool) {
	asked, ok := h.askedURL(r)
	if asked == nil || !ok {
		return h.routes.Strictest(), ok
	}
	question := r.WithContext(r.Context())
	question.URL = asked
	return h.routes.Demand(asked, question) // its own path is only where it was put
}

// askedURL gives the URL that the proxy in front was asked for, or nil where it does
// not say or may not be believed. Envoy appends the original path to ours. Since a
// client may have sent the headers that its proxy does not set, the two have to agree
// where both are there.
func (h *Handler) askedURL(r *http.Request) (*url.URL, bool) {
	if !h.settings.trustedProxies.Trust(r.RemoteAddr) {
		return nil, true
	}
	asked, ok := policy.ForwardedURL(r.Header)
	own := url.URL{Path: h.settings.endpoints["auth"]}
	below, found := strings.CutPrefix(originalURL(r).EscapedPath(), own.EscapedPath())
	if !ok || !found || below == "" {
		return asked, ok && found
	}
	appended, ok := policy.ParseForwardedURL(below)
	if !ok || asked != nil && asked.EscapedPath() != appended.EscapedPath() {
		return nil, false
	}
	return appended, true
}

// forwardedPage is the page of ours that a trusted proxy was asked for, when it passes
// the request of somebody who is not signed in to `start`. It is not yet cleaned, and
// empty when it is none of ours. forwarded is false for every other request.
func (h *Handler) forwardedPage(r *http.Request) (page string, forwarded bool) {
	if !h.settings.trustedProxies.Trust(r.RemoteAddr) {
		return "", false
	}
	asked, ok := policy.ForwardedURL(r.Header)
	if asked == nil && ok {
		return "", false
	}
	if !ok {
		return "", true
	}
	return policy.ForwardedPath(asked, h.settings.origin), true
}

// isForwarded reports whether a trusted proxy passes on a request that was for
// another URL.
func (h *Handler) isForwarded(r *http.Request) bool {
	_, forwarded := h.forwardedPage(r)
	return forwarded
}

// writeAuth writes an answer to a proxy's question, with every identity header each
// time, so that none that the client sent stays in its place.
func (h *Handler) writeAuth(ctx context.Context, w http.ResponseWriter, r *http.Request, v *visit, decided verdict, id *identity.Identity) error {
	fields := w.Header()
	h.setIdentity(fields, r, id)
	cookies := h.promptCookies(ctx, v, id)
	answer := authAnswers[decided]
	writeOwnHeaders(fields)
	if size := header.Size(fields); size > maxAuthHeaders {
		h.logger.Error("the identity does not fit into the answer of the auth endpoint: have `identity` name fewer headers",
			zap.Int("bytes", size), zap.Int("at_most", maxAuthHeaders), zap.String("largest", h.settings.identity.Largest(fields)))
		answer, cookies = authAnswers[verdictUnavailable], nil
		h.setIdentity(fields, r, nil)
	}
	// One cookie is what proxies hand on, if they hand on any: the ticket. Without it
	// the one of before goes on being good.
	if len(cookies) > 0 && header.Size(fields)+len("Set-Cookie: \r\n")+len(cookies[0]) <= maxAuthHeaders {
		fields.Set("Set-Cookie", cookies[0])
	}
	if answer.reason != "" {
		fields.Set(headerReason, answer.reason)
	}
	if answer.status == http.StatusUnauthorized {
		fields.Set("WWW-Authenticate", challenge)
	}
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// The server would wait for a body that the proxy may never send.
		fields.Set("Connection", "close")
	}
	w.WriteHeader(answer.status)
	return nil
}

// promptCookies gives the Set-Cookie values of an answer as far as they are there in
// time: the store may have to be written to for them.
func (h *Handler) promptCookies(ctx context.Context, v *visit, id *identity.Identity) []string {
	if id == nil {
		return nil
	}
	made := make(chan []string, 1)
	go func() { made <- h.renewedCookies(ctx, v) }()
	select {
	case cookies := <-made:
		return cookies
	case <-ctx.Done():
		return nil
	}
}

// setIdentity sets every identity header of an answer, and empty ones without an
// identity.
func (h *Handler) setIdentity(header http.Header, r *http.Request, id *identity.Identity) {
	repl := replacerOf(r)
	setPlaceholders(repl, id)
	if id == nil {
		h.settings.identity.SetEmpty(header)
		return
	}
	id.Assertion = h.assert(r.Context(), id)
	h.settings.identity.Set(header, id, func(template string) string { return expand(repl, template) })
	if h.settings.identity.Token == "" {
		return
	}
	header[h.settings.identity.Token] = []string{""}
	if h.mayHandToken(r) {
		h.setAccessToken(header, id.Session)
	}
}

// mayHandToken reports whether an answer may carry the access token: only to a trusted
// proxy that says which URL it was asked for, and that is none of our own. Any other
// question may be a browser's, which such a proxy passed on by mistake.
func (h *Handler) mayHandToken(r *http.Request) bool {
	asked, ok := h.askedURL(r)
	if asked == nil || !ok {
		return false
	}
	forms, complete := policy.Readings(asked)
	return complete && !slices.ContainsFunc(forms, func(path string) bool { return h.routes.EndpointAt(path) != "" })
}
