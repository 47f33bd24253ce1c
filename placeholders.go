package tollgate

import (
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// placeholderPrefix begins every placeholder that tollgate sets.
const placeholderPrefix = "http.auth.user."

// placeholders are what may follow the prefix.
var placeholders = map[string]func(*identity.Identity) string{
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
}

// setPlaceholders makes the identity known to later directives and the access log.
// Each placeholder is there on every request, and empty for an anonymous one: Caddy
// leaves an unknown placeholder standing as text.
//
// They are worked out when somebody asks. Only where another directive has set a
// user before us must ours be written over it.
func setPlaceholders(repl *caddy.Replacer, id *identity.Identity) {
	if repl == nil {
		return
	}
	if id != nil {
		if _, taken := repl.Get(placeholderPrefix + "id"); taken {
			for name, value := range placeholders {
				repl.Set(placeholderPrefix+name, value(id))
			}
			return
		}
	}
	repl.Map(func(key string) (any, bool) {
		name, ours := strings.CutPrefix(key, placeholderPrefix)
		value, known := placeholders[name]
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

// expand fills in the placeholders of operator text, once: what a client or the
// provider wrote is never expanded again (Caddy CVE-2026-30852).
func expand(repl *caddy.Replacer, template string) string {
	if repl == nil {
		return ""
	}
	return repl.ReplaceAll(template, "")
}
