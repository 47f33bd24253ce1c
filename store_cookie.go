package tollgate

import (
	"context"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/maypok86/otter/v2"
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
func (*CookieStore) open(keys func(context.Context) (*keyring, error)) sessionStore {
	return &cookieStore{
		keys: keys,
		opened: otter.Must(&otter.Options[string, *openedCookie]{
			MaximumWeight: maxOpenedBytes,
			Weigher:       func(_ string, o *openedCookie) uint32 { return uint32(2*len(o.value)) + 512 },
		}),
	}
}

// maxOpenedBytes bounds the table of opened cookies. A session of ordinary size
// weighs four kilobytes there.
const maxOpenedBytes = 64 << 20

// cookieStore seals sessions into cookie values.
type cookieStore struct {
	keys func(context.Context) (*keyring, error)
	// opened holds sessions by the whole cookie value that was opened, so that the
	// same browser's next request costs no cryptography. An entry says nothing
	// about whether the session is over, or renewed: that is asked of renewals with
	// every request.
	//
	// The key is the value's tail, which is part of its authentication code, since
	// hashing all of it would cost more than the rest; the whole value is compared.
	opened *otter.Cache[string, *openedCookie]
}

// openedCookie is a cookie value and the session that it was opened to.
type openedCookie struct {
	value   string
	session *session
}

const tailLength = 32

func tailOf(value string) string { return value[max(0, len(value)-tailLength):] }

func (c *cookieStore) load(ctx context.Context, value string) (s *session, reseal, ok bool, err error) {
	if o, ok := c.opened.GetIfPresent(tailOf(value)); ok && o.value == value {
		return o.session, false, true, nil
	}
	keys, err := c.keys(ctx)
	if err != nil {
		return nil, false, false, err
	}
	record, previous, ok := keys.session.open(value)
	if !ok {
		return nil, false, false, nil
	}
	if s, err = parseSession(record); err != nil {
		return nil, false, false, nil // of another version: no session
	}
	if !previous {
		// The request's header is one long string; keep only our part of it.
		o := &openedCookie{strings.Clone(value), s}
		c.opened.Set(tailOf(o.value), o)
	}
	return s, previous, true, nil
}

func (c *cookieStore) save(ctx context.Context, s *session) (string, error) {
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

// remove implements sessionStore. The browser holds the session; what can be done
// here is to refuse it, which renewals does.
func (c *cookieStore) remove(context.Context, *session) error { return nil }

func (c *cookieStore) ready(ctx context.Context) error {
	_, err := c.keys(ctx)
	return err
}

func (c *cookieStore) close() { c.opened.StopAllGoroutines() }

// Interface guards.
var (
	_ caddy.Module          = (*CookieStore)(nil)
	_ caddyfile.Unmarshaler = (*CookieStore)(nil)
	_ storeModule           = (*CookieStore)(nil)
	_ sessionStore          = (*cookieStore)(nil)
)
