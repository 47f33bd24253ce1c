package config

import (
	"time"

	"github.com/caddyserver/caddy/v2"
)

// StoreSetting is the setting that selects the store.
const StoreSetting = "session.store"

// ResolveFromCookies checks from_cookies, which all server-side stores have. longest is the
// longest lifetime of a session.
func ResolveFromCookies(r *Resolver, d caddy.Duration, longest time.Duration) {
	const setting = StoreSetting + ".from_cookies"
	r.Duration(setting, d, 0)
	if time.Duration(d) > longest {
		r.Fail(setting, "must not be more than 30d: no session lives longer")
	}
}
