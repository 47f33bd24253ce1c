// Package account knows what the provider said of a user, how old that is, and whether
// the user's balance meets what a path requires.
//
// It reads the user information again when it is too old or about to decide against the
// user, at most once at a time for each user. Who may pass is decided in package policy
// and in the handler. Begin with Users.Current.
package account

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// State says how far a balance can be trusted.
type State string

const (
	// balanceFresh: the provider said so within max_age.
	balanceFresh State = "fresh"
	// balanceStale: older, and being re-read, or the provider does not answer.
	balanceStale State = "stale"
	// balanceUnknown: older than max_stale, missing, or no amount that can be read.
	balanceUnknown State = "unknown"
)

// Ages are the two limits of the balance block.
type Ages struct {
	MaxAge   time.Duration
	MaxStale time.Duration
}

// state is what information of the given age is worth. Information that is known
// to be outdated is stale however young it is. A balance that is missing (the scope was
// not granted), or that cannot be read as an amount, is unknown at any age.
func (a Ages) state(u *oauth.UserInfo, outdated bool, now time.Time) State {
	switch age := ageOf(u, now); {
	case !u.IsAmount || age > a.MaxStale:
		return balanceUnknown
	case age > a.MaxAge || outdated:
		return balanceStale
	default:
		return balanceFresh
	}
}

// ageOf is how old information is. What was read in the future, by a clock that was
// set back since, is of any age.
func ageOf(u *oauth.UserInfo, now time.Time) time.Duration {
	age := now.Sub(u.ReadAt)
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
	// ReadBackOff is the pause after a read that failed. Requests in between go on
	// with what is known.
	ReadBackOff = 5 * time.Second
	// ReadPatience is how long a request waits for information that it merely
	// passes on, when what is known is too old to be used.
	ReadPatience = 2 * time.Second
	// MaxReads bounds how many users are asked for at once. Further reads wait for
	// their turn, for as long as a request does.
	MaxReads = 64

	// LackingAge, ScarceAge: a balance that does not suffice, or may soon not, is
	// re-read before it is used when it is older than this.
	LackingAge = time.Second
	ScarceAge  = 5 * time.Second
	// TopupWatch is for how long after a visit to the top-up page a balance is re-read
	// that is older than TopupAge.
	TopupWatch = 2 * time.Minute
	TopupAge   = 2 * time.Second
)

var errReadsBusy = errors.New("too many users are being asked for at once")

// userKey tells users apart: the provider's id, and the scope under which the
// information was read, since a session without the balance scope must neither
// blind nor inform another.
type userKey struct {
	id    string
	scope string
}

func keyOf(s *session.Session) userKey {
	return userKey{id: s.User.ID(), scope: s.Tokens.Scope}
}

// Users holds the newest user information of each user, and reads it anew:
// one read at a time per user, whatever the number of sessions and requests.
type Users struct {
	users *otter.Cache[userKey, *knownUser]
	reads flight.Group[struct{}]
	Slots chan struct{} // one for each read that is under way
	Now   func() time.Time
}

