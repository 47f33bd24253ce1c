// Package cookie keeps the whole session, sealed, in the browser's cookie. Nothing has to
// be installed; ended sessions are remembered by one process only.
//
// It does not write cookies: package browser does. Begin with Sessions.Load.
package cookie

import (
	"context"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

func init() {
	caddy.RegisterModule(Store{})
}

// Store keeps the whole session in the browser, sealed in one or two
// cookies. It is the default and needs no installation. It is made for one process: only the
// process that renewed or ended a session knows of that. Another process, or the same one
// after a restart, accepts a copy of the cookie of an ended session.
type Store struct{}

// CaddyModule returns the Caddy module information.
func (Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tollgate.stores.cookie",
		New: func() caddy.Module { return new(Store) },
	}
}

// UnmarshalCaddyfile sets up the store from `store cookie`, which has no options.
func (*Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() || d.NextBlock(d.Nesting()) {
		return d.Err("store cookie has no options")
	}
	return nil
}

// Open implements session.Module.
func (*Store) Open(env session.Env) session.Store {
	return &Sessions{Env: env, opened: session.NewOpenedValues[openedSession]()}
}

// Sessions seals sessions into cookie values.
type Sessions struct {
	session.Env
	opened *session.OpenedValues[openedSession]
}

// openedSession is a session, and the ring of keys that opened its value. It is outdated once
// there is another ring.
type openedSession struct {
	*session.Session
	ring *keys.Ring
}

// Load implements session.Store.
func (c *Sessions) Load(ctx context.Context, value string) (session.Found, error) {
	ring, err := c.Keys(ctx)
	if err != nil {
		return session.Found{}, err
	}
	if known, ok := c.opened.Get(value); ok && known.ring == ring {
		return session.Found{Session: known.Session, Ours: true, ID: known.ID}, nil
	}
	s, which, ok := session.OpenSession(ring, value)
	if !ok {
		return session.Found{}, nil
	}
	if which == 0 {
		c.opened.Put(value, openedSession{s, ring})
	}
	return session.Found{Session: s, Ours: true, ID: s.ID, Rewrite: which > 0}, nil
}

// Create implements session.Store. The cookie is the session, so nothing is written.
func (c *Sessions) Create(_ context.Context, s *session.Session) (*session.Session, error) {
	return s, nil
}

// Deliver implements session.Store. The cookie is the session, so each change needs a new
// cookie.
func (c *Sessions) Deliver(change session.Change) session.Delivery {
	return session.Delivery{Cookie: change.Rewrite || change.Renewed || change.Used}
}

// Cookie implements session.Store. It returns session.ErrTooLarge if the session does not
// fit into two cookies.
func (c *Sessions) Cookie(ctx context.Context, s *session.Session) (value string, end time.Time, err error) {
	keys, err := c.Keys(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	value, err = keys.Session.Seal(s.AppendBinary(nil))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%w (%w)", session.ErrTooLarge, err)
	}
	return value, s.End(c.Lifetime, c.IdleTimeout), nil
}

// Save implements session.Store. Nothing is written before Cookie.
func (c *Sessions) Save(_ context.Context, s *session.Session) (*session.Session, error) {
	return s, nil
}

// Reread implements session.Store. No other process can have changed the session.
func (c *Sessions) Reread(_ context.Context, s *session.Session) (*session.Session, error) {
	return s, nil
}

// TryLock implements session.Store. No other process can hold the session.
func (c *Sessions) TryLock(context.Context, *session.Session, time.Duration) (session.Lock, bool, error) {
	return free{}, true, nil
}

// free is the lock of a session that no other process can hold.
type free struct{}

func (free) Renew(context.Context) error   { return nil }
func (free) Release(context.Context) error { return nil }

// End implements session.Store. The browser holds the session; the session.Registry of this
// process refuses it.
func (c *Sessions) End(context.Context, *session.Session, time.Time) error { return nil }

// SessionsOf implements session.Store.
func (c *Sessions) SessionsOf(context.Context, string) ([]session.Summary, error) {
	return nil, session.ErrInCookies
}

// EndByName implements session.Store.
func (c *Sessions) EndByName(context.Context, string, time.Time) (bool, error) {
	return false, session.ErrInCookies
}

// Names implements session.Store.
func (c *Sessions) Names(context.Context) ([]string, error) { return nil, session.ErrInCookies }

// Ledger implements session.Store.
func (*Sessions) Ledger(local spending.Ledger) spending.Ledger { return local }

// LedgerUser implements session.Store. The name does not leave the process.
func (*Sessions) LedgerUser(_ context.Context, userID string) (string, error) { return userID, nil }

// Ready implements session.Store.
func (c *Sessions) Ready(ctx context.Context) error {
	_, err := c.Keys(ctx)
	return err
}

// Hold implements session.Store.
func (c *Sessions) Hold() (release func()) { return func() {} }

// Close implements session.Store.
func (c *Sessions) Close() { c.opened.Close() }

// Interface guards.
var (
	_ caddy.Module          = (*Store)(nil)
	_ caddyfile.Unmarshaler = (*Store)(nil)
	_ session.Module        = (*Store)(nil)
	_ session.Store         = (*Sessions)(nil)
	_ session.Lock          = free{}
)
