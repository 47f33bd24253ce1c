package relay

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Watch reports a response that is a stream to its owner, and can end it. The zero Watch
// does nothing; anonymous requests have it.
type Watch struct {
	owner Owner
	// hangUp cancels the context of the forwarded request.
	hangUp context.CancelFunc
	// connect is true if the request asks for a WebSocket that shares its connection with
	// other requests.
	connect bool
	// client is the writer to the client.
	client http.ResponseWriter

	mu       sync.Mutex // guards what follows
	closed   func()     // from OpenStream; nil if the response is no stream
	finished bool
	cut      bool
}

// Begin watches the response to a request. It changes the request in place, because Caddy's
// placeholders are bound to it. For ordinary responses the derived context is the only cost.
// It must exist before the request is forwarded, and ends with its parent.
func (a *Watch) Begin(owner Owner, w http.ResponseWriter, r *http.Request) {
	ctx, hangUp := context.WithCancel(r.Context())
	a.owner, a.hangUp, a.client, a.connect = owner, hangUp, w, r.Method == http.MethodConnect
	*r = *r.WithContext(ctx)
}

// Finish ends the watch when the response is over.
func (a *Watch) Finish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finished = true
	if a.closed != nil {
		a.closed()
	}
}

// sawHeader reports the response to its owner if it is an event stream, or a WebSocket
// that shares its connection with other requests. Neither can get a close frame: they can
// only be cut off.
func (a *Watch) sawHeader(header http.Header) {
	if a.owner == nil || (!a.connect && !isEventStream(header)) {
		return
	}
	closed := a.owner.OpenStream(a.End)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = closed
}

// isEventStream reports whether a client could read a response as an event stream. The
// media type may be malformed after its name. It may also be the second of two types:
// browsers use the last one that they can parse (Fetch, "extract a MIME type").
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

// sawWebSocket returns the connection of a WebSocket as one that can be ended. sent are the
// bytes that the client has sent already.
func (a *Watch) sawWebSocket(conn net.Conn, sent []byte) net.Conn {
	watched := &webSocketConn{Conn: conn, hangUp: a.hangUp}
	watched.fromClient.ReadAll(sent)
	watched.closed = a.owner.OpenStream(watched.End)
	return watched
}

// End cuts a response off, also if a write to a slow client hangs. Caddy sets a new
// deadline for each write. Therefore End sets ours again until the response is over.
func (a *Watch) End(End) {
	const again = 100 * time.Millisecond
	a.hangUp()
	for a.cutOff() {
		time.Sleep(again)
	}
}

// cutOff makes writes fail from now on. It returns false if the response is over.
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

// innermost returns the server's own writer. Any goroutine may set its deadlines, unlike
// those of Caddy's writers around it.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = outer.Unwrap()
	}
}

// Over notes that the response is over, and reports whether it was cut off.
func (a *Watch) Over() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finished = true
	return a.cut
}
