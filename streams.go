package tollgate

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// passing is a forwarded request whose response is on its way to the client.
type passing struct {
	// handler serves the request. After a reload it is the handler of the old configuration.
	handler *Handler
	visit   *visit
	request *http.Request
	// asked is the demand of the request's paths. original is the URL that the client sent.
	// url is the URL when the request reached tollgate, before later handlers rewrite it.
	asked    policy.Demand
	original *url.URL
	url      url.URL
}

// NewCookies implements relay.Owner.
func (p *passing) NewCookies() []string {
	if p.visit.dead {
		return p.handler.sessions.deadCookies(p.visit)
	}
	return p.handler.sessions.renewedCookies(p.request.Context(), p.visit)
}

// BalanceChanged implements relay.Owner.
func (p *passing) BalanceChanged() {
	h, s := p.handler, p.visit.session
	if s == nil {
		return // an anonymous request has no balance
	}
	h.tokens.users.Outdate(s)
	h.state.streams.LookBefore(s.ID.Hash(), balanceLook)
}

// noteCost has the balance read again if the response said that it cost something, and no
// hold is settled by that.
func (p *passing) noteCost(rw *relay.Writer) {
	if values, _ := rw.Cost(); len(values) > 0 {
		p.BalanceChanged()
	}
}

// OpenStream implements relay.Owner. It registers a stream, so that the stream ends with its
// session. The session may have ended since the request was decided.
func (p *passing) OpenStream(end func(relay.End)) (closed func()) {
	h, s := p.handler, p.visit.session
	stream := &relay.Stream[*passing]{Session: s.ID.Hash(), Owner: p, End: end}
	h.state.streams.Add(stream, relay.CheckInterval(h.settings.recheckInterval(), s.ID), h.state.recheckStreams)
	if _, live := h.state.sessions.Latest(s); !live {
		h.state.endAllStreams(stream.Session)
	}
	return func() { h.state.streams.Remove(stream) }
}

// Interface guard.
var _ relay.Owner = (*passing)(nil)

const (
	// lookTimeout limits one check of a session with open streams.
	lookTimeout = 30 * time.Second
	// balanceLook is the delay between the upstream's message that the balance has changed
	// and the check of the session's streams. Repeated messages within this time cause one
	// check.
	balanceLook = time.Second
)

// recheckStreams checks a session that has open streams in the same way as a new request of that
// session. It refreshes the tokens if that is due. It ends each stream whose request would
// not pass any more. After a reload the new configuration decides. The session is opened
// once and the balance is read once, however many streams there are.
func (s *siteState) recheckStreams(name string) {
	handlers, release := s.heldHandlers()
	defer release()
	if len(handlers) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	looks := make(map[*Handler]*streamLook)
	ended := s.streams.Check(name, func(stream *relay.Stream[*passing]) (*relay.End, time.Duration) {
		h := handlers[0]
		if slices.Contains(handlers, stream.Owner.handler) {
			h = stream.Owner.handler
		}
		look, ok := looks[h]
		if !ok {
			look = newStreamLook(ctx, h, stream.Owner.visit)
			looks[h] = look
		}
		return look.at(ctx, stream), look.every
	})
	for why, streams := range ended {
		s.logEnded(name, streams, why)
	}
}

// logEnded logs how many streams of a session were ended.
func (s *siteState) logEnded(name string, streams int, why relay.End) {
	if logger := s.newestLogger(); logger != nil && streams > 0 {
		logger.Info("streams ended",
			zap.String("session", name), zap.Int("streams", streams), zap.String("reason", why.Reason))
	}
}

// endAllStreams ends the streams of a session that is over.
func (s *siteState) endAllStreams(name string) {
	s.logEnded(name, s.streams.End(name, relay.SessionOver), relay.SessionOver)
}

// sessionEnds ends the streams of a session when the session ends: now, or later if from is
// in the future.
func (s *siteState) sessionEnds(id session.ID, from time.Time) {
	if wait := from.Sub(s.now()); wait > 0 {
		s.streams.LookBefore(id.Hash(), wait)
		return
	}
	s.endAllStreams(id.Hash())
}

// recheckInterval gives the interval at which a session with open streams is checked. It is
// at most half the idle timeout, so that the streams' use is saved in time.
func (s *settings) recheckInterval() time.Duration {
	if s.idleTimeout > 0 {
		return min(s.streamRecheck, s.idleTimeout/2)
	}
	return s.streamRecheck
}

// streamLook is one check of a session with open streams.
type streamLook struct {
	handler *Handler
	visit   *visit
	// unknown reports whether the session could not be read, because the store or the
	// provider does not answer.
	unknown bool
	// decided caches the decision per set of require blocks: many streams share one. A nil
	// entry means that the stream goes on.
	decided map[policy.Blocks]*relay.End
	// every is the interval of the checks.
	every time.Duration
}

// newStreamLook opens a session as a request would. Open streams count as use, so the idle
// timeout does not end the session.
func newStreamLook(ctx context.Context, h *Handler, opened *visit) *streamLook {
	v := &visit{sent: opened.sent, streaming: true}
	err := h.sessions.open(ctx, v)
	switch now := h.now(); {
	case err != nil:
		h.audit.Fault(ctx, nil, err)
	case v.session != nil && h.store.Deliver(session.Change{Used: v.session.SlideDue(now, h.settings.idleTimeout)}).Save:
		h.sessions.saveSeen(ctx, v.session, now)
	}
	return &streamLook{
		handler: h, visit: v, unknown: err != nil, decided: make(map[policy.Blocks]*relay.End),
		every: relay.CheckInterval(h.settings.recheckInterval(), opened.session.ID),
	}
}

// at gives the reason why a stream ends. It is nil if the stream goes on. A stream that was
// forwarded with an identity ends with its session, also on an optional path.
func (l *streamLook) at(ctx context.Context, stream *relay.Stream[*passing]) *relay.End {
	switch {
	case l.unknown:
		return nil
	case l.visit.session == nil:
		return &relay.SessionOver
	}
	which := l.demandOf(stream.Owner).Blocks
	why, ok := l.decided[which]
	if !ok {
		why = streamEndOf(l.handler.decider.judge(ctx, l.visit, which))
		l.decided[which] = why
	}
	return why
}

// demandOf gives the demand of a stream's two paths under this configuration. If a path is
// ambiguous, it is the strictest demand.
func (l *streamLook) demandOf(owner *passing) policy.Demand {
	if l.handler == owner.handler {
		return owner.asked
	}
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	asked := &http.Request{Method: http.MethodGet, URL: &owner.url}
	demand, unambiguous := l.handler.routes.Demand(owner.original, asked.WithContext(ctx))
	if !unambiguous {
		return l.handler.routes.Strictest()
	}
	return demand
}

// streamEndOf gives the reason why a stream ends after this decision. It is nil if the stream
// goes on. A stream also goes on while the store or the provider cannot be reached, and while
// the balance is unknown, because an unknown balance may still be high enough.
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
