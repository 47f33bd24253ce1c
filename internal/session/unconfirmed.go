package session

import (
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// UnconfirmedUser is what a session that was taken over from a cookie keeps of its user:
// the id, which the cookie claims. Whoever knows the secret can put any id into a
// cookie, so the provider has to say whose access token it is.
func UnconfirmedUser(claimed oauth.UserInfo) oauth.UserInfo {
	var fields [oauth.FieldCount]oauth.Scalar
	fields[oauth.FieldID] = claimed.Fields[oauth.FieldID]
	return oauth.NewUserInfo(fields, time.Time{})
}

// IsUnconfirmed reports whether only a cookie has said who the session's user is.
func (s *Session) IsUnconfirmed() bool { return s.User.ReadAt.IsZero() }
