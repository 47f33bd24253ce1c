package tollgate

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// ticket is what the browser holds of a session that is kept on the server: the
// session's id, and the key that opens its record.
type ticket struct {
	id  sessionID
	key recordKey
}

// ticketVersion names the binary form below.
const ticketVersion = 1

func (t ticket) appendBinary(b []byte) []byte {
	b = append(b, ticketVersion)
	b = append(b, t.id[:]...)
	return append(b, t.key[:]...)
}

func parseTicket(b []byte) (t ticket, ok bool) {
	if len(b) != 1+len(t.id)+len(t.key) || b[0] != ticketVersion {
		return ticket{}, false
	}
	copy(t.id[:], b[1:])
	copy(t.key[:], b[1+len(t.id):])
	return t, true
}

// openTicket opens a cookie value that is a ticket, and says which secret had sealed it.
func openTicket(keys *keyring, value string) (t ticket, which int, ok bool) {
	plain, which, ok := keys.ticket.open(value)
	if !ok {
		return ticket{}, 0, false
	}
	t, ok = parseTicket(plain)
	return t, which, ok
}

// movedTicket is the ticket of a session that stood in a cookie so far. It is worked
// out from the session's id and the secret that had sealed the cookie, so that each
// of the requests that still carry the cookie finds the same record.
func movedTicket(id sessionID, movedKey []byte) ticket {
	t := ticket{id: id}
	mac := hmac.New(sha256.New, movedKey)
	mac.Write(id[:])
	copy(t.key[:], mac.Sum(nil))
	return t
}

// userIndexName is what a user is called in the stores' indexes. A provider's ids
// are small numbers, which a plain hash would not hide.
func userIndexName(indexKey []byte, userID string) string {
	mac := hmac.New(sha256.New, indexKey)
	mac.Write([]byte(userID))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
