// Package session has the Session value, its binary form, the contract of a session
// store, and the Registry, in which this process remembers renewed and ended sessions.
//
// Package renewal refreshes the tokens, and package records keeps sessions on a server.
// Begin with Session, then Store.
package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/fnv"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/wire"
)

// ID identifies one session for its whole life. It has 128 random bits.
type ID [16]byte

// Hash returns the session's name in logs, in the admin API and in server-side stores. It
// finds the session's log lines and record, but nobody can sign in with it.
func (id ID) Hash() string {
	sum := sha256.Sum256(append([]byte("tollgate session hash\x00"), id[:]...))
	return hex.EncodeToString(sum[:16])
}

// Session is one signed-in browser: its user, and the user's tokens. A session is never
// changed after it is shared. A renewal makes a new value with the next generation.
type Session struct {
	ID         ID
	Generation uint64
	// Created never changes: the absolute lifetime counts from it.
	Created time.Time
	// LastSeen changes at most once in slideInterval, and only with an idle timeout.
	LastSeen time.Time
	Tokens   oauth.Tokens
	// User is the user information when this value was written. This process may have
	// newer information in account.Users.
	User oauth.UserInfo
	// Kept describes the session's record in a server-side store.
	Kept Kept
}

// Kept describes the record of a server-side store from which a session was read, or to
// which it was written.
type Kept struct {
	Key RecordKey
	Head
}

// NewSession returns a new session, after a successful code exchange. Only this function
// makes session ids; an id that a browser sends is never adopted (session fixation).
func NewSession(now time.Time, t oauth.Tokens, u oauth.UserInfo) *Session {
	s := &Session{Generation: 1, Created: now, LastSeen: now, Tokens: t, User: u}
	rand.Read(s.ID[:]) // never fails: the runtime ends the program instead
	return s
}

// Renewed returns the next generation of s, with the given tokens.
func (s *Session) Renewed(t oauth.Tokens) *Session {
	next := *s
	next.Tokens = t
	next.Generation++
	next.Kept.Pending = time.Time{}
	return &next
}

// MaxLifetime is the longest absolute lifetime of a session: the provider's
// refresh tokens live for 30 days, and no session outlives its refresh token.
const MaxLifetime = 30 * 24 * time.Hour

// slideInterval is how far LastSeen may lag behind, so that an idle timeout does not cost
// a new cookie with every response.
const slideInterval = time.Minute

// SlideDue reports whether LastSeen should be updated.
func (s *Session) SlideDue(now time.Time, idle time.Duration) bool {
	return idle > 0 && now.Sub(s.LastSeen) >= min(slideInterval, idle/4)
}

// Seen returns s with a later LastSeen. The tokens and the generation stay the same.
func (s *Session) Seen(now time.Time) *Session {
	next := *s
	next.LastSeen = now
	return &next
}

// KeptAs returns s with the given record, and with the later LastSeen of the two.
func (s *Session) KeptAs(k Kept) *Session {
	next := *s
	next.Kept = k
	if k.LastSeen.After(next.LastSeen) {
		next.LastSeen = k.LastSeen
	}
	return &next
}

// End returns the time at which s ends. Zero means no idle timeout.
func (s *Session) End(lifetime, idle time.Duration) time.Time {
	end := s.Created.Add(lifetime)
	if idle > 0 {
		end = Earlier(end, s.LastSeen.Add(idle))
	}
	return end
}

// RefreshAt returns the time from which a refresh is due: `before` ahead of the end of the
// access token, but never more than a fifth of its life, so that short-lived tokens are
// not refreshed all the time. A jitter of up to a tenth of that, fixed for each session,
// delays the refresh, so that sessions which began together do not refresh together.
func (s *Session) RefreshAt(before time.Duration) time.Time {
	window := min(before, s.Tokens.Expires.Sub(s.Tokens.Issued)/5)
	return s.Tokens.Expires.Add(-window + jitter(window/10, s.ID))
}

// jitter returns a duration from 0 to limit, always the same for one session.
func jitter(limit time.Duration, id ID) time.Duration {
	if limit <= 0 {
		return 0
	}
	h := fnv.New32a()
	h.Write(id[:])
	return time.Duration(int64(h.Sum32()) % int64(limit+1))
}

// Earlier returns the earlier of two times.
func Earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// ErrTooLarge says that the session, with its tokens, is too large for the store.
var ErrTooLarge = cause.Else(cause.SessionTooLarge, errors.New("the tokens do not fit into the session store"))

// recordVersion is the version of the binary form below. ParseSession refuses any other
// version.
const recordVersion = 1

// AppendBinary appends the compact binary form of s: version, id, numbers as
// uvarints, times in Unix milliseconds, texts behind their length.
func (s *Session) AppendBinary(b []byte) []byte {
	b = append(b, recordVersion)
	b = append(b, s.ID[:]...)
	b = binary.AppendUvarint(b, s.Generation)
	for _, t := range []time.Time{s.Created, s.LastSeen, s.Tokens.Issued, s.Tokens.Expires, s.User.ReadAt} {
		b = binary.AppendVarint(b, t.UnixMilli())
	}
	for _, text := range []string{s.Tokens.Access, s.Tokens.Refresh, s.Tokens.Scope} {
		b = wire.AppendText(b, text)
	}
	for _, value := range s.User.Fields {
		b = wire.AppendText(b, string(value))
	}
	return b
}

// errRecord says that the bytes are not exactly one session record of recordVersion.
var errRecord = errors.New("not a session record of this version")

// ParseSession reads the binary form. It returns errRecord if b is not exactly one record.
func ParseSession(b []byte) (*Session, error) {
	r := wire.NewReader(b)
	if r.Byte() != recordVersion {
		return nil, errRecord
	}
	s := &Session{}
	copy(s.ID[:], r.Bytes(len(s.ID)))
	s.Generation = r.Uvarint()
	var readAt time.Time
	for _, t := range []*time.Time{&s.Created, &s.LastSeen, &s.Tokens.Issued, &s.Tokens.Expires, &readAt} {
		*t = time.UnixMilli(r.Varint())
	}
	for _, text := range []*string{&s.Tokens.Access, &s.Tokens.Refresh, &s.Tokens.Scope} {
		*text = r.Text()
	}
	var fields [oauth.FieldCount]oauth.Scalar
	for i := range fields {
		fields[i] = oauth.Scalar(r.Text())
	}
	s.User = oauth.NewUserInfo(fields, readAt)
	if !r.Done() {
		return nil, errRecord
	}
	return s, nil
}

// OpenSession opens a cookie value that holds a whole session. which is the index of the
// secret that sealed it. ok is false if the value is not a session of this site.
func OpenSession(ring *keys.Ring, value string) (s *Session, which int, ok bool) {
	plain, which, ok := ring.Session.Open(value)
	if !ok {
		return nil, 0, false
	}
	s, err := ParseSession(plain)
	return s, which, err == nil // of another version: no session
}
