package account

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

const (
	// ReadBackOff is the pause after a failed read. Requests during the pause use the
	// cached information.
	ReadBackOff = 5 * time.Second
	// readTimeout is how long a request waits for new information if the cached
	// information is too old.
	readTimeout = 2 * time.Second
	// maxReads is the maximum number of concurrent reads, of different users. Further reads
	// wait for up to readTimeout.
	maxReads = 64
)

// ErrReadsBusy says that maxReads reads of user information are under way already.
var ErrReadsBusy = cause.Else(cause.Timeout, errors.New("too many concurrent reads of user information"))

// ReadFunc reads the information of one user from the provider.
type ReadFunc func(context.Context) (oauth.UserInfo, error)

// waitForRead waits for a read that began after every change so far. The running read may
// have begun too early, or with a session that has ended. Then waitForRead starts another.
func (u *Users) waitForRead(ctx context.Context, s *session.Session, user *knownUser, read ReadFunc) {
	changes := user.changes.Load()
	for range 2 {
		select {
		case done := <-u.startRead(ctx, s, user, read):
			again := isOfOneSession(done.Err)
			if (done.Err != nil && !again) || user.seen.Load() >= changes && !again {
				return
			}
		case <-ctx.Done():
			user.noteTimeout(ctx)
			return
		}
	}
}

// noteTimeout notes that the running read has exceeded the timeout of a request. A client
// that leaves says nothing about the provider.
func (k *knownUser) noteTimeout(ctx context.Context) {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		k.hanging.Store(true)
	}
}

func (k *knownUser) backingOff(now time.Time) bool {
	return flight.Within(now.Sub(time.UnixMilli(k.failedAt.Load())), ReadBackOff)
}

// Reread reads the user information now, or joins the running read, and waits for the
// result. If it joined the read of another session of the same user, and that session has
// ended, Reread reads again.
func (u *Users) Reread(ctx context.Context, s *session.Session, read ReadFunc) error {
	for {
		mine := false // whether it is this session's read, and not one that it has joined
		started := u.startRead(ctx, s, u.known(s), func(ctx context.Context) (oauth.UserInfo, error) {
			mine = true
			return read(ctx)
		})
		select {
		case done := <-started:
			if mine || !isOfOneSession(done.Err) {
				return done.Err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errPausing = errors.New("the user information could not be read a moment ago")

// ReadAgain reads the user information in a read that begins after this call, and waits for
// it, for at most readTimeout.
func (u *Users) ReadAgain(ctx context.Context, s *session.Session, read ReadFunc) error {
	user := u.known(s)
	if user.backingOff(u.now()) || user.reading.Load() && user.hanging.Load() {
		return errPausing
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	before := user.begun.Load()
	for try := 0; ; try++ {
		select {
		case done := <-u.startRead(ctx, s, user, read):
			switch {
			case user.came.Load() > before:
				return nil
			case done.Err != nil && (!isOfOneSession(done.Err) || try == maxSessionTries):
				return done.Err
			}
		case <-ctx.Done():
			user.noteTimeout(ctx)
			return ctx.Err()
		}
	}
}

// maxSessionTries is how often ReadAgain tries again because another session of the user has
// ended.
const maxSessionTries = 2

// ReadSoon starts a read that begins after this call, and does not wait for it. Calls that
// come while one is running share the next one. The read has the values of ctx, and does not end
// with it.
func (u *Users) ReadSoon(ctx context.Context, s *session.Session, read ReadFunc) {
	user := u.known(s)
	if user.wanted.Add(1) > 1 {
		return
	}
	ctx = context.WithoutCancel(ctx)
	go func() { // ends when a read began after the last call, or failed
		for {
			wanted := user.wanted.Load()
			if u.ReadAgain(ctx, s, read) != nil {
				user.wanted.Store(0)
				return
			}
			if user.wanted.CompareAndSwap(wanted, 0) {
				return
			}
		}
	}()
}

// isOfOneSession reports whether a read failed because of its session. It may succeed with
// another session of the same user.
func isOfOneSession(err error) bool {
	return errors.Is(err, session.ErrEnded) || oauth.IsRefusedRefresh(err)
}

// TakeSlot waits until fewer than maxReads reads are running, and takes a slot. It returns
// an error after readTimeout.
func (u *Users) TakeSlot() (release func(), err error) {
	timeout := time.NewTimer(readTimeout)
	defer timeout.Stop()
	select {
	case u.slots <- struct{}{}:
		return func() { <-u.slots }, nil
	case <-timeout.C:
		return nil, ErrReadsBusy
	}
}

// startRead starts a read of the user, or joins the running one. The read has the values of ctx,
// so that a trace goes on in it, and does not end with ctx.
func (u *Users) startRead(ctx context.Context, s *session.Session, user *knownUser, read ReadFunc) <-chan flight.Result[struct{}] {
	key, detached := keyOf(s), context.WithoutCancel(ctx)
	return u.reads.Start(key.id+"\x00"+key.scope, func() (done struct{}, err error) {
		user.reading.Store(true)
		defer func() {
			user.hanging.Store(false)
			user.reading.Store(false)
		}()
		release, err := u.TakeSlot()
		if err != nil {
			user.noteFailure(err, u.now())
			u.Busy(s, err)
			return done, err
		}
		defer release()
		changes, number := user.changes.Load(), user.begun.Add(1)
		info, err := read(detached)
		if err == nil && info.ID() != key.id {
			err = &oauth.Error{Endpoint: oauth.EndpointUserinfo, Reason: "the response is about another user", Because: cause.InvalidResponse}
		}
		if err != nil {
			user.noteFailure(err, u.now())
			return done, err
		}
		user.failedAt.Store(0)
		user.refused.Store(false)
		user.learn(&info, u.now())
		user.sawChanges(changes)
		user.came.Store(number)
		return done, nil
	})
}

// noteFailure starts the back-off. The end of one session is not a failure: the user's
// other sessions still work.
func (k *knownUser) noteFailure(err error, now time.Time) {
	if errors.Is(err, session.ErrEnded) {
		return
	}
	k.failedAt.Store(now.UnixMilli())
	if oauth.FailureOf(err) == oauth.FailureUnauthorized || oauth.IsRefusedRefresh(err) {
		k.refused.Store(true)
	}
}
