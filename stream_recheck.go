package tollgate

import (
	"context"
	"math"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const (
	// lookPatience is how long one look at a session may take.
	lookPatience = 30 * time.Second
	// balanceLook is how soon a session with streams is looked at after the upstream
	// said that its user's balance has changed. A stream that says so again and again
	// causes one look in this time.
	balanceLook = time.Second
)

// recheckStreams looks at a session that has open streams, as requests of it would:
// its tokens are renewed when that is due, and each stream ends when a request like its
// own would not pass any more. After a reload the new configuration decides. The
// session is opened once, and its user's balance read once, however many streams it has.
func (s *shared) recheckStreams(name string) {
	handlers, release := s.heldHandlers()
	defer release()
	if len(handlers) == 0 {
		return
	}
	open := s.streams.beginLook(name)
	if len(open) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookPatience)
	defer cancel()
	looks := make(map[*Handler]*streamLook)
	ends := make(map[streamEnd][]*openStream)
	every := time.Duration(math.MaxInt64)
	for _, stream := range open {
		h := handlers[0]
		if slices.Contains(handlers, stream.handler) {
			h = stream.handler
		}
		look, ok := looks[h]
		if !ok {
			look = h.lookAtSession(ctx, stream.sent)
			looks[h] = look
			every = min(every, lookInterval(h.recheckInterval(), stream.session.id))
		}
		if why := look.at(ctx, stream); why != nil {
			ends[*why] = append(ends[*why], stream)
		}
	}
	s.streams.endLook(name, every)
	for why, which := range ends {
		s.endStreams(name, which, why)
	}
}

// endStreams ends streams of a session, and writes down how many.
func (s *shared) endStreams(name string, which []*openStream, why streamEnd) {
	ended := s.streams.end(name, which, why)
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

// endAllStreams ends the streams of a session that is over.
func (s *shared) endAllStreams(name string) {
	s.endStreams(name, s.streams.of(name), streamSessionOver)
}

// sessionEnds ends the streams of a session at the moment at which it ends.
func (s *shared) sessionEnds(id sessionID, from time.Time) {
	if wait := from.Sub(s.renewals.now()); wait > 0 {
		s.streams.lookBefore(id.hash(), wait)
		return
	}
	s.endAllStreams(id.hash())
}

// recheckInterval is how often a session with open streams is looked at: often enough
// that their use is written down before an idle timeout.
func (h *Handler) recheckInterval() time.Duration {
	if h.idleTimeout > 0 {
		return min(h.streamRecheck, h.idleTimeout/2)
	}
	return h.streamRecheck
}

// streamLook is one look at a session with open streams.
type streamLook struct {
	handler *Handler
	visit   *visit
	// unknown: nobody can tell now how the session is.
	unknown bool
	// decided holds what was decided for the streams so far: many demand the same.
	decided map[blocks]*streamEnd
}

// lookAtSession opens a session as a request would. An open stream is use of it: no
// idle timeout ends it.
func (h *Handler) lookAtSession(ctx context.Context, sent sentCookies) *streamLook {
	v := &visit{sent: sent, streaming: true}
	err := h.openSession(ctx, v)
	switch now := h.now(); {
	case err != nil:
		h.logFault(ctx, err)
	case v.session != nil && h.tickets != nil && v.session.slideDue(now, h.idleTimeout):
		h.noteSeen(ctx, v.session.seen(now))
	}
	return &streamLook{handler: h, visit: v, unknown: err != nil, decided: make(map[blocks]*streamEnd)}
}

// at says why a stream ends, or nil when it goes on. It carries an identity: where that
// ends, the stream does, also where others may be without one.
func (l *streamLook) at(ctx context.Context, stream *openStream) *streamEnd {
	switch {
	case l.unknown:
		return nil
	case l.visit.session == nil:
		return &streamSessionOver
	}
	which := l.handler.demandOf(stream).blocks
	why, ok := l.decided[which]
	if !ok {
		decided, _, _ := l.handler.judge(ctx, l.visit, which)
		why = streamEndOf(decided, l.visit.short)
		l.decided[which] = why
	}
	return why
}

// demandOf is what a stream's path demands under this configuration. A path that this
// one can read in two ways demands everything.
func (h *Handler) demandOf(stream *openStream) demand {
	if h == stream.handler {
		return stream.asked
	}
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	asked := &http.Request{Method: http.MethodGet, URL: &stream.url}
	demand, unambiguous := h.routes.demand(asked.WithContext(ctx))
	if !unambiguous {
		return h.routes.strictest()
	}
	return demand
}

// streamEndOf says why a stream ends when a request like its own would be decided like
// this now. While nobody can tell, it goes on: also where the balance is not known any
// more, since nobody knows that it has fallen.
func streamEndOf(decided verdict, short *shortfall) *streamEnd {
	switch {
	case decided == verdictLogin:
		return &streamSessionOver
	case decided == verdictRefused:
		return &streamRefused
	case decided == verdictLacking && short.balance != nil:
		return &streamUnpaid
	default:
		return nil
	}
}

// answerWatch waits for what the answer to one request turns into, and has streams
// watched. An empty one watches nothing: the request is anonymous.
type answerWatch struct {
	handler *Handler
	visit   *visit
	// hangUp ends the context of the request that is passed on.
	hangUp context.CancelFunc
	// asked is what the path demands, and url what was asked for, before other handlers
	// rewrite it.
	asked   demand
	url     url.URL
	connect bool // a WebSocket is asked for that shares its connection with other requests
	// client is the answer as the client gets it.
	client http.ResponseWriter

	mu       sync.Mutex
	stream   *openStream // of an answer that has no end of its own
	finished bool
	cut      bool
}

// begin watches the answer to a request. The request stays the same value, since
// Caddy's placeholders are of it. Its new context is all that an answer costs that is no
// stream: it has to be there before the request is passed on, and is let go with the one
// that it comes from.
func (a *answerWatch) begin(h *Handler, w http.ResponseWriter, r *http.Request, v *visit, asked demand) {
	ctx, hangUp := context.WithCancel(r.Context())
	a.handler, a.visit, a.hangUp, a.client = h, v, hangUp, w
	a.asked, a.url, a.connect = asked, *r.URL, r.Method == http.MethodConnect
	*r = *r.WithContext(ctx)
}

// finish ends the watch of an answer that is over.
func (a *answerWatch) finish() {
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
	if a.handler == nil || (!a.connect && !isEventStream(header)) {
		return
	}
	stream := a.openStream(a.end)
	a.mu.Lock()
	a.stream = stream
	a.mu.Unlock()
	a.watch(stream)
}

func isEventStream(header http.Header) bool {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	return err == nil && kind == "text/event-stream"
}

// sawWebSocket gives the connection of a WebSocket as one that is watched. The client
// has sent these bytes already.
func (a *answerWatch) sawWebSocket(conn net.Conn, sent []byte) net.Conn {
	watched := &webSocketConn{Conn: conn, hangUp: a.hangUp}
	watched.fromClient.readAll(sent)
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
		h.state.endAllStreams(stream.session.id.hash())
	}
}

func (a *answerWatch) openStream(end func(streamEnd)) *openStream {
	return &openStream{handler: a.handler, session: a.visit.session, sent: a.visit.sent, asked: a.asked, url: a.url, end: end}
}
