package tollgate

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
)

// balanceState says how far a balance can be trusted.
type balanceState string

const (
	// balanceFresh: the provider said so within max_age.
	balanceFresh balanceState = "fresh"
	// balanceStale: older, and being re-read, or the provider does not answer.
	balanceStale balanceState = "stale"
	// balanceUnknown: older than max_stale, missing, or no amount that can be read.
	balanceUnknown balanceState = "unknown"
)

// ages are the two limits of the balance block.
type ages struct {
	maxAge   time.Duration
	maxStale time.Duration
}

// state is what information of the given age is worth. Information that is known
// to be outdated is stale however young it is. A balance that is missing (the scope was
// not granted), or that cannot be read as an amount, is unknown at any age.
func (a ages) state(u *userInfo, outdated bool, now time.Time) balanceState {
	switch age := ageOf(u, now); {
	case !u.isAmount || age > a.maxStale:
		return balanceUnknown
	case age > a.maxAge || outdated:
		return balanceStale
	default:
		return balanceFresh
	}
}

// ageOf is how old information is. What was read in the future, by a clock that was
// set back since, is of any age.
func ageOf(u *userInfo, now time.Time) time.Duration {
	age := now.Sub(u.readAt)
	if age < -clockSlack {
		return math.MaxInt64
	}
	return max(age, 0)
}

// clockSlack is how far two readings of the clock may lie the wrong way round.
const clockSlack = time.Minute

const (
	// maxUsers bounds the users remembered; one takes well under a kilobyte.
	maxUsers = 100_000
	// readBackOff is the pause after a read that failed. Requests in between go on
	// with what is known.
	readBackOff = 5 * time.Second
	// readPatience is how long a request waits for information that it merely
	// passes on, when what is known is too old to be used.
	readPatience = 2 * time.Second
	// maxReads bounds how many users are asked for at once. Further reads wait for
	// their turn, for as long as a request does.
	maxReads = 64

	// lackingAge, scarceAge: a balance that does not suffice, or may soon not, is
	// re-read before it is used when it is older than this.
	lackingAge = time.Second
	scarceAge  = 5 * time.Second
	// topupWatch is for how long after a visit to the top-up page a balance is re-read
	// that is older than topupAge.
	topupWatch = 2 * time.Minute
	topupAge   = 2 * time.Second
)

var errReadsBusy = errors.New("too many users are being asked for at once")

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
	slots chan struct{} // one for each read that is under way
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
	// hanging is true while a read goes on that has used up a request's patience.
	hanging atomic.Bool
	// refused is true after the provider accepted no access token of the user's.
	refused atomic.Bool
	// failedAt is when the last read failed, in Unix milliseconds.
	failedAt atomic.Int64
	// topupAt is when the user was last sent to the top-up page, in Unix milliseconds.
	topupAt atomic.Int64
}

// userView is what is known of a user, for one request.
type userView struct {
	info  *userInfo
	state balanceState
	age   time.Duration
	// told: the provider said something of the balance, not longer ago than max_stale. It
	// need not be an amount.
	told bool
	// refused: the provider accepts no access token of the user's, and what is known
	// is too old to go by.
	refused bool
}

// balance is the balance as a number. It is not known when it is too old, or when what
// the provider wrote cannot be read as an amount.
func (v userView) balance() (balance decimal.Decimal, known bool) {
	if v.state == balanceUnknown {
		return decimal.Decimal{}, false
	}
	return v.info.amount, true
}

// owes reports whether the balance is no amount that can be read, and yet shows that it
// is a negative one.
func (v userView) owes() bool {
	return v.told && !v.info.isAmount && decimal.LooksNegative(v.info.text(fieldBalance))
}

func (k *knownUser) view(limits ages, now time.Time) userView {
	info := k.info.Load()
	age := ageOf(info, now)
	return userView{
		info:    info,
		state:   limits.state(info, k.outdated(), now),
		age:     age,
		told:    info.text(fieldBalance) != "" && age <= limits.maxStale,
		refused: age > limits.maxStale && k.refused.Load(),
	}
}

func newUserInfos(now func() time.Time) *userInfos {
	return &userInfos{
		users: otter.Must(&otter.Options[userKey, *knownUser]{MaximumSize: maxUsers}),
		slots: make(chan struct{}, maxReads),
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
		user.learn(&s.user, u.now())
	}
	return user
}

