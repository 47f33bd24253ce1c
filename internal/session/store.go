package session

import (
	"context"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

// Module is what a module of the namespace tollgate.stores does: it opens the
// store, without touching the network or the storage yet.
type Module interface {
	Open(env Env) Store
}

// Env is what the handler gives to the store that it opens.
type Env struct {
	Keys func(context.Context) (*keys.Ring, error)
	// SecretGiven: the configuration has a secret.
	SecretGiven bool
	// Latest is the newest that this process knows of a session, or false when it has
	// ended.
	Latest func(*Session) (*Session, bool)
	// Ended are the records whose sessions this process has ended.
	Ended *EndedNames
	// Takeover gives the time in which whole sessions are taken over from cookies, for a
	// store that does so for this long after the start.
	Takeover func(after time.Duration) Takeover
	// Lifetime is how long sessions live at most.
	Lifetime time.Duration
	Now      func() time.Time
}

// Takeover says until when whole sessions that stood in cookies are taken over. Outside
// of that time such a cookie is no session: whoever knows the secret, which may lie in
// the storage beside the records, could seal one with any user's id in it.
type Takeover struct{ Until time.Time }

func (o Takeover) Open(now time.Time) bool { return now.Before(o.Until) }
