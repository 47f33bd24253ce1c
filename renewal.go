package tollgate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
)

// Back-off after a refresh that failed. While the access token is still valid
// nobody waits for the next try; afterwards people do.
const (
	backOffValid   = 30 * time.Second
	backOffExpired = 2 * time.Second
	// backOffRefused is the pause after a definite refusal, whether or not the access
	// token is valid: nobody waits for the next try, since people are sent to the sign-in.
	backOffRefused = 30 * time.Second
)

// Bounds of what is remembered of sessions in this process, each until the
// session's absolute end. A remembered session takes about two kilobytes, an
// ended one well under two hundred bytes.
const (
	maxSuccessors = 100_000
	maxEnded      = 1_000_000
)

// errSessionEnded: the provider said `invalid_grant`, or the session was ended.
var errSessionEnded = errors.New("the session has ended")

// renewals makes sure that a refresh token is spent once, however many requests
// ask, however old the cookies are that they carry, and across config reloads.
//
// It remembers the newest generation of each session that was renewed here, so a
// browser that comes with an older cookie (its answer was lost, its tab was
// closed, it was restored from a crash) goes on with the newest tokens and never
// makes anybody spend the old ones again. With the cookie store this memory is
// the process's own: it ends with the process, and above maxSuccessors sessions
// the ones used least are forgotten.
type renewals struct {
	flights singleflight.Group
	// flying holds the sessions whose refresh is under way, so that requests that
	// need not wait for it do not queue up behind it.
	flying sync.Map // of sessionID
	// restoring holds the sessions that are being written down once more.
	restoring sync.Map // of sessionID
	newest    *otter.Cache[sessionID, *session]
	ended     *otter.Cache[sessionID, ending]
	failures  *otter.Cache[sessionID, refreshFailure]
	// version counts the changes of newest and ended: who sees it unchanged need not
	// ask again.
	version atomic.Uint64
	// running counts what must not be cut off: refreshes, and tokens that are not
	// written down yet.
	running atomic.Int64
	// closed is closed when nobody waits for these any more.
	closed chan struct{}
	now    func() time.Time
	// tell is told of each end of a session, from when on it counts.
	tell func(id sessionID, from time.Time)
}

// ending says from when a session is no session any more, and until when that
// has to be remembered.
type ending struct {
	from  time.Time
	until time.Time
}

// refreshFailure is the last refresh of a session that failed.
type refreshFailure struct {
	at         time.Time
	generation uint64
	err        error
	// unanswered: the refresh token went out and nothing came back.
	unanswered bool
}

