package tollgate

import (
	"net/http"
	"net/url"
)

// passing is a request of a session whose answer is on its way to the client.
type passing struct {
	// handler serves it. After a reload it is a former one.
	handler *Handler
	visit   *visit
	request *http.Request
	// asked is what the request demands, original the URL that the client sent, and url
	// the one that stood here, before later handlers rewrite it.
	asked    demand
	original *url.URL
	url      url.URL
}

func (p *passing) newCookies() []string {
	if p.visit.dead {
		return p.handler.deadCookies(p.visit)
	}
	return p.handler.renewedCookies(p.request.Context(), p.visit)
}

func (p *passing) balanceChanged() {
	h, s := p.handler, p.visit.session
	if s == nil {
		return // an anonymous request spends nobody's money
	}
	h.users.outdate(s)
	h.state.streams.lookBefore(s.id.hash(), balanceLook)
}

// openStream has a stream ended with its session. The session may have ended since the
// request was decided.
func (p *passing) openStream(end func(streamEnd)) (closed func()) {
	h, s := p.handler, p.visit.session
	stream := &openStream[*passing]{session: s.id.hash(), owner: p, end: end}
	h.state.streams.add(stream, lookInterval(h.recheckInterval(), s.id), h.state.recheckStreams)
	if _, live := h.state.sessions.latest(s); !live {
		h.state.endAllStreams(stream.session)
	}
	return func() { h.state.streams.remove(stream) }
}

// Interface guard.
var _ answerOwner = (*passing)(nil)
