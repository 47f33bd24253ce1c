package session

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
	MaxRemembered = 100_000
	maxEnded      = 1_000_000
)

// ErrEnded: the provider said `invalid_grant`, or the session was ended.
var ErrEnded = errors.New("the session has ended")

// Registry is what this process remembers of sessions beyond the cookies that browsers
// send, across config reloads: the newest generation of each session that was renewed
// here, and which sessions have ended.
//
// A browser that comes with an older cookie (its response was lost, its tab was closed, it
// was restored from a crash) goes on with the newest tokens. With the cookie store this
// memory is the only one: it ends with the process, and above MaxRemembered sessions the
// least used ones are forgotten.
type Registry struct {
	Newest *otter.Cache[ID, *Session]
	ended  *otter.Cache[ID, ending]
	// Version counts the changes of newest and ended. A caller that sees it unchanged need
	// not ask again.
	Version atomic.Uint64
	Now     func() time.Time
	// onEnd is called for each end of a session, with the moment from which it counts.
	onEnd func(id ID, from time.Time)
}

// ending says from when a session is no session any more, and until when that
// has to be remembered.
type ending struct {
	from  time.Time
	until time.Time
}

func NewRegistry(now func() time.Time, onEnd func(id ID, from time.Time)) *Registry {
	return &Registry{
		Now:   now,
		onEnd: onEnd,
		Newest: otter.Must(&otter.Options[ID, *Session]{
			MaximumSize: MaxRemembered,
			ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[ID, *Session]) time.Duration {
				return e.Value.Created.Add(MaxLifetime).Sub(now())
			}),
		}),
		ended: otter.Must(&otter.Options[ID, ending]{
			MaximumSize: maxEnded,
			ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[ID, ending]) time.Duration {
				return e.Value.until.Sub(now())
			}),
		}),
	}
}

// Latest is the newest known generation of s, or false when s has ended.
func (r *Registry) Latest(s *Session) (*Session, bool) {
	if end, ok := r.ended.GetIfPresent(s.ID); ok && !r.Now().Before(end.from) {
		return nil, false
	}
	if newest, ok := r.Newest.GetIfPresent(s.ID); ok && newest.Generation > s.Generation {
		return newest, true
	}
	return s, true
}

// EndGrace is how long a session lives on that the same user's next sign-in in
// the same browser replaced: requests that are under way with the old cookie are
// still answered.
const EndGrace = 30 * time.Second

// End makes s no session any more, from the given moment on, in each of its
// generations. An earlier end stays.
func (r *Registry) End(s *Session, from time.Time) {
	r.ended.Compute(s.ID, func(old ending, found bool) (ending, otter.ComputeOp) {
		if found && old.from.Before(from) {
			return old, otter.CancelOp
		}
		return ending{from: from, until: s.Created.Add(MaxLifetime)}, otter.WriteOp
	})
	r.Version.Add(1)
	r.onEnd(s.ID, from)
}

// IsEnding reports whether an end of s is known, even one that is still to come.
func (r *Registry) IsEnding(s *Session) bool {
	_, ok := r.ended.GetIfPresent(s.ID)
	return ok
}

// Remember makes s the newest generation that is known of its session, unless a newer
// one is.
func (r *Registry) Remember(s *Session) {
	defer r.Version.Add(1)
	r.Newest.Compute(s.ID, func(old *Session, found bool) (*Session, otter.ComputeOp) {
		if found && old.Generation > s.Generation {
			return old, otter.CancelOp
		}
		return s, otter.WriteOp
	})
}

// Close stops the housekeeping of the tables. Requests that are still being served may go
// on using them.
func (r *Registry) Close() {
	r.Newest.StopAllGoroutines()
	r.ended.StopAllGoroutines()
}
