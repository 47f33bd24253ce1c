// Package session has the Session value, its binary form, the contract of a session
// store, and the Registry: what this process remembers of sessions beyond the cookies
// that browsers send.
//
// How tokens are refreshed is the concern of package renewal, and how a store on the
// server keeps records that of package records. Begin with Session, then Store.
package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/fnv"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/wire"
)

// ID names one session for its whole life: 128 random bits.
type ID [16]byte

// Hash is what logs, operators and server-side stores call a session: it finds the
// session's lines and its record, and opens nothing.
func (id ID) Hash() string {
	sum := sha256.Sum256(append([]byte("tollgate session hash\x00"), id[:]...))
	return hex.EncodeToString(sum[:16])
}

// Session is one signed-in browser: who it is, and the tokens that speak for the
// user. A session is never changed once it is shared; a renewal makes a new value
// with the next generation.
type Session struct {
	ID         ID
	Generation uint64
	// Created never moves: the absolute lifetime counts from it.
	Created time.Time
	// LastSeen moves at most once in slideInterval, and only with an idle timeout.
	LastSeen time.Time
	Tokens   oauth.Tokens
	// User is what the provider said when this value was written. Newer
	// information, where this process has it, is in Users.
	User oauth.UserInfo
	// Kept is where and how a server-side store keeps this session.
	Kept Kept
}

// Kept is the record of a server-side store that a session was read from, or was
// written to.
type Kept struct {
	Key RecordKey
	Head
}

// NewSession starts a session. An id is only ever minted here, after a
// successful exchange; one that a browser brings along is never adopted.
func NewSession(now time.Time, t oauth.Tokens, u oauth.UserInfo) *Session {
	s := &Session{Generation: 1, Created: now, LastSeen: now, Tokens: t, User: u}
	rand.Read(s.ID[:]) // never fails: the runtime ends the program instead
	return s
}

// Renewed is s with other tokens.
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

// slideInterval is how far lastSeen may lag behind, so that an idle timeout does
// not cost a new cookie with every answer.
const slideInterval = time.Minute

// SlideDue reports whether lastSeen should be written anew.
func (s *Session) SlideDue(now time.Time, idle time.Duration) bool {
	return idle > 0 && now.Sub(s.LastSeen) >= min(slideInterval, idle/4)
}

// Seen is s with a later lastSeen. The tokens, and so the generation, stay.
func (s *Session) Seen(now time.Time) *Session {
	next := *s
	next.LastSeen = now
	return &next
}

// KeptAs is s in the place of another record, whose uses it takes over.
func (s *Session) KeptAs(k Kept) *Session {
	next := *s
	next.Kept = k
	if k.LastSeen.After(next.LastSeen) {
		next.LastSeen = k.LastSeen
	}
	return &next
}

// End is the moment from which s is no session any more.
func (s *Session) End(lifetime, idle time.Duration) time.Time {
	end := s.Created.Add(lifetime)
	if idle > 0 {
		end = Earlier(end, s.LastSeen.Add(idle))
	}
	return end
}

// RefreshAt is the moment from which a refresh is due: `before` ahead of the
// token's end, but never more than a fifth of its life, so that short tokens are
// not refreshed all the time. Up to a tenth of that is taken off again, by
// session, so that sessions which began together do not refresh together.
func (s *Session) RefreshAt(before time.Duration) time.Time {
	window := min(before, s.Tokens.Expires.Sub(s.Tokens.Issued)/5)
	return s.Tokens.Expires.Add(-window + jitter(window/10, s.ID))
}

// jitter is a duration from 0 to limit that is always the same for one session.
func jitter(limit time.Duration, id ID) time.Duration {
	if limit <= 0 {
		return 0
	}
	h := fnv.New32a()
	h.Write(id[:])
	return time.Duration(int64(h.Sum32()) % int64(limit+1))
}

func Earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// ErrTooLarge: the session, with its tokens, does not fit where the store
// keeps it.
var ErrTooLarge = errors.New("the session is too large for its store: with `session { store storage }` tokens may have any ordinary size")

// Store keeps sessions between requests. No store knows the handler, and
// the handler knows no store by name.
//
// Yes, no and broken are never mixed up: load finds a session; or none, with a nil
// error (the value is missing, foreign, outdated or made up); or it fails, because
// the store cannot say, and a failure never signs anybody out.
type Store interface {
	// Load finds the session that a cookie value stands for.
	Load(ctx context.Context, value string) (Found, error)

	// Create keeps a new session, and gives it back as it was kept.
	Create(ctx context.Context, s *Session) (*Session, error)

	// Cookie gives the cookie value that stands for a session that is kept.
	Cookie(ctx context.Context, s *Session) (value string, err error)

	// End makes s no session any more from the given moment on, as far as the store
	// can.
	End(ctx context.Context, s *Session, from time.Time) error

	// Ready reports whether the store could serve a request now, a sign-in included.
	Ready(ctx context.Context) error

	// Close lets go of what the store holds. Requests may still be under way with it.
	Close()
}

// Found is what a store found.
type Found struct {
	Session *Session // nil: there is none
	// Ours: this site has sealed the value, whether or not its session still lives.
	Ours bool
	// Rewrite: the browser should be given its cookie anew, since the secret or the
	// store has changed.
	Rewrite bool
}

// RecordVersion names the binary form below. A record of any other version is no
// session; it is never read by guess.
const RecordVersion = 1

// AppendBinary appends the compact binary form of s: version, id, numbers as
// uvarints, times in Unix milliseconds, texts behind their length.
func (s *Session) AppendBinary(b []byte) []byte {
	b = append(b, RecordVersion)
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

var ErrRecord = errors.New("not a session record of this version")

// ParseSession reads the binary form. Whatever is not exactly one record, to its
// last byte, is an error.
func ParseSession(b []byte) (*Session, error) {
	r := wire.NewReader(b)
	if r.Byte() != RecordVersion {
		return nil, ErrRecord
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
		return nil, ErrRecord
	}
	return s, nil
}

// OpenSession opens a cookie value that is a whole session, and says which secret
// had sealed it.
func OpenSession(ring *keys.Ring, value string) (s *Session, which int, ok bool) {
	plain, which, ok := ring.Session.Open(value)
	if !ok {
		return nil, 0, false
	}
	s, err := ParseSession(plain)
	return s, which, err == nil // of another version: no session
}
