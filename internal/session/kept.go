package session

import (
	"time"
)

// RecordKey seals one session's record. It is made at random for each session, and
// only the ticket holds it.
type RecordKey [32]byte

type Head struct {
	// Revision counts what was written in this place; a write names the revision
	// that it replaces.
	Revision uint64
	// Expires is when the record may be forgotten.
	Expires           time.Time
	Created, LastSeen time.Time
	// Pending is when a refresh token was sent whose answer is not written down yet.
	Pending time.Time
	// User is the user's name in the index.
	User string
	Kind RecordKind
}

// RecordKind tells records apart that end in different ways.
type RecordKind string

const (
	RecordLive RecordKind = "live"
	// RecordMoved: the session stood in a cookie before. That cookie still opens, so
	// the end of the session has to be remembered.
	RecordMoved RecordKind = "moved"
	// RecordGone remembers the end of a session that was moved.
	RecordGone RecordKind = "gone"
)
