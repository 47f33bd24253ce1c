package tollgate

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// Bounds of what is remembered of sessions in this process, each until the
// session's absolute end. A remembered session takes about two kilobytes, an
// ended one well under two hundred bytes.
const (
	maxRemembered = 100_000
	maxEnded      = 1_000_000
)

// errSessionEnded: the provider said `invalid_grant`, or the session was ended.
var errSessionEnded = errors.New("the session has ended")

// registry is what this process remembers of sessions beyond the cookies that browsers
// send, across config reloads: the newest generation of each session that was renewed
// here, and which sessions have ended.
//
// A browser that comes with an older cookie (its response was lost, its tab was closed, it
// was restored from a crash) goes on with the newest tokens. With the cookie store this
// memory is the only one: it ends with the process, and above maxRemembered sessions the
// least used ones are forgotten.
type registry struct {
	newest *otter.Cache[sessionID, *session]
	ended  *otter.Cache[sessionID, ending]
	// version counts the changes of newest and ended. A caller that sees it unchanged need
	// not ask again.
	version atomic.Uint64
	now     func() time.Time
	// onEnd is called for each end of a session, with the moment from which it counts.
	onEnd func(id sessionID, from time.Time)
}

// ending says from when a session is no session any more, and until when that
// has to be remembered.
type ending struct {
	from  time.Time
	until time.Time
}

func newRegistry(now func() time.Time, onEnd func(id sessionID, from time.Time)) *registry {
	return &registry{
		now:   now,
		onEnd: onEnd,
		newest: otter.Must(&otter.Options[sessionID, *session]{
			MaximumSize: maxRemembered,
			ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[sessionID, *session]) time.Duration {
				return e.Value.created.Add(maxLifetime).Sub(now())
			}),
		}),
		ended: otter.Must(&otter.Options[sessionID, ending]{
			MaximumSize: maxEnded,
			ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[sessionID, ending]) time.Duration {
				return e.Value.until.Sub(now())
			}),
		}),
	}
}

// latest is the newest known generation of s, or false when s has ended.
func (r *registry) latest(s *session) (*session, bool) {
	if end, ok := r.ended.GetIfPresent(s.id); ok && !r.now().Before(end.from) {
		return nil, false
	}
	if newest, ok := r.newest.GetIfPresent(s.id); ok && newest.generation > s.generation {
		return newest, true
	}
	return s, true
}

// endGrace is how long a session lives on that the same user's next sign-in in
// the same browser replaced: requests that are under way with the old cookie are
// still answered.
const endGrace = 30 * time.Second

// end makes s no session any more, from the given moment on, in each of its
// generations. An earlier end stays.
func (r *registry) end(s *session, from time.Time) {
	r.ended.Compute(s.id, func(old ending, found bool) (ending, otter.ComputeOp) {
		if found && old.from.Before(from) {
			return old, otter.CancelOp
		}
		return ending{from: from, until: s.created.Add(maxLifetime)}, otter.WriteOp
	})
	r.version.Add(1)
	r.onEnd(s.id, from)
}

// isEnding reports whether an end of s is known, even one that is still to come.
func (r *registry) isEnding(s *session) bool {
	_, ok := r.ended.GetIfPresent(s.id)
	return ok
}

// remember makes s the newest generation that is known of its session, unless a newer
// one is.
func (r *registry) remember(s *session) {
	defer r.version.Add(1)
	r.newest.Compute(s.id, func(old *session, found bool) (*session, otter.ComputeOp) {
		if found && old.generation > s.generation {
			return old, otter.CancelOp
		}
		return s, otter.WriteOp
	})
}

// close stops the housekeeping of the tables. Requests that are still being served may go
// on using them.
func (r *registry) close() {
	r.newest.StopAllGoroutines()
	r.ended.StopAllGoroutines()
}
