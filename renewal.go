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

// renewals makes sure that a refresh token is spent once, however many requests
// ask, however old the cookies are that they carry, and across config reloads.
//
// The registry has the newest generation of each session that was renewed here, so a
// browser that comes with an older cookie never makes anybody spend the old tokens again.
type renewals struct {
	sessions *registry
	flights  singleflight.Group
	// flying holds the sessions whose refresh is under way, so that requests that
	// need not wait for it do not queue up behind it.
	flying sync.Map // of sessionID
	// restoring holds the sessions that are being written down once more.
	restoring sync.Map // of sessionID
	failures  *otter.Cache[sessionID, refreshFailure]
	// running counts what must not be cut off: refreshes, and tokens that are not
	// written down yet.
	running atomic.Int64
	// closed is closed when nobody waits for these any more.
	closed chan struct{}
	now    func() time.Time
}

// refreshFailure is the last refresh of a session that failed.
type refreshFailure struct {
	at         time.Time
	generation uint64
	err        error
	// unanswered: the refresh token went out and nothing came back.
	unanswered bool
}

func newRenewals(sessions *registry, now func() time.Time) *renewals {
	return &renewals{
		sessions: sessions,
		failures: otter.Must(&otter.Options[sessionID, refreshFailure]{MaximumSize: maxRemembered}),
		closed:   make(chan struct{}),
		now:      now,
	}
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
		newest, live := r.sessions.latest(s)
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
		r.sessions.end(s, r.now())
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
		r.sessions.remember(s)
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
	r.failures.StopAllGoroutines()
}
