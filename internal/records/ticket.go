package records

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Ticket is what the browser holds of a session that is kept on the server: the
// session's id, and the key that opens its record.
type Ticket struct {
	ID  session.ID
	Key session.RecordKey
}

// TicketVersion names the binary form below.
const TicketVersion = 1

func (t Ticket) AppendBinary(b []byte) []byte {
	b = append(b, TicketVersion)
	b = append(b, t.ID[:]...)
	return append(b, t.Key[:]...)
}

func ParseTicket(b []byte) (t Ticket, ok bool) {
	if len(b) != 1+len(t.ID)+len(t.Key) || b[0] != TicketVersion {
		return Ticket{}, false
	}
	copy(t.ID[:], b[1:])
	copy(t.Key[:], b[1+len(t.ID):])
	return t, true
}

// openTicket opens a cookie value that is a ticket, and says which secret had sealed it.
func openTicket(ring *keys.Ring, value string) (t Ticket, which int, ok bool) {
	plain, which, ok := ring.Ticket.Open(value)
	if !ok {
		return Ticket{}, 0, false
	}
	t, ok = ParseTicket(plain)
	return t, which, ok
}

// movedTicket is the ticket of a session that stood in a cookie so far. It is worked
// out from the session's id and the secret that had sealed the cookie, so that each
// of the requests that still carry the cookie finds the same record.
func movedTicket(id session.ID, movedKey []byte) Ticket {
	t := Ticket{ID: id}
	mac := hmac.New(sha256.New, movedKey)
	mac.Write(id[:])
	copy(t.Key[:], mac.Sum(nil))
	return t
}

// UserIndexName is what a user is called in the stores' indexes. A provider's ids
// are small numbers, which a plain hash would not hide.
func UserIndexName(indexKey []byte, userID string) string {
	mac := hmac.New(sha256.New, indexKey)
	mac.Write([]byte(userID))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
