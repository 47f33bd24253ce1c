// Package renewal refreshes the tokens of a session once, however many requests and
// processes need that at the same time, so that no refresh token is spent twice.
//
// Within one process a refresh is one detached call for all who wait; between processes
// that share a store it is a lock, a mark and a compare-and-set. Begin with
// Refresher.Wait, then fleet.go.
package renewal

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Back-off after a refresh that failed. While the access token is still valid
// nobody waits for the next try; afterwards people do.
const (
	backOffValid   = 30 * time.Second
	BackOffExpired = 2 * time.Second
	// BackOffRefused is the pause after a definite refusal, whether or not the access
	// token is valid: nobody waits for the next try, since people are sent to the sign-in.
	BackOffRefused = 30 * time.Second
)

// Refresher makes sure that a refresh token is spent once, however many requests
// ask, however old the cookies are that they carry, and across config reloads.
//
// The registry has the newest generation of each session that was renewed here, so a
// browser that comes with an older cookie never makes anybody spend the old tokens again.
type Refresher struct {
	Sessions *session.Registry
	flights  flight.Group[*session.Session]
	// flying holds the sessions whose refresh is under way, so that requests that
	// need not wait for it do not queue up behind it.
	flying sync.Map // of ID
	// restoring holds the sessions that are being written down once more.
	restoring sync.Map // of ID
	Failures  *otter.Cache[session.ID, refreshFailure]
	// Running counts what must not be cut off: refreshes, and tokens that are not
	// written down yet.
	Running flight.Counter
	// closed is closed when nobody waits for these any more.
	closed chan struct{}
	Now    func() time.Time
}

// refreshFailure is the last refresh of a session that failed.
type refreshFailure struct {
	at         time.Time
	generation uint64
	err        error
	// unanswered: the refresh token went out and nothing came back.
	unanswered bool
}

func New(sessions *session.Registry, now func() time.Time) *Refresher {
	return &Refresher{
		Sessions: sessions,
		Failures: otter.Must(&otter.Options[session.ID, refreshFailure]{MaximumSize: session.MaxRemembered}),
		closed:   make(chan struct{}),
		Now:      now,
	}
}

// How is how the tokens of one session are renewed.
type How struct {
	// Spend spends the refresh token. It may give new tokens and an error both.
	Spend func(context.Context, oauth.Tokens) (oauth.Tokens, error)
	// Store is the server-side store that keeps the session, or nil. The processes that
	// share it share the one refresh.
	Store *records.Tickets
	// Patience is how long anybody waits for the refresh: a little more than one takes.
	Patience time.Duration
	// Lease is how long a lock between processes lasts that is not renewed.
	Lease time.Duration
	// Unsaved is told why what came of the refresh could not be written down at once.
	Unsaved func(error)
	// Abandoned is told of new tokens whose session has ended meanwhile.
	Abandoned func(*session.Session)
}

// Start begins a refresh of s unless one is under way, and returns at once.
func (r *Refresher) Start(s *session.Session, how How) {
	if _, flying := r.flying.Load(s.ID); !flying && r.backingOff(s) == nil {
		r.fly(s, how)
	}
}

// Wait refreshes s, or joins the refresh that is under way, and waits for its end
// or the caller's. The refresh itself runs on a context of its own: a browser that
// goes away cannot lose a rotated token.
func (r *Refresher) Wait(ctx context.Context, s *session.Session, how How) (*session.Session, error) {
	if err := r.backingOff(s); err != nil {
		return nil, err
	}
	select {
	case done := <-r.fly(s, how):
		return done.Value, done.Err
	case <-time.After(how.Patience):
		return nil, errRefreshUnknown
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fly runs the one refresh of a session. Who comes late, with an older cookie or
// after the flight has landed, gets the successor and spends nothing.
func (r *Refresher) fly(s *session.Session, how How) <-chan flight.Result[*session.Session] {
	end := r.Running.Begin() // before the call begins: a shutdown right now has to wait for it
	landed := r.flights.Start(string(s.ID[:]), func() (*session.Session, error) {
		r.flying.Store(s.ID, nil)
		defer r.flying.Delete(s.ID)
		newest, live := r.Sessions.Latest(s)
		if !live {
			return nil, session.ErrEnded
		}
		if newest.Generation > s.Generation {
			return newest, nil
		}
		if err := r.backingOff(s); err != nil {
			return nil, err
		}
		return r.refresh(s, how)
	})
	result := make(chan flight.Result[*session.Session], 1)
	go func() { // ends with the call
		defer end()
		result <- <-landed
	}()
	return result
}

// refresh spends the refresh token and remembers what came of it, before anybody
// uses it.
func (r *Refresher) refresh(s *session.Session, how How) (renewed *session.Session, err error) {
	if how.Store != nil {
		renewed, err = r.refreshShared(s, how)
	} else {
		renewed, err = r.Spend(s, how)
	}
	if err == nil {
		r.Failures.Invalidate(s.ID)
		return renewed, nil
	}
	if oauth.FailureOf(err) == oauth.FailureEnded || errors.Is(err, session.ErrEnded) {
		r.Sessions.End(s, r.Now())
		return nil, errors.Join(session.ErrEnded, err)
	}
	r.Failures.Set(s.ID, refreshFailure{
		at:         r.Now(),
		generation: renewed.Generation,
		err:        err,
		unanswered: oauth.FailureOf(err) == oauth.FailureUnanswered,
	})
	return nil, err
}

// Spend spends the refresh token of s. It gives the newest generation there is, also
// beside an error.
func (r *Refresher) Spend(s *session.Session, how How) (*session.Session, error) {
	renewed, err := how.Spend(context.Background(), s.Tokens)
	if renewed != s.Tokens {
		s = s.Renewed(renewed)
		r.Sessions.Remember(s)
	}
	return s, err
}

// backingOff gives the last failure while it is too early for another try.
//
// A refresh token that went out without an answer may have been spent. It is not
// sent again while the access token is valid; after that there is nothing left to
// lose, and sending it once more is what can still save the session.
func (r *Refresher) backingOff(s *session.Session) error {
	last, ok := r.Failures.GetIfPresent(s.ID)
	if !ok || last.generation != s.Generation {
		return nil
	}
	now := r.Now()
	valid := s.Tokens.Valid(now)
	pause := BackOffExpired
	if _, asked := errors.AsType[*oauth.Error](last.err); valid && asked {
		pause = backOffValid
	} else if oauth.IsRefusedRefresh(last.err) {
		pause = BackOffRefused
	}
	if (valid && last.unanswered) || flight.Within(now.Sub(last.at), pause) {
		return last.err
	}
	return nil
}

// IsRefused reports whether the provider refused the last refresh of s for good.
func (r *Refresher) IsRefused(s *session.Session) bool {
	last, ok := r.Failures.GetIfPresent(s.ID)
	return ok && last.generation == s.Generation && oauth.IsRefusedRefresh(last.err)
}

// Drain waits until no refresh is under way any more and all tokens are written down,
// but not for longer than the given time.
func (r *Refresher) Drain(patience time.Duration) {
	r.Running.Wait(patience)
}

// Close stops the housekeeping of the tables. Requests that are still under way
// may go on using them.
func (r *Refresher) Close() {
	close(r.closed)
	r.Failures.StopAllGoroutines()
}
