package renewal

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// LeaseMargin is how much longer than a request to the provider the lock on a session
// lasts.
const LeaseMargin = 5 * time.Second

const (
	// claimPause is the pause between two looks at a session that another process is
	// refreshing.
	claimPause = 50 * time.Millisecond

	// SettlePause is how long a session is watched before a refresh token is sent again
	// whose answer nobody has written down: a process that has the answer and could not
	// write it, because the store was away, writes it within a second of its return.
	SettlePause = 2 * time.Second

	// savePause is the longest pause between two tries to write down new tokens, and
	// saveTimeout how long one may take.
	savePause   = time.Second
	saveTimeout = 10 * time.Second
)

// errRefreshUnknown: a refresh token went out, perhaps from another process, and nobody
// has written down what came back. While the access token is valid that is left alone.
var errRefreshUnknown = &oauth.Error{
	Endpoint: oauth.EndpointToken, Kind: oauth.FailureUnanswered,
	Reason: "the answer to the last refresh is not known",
}

// refreshShared refreshes a session that several processes share, or takes over what
// another one has made of it. At most one of them has the session's lock; it writes
// down that it is about to send the refresh token, sends it, and writes down the
// answer. Every write names the revision that it replaces, so that a process that was
// held up and lost the lock writes over nothing.
func (r *Refresher) refreshShared(s *session.Session, how How) (*session.Session, error) {
	c := &claim{how: how, name: s.ID.Hash(), release: how.Store.Records.Hold()}
	claimed, spend, err := c.take(s, r.Now)
	if err != nil || !spend {
		c.drop()
		if err == nil {
			r.Sessions.Remember(claimed)
		}
		return claimed, err
	}
	renewed, err := r.Spend(claimed, how)
	if renewed.Generation > claimed.Generation {
		kept, keepErr := c.keep(renewed)
		switch {
		case errors.Is(keepErr, session.ErrEnded):
			c.drop()
			how.Abandoned(renewed)
			return renewed, keepErr
		case errors.Is(keepErr, session.ErrTooLarge):
			how.Unsaved(keepErr) // and never will be: this process alone has the tokens
			c.drop()
		case keepErr != nil:
			how.Unsaved(keepErr)
			r.keepLater(c, renewed)
		default:
			c.drop()
			renewed = kept
			r.Sessions.Remember(renewed)
		}
		return renewed, err
	}
	defer c.drop()
	return c.concludeFailure(claimed, err)
}

// claim is one process's right to refresh one session.
type claim struct {
	how     How
	name    string
	lock    records.Lock
	release func() // of the store
	stop    chan struct{}
	stopped chan struct{}
}

