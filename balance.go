package tollgate

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
)

// balanceState says how far a balance can be trusted.
type balanceState string

const (
	// balanceFresh: the provider said so within max_age.
	balanceFresh balanceState = "fresh"
	// balanceStale: older, and being re-read, or the provider does not answer.
	balanceStale balanceState = "stale"
	// balanceUnknown: older than max_stale, or the provider never said.
	balanceUnknown balanceState = "unknown"
)

// ages are the two limits of the balance block.
type ages struct {
	maxAge   time.Duration
	maxStale time.Duration
}

// state is what information of the given age is worth. Information that is known
// to be outdated is stale however young it is, and a user information answer
// without a balance (the scope was not granted) leaves the balance unknown.
func (a ages) state(u *userInfo, outdated bool, now time.Time) balanceState {
	switch age := now.Sub(u.readAt); {
	case u.fields[fieldBalance] == "" || age > a.maxStale:
		return balanceUnknown
	case age > a.maxAge || outdated:
		return balanceStale
	default:
		return balanceFresh
	}
}

const (
	// maxUsers bounds the users remembered; one takes well under a kilobyte.
	maxUsers = 100_000
	// readBackOff is the pause after a read that failed. Requests in between go on
	// with what is known.
	readBackOff = 5 * time.Second
	// readPatience is how long a request waits for information that it merely
	// passes on, when what is known is too old to be used.
	readPatience = 2 * time.Second
)

// userKey tells users apart: the provider's id, and the scope under which the
// information was read, since a session without the balance scope must neither
// blind nor inform another.
type userKey struct {
	id    string
	scope string
}

func keyOf(s *session) userKey {
	return userKey{id: s.user.id(), scope: s.tokens.scope}
}

// userInfos holds the newest user information of each user, and reads it anew:
// one read at a time per user, whatever the number of sessions and requests.
type userInfos struct {
	users *otter.Cache[userKey, *knownUser]
	reads singleflight.Group
	now   func() time.Time
}

// knownUser is one user. Its fields are set by any request at any time.
type knownUser struct {
	info atomic.Pointer[userInfo]
	// changes counts how often the information was said to be outdated, and seen how
	// many of these the last good read began after.
	changes, seen atomic.Int64
	// reading is true while the provider is being asked.
	reading atomic.Bool
	// failedAt is when the last read failed, in Unix milliseconds.
	failedAt atomic.Int64
}

func newUserInfos(now func() time.Time) *userInfos {
	return &userInfos{
		users: otter.Must(&otter.Options[userKey, *knownUser]{MaximumSize: maxUsers}),
		now:   now,
	}
}

// known is the user of s; what the session remembers is taken over where it is
// newer than what is known here.
func (u *userInfos) known(s *session) *knownUser {
	key := keyOf(s)
	user, ok := u.users.GetIfPresent(key)
	if !ok {
		user, _ = u.users.SetIfAbsent(key, &knownUser{})
	}
	if info := user.info.Load(); info == nil || s.user.readAt.After(info.readAt) {
		user.learn(&s.user)
	}
	return user
}

// learn takes information over that is not older than what is known.
func (k *knownUser) learn(info *userInfo) {
	for {
		old := k.info.Load()
		if old != nil && info.readAt.Before(old.readAt) {
			return
		}
		if k.info.CompareAndSwap(old, info) {
			return
		}
	}
}

// outdated reports whether the information changed after it was last asked for.
func (k *knownUser) outdated() bool { return k.seen.Load() < k.changes.Load() }

// sawChanges notes that a good read began after so many changes.
func (k *knownUser) sawChanges(count int64) {
	for {
		old := k.seen.Load()
		if count <= old || k.seen.CompareAndSwap(old, count) {
			return
		}
	}
}

// readFunc asks the provider for the user information of one user.
type readFunc func(context.Context) (userInfo, error)

// current is the information to use for a request of s, and what its balance is
// worth. Fresh information is used as it is. Stale information is used, too, and
// re-read meanwhile. What is too old or known to be outdated is re-read first; if
// that fails, or takes longer than readPatience, the old information goes out with
// its age, and its state says so.
func (u *userInfos) current(ctx context.Context, s *session, now time.Time, limits ages, read readFunc) (*userInfo, balanceState) {
	user := u.known(s)
	info, outdated := user.info.Load(), user.outdated()
	state := limits.state(info, outdated, now)
	age := now.Sub(info.readAt)
	if (age <= limits.maxAge && !outdated) || user.backingOff(now) {
		return info, state
	}
	if age <= limits.maxStale && !outdated {
		if !user.reading.Load() {
			u.startRead(s, user, read)
		}
		return info, state
	}
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	u.waitForRead(ctx, s, user, read)
	info = user.info.Load()
	return info, limits.state(info, user.outdated(), u.now())
}

// waitForRead waits for a read that knows of every change so far. The one that is
// under way may have begun too early for that; the next one has not.
func (u *userInfos) waitForRead(ctx context.Context, s *session, user *knownUser, read readFunc) {
	changes := user.changes.Load()
	for range 2 {
		select {
		case done := <-u.startRead(s, user, read):
			if done.Err != nil || user.seen.Load() >= changes {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (k *knownUser) backingOff(now time.Time) bool {
	return now.UnixMilli()-k.failedAt.Load() < readBackOff.Milliseconds()
}

// reread asks the provider now, or joins the read that is under way, and waits for
// the answer.
func (u *userInfos) reread(ctx context.Context, s *session, read readFunc) error {
	select {
	case done := <-u.startRead(s, u.known(s), read):
		return done.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// outdate makes the next use of s's user information ask the provider first.
func (u *userInfos) outdate(s *session) {
	u.known(s).changes.Add(1)
}

// startRead begins the one read of a user, on a context of its own.
func (u *userInfos) startRead(s *session, user *knownUser, read readFunc) <-chan singleflight.Result {
	key := keyOf(s)
	flight := key.id + "\x00" + key.scope
	return u.reads.DoChan(flight, func() (any, error) {
		user.reading.Store(true)
		defer user.reading.Store(false)
		changes := user.changes.Load()
		info, err := read(context.Background())
		if err == nil && info.id() != key.id {
			err = &providerError{endpoint: endpointUserinfo, reason: "the answer is about another user"}
		}
		if err != nil {
			user.failedAt.Store(u.now().UnixMilli())
			return nil, err
		}
		user.failedAt.Store(0)
		user.learn(&info)
		user.sawChanges(changes)
		return nil, nil
	})
}

// close stops the housekeeping of the table.
func (u *userInfos) close() { u.users.StopAllGoroutines() }
