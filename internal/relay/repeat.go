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

// Original is what has to be put back before a request can go the same way
// again: handlers on that way change it, and the answer's header, in place.
type Original struct {
	Method string
	Url    url.URL
	Host   string
	Uri    string
	Length int64
	Header http.Header
	Token  string // as it stands in header
	Body   *BodyReader
	// WebSocket is the client's side of a WebSocket that shares its connection.
	WebSocket io.ReadCloser
	// Trailers: some are announced. They are complete when the body is.
	Trailers bool
	Answer   http.Header
	// Groups are the exclusive routes, such as `handle`, that were taken already.
	Groups map[string]struct{}
	// Vars are Caddy's variables of the request.
	Vars map[string]any
}

// RouteGroups is where Caddy notes the exclusive routes that a request has taken. With
// them set no second one is, and the answer would be empty.
const RouteGroups = caddy.CtxKey("route_group")

// Rewind makes the body ready to be read once more.
func (o *Original) Rewind() (ok bool) {
	if o.Body != nil {
		o.Body, ok = o.Body.rewind(o.Trailers)
		return ok
	}
	return true
}

// Forget lets go of the body: the answer that is there may take hours.
func (o *Original) Forget() {
	if o.Body != nil {
		o.Body.forget()
	}
}

// PutBack makes r, and the header of its answer, what they were. It is the same r:
// placeholders are bound to it.
func (o *Original) PutBack(w http.ResponseWriter, r *http.Request) {
	r.Method, *r.URL, r.Host, r.RequestURI, r.ContentLength = o.Method, o.Url, o.Host, o.Uri, o.Length
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
	groups := r.Context().Value(RouteGroups).(map[string]struct{})
	clear(groups)
	maps.Copy(groups, o.Groups)
	// Another table: a connection that the first attempt was dialing, and did not need
	// after all, still reads that of before, and reverse_proxy writes to it.
	*r = *r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, o.Vars))
}

// Gate lets an answer pass as it comes, or holds all of it back: that is decided when
// its status is known, before a byte of it has gone out. Early hints pass.
type Gate struct {
	*caddyhttp.ResponseWriterWrapper
	// HoldBack is asked once, with the status of the answer.
	HoldBack func(status int) bool
	decided  bool
	Held     bool
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

// FlushError sends what is there, unless it is held back.
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
