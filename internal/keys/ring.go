// Package keys turns configured secrets into keys, one for each purpose and site, and
// seals and opens values with them.
//
// The first secret seals, and every secret opens. A Source returns the ring of keys, and
// makes a secret at its first call if none is configured. The packages above decide what is
// sealed: a session, a ticket or a login. Begin with NewRing.
package keys

// Limits of browsers and servers, in bytes. A browser silently drops a cookie whose name
// and value are longer than 4,096 bytes, and Caddy accepts 16 KiB of headers by default.
// All our cookies together stay under 8 KiB, with two exceptions: a pending login beside a
// session of the maximum size, and many logins that a browser begins at the same time.
const (
	// MaxCookie is the maximum length of one cookie, with its name and attributes.
	MaxCookie = 4096
	// MaxSessionValue is the maximum length of a sealed session. It is split into two
	// cookies, each with 160 bytes for the name and the attributes.
	MaxSessionValue = 2 * (MaxCookie - 160)
)

// Ring holds the keys of one site. All of them are derived from the site's secrets.
type Ring struct {
	// Session seals whole sessions, for the cookie store.
	Session *Sealer
	// Ticket seals the tickets of sessions on a server.
	Ticket *Sealer
	// Login seals pending logins.
	Login *Sealer
	// Moved holds the keys of the tickets for sessions that moved from a cookie to a
	// server: one for each secret, the current one first.
	Moved [][]byte
	// Index holds the keys of the users' names in the stores' indexes: one for each
	// secret, the current one first.
	Index [][]byte
	// Assertion signs the identity for the upstream.
	Assertion *Signing
}

// NewRing derives the keys of one site from its secrets, the current one first. The client
// id and the redirect URI identify the site.
func NewRing(secrets [][]byte, clientID, redirectURI string) (*Ring, error) {
	session, err := newSealer(secrets, clientID, redirectURI, purposeSession, MaxSessionValue)
	if err != nil {
		return nil, err
	}
	ticket, err := newSealer(secrets, clientID, redirectURI, purposeTicket, MaxCookie)
	if err != nil {
		return nil, err
	}
	login, err := newSealer(secrets, clientID, redirectURI, purposeLogin, MaxCookie-200)
	if err != nil {
		return nil, err
	}
	moved, err := deriveKeys(secrets, clientID, redirectURI, purposeMoved, 32)
	if err != nil {
		return nil, err
	}
	index, err := deriveKeys(secrets, clientID, redirectURI, purposeIndex, 32)
	if err != nil {
		return nil, err
	}
	assertion, err := newSigning(secrets, clientID, redirectURI)
	if err != nil {
		return nil, err
	}
	return &Ring{Session: session, Ticket: ticket, Login: login, Moved: moved, Index: index, Assertion: assertion}, nil
}
