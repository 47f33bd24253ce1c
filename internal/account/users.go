// Package account caches the user information of the provider, knows its age, and compares
// the user's balance with what a path requires.
//
// It reads the user information again if it is too old, or before it decides against the
// user. There is at most one read at a time for each user. Package policy and the handler
// decide who may pass. Begin with Users.Current, then reads.go.
package account

import (
	"context"
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
	// balanceFresh means that the balance was read within max_age.
	balanceFresh State = "fresh"
	// balanceStale means that the balance is older than max_age. It is being re-read, or
	// the provider does not respond.
	balanceStale State = "stale"
	// balanceUnknown means that the balance is older than max_stale, missing, or not an
	// amount.
	balanceUnknown State = "unknown"
)

// Ages are the two limits of the balance block.
type Ages struct {
	MaxAge   time.Duration
	MaxStale time.Duration
}

// state returns the state of a balance. Information that is known to be outdated is stale
// at any age. A balance that is missing (the scope was not granted), or that cannot be
// read as an amount, is unknown at any age.
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

// ageOf returns the age of user information. If it was read in the future, because the
// clock was set back since, it counts as infinitely old.
func ageOf(u *oauth.UserInfo, now time.Time) time.Duration {
	age := now.Sub(u.ReadAt)
	if age < -clockSlack {
		return math.MaxInt64
	}
	return max(age, 0)
}

// clockSlack is how far in the future information may have been read.
const clockSlack = time.Minute

const (
	// maxUsers is the maximum number of cached users. One takes less than a kilobyte.
	maxUsers = 100_000
	// LackingAge is the age from which a balance that is too low is re-read before use.
	LackingAge = time.Second
	// scarceAge is the age from which a balance that may soon be too low is re-read before
	// use.
	scarceAge = 5 * time.Second
	// topupWatch is how long after a visit to the top-up page every balance older than
	// topupAge is re-read.
	topupWatch = 2 * time.Minute
	// topupAge is the age from which a balance is re-read during topupWatch.
	topupAge = 2 * time.Second
)

// userKey identifies cached user information: the user's id at the provider, and the scope
// of the session. Sessions with different scopes do not share information: one without the
// balance scope must neither hide nor reveal the balance of another.
type userKey struct {
	id    string
	scope string
}

func keyOf(s *session.Session) userKey {
	return userKey{id: s.User.ID(), scope: s.Tokens.Scope}
}

// Users caches the newest information of each user and reads it again, with one read at a
// time per user for any number of sessions and requests.
type Users struct {
	users *otter.Cache[userKey, *knownUser]
	reads flight.Group[struct{}]
	slots chan struct{} // holds one value for each running read
	// Busy is called with ErrReadsBusy if a read of the user of s could not begin. The requests
	// that wait for it use the cached information.
	Busy func(s *session.Session, err error)
	now  func() time.Time
}

// knownUser is one cached user. Requests change its fields concurrently.
type knownUser struct {
	info atomic.Pointer[oauth.UserInfo]
	// changes counts the calls of Outdate. seen is the value of changes when the last
	// successful read began.
	changes, seen atomic.Int64
	// begun counts the reads that have begun. came is the number of the newest one that has
	// come back.
	begun, came atomic.Int64
	// wanted counts the calls of ReadSoon since its goroutine last found nothing to do.
	wanted atomic.Int64
	// refusal is the last request that the balance was too low for.
	refusal atomic.Pointer[refusal]
	// reading is true while a read is running.
	reading atomic.Bool
	// hanging is true while a read is running that has exceeded the timeout of a request.
	hanging atomic.Bool
	// refused is true after the provider has refused the user's access tokens.
	refused atomic.Bool
	// failedAt is when the last read failed, in Unix milliseconds.
	failedAt atomic.Int64
	// topupAt is when the user was last sent to the top-up page, in Unix milliseconds.
	topupAt atomic.Int64
}

// View is the cached information of a user, for one request.
type View struct {
	Info  *oauth.UserInfo
	State State
	Age   time.Duration
	// Told is true if the provider sent a balance, not longer ago than max_stale. The
	// balance may not be an amount.
	Told bool
	// Refused is true if the provider refuses the user's access tokens, and the cached
	// information is older than max_stale.
	Refused bool
}

