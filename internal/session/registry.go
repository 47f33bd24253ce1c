package session

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	// MaxRemembered is the maximum number of renewed sessions that this process remembers,
	// each until its absolute end. One takes about two kilobytes.
	MaxRemembered = 100_000
	// maxEnded is the same for ended sessions. One takes less than 200 bytes.
	maxEnded = 1_000_000
)

// ErrEnded says that the session has ended: the provider answered `invalid_grant`, or
// somebody ended the session.
var ErrEnded = errors.New("the session has ended")

// Registry remembers, across config reloads, the newest generation of each session that
// this process renewed, and which sessions have ended.
//
// A browser may send an older cookie: its response was lost, its tab was closed, or it was
// restored after a crash. It continues with the newest tokens. With the cookie store
// nothing else remembers them: the registry ends with the process, and above MaxRemembered
// sessions it forgets the least used ones.
type Registry struct {
	// newest holds the newest generation of each renewed session.
	newest *otter.Cache[ID, *Session]
	ended  *otter.Cache[ID, ending]
	// Version counts the changes of newest and ended. While it is unchanged, a caller
	// need not check again.
	Version atomic.Uint64
	now     func() time.Time
	// onEnd is called for each end of a session, with the time from which it counts.
	onEnd func(id ID, from time.Time)
}

// ending says when a session ends, and until when that must be remembered.
type ending struct {
	from  time.Time
	until time.Time
}

// NewRegistry returns an empty registry, which the caller must close. It calls onEnd for
// each end of a session, with the time from which the end counts.
func NewRegistry(now func() time.Time, onEnd func(id ID, from time.Time)) *Registry {
	return &Registry{
		now:   now,
		onEnd: onEnd,
		newest: otter.Must(&otter.Options[ID, *Session]{
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

// Latest returns the newest known generation of s. ok is false if s has ended.
func (r *Registry) Latest(s *Session) (latest *Session, ok bool) {
	if end, ok := r.ended.GetIfPresent(s.ID); ok && !r.now().Before(end.from) {
		return nil, false
	}
	if newest, ok := r.newest.GetIfPresent(s.ID); ok && newest.Generation > s.Generation {
		return newest, true
	}
	return s, true
}

// EndGrace is how long a session lives after the same user's next sign-in in the same
// browser has replaced it. Requests that were already sent with the old cookie still work.
const EndGrace = 30 * time.Second

// End ends s, in all its generations, at the given time. An earlier end stays.
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

// IsEnding reports whether s has ended or will end at a known time.
func (r *Registry) IsEnding(s *Session) bool {
	_, ok := r.ended.GetIfPresent(s.ID)
	return ok
}

// Remember makes s the newest known generation of its session, unless a newer one is known.
func (r *Registry) Remember(s *Session) {
	defer r.Version.Add(1)
	r.newest.Compute(s.ID, func(old *Session, found bool) (*Session, otter.ComputeOp) {
		if found && old.Generation > s.Generation {
			return old, otter.CancelOp
		}
		return s, otter.WriteOp
	})
}

// Close stops the background work of the tables. Requests that are still being served may
// use the registry afterwards.
func (r *Registry) Close() {
	r.newest.StopAllGoroutines()
	r.ended.StopAllGoroutines()
}
