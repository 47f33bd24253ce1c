package charging

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// ErrNoResponse is the error of a handler that has panicked.
var ErrNoResponse = errors.New("the next handler did not return")

// Call is an admitted request that is passed on.
type Call struct {
	holds   *Holds
	session *session.Session
	held    *spending.Held
	ctx     context.Context
	path    string
	// sent is true if the request got a connection to an upstream.
	sent atomic.Bool
}

// Begin is called before an admitted request is passed on. path is the path that the client
// sent. The caller calls End when the response has ended.
func (hs *Holds) Begin(r *http.Request, s *session.Session, path string, held *spending.Held) *Call {
	c := &Call{holds: hs, session: s, held: held, ctx: context.WithoutCancel(r.Context()), path: path}
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { c.sent.Store(true) }}
	*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), trace)) // in place: later directives change r
	return c
}

// End settles the request when its response has ended, with or without an error. err is the
// error of the next handler. A request that was cut off is settled after Ledgers.CutPause.
func (c *Call) End(rw *relay.Writer, err error) {
	word, cost, goesOn := c.verdict(rw, err)
	if !goesOn || c.held.Amount().IsZero() {
		c.settle(c.ctx, word, cost)
		return
	}
	later := Call{holds: c.holds, session: c.session, held: c.held} // it keeps nothing of the request
	time.AfterFunc(c.holds.ledgers.CutPause, func() { later.settle(context.Background(), word, cost) })
}

// verdict says what the request has cost. If it has cost something, and nobody says how much,
// it is the amount that it holds: a client that leaves before the end, or makes the upstream
// say nonsense, must not spend more than its budget. goesOn is true if the upstream may still
// spend money for the request.
func (c *Call) verdict(rw *relay.Writer, err error) (word spending.Word, cost spending.Amount, goesOn bool) {
	values, status := rw.Cost()
	cut := err != nil
	if status == 0 || status == clientClosed {
		status, cut = c.statusWithout(err), true
	}
	word, cost, fault := spending.Verdict(values, status)
	switch {
	case fault != nil:
		c.warnOfFault(fault)
		return spending.Costs, c.held.Amount(), cut
	case word != spending.Unsaid:
		return word, cost, false
	case cut:
		return spending.Costs, c.held.Amount(), true
	default: // a WebSocket ends in the middle of whatever the upstream does
		return word, cost, rw.IsWebSocket()
	}
}

func (c *Call) warnOfFault(fault error) {
	hs := c.holds
	if requests, due := hs.ledgers.costFaults.Next(hs.now()); due {
		hs.logger.Warn("the upstream's Tollgate-Cost cannot be used; the request counts with what it holds",
			zap.Int("requests", requests), zap.String("path", c.path), zap.Error(fault))
	}
}

// settle books what the request has cost, and frees its hold.
func (c *Call) settle(ctx context.Context, word spending.Word, cost spending.Amount) {
	hs := c.holds
	settled, err := c.held.Settle(ctx, word, cost)
	if err != nil {
		if requests, due := hs.ledgers.unwritten.Next(hs.now()); due {
			hs.logger.Error("what a request cost could not be booked yet; retrying", zap.Int("requests", requests), zap.Error(err))
		}
		return
	}
	if settled.OverHold && !c.held.Amount().IsZero() {
		hs.ledgers.metrics.CountCostOverHold()
		if requests, due := hs.ledgers.overHolds.Next(hs.now()); due {
			hs.logger.Warn("a request has cost more than it held; raise `reserve`", zap.Int("requests", requests),
				zap.String("path", c.path), zap.Stringer("cost", cost), zap.Stringer("held", c.held.Amount()))
		}
	}
	if settled.NeedsReading {
		hs.users.ReadSoon(ctx, c.session, hs.reader(c.session))
	}
}

// clientClosed is the status that reverse_proxy reports if the client has left.
const clientClosed = 499

// statusWithout is the status that counts for a request without a response. If the upstream
// may have worked on the request, it is 200, so that the request counts: a client that leaves
// does not get its calls for free. If an upstream crashes during a call, the retry fails to
// connect, but the upstream has worked on the request.
func (c *Call) statusWithout(err error) int {
	if c.sent.Load() {
		return http.StatusOK
	}
	if _, failed := errors.AsType[reverseproxy.DialError](err); failed {
		return http.StatusBadGateway
	}
	if answered, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		switch answered.StatusCode {
		case 0, clientClosed, http.StatusBadGateway, http.StatusGatewayTimeout: // of a transport, which does not know whether the upstream worked
		default:
			return answered.StatusCode
		}
	}
	return http.StatusOK
}
