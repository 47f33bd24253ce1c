package renewal

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// LeaseMargin is how much longer the lock on a session lasts than a request to the
// provider.
const LeaseMargin = 5 * time.Second

const (
	// claimPause is the pause between two reads of a session that another process is
	// refreshing.
	claimPause = 50 * time.Millisecond

	// settlePause is how long a process watches a session before it sends a refresh token
	// again whose response was never saved. Another process may have the response, and may
	// not have saved it because the store was down. It saves it within a second after the
	// store is back.
	settlePause = 2 * time.Second

	// savePause is the longest pause between two tries to save new tokens. saveTimeout is
	// the timeout of one try.
	savePause   = time.Second
	saveTimeout = 10 * time.Second
)

// ErrRefreshUnknown says that a refresh token was sent, perhaps by another process, and
// that no response was saved. While the access token is valid, the session stays as it is.
var ErrRefreshUnknown = &oauth.Error{
	Endpoint: oauth.EndpointToken, Kind: oauth.FailureUnanswered,
	Reason: "the result of the last refresh is not known", Because: cause.Timeout,
}

// refreshOnce refreshes a session, which several processes may share, or returns the result of
// another process. At most one process holds the session's lock. It saves a mark that it
// is about to send the refresh token, sends it, and saves the new tokens. Every write
// names the revision that it replaces, so that a process that was paused and lost the lock
// overwrites nothing.
func (r *Refresher) refreshOnce(ctx context.Context, s *session.Session, how How) (*session.Session, error) {
	c := &claim{how: how, release: how.Store.Hold()}
	claimed, spend, err := c.take(ctx, s, r.now)
	if err != nil || !spend {
		c.drop()
		if err != nil && !errors.Is(err, session.ErrEnded) {
			how.Report.NotBegun(s, err)
		}
		if err == nil {
			r.Sessions.Remember(claimed)
		}
		return claimed, err
	}
	renewed, err := r.Spend(ctx, claimed, how)
	if renewed.Generation > claimed.Generation {
		kept, keepErr := c.keep(ctx, renewed)
		switch {
		case errors.Is(keepErr, session.ErrEnded):
			c.drop()
			how.Abandoned(ctx, renewed)
			return renewed, keepErr
		case errors.Is(keepErr, session.ErrTooLarge):
			how.Report.TooLarge(s, keepErr) // no retry: the tokens will never fit, and only this process has them
			c.drop()
		case keepErr != nil:
			how.Report.Unsaved(s, keepErr)
			r.keepLater(c, renewed)
		default:
			c.drop()
			renewed = kept
			r.Sessions.Remember(renewed)
		}
		return renewed, err
	}
	defer c.drop()
	return c.concludeFailure(ctx, claimed, err)
}

// claim is one process's right to refresh one session.
type claim struct {
	how     How
	lock    session.Lock
	release func() // ends the store's Hold
	stop    chan struct{}
	stopped chan struct{}
}

// take waits for the right to refresh s, and saves a mark that the refresh token is about
// to be sent. If another process has refreshed the session meanwhile, take returns that
// session and false.
func (c *claim) take(ctx context.Context, s *session.Session, now func() time.Time) (*session.Session, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.how.Timeout)
	defer cancel()
	began := time.Now()
	for {
		if err := c.tryLock(ctx, s); err != nil {
			return s, false, err
		}
		standing, err := c.how.Store.Reread(ctx, s)
		if err != nil {
			return s, false, err
		}
		switch nextStep(s, standing, c.lock != nil, now(), time.Since(began), c.how.Lease) {
		case stepEnded:
			return s, false, session.ErrEnded
		case stepUse:
			return standing, false, nil
		case stepLeave:
			return s, false, ErrRefreshUnknown
		case stepSpend:
			marked := s.KeptAs(standing.Kept)
			marked.Kept.Pending = now()
			if marked, err = c.how.Store.Save(ctx, marked); !errors.Is(err, session.ErrMoved) {
				return orElse(marked, s), err == nil, err
			}
		case stepWait:
			// A process that has the response may need the lock to save it.
			c.unlock()
			select {
			case <-time.After(claimPause):
			case <-ctx.Done():
				return s, false, ErrRefreshUnknown
			}
		}
	}
}

func orElse(s, other *session.Session) *session.Session {
	if s == nil {
		return other
	}
	return s
}

// claimStep is what a process does next about a session whose refresh is due.
type claimStep int

const (
	stepWait  claimStep = iota // read the session again after a pause
	stepEnded                  // the session has ended
	stepUse                    // another process has refreshed it: use its tokens
	stepLeave                  // the refresh token may be spent, and the access token is still valid
	stepSpend                  // send the refresh token
)

// nextStep returns the next step for a session whose refresh is due. It is the only place that
// decides whether a refresh token may be sent while other processes may send it, too. s is the
// session that this process knows. standing is the session that the store has now, or nil if it
// has none. watched is how long this process has been waiting.
func nextStep(s, standing *session.Session, locked bool, now time.Time, watched, lease time.Duration) claimStep {
	switch {
	case standing == nil:
		return stepEnded
	case standing.Generation > s.Generation:
		return stepUse
	case !locked:
		return stepWait
	case standing.Kept.Pending.IsZero() || standing.Generation < s.Generation:
		return stepSpend
	case s.Tokens.Valid(now):
		return stepLeave
	case flight.Within(now.Sub(standing.Kept.Pending), lease) || watched < settlePause:
		return stepWait // another process may be refreshing it
	default:
		return stepSpend // without new tokens the session is lost anyway
	}
}

