// Package storage keeps sessions in the storage that Caddy is configured with.
//
// It does not decide which sessions exist or when they end: package records does, with the
// Records of this package. Begin with Store for the settings, and with Records for the reads
// and writes.
package storage

import (
	"cmp"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func init() {
	caddy.RegisterModule(Store{})
}

// Store keeps sessions in the storage that Caddy is configured with: files in
// Caddy's data folder, unless the global option `storage` names another storage. Nothing has
// to be installed. Sessions survive restarts, signing out is final, and an operator
// can list and end sessions. Several processes that share the storage can share the
// sessions. The storage's lock then prevents two processes from using one refresh token.
//
// The site should have a `secret`. Without one the secret is kept in the same storage. A
// copy of the storage is then enough to forge sessions.
type Store struct {
	// How long after the start sessions in cookies are moved to the store. Use it when you
	// change from `store cookie`. At most 30d. The time counts from the first configuration
	// of the process that has this option. A reload does not prolong it, and a restart begins
	// it again. The user information of a moved session is read again before its first use.
	// Default: off, which means that users with a session in a cookie have to sign in again.
	FromCookies caddy.Duration `json:"from_cookies,omitempty"`

	storage certmagic.Storage
	logger  *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tollgate.stores.storage",
		New: func() caddy.Module { return new(Store) },
	}
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Caddy's global option
// `storage` says where the storage is.
//
//	store storage {
//		from_cookies off|<duration>
//	}
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	if d.NextArg() {
		return d.Errf("%s: Caddy's global option `storage` says where the storage is", config.StoreSetting)
	}
	p := config.NewParser(d, "store storage", config.StoreSetting)
	if err := p.Block(config.StoreSetting, config.Words{"from_cookies": p.DurationOrOff(&s.FromCookies)}); err != nil {
		return err
	}
	return p.TryOut(s.resolve)
}

// UnmarshalJSON reads JSON as strictly as Caddy does. Its errors show no secret.
func (s *Store) UnmarshalJSON(text []byte) error {
	type plain Store
	return config.UnmarshalStrict(text, (*plain)(s))
}

// Provision checks the settings.
func (s *Store) Provision(ctx caddy.Context) error {
	s.storage, s.logger = ctx.Storage(), ctx.Logger()
	return s.resolve(caddy.NewReplacer())
}

func (s *Store) resolve(repl *caddy.Replacer) error {
	r := &config.Resolver{Repl: repl}
	config.ResolveFromCookies(r, s.FromCookies, session.MaxLifetime)
	if r.Err != nil {
		return r.Err
	}
	return nil
}

// Open implements session.Module.
func (s *Store) Open(env session.Env) session.Store {
	if !env.SecretGiven {
		s.logger.Warn("store storage without secret: the secret is kept in Caddy's storage, beside the sessions; " +
			"a copy of the storage is enough to open every cookie of the site; set `secret` to a value that `caddy tollgate keygen` prints")
	}
	kept := NewRecords(s.storage)
	kept.Timeout = cmp.Or(env.Timeout, kept.Timeout)
	return records.NewTickets(env, kept, env.Takeover(time.Duration(s.FromCookies)))
}

// Interface guards.
var (
	_ caddy.Provisioner     = (*Store)(nil)
	_ caddy.Module          = (*Store)(nil)
	_ caddyfile.Unmarshaler = (*Store)(nil)
	_ session.Module        = (*Store)(nil)
)
