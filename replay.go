package tollgate

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// errFutile: a refresh would not make the upstream accept the access token.
var errFutile = errors.New("a new access token would not help")

// retrying lets the upstream see a request once more, with a new access token, when it
// refuses the one that it got. A 401 says that it did nothing, so that any method may
// be repeated.
//
// The refresh is waited for before the first answer goes on: when it fails, or when the
// body cannot be sent again, that answer goes through as it is, and when the session is
// over, ours takes its place.
func (h *Handler) retrying(next caddyhttp.Handler, v *visit) caddyhttp.Handler {
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		original, ok := h.noteRequest(w, r)
		if !ok {
			return next.ServeHTTP(w, r)
		}
		var refresh error
		first := &gate{ResponseWriterWrapper: wrap(w), holdBack: func(status int) bool {
			if status != http.StatusUnauthorized {
				original.forget()
				return false
			}
			refresh = h.renewRefused(r.Context(), v.session, original.token)
			return errors.Is(refresh, errSessionEnded) || refresh == nil && original.rewind()
		}}
		err := next.ServeHTTP(first, r)
		if !first.held {
			return err
		}
		original.putBack(w, r)
		if refresh != nil {
			return h.demandLogin(w, r, v)
		}
		h.setAccessToken(r.Header, v.session)
		return next.ServeHTTP(&gate{ResponseWriterWrapper: wrap(w), holdBack: func(status int) bool {
			if status != http.StatusUnauthorized {
				h.state.doubted.Invalidate(v.session.id)
			}
			return false
		}}, r)
	})
}

// renewRefused sees to it that a session has another access token than the one that an
// upstream refused.
func (h *Handler) renewRefused(ctx context.Context, s *session, refused string) error {
	s, live := h.state.sessions.latest(s)
	switch {
	case !live:
		return errSessionEnded
	case h.identity.tokenValue(s) != refused:
		return nil // somebody refreshed it meanwhile
	case !s.tokens.refreshable():
		return errFutile
	}
	if doubted, ok := h.state.doubted.GetIfPresent(s.id); ok && s.generation >= doubted {
		return errFutile
	}
	// Before the refresh: whoever gets the new token may be refused faster than we are.
	h.state.doubted.Set(s.id, s.generation+1)
	_, err := h.state.renewals.wait(ctx, s, h.renewal(s))
	if err != nil {
		h.state.doubted.Invalidate(s.id)
		h.logger.Debug("the upstream refused the access token, and it was not refreshed", zap.String("session", s.id.hash()), zap.Error(err))
	}
	return err
}

// originalRequest is what has to be put back before a request can go the same way
// again: handlers on that way change it, and the answer's header, in place.
type originalRequest struct {
	method string
	url    url.URL
	host   string
	uri    string
	length int64
	header http.Header
	token  string // as it stands in header
	body   *bodyReader
	// webSocket is the client's side of a WebSocket that shares its connection.
	webSocket io.ReadCloser
	// trailers: some are announced. They are complete when the body is.
	trailers bool
	answer   http.Header
	// groups are the exclusive routes, such as `handle`, that were taken already.
	groups map[string]struct{}
	// vars are Caddy's variables of the request.
	vars map[string]any
}

// routeGroups is where Caddy notes the exclusive routes that a request has taken. With
// them set no second one is, and the answer would be empty.
const routeGroups = caddy.CtxKey("route_group")

// noteRequest notes a request that carries the access token. ok is false where it could
// not be sent once more.
func (h *Handler) noteRequest(w http.ResponseWriter, r *http.Request) (original *originalRequest, ok bool) {
	groups, known := r.Context().Value(routeGroups).(map[string]struct{})
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	token, carries := r.Header[h.identity.token]
	if !known || !carries {
		return nil, false
	}
	original = &originalRequest{
		method: r.Method,
		url:    *r.URL,
		host:   r.Host,
		uri:    r.RequestURI,
		length: r.ContentLength,
		header: r.Header.Clone(),
		token:  token[0],
		answer: w.Header().Clone(),
		groups: maps.Clone(groups),
		vars:   maps.Clone(vars),
	}
	switch {
	case r.Method == http.MethodConnect:
		// A WebSocket over HTTP/2 or HTTP/3. Nothing of it is read before the upstream has
		// agreed, and nothing of it may be kept.
		original.webSocket = r.Body
	case r.Body != nil && r.Body != http.NoBody:
		original.trailers = len(r.Trailer) > 0
		original.body = &bodyReader{keptBody: &keptBody{source: r.Body, lost: r.ContentLength > maxReplayedBody}, first: true}
		r.Body = original.body
	}
	return original, true
}

// rewind makes the body ready to be read once more.
func (o *originalRequest) rewind() (ok bool) {
	if o.body != nil {
		o.body, ok = o.body.rewind(o.trailers)
		return ok
	}
	return true
}

// forget lets go of the body: the answer that is there may take hours.
func (o *originalRequest) forget() {
	if o.body != nil {
		o.body.forget()
	}
}

// putBack makes r, and the header of its answer, what they were. It is the same r:
// placeholders are bound to it.
func (o *originalRequest) putBack(w http.ResponseWriter, r *http.Request) {
	r.Method, *r.URL, r.Host, r.RequestURI, r.ContentLength = o.method, o.url, o.host, o.uri, o.length
	r.Header = o.header
	switch {
	case o.body != nil:
		r.Body = o.body
	case o.webSocket != nil:
		r.Body = o.webSocket
	}
	header := w.Header()
	clear(header)
	maps.Copy(header, o.answer)
	groups := r.Context().Value(routeGroups).(map[string]struct{})
	clear(groups)
	maps.Copy(groups, o.groups)
	// Another table: a connection that the first attempt was dialing, and did not need
	// after all, still reads that of before, and reverse_proxy writes to it.
	*r = *r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, o.vars))
}

// gate lets an answer pass as it comes, or holds all of it back: that is decided when
// its status is known, before a byte of it has gone out. Early hints pass.
type gate struct {
	*caddyhttp.ResponseWriterWrapper
	// holdBack is asked once, with the status of the answer.
	holdBack func(status int) bool
	decided  bool
	held     bool
}

// WriteHeader implements http.ResponseWriter.
func (g *gate) WriteHeader(status int) {
	final := status >= 200 || status == http.StatusSwitchingProtocols
	if final && !g.decided {
		g.decided = true
		g.held = g.holdBack(status)
	}
	if !g.held {
		g.ResponseWriterWrapper.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (g *gate) Write(p []byte) (int, error) {
	g.begin()
	if g.held {
		return len(p), nil
	}
	return g.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (g *gate) ReadFrom(r io.Reader) (int64, error) {
	g.begin()
	if g.held {
		return io.Copy(io.Discard, r)
	}
	return g.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends what is there, unless it is held back.
func (g *gate) FlushError() error {
	g.begin()
	if g.held {
		return nil
	}
	return http.NewResponseController(g.ResponseWriter).Flush()
}

func (g *gate) begin() {
	if !g.decided {
		g.WriteHeader(http.StatusOK)
	}
}
