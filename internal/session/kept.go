package session

import (
	"time"
)

// RecordKey is the key that seals the record of one session. It is random for each
// session, and only the ticket holds it.
type RecordKey [32]byte

// Head is the part of a record that a store can read.
type Head struct {
	// Revision counts the writes of this record. A write names the revision that it
	// replaces.
	Revision uint64
	// Expires is the time from which the store may delete the record.
	Expires           time.Time
	Created, LastSeen time.Time
	// Pending is when a refresh token was sent. It is zero if the response to it has been
	// saved.
	Pending time.Time
	// User is the user's name in the index.
	User string
	Kind RecordKind
}

// RecordKind says how the session of a record ends.
type RecordKind string

const (
	// RecordLive is a session that began on the server. Deleting the record ends it.
	RecordLive RecordKind = "live"
	// RecordMoved is a session that was in a cookie before. That cookie still opens, so
	// the end of the session must be remembered.
	RecordMoved RecordKind = "moved"
	// RecordClaimed is a session like RecordMoved whose user the provider has not confirmed
	// yet: only the cookie says whose session it is. It becomes RecordMoved.
	RecordClaimed RecordKind = "claimed"
	// RecordGone remembers the end of a session that was moved from a cookie.
	RecordGone RecordKind = "gone"
)

// FromCookie reports whether the record's session was in a cookie before and has not ended.
func (k RecordKind) FromCookie() bool { return k == RecordMoved || k == RecordClaimed }

// Known reports whether this version has such records.
func (k RecordKind) Known() bool { return k == RecordLive || k == RecordGone || k.FromCookie() }
