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
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Pauses after a failed refresh.
const (
	// backOffValid applies while the access token is valid: no request waits for the retry.
	backOffValid = 30 * time.Second
	// backOffExpired applies after the access token has expired: requests wait for the retry.
	backOffExpired = 2 * time.Second
	// backOffRefused applies after a definite refusal, whether or not the access token is
	// valid: no request waits for the retry, because users are sent to the sign-in.
	backOffRefused = 30 * time.Second
)

// Refresher sends each refresh token only once: for any number of concurrent requests,
// with cookies of any age, and across config reloads.
//
// The registry holds the newest generation of each session that was renewed here, so a
// browser that sends an older cookie never causes its old refresh token to be sent again.
type Refresher struct {
	// Sessions remembers renewed and ended sessions.
	Sessions *session.Registry
	flights  flight.Group[*session.Session]
	// flying holds the sessions whose refresh is under way, so that requests that
	// need not wait for it do not queue up behind it.
	flying sync.Map // of ID
	// restoring holds the sessions that Restore is saving.
	restoring sync.Map // of ID
	// failures holds the last failed refresh of each session.
	failures *otter.Cache[session.ID, refreshFailure]
	// Running counts the work that a shutdown waits for: refreshes, and tokens that are
	// not saved yet.
	Running flight.Counter
	// closed is closed by Close. It stops the retries of keepLater.
	closed chan struct{}
	now    func() time.Time
}

// refreshFailure is the last failed refresh of a session.
type refreshFailure struct {
	at         time.Time
	generation uint64
	err        error
	// unanswered is true if the refresh token was sent and no response arrived.
	unanswered bool
}

// New returns a refresher, which the caller must close. It does not close sessions.
func New(sessions *session.Registry, now func() time.Time) *Refresher {
	return &Refresher{
		Sessions: sessions,
		failures: otter.Must(&otter.Options[session.ID, refreshFailure]{MaximumSize: session.MaxRemembered}),
		closed:   make(chan struct{}),
		now:      now,
	}
}

// How says how to refresh the tokens of one session.
type How struct {
	// Spend sends the refresh token. It may return both new tokens and an error.
	Spend func(context.Context, oauth.Tokens) (oauth.Tokens, error)
	// Store keeps the session. Processes that share the store refresh the session only
	// once.
	Store session.Store
	// Timeout is how long a request waits for the refresh: a little longer than a refresh
	// takes at most.
	Timeout time.Duration
	// Lease is how long a lock between processes lasts if it is not renewed.
	Lease time.Duration
	// Waiting, if it is not nil, is called when a request begins to wait for the refresh.
	Waiting func()
	// Report is told what the callers of Start and Wait do not learn.
	Report Reporter
	// Abandoned is called with the new tokens if their session has ended meanwhile.
	Abandoned func(context.Context, *session.Session)
}

// Reporter is told what happens to refreshes outside of requests, for the log.
type Reporter interface {
	// NotBegun says that the store did not allow a refresh: the refresh token was not sent.
	NotBegun(s *session.Session, err error)
	// Unsaved says that refreshed tokens could not be saved yet. It is tried again.
	Unsaved(s *session.Session, err error)
	// Saved says that tokens were saved after Unsaved.
	Saved(s *session.Session)
	// TooLarge says that refreshed tokens do not fit into the store. It is not tried again.
	TooLarge(s *session.Session, err error)
	// NotEnded says that the provider ended the session, and that the store could not be
	// asked or told about it.
	NotEnded(s *session.Session, err error)
	// NotRestored says that the store lost refreshed tokens, and that they could not be saved
	// again. The next request tries it again.
	NotRestored(s *session.Session, err error)
}

// Start begins a refresh of s unless one is under way, and returns at once. The refresh has the
// values of ctx, and does not end with it.
func (r *Refresher) Start(ctx context.Context, s *session.Session, how How) {
	if _, flying := r.flying.Load(s.ID); !flying && r.backingOff(s) == nil {
		r.fly(ctx, s, how)
	}
}

