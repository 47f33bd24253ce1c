package relay

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Original is a request as it was before it was forwarded. It is put back before the
// request is repeated, because handlers change the request and the response header in place.
type Original struct {
	Method     string
	URL        url.URL
	Host       string
	RequestURI string
	Length     int64
	Header     http.Header
	Token      string // the access token in Header
	Body       *bodyReader
	// WebSocket is the client's side of a WebSocket that shares its connection.
	WebSocket io.ReadCloser
	// Trailers is true if the request announces trailers. They are complete when the body
	// is complete.
	Trailers bool
	// Answer is the header of the response.
	Answer http.Header
	// Groups are the exclusive routes, such as `handle`, that the request has entered.
	Groups map[string]struct{}
	// Vars are Caddy's variables of the request.
	Vars map[string]any
}

// Note copies a request that carries the access token, so that it can be sent again. The token
// is in the header tokenHeader. ok is false if it carries no access token or cannot be sent
// again.
func Note(w http.ResponseWriter, r *http.Request, tokenHeader string) (original *Original, ok bool) {
	groups, known := r.Context().Value(routeGroups).(map[string]struct{})
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	token, carries := r.Header[tokenHeader]
	if !known || !carries {
		return nil, false
	}
	original = &Original{
		Method:     r.Method,
		URL:        *r.URL,
		Host:       r.Host,
		RequestURI: r.RequestURI,
		Length:     r.ContentLength,
		Header:     r.Header.Clone(),
		Token:      token[0],
		Answer:     w.Header().Clone(),
		Groups:     maps.Clone(groups),
		Vars:       maps.Clone(vars),
	}
	switch {
	case r.Method == http.MethodConnect:
		// A WebSocket over HTTP/2 or HTTP/3. Its body is not read before the upstream has
		// accepted the WebSocket, and must not be buffered.
		original.WebSocket = r.Body
	case r.Body != nil && r.Body != http.NoBody:
		original.Trailers = len(r.Trailer) > 0
		original.Body = &bodyReader{keptBody: &keptBody{Source: r.Body, Lost: r.ContentLength > maxReplayedBody}, First: true}
		r.Body = original.Body
	}
	return original, true
}

// routeGroups is the context key of Caddy's map of exclusive routes that a request has
// entered. If the map were not put back, the repeated request would enter none of them, and
// its response would be empty.
const routeGroups = caddy.CtxKey("route_group")

// Rewind makes the body ready to be read again. ok is false if that is impossible.
func (o *Original) Rewind() (ok bool) {
	if o.Body != nil {
		o.Body, ok = o.Body.rewind(o.Trailers)
		return ok
	}
	return true
}

// Forget frees the memory of the kept body. A response may take hours.
func (o *Original) Forget() {
	if o.Body != nil {
		o.Body.forget()
	}
}

// PutBack restores r and its response header. It changes r in place, because Caddy's
// placeholders are bound to it.
func (o *Original) PutBack(w http.ResponseWriter, r *http.Request) {
	r.Method, *r.URL, r.Host, r.RequestURI, r.ContentLength = o.Method, o.URL, o.Host, o.RequestURI, o.Length
	r.Header = o.Header
	switch {
	case o.Body != nil:
		r.Body = o.Body
	case o.WebSocket != nil:
		r.Body = o.WebSocket
	}
	header := w.Header()
	clear(header)
	maps.Copy(header, o.Answer)
	groups := r.Context().Value(routeGroups).(map[string]struct{})
	clear(groups)
	maps.Copy(groups, o.Groups)
	// Give the retry its own map of variables: a dial left over from the first attempt may
	// still read the old one while reverse_proxy writes to it (data race).
	*r = *r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, o.Vars))
}

// Gate passes a response on, or discards all of it. It decides when the status is known,
// before anything was sent. Early hints are passed on.
type Gate struct {
	*caddyhttp.ResponseWriterWrapper
	// HoldBack decides whether the response is discarded. It is called once, with the
	// status of the response.
	HoldBack func(status int) bool
	decided  bool
	// Held is true if the response is discarded.
	Held bool
}

// Serve passes a request on to next, and the response through the gate. It does not matter how
// a discarded response ends: an upstream that has not read the whole body may reset the
// connection after its 401.
func (g *Gate) Serve(next caddyhttp.Handler, r *http.Request) error {
	defer func() {
		if !g.Held {
			return
		}
		if fault := recover(); fault != nil && fault != http.ErrAbortHandler {
			panic(fault)
		}
	}()
	return next.ServeHTTP(g, r)
}

// WriteHeader implements http.ResponseWriter.
func (g *Gate) WriteHeader(status int) {
	final := status >= 200 || status == http.StatusSwitchingProtocols
	if final && !g.decided {
		g.decided = true
		g.Held = g.HoldBack(status)
	}
	if !g.Held {
		g.ResponseWriterWrapper.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (g *Gate) Write(p []byte) (int, error) {
	g.begin()
	if g.Held {
		return len(p), nil
	}
	return g.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (g *Gate) ReadFrom(r io.Reader) (int64, error) {
	g.begin()
	if g.Held {
		return io.Copy(io.Discard, r)
	}
	return g.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends what has been written, unless the response is discarded.
func (g *Gate) FlushError() error {
	g.begin()
	if g.Held {
		return nil
	}
	return http.NewResponseController(g.ResponseWriter).Flush()
}

func (g *Gate) begin() {
	if !g.decided {
		g.WriteHeader(http.StatusOK)
	}
}
