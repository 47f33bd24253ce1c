// Package cookie keeps the whole session, sealed, in the browser's cookie. Nothing has to
// be installed; ended sessions are remembered by one process only.
package cookie

import (
	"context"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func init() {
	caddy.RegisterModule(Store{})
}

// Store keeps the whole session in the browser, sealed in one or two
// cookies. It is the default, needs nothing installed, and fits one process: what
// is known of renewed and of ended sessions stays in that process, so a session
// that was signed out is refused until the process ends, and not by another one.
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

// Open implements Module.
func (*Store) Open(env session.Env) session.Store {
	return &Sessions{Keys: env.Keys, opened: session.NewOpenedValues[*session.Session]()}
}

// Sessions seals sessions into cookie values.
type Sessions struct {
	Keys   func(context.Context) (*keys.Ring, error)
	opened *session.OpenedValues[*session.Session]
}

func (c *Sessions) Load(ctx context.Context, value string) (session.Found, error) {
	if s, ok := c.opened.Get(value); ok {
		return session.Found{Session: s, Ours: true, ID: s.ID}, nil
	}
	keys, err := c.Keys(ctx)
	if err != nil {
		return session.Found{}, err
	}
	s, which, ok := session.OpenSession(keys, value)
	if !ok {
		return session.Found{}, nil
	}
	if which == 0 {
		c.opened.Put(value, s)
	}
	return session.Found{Session: s, Ours: true, ID: s.ID, Rewrite: which > 0}, nil
}

// Create implements Store. There is nothing to write down: the cookie's value
// is the session.
func (c *Sessions) Create(_ context.Context, s *session.Session) (*session.Session, error) {
	return s, nil
}

func (c *Sessions) Cookie(ctx context.Context, s *session.Session) (string, error) {
	keys, err := c.Keys(ctx)
	if err != nil {
		return "", err
	}
	value, err := keys.Session.Seal(s.AppendBinary(nil))
	if err != nil {
		return "", fmt.Errorf("%w (%w)", session.ErrTooLarge, err)
	}
	return value, nil
}

// End implements Store. The browser holds the session; what can be done here
// is to refuse it, which renewals does.
func (c *Sessions) End(context.Context, *session.Session, time.Time) error { return nil }

func (c *Sessions) Ready(ctx context.Context) error {
	_, err := c.Keys(ctx)
	return err
}

func (c *Sessions) Close() { c.opened.Close() }

// Interface guards.
var (
	_ caddy.Module          = (*Store)(nil)
	_ caddyfile.Unmarshaler = (*Store)(nil)
	_ session.Module        = (*Store)(nil)
	_ session.Store         = (*Sessions)(nil)
)