func newRenewals(now func() time.Time) *renewals {
	return &renewals{
		newest: otter.Must(&otter.Options[sessionID, *session]{
			MaximumSize: maxSuccessors,
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
		failures: otter.Must(&otter.Options[sessionID, refreshFailure]{MaximumSize: maxSuccessors}),
		closed:   make(chan struct{}),
		now:      now,
	}
}

// latest is the newest known generation of s, or false when s has ended.
func (r *renewals) latest(s *session) (*session, bool) {
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
func (r *renewals) end(s *session, from time.Time) {
	r.ended.Compute(s.id, func(old ending, found bool) (ending, otter.ComputeOp) {
		if found && old.from.Before(from) {
			return old, otter.CancelOp
		}
		return ending{from: from, until: s.created.Add(maxLifetime)}, otter.WriteOp
	})
	r.version.Add(1)
	if r.tell != nil {
		r.tell(s.id, from)
	}
}

// isEnding reports whether an end of s is known, even one that is still to come.
func (r *renewals) isEnding(s *session) bool {
	_, ok := r.ended.GetIfPresent(s.id)
	return ok
}

// remember makes s the newest generation that is known of its session, unless a newer
// one is.
func (r *renewals) remember(s *session) {
	defer r.version.Add(1)
	r.newest.Compute(s.id, func(old *session, found bool) (*session, otter.ComputeOp) {
		if found && old.generation > s.generation {
			return old, otter.CancelOp
		}
		return s, otter.WriteOp
	})
}

// renewal is how the tokens of one session are renewed.
type renewal struct {
	// spend spends the refresh token. It may give new tokens and an error both.
	spend func(context.Context, tokens) (tokens, error)
	// store is the server-side store that keeps the session, or nil. The processes that
	// share it share the one refresh.
	store *ticketStore
	// patience is how long anybody waits for the refresh: a little more than one takes.
	patience time.Duration
	// lease is how long a lock between processes lasts that is not renewed.
	lease time.Duration
	// unsaved is told why what came of the refresh could not be written down at once.
	unsaved func(error)
	// abandoned is told of new tokens whose session has ended meanwhile.
	abandoned func(*session)
}

// start begins a refresh of s unless one is under way, and returns at once.
func (r *renewals) start(s *session, how renewal) {
	if _, flying := r.flying.Load(s.id); !flying && r.backingOff(s) == nil {
		r.fly(s, how)
	}
}

// wait refreshes s, or joins the refresh that is under way, and waits for its end
// or the caller's. The refresh itself runs on a context of its own: a browser that
// goes away cannot lose a rotated token.
func (r *renewals) wait(ctx context.Context, s *session, how renewal) (*session, error) {
	if err := r.backingOff(s); err != nil {
		return nil, err
	}
	select {
	case done := <-r.fly(s, how):
		if done.Err != nil {
			return nil, done.Err
		}
		return done.Val.(*session), nil
	case <-time.After(how.patience):
		return nil, errRefreshUnknown
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fly runs the one refresh of a session. Who comes late, with an older cookie or
// after the flight has landed, gets the successor and spends nothing.
func (r *renewals) fly(s *session, how renewal) <-chan singleflight.Result {
	return r.flights.DoChan(string(s.id[:]), func() (any, error) {
		r.running.Add(1)
		defer r.running.Add(-1)
		r.flying.Store(s.id, nil)
		defer r.flying.Delete(s.id)
		newest, live := r.latest(s)
		if !live {
			return nil, errSessionEnded
		}
		if newest.generation > s.generation {
			return newest, nil
		}
		if err := r.backingOff(s); err != nil {
			return nil, err
		}
		return r.refresh(s, how)
	})
}

// refresh spends the refresh token and remembers what came of it, before anybody
// uses it.
func (r *renewals) refresh(s *session, how renewal) (renewed *session, err error) {
	if how.store != nil {
		renewed, err = r.refreshShared(s, how)
	} else {
		renewed, err = r.spend(s, how)
	}
	if err == nil {
		r.failures.Invalidate(s.id)
		return renewed, nil
	}
	if failureOf(err) == failureEnded || errors.Is(err, errSessionEnded) {
		r.end(s, r.now())
		return nil, errors.Join(errSessionEnded, err)
	}
	r.failures.Set(s.id, refreshFailure{
		at:         r.now(),
		generation: renewed.generation,
		err:        err,
		unanswered: failureOf(err) == failureUnanswered,
	})
	return nil, err
}

// spend spends the refresh token of s. It gives the newest generation there is, also
// beside an error.
func (r *renewals) spend(s *session, how renewal) (*session, error) {
	renewed, err := how.spend(context.Background(), s.tokens)
	if renewed != s.tokens {
		s = s.renewed(renewed)
		r.remember(s)
	}
	return s, err
}

// backingOff gives the last failure while it is too early for another try.
//
// A refresh token that went out without an answer may have been spent. It is not
// sent again while the access token is valid; after that there is nothing left to
// lose, and sending it once more is what can still save the session.
func (r *renewals) backingOff(s *session) error {
	last, ok := r.failures.GetIfPresent(s.id)
	if !ok || last.generation != s.generation {
		return nil
	}
	now := r.now()
	valid := s.tokens.valid(now)
	pause := backOffExpired
	if _, asked := errors.AsType[*providerError](last.err); valid && asked {
		pause = backOffValid
	} else if isRefusedRefresh(last.err) {
		pause = backOffRefused
	}
	if (valid && last.unanswered) || within(now.Sub(last.at), pause) {
		return last.err
	}
	return nil
}

// isRefused reports whether the provider refused the last refresh of s for good.
func (r *renewals) isRefused(s *session) bool {
	last, ok := r.failures.GetIfPresent(s.id)
	return ok && last.generation == s.generation && isRefusedRefresh(last.err)
}

// within reports whether a time since something is less than a pause. A clock that
// was set back ends the pause.
func within(since, pause time.Duration) bool { return since >= 0 && since < pause }

// drain waits until no refresh is under way any more and all tokens are written down,
// but not for longer than the given time.
func (r *renewals) drain(patience time.Duration) {
	const look = 10 * time.Millisecond
	for began := time.Now(); r.running.Load() > 0 && time.Since(began) < patience; {
		time.Sleep(look)
	}
}

// close stops the housekeeping of the tables. Requests that are still under way
// may go on using them.
func (r *renewals) close() {
	close(r.closed)
	r.newest.StopAllGoroutines()
	r.ended.StopAllGoroutines()
	r.failures.StopAllGoroutines()
}
