// Package adminapi is the admin API for sessions as it is on the wire: its path and its
// types.
//
// The server side is in the module, which knows the stores. Begin with Path.
package adminapi

import (
	"errors"
	"fmt"
	"strings"
)

// Path is where the sessions stand on the admin endpoint.
const Path = "/tollgate/sessions"

// Sessions is what the sessions of a user are answered with.
type Sessions struct {
	Sessions []Session `json:"sessions"`
	// CookieSites are the sites whose sessions nobody can list or end.
	CookieSites []string `json:"cookie_sites,omitempty"`
}

// Session is one session in the answer. Times are Unix seconds.
type Session struct {
	// Session is its name in logs and audit lines, which opens nothing.
	Session   string `json:"session"`
	User      string `json:"user"`
	Site      string `json:"site"`
	CreatedAt int64  `json:"created_at"`
	// LastSeenAt moves with an idle timeout only: without one nobody writes it down.
	LastSeenAt int64 `json:"last_seen_at"`
	ExpiresAt  int64 `json:"expires_at"`
	// Unconfirmed sessions were in a cookie, and the provider has not confirmed yet that they
	// belong to this user. Such a session signs nobody in.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
}

// Ended says how many sessions were ended.
type Ended struct {
	Ended       int      `json:"ended"`
	CookieSites []string `json:"cookie_sites,omitempty"`
}

// CookieSitesError says why the sessions of some sites are out of reach, and what to do
// about it.
func CookieSitesError(origins []string) error {
	return fmt.Errorf("sessions in cookies cannot be listed or ended: configure `session { store storage }` or `session { store redis { … } }` for %s",
		strings.Join(origins, ", "))
}

var ErrNoName = errors.New("a session is named by 32 hex digits: the `session` of the list and of the audit lines")

// IsName reports whether a text could be the name of a session, as
// ID.hash makes it.
func IsName(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}
