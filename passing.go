package tollgate

import (
	"net/http"
	"net/url"

	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/relay"
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
