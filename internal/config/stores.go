package config

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
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

// storeNamespace is the Caddy namespace of the session store modules.
const storeNamespace = "tollgate.stores"

// storeNames returns the names of the session stores in this build.
func storeNames() []string {
	var names []string
	for _, info := range caddy.GetModules(storeNamespace) {
		names = append(names, info.ID.Name())
	}
	return names
}

// CheckStoreModule checks that a store in JSON names a known module. Caddy's own error would
// print every value of the store, and one of the values may be a password.
func CheckStoreModule(store json.RawMessage) error {
	var named struct{ Module json.RawMessage }
	var name string
	err := json.Unmarshal(store, &named)
	if err == nil {
		err = json.Unmarshal(named.Module, &name)
	}
	if names := storeNames(); err != nil || !slices.Contains(names, name) {
		return Errorf("session.store.module", "must be one of %s; write the store as an object, for example {\"module\": \"storage\"}", strings.Join(names, ", "))
	}
	return nil
}

// IsCookieStore reports whether a store in JSON keeps sessions in the browser's cookie.
func IsCookieStore(store json.RawMessage) bool {
	if len(store) == 0 {
		return true
	}
	var named struct {
		Module string `json:"module"`
	}
	return json.Unmarshal(store, &named) == nil && named.Module == "cookie"
}

// Store reads the name of a session store and the store's own words.
func (p *Parser) Store(target *json.RawMessage) Word {
	return Word{Once: true, Parse: func(path string) error {
		if !p.NextArg() {
			return p.WrongArgs(path)
		}
		name := p.Val()
		names := storeNames()
		if !slices.Contains(names, name) {
			return p.Errf("unknown session store '%s'%s", name, DidYouMean(name, names))
		}
		module, err := caddyfile.UnmarshalModule(p.Dispenser, storeNamespace+"."+name)
		if err != nil {
			return err
		}
		*target = caddyconfig.JSONModuleObject(module, "module", name, nil)
		return nil
	}}
}
