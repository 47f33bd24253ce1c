package relay

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Watch waits for what the answer to one request turns into, and has streams
// watched. An empty one watches nothing: the request is anonymous.
type Watch struct {
	owner Owner
	// hangUp ends the context of the request that is passed on.
	hangUp  context.CancelFunc
	connect bool // a WebSocket is asked for that shares its connection with other requests
	// client is the answer as the client gets it.
	client http.ResponseWriter

	mu       sync.Mutex
	closed   func() // of a stream: forgets it. An answer that has an end of its own has none
	finished bool
	cut      bool
}

// Begin watches the answer to a request. The request stays the same value, since
// Caddy's placeholders are of it. Its new context is all that an answer costs that is no
// stream: it has to be there before the request is passed on, and is let go with the one
// that it comes from.
func (a *Watch) Begin(owner Owner, w http.ResponseWriter, r *http.Request) {
	ctx, hangUp := context.WithCancel(r.Context())
	a.owner, a.hangUp, a.client, a.connect = owner, hangUp, w, r.Method == http.MethodConnect
	*r = *r.WithContext(ctx)
}

// Finish ends the watch of an answer that is over.
func (a *Watch) Finish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finished = true
	if a.closed != nil {
		a.closed()
	}
}

// sawHeader has the answer watched if it is an event stream, or a WebSocket that
// shares its connection with other requests: those can only be cut.
func (a *Watch) sawHeader(header http.Header) {
	if a.owner == nil || (!a.connect && !isEventStream(header)) {
		return
	}
	closed := a.owner.OpenStream(a.End)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = closed
}

// isEventStream reports whether a client could take an answer for an event stream. Its
// type may be malformed behind the name, and may be the second of two: browsers take the
// last one that they can read (Fetch, "extract a MIME type").
func isEventStream(header http.Header) bool {
	for _, line := range header["Content-Type"] {
		for kind := range strings.SplitSeq(line, ",") {
			kind, _, _ = strings.Cut(kind, ";")
			if strings.EqualFold(strings.TrimSpace(kind), "text/event-stream") {
				return true
			}
		}
	}
	return false
}

// sawWebSocket gives the connection of a WebSocket as one that is watched. The client
// has sent these bytes already.
func (a *Watch) sawWebSocket(conn net.Conn, sent []byte) net.Conn {
	watched := &WebSocketConn{Conn: conn, HangUp: a.hangUp}
	watched.FromClient.ReadAll(sent)
	watched.Closed = a.owner.OpenStream(watched.End)
	return watched
}

// End cuts an answer off, also one that hangs in a write to a slow client. Caddy gives
// each write a new deadline; so ours is set until the answer is over.
func (a *Watch) End(End) {
	const again = 100 * time.Millisecond
	a.hangUp()
	for a.cutOff() {
		time.Sleep(again)
	}
}

// cutOff makes writing fail from now on, and reports whether anybody may still write.
func (a *Watch) cutOff() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.finished {
		return false // the connection may serve another request by now
	}
	a.cut = true
	_ = http.NewResponseController(innermost(a.client)).SetWriteDeadline(time.Now())
	return true
}

// innermost gives the server's own writer. Its deadlines may be set by any goroutine,
// other than those of Caddy's writers around it.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = outer.Unwrap()
	}
}

// Over notes that the answer is over, and reports whether it was cut off.
func (a *Watch) Over() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finished = true
	return a.cut
}