// tryLock takes the session's lock if it is free, and renews it until unlock.
func (c *claim) tryLock(ctx context.Context, s *session.Session) error {
	if c.lock != nil {
		return nil
	}
	lock, ok, err := c.how.Store.TryLock(ctx, s, c.how.Lease)
	if err != nil || !ok {
		return err
	}
	c.lock, c.stop, c.stopped = lock, make(chan struct{}), make(chan struct{})
	c.keepLock()
	return nil
}

// keepLock renews the lock's lease until unlock. A lost lock is not taken again: the
// refresh continues, and the pending mark keeps other processes from a second one.
func (c *claim) keepLock() {
	go c.renewLock(c.lock, c.stop, c.stopped)
}

func (c *claim) renewLock(lock session.Lock, stop, stopped chan struct{}) {
	defer close(stopped)
	ticker := time.NewTicker(c.how.Lease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			ctx, cancel := context.WithTimeout(context.Background(), c.how.Lease/3)
			_ = lock.Renew(ctx)
			cancel()
		}
	}
}

func (c *claim) unlock() {
	if c.lock == nil {
		return
	}
	close(c.stop)
	<-c.stopped
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	_ = c.lock.Release(ctx) // if this fails, the lock ends with its lease
	c.lock = nil
}

// drop releases the lock and the store.
func (c *claim) drop() {
	c.unlock()
	c.release()
}

// keep saves renewed tokens. If another process has only updated LastSeen meanwhile, keep
// takes that over. It overwrites neither a newer generation nor the end of the session.
func (c *claim) keep(ctx context.Context, s *session.Session) (*session.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	for {
		next := s.KeptAs(s.Kept)
		next.Kept.Pending = time.Time{}
		saved, err := c.how.Store.Save(ctx, next)
		if !errors.Is(err, session.ErrMoved) {
			return saved, err
		}
		standing, err := c.how.Store.Reread(ctx, s)
		switch {
		case err != nil:
			return nil, err
		case standing == nil:
			return nil, session.ErrEnded
		case standing.Generation >= s.Generation:
			return standing, nil
		}
		s = s.KeptAs(standing.Kept)
	}
}

// keepLater retries to save renewed tokens. Until then they are served from memory.
func (r *Refresher) keepLater(c *claim, s *session.Session) {
	end := r.Running.Begin()
	go func() { // ends when they are saved, when the session has ended, or with Close
		defer end()
		defer c.drop()
		for pause := savePause / 16; r.now().Before(s.Kept.Expires); pause = min(2*pause, savePause) {
			select {
			case <-time.After(pause):
			case <-r.closed:
				return
			}
			kept, err := c.keep(context.Background(), s) // without the trace of a request that ended long ago
			switch {
			case err == nil:
				r.Sessions.Remember(kept)
				c.how.Report.Saved(kept)
				return
			case errors.Is(err, session.ErrEnded):
				r.Sessions.End(s, r.now())
				return
			}
		}
	}()
}

// Restore saves a session again that the store has lost. A Redis that fails over loses the
// writes that it had not replicated, and another process would then send the old refresh
// token. stale is the session in the store, and newest the one that this process knows. The save
// has the values of ctx, and does not end with it.
func (r *Refresher) Restore(ctx context.Context, newest, stale *session.Session, how How) {
	if _, busy := r.restoring.LoadOrStore(newest.ID, nil); busy {
		return
	}
	ctx = context.WithoutCancel(ctx)
	end := r.Running.Begin()
	go func() { // ends with saveTimeout
		defer end()
		defer r.restoring.Delete(newest.ID)
		c := &claim{how: how, release: how.Store.Hold()}
		defer c.drop()
		switch kept, err := c.keep(ctx, newest.KeptAs(stale.Kept)); {
		case err == nil:
			r.Sessions.Remember(kept)
		case !errors.Is(err, session.ErrEnded):
			how.Report.NotRestored(newest, err)
		}
	}()
}

// concludeFailure saves that a refresh failed. After a refusal the mark is removed, so that
// the token can be sent again. Without a response the mark stays, because the token may be
// used up. Before `invalid_grant` ends the session, the store is read once more: if
// another process has newer tokens, they are used.
func (c *claim) concludeFailure(ctx context.Context, s *session.Session, err error) (*session.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	switch oauth.FailureOf(err) {
	case oauth.FailureUnanswered:
	case oauth.FailureEnded:
		standing, readErr := c.how.Store.Reread(ctx, s)
		switch {
		case readErr != nil:
			c.how.Report.NotEnded(s, readErr)
			return s, readErr // unknown whether another process has newer tokens
		case standing != nil && standing.Generation > s.Generation:
			return standing, nil
		}
		if endErr := c.how.Store.End(ctx, s, time.Time{}); endErr != nil {
			c.how.Report.NotEnded(s, endErr) // this process refuses the session anyway
		}
	default:
		c.takeMarkBack(ctx, s) // if this fails, the retry waits until the token expires
	}
	return s, err
}

func (c *claim) takeMarkBack(ctx context.Context, s *session.Session) {
	standing, err := c.how.Store.Reread(ctx, s)
	if err != nil || standing == nil || standing.Generation != s.Generation {
		return
	}
	unmarked := standing.KeptAs(standing.Kept)
	unmarked.Kept.Pending = time.Time{}
	_, _ = c.how.Store.Save(ctx, unmarked)
}
