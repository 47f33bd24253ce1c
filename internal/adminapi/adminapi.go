// Package adminapi defines the admin API for sessions: its path and its types.
//
// The module implements the server side, because it knows the stores. Begin with Path.
package adminapi

import (
	"errors"
	"fmt"
	"strings"
)

// Path is the path of the sessions on the admin endpoint.
const Path = "/tollgate/sessions"

// AllQuery is the query of a DELETE that ends the sessions of all users.
const AllQuery = "all=true"

// Sessions is the response for the sessions of a user.
type Sessions struct {
	Sessions []Session `json:"sessions"`
	// CookieSites are the sites whose sessions cannot be listed or ended.
	CookieSites []string `json:"cookie_sites,omitempty"`
}

// Session is one session in the response. Times are Unix seconds.
type Session struct {
	// Session is the session's name in logs and audit lines. It is not a credential.
	Session   string `json:"session"`
	User      string `json:"user"`
	Site      string `json:"site"`
	CreatedAt int64  `json:"created_at"`
	// LastSeenAt changes only if idle_timeout is configured; otherwise it is not recorded.
	LastSeenAt int64 `json:"last_seen_at"`
	ExpiresAt  int64 `json:"expires_at"`
	// Unconfirmed is true if the session comes from a cookie and the provider has not confirmed
	// yet that it belongs to this user. Such a session signs nobody in.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
}

// Ended is the number of sessions that were ended.
type Ended struct {
	Ended       int      `json:"ended"`
	CookieSites []string `json:"cookie_sites,omitempty"`
}

// CookieSitesError says why the sessions of some sites cannot be listed or ended, and what to
// do.
func CookieSitesError(origins []string) error {
	return fmt.Errorf("sessions in cookies cannot be listed or ended: configure `session { store storage }` or `session { store redis { … } }` for %s",
		strings.Join(origins, ", "))
}

// CookieSecretError says why the sessions of some sites cannot be ended all at once, and what
// ends them.
func CookieSecretError(origins []string) error {
	return fmt.Errorf("sessions in cookies cannot be ended by a command: to end all sessions of %s, replace its `secret` by a new one, and keep none of the old ones",
		strings.Join(origins, ", "))
}

// ErrNoName is the error for a text that is not the name of a session.
var ErrNoName = errors.New("a session is named by 32 hex digits: the `session` of the list and of the audit lines")

// IsName reports whether a text could be the name of a session, as ID.hash makes it.
func IsName(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}