// learn takes information over that is not older than what is known, or when what
// is known is from the future.
func (k *knownUser) learn(info *userInfo, now time.Time) {
	for {
		old := k.info.Load()
		if old != nil && info.readAt.Before(old.readAt) && !old.readAt.After(now) {
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

// current is what is known of the user of s, for a request. Fresh information is used
// as it is. Stale information is used, too, and re-read meanwhile. What is too old,
// known to be outdated, or about to decide against the user is re-read first; if that
// fails, or takes longer than readPatience, the old information goes out with its age,
// and its state says so.
func (u *userInfos) current(ctx context.Context, s *session, now time.Time, limits ages, need *need, read readFunc) userView {
	user := u.known(s)
	view, outdated := user.view(limits, now), user.outdated()
	reading := user.reading.Load()
	fresh := view.age <= limits.maxAge && (view.age <= topupAge || !user.awaitsMoney(now))
	decisive := view.age > need.decisiveAge(view)
	switch {
	case fresh && !outdated && !decisive, user.backingOff(now), reading && user.hanging.Load():
		return view
	case view.age <= limits.maxStale && !outdated && !decisive:
		if !reading {
			u.startRead(s, user, read)
		}
		return view
	}
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	u.waitForRead(ctx, s, user, read)
	return user.view(limits, u.now())
}

// decisiveAge is the age from which on a balance is re-read before it decides. A user
// without money who asks again and again causes one read for each lackingAge.
func (n *need) decisiveAge(v userView) time.Duration {
	age := time.Duration(math.MaxInt64)
	if n != nil && n.ampleAge > 0 {
		age = n.ampleAge
	}
	switch n.meet(v) {
	case lacking:
		age = min(age, lackingAge)
	case scarce:
		age = min(age, scarceAge)
	}
	return age
}

// waitForRead waits for a read that knows of every change so far. The one that is
// under way may have begun too early for that, or with a session that is over; the
// next one has not.
func (u *userInfos) waitForRead(ctx context.Context, s *session, user *knownUser, read readFunc) {
	changes := user.changes.Load()
	for range 2 {
		select {
		case done := <-u.startRead(s, user, read):
			again := isOfOneSession(done.Err)
			if (done.Err != nil && !again) || user.seen.Load() >= changes && !again {
				return
			}
		case <-ctx.Done():
			user.hanging.Store(true)
			return
		}
	}
}

func (k *knownUser) backingOff(now time.Time) bool {
	return within(now.Sub(time.UnixMilli(k.failedAt.Load())), readBackOff)
}

// awaitsMoney reports whether the user was sent to the top-up page of late.
func (k *knownUser) awaitsMoney(now time.Time) bool {
	return within(now.Sub(time.UnixMilli(k.topupAt.Load())), topupWatch)
}

// reread asks the provider now, or joins the read that is under way, and waits for
// the answer. A read that failed because another session of the user's has ended says
// nothing about this one.
func (u *userInfos) reread(ctx context.Context, s *session, read readFunc) (err error) {
	for range 2 {
		select {
		case done := <-u.startRead(s, u.known(s), read):
			if err = done.Err; !isOfOneSession(err) {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// isOfOneSession reports whether a read failed because of the session that it was made
// for, and so may go well for another session of the same user.
func isOfOneSession(err error) bool {
	return errors.Is(err, errSessionEnded) || isRefusedRefresh(err)
}

// outdate makes the next use of s's user information ask the provider first.
func (u *userInfos) outdate(s *session) {
	u.known(s).changes.Add(1)
}

// awaitMoney makes the next use of s's user information ask the provider first, and
// the uses of the next minutes look more often: nobody knows when the money arrives.
func (u *userInfos) awaitMoney(s *session) {
	u.known(s).topupAt.Store(u.now().UnixMilli())
	u.outdate(s)
}

// takeSlot waits for the turn of a read.
func (u *userInfos) takeSlot() (release func(), err error) {
	patience := time.NewTimer(readPatience)
	defer patience.Stop()
	select {
	case u.slots <- struct{}{}:
		return func() { <-u.slots }, nil
	case <-patience.C:
		return nil, errReadsBusy
	}
}

// startRead begins the one read of a user, on a context of its own.
func (u *userInfos) startRead(s *session, user *knownUser, read readFunc) <-chan singleflight.Result {
	key := keyOf(s)
	flight := key.id + "\x00" + key.scope
	return u.reads.DoChan(flight, func() (any, error) {
		user.reading.Store(true)
		defer func() {
			user.hanging.Store(false)
			user.reading.Store(false)
		}()
		release, err := u.takeSlot()
		if err != nil {
			user.noteFailure(err, u.now())
			return nil, err
		}
		defer release()
		changes := user.changes.Load()
		info, err := read(context.Background())
		if err == nil && info.id() != key.id {
			err = &providerError{endpoint: endpointUserinfo, reason: "the answer is about another user"}
		}
		if err != nil {
			user.noteFailure(err, u.now())
			return nil, err
		}
		user.failedAt.Store(0)
		user.refused.Store(false)
		user.learn(&info, u.now())
		user.sawChanges(changes)
		return nil, nil
	})
}

// noteFailure makes the next requests wait before they ask again. The end of one
// session is no failure of the user's others.
func (k *knownUser) noteFailure(err error, now time.Time) {
	if errors.Is(err, errSessionEnded) {
		return
	}
	k.failedAt.Store(now.UnixMilli())
	if failureOf(err) == failureUnauthorized || isRefusedRefresh(err) {
		k.refused.Store(true)
	}
}
