package charging

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// ErrNoResponse stands for a handler that has panicked.
var ErrNoResponse = errors.New("the next handler did not return")

// Settle ends what a request of a session holds, when its response has ended: in whatever
// way. path is the path that the client asked for, and err is the error of the next handler.
func (hs *Holds) Settle(ctx context.Context, s *session.Session, path string, held *spending.Held, rw *relay.Writer, err error) {
	values, status := rw.Cost()
	if status == 0 || status == clientClosed {
		status = statusWithout(err)
	}
	word, cost, fault := spending.Verdict(values, status)
	if fault != nil {
		if requests, due := hs.ledgers.costFaults.Next(hs.now()); due {
			hs.logger.Warn("the upstream's Tollgate-Cost cannot be used; the request counts with what it holds until the balance is read again",
				zap.Int("requests", requests), zap.String("path", path), zap.Error(fault))
		}
	}
	settled, err := held.Settle(context.WithoutCancel(ctx), word, cost)
	if err != nil {
		if requests, due := hs.ledgers.unwritten.Next(hs.now()); due {
			hs.logger.Error("what a request cost could not be booked yet; retrying", zap.Int("requests", requests), zap.Error(err))
		}
		return
	}
	if settled.OverHold && !held.Amount().IsZero() {
		if requests, due := hs.ledgers.overHolds.Next(hs.now()); due {
			hs.logger.Warn("a request has cost more than it held; raise `reserve`", zap.Int("requests", requests),
				zap.String("path", path), zap.Stringer("cost", cost), zap.Stringer("held", held.Amount()))
		}
	}
	if settled.NeedsReading {
		hs.users.ReadSoon(s, hs.reader(s))
	}
}

// clientClosed is the status that reverse_proxy notes if the client has left.
const clientClosed = 499

// statusWithout is the status that counts for a request without a response. If the upstream
// may have worked on the request, it is 200, so that the hold stays until the balance is
// read: a client that leaves does not get its calls for nothing.
func statusWithout(err error) int {
	if _, failed := errors.AsType[reverseproxy.DialError](err); failed {
		return http.StatusBadGateway
	}
	if answered, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		switch answered.StatusCode {
		case 0, clientClosed, http.StatusBadGateway, http.StatusGatewayTimeout:
		default:
			return answered.StatusCode
		}
	}
	return http.StatusOK
}
