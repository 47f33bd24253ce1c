package tollgate

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// placeholderPrefix begins every placeholder that tollgate sets.
const placeholderPrefix = "http.auth.user."

var placeholderNames = []string{
	"id", "username", "email", "balance", "balance_age", "balance_state", "quota", "used_quota", "status", "session",
}

// setPlaceholders makes the identity known to later directives and the access log.
// Each placeholder is there on every request: Caddy leaves an unknown one standing
// as text.
//
// They are worked out when somebody asks. Only where another directive has set a
// user before us must ours be written over it.
func setPlaceholders(repl *caddy.Replacer, id *identity) {
	if repl == nil {
		return
	}
	if id != nil {
		if _, taken := repl.Get(placeholderPrefix + "id"); taken {
			for _, name := range placeholderNames {
				repl.Set(placeholderPrefix+name, id.placeholder(name))
			}
			return
		}
	}
	repl.Map(func(key string) (any, bool) {
		name, ours := strings.CutPrefix(key, placeholderPrefix)
		if !ours {
			return nil, false
		}
		for _, known := range placeholderNames {
			if name == known {
				return id.placeholder(name), true
			}
		}
		return nil, false
	})
}

// placeholder is the value of one placeholder; empty for an anonymous request.
func (id *identity) placeholder(name string) string {
	if id == nil {
		return ""
	}
	switch name {
	case "id":
		return id.text(valueID)
	case "username":
		return id.text(valueUsername)
	case "email":
		return id.text(valueEmail)
	case "balance":
		return id.text(valueBalance)
	case "balance_age":
		return id.text(valueBalanceAge)
	case "balance_state":
		return id.text(valueBalanceState)
	case "quota":
		return id.text(valueQuota)
	case "used_quota":
		return id.text(valueUsedQuota)
	case "status":
		return id.info.text(fieldStatus)
	case "session":
		return id.session.id.hash()
	}
	return ""
}

// expand fills in the placeholders of operator text, once: what a client or the
// provider wrote is never expanded again (Caddy CVE-2026-30852).
func expand(repl *caddy.Replacer, template string) string {
	if repl == nil {
		return ""
	}
	return repl.ReplaceAll(template, "")
}
