package tollgate

import (
	"context"
	"errors"
	"time"
)

// leaseMargin is how much longer than a request to the provider the lock on a session
// lasts.
const leaseMargin = 5 * time.Second

const (
	// claimPause is the pause between two looks at a session that another process is
	// refreshing.
	claimPause = 50 * time.Millisecond

	// settlePause is how long a session is watched before a refresh token is sent again
	// whose answer nobody has written down: a process that has the answer and could not
	// write it, because the store was away, writes it within a second of its return.
	settlePause = 2 * time.Second

	// savePause is the longest pause between two tries to write down new tokens, and
	// saveTimeout how long one may take.
	savePause   = time.Second
	saveTimeout = 10 * time.Second
)

// errRefreshUnknown: a refresh token went out, perhaps from another process, and nobody
// has written down what came back. While the access token is valid that is left alone.
var errRefreshUnknown = &providerError{
	endpoint: endpointToken, kind: failureUnanswered,
	reason: "the answer to the last refresh is not known",
}

// refreshShared refreshes a session that several processes share, or takes over what
// another one has made of it. At most one of them has the session's lock; it writes
// down that it is about to send the refresh token, sends it, and writes down the
// answer. Every write names the revision that it replaces, so that a process that was
// held up and lost the lock writes over nothing.
func (r *renewals) refreshShared(s *session, how renewal) (*session, error) {
	c := &claim{how: how, name: s.id.hash(), release: how.store.records.hold()}
	claimed, spend, err := c.take(s, r.now)
	if err != nil || !spend {
		c.drop()
		if err == nil {
			r.sessions.remember(claimed)
		}
		return claimed, err
	}
	renewed, err := r.spend(claimed, how)
	if renewed.generation > claimed.generation {
		kept, keepErr := c.keep(renewed)
		switch {
		case errors.Is(keepErr, errSessionEnded):
			c.drop()
			how.abandoned(renewed)
			return renewed, keepErr
		case errors.Is(keepErr, errSessionTooLarge):
			how.unsaved(keepErr) // and never will be: this process alone has the tokens
			c.drop()
		case keepErr != nil:
			how.unsaved(keepErr)
			r.keepLater(c, renewed)
		default:
			c.drop()
			renewed = kept
			r.sessions.remember(renewed)
		}
		return renewed, err
	}
	defer c.drop()
	return c.concludeFailure(claimed, err)
}

// claim is one process's right to refresh one session.
type claim struct {
	how     renewal
	name    string
	lock    recordLock
	release func() // of the store
	stop    chan struct{}
	stopped chan struct{}
}