// balance returns the balance as a number. known is false if it is too old or not an
// amount.
func (v View) balance() (balance decimal.Decimal, known bool) {
	if v.State == balanceUnknown {
		return decimal.Decimal{}, false
	}
	return v.Info.Amount, true
}

// IsBelow reports whether the balance is known and below the given one.
func (v View) IsBelow(limit decimal.Decimal) bool {
	balance, known := v.balance()
	return known && balance.Compare(limit) < 0
}

// Owes reports whether the balance cannot be read as an amount but looks negative.
func (v View) Owes() bool {
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

// NewUsers returns an empty cache with the given clock. See Users.Busy for busy.
func NewUsers(now func() time.Time, busy func(*session.Session, error)) *Users {
	return &Users{
		users: otter.Must(&otter.Options[userKey, *knownUser]{MaximumSize: maxUsers}),
		slots: make(chan struct{}, maxReads),
		Busy:  busy,
		now:   now,
	}
}

// known returns the cached user of s. The session's own user information replaces the
// cached information if it is newer.
func (u *Users) known(s *session.Session) *knownUser {
	key := keyOf(s)
	user, ok := u.users.GetIfPresent(key)
	if !ok {
		user, _ = u.users.SetIfAbsent(key, &knownUser{})
	}
	if info := user.info.Load(); info == nil || s.User.ReadAt.After(info.ReadAt) {
		user.learn(&s.User, u.now())
	}
	return user
}

// learn replaces the cached information, unless that is newer. Cached information from
// the future is always replaced.
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

// Latest returns the cached information of the user of s, without reading it.
func (u *Users) Latest(s *session.Session, limits Ages) View { return u.known(s).view(limits, u.now()) }

// outdated reports whether Outdate was called after the last successful read began.
func (k *knownUser) outdated() bool { return k.seen.Load() < k.changes.Load() }

// sawChanges notes that a successful read began after the given number of changes.
func (k *knownUser) sawChanges(count int64) {
	for {
		old := k.seen.Load()
		if count <= old || k.seen.CompareAndSwap(old, count) {
			return
		}
	}
}

// Current returns the information of the user of s, for a request. Fresh information is
// returned at once. Stale information is also returned at once, and re-read in the
// background. Information that is too old, that is known to be outdated, or that is about
// to decide against the user is re-read first. If that read fails or takes longer than
// readTimeout, Current returns the old information with its age and state.
func (u *Users) Current(ctx context.Context, s *session.Session, now time.Time, limits Ages, need *Need, read ReadFunc) View {
	user := u.known(s)
	view, outdated := user.view(limits, now), user.outdated()
	reading := user.reading.Load()
	fresh := view.Age <= limits.MaxAge && (view.Age <= topupAge || !user.awaitsMoney(now))
	decisive := view.Age > need.decisiveAge(view)
	switch {
	case fresh && !outdated && !decisive, user.backingOff(now), reading && user.hanging.Load():
		return view
	case view.Age <= limits.MaxStale && !outdated && !decisive:
		if !reading {
			u.startRead(ctx, s, user, read)
		}
		return view
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	u.waitForRead(ctx, s, user, read)
	return user.view(limits, u.now())
}

// awaitsMoney reports whether the user was sent to the top-up page within topupWatch.
func (k *knownUser) awaitsMoney(now time.Time) bool {
	return flight.Within(now.Sub(time.UnixMilli(k.topupAt.Load())), topupWatch)
}

// Outdate marks the user information of s as outdated: its next use re-reads it first.
func (u *Users) Outdate(s *session.Session) {
	u.known(s).changes.Add(1)
}

// AwaitMoney marks the user information of s as outdated, and for topupWatch re-reads it
// more often, because the gateway does not learn when the money arrives.
func (u *Users) AwaitMoney(s *session.Session) {
	u.known(s).topupAt.Store(u.now().UnixMilli())
	u.Outdate(s)
}
