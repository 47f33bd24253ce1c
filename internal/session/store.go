package session

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/secretfiles"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// Module is a module of the namespace tollgate.stores.
type Module interface {
	// Open returns the store. It does not use the network or the storage yet.
	Open(env Env) Store
}

// Store keeps sessions between requests. No store knows the handler, and the handler
// knows no store by name. All methods may be called concurrently, and end with their
// context.
//
// Load has three results, which must not be confused. It finds a session. Or it finds
// none, with a nil error: the value is missing, foreign, outdated or forged. Or it returns
// an error, because the store cannot tell; an error never signs anybody out.
//
// Save, Reread and TryLock let several processes share a session. A store that keeps the
// session in the browser's cookie is alone with it: it saves nothing, rereads what it is
// given, and its lock is always free.
type Store interface {
	// Load returns the session of a cookie value.
	Load(ctx context.Context, value string) (Found, error)

	// Create saves a new session, and returns it with its Kept.
	Create(ctx context.Context, s *Session) (*Session, error)

	// Deliver says what has to be written for a change of a session.
	Deliver(c Change) Delivery

	// Cookie returns the cookie value of a saved session, and when the cookie ends.
	Cookie(ctx context.Context, s *Session) (value string, end time.Time, err error)

	// Save writes s over the revision that it was read from, and returns s with its new
	// revision. It returns ErrMoved if the store holds another revision.
	Save(ctx context.Context, s *Session) (*Session, error)

	// Reread reads the current state of s, without a cache. It returns nil if the session
	// has ended.
	Reread(ctx context.Context, s *Session) (*Session, error)

	// TryLock takes the lock of a session. It returns false if another process holds it. A
	// lock that is not renewed ends with its lease.
	TryLock(ctx context.Context, s *Session, lease time.Duration) (Lock, bool, error)

	// End ends s at the given time, as far as the store can.
	End(ctx context.Context, s *Session, from time.Time) error

	// SessionsOf returns the sessions of a user, or ErrInCookies.
	SessionsOf(ctx context.Context, userID string) ([]Summary, error)

	// EndByName ends the session with this name (see ID.Hash) at the given time, which may
	// be in the future. It reports whether there was one, or returns ErrInCookies.
	EndByName(ctx context.Context, name string, from time.Time) (bool, error)

	// Names returns the names of all sessions that the store keeps, or ErrInCookies. Sites
	// that share a store cannot tell their sessions apart by name.
	Names(ctx context.Context) ([]string, error)

	// Ledger returns the ledger of what the site's users spend. A store that keeps nothing
	// outside of the browser returns local, the ledger of this process.
	Ledger(local spending.Ledger) spending.Ledger

	// LedgerUser returns the name of a user in the ledger.
	LedgerUser(ctx context.Context, userID string) (string, error)

	// Ready returns nil if the store can serve every request now, also a sign-in.
	Ready(ctx context.Context) error

	// Hold keeps the store usable after Close, until release is called.
	Hold() (release func())

	// Close releases the store's resources. Requests may still be using the store.
	Close()
}

// ErrMoved says that the store does not hold the revision that was to be replaced.
var ErrMoved = errors.New("another process changed or deleted the session's record")

// ErrInCookies says that only the browsers hold the sessions of a site, so nobody can list
// them or end one by its name.
var ErrInCookies = errors.New("sessions in cookies cannot be listed or ended by name")

// Lock is a lock that TryLock has taken.
type Lock interface {
	// Renew restarts the lease. It returns an error if the lock was lost.
	Renew(ctx context.Context) error
	// Release releases the lock if it is still held.
	Release(ctx context.Context) error
}

// Change is how a session differs from the cookie that the browser sent.
type Change struct {
	// Rewrite is Found.Rewrite.
	Rewrite bool
	// Renewed is true if the session has a newer generation than the cookie.
	Renewed bool
	// Used is true if LastSeen should be updated.
	Used bool
}

// Delivery is what has to be written for a Change. The zero value is nothing.
type Delivery struct {
	// Save is true if the store has to save the later LastSeen.
	Save bool
	// Cookie is true if the browser needs a new cookie.
	Cookie bool
}

// Summary describes a session, as far as that is possible without its cookie.
type Summary struct {
	Name string
	Head
}

// Found is the result of Store.Load.
type Found struct {
	Session *Session // nil if there is none
	// Stored is true if the session was read from the store, and not from the cookie. If
	// this process knows a newer generation, the store has lost it.
	Stored bool
	// Ours is true if this site sealed the value, even if its session has ended.
	Ours bool
	// ID is the session's id, if the value is ours. It is set with an error, too.
	ID ID
	// Rewrite is true if the browser should get a new cookie, because the secret or the
	// store has changed.
	Rewrite bool
}

// maxUpdates is how often Update tries again after another writer came first.
const maxUpdates = 10

// Update saves a change of s. If another writer came first, it applies the change to what
// that one wrote, and tries again. change returns nil if nothing is left to do: Update then
// returns what it was given. It returns ErrEnded if the session has ended.
func Update(ctx context.Context, store Store, s *Session, change func(standing *Session) *Session) (*Session, error) {
	for range maxUpdates {
		next := change(s)
		if next == nil {
			return s, nil
		}
		saved, err := store.Save(ctx, next)
		if !errors.Is(err, ErrMoved) {
			return saved, err
		}
		standing, err := store.Reread(ctx, s)
		switch {
		case err != nil:
			return nil, err
		case standing == nil:
			return nil, ErrEnded
		}
		s = standing
	}
	return nil, ErrMoved
}

// Env is what a store gets from the handler.
type Env struct {
	// Keys returns the site's keys, or an error while they cannot be read.
	Keys func(context.Context) (*keys.Ring, error)
	// SecretGiven is true if the configuration has a secret.
	SecretGiven bool
	// WatchSecret tells the site which of the store's secrets come from files. A store calls
	// it in Open. It is nil if nobody looks at files.
	WatchSecret func(secretfiles.Secret)
	// Latest returns the newest generation of a session that this process knows. The
	// boolean is false if the session has ended.
	Latest func(*Session) (*Session, bool)
	// Ended holds the records whose sessions this process has ended.
	Ended *EndedNames
	// Takeover returns the time in which a store accepts whole sessions from cookies: for
	// this long after the start.
	Takeover func(after time.Duration) Takeover
	// Lifetime is the absolute lifetime of a session, and IdleTimeout ends it when it is not
	// used. Zero is no idle timeout.
	Lifetime, IdleTimeout time.Duration
	// Lease is how long what a request holds lives in a ledger without being renewed. Zero
	// is the usual time of the store.
	Lease time.Duration
	// Timeout is how long one access of a store on a server may take. Zero is the usual time
	// of the store.
	Timeout time.Duration
	// Now is the clock.
	Now func() time.Time
}

// Takeover is the time in which a server-side store accepts whole sessions from cookies.
// Outside of that time it refuses them. The secret may be in the storage beside the
// records, and anyone who knows it could seal a session with any user's id.
type Takeover struct{ Until time.Time }

// Open reports whether sessions are still accepted from cookies.
func (o Takeover) Open(now time.Time) bool { return now.Before(o.Until) }
