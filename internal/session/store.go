package session

import (
	"context"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

// Module is a module of the namespace tollgate.stores.
type Module interface {
	// Open returns the store. It does not use the network or the storage yet.
	Open(env Env) Store
}

// Env is what a store gets from the handler.
type Env struct {
	// Keys returns the site's keys, or an error while they cannot be read.
	Keys func(context.Context) (*keys.Ring, error)
	// SecretGiven is true if the configuration has a secret.
	SecretGiven bool
	// Latest returns the newest generation of a session that this process knows. The
	// boolean is false if the session has ended.
	Latest func(*Session) (*Session, bool)
	// Ended holds the records whose sessions this process has ended.
	Ended *EndedNames
	// Takeover returns the time in which a store accepts whole sessions from cookies: for
	// this long after the start.
	Takeover func(after time.Duration) Takeover
	// Lifetime is the absolute lifetime of a session.
	Lifetime time.Duration
	// Now is the clock.
	Now func() time.Time
}

// Takeover is the time in which a server-side store accepts whole sessions from cookies.
// Outside of that time it refuses them. The secret may be in the storage beside the
// records, and anyone who knows it could seal a session with any user's id.
type Takeover struct{ Until time.Time }

// Open reports whether sessions are still accepted from cookies.
func (o Takeover) Open(now time.Time) bool { return now.Before(o.Until) }