// knownUser is one user. Its fields are set by any request at any time.
type knownUser struct {
	info atomic.Pointer[oauth.UserInfo]
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

// View is what is known of a user, for one request.
type View struct {
	Info  *oauth.UserInfo
	State State
	Age   time.Duration
	// Told: the provider said something of the balance, not longer ago than max_stale. It
	// need not be an amount.
	Told bool
	// Refused: the provider accepts no access token of the user's, and what is known
	// is too old to go by.
	Refused bool
}

// balance is the balance as a number. It is not known when it is too old, or when what
// the provider wrote cannot be read as an amount.
func (v View) balance() (balance decimal.Decimal, known bool) {
	if v.State == balanceUnknown {
		return decimal.Decimal{}, false
	}
	return v.Info.Amount, true
}

// owes reports whether the balance is no amount that can be read, and yet shows that it
// is a negative one.
func (v View) owes() bool {
	return v.Told && !v.Info.IsAmount && decimal.LooksNegative(v.Info.Text(oauth.FieldBalance))
}

func (k *knownUser) view(limits Ages, now time.Time) View {
	info := k.info.Load()
	age := ageOf(info, now)
	return View{
		Info:    info,
		State:   limits.state(info, k.outdated(), now),
		Age:     age,
		Told:    info.Text(oauth.FieldBalance) != "" && age <= limits.MaxStale,
		Refused: age > limits.MaxStale && k.refused.Load(),
	}
}

func NewUsers(now func() time.Time) *Users {
	return &Users{
		users: otter.Must(&otter.Options[userKey, *knownUser]{MaximumSize: maxUsers}),
		Slots: make(chan struct{}, MaxReads),
		Now:   now,
	}
}

// Known is the user of s; what the session remembers is taken over where it is
// newer than what is known here.
func (u *Users) Known(s *session.Session) *knownUser {
	key := keyOf(s)
	user, ok := u.users.GetIfPresent(key)
	if !ok {
		user, _ = u.users.SetIfAbsent(key, &knownUser{})
	}
	if info := user.info.Load(); info == nil || s.User.ReadAt.After(info.ReadAt) {
		user.learn(&s.User, u.Now())
	}
	return user
}

// learn takes information over that is not older than what is known, or when what
// is known is from the future.
func (k *knownUser) learn(info *oauth.UserInfo, now time.Time) {
	for {
		old := k.info.Load()
		if old != nil && info.ReadAt.Before(old.ReadAt) && !old.ReadAt.After(now) {
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

// ReadFunc asks the provider for the user information of one user.
type ReadFunc func(context.Context) (oauth.UserInfo, error)

// Current is what is known of the user of s, for a request. Fresh information is used
// as it is. Stale information is used, too, and re-read meanwhile. What is too old,
// known to be outdated, or about to decide against the user is re-read first; if that
// fails, or takes longer than ReadPatience, the old information goes out with its age,
// and its state says so.
func (u *Users) Current(ctx context.Context, s *session.Session, now time.Time, limits Ages, need *Need, read ReadFunc) View {
	user := u.Known(s)
	view, outdated := user.view(limits, now), user.outdated()
	reading := user.reading.Load()
	fresh := view.Age <= limits.MaxAge && (view.Age <= TopupAge || !user.awaitsMoney(now))
	decisive := view.Age > need.decisiveAge(view)
	switch {
	case fresh && !outdated && !decisive, user.backingOff(now), reading && user.hanging.Load():
		return view
	case view.Age <= limits.MaxStale && !outdated && !decisive:
		if !reading {
			u.StartRead(s, user, read)
		}
		return view
	}
	ctx, cancel := context.WithTimeout(ctx, ReadPatience)
	defer cancel()
	u.waitForRead(ctx, s, user, read)
	return user.view(limits, u.Now())
}

// waitForRead waits for a read that knows of every change so far. The one that is
// under way may have begun too early for that, or with a session that is over; the
// next one has not.
func (u *Users) waitForRead(ctx context.Context, s *session.Session, user *knownUser, read ReadFunc) {
	changes := user.changes.Load()
	for range 2 {
		select {
		case done := <-u.StartRead(s, user, read):
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
	return flight.Within(now.Sub(time.UnixMilli(k.failedAt.Load())), ReadBackOff)
}

// awaitsMoney reports whether the user was sent to the top-up page of late.
func (k *knownUser) awaitsMoney(now time.Time) bool {
	return flight.Within(now.Sub(time.UnixMilli(k.topupAt.Load())), TopupWatch)
}

// Reread asks the provider now, or joins the read that is under way, and waits for
// the answer. A read that failed because another session of the user's has ended says
// nothing about this one.
func (u *Users) Reread(ctx context.Context, s *session.Session, read ReadFunc) (err error) {
	for range 2 {
		select {
		case done := <-u.StartRead(s, u.Known(s), read):
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
	return errors.Is(err, session.ErrEnded) || oauth.IsRefusedRefresh(err)
}

// Outdate makes the next use of s's user information ask the provider first.
func (u *Users) Outdate(s *session.Session) {
	u.Known(s).changes.Add(1)
}

// AwaitMoney makes the next use of s's user information ask the provider first, and
// the uses of the next minutes look more often: nobody knows when the money arrives.
func (u *Users) AwaitMoney(s *session.Session) {
	u.Known(s).topupAt.Store(u.Now().UnixMilli())
	u.Outdate(s)
}

// TakeSlot waits for the turn of a read.
func (u *Users) TakeSlot() (release func(), err error) {
	patience := time.NewTimer(ReadPatience)
	defer patience.Stop()
	select {
	case u.Slots <- struct{}{}:
		return func() { <-u.Slots }, nil
	case <-patience.C:
		return nil, errReadsBusy
	}
}

// StartRead begins the one read of a user, on a context of its own.
func (u *Users) StartRead(s *session.Session, user *knownUser, read ReadFunc) <-chan flight.Result[struct{}] {
	key := keyOf(s)
	return u.reads.Start(key.id+"\x00"+key.scope, func() (done struct{}, err error) {
		user.reading.Store(true)
		defer func() {
			user.hanging.Store(false)
			user.reading.Store(false)
		}()
		release, err := u.TakeSlot()
		if err != nil {
			user.noteFailure(err, u.Now())
			return done, err
		}
		defer release()
		changes := user.changes.Load()
		info, err := read(context.Background())
		if err == nil && info.ID() != key.id {
			err = &oauth.Error{Endpoint: oauth.EndpointUserinfo, Reason: "the answer is about another user"}
		}
		if err != nil {
			user.noteFailure(err, u.Now())
			return done, err
		}
		user.failedAt.Store(0)
		user.refused.Store(false)
		user.learn(&info, u.Now())
		user.sawChanges(changes)
		return done, nil
	})
}

// noteFailure makes the next requests wait before they ask again. The end of one
// session is no failure of the user's others.
func (k *knownUser) noteFailure(err error, now time.Time) {
	if errors.Is(err, session.ErrEnded) {
		return
	}
	k.failedAt.Store(now.UnixMilli())
	if oauth.FailureOf(err) == oauth.FailureUnauthorized || oauth.IsRefusedRefresh(err) {
		k.refused.Store(true)
	}
}
