package identity

import (
	"encoding/json"
	"maps"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// Document is the response of the endpoints userinfo and refresh: the provider's members with
// the provider's types, the balance with its age, and the session's times.
type Document struct {
	*Identity
	// Expires is when the session ends if it is not used again.
	Expires time.Time
	// Extra are more members.
	Extra map[string]any
}

// MarshalJSON implements json.Marshaler.
func (d Document) MarshalJSON() ([]byte, error) {
	members := make(map[string]any, oauth.FieldCount+4)
	for f, name := range oauth.UserFieldJSON {
		members[name] = nil
		if raw := d.Info.Fields[f]; raw != "" {
			members[name] = json.RawMessage(raw)
		}
	}
	balance := map[string]any{"value": nil, "state": d.State, "age": int64(max(d.Age, 0) / time.Second)}
	if d.Told {
		balance["value"] = d.Text(ValueBalance)
	}
	members["balance"] = balance
	members["session"] = map[string]int64{
		"issued_at":  d.Session.Created.Unix(),
		"expires_at": d.Expires.Unix(),
	}
	maps.Copy(members, d.Extra)
	return json.Marshal(members)
}
