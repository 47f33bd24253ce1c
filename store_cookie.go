package tollgate

import (
	"context"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	caddy.RegisterModule(CookieStore{})
}

// CookieStore keeps the whole session in the browser, sealed in one or two
// cookies. It is the default, needs nothing installed, and fits one process: what
// is known of renewed and of ended sessions stays in that process, so a session
// that was signed out is refused until the process ends, and not by another one.
type CookieStore struct{}

// CaddyModule returns the Caddy module information.
func (CookieStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tollgate.stores.cookie",
		New: func() caddy.Module { return new(CookieStore) },
	}
}

// UnmarshalCaddyfile sets up the store from `store cookie`, which has no options.
func (*CookieStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() || d.NextBlock(d.Nesting()) {
		return d.Err("store cookie has no options")
	}
	return nil
}

// open implements storeModule.
func (*CookieStore) open(env storeEnv) sessionStore {
	return &cookieStore{keys: env.keys, opened: newOpenedValues[*session]()}
}

// cookieStore seals sessions into cookie values.
type cookieStore struct {
	keys   func(context.Context) (*keyring, error)
	opened *openedValues[*session]
}

func (c *cookieStore) load(ctx context.Context, value string) (found, error) {
	if s, ok := c.opened.get(value); ok {
		return found{session: s, ours: true}, nil
	}
	keys, err := c.keys(ctx)
	if err != nil {
		return found{}, err
	}
	s, which, ok := openSession(keys, value)
	if !ok {
		return found{}, nil
	}
	if which == 0 {
		c.opened.put(value, s)
	}
	return found{session: s, ours: true, rewrite: which > 0}, nil
}

// create implements sessionStore. There is nothing to write down: the cookie's value
// is the session.
func (c *cookieStore) create(_ context.Context, s *session) (*session, error) { return s, nil }

func (c *cookieStore) cookie(ctx context.Context, s *session) (string, error) {
	keys, err := c.keys(ctx)
	if err != nil {
		return "", err
	}
	value, err := keys.session.seal(s.appendBinary(nil))
	if err != nil {
		return "", fmt.Errorf("%w (%w)", errSessionTooLarge, err)
	}
	return value, nil
}

// end implements sessionStore. The browser holds the session; what can be done here
// is to refuse it, which renewals does.
func (c *cookieStore) end(context.Context, *session, time.Time) error { return nil }

func (c *cookieStore) ready(ctx context.Context) error {
	_, err := c.keys(ctx)
	return err
}

func (c *cookieStore) close() { c.opened.close() }

// Interface guards.
var (
	_ caddy.Module          = (*CookieStore)(nil)
	_ caddyfile.Unmarshaler = (*CookieStore)(nil)
	_ storeModule           = (*CookieStore)(nil)
	_ sessionStore          = (*cookieStore)(nil)
)
