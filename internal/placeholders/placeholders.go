// Package placeholders gives Caddy's replacer the identity of a request's user, for later
// directives and for the access log.
//
// It has no other placeholders: those of the configuration are read by internal/config. Begin
// with Set.
package placeholders

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// Of returns the replacer of a request, or nil if it has none.
func Of(r *http.Request) *caddy.Replacer {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl
}

// Prefix begins every placeholder that tollgate sets.
const Prefix = "http.auth.user."

// values are the names after the prefix, and their values.
var values = map[string]func(*identity.Identity) string{
	"id":            func(id *identity.Identity) string { return id.Text(identity.ValueID) },
	"username":      func(id *identity.Identity) string { return id.Text(identity.ValueUsername) },
	"email":         func(id *identity.Identity) string { return id.Text(identity.ValueEmail) },
	"balance":       func(id *identity.Identity) string { return id.Text(identity.ValueBalance) },
	"balance_age":   func(id *identity.Identity) string { return id.Text(identity.ValueBalanceAge) },
	"balance_state": func(id *identity.Identity) string { return id.Text(identity.ValueBalanceState) },
	"quota":         func(id *identity.Identity) string { return id.Text(identity.ValueQuota) },
	"used_quota":    func(id *identity.Identity) string { return id.Text(identity.ValueUsedQuota) },
	"status":        func(id *identity.Identity) string { return id.Info.Text(oauth.FieldStatus) },
	"session":       func(id *identity.Identity) string { return id.Session.ID.Hash() },
	"available":     func(id *identity.Identity) string { return id.Available },
}

// Names lists the names after the prefix.
func Names() []string { return slices.Sorted(maps.Keys(values)) }

// Set gives later directives and the access log the identity. Every placeholder is
// set on every request, and is empty for an anonymous one: Caddy would leave an unknown
// placeholder in the text.
//
// The values are computed on demand. They are set at once only if an earlier directive has
// already set a user, whose values must be overwritten.
func Set(repl *caddy.Replacer, id *identity.Identity) {
	if repl == nil {
		return
	}
	if id != nil {
		if _, taken := repl.Get(Prefix + "id"); taken {
			for name, value := range values {
				repl.Set(Prefix+name, value(id))
			}
			return
		}
	}
	repl.Map(func(key string) (any, bool) {
		name, ours := strings.CutPrefix(key, Prefix)
		value, known := values[name]
		switch {
		case !ours || !known:
			return nil, false
		case id == nil:
			return "", true
		default:
			return value(id), true
		}
	})
}

// Expand replaces the placeholders in the operator's text once. Text from a client or from the
// provider is never expanded again (Caddy CVE-2026-30852).
func Expand(repl *caddy.Replacer, template string) string {
	if repl == nil {
		return ""
	}
	return repl.ReplaceAll(template, "")
}
