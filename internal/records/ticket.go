package records

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Ticket is the content of the session cookie if the session is kept on a server: the
// session's id, and the key that opens its record.
type Ticket struct {
	ID  session.ID
	Key session.RecordKey
}

// ticketVersion is the version of the binary form below.
const ticketVersion = 1

// AppendBinary appends the binary form of t: version, id, key.
func (t Ticket) AppendBinary(b []byte) []byte {
	b = append(b, ticketVersion)
	b = append(b, t.ID[:]...)
	return append(b, t.Key[:]...)
}

// parseTicket reads the binary form. ok is false if b is anything else.
func parseTicket(b []byte) (t Ticket, ok bool) {
	if len(b) != 1+len(t.ID)+len(t.Key) || b[0] != ticketVersion {
		return Ticket{}, false
	}
	copy(t.ID[:], b[1:])
	copy(t.Key[:], b[1+len(t.ID):])
	return t, true
}

// openTicket opens a cookie value that holds a ticket. which is the index of the secret
// that sealed it.
func openTicket(ring *keys.Ring, value string) (t Ticket, which int, ok bool) {
	plain, which, ok := ring.Ticket.Open(value)
	if !ok {
		return Ticket{}, 0, false
	}
	t, ok = parseTicket(plain)
	return t, which, ok
}

// movedTicket returns the ticket of a session that was in a cookie before. It is derived
// from the session's id and the secret that sealed the cookie, so that all requests that
// still send the cookie find the same record.
func movedTicket(id session.ID, movedKey []byte) Ticket {
	t := Ticket{ID: id}
	mac := hmac.New(sha256.New, movedKey)
	mac.Write(id[:])
	copy(t.Key[:], mac.Sum(nil))
	return t
}

// UserIndexName returns the user's name in the stores' indexes. It is a keyed hash:
// providers use small numbers as ids, and a plain hash would not hide them.
func UserIndexName(indexKey []byte, userID string) string {
	mac := hmac.New(sha256.New, indexKey)
	mac.Write([]byte(userID))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
