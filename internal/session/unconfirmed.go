package session

import (
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// UnconfirmedUser returns the user information of a session that was taken over from a
// cookie: only the id that the cookie claims. Anyone who knows the secret can put any id
// into a cookie, so the provider must confirm whose access token it is.
func UnconfirmedUser(claimed oauth.UserInfo) oauth.UserInfo {
	var fields [oauth.FieldCount]oauth.Scalar
	fields[oauth.FieldID] = claimed.Fields[oauth.FieldID]
	return oauth.NewUserInfo(fields, time.Time{})
}

// IsUnconfirmed reports whether the provider has not confirmed the session's user yet.
func (s *Session) IsUnconfirmed() bool { return s.User.ReadAt.IsZero() }
