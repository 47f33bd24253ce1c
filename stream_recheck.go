package tollgate

import (
	"context"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// lookPatience is how long one look at a session may take.
const lookPatience = 30 * time.Second

// recheckStreams looks at a session that has open streams, as a request of it would:
// its tokens are renewed when that is due, and the streams end when such a request
// would not pass any more. After a reload the new configuration decides.
func (s *shared) recheckStreams(name string) {
	stream := s.streams.newest(name)
	handlers, release := s.heldHandlers()
	defer release()
	if stream == nil || len(handlers) == 0 {
		return
	}
	h := handlers[0]
	if slices.Contains(handlers, stream.handler) {
		h = stream.handler
	}
	if why, over := h.lookAtStream(stream); over {
		s.endStreams(name, why)
		return
	}
	s.streams.lookAfter(name, lookInterval(h.recheckInterval(), stream.session.id))
}

// endStreams ends the streams of a session, and writes down how many.
func (s *shared) endStreams(name string, why streamEnd) {
	ended := s.streams.end(name, why)
	if ended == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.handlers) > 0 {
		s.handlers[len(s.handlers)-1].logger.Info("streams ended",
			zap.String("session", name), zap.Int("streams", ended), zap.String("reason", why.reason))
	}
}

// sessionEnds ends the streams of a session at the moment at which it ends.
func (s *shared) sessionEnds(id sessionID, from time.Time) {
	if wait := from.Sub(s.renewals.now()); wait > 0 {
		s.streams.lookBefore(id.hash(), wait)
		return
	}
	s.endStreams(id.hash(), streamSessionOver)
}

// recheckInterval is how often a session with open streams is looked at: often enough
// that their use is written down before an idle timeout.
func (h *Handler) recheckInterval() time.Duration {
	if h.idleTimeout > 0 {
		return min(h.streamRecheck, h.idleTimeout/2)
	}
	return h.streamRecheck
}

// lookAtStream reports whether a stream's session has to end it, and why. An open
// stream is use of the session: no idle timeout ends it.
func (h *Handler) lookAtStream(stream *openStream) (streamEnd, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), lookPatience)
	defer cancel()
	v := &visit{sent: stream.sent, streaming: true}
	decided, _ := h.decide(ctx, stream.asked, v, demand{access: accessProtected})
	if now := h.now(); decided == verdictPass && h.tickets != nil && v.session.slideDue(now, h.idleTimeout) {
		h.noteSeen(ctx, v.session.seen(now))
	}
	return streamEndOf(decided)
}

// streamEndOf says whether a stream ends, and why, when a request like its own would
// be decided like this now. While nobody can tell, it goes on.
func streamEndOf(decided verdict) (streamEnd, bool) {
	switch decided {
	case verdictLogin:
		return streamSessionOver, true
	case verdictRefused:
		return streamRefused, true
	default:
		return streamEnd{}, false
	}
}

// answerWatch waits for what the answer to one request turns into, and has streams
// watched. A nil one watches nothing: the request is anonymous.
type answerWatch struct {
	handler *Handler
	visit   *visit
	// request is the one that is passed on. Its context ends when the stream does.
	request *http.Request
	before  context.Context
	hangUp  context.CancelFunc
	// url is what was asked for, before other handlers rewrite it.
	url url.URL
	// client is the answer as the client gets it.
	client http.ResponseWriter

	mu       sync.Mutex
	stream   *openStream // of an answer that has no end of its own
	finished bool
	cut      bool
}

// watchAnswer begins to watch the answer to a request. The request stays the same
// value, since Caddy's placeholders are of it.
func (h *Handler) watchAnswer(w http.ResponseWriter, r *http.Request, v *visit) *answerWatch {
	a := &answerWatch{handler: h, visit: v, request: r, before: r.Context(), url: *r.URL, client: w}
	ctx, hangUp := context.WithCancel(a.before)
	a.hangUp = hangUp
	*r = *r.WithContext(ctx)
	return a
}

// finish ends the watch of an answer that is over. What comes afterwards, such as
// Caddy's error routes, has the request's own context again.
func (a *answerWatch) finish() {
	a.hangUp()
	*a.request = *a.request.WithContext(a.before)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finished = true
	if a.stream != nil {
		a.handler.state.streams.remove(a.stream)
	}
}

// sawHeader has the answer watched if it is an event stream, or a WebSocket that
// shares its connection with other requests: those can only be cut.
func (a *answerWatch) sawHeader(header http.Header) {
	if a == nil {
		return
	}
	shared := a.request.Method == http.MethodConnect
	if kind, _, err := mime.ParseMediaType(header.Get("Content-Type")); !shared && (err != nil || kind != "text/event-stream") {
		return
	}
	stream := a.openStream(a.end)
	a.mu.Lock()
	a.stream = stream
	a.mu.Unlock()
	a.watch(stream)
}

// sawWebSocket gives the connection of a WebSocket as one that is watched.
func (a *answerWatch) sawWebSocket(conn net.Conn) net.Conn {
	watched := &webSocketConn{Conn: conn, hangUp: a.hangUp}
	stream := a.openStream(watched.end)
	watched.closed = func() { a.handler.state.streams.remove(stream) }
	a.watch(stream)
	return watched
}

// end cuts an answer off, also one that hangs in a write to a slow client. Caddy gives
// each write a new deadline; so ours is set until the answer is over.
func (a *answerWatch) end(streamEnd) {
	const again = 100 * time.Millisecond
	a.hangUp()
	for a.cutOff() {
		time.Sleep(again)
	}
}

// cutOff makes writing fail from now on, and reports whether anybody may still write.
func (a *answerWatch) cutOff() bool {
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

// over notes that the answer is over, and reports whether it was cut off.
func (a *answerWatch) over() bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finished = true
	return a.cut
}

// watch has a stream ended with its session. The session may have ended since the
// request was decided.
func (a *answerWatch) watch(stream *openStream) {
	h := a.handler
	h.state.streams.add(stream, lookInterval(h.recheckInterval(), stream.session.id), h.state.recheckStreams)
	if _, live := h.state.renewals.latest(stream.session); !live {
		h.state.endStreams(stream.session.id.hash(), streamSessionOver)
	}
}

func (a *answerWatch) openStream(end func(streamEnd)) *openStream {
	return &openStream{handler: a.handler, session: a.visit.session, sent: a.visit.sent, asked: a.asked(), end: end}
}

// asked is the request once more, to be decided again while other goroutines work on
// the one that is passed on. It keeps what Caddy's matchers and the audit lines need.
func (a *answerWatch) asked() *http.Request {
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{
		caddyhttp.ClientIPVarKey: caddyhttp.GetVar(a.before, caddyhttp.ClientIPVarKey),
	})
	asked := &http.Request{Method: a.request.Method, URL: &a.url, Host: a.request.Host, RemoteAddr: a.request.RemoteAddr}
	return asked.WithContext(ctx)
}
