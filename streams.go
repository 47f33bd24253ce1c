package tollgate

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// passing is a request of a session whose answer is on its way to the client.
type passing struct {
	// handler serves it. After a reload it is a former one.
	handler *Handler
	visit   *visit
	request *http.Request
	// asked is what the request demands, original the URL that the client sent, and url
	// the one that stood here, before later handlers rewrite it.
	asked    policy.Demand
	original *url.URL
	url      url.URL
}

func (p *passing) NewCookies() []string {
	if p.visit.dead {
		return p.handler.deadCookies(p.visit)
	}
	return p.handler.renewedCookies(p.request.Context(), p.visit)
}

func (p *passing) BalanceChanged() {
	h, s := p.handler, p.visit.session
	if s == nil {
		return // an anonymous request spends nobody's money
	}
	h.users.Outdate(s)
	h.state.streams.LookBefore(s.ID.Hash(), balanceLook)
}

// Stream has a stream ended with its session. The session may have ended since the
// request was decided.
func (p *passing) OpenStream(end func(relay.End)) (closed func()) {
	h, s := p.handler, p.visit.session
	stream := &relay.Stream[*passing]{Session: s.ID.Hash(), Owner: p, End: end}
	h.state.streams.Add(stream, lookInterval(h.recheckInterval(), s.ID), h.state.recheckStreams)
	if _, live := h.state.sessions.Latest(s); !live {
		h.state.endAllStreams(stream.Session)
	}
	return func() { h.state.streams.Remove(stream) }
}

// Interface guard.
var _ relay.Owner = (*passing)(nil)

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
	open := s.streams.BeginLook(name)
	if len(open) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookPatience)
	defer cancel()
	looks := make(map[*Handler]*streamLook)
	ends := make(map[relay.End][]*relay.Stream[*passing])
	every := time.Duration(math.MaxInt64)
	for _, stream := range open {
		h := handlers[0]
		if slices.Contains(handlers, stream.Owner.handler) {
			h = stream.Owner.handler
		}
		look, ok := looks[h]
		if !ok {
			look = h.lookAtSession(ctx, stream.Owner.visit.sent)
			looks[h] = look
			every = min(every, lookInterval(h.recheckInterval(), stream.Owner.visit.session.ID))
		}
		if why := look.at(ctx, stream); why != nil {
			ends[*why] = append(ends[*why], stream)
		}
	}
	s.streams.EndLook(name, every)
	for why, which := range ends {
		s.endStreams(name, which, why)
	}
}

// endStreams ends streams of a session, and writes down how many.
func (s *shared) endStreams(name string, which []*relay.Stream[*passing], why relay.End) {
	ended := s.streams.End(name, which, why)
	if ended == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.handlers) > 0 {
		s.handlers[len(s.handlers)-1].logger.Info("streams ended",
			zap.String("session", name), zap.Int("streams", ended), zap.String("reason", why.Reason))
	}
}

// endAllStreams ends the streams of a session that is over.
func (s *shared) endAllStreams(name string) {
	s.endStreams(name, s.streams.Of(name), relay.SessionOver)
}

// sessionEnds ends the streams of a session at the moment at which it ends.
func (s *shared) sessionEnds(id session.ID, from time.Time) {
	if wait := from.Sub(s.sessions.Now()); wait > 0 {
		s.streams.LookBefore(id.Hash(), wait)
		return
	}
	s.endAllStreams(id.Hash())
}

// recheckInterval is how often a session with open streams is looked at: often enough
// that their use is written down before an idle timeout.
func (h *Handler) recheckInterval() time.Duration {
	if h.settings.idleTimeout > 0 {
		return min(h.settings.streamRecheck, h.settings.idleTimeout/2)
	}
	return h.settings.streamRecheck
}

// streamLook is one look at a session with open streams.
type streamLook struct {
	handler *Handler
	visit   *visit
	// unknown: nobody can tell now how the session is.
	unknown bool
	// decided holds what was decided for the streams so far: many demand the same.
	decided map[policy.Blocks]*relay.End
}

// lookAtSession opens a session as a request would. An open stream is use of it: no
// idle timeout ends it.
func (h *Handler) lookAtSession(ctx context.Context, sent browser.Sent) *streamLook {
	v := &visit{sent: sent, streaming: true}
	err := h.openSession(ctx, v)
	switch now := h.now(); {
	case err != nil:
		h.logFault(ctx, err)
	case v.session != nil && h.tickets != nil && v.session.SlideDue(now, h.settings.idleTimeout):
		h.noteSeen(ctx, v.session.Seen(now))
	}
	return &streamLook{handler: h, visit: v, unknown: err != nil, decided: make(map[policy.Blocks]*relay.End)}
}

// at says why a stream ends, or nil when it goes on. It carries an identity: where that
// ends, the stream does, also where others may be without one.
func (l *streamLook) at(ctx context.Context, stream *relay.Stream[*passing]) *relay.End {
	switch {
	case l.unknown:
		return nil
	case l.visit.session == nil:
		return &relay.SessionOver
	}
	which := l.handler.demandOf(stream).Blocks
	why, ok := l.decided[which]
	if !ok {
		why = streamEndOf(l.handler.judge(ctx, l.visit, which))
		l.decided[which] = why
	}
	return why
}

// demandOf is what a stream's two paths demand under this configuration. An ambiguous
// one demands everything.
func (h *Handler) demandOf(stream *relay.Stream[*passing]) policy.Demand {
	if h == stream.Owner.handler {
		return stream.Owner.asked
	}
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	asked := &http.Request{Method: http.MethodGet, URL: &stream.Owner.url}
	demand, unambiguous := h.routes.Demand(stream.Owner.original, asked.WithContext(ctx))
	if !unambiguous {
		return h.routes.Strictest()
	}
	return demand
}

// streamEndOf says why a stream ends if a request like its own got this decision now. It is
// nil if the stream goes on: also while the store or the provider cannot be reached, and
// while the balance is unknown, because nobody knows that it has fallen.
func streamEndOf(decided decision) *relay.End {
	switch {
	case decided.verdict == verdictLogin:
		return &relay.SessionOver
	case decided.verdict == verdictRefused:
		return &relay.Refused
	case decided.verdict == verdictLacking && decided.short.Balance != nil:
		return &relay.Unpaid
	default:
		return nil
	}
}

// lookInterval is how long a session is not looked at: a little less than the recheck
// interval, and by another part of it for each session, so that not all ask at once.
func lookInterval(recheck time.Duration, id session.ID) time.Duration {
	return recheck - recheck/5*time.Duration(id[0])/256
}