// take waits for the right to refresh s, and writes down that its token is about to be
// sent. Where another process has refreshed the session meanwhile it gives what came of
// that, and false.
func (c *claim) take(s *session.Session, now func() time.Time) (*session.Session, bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*c.how.Patience)
	defer cancel()
	began := time.Now()
	for {
		if err := c.TryLock(ctx); err != nil {
			return s, false, err
		}
		standing, err := c.how.Store.Reread(ctx, s)
		if err != nil {
			return s, false, err
		}
		switch NextStep(s, standing, c.lock != nil, now(), time.Since(began), c.how.Lease) {
		case StepEnded:
			return s, false, session.ErrEnded
		case StepUse:
			return standing, false, nil
		case StepLeave:
			return s, false, errRefreshUnknown
		case StepSpend:
			marked := s.KeptAs(standing.Kept)
			marked.Kept.Pending = now()
			if marked, err = c.how.Store.Save(ctx, marked); !errors.Is(err, records.ErrMoved) {
				return orElse(marked, s), err == nil, err
			}
		case StepWait:
			// Whoever has the answer may need the lock to write it down.
			c.unlock()
			select {
			case <-time.After(claimPause):
			case <-ctx.Done():
				return s, false, errRefreshUnknown
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

type ClaimStep int

const (
	StepWait  ClaimStep = iota
	StepEnded           // the session is over
	StepUse             // another process has refreshed it
	StepLeave           // nobody knows whether the token is spent, and it is not needed yet
	StepSpend           // refresh it
)

// NextStep says what to do about a session whose refresh is due: s is what this process
// knows, standing what stands in the store (nil: nothing), watched how long it has been
// looking.
func NextStep(s, standing *session.Session, locked bool, now time.Time, watched, lease time.Duration) ClaimStep {
	switch {
	case standing == nil:
		return StepEnded
	case standing.Generation > s.Generation:
		return StepUse
	case !locked:
		return StepWait
	case standing.Kept.Pending.IsZero() || standing.Generation < s.Generation:
		return StepSpend
	case s.Tokens.Valid(now):
		return StepLeave
	case flight.Within(now.Sub(standing.Kept.Pending), lease) || watched < SettlePause:
		return StepWait // it may be under way
	default:
		return StepSpend // there is nothing left to lose
	}
}

// TryLock takes the session's lock where it is free, and keeps it from then on.
func (c *claim) TryLock(ctx context.Context) error {
	if c.lock != nil {
		return nil
	}
	lock, ok, err := c.how.Store.Records.TryLock(ctx, c.name, c.how.Lease)
	if err != nil || !ok {
		return err
	}
	c.lock, c.stop, c.stopped = lock, make(chan struct{}), make(chan struct{})
	c.keepLock()
	return nil
}

// keepLock renews the lock's lease until unlock. A lock that is lost stays lost: what
// is under way goes on, and the pending mark keeps others from doing it, too.
func (c *claim) keepLock() {
	go c.renewLock(c.lock, c.stop, c.stopped)
}

func (c *claim) renewLock(lock records.Lock, stop, stopped chan struct{}) {
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
	_ = c.lock.Release(ctx) // else it ends with its lease
	c.lock = nil
}

// drop lets go of the lock and the store.
func (c *claim) drop() {
	c.unlock()
	c.release()
}

// keep writes down renewed tokens. What somebody else has written meanwhile, a moment
// of use, is taken over; a newer generation stays, and so does the end of the session.
func (c *claim) keep(s *session.Session) (*session.Session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	for {
		next := s.KeptAs(s.Kept)
		next.Kept.Pending = time.Time{}
		saved, err := c.how.Store.Save(ctx, next)
		if !errors.Is(err, records.ErrMoved) {
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

// keepLater goes on trying to write down renewed tokens, which are served from memory
// meanwhile.
func (r *Refresher) keepLater(c *claim, s *session.Session) {
	end := r.Running.Begin()
	go func() { // ends when they are written, when the session is over, or with close
		defer end()
		defer c.drop()
		for pause := savePause / 16; r.Now().Before(s.Kept.Expires); pause = min(2*pause, savePause) {
			select {
			case <-time.After(pause):
			case <-r.closed:
				return
			}
			kept, err := c.keep(s)
			switch {
			case err == nil:
				r.Sessions.Remember(kept)
				return
			case errors.Is(err, session.ErrEnded):
				r.Sessions.End(s, r.Now())
				return
			}
		}
	}()
}

// Restore writes down once more what the store has lost: a Redis that fails over forgets
// what it had not copied, and another process would spend the old token. Stale is what
// the store gave instead of newest, which this process knows.
func (r *Refresher) Restore(newest, stale *session.Session, how How) {
	if _, busy := r.restoring.LoadOrStore(newest.ID, nil); busy {
		return
	}
	end := r.Running.Begin()
	go func() { // ends with saveTimeout
		defer end()
		defer r.restoring.Delete(newest.ID)
		c := &claim{how: how, name: newest.ID.Hash(), release: how.Store.Records.Hold()}
		defer c.drop()
		if kept, err := c.keep(newest.KeptAs(stale.Kept)); err == nil {
			r.Sessions.Remember(kept)
		}
	}()
}

// concludeFailure writes down that a refresh failed. An answer that says no frees the
// token for another try; without an answer nobody knows, and the mark stays. Before
// `invalid_grant` ends the session the store is asked once more: where another process
// has newer tokens, these hold.
func (c *claim) concludeFailure(s *session.Session, err error) (*session.Session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	switch oauth.FailureOf(err) {
	case oauth.FailureUnanswered:
	case oauth.FailureEnded:
		standing, readErr := c.how.Store.Reread(ctx, s)
		switch {
		case readErr != nil:
			return s, readErr // nobody can tell
		case standing != nil && standing.Generation > s.Generation:
			return standing, nil
		}
		if endErr := c.how.Store.End(ctx, s, time.Time{}); endErr != nil {
			c.how.Unsaved(endErr) // this process refuses the session all the same
		}
	default:
		c.takeMarkBack(ctx, s) // else it stays, and the next try waits for the token's end
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