// Wait refreshes s, or joins the refresh that is under way, and waits for it, but not
// longer than ctx and how.Timeout. The refresh itself does not end with ctx, so that a browser
// that disconnects cannot lose a rotated token.
func (r *Refresher) Wait(ctx context.Context, s *session.Session, how How) (*session.Session, error) {
	if err := r.backingOff(s); err != nil {
		return nil, err
	}
	if how.Waiting != nil {
		how.Waiting()
	}
	select {
	case done := <-r.fly(ctx, s, how):
		return done.Value, done.Err
	case <-time.After(how.Timeout):
		return nil, ErrRefreshUnknown
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fly runs one refresh per session at a time. A caller that is late, with an older cookie
// or after the refresh has ended, gets the newer session and sends nothing. The refresh has the
// values of the first caller's ctx: its trace goes on in it.
func (r *Refresher) fly(ctx context.Context, s *session.Session, how How) <-chan flight.Result[*session.Session] {
	detached := context.WithoutCancel(ctx)
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
		return r.refresh(detached, s, how)
	})
	result := make(chan flight.Result[*session.Session], 1)
	go func() { // ends with the call
		defer end()
		result <- <-landed
	}()
	return result
}

// refresh sends the refresh token, and remembers the result before anybody uses it.
func (r *Refresher) refresh(ctx context.Context, s *session.Session, how How) (renewed *session.Session, err error) {
	renewed, err = r.refreshOnce(ctx, s, how)
	if err == nil {
		r.failures.Invalidate(s.ID)
		return renewed, nil
	}
	if oauth.FailureOf(err) == oauth.FailureEnded || errors.Is(err, session.ErrEnded) {
		r.Sessions.End(s, r.now())
		return nil, errors.Join(session.ErrEnded, err)
	}
	r.failures.Set(s.ID, refreshFailure{
		at:         r.now(),
		generation: renewed.Generation,
		err:        err,
		unanswered: oauth.FailureOf(err) == oauth.FailureUnanswered,
	})
	return nil, err
}

// Spend sends the refresh token of s. It returns the newest generation, also with an error.
func (r *Refresher) Spend(ctx context.Context, s *session.Session, how How) (*session.Session, error) {
	renewed, err := how.Spend(ctx, s.Tokens)
	if renewed != s.Tokens {
		s = s.Renewed(renewed)
		r.Sessions.Remember(s)
	}
	return s, err
}

// backingOff returns the last failure while it is too early for a retry, or nil.
//
// A refresh token that was sent without a response may have been used. It is not sent
// again while the access token is valid. After that there is nothing left to lose, and
// only another try can save the session.
func (r *Refresher) backingOff(s *session.Session) error {
	last, ok := r.failures.GetIfPresent(s.ID)
	if !ok || last.generation != s.Generation {
		return nil
	}
	now := r.now()
	valid := s.Tokens.Valid(now)
	pause := backOffExpired
	if _, asked := errors.AsType[*oauth.Error](last.err); valid && asked {
		pause = backOffValid
	} else if oauth.IsRefusedRefresh(last.err) {
		pause = backOffRefused
	}
	if (valid && last.unanswered) || flight.Within(now.Sub(last.at), pause) {
		return last.err
	}
	return nil
}

// IsRefused reports whether the provider refused the last refresh of s for good.
func (r *Refresher) IsRefused(s *session.Session) bool {
	last, ok := r.failures.GetIfPresent(s.ID)
	return ok && last.generation == s.Generation && oauth.IsRefusedRefresh(last.err)
}

// Drain waits until no refresh is running and all tokens are saved, but not longer than
// the timeout.
func (r *Refresher) Drain(timeout time.Duration) {
	r.Running.Wait(timeout)
}

// Close stops the retries and the background work of the tables. Requests that are still
// being served may use the refresher afterwards.
func (r *Refresher) Close() {
	close(r.closed)
	r.failures.StopAllGoroutines()
}