// take waits for the right to refresh s, and writes down that its token is about to be
// sent. Where another process has refreshed the session meanwhile it gives what came of
// that, and false.
func (c *claim) take(s *session, now func() time.Time) (*session, bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*c.how.patience)
	defer cancel()
	began := time.Now()
	for {
		if err := c.tryLock(ctx); err != nil {
			return s, false, err
		}
		standing, err := c.how.store.reread(ctx, s)
		if err != nil {
			return s, false, err
		}
		switch nextStep(s, standing, c.lock != nil, now(), time.Since(began), c.how.lease) {
		case stepEnded:
			return s, false, errSessionEnded
		case stepUse:
			return standing, false, nil
		case stepLeave:
			return s, false, errRefreshUnknown
		case stepSpend:
			marked := s.keptAs(standing.kept)
			marked.kept.pending = now()
			if marked, err = c.how.store.save(ctx, marked); !errors.Is(err, errRecordMoved) {
				return orElse(marked, s), err == nil, err
			}
		case stepWait:
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

func orElse(s, other *session) *session {
	if s == nil {
		return other
	}
	return s
}

type claimStep int

const (
	stepWait  claimStep = iota
	stepEnded           // the session is over
	stepUse             // another process has refreshed it
	stepLeave           // nobody knows whether the token is spent, and it is not needed yet
	stepSpend           // refresh it
)

// nextStep says what to do about a session whose refresh is due: s is what this process
// knows, standing what stands in the store (nil: nothing), watched how long it has been
// looking.
func nextStep(s, standing *session, locked bool, now time.Time, watched, lease time.Duration) claimStep {
	switch {
	case standing == nil:
		return stepEnded
	case standing.generation > s.generation:
		return stepUse
	case !locked:
		return stepWait
	case standing.kept.pending.IsZero() || standing.generation < s.generation:
		return stepSpend
	case s.tokens.valid(now):
		return stepLeave
	case within(now.Sub(standing.kept.pending), lease) || watched < settlePause:
		return stepWait // it may be under way
	default:
		return stepSpend // there is nothing left to lose
	}
}

// tryLock takes the session's lock where it is free, and keeps it from then on.
func (c *claim) tryLock(ctx context.Context) error {
	if c.lock != nil {
		return nil
	}
	lock, ok, err := c.how.store.records.tryLock(ctx, c.name, c.how.lease)
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

func (c *claim) renewLock(lock recordLock, stop, stopped chan struct{}) {
	defer close(stopped)
	ticker := time.NewTicker(c.how.lease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			ctx, cancel := context.WithTimeout(context.Background(), c.how.lease/3)
			_ = lock.renew(ctx)
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
	_ = c.lock.release(ctx) // else it ends with its lease
	c.lock = nil
}

// drop lets go of the lock and the store.
func (c *claim) drop() {
	c.unlock()
	c.release()
}

// keep writes down renewed tokens. What somebody else has written meanwhile, a moment
// of use, is taken over; a newer generation stays, and so does the end of the session.
func (c *claim) keep(s *session) (*session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	for {
		next := s.keptAs(s.kept)
		next.kept.pending = time.Time{}
		saved, err := c.how.store.save(ctx, next)
		if !errors.Is(err, errRecordMoved) {
			return saved, err
		}
		standing, err := c.how.store.reread(ctx, s)
		switch {
		case err != nil:
			return nil, err
		case standing == nil:
			return nil, errSessionEnded
		case standing.generation >= s.generation:
			return standing, nil
		}
		s = s.keptAs(standing.kept)
	}
}

// keepLater goes on trying to write down renewed tokens, which are served from memory
// meanwhile.
func (r *renewals) keepLater(c *claim, s *session) {
	r.running.Add(1)
	go func() { // ends when they are written, when the session is over, or with close
		defer r.running.Add(-1)
		defer c.drop()
		for pause := savePause / 16; r.now().Before(s.kept.expires); pause = min(2*pause, savePause) {
			select {
			case <-time.After(pause):
			case <-r.closed:
				return
			}
			kept, err := c.keep(s)
			switch {
			case err == nil:
				r.sessions.remember(kept)
				return
			case errors.Is(err, errSessionEnded):
				r.sessions.end(s, r.now())
				return
			}
		}
	}()
}

// restore writes down once more what the store has lost: a Redis that fails over forgets
// what it had not copied, and another process would spend the old token. Stale is what
// the store gave instead of newest, which this process knows.
func (r *renewals) restore(newest, stale *session, how renewal) {
	if _, busy := r.restoring.LoadOrStore(newest.id, nil); busy {
		return
	}
	r.running.Add(1)
	go func() { // ends with saveTimeout
		defer r.running.Add(-1)
		defer r.restoring.Delete(newest.id)
		c := &claim{how: how, name: newest.id.hash(), release: how.store.records.hold()}
		defer c.drop()
		if kept, err := c.keep(newest.keptAs(stale.kept)); err == nil {
			r.sessions.remember(kept)
		}
	}()
}

// concludeFailure writes down that a refresh failed. An answer that says no frees the
// token for another try; without an answer nobody knows, and the mark stays. Before
// `invalid_grant` ends the session the store is asked once more: where another process
// has newer tokens, these hold.
func (c *claim) concludeFailure(s *session, err error) (*session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	switch failureOf(err) {
	case failureUnanswered:
	case failureEnded:
		standing, readErr := c.how.store.reread(ctx, s)
		switch {
		case readErr != nil:
			return s, readErr // nobody can tell
		case standing != nil && standing.generation > s.generation:
			return standing, nil
		}
		if endErr := c.how.store.end(ctx, s, time.Time{}); endErr != nil {
			c.how.unsaved(endErr) // this process refuses the session all the same
		}
	default:
		c.takeMarkBack(ctx, s) // else it stays, and the next try waits for the token's end
	}
	return s, err
}

func (c *claim) takeMarkBack(ctx context.Context, s *session) {
	standing, err := c.how.store.reread(ctx, s)
	if err != nil || standing == nil || standing.generation != s.generation {
		return
	}
	unmarked := standing.keptAs(standing.kept)
	unmarked.kept.pending = time.Time{}
	_, _ = c.how.store.save(ctx, unmarked)
}
